"""The sources of a user's file or folder of files, chosen by the endings of their names."""

import glob
import os
from pathlib import Path
from typing import Any

from bluejay.pile.sources.io.decode import uncompressed
from bluejay.pile.sources.io.open import unreadable
from bluejay.progress import say

KINDS = {
    "jsonl": "jsonl",
    "jsonlines": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "xht": "html",
    "epub": "epub",
    "pdf": "pdf",
    "docx": "office",
    "docm": "office",
    "dotx": "office",
    "odt": "office",
    "ott": "office",
    "fodt": "office",
    "rtf": "office",
    "pptx": "office",
    "pptm": "office",
    "ppsx": "office",
    "odp": "office",
    "xlsx": "office",  # refused with the advice to save it as CSV
    "xlsm": "office",
    "ods": "office",
    "fods": "office",
    "fodp": "office",
    "ipynb": "notebook",
    "warc": "warc",
    "mbox": "mail",
    "eml": "mail",
    "tex": "latex",
    "ltx": "latex",
    "nxml": "jats",
    "srt": "subtitles",
    "vtt": "subtitles",
}
"""The kind of source of a file, by the ending of its name before that of a compression; any other is plain text."""
SEPARATORS = {"tsv": "\t"}
"""What stands between the values of a table with such an ending, where that is no comma."""
COMPRESSED = ("gz", "bz2", "xz", "zst")
MADE_BY_LATEX = """
acn acr alg aux bbl bcf blg dvi fdb_latexmk fls glg glo gls glsdefs idx ilg ind ist loa lof log lol lot nav out pdf ps
run.xml snm synctex.gz thm toc vrb xdv
"""
"""Endings of the files that LaTeX and its companions write beside NAME.tex."""
HIDDEN = (".*", "*/.*")
"""Patterns of hidden files, and of files in hidden folders, which are no part of a text."""
WRITTEN = ("html", "json", "jsonl", "parquet")
"""Kinds of files that runs and corpora have, too."""


def sources_of(target: Path, own: list[Path]) -> tuple[list[dict[str, Any]], int]:
    """The sources of a file or folder, by the endings of names, and the bytes of all files; the folders `own`, which
    are written to, and what LaTeX made of its sources are no part of it. Links to files are read, but none to files
    outside of the git repository that the link is in, because another person may have chosen that file. Raises
    ValueError: a source cannot leave `own` out, or a folder cannot be read."""
    if target.is_file():
        return [source_of(target, str(target.resolve()))], target.stat().st_size
    root = target.resolve()
    within = [place for path in own if (place := path.resolve()).is_relative_to(root)]
    if root in within:
        raise ValueError(f"{target} is where the results would be written; choose another name for them")
    files = [path for path in files_in(root) if not any(path.is_relative_to(place) for place in within)]
    foreign = {path for path in files if leaves_repository(path)}
    if foreign:
        say(f"links to files outside of their git repository are left out: {len(foreign):,}, such as {min(foreign)}")
    made = made_by_latex(files) - foreign
    if made:
        say(f"what LaTeX made of .tex files beside it is left out: {len(made):,}, such as {min(made)}")
    left_out = foreign | made
    files = [path for path in files if path not in left_out]
    apart = [path for path in files if not is_plain(path) or path.is_symlink()]  # which a tree does not read
    endings = {ending_of(path): kind_of(path) for path in apart}
    if within and (written := [ending for ending, kind in sorted(endings.items()) if kind in WRITTEN]):
        raise ValueError(
            f"{root} holds .{written[0]} files, and what finds them would take those that are written to {within[0]} "
            "for text, too; start the command in a folder outside the text's, and write nothing into that"
        )
    sources: list[dict[str, Any]] = []
    read = set(apart)
    for ending in sorted(endings):
        pattern = f"{glob.escape(str(root))}/**/*.{glob.escape(ending)}"
        named = [path for path in apart if ending_of(path) == ending]
        # Where a pattern of `a.gz` would match `b.csv.gz`, too, or what must be left out, the files are named.
        alone = ending and not any(other.endswith(f".{ending}") for other in endings)
        alone = alone and not any(path.name.endswith(f".{ending}") for path in left_out)
        if is_plain(named[0]):
            alone = alone and not within
            read |= {path for path in files if alone and ending_of(path) == ending}
        sources += [source_of(named[0], pattern)] if alone else [source_of(path, str(path)) for path in named]
    rest = [path for path in files if path not in read]
    if rest:
        exclude = [f"{glob.escape(place.relative_to(root).as_posix())}/*" for place in within]
        exclude += [glob.escape(path.relative_to(root).as_posix()) for path in sorted(made)]
        files_read = {ending_of(path) for path in read if not path.is_symlink()}
        others = sorted(files_read - {ending_of(path) for path in rest})
        sources.append(tree_of(root, [*exclude, *(f"*.{glob.escape(ending)}" for ending in others)]))
    return sources, sum(path.stat().st_size for path in files if path.exists())


def files_in(root: Path) -> list[Path]:
    """The files in a folder that are not hidden, in order, with links to files and to what is missing. It is said that
    links to folders are left out. Raises ValueError: a folder cannot be read."""
    files, links = [], []
    for folder, folders, names in os.walk(root, onerror=unreadable):
        shown = [Path(folder, name) for name in (*folders, *names) if not name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [path for path in shown if path.is_file() or (path.is_symlink() and not path.exists())]
        links += [path for path in shown if path.is_symlink() and path.is_dir()]
    if links:
        say(f"links to folders are left out: {len(links):,}, such as {min(links)}")
    return sorted(files)


def made_by_latex(files: list[Path]) -> set[Path]:
    """The files among some that LaTeX made of a source beside them, such as its log and the PDF of the same text."""
    sources = [path for path in files if path.suffix == ".tex"]
    return {path.with_suffix(f".{ending}") for path in sources for ending in MADE_BY_LATEX.split()}.intersection(files)


def leaves_repository(path: Path) -> bool:
    """Whether a path is a link in a git repository to something outside of it."""
    top = next((folder for folder in path.parents if (folder / ".git").exists()), None) if path.is_symlink() else None
    return top is not None and not Path(os.path.realpath(path)).is_relative_to(top)


def source_of(file: Path, path: str) -> dict[str, Any]:
    """The source of files like `file`, whose path or pattern is `path`."""
    separator = SEPARATORS.get(uncompressed(file.name).rpartition(".")[2].lower())
    return {"kind": kind_of(file), "path": path} | ({"separator": separator} if separator else {})


def tree_of(folder: Path, exclude: list[str]) -> dict[str, Any]:
    """The source of the text files in a folder that are not hidden and match none of the patterns `exclude`."""
    path, patterns = str(folder.resolve()), [*HIDDEN, *exclude]
    return {"kind": "tree", "path": path, "exclude": patterns, "licence": "unknown", "max_bytes": 10**12}


def kind_of(path: Path) -> str:
    """The kind of source that reads a file."""
    return next((KINDS[part] for part in ending_of(path).lower().split(".") if part in KINDS), "text")


def is_plain(path: Path) -> bool:
    """Whether a file is read as plain text, and not compressed."""
    return kind_of(path) == "text" and not is_compressed(path)


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix[1:].lower() in COMPRESSED


def ending_of(path: Path) -> str:
    """The ending of a file's name as it is written, with that of its compression: jsonl.gz, HTML."""
    parts = path.name.split(".")[1:]
    return ".".join(parts[-2:] if is_compressed(path) else parts[-1:])
