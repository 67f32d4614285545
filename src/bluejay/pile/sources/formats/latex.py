"""Articles in LaTeX: files with those that they include, or archives of a paper's sources as on arXiv."""

import io
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, ClassVar, Literal

from bluejay.fetch import is_address
from bluejay.pile.documents import Document, Skipped, is_machine_fault, read_bounded, read_until_damaged
from bluejay.pile.sources.formats.latex_text import convert, definitions, group, with_environments
from bluejay.pile.sources.io.decode import decode, file_text, is_binary
from bluejay.pile.sources.io.open import BROKEN, decompressed, open_raw
from bluejay.pile.sources.io.records import RecordFiles
from bluejay.pile.sources.io.sandbox import sandboxed
from bluejay.recipe import at_home

NEVER = r"\\(?:iffalse(?![a-zA-Z@])|if[ \t]*0(?![0-9\\#]))"
"""What begins a branch that TeX never takes. A macro behind the 0 may be another 0."""
VERBATIM = (
    r"\\begin\{(?P<name>verbatim\*?|lstlisting|minted|Verbatim)\}.*?\\end\{(?P=name)\}"
    r"|\\(?:verb\*?|Verb\*?|lstinline(?:\[[^\]\n]*\])?|mintinline(?:\[[^\]\n]*\])?\{\w*\})"
    r"(?:(?P<bar>[^a-zA-Z\s*{\[])[^\n]*?(?P=bar)|\{[^{}\n]*\})"
)
"""Text in which no command is one."""
SOURCE = re.compile(
    rf"(?P<kept>{VERBATIM}"
    r"|\\(?:href|url|nolinkurl|path|burl|hyperimage|hyperref)\*?\s*(?:\[[^\]\n]*\]\s*)?\{(?:[^{}\n]|\{[^{}\n]*\})*\}"
    r"|\\url(?P<mark>[^a-zA-Z\s{*])[^\n]*?(?P=mark)"
    rf"|(?!{NEVER})\\.)|(?P<never>{NEVER})|%[^\n]*(?:\n(?![ \t\r]*(?:\n|\Z))[ \t]*)?",
    re.DOTALL,
)
"""Comments, with the end of their line unless an empty line follows; what is never printed; and what may hold a percent
sign that begins no comment: verbatim text, addresses, escaped characters."""
CONDITIONAL = re.compile(
    r"\\(?:(?P<begins>if(?!f\b|thenelse|blank|bool|toggle|str|def(?:empty|string|void))[a-zA-Z@]*)|(?P<other>else|fi))"
    r"(?![a-zA-Z@])|\\.|%[^\n]*",
    re.DOTALL,
)
"""The parts of TeX's conditionals, but for what packages define with arguments in braces; escapes, and comments."""
INPUT = re.compile(
    rf"(?P<kept>{VERBATIM})"
    r"|\\(?:sub)?(?:import|includefrom|inputfrom)\*?\s*\{(?P<within>[^{}]*)\}\s*\{(?P<file>[^{}]+)\}"
    r"|\\(?:input|(?P<page>include)|subfile|InputIfFileExists)\s*\{(?P<braced>[^{}]+)\}|\\input\s+(?P<bare>[^\s{}\\]+)",
    re.DOTALL,
)
"""A file that is included; its folder may be given by itself, as the package import has it. By `include` it begins on a
page of its own."""
MAY_INCLUDE = re.compile(rb"\\(?:input|include|subfile|InputIfFileExists|(?:sub)?(?:import|includefrom|inputfrom))\b")
"""What a file has that includes others."""
MADE_BY_TEX = re.compile(r"[#\\]|\.(?:bbl|toc|aux|ind|gls)$")
"""Names that only TeX can complete, and files that it makes."""
ENCODING = re.compile(
    rb"^[^%\n]*\\(?:usepackage\s*\[([\w-]+)\]\s*\{inputenc\}|inputencoding\s*\{([\w-]+)\})", re.MULTILINE
)
"""The encoding that a source declares by the package inputenc."""
NAMES = {"ansinew": "windows-1252", "applemac": "macintosh", "macce": "mac-latin2", "maccyr": "mac-cyrillic"}
"""The package's names for encodings that have others elsewhere."""
ENDINGS = (".tex", ".ltx")
CLASS = re.compile(r"\\document(?:class|style)\b")
"""What the main file of a paper has."""
BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
"""The body of a document, to the end of the source where it is not closed."""
MAX_DEPTH = 8
"""Length of the longest chain of files that include one another."""


