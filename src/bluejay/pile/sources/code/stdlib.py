"""The source of the running Python's standard library."""

import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.pile.documents import Document, Skipped, skipped
from bluejay.pile.sources.io.decode import read_text
from bluejay.recipe import STRICT

EXCLUDED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
BUILD_RECORDS = ("config-", "_sysconfigdata")
"""Prefixes of files that describe how this Python was built; they are not part of the library."""


@dataclass(frozen=True)
class Stdlib:
    """Every `.py` file of the standard library except its tests: about 10 MB, present on every machine."""

    __pydantic_config__ = STRICT
    kind: Literal["stdlib"]

    def units(self) -> list[str]:
        """The library as one unit."""
        return [f"cpython-{platform.python_version()}"]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, in order of path."""
        root = Path(sysconfig.get_path("stdlib"))
        version = platform.python_version()
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            if EXCLUDED_FOLDERS.intersection(name.parts) or name.parts[0].startswith(BUILD_RECORDS):
                continue
            try:
                text = read_text(path)
            except ValueError as error:
                yield skipped(f"Lib/{name.as_posix()}", error)
                continue
            url = f"https://github.com/python/cpython/blob/v{version}/Lib/{name.as_posix()}"
            yield Document(text, f"cpython-{version}", "PSF-2.0", url, {"path": f"Lib/{name.as_posix()}"})
