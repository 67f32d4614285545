"""Releases of Python packages: source distributions and wheels, downloaded as files; nothing is built or run."""

from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Literal

from bluejay.package_index import release_file
from bluejay.pile.sources.io.decode import decode
from bluejay.pile.sources.packages.member import Release
from bluejay.pile.sources.packages.package import Package, first_member
from bluejay.pile.sources.packages.package_docs import entry, licence_of, normalised


@dataclass(frozen=True, kw_only=True)
class PyPI(Package):
    """A release from the index that the user's pip is configured for, or from a file."""

    kind: Literal["pypi"]

    def fetch(self) -> Path:
        """The release's file in the cache."""
        return release_file(self.name or "", self.version, self.sha256)

    def release(self, archive: Path) -> Release:
        """Name, version and licence, from the metadata of the release."""
        rooted = self.rooted(archive)
        described = first_member(archive, rooted, is_metadata if not rooted else lambda path: path == "PKG-INFO")
        metadata = Parser().parsestr(decode(described), headersonly=True)
        name, version = normalised(entry(metadata, "Name")), entry(metadata, "Version")
        if not name:
            raise ValueError(f"{archive.name} is no Python package: it has no metadata")
        return Release(f"{name}-{version}", f"pkg:pypi/{name}@{version}", licence_of(metadata))

    def rooted(self, archive: Path) -> bool:
        """Whether all members are in one folder, as in a source distribution."""
        return archive.suffix != ".whl"


def is_metadata(path: str) -> bool:
    """Whether a wheel's member is its own metadata; that of packages bundled in it is in deeper folders."""
    return path.endswith(".dist-info/METADATA") and path.count("/") == 1
