"""The base class of packages from registries: one archive, some members of which are documents."""

import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bluejay.decompress import MachineFault
from bluejay.fetch import adopt, cached, cached_by_hash, without_password
from bluejay.files import cache_directory, sha256_of
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.io.open import local, open_raw
from bluejay.pile.sources.io.unpack import content, members
from bluejay.pile.sources.packages.archive import Archive
from bluejay.pile.sources.packages.member import MemberFormat, Members, Release, without_root


@dataclass(frozen=True, kw_only=True)
class Package(Members, ABC):
    """A package, downloaded by name from its registry or read from a file; the cache keeps it under its sha256."""

    formats: tuple[Annotated[MemberFormat | Archive, Field(discriminator="kind")], ...] = ()
    """Readers of other members; the first whose `path` matches is used. A member may itself be an archive."""
    name: str | None = None
    """The name of the package."""
    version: str | None = None
    """The newest if not given; the corpus then changes with every new version."""
    sha256: str | None = None
    """The sha256 of the package's file; any other file is refused."""
    path: str | None = None
    """A file or an address of the package, in place of name and version."""
    licence: str = "from-metadata"
    """The licence of the whole package, where its metadata is wrong or incomplete."""
    optional: bool = False
    """Whether a corpus may be built without the package if it cannot be downloaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name is None) == (self.path is None):
            raise ValueError('a package needs one of name = "django" and path = "django-5.2.19.tar.gz"')

    def units(self) -> list[str]:
        """The package as one unit, `SHA256/FILE`. Raises ValueError: it cannot be downloaded, or has another sha256."""
        archive = self.archive()
        return [f"{self.sha256 or sha256_of(archive)}/{archive.name}"]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of the package, in the archive's order. Raises ValueError: it is not an archive; MachineFault:
        it cannot be downloaded."""
        sha256, _, name = unit.partition("/")
        archive = cached(sha256, name)
        if not archive.exists():
            try:
                archive = self.archive()
            except ValueError as error:
                raise MachineFault(str(error)) from None
        release = self.release(archive)
        if self.licence != "from-metadata":
            release = Release(release.source, release.url, self.licence)
        with open_raw(str(archive)) as stream:
            yield from self.documents(stream, release, self.rooted(archive))

    def archive(self) -> Path:
        """The package's file, downloaded if necessary."""
        if self.path is None:
            return (self.sha256 and cached_by_hash(self.sha256)) or self.fetch()
        file = local(self.path)
        if self.sha256 and sha256_of(file) != self.sha256:
            raise ValueError(f"{without_password(self.path)} has the sha256 {sha256_of(file)}, not {self.sha256}")
        return file

    @property
    def requirement(self) -> str:
        """Name and version for messages."""
        return f"{self.name} {self.version or '(newest)'}"

    def download(self, command: list[str], pattern: str, helps: str = "") -> Path:
        """Cache the file that a registry's own client downloads. Raises ValueError: it has none, for which `helps` may
        be a remedy, or another sha256."""
        folder = cache_directory() / "downloads"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            try:
                answer = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
            except OSError:
                raise ValueError(f"{self.requirement} needs {command[0]}, which is not on this machine") from None
            found = sorted(Path(temporary).glob(pattern))
            if answer.returncode or not found:
                said = (answer.stderr.strip() or answer.stdout.strip() or "no reason given").splitlines()
                why = without_password(said[-1])
                raise ValueError(f"{command[0]} cannot get {self.requirement}: {why}{helps and f'; {helps}'}")
            file = cached(self.sha256 or sha256_of(found[0]), found[0].name)
            adopt(found[0], file, self.sha256)
        return file

    @abstractmethod
    def fetch(self) -> Path:
        """Download the package's file into the cache. Raises ValueError: the registry does not provide it."""

    @abstractmethod
    def release(self, archive: Path) -> Release:
        """Name, version and licence from the package's metadata. Raises ValueError: it is not such a package."""

    @abstractmethod
    def rooted(self, archive: Path) -> bool:
        """Whether all members are in one folder, which the paths of documents omit."""


def first_member(archive: Path, rooted: bool, wanted: Callable[[str], bool]) -> bytes:
    """The content of the first member whose path is wanted and that is no link; empty if there is none."""
    with open_raw(str(archive)) as stream:
        for found in members(stream, archive.name):
            if not isinstance(found, Skipped) and found[1] and wanted(without_root(found[0], rooted)):
                return content(found[1])
    return b""
