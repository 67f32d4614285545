"""Files of Python packages, from the index that the user's pip is configured for (PEP 503, PEP 691)."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bluejay.extras import install
from bluejay.fetch import cached_by_hash, fetch, first_line, without_password

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage


def release_file(name: str, version: str | None, sha256: str | None) -> Path:
    """The file of a release in the cache, downloaded if it is not there; see `choose`.

    Raises ValueError: the index cannot be reached, has no such file, or sends one of another sha256.
    """
    if sha256 and (file := cached_by_hash(sha256)):
        return file
    chosen = choose(name, version, sha256)
    return fetch(chosen.url, chosen.digests.get("sha256"))


def choose(name: str, version: str | None, sha256: str | None) -> "DistributionPackage":
    """The file of a release with this sha256; if none is given, the wheel for any platform, otherwise the sources.

    Raises ValueError: the index cannot be reached or has no such file.
    """
    places = indexes()
    files = [file for index in places for file in project_files(index, name)]
    if not files:
        listed = ", ".join(map(without_password, places)) or "pip is configured with no http address"
        raise ValueError(f"{name} is in none of the package indexes: {listed}")
    versions = {file.version for file in files if not file.is_yanked}
    latest = newest(versions)
    version = version or latest
    release = [file for file in files if file.version == version and file.package_type in ("wheel", "sdist")]
    if not version:
        raise ValueError(f"{name} has only pre-releases and withdrawn versions; state the version")
    if not release:
        newer = latest or "a pre-release"
        raise ValueError(f"the index has no wheel and no sources of {name} {version}; the newest version is {newer}")
    if sha256:
        found = [file for file in release if file.digests.get("sha256") == sha256]
    else:
        found = sorted(release, key=lambda file: (not file.filename.endswith("-none-any.whl"), file.package_type))
    if not found:
        has = ", ".join(f"{file.filename} (sha256 {file.digests.get('sha256')})" for file in release)
        raise ValueError(f"{name} {version}: the index has {has}, not what is asked for")
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
    """The files of a project in an index (PEP 503, PEP 691); none if the index does not have the project. Raises
    ValueError: the index cannot be reached, or its page lists something else."""
    from pypi_simple import NoSuchProjectError, PyPISimple

    try:
        with PyPISimple(index) as client:
            links = client.get_project_page(name, timeout=60.0).packages
        files = [link for link in links if link.project is not None]
        if links and not files:
            page = f"{without_password(index)} answers with a page that lists no package"
            raise ValueError(f"{page}, as a network does that asks for a login first")
        return files
    except NoSuchProjectError:
        return []
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        raise ValueError(f"the Python package index cannot be read: {first_line(error)}") from None


def indexes() -> list[str]:
    """The HTTP addresses of the indexes that the user's pip reads."""
    try:
        from pypi_simple import PYPI_SIMPLE_ENDPOINT
    except ImportError:
        raise ValueError(f"fetching from PyPI needs pypi-simple: {install('evals')}") from None
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
