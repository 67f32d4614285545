"""Source code in one revision of a git repository."""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.decompress import MachineFault
from bluejay.fetch import without_credentials, without_password
from bluejay.files import atomic_directory, cache_directory, only_writer
from bluejay.pile.documents import MAX_DOCUMENT_BYTES, Document, Skipped, skipped, too_large
from bluejay.pile.sources.code.tree import SourceFiles
from bluejay.pile.sources.io.open import matches
from bluejay.pile.sources.io.spdx import MAX_LICENCE_BYTES, LicenceFiles
from bluejay.progress import say

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""The whole hash of a commit."""
FETCHED = "refs/bluejay/fetched"
"""The name of a revision in the repository that it was fetched into."""
NAMES = """
GIT_DIR GIT_COMMON_DIR GIT_WORK_TREE GIT_IMPLICIT_WORK_TREE GIT_PREFIX GIT_INDEX_FILE GIT_OBJECT_DIRECTORY
GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_SHALLOW_FILE GIT_GRAFT_FILE GIT_REPLACE_REF_BASE GIT_NO_REPLACE_OBJECTS
GIT_NAMESPACE GIT_QUARANTINE_PATH
"""
OTHER_REPOSITORY = frozenset(NAMES.split())
"""Variables that name a repository or a part of one, as git sets them for hooks: they outrank `git -C`."""
REMEDIES = {
    "promisor": "`git checkout` of the revision fetches what a partial clone lacks",
    "dubious ownership": "another user owns it: `git config --global --add safe.directory FOLDER` trusts it",
}
"""What helps against a reason that git gives for not reading a repository."""
MAX_OUTPUT_BYTES = 200_000_000
"""Output of git that is kept: the names of two million files. A small repository can name the same folders without
end."""
FILE_MODES, SUBMODULE = ("100644", "100755"), "160000"
"""The modes of plain files, and of submodules, which are not read, as links are not (git-ls-tree(1))."""


@dataclass(frozen=True, kw_only=True)
class Git(SourceFiles):
    """The files of one commit as git stores them: no filter or hook is run. `path` is a folder or an address."""

    kind: Literal["git"]
    revision: str = "HEAD"
    """A commit, tag or branch; only a commit always has the same files."""

    def units(self) -> list[str]:
        """The commit; that of a branch or tag at an address is looked up anew, and said to be the one fetched before
        where it cannot be. Raises ValueError: the repository cannot be read, or has no such revision."""
        if self.remote and self.kept.exists() and not COMMIT.fullmatch(self.revision):
            try:
                self.fetch_again()
            except (BlockingIOError, ValueError) as error:
                say(f"{without_credentials(self.path)} is read as it was fetched before: {error}")
        repository = self.repository()
        try:
            return [git(repository, "rev-parse", "--verify", "--end-of-options", self.head).decode().strip()]
        except MachineFault as error:
            if "Needed a single revision" not in str(error):
                raise
            raise MachineFault(f"{self.path} has no revision {self.revision}") from None

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, in git's order of paths; submodules and what the repository lacks are skipped. Of a
        folder in a repository, only its files are read, under the licence files above it, too."""
        repository = self.repository()
        folder = git(repository, "rev-parse", "--show-prefix").decode(errors="surrogateescape").removesuffix("\n")
        listing = git(repository, "ls-tree", "-r", "-z", "--long", "--full-tree", unit)
        files, names = {}, []
        for line in listing.decode(errors="surrogateescape").split("\0")[:-1]:
            described, _, path = line.partition("\t")
            mode, _, blob, size = described.split()
            name = path.removeprefix(folder) if path.startswith(folder) else None
            if mode in FILE_MODES:
                files[path] = (blob, int(size))
                names += [] if name is None else [name]
            elif mode == SUBMODULE and name and not matches(f"{name}/", self.exclude):
                yield Skipped(f"{self.path}@{unit}#{name}", "a submodule: its files are in a repository of their own")
        self.say_idle(names)
        wanted = [name for name in names if self.wants(name)]
        if not wanted:
            yield Skipped(f"{self.path}@{unit}", self.nothing_in("it", names))
        with Blobs(repository) as blobs:
            licences = LicenceFiles(list(files), lambda path: blobs.read_small(*files[path]), folder)
            for name in wanted:
                blob, size = files[folder + name]
                url = f"{self.path}@{unit}#{name}"
                try:
                    self.check_size(size)
                    if size > MAX_DOCUMENT_BYTES:
                        raise too_large()
                    yield self.document(name, blobs.read(blob), licences, f"{self.title}-{unit[:12]}", url)
                except ValueError as error:
                    yield skipped(url, error)

    @property
    def title(self) -> str:
        """The repository's name."""
        path = without_credentials(self.path) if self.remote else Path(self.path).expanduser().resolve().as_posix()
        return path.rstrip("/").removesuffix("/.git").removesuffix(".git").rpartition("/")[2] or "repository"

    @property
    def head(self) -> str:
        """The name of the revision in the local repository."""
        return f"{FETCHED}^{{commit}}" if self.remote else self.revision + "^{commit}"

    @property
    def remote(self) -> bool:
        """Whether the repository is at an address: https://HOST/NAME, or USER@HOST:NAME."""
        return "://" in self.path or ("@" in self.path.partition(":")[0] and ":" in self.path)

    @property
    def kept(self) -> Path:
        """The place in the cache of the one revision of a repository at an address."""
        key = hashlib.sha256(f"{self.path} {self.revision}".encode()).hexdigest()
        return cache_directory() / "git" / key

    def repository(self) -> Path:
        """The local repository; from one at an address, the one revision is fetched into the cache."""
        if not self.remote:
            return Path(self.path).expanduser()
        if not self.kept.exists():
            try:
                self.fetch_anew()
            except MachineFault as error:
                if "mismatched algorithms" not in str(error):
                    raise
                self.fetch_anew("--object-format=sha256")
        return self.kept

    def fetch_anew(self, *options: str) -> None:
        """Fetch the revision into a new repository, made with `options`."""
        with atomic_directory(self.kept) as fetched:
            git(fetched, "init", "--quiet", "--bare", *options)
            self.fetch(fetched)

    def fetch_again(self) -> None:
        """Fetch the revision into the cache's repository. Raises BlockingIOError: another process does; ValueError."""
        with only_writer(self.kept, self.kept):
            for left in self.kept.rglob("*.lock"):  # by a git that was killed; others would wait for it for ever
                left.unlink()
            self.fetch(self.kept)

    def fetch(self, repository: Path) -> None:
        """Fetch the revision; what was fetched before stays where that fails. Raises ValueError: it does."""
        what = f"+{self.revision}:{FETCHED}"
        fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", self.path, what)
        git(repository, *fetch, source=without_credentials(self.path))


