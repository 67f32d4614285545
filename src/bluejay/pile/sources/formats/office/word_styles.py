"""The styles of paragraphs in Word's documents, and the numbers of its lists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bluejay.pile.sources.formats.office.blocks import in_form
from bluejay.pile.sources.formats.office.parts import as_number, attribute, child
from bluejay.pile.sources.io.elements import local_name

FORMS = {"decimalZero": "01", "lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I"}
"""Word's names of the forms of numbers; all others are written in digits."""
PLACE = re.compile(r"%(\d)")
"""Where the number of a level stands in that of an item."""
HEADING = re.compile(r"heading (\d)\b")
CODE = {"html preformatted", "source code", "code", "preformatted text", "plain text", "macro text", "macro"}
"""Names of styles whose paragraphs are lines of code."""
GENERATED = {"TOC", "INDEX", "TOA"}
"""Fields whose result is a table of contents, an index or a table of authorities."""
LEVELS, BODY_LEVEL = 9, 9
OFF = ("0", "false", "off", "none")
MAX_STYLES = 30
"""Styles that one may be based on; more are a circle."""


def is_on(node: Any, *path: str) -> bool:
    """Whether a property that an element has, or has not, is on."""
    found = child(node, *path) if node is not None else None
    return found is not None and attribute(found, "val") not in OFF


def number_in(node: Any, *path: str) -> int | None:
    """The number that a property is; None without one."""
    found = child(node, *path) if node is not None else None
    value = "" if found is None else attribute(found, "val")
    return int(value) if re.fullmatch(r"-?\d{1,9}", value) else None


class Styles:
    """The styles of a document, by the names that its paragraphs have for them."""

    def __init__(self, root: Any) -> None:
        found = [] if root is None else [node for node in root if local_name(node) == "style"]
        self.styles = {attribute(node, "styleId"): node for node in found}

    def chain(self, name: str) -> Iterator[Any]:
        """A style and those that it is based on."""
        for _ in range(MAX_STYLES):
            if (style := self.styles.get(name)) is None:
                return
            yield style
            base = child(style, "basedOn")
            name = "" if base is None else attribute(base, "val")

    def names(self, name: str) -> list[str]:
        """What a style and those that it is based on are called, in small letters."""
        found = (child(style, "name") for style in self.chain(name))
        return [attribute(node, "val").lower() for node in found if node is not None]

    def heading_level(self, name: str, properties: Any) -> int:
        """The level of a heading in a style, with its own properties, from 1 on; 0 for other paragraphs."""
        own = number_in(properties, "outlineLvl")
        if own is None:
            for style in self.chain(name):
                named = child(style, "name")
                called = "" if named is None else attribute(named, "val").lower()
                if called == "title":
                    return 1
                own = number_in(style, "pPr", "outlineLvl")
                if own is None and (found := HEADING.match(called)):
                    own = int(found[1]) - 1
                if own is not None:
                    break
        return own + 1 if own is not None and 0 <= own < BODY_LEVEL else 0

    def is_code(self, name: str) -> bool:
        """Whether the paragraphs of a style are lines of code."""
        return not CODE.isdisjoint(self.names(name))

    def is_hidden(self, name: str) -> bool | None:
        """Whether a style hides its text; None where it does not say."""
        found = (child(style, "rPr", "vanish") for style in self.chain(name))
        return next((attribute(node, "val") not in OFF for node in found if node is not None), None)


@dataclass
class Level:
    """How the items of one level of a list are numbered."""

    form: str
    text: str
    """The number of an item, in which %1 stands for that of the first level."""
    start: int
    is_legal: bool
    """Whether the numbers of all levels are written in digits."""
    restarts: int
    """The level, from 1 on, after which the numbers start again; 0 for never."""


