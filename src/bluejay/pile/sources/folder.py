"""The sources of a user's file or folder of files, chosen by the endings of their names."""

import glob
from pathlib import Path
from typing import Any

KINDS = {
    "jsonl": "jsonl",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
    "html": "html",
    "htm": "html",
    "epub": "epub",
    "pdf": "pdf",
    "warc": "warc",
    "mbox": "mail",
    "tex": "latex",
}
"""The kind of source of a file, by the ending of its name before that of a compression; any other is plain text."""
COMPRESSED = ("gz", "bz2", "xz", "zst")
HIDDEN = (".*", "*/.*")
"""Patterns of hidden files, and of files in hidden folders, which are no part of a text."""
WRITTEN = ("html", "json", "jsonl", "parquet")
"""Kinds of files that runs and corpora have, too."""


def sources_of(target: Path, own: list[Path]) -> tuple[list[dict[str, Any]], int]:
    """The sources of a file or folder, by the endings of names, and the bytes of all files; the folders `own`, which
    are written to, are no part of it. Raises ValueError: a source cannot leave them out."""
    if target.is_file():
        return [{"kind": kind_of(target), "path": str(target.resolve())}], target.stat().st_size
    root = target.resolve()
    within = [place for path in own if (place := path.resolve()).is_relative_to(root)]
    if root in within:
        raise ValueError(f"{target} is where the results would be written; choose another name for them")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not is_hidden(path, root)]
    files = [path for path in files if not any(path.is_relative_to(place) for place in within)]
    apart = [path for path in files if kind_of(path) != "text" or is_compressed(path)]
    endings = {ending_of(path): kind_of(path) for path in apart}
    if within and (written := [ending for ending, kind in sorted(endings.items()) if kind in WRITTEN]):
        raise ValueError(
            f"{root} holds .{written[0]} files, and what finds them would take those that are written to {within[0]} "
            "for text, too; start the command in a folder outside the text's, and write nothing into that"
        )
    sources: list[dict[str, Any]] = []
    for ending, kind in sorted(endings.items()):
        pattern = f"{glob.escape(str(root))}/**/*.{glob.escape(ending)}"
        # Where a pattern of `a.gz` would match `b.csv.gz`, too, the files are named.
        alone = not any(other.endswith(f".{ending}") for other in endings)
        paths = [pattern] if alone else [str(path) for path in apart if ending_of(path) == ending]
        sources += [{"kind": kind, "path": path} for path in paths]
    if len(apart) < len(files):
        exclude = [f"{glob.escape(place.relative_to(root).as_posix())}/*" for place in within]
        sources.append(tree_of(root, [*exclude, *(f"*.{glob.escape(ending)}" for ending in sorted(endings))]))
    return sources, sum(path.stat().st_size for path in files)


def tree_of(folder: Path, exclude: list[str]) -> dict[str, Any]:
    """The source of the text files in a folder that are not hidden and match none of the patterns `exclude`."""
    path, patterns = str(folder.resolve()), [*HIDDEN, *exclude]
    return {"kind": "tree", "path": path, "exclude": patterns, "licence": "unknown", "max_bytes": 10**9}


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a name on the way from a folder to a file begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def kind_of(path: Path) -> str:
    """The kind of source that reads a file."""
    return next((KINDS[part] for part in ending_of(path).lower().split(".") if part in KINDS), "text")


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix[1:].lower() in COMPRESSED


def ending_of(path: Path) -> str:
    """The ending of a file's name as it is written, with that of its compression: jsonl.gz, HTML."""
    parts = path.name.split(".")[1:]
    return ".".join(parts[-2:] if is_compressed(path) else parts[-1:])
