"""Articles in LaTeX: single files, or archives of a paper's sources as on arXiv."""

import io
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.latex_text import convert, definitions, group
from bluejay.pile.sources.io.decode import decode
from bluejay.pile.sources.io.open import decompressed
from bluejay.pile.sources.io.records import RecordFiles

COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*\n?[ \t]*")
INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]+)\}|\\input\s+([^\s{}\\]+)")
CLASS = re.compile(r"\\document(?:class|style)\b")
BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
VERBATIM = re.compile(r"\\begin\{(verbatim\*?|lstlisting|minted|Verbatim)\}.*?\\end\{\1\}", re.DOTALL)
MAX_DEPTH = 8
"""Length of the longest chain of files that include one another."""


@dataclass(frozen=True, kw_only=True)
class Latex(RecordFiles):
    """Each article is one document, as Markdown: headings, paragraphs, lists, and formulas in their LaTeX source.

    In an archive, the article is the file that has a document class, with the files that it includes.
    """

    kind: Literal["latex"] = "latex"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The whole source of the article."""
        raw = decompressed(stream).read()
        packed = io.BytesIO(raw)
        yield main_file(members(packed)) if tarfile.is_tarfile(packed) else decode(raw)

    def document(self, name: str, record: Any) -> Document:
        """The title, abstract and sections of the article."""
        source = without_comments(record)
        body = BODY.search(source)
        preamble, text = (source[: body.start()], body[1]) if body else ("", source)
        macros = definitions(source)
        found = {key: re.search(rf"\\{key}\s*(?:\[[^\]]*\])?\s*(?=\{{)", source) for key in ("title", "date")}
        meta = {key: " ".join(convert(group(source, at.end())[0], macros).split()) for key, at in found.items() if at}
        title = meta.get("title", "")
        in_preamble = [preamble[at.start() :] for at in (re.search(r"\\begin\{abstract\}", preamble),) if at]
        blocks = [f"# {title}" if title else "", *(convert(part, macros) for part in (*in_preamble, text))]
        known = {key: value for key, value in meta.items() if value and "\\" not in value}
        return Document("\n\n".join(filter(None, blocks)), name, self.licence, name, known)


def without_comments(source: str) -> str:
    """The source without its comments; verbatim parts are unchanged."""
    parts, at = [], 0
    for verbatim in VERBATIM.finditer(source):
        parts += [COMMENT.sub(r"\1", source[at : verbatim.start()]), verbatim[0]]
        at = verbatim.end()
    return "".join([*parts, COMMENT.sub(r"\1", source[at:])])


def members(packed: BufferedIOBase) -> dict[str, str]:
    """The LaTeX files of an archive: path -> source."""
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        files = [
            member for member in archive if member.isfile() and member.name.lower().endswith((".tex", ".ltx", ".bbl"))
        ]
        contents = [(member.name, archive.extractfile(member)) for member in files]
        return {posixpath.normpath(name): decode(content.read()) for name, content in contents if content}


def main_file(files: dict[str, str]) -> str:
    """The source of the article among the files of a paper. Raises ValueError: there is none."""
    candidates = [name for name, text in files.items() if CLASS.search(without_comments(text))]
    if not candidates and len(files) == 1:
        candidates = list(files)
    if not candidates:
        raise ValueError("no file of the archive is a LaTeX document")
    # An article may come with a supplement or a reply to referees; it has a body, and is the longest.
    best = max(candidates, key=lambda name: (bool(BODY.search(files[name])), len(included(name, files, MAX_DEPTH))))
    return included(best, files, MAX_DEPTH)


def included(name: str, files: dict[str, str], depth: int) -> str:
    """The source of a file with its inclusions resolved, except missing ones and those nested too deeply."""

    def content(found: re.Match[str]) -> str:
        path = posixpath.normpath((found[1] or found[2]).strip())
        wanted = next((option for option in (path, f"{path}.tex") if option in files), None)
        return included(wanted, files, depth - 1) if wanted and depth else ""

    return INPUT.sub(content, without_comments(files[name]))