class Blobs:
    """The contents of a repository's files, read through one process (git-cat-file(1), --batch)."""

    def __init__(self, repository: Path) -> None:
        self.process = subprocess.Popen(
            ["git", "-C", str(repository), "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )

    def read(self, blob: str) -> bytes:
        """The content of a file. Raises ValueError: the repository lacks it."""
        request, reply = self.process.stdin, self.process.stdout
        assert request is not None and reply is not None
        request.write(f"{blob}\n".encode())
        request.flush()
        header = reply.readline().split()
        if len(header) != 3:
            raise ValueError("the repository lacks the file's content: it is damaged, or a partial clone")
        return reply.read(int(header[2]) + 1)[:-1]

    def read_small(self, blob: str, size: int) -> bytes:
        """The content of a file of `size` bytes; nothing if that is more than MAX_LICENCE_BYTES."""
        return self.read(blob) if size <= MAX_LICENCE_BYTES else b""

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


def environment() -> dict[str, str]:
    """The environment of a git command on a repository that is given by its path: git asks nothing, and fetches nothing
    that a partial clone lacks, for which it would run what the repository's own configuration says. Its reasons are in
    English, in which some are looked for."""
    kept = {name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}


def git(repository: Path, *command: str, source: str = "") -> bytes:
    """The output of a git command on a repository, or on the one at the address `source`. Raises MachineFault, with
    the reason that git gives; ValueError: the output is longer than MAX_OUTPUT_BYTES."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                ["git", "-C", str(repository), *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
            )
        except OSError:
            raise MachineFault("reading repositories needs git, which is not on this machine") from None
        with process:
            assert process.stdout is not None
            output = process.stdout.read(MAX_OUTPUT_BYTES + 1)
            if len(output) > MAX_OUTPUT_BYTES:
                process.kill()
                raise ValueError(f"git {command[0]} gives more than {MAX_OUTPUT_BYTES // 10**6} MB, too much to read")
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
    if process.returncode:
        place = next((number for number, line in enumerate(said) if line.startswith("fatal: ")), -1)
        place -= place > 0 and "Could not read from remote" in said[place]  # for a reason that ssh gave before
        why = said[place].removeprefix("fatal: ")
        helps = next((f"; {remedy}" for mark, remedy in REMEDIES.items() if mark in why), "")
        raise MachineFault(f"git cannot read {source or repository}: {without_password(why)}{helps}")
    return output