@dataclass(frozen=True, kw_only=True)
class Latex(RecordFiles):
    """Each article is one document, as Markdown: headings, paragraphs, lists, and formulas in their LaTeX source.

    An article has the files that it includes in their places, and these are no articles of their own. On disk they are
    in the folder of `path`, or in those below. In an archive, the article is the file that has a document class.
    """

    MISSING: ClassVar[str] = "an included file is missing"
    kind: Literal["latex"] = "latex"

    def units(self) -> list[str]:
        """The files, in order, without those that others include. Raises ValueError: there is none."""
        found = super().units()
        within = {os.path.realpath(file): {*map(os.path.realpath, self.files_of(file)[1:])} for file in found}
        parts = {part for file, files in within.items() for part in files if file not in within.get(part, ())}
        return [file for file in found if os.path.realpath(file) not in parts]

    def files_of(self, unit: str) -> list[str]:
        """The files that a unit is read from: itself, and those that it includes."""
        if not includes_on_disk(unit):
            return [unit]
        try:
            found = list(sandboxed(IncludedFiles(path=self.path), unit, None))
        except ValueError as error:
            if is_machine_fault(error):
                raise
            return [unit]  # reading it says why
        return [unit, *(one.text for one in found if isinstance(one, Document) and one.text != unit)]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        kind = LatexOnDisk if includes_on_disk(unit) else Latex
        return sandboxed(kind(path=self.path, licence=self.licence), unit, None)

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The whole source of the article; then an exception for each file that it includes and that is missing."""
        raw, damage = read_until_damaged(decompressed(stream))
        packed = io.BytesIO(raw)
        if tarfile.is_tarfile(packed):
            files, cut = members(packed)
            damage = damage or cut
            if damage and not files:
                raise damage
            source, missing = main_file(files)
        else:
            inclusions = self.inclusions(name, raw)
            source, missing = inclusions.source(name, MAX_DEPTH), inclusions.missing
        yield source
        for path in missing:
            yield ValueError(f"{self.MISSING}: {path}")
        if damage:
            raise damage

    def inclusions(self, name: str, raw: bytes) -> "Inclusions":
        """What reads a file with those that it includes; of a file that is not on disk, none of these is at hand."""
        text = file_text(raw, name, declared_in([raw]))
        return Inclusions(lambda path: text if path == name else None, posixpath.dirname(name))

    def document(self, name: str, record: Any) -> Document:
        """The title, abstract and sections of the article."""
        source = without_comments(record)
        macros = definitions(source)
        source = with_environments(source, macros)
        body = BODY.search(source)
        preamble, text = (source[: body.start()], body[1]) if body else ("", source)
        found = {key: re.search(rf"\\{key}\s*(?:\[[^\]]*\])?\s*(?=\{{)", source) for key in ("title", "date")}
        meta = {key: " ".join(convert(group(source, at.end())[0], macros).split()) for key, at in found.items() if at}
        title = meta.get("title", "")
        in_preamble = [preamble[at.start() :] for at in (re.search(r"\\begin\{abstract\}", preamble),) if at]
        blocks = [f"# {title}" if title else "", *(convert(part, macros) for part in (*in_preamble, text))]
        known = {key: value for key, value in meta.items() if value and "\\" not in value}
        return Document("\n\n".join(filter(None, blocks)), name, self.licence, name, known)


class LatexOnDisk(Latex):
    """A LaTeX file on disk with those that it includes, but none outside of the source's folder: whoever wrote the file
    may be another person than the one whose disk it is on."""

    MISSING = "an included file is not in the folder of the source, or cannot be read"

    def inclusions(self, name: str, raw: bytes) -> "Inclusions":
        top, declared = folder_of(self.path), declared_in([raw])

        def read(path: str) -> str | None:
            if path == name:
                return file_text(raw, name, declared)
            try:
                real = Path(path).resolve()
                is_here = real.is_relative_to(Path(top).resolve()) and real.is_file()
            except (OSError, ValueError):  # no file can have such a name
                return None
            if not is_here or not os.access(real, os.R_OK):
                return None
            with open_raw(str(real)) as file:
                content = read_bounded(file)
            return None if is_binary(content) else decode(content, declared)

        return Inclusions(read, posixpath.dirname(name), top)


class IncludedFiles(LatexOnDisk):
    """The paths of a LaTeX file and of those that it includes, each as a document."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        inclusions = self.inclusions(name, read_bounded(stream))
        inclusions.source(name, MAX_DEPTH)
        yield from dict.fromkeys([name, *inclusions.included])

    def document(self, name: str, record: Any) -> Document:
        return Document(record, name, self.licence, name)


def includes_on_disk(path: str) -> bool:
    """Whether a path is that of a LaTeX file on disk that may include others."""
    if is_address(path) or not path.lower().endswith(ENDINGS):
        return False
    try:
        with open_raw(path) as file:
            return MAY_INCLUDE.search(read_bounded(file)) is not None
    except ValueError as error:
        if is_machine_fault(error):
            raise
        return False  # reading it says why


