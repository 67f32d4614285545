"""The documentation that installed Python packages carry."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path
from typing import Literal, cast

from bluejay.pile.documents import Document, Skipped, read_text
from bluejay.recipe import STRICT

SUFFIXES = {".md", ".rst"}
LONGEST_NAME = 60
"""Characters; a `License` field that is longer is the text of a licence, not its name."""


@dataclass(frozen=True)
class PackageDocs:
    """The description of every installed package, and the `.md` and `.rst` files among its files."""

    __pydantic_config__ = STRICT
    kind: Literal["package-docs"]

    def units(self) -> list[str]:
        """All packages, as one."""
        return ["installed packages"]

    def documents(self) -> Iterator[Document | Skipped]:
        """All documents of all units."""
        return self.read("")

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """Packages in order of name and version; of each, its description and then its files in order of path."""
        packages = []
        for package in distributions():
            try:
                packages.append((*identity(package), sorted(package.files or [], key=str), package))
            except (OSError, ValueError, csv.Error) as error:
                yield Skipped(f"the package at {package.locate_file('')}", str(error))
        for name, version, files, package in sorted(packages, key=lambda package: package[:2]):
            yield from package_documents(package, name, version, files)


def identity(package: Distribution) -> tuple[str, str]:
    """Normalised name and version; empty where the metadata lacks them."""
    return normalised(entry(metadata_of(package), "Name")), entry(metadata_of(package), "Version")


def metadata_of(package: Distribution) -> Message:
    """A package's metadata, which is a message of RFC 822 although the library's types do not say so."""
    return cast(Message, package.metadata)


def normalised(name: str) -> str:
    """A project's name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entry(metadata: Message, key: str) -> str:
    """One entry of the metadata, empty where there is none."""
    return (metadata.get_all(key) or [""])[0]


def package_documents(
    package: Distribution, name: str, version: str, files: list[PackagePath]
) -> Iterator[Document | Skipped]:
    """The documents of one package; `url` is a package URL, which names the file within the release."""
    source, url, licence = f"{name}-{version}", f"pkg:pypi/{name}@{version}", licence_of(metadata_of(package))
    described = entry(metadata_of(package), "Description")
    if described.strip():
        yield Document(described, source, licence, url, {"path": "METADATA"})
    for file in files:
        if file.suffix not in SUFFIXES or is_record(file):
            continue
        try:
            text = read_text(Path(str(package.locate_file(file))))
        except ValueError as error:
            yield Skipped(f"{source}/{file}", str(error))
            continue
        yield Document(text, source, licence, f"{url}#{file}", {"path": str(file)})


def is_record(file: PackagePath) -> bool:
    """Whether a file belongs to the installer's record of a package (licences and notices), not to the package."""
    return file.parts[0].endswith((".dist-info", ".egg-info"))


def licence_of(metadata: Message) -> str:
    """What the metadata says: the SPDX expression, or the licence's name, or the classifier's."""
    expression, name = entry(metadata, "License-Expression"), entry(metadata, "License").strip()
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    short = name if "\n" not in name and len(name) <= LONGEST_NAME else ""
    return expression or short or ", ".join(line.split(" :: ")[-1] for line in classifiers) or "unknown"
