"""The recipes that come with Bluejay: in the installed package, or in the folder `recipes` of a checkout."""

import re
from pathlib import Path

from bluejay.files import require_writable, write_bytes

DATA = ".jsonl"
"""Ending of the files beside the recipes that they train on."""


def folder() -> Path:
    """The folder that holds them."""
    package = Path(__file__).parent
    installed, checkout = package / "recipes", package.parents[1] / "recipes"
    return installed if installed.is_dir() else checkout


def recipes() -> dict[str, str]:
    """The name of each recipe, such as train/quickstart, and the first sentence of its comment."""
    return {str(path.relative_to(folder()).with_suffix("")): summary(path) for path in sorted(folder().rglob("*.toml"))}


def summary(path: Path) -> str:
    """The first sentence of the comment at the beginning of a recipe."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = " ".join(line.lstrip("# ").rstrip() for line in lines[:end])
    return re.split(r"(?<! al)\.(?:\s|$)", comment)[0].strip()


def find(path: Path) -> Path:
    """A path where a file is; else the recipe that comes with Bluejay under that name, `recipes/` and `.toml` being
    optional; the path itself if there is none."""
    if path.exists() or path.is_absolute():
        return path
    return by_name(path) or path


def by_name(path: Path) -> Path | None:
    """The recipe that comes with Bluejay under a name, `recipes/` and `.toml` being optional; None if there is none."""
    name = str(path).removeprefix("recipes/").removesuffix(".toml")
    return folder() / f"{name}.toml" if name in recipes() else None


def copy(name: str, target: Path) -> list[Path]:
    """Copy a recipe and the data beside it that it names into a folder laid out as `recipes`; the files written.

    Raises ValueError: there is no such recipe, another file of that name is there, or the target is no folder.
    """
    require_writable(target, is_folder=True)
    source = by_name(Path(name)) or Path(name)
    if not source.is_relative_to(folder()):
        raise ValueError(f"no recipe {name} comes with bluejay; it must be one of {', '.join(recipes())}")
    text = source.read_text(encoding="utf-8")
    files = [source, *(data for data in sorted(source.parent.glob(f"*{DATA}")) if data.name in text)]
    written = {target / file.relative_to(folder()): file for file in files}
    if there := [path for path in written if path.exists() and path.read_bytes() != written[path].read_bytes()]:
        raise ValueError(f"{there[0]} is there already and differs; name another folder by --to")
    for path, file in written.items():
        if not path.exists():
            write_bytes(path, file.read_bytes())
    return list(written)