class Numbering:
    """The lists of a document. Lists of one definition are numbered on; one with a start of its own starts again."""

    def __init__(self, root: Any, styles: Styles) -> None:
        nodes = [] if root is None else list(root)
        defined = {attribute(node, "abstractNumId"): node for node in nodes if local_name(node) == "abstractNum"}
        links = {
            attribute(link, "val"): node for node in defined.values() if (link := child(node, "styleLink")) is not None
        }
        self.lists = {number_of(node): node for node in nodes if local_name(node) == "num"}
        self.definitions: dict[int, Any] = {}
        for key, node in self.lists.items():
            named = child(node, "abstractNumId")
            definition = defined.get("" if named is None else attribute(named, "val"))
            link = None if definition is None else child(definition, "numStyleLink")
            if link is not None:
                definition = links.get(attribute(link, "val"), definition)
            self.definitions[key] = definition
        self.styles = styles
        self.counts: dict[int, list[int | None]] = {}
        self.started: set[tuple[int, int]] = set()
        self.levels: dict[tuple[int, int], Level | None] = {}

    def place(self, style: str, properties: Any) -> tuple[int, int]:
        """The list, and the level from 0 on, that a paragraph in a style is an item of; the list 0 is none."""
        key, level = number_in(properties, "numPr", "numId"), number_in(properties, "numPr", "ilvl")
        for found in self.styles.chain(style):
            if key is not None:
                break
            key = number_in(found, "pPr", "numPr", "numId")
            if key is not None and level is None:
                level = number_in(found, "pPr", "numPr", "ilvl")
                level = self.level_of(key, attribute(found, "styleId")) if level is None else level
        if key not in self.lists:
            return 0, 0
        return key, min(max(level or 0, 0), LEVELS - 1)

    def level_of(self, key: int, style: str) -> int | None:
        """The level of a list that a style is for."""
        definition = self.definitions.get(key)
        for node in () if definition is None else definition:
            linked = child(node, "pStyle") if local_name(node) == "lvl" else None
            if linked is not None and attribute(linked, "val") == style:
                return number_of(node, "ilvl")
        return None

    def mark(self, key: int, level: int) -> str:
        """The mark of the next item of a list: "-", "2.1."; empty where items have none."""
        definition, how = self.definitions[key], self.level(key, level)
        if how is None or how.form == "bullet":
            return "-"
        none: list[int | None] = [None] * LEVELS
        counts = self.counts.setdefault(id(definition), none)
        if (key, level) not in self.started:
            self.started.add((key, level))
            if self.override(key, level) is not None:
                counts[level] = None
        for above in range(level):  # an item that was left out counts
            of = self.level(key, above)
            counts[above] = of.start if counts[above] is None and of is not None else counts[above]
        current = counts[level]
        counts[level] = how.start if current is None else current + 1
        for deeper in range(level + 1, LEVELS):
            below = self.level(key, deeper)
            if below is None or (below.restarts and level < below.restarts):
                counts[deeper] = None

        def number(found: re.Match[str]) -> str:
            at = int(found[1]) - 1
            of = self.level(key, at) if 0 <= at < LEVELS else None
            if of is None or of.form == "none":
                return ""
            count = counts[at]
            return in_form(of.start if count is None else count, "1" if how.is_legal else of.form)

        return PLACE.sub(number, how.text).strip()

    def override(self, key: int, level: int) -> Any:
        """What a list changes in a level of its definition, if it has a start of its own."""
        for node in self.lists[key]:
            if local_name(node) == "lvlOverride" and number_of(node, "ilvl") == level:
                return node if child(node, "startOverride") is not None else None
        return None

    def level(self, key: int, level: int) -> Level | None:
        """How a level of a list is numbered; None where nothing says so."""
        if (key, level) not in self.levels:
            self.levels[key, level] = self.read_level(key, level)
        return self.levels[key, level]

    def read_level(self, key: int, level: int) -> Level | None:
        """`level`, from the document."""
        own = [
            node for node in self.lists[key] if local_name(node) == "lvlOverride" and number_of(node, "ilvl") == level
        ]
        definition = self.definitions[key]
        nodes = [*(part for node in own for part in node), *(() if definition is None else definition)]
        node = next((n for n in nodes if local_name(n) == "lvl" and number_of(n, "ilvl") == level), None)
        if node is None:
            return None
        forms = [attribute(form, "val") for form in node.iter("{*}numFmt")]
        form = next((name for name in forms if name != "custom"), "decimal")
        text = child(node, "lvlText")
        starts = next((start for part in own if (start := number_in(part, "startOverride")) is not None), None)
        start = number_in(node, "start") if starts is None else starts
        restarts = number_in(node, "lvlRestart")
        return Level(
            form if form in ("bullet", "none") else FORMS.get(form, "1"),
            "" if text is None else attribute(text, "val"),
            0 if start is None else start,
            is_on(node, "isLgl"),
            level if restarts is None else restarts,
        )


def number_of(node: Any, name: str = "numId") -> int:
    """A number that an element has as an attribute; -1 without one."""
    return as_number(attribute(node, name), -1)


def is_generated(code: str) -> bool:
    """Whether the result of a field with this code is made of the headings or entries of the document."""
    return (code.split() or [""])[0].upper() in GENERATED
