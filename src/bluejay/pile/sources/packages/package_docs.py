"""The documentation that installed Python packages carry.

A package is an `importlib.metadata.Distribution`, or the class of that name in its backport `importlib_metadata`, which
takes the place of the standard library's finder in any process that imports it. Hence the annotations `Any`.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from bluejay.pile.documents import Document, Skipped, skipped
from bluejay.pile.sources.io.decode import read_text
from bluejay.recipe import STRICT

SUFFIXES = {".md", ".rst"}
MAX_LICENCE_NAME = 60
"""Characters; a longer `License` field is the text of a licence, not its name."""
NO_LICENCE = "UNKNOWN"
"""What older setuptools wrote where a package names none."""


@dataclass(frozen=True)
class PackageDocs:
    """The description of every installed package, and the `.md` and `.rst` files among its files."""

    __pydantic_config__ = STRICT
    kind: Literal["package-docs"]

    def units(self) -> list[str]:
        """All packages, as one unit."""
        return ["installed packages"]

    def stamps(self, unit: str) -> list[tuple[str]]:
        """The sha256 of the metadata of each package, which name its version, too."""
        return sorted((metadata_sha256(package),) for package in distributions())

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The description and then the files, by path, of each package, in order of name and version."""
        packages = []
        for package in distributions():
            try:
                packages.append((*identity(package), sorted(package.files or [], key=str), package))
            except (OSError, ValueError, csv.Error) as error:
                yield Skipped(f"the package at {package.locate_file('')}", str(error))
        for name, version, files, package in sorted(packages, key=lambda package: package[:2]):
            yield from package_documents(package, name, version, files)


def identity(package: Any) -> tuple[str, str]:
    """Normalised name and version; empty if the metadata lacks them."""
    return normalised(entry(package.metadata, "Name")), entry(package.metadata, "Version")


def metadata_sha256(package: Any) -> str:
    """The sha256 of a package's metadata; empty if they cannot be read."""
    try:
        text = package.read_text("METADATA") or package.read_text("PKG-INFO") or ""
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def normalised(name: str) -> str:
    """A project's name in the form that indexes use (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entry(metadata: Message, key: str) -> str:
    """One entry of the metadata; empty if it is absent."""
    return (metadata.get_all(key) or [""])[0]


def package_documents(
    package: Any, name: str, version: str, files: Sequence[PurePosixPath]
) -> Iterator[Document | Skipped]:
    """The documents of one package; their `url` is a package URL that names the file within the release."""
    source, url, licence = f"{name}-{version}", f"pkg:pypi/{name}@{version}", licence_of(package.metadata)
    described = entry(package.metadata, "Description")
    if described.strip():
        yield Document(described, source, licence, url, {"path": "METADATA"})
    for file in files:
        if file.suffix not in SUFFIXES or is_record(file):
            continue
        try:
            text = read_text(Path(str(package.locate_file(file))))
        except ValueError as error:
            yield skipped(f"{source}/{file}", error)
            continue
        yield Document(text, source, licence, f"{url}#{file}", {"path": str(file)})


def is_record(file: PurePosixPath) -> bool:
    """Whether a file is the installer's record of a package (licences and notices), not part of the package."""
    return file.parts[0].endswith((".dist-info", ".egg-info"))


def licence_of(metadata: Message) -> str:
    """The licence in the metadata: the SPDX expression, else the licence's name, else the classifiers'."""
    expression, name = (entry(metadata, key).strip() for key in ("License-Expression", "License"))
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    is_name = "\n" not in name and len(name) <= MAX_LICENCE_NAME and name != NO_LICENCE
    short = name if is_name else ""
    return expression or short or ", ".join(line.split(" :: ")[-1] for line in classifiers) or "unknown"
