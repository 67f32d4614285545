"""The licence of source files: the one that they declare, or the text in a licence file in a folder above them."""

import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from bluejay.decompress import MachineFault
from bluejay.extras import install

DECLARATION = re.compile(
    r"SPDX-License-Identifier:[ \t]*([\w.+() -]+?)[ \t]*(?:\*/|-->|\"|'|\*\)|[#-]\}|[?%]>|\]\]|=#|\r?$)", re.MULTILINE
)
"""A declaration, up to the end of its line or of its comment, in any language."""
DECLARATION_WITHIN = 4000
"""A declaration is sought in this many characters at the start of a file."""
MAX_LICENCE_BYTES = 1_000_000
"""Of a larger file, which has more in it than a licence, no more is read."""
SHORT_NAMES = r"(?:mit|[al]?gpl|gnu|bsd|apache|mpl|isc|epl|lesser|lib|runtime)[\w.]*"
"""What names of files say of the licence in them."""
LICENCE_FILE = re.compile(
    rf"(?:{SHORT_NAMES}[-_])?(?:licen[cs]e|unlicense|copying(?:v?\d)?)(?:[-_][\w-]+(?:\.\d\w*)*)?"
    rf"(?:\.(?:txt|md|rst|adoc|{SHORT_NAMES}))?",
    re.IGNORECASE,
)


def declared(text: str) -> str | None:
    """The SPDX expression that a file declares (SPDX specification, annex E).

    >>> declared("# SPDX-License-Identifier: MIT OR Apache-2.0")
    'MIT OR Apache-2.0'
    """
    found = DECLARATION.search(text[:DECLARATION_WITHIN])
    return found[1] if found else None


def identified(text: bytes) -> str | None:
    """The SPDX name of the licence with this text; None if it is none of the common ones. Raises MachineFault: the
    package that knows them is not installed, or the temporary file that it reads cannot be written."""
    try:
        from identify.identify import license_id
    except ImportError:
        raise MachineFault(f"telling licences apart needs identify: {install('corpus')}") from None
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            return license_id(file.name)
    except UnicodeError:
        return None
    except OSError as error:
        raise MachineFault(f"a temporary file cannot be written: {error.strerror}") from None


def is_licence(name: str) -> bool:
    """Whether a file's name is usual for the text of a licence: LICENSE, COPYING.txt, LICENSE-MIT, LICENSE_1_0.txt."""
    return LICENCE_FILE.fullmatch(PurePosixPath(name).name) is not None


def permitted(expression: str, allowed: Collection[str]) -> bool:
    """Whether the licences `allowed` are enough for an SPDX expression: for "A OR B" one of both, for "A AND B" both.

    >>> permitted("(MIT OR GPL-2.0-only) AND Zlib", ["mit", "Zlib"]), permitted("MIT AND GPL-2.0-only", ["MIT"])
    (True, False)
    """
    known = {name.lower() for name in allowed}

    def is_known(part: str) -> bool:
        choices = (re.split(r"\s+and\s+", choice.strip()) for choice in re.split(r"\s+or\s+", part))
        return part.strip() in known or any(known.issuperset(choice) for choice in choices)

    text = expression.lower()
    while inner := re.search(r"\(([^()]*)\)", text):
        text = text[: inner.start()] + (min(known) if is_known(inner[1]) else "-") + text[inner.end() :]
    return expression.lower() in known or is_known(text)


class LicenceFiles:
    """The licence files of a tree; each is read at most once, on first use, by `read`, which gives no more than
    MAX_LICENCE_BYTES. The files whose licence is asked for are named within `folder` of the tree."""

    def __init__(self, names: list[str], read: Callable[[str], bytes], folder: str = "") -> None:
        self.read, self.folder = read, folder
        self.files: dict[PurePosixPath, list[str]] = {}
        for name in sorted(filter(is_licence, names)):
            self.files.setdefault(PurePosixPath(name).parent, []).append(name)
        self.known: dict[str, str | None] = {}

    def above(self, name: str) -> str:
        """The licence in the nearest folder above a file that has any: "MIT AND Zlib" if there are two."""
        for folder in PurePosixPath(self.folder, name).parents:
            if files := self.files.get(folder):
                return " AND ".join(dict.fromkeys(map(self.licence, files)))
        return "unknown"

    def licence(self, name: str) -> str:
        """The licence whose text is in a file."""
        if name not in self.known:
            self.known[name] = identified(self.read(name))
        return self.known[name] or "unknown"
