"""The parts of office documents: files in a zip archive, which relate to each other."""

import posixpath
import zipfile
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from bluejay.pile.sources.io.elements import document_element, line_of, local_name
from bluejay.pile.sources.io.unpack import file_in

LICENCE_NAMES = {"license", "licence", "rights", "copyright license"}
"""The names, in small letters, of a user's own property that states the licence."""


@dataclass(frozen=True)
class Relation:
    """What a part says of another."""

    kind: str
    """The last part of the address that names the kind of relation: "officeDocument", "slide"."""
    target: str
    """The path of the other part, or an address outside of the document."""
    is_external: bool


class Parts:
    """The parts of a document, found whether or not the case of their names is as the document writes it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = {name.replace("\\", "/").lower().lstrip("/"): name for name in archive.namelist()}

    def __contains__(self, path: str) -> bool:
        return path.lower() in self.names

    def content(self, path: str) -> bytes:
        """The bytes of a part. Raises ValueError: it is missing, broken, encrypted or too large."""
        if path not in self:
            raise ValueError(f"a part is missing: {path}")
        return file_in(self.archive, self.names[path.lower()])

    def xml(self, path: str) -> Any:
        """The root of a part. Raises ValueError: it is missing, broken, encrypted or too large."""
        content = self.content(path)
        try:
            return document_element(content)
        except ValueError as error:
            raise ValueError(f"a part is broken: {path}: {error}") from None

    def relations(self, path: str) -> dict[str, Relation]:
        """What a part relates to, by the names that it has for that; nothing where it says nothing. The empty path is
        that of the whole document. Raises ValueError: it cannot be read."""
        folder, name = posixpath.split(path)
        listed = posixpath.join(folder, "_rels", f"{name}.rels")
        if listed not in self:
            return {}
        found = {}
        for node in self.xml(listed):
            if local_name(node) == "Relationship":
                is_external, target = node.get("TargetMode") == "External", node.get("Target", "").replace("\\", "/")
                if not is_external:
                    target = posixpath.normpath(posixpath.join("/", folder, unquote(target))).lstrip("/")
                kind = node.get("Type", "").rpartition("/")[2]
                found[node.get("Id", "")] = Relation(kind, target, is_external)
        return found


def related(relations: dict[str, Relation], kind: str) -> str:
    """The path of the first part of a kind that another part relates to; empty without one."""
    return next((found.target for found in relations.values() if found.kind == kind and not found.is_external), "")


def attribute(node: Any, name: str) -> str:
    """An attribute of whatever namespace; empty if it is absent."""
    return next((value for key, value in node.attrib.items() if key.rpartition("}")[2] == name), "")


def as_number(text: str, usual: int) -> int:
    """The number that an attribute states, from 0 on; the usual one where it states none, or more than there can be."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else usual


def child(node: Any, *path: str) -> Any:
    """The element to which a path of names leads, by the first child of each name; None without one."""
    for name in path:
        node = next(node.iterchildren(f"{{*}}{name}"), None)
        if node is None:
            return None
    return node


def statements(root: Any) -> tuple[dict[str, Any], str]:
    """What a part says of the whole document, as metadata, and what it says about its licence."""
    values: dict[str, str] = {}
    for node in root.iter():
        name = local_name(node)
        if name == "user-defined" or name == "property":
            name = "rights" if attribute(node, "name").strip().lower() in LICENCE_NAMES else ""
        if name and (value := line_of(node)):
            values.setdefault(name, value)
    author = values.get("initial-creator") or values.get("creator", "")
    meta = {
        "title": values.get("title", ""),
        "authors": [name for name in map(str.strip, author.split(";")) if name],
        "date": values.get("creation-date") or values.get("created") or values.get("date", ""),
        "language": values.get("language", ""),
    }
    return meta, values.get("rights", "")
