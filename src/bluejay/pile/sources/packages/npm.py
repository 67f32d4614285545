"""Releases of npm packages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bluejay.files import parse_json
from bluejay.pile.sources.packages.member import Release
from bluejay.pile.sources.packages.package import Package, first_member


@dataclass(frozen=True, kw_only=True)
class NPM(Package):
    """A release from the registry that the user's npm is configured for, or from a file."""

    kind: Literal["npm"]

    def fetch(self) -> Path:
        """The package's file, by `npm pack`; none of its scripts is run."""
        wanted = f"{self.name}@{self.version or 'latest'}"
        return self.download(["npm", "pack", "--ignore-scripts", "--silent", "--", wanted], "*.tgz")

    def release(self, archive: Path) -> Release:
        """Name, version and licence, from the package's package.json."""
        try:
            described = parse_json(first_member(archive, True, lambda path: path == "package.json"))
            name, version = described["name"], described["version"]
            if not (isinstance(name, str) and isinstance(version, str)):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{archive.name} is not an npm package: it has no package.json with name and version"
            ) from None
        url = f"pkg:npm/{name.replace('@', '%40')}@{version}"
        return Release(f"{name}-{version}", url, licence_in(described))

    def rooted(self, archive: Path) -> bool:
        """True: all members are in one folder."""
        return True


def licence_in(described: dict[str, Any]) -> str:
    """The licence in a package.json, which is an SPDX expression or one of two older forms."""
    given = described.get("license") or described.get("licenses") or "unknown"
    entries = given if isinstance(given, list) else [given]
    names = [entry.get("type") or entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    return " OR ".join(str(name or "unknown") for name in names)
