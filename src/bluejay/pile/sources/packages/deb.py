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
    """A binary package from the archives that apt is configured for on this machine, or from a file."""

    kind: Literal["deb"]

    def fetch(self) -> Path:
        """The package's file, by `apt-get download`, which installs nothing and needs no privileges."""
        wanted = f"{self.name}={self.version}" if self.version else str(self.name)
        helps = "`apt-get update` renews the lists of what there is"
        return self.download(["apt-get", "-qq", "download", "--", wanted], "*.deb", helps)

    def release(self, archive: Path) -> Release:
        """Name, version and licence, from the file's name and the package's copyright file (Debian policy, 12.5)."""
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
        """False: the paths of members are those of the installed files."""
        return False


def licences_in(text: str) -> str:
    """The licence of `Files: *` in a machine-readable copyright file (DEP 5); "unknown" for any other file."""
    if not re.search(r"^Format:", text, re.MULTILINE):
        return "unknown"
    paragraphs = re.split(r"\n[ \t]*\n", text)
    general = [paragraph for paragraph in paragraphs if re.search(r"^Files:\s*\*\s*$", paragraph, re.MULTILINE)]
    names = re.findall(r"^License:[ \t]*(\S.*)$", "\n\n".join(general or paragraphs), re.MULTILINE)
    return " AND ".join(dict.fromkeys(name.strip() for name in names)) or "unknown"
