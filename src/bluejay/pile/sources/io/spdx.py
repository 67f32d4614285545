"""The licence of source files: what they declare, or the text of a licence that stands above them."""

import re
import tempfile
from collections.abc import Callable
from pathlib import PurePosixPath

DECLARATION = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]+?)[ \t]*(?:\*/|-->|\"|'|\r?$)", re.MULTILINE)
NEAR_THE_TOP = 4000
"""Characters of a file within which it may declare its licence."""
NAMES = ("LICENSE", "LICENCE", "COPYING", "UNLICENSE")


def declared(text: str) -> str | None:
    """The SPDX expression that a file declares (SPDX specification, annex E).

    >>> declared("# SPDX-License-Identifier: MIT OR Apache-2.0")
    'MIT OR Apache-2.0'
    """
    found = DECLARATION.search(text[:NEAR_THE_TOP])
    return found[1] if found else None


def identified(text: bytes) -> str | None:
    """The SPDX name of the licence that this is the text of; None where it is none of the common ones."""
    try:
        from identify.identify import license_id
    except ImportError:
        raise ValueError("telling licences apart needs identify: pip install 'bluejay[corpus]'") from None
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        try:
            return license_id(file.name)
        except UnicodeError:
            return None


def is_licence(name: str) -> bool:
    """Whether a file's name is one under which licences stand: LICENSE, COPYING.txt, LICENSE-MIT."""
    return bool(re.match(rf"({'|'.join(NAMES)})(\.(txt|md|rst)|-[\w.]+)?$", PurePosixPath(name).name, re.IGNORECASE))


class LicenceFiles:
    """The licence files of a tree, each read once it is asked for."""

    def __init__(self, names: list[str], read: Callable[[str], bytes]) -> None:
        self.read = read
        self.files: dict[PurePosixPath, list[str]] = {}
        for name in sorted(filter(is_licence, names)):
            self.files.setdefault(PurePosixPath(name).parent, []).append(name)
        self.known: dict[str, str | None] = {}

    def above(self, name: str) -> str:
        """The licence of the nearest folder above a file that has one: "MIT AND Zlib" where it has two."""
        for folder in PurePosixPath(name).parents:
            if files := self.files.get(folder):
                return " AND ".join(dict.fromkeys(map(self.licence, files)))
        return "unknown"

    def licence(self, name: str) -> str:
        """The licence whose text a file holds."""
        if name not in self.known:
            self.known[name] = identified(self.read(name))
        return self.known[name] or "unknown"
