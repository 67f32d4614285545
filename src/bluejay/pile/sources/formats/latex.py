"""Articles in LaTeX: single files, or archives of a paper's sources as on arXiv."""

import io
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, read_until_damaged
from bluejay.pile.sources.formats.latex_text import convert, definitions, group, with_environments
from bluejay.pile.sources.io.decode import decode, file_text, is_binary
from bluejay.pile.sources.io.open import BROKEN, decompressed
from bluejay.pile.sources.io.records import RecordFiles

NEVER = r"\\(?:iffalse(?![a-zA-Z@])|if[ \t]*0(?![0-9\\#]))"
"""What begins a branch that TeX never takes. A macro behind the 0 may be another 0."""
SOURCE = re.compile(
    r"(?P<kept>\\begin\{(?P<name>verbatim\*?|lstlisting|minted|Verbatim)\}.*?\\end\{(?P=name)\}"
    r"|\\(?:verb\*?|Verb\*?|lstinline(?:\[[^\]\n]*\])?|mintinline(?:\[[^\]\n]*\])?\{\w*\})"
    r"(?:(?P<bar>[^a-zA-Z\s*{\[])[^\n]*?(?P=bar)|\{[^{}\n]*\})"
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
    r"\\(?:sub)?(?:import|includefrom|inputfrom)\*?\s*\{([^{}]*)\}\s*\{([^{}]+)\}"
    r"|\\(?:input|include|subfile|InputIfFileExists)\s*\{([^{}]+)\}|\\input\s+([^\s{}\\]+)"
)
"""A file that is included; its folder may be given by itself, as the package import has it."""
MADE_BY_TEX = re.compile(r"[#\\]|\.(?:bbl|toc|aux|ind|gls)$")
"""Names that only TeX can complete, and files that it makes."""
ENCODING = re.compile(
    rb"^[^%\n]*\\(?:usepackage\s*\[([\w-]+)\]\s*\{inputenc\}|inputencoding\s*\{([\w-]+)\})", re.MULTILINE
)
"""The encoding that a source declares by the package inputenc."""
NAMES = {"ansinew": "windows-1252", "applemac": "macintosh", "macce": "mac-latin2", "maccyr": "mac-cyrillic"}
"""The package's names for encodings that have others elsewhere."""
CLASS = re.compile(r"\\document(?:class|style)\b")
"""What the main file of a paper has."""
BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
"""The body of a document, to the end of the source where it is not closed."""
MAX_DEPTH = 8
"""Length of the longest chain of files that include one another."""


@dataclass(frozen=True, kw_only=True)
class Latex(RecordFiles):
    """Each article is one document, as Markdown: headings, paragraphs, lists, and formulas in their LaTeX source.

    In an archive, the article is the file that has a document class, with the files that it includes.
    """

    kind: Literal["latex"] = "latex"

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
            inclusions = Inclusions({name: file_text(raw, name, declared_in([raw]))}, posixpath.dirname(name))
            source, missing = inclusions.source(name, MAX_DEPTH), inclusions.missing
        yield source
        for path in missing:
            yield ValueError(f"an included file is missing: {path}")
        if damage:
            raise damage

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
    sources = {name: text for name, text in files.items() if name.lower().endswith((".tex", ".ltx"))} or files
    candidates = [name for name, text in sources.items() if CLASS.search(without_comments(text))]
    if not candidates and len(sources) == 1:
        candidates = list(sources)
    if not candidates:
        raise ValueError("no file of the archive is a LaTeX document")
    # An article may come with a supplement or a reply to referees; it has a body, and is the longest.
    wholes = {name: Inclusions(files, posixpath.dirname(name)) for name in candidates}
    texts = {name: inclusions.source(name, MAX_DEPTH) for name, inclusions in wholes.items()}
    best = max(candidates, key=lambda name: (bool(BODY.search(files[name])), len(texts[name])))
    return texts[best], list(dict.fromkeys(wholes[best].missing))


class Inclusions:
    """The files that an article includes, found as TeX finds them: TeX runs in the folder of the main file."""

    def __init__(self, files: dict[str, str], folder: str) -> None:
        self.files, self.folder = files, folder
        self.missing: list[str] = []

    def source(self, name: str, depth: int) -> str:
        """The source of a file with its inclusions resolved, except missing ones and those nested too deeply."""
        here = posixpath.dirname(name)

        def content(found: re.Match[str]) -> str:
            stated = next(filter(None, found.groups()[1:])).strip().strip('"')
            within = posixpath.join(found[1].strip(), stated) if found[1] else stated
            wanted = self.find(within, here)
            if wanted is None and not MADE_BY_TEX.search(stated):
                self.missing.append(within)
            return self.source(wanted, depth - 1) if wanted and depth else ""

        return INPUT.sub(content, without_comments(self.files[name]))

    def find(self, stated: str, here: str) -> str | None:
        """The path of a file by its name in the source; also beside the including file, and from the archive's top."""
        paths = [posixpath.normpath(posixpath.join(folder, stated)) for folder in (self.folder, here, "")]
        return next((option for path in paths for option in (path, f"{path}.tex") if option in self.files), None)