def folder_of(path: str) -> str:
    """The folder in which all files are that a path or pattern matches."""
    pattern = Path(at_home(path))
    folder = Path(pattern.anchor)
    for part in pattern.relative_to(folder).parts:
        folder /= re.sub(r"\[([*?[])\]", r"\1", part)  # as glob.escape writes them
        if not folder.is_dir():
            folder = folder.parent
            break
    return folder.as_posix()


def without_comments(source: str) -> str:
    r"""The source without its comments, and without what stands from \iffalse or \if0 to its \else or \fi."""
    parts, at, is_closed = [], 0, True
    while found := SOURCE.search(source, at):
        parts += [source[at : found.start()], found["kept"] or ""]
        at = found.end()
        if found["never"] and is_closed:  # behind one that is never closed, no other is looked for
            end = end_of_branch(source, at)
            at, is_closed = end or at, end is not None
    return "".join([*parts, source[at:]])


def end_of_branch(source: str, at: int) -> int | None:
    r"""The place behind the \else or \fi that ends the branch which begins at a place; None if there is none."""
    depth = 0
    for found in CONDITIONAL.finditer(source, at):
        if found["other"] and not depth:
            return found.end()
        depth += bool(found["begins"]) - (found["other"] == "fi")
    return None


def members(packed: BufferedIOBase) -> tuple[dict[str, str], Exception | None]:
    """The text files of an archive, path -> source, up to a damage; and the exception that this raised."""
    packed.seek(0)
    files, damage = {}, None
    try:
        with tarfile.open(fileobj=packed) as archive:
            for member in archive:
                if member.isfile() and (content := archive.extractfile(member)):
                    files[posixpath.normpath(member.name)] = content.read()
    except (tarfile.TarError, *BROKEN) as error:
        damage = error
    declared = declared_in(files.values())
    return {name: decode(raw, declared) for name, raw in files.items() if not is_binary(raw)}, damage


def declared_in(sources: Iterable[bytes]) -> str | None:
    """The encoding that the first source declares that does; it is that of the files which it includes, too."""
    found = next(filter(None, map(ENCODING.search, sources)), None)
    name = (found[1] or found[2]).decode() if found else None
    return NAMES.get(name, name) if name else None


def main_file(files: dict[str, str]) -> tuple[str, list[str]]:
    """The source of the article among the files of a paper, and the files that it includes and that are missing.

    Raises ValueError: there is none.
    """
    sources = {name: text for name, text in files.items() if name.lower().endswith(ENDINGS)} or files
    candidates = [name for name, text in sources.items() if CLASS.search(without_comments(text))]
    if not candidates and len(sources) == 1:
        candidates = list(sources)
    if not candidates:
        raise ValueError("no file of the archive is a LaTeX document")
    # An article may come with a supplement or a reply to referees; it has a body, and is the longest.
    wholes = {name: Inclusions(files.get, posixpath.dirname(name)) for name in candidates}
    texts = {name: inclusions.source(name, MAX_DEPTH) for name, inclusions in wholes.items()}
    best = max(candidates, key=lambda name: (bool(BODY.search(files[name])), len(texts[name])))
    return texts[best], list(dict.fromkeys(wholes[best].missing))


class Inclusions:
    """The files that an article includes, found as TeX finds them: TeX runs in the folder of the main file."""

    def __init__(self, read: Callable[[str], str | None], folder: str, top: str = "") -> None:
        """`read` gives the source of a file, or None where there is none; `folder` is that of the main file, and `top`
        that of all files."""
        self.read = cache(read)
        self.folders = folder, top
        self.included: list[str] = []
        self.missing: list[str] = []

    def source(self, name: str, depth: int) -> str:
        """The source of a file with its inclusions resolved, except missing ones and those nested too deeply."""
        here = posixpath.dirname(name)

        def content(found: re.Match[str]) -> str:
            if found["kept"]:
                return found["kept"]
            stated = (found["file"] or found["braced"] or found["bare"]).strip().strip('"')
            within = posixpath.join(found["within"].strip(), stated) if found["within"] else stated
            wanted = self.find(within, here)
            if wanted is None and not MADE_BY_TEX.search(stated):
                self.missing.append(within)
            if wanted is None or not depth:
                return ""
            self.included.append(wanted)
            text = self.source(wanted, depth - 1)
            whole = BODY.search(text) if CLASS.search(text) else None  # a part that can be set by itself
            text = whole[1] if whole else text
            return f"\n\n{text}\n\n" if found["page"] else text

        return INPUT.sub(content, without_comments(self.read(name) or ""))

    def find(self, stated: str, here: str) -> str | None:
        """The path of a file by its name in the source; also beside the including file, and from the top."""
        main, top = self.folders
        paths = [posixpath.normpath(posixpath.join(folder, stated)) for folder in (main, here, top)]
        options = (option for path in paths for option in (path, f"{path}.tex"))
        return next((option for option in options if self.read(option) is not None), None)
