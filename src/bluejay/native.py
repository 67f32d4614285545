"""The compiled part of the package (`native/`); None if the package was installed without it or cannot load it, or if
it was compiled from other sources than those of this checkout."""

import importlib
from hashlib import sha256
from pathlib import Path
from typing import Any

native: Any = None
absent = (
    "was not compiled when bluejay was installed, most likely for want of a C++20 compiler or of Python's headers "
    "(`apt install g++ python3-dev`)"
)
"""Why there is none, as the end of a sentence; of no meaning where there is one."""


def hash_of(sources: Path) -> str:
    """The hash of the files in a folder from which the module is compiled, as `native/CMakeLists.txt` computes it."""
    files = sorted((*sources.glob("*.cpp"), *sources.glob("*.h"), sources / "CMakeLists.txt"))
    listed = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    return sha256(listed.encode()).hexdigest()


def is_outdated(module: Any, package: Path) -> bool:
    """Whether the package is that of a checkout, whose sources changed after the module was compiled."""
    sources = package.parents[1] / "native"
    if package.parent.name != "src" or not (sources / "module.cpp").is_file():
        return False
    return getattr(module, "sources", "") != hash_of(sources)


try:
    native = importlib.import_module("bluejay._native")
    if is_outdated(native, Path(__file__).parent):
        native = None
        absent = "was compiled from other sources than those in `native/`, which `git pull` may have changed"
except ModuleNotFoundError:
    pass
except ImportError as error:
    absent = f"cannot be loaded ({error})"
