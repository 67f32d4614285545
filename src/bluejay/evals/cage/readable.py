"""What a program in the cage can read: an interpreter, its standard library and the shared libraries of both.

Installed packages are hidden, because some of them contain test sets with their answers."""

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

SYSTEM = ("/lib64", "/usr/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/ld-musl-x86_64.path")
"""Places of shared libraries, beside those that the interpreter names."""


def interpreter() -> Path:
    """The interpreter itself, where this one belongs to a virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


@cache
def roots() -> tuple[Path, ...]:
    """The files and folders that can be read, but for what is `hidden`; none is below another."""
    configured = sysconfig.get_config_vars()
    libraries = Path(configured.get("LIBDIR") or "/usr/lib")
    triplet = configured.get("MULTIARCH") or "no-triplet"
    found = {interpreter(), Path(os.__file__).resolve().parent, Path(configured.get("DESTSHARED") or SYSTEM[0])}
    found |= {*map(Path, SYSTEM), Path("/lib") / triplet, Path("/usr/lib") / triplet}
    if not (Path("/usr/lib") / triplet).is_dir():
        found |= {Path("/lib"), Path("/usr/lib")}
    if libraries not in found:
        found |= set(libraries.glob("lib*.so*"))
    found = {path for path in found if path.exists()}
    return tuple(sorted(path for path in found if not any(parent in found for parent in path.parents)))


@cache
def hidden() -> tuple[Path, ...]:
    """Folders below the roots that cannot be read."""
    library = Path(os.__file__).resolve().parent
    names = ("site-packages", "dist-packages")
    found = {Path(entry).resolve() for entry in sys.path if Path(entry).name in names}
    found |= {library / name for name in names} | {Path("/usr/lib/python3/dist-packages")}
    return tuple(sorted(path for path in found if path.is_dir() and below_a_root(path)))


def below_a_root(path: Path) -> bool:
    """Whether a path is one of the roots, or below one."""
    return any(root == path or root in path.parents for root in roots())


@cache
def without_hidden() -> tuple[Path, ...]:
    """The roots as files and folders of which nothing is hidden, for rules that can only add."""
    found: list[Path] = []
    todo = [*roots()]
    while todo:
        path = todo.pop()
        if any(path in one.parents for one in hidden()):
            todo.extend(path.iterdir())
        elif path not in hidden():
            found.append(path)
    return tuple(sorted(found))


@cache
def for_every_user() -> bool:
    """Whether another user may read the interpreter and its library: one below root's home is for root alone."""
    paths = [interpreter(), Path(os.__file__).resolve()]
    folders = {parent for path in paths for parent in path.parents}
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (paths[0], *folders))
