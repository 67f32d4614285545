"""Debian packages."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from bluejay.pile.sources.packages.member import Release
from bluejay.pile.sources.packages.package import Package, first_member


@dataclass(frozen=True, kw_only=True)
class Deb(Package):
    """A binary package from the archives that the machine's apt is set up for, or from a file."""

    kind: Literal["deb"]

    def fetch(self) -> Path:
        """The package's file, as `apt-get download` gives it; nothing is installed, and no rights are needed."""
        wanted = f"{self.name}={self.version}" if self.version else str(self.name)
        return self.download(["apt-get", "-qq", "download", "--", wanted], "*.deb")

    def release(self, archive: Path) -> Release:
        """What the file's name and the package's copyright file say (Debian policy, 12.5)."""
        name, _, rest = archive.name.partition("_")
        version = unquote(rest.rpartition("_")[0])
        if not version:
            raise ValueError(f"{archive.name} is not named as a Debian package, NAME_VERSION_ARCHITECTURE.deb")
        copyright_file = first_member(archive, False, lambda path: path == f"usr/share/doc/{name}/copyright")
        return Release(
            f"{name}-{version}",
            f"pkg:deb/debian/{name}@{version}",
            licences_in(copyright_file.decode(errors="replace")),
        )

    def rooted(self, archive: Path) -> bool:
        """Members have their place in the system as path."""
        return False


def licences_in(text: str) -> str:
    """The licence of a package's files at large in a machine-readable copyright file (DEP 5); else "unknown"."""
    if not re.search(r"^Format:", text, re.MULTILINE):
        return "unknown"
    paragraphs = re.split(r"\n[ \t]*\n", text)
    at_large = [paragraph for paragraph in paragraphs if re.search(r"^Files:\s*\*\s*$", paragraph, re.MULTILINE)]
    names = re.findall(r"^License:[ \t]*(\S.*)$", "\n\n".join(at_large or paragraphs), re.MULTILINE)
    return " AND ".join(dict.fromkeys(name.strip() for name in names)) or "unknown"
