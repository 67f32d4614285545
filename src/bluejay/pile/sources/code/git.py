"""Source code in one revision of a git repository."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.decompress import MachineFault
from bluejay.fetch import without_credentials, without_password
from bluejay.files import atomic_directory, cache_directory
from bluejay.pile.documents import MAX_DOCUMENT_BYTES, Document, Skipped, skipped, too_large
from bluejay.pile.sources.code.tree import SourceFiles
from bluejay.pile.sources.io.open import matches
from bluejay.pile.sources.io.spdx import LicenceFiles
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
                self.fetch(self.kept)
            except ValueError as error:
                say(f"{without_credentials(self.path)} is read as it was fetched before: {error}")
        return [git(self.repository(), "rev-parse", "--verify", "--end-of-options", self.head).decode().strip()]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, in git's order of paths; submodules and what the repository lacks are skipped."""
        repository = self.repository()
        listing = git(repository, "ls-tree", "-r", "-z", "--long", unit).decode(errors="surrogateescape")
        files = {}
        for line in listing.split("\0")[:-1]:
            described, _, name = line.partition("\t")
            mode, _, blob, size = described.split()
            if mode in FILE_MODES:
                files[name] = (blob, int(size))
            elif mode == SUBMODULE and not matches(f"{name}/", self.exclude):
                yield Skipped(f"{self.path}@{unit}#{name}", "a submodule: its files are in a repository of their own")
        self.say_idle(list(files))
        wanted = [name for name in files if self.wants(name)]
        if not wanted:
            yield Skipped(f"{self.path}@{unit}", f"no file in it matches {', '.join(self.include)}")
        with Blobs(repository) as blobs:
            licences = LicenceFiles(list(files), lambda name: blobs.read(files[name][0]))
            for name in wanted:
                blob, size = files[name]
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
        path = without_credentials(self.path)
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
            with atomic_directory(self.kept) as fetched:
                git(fetched, "init", "--quiet", "--bare")
                self.fetch(fetched)
        return self.kept

    def fetch(self, repository: Path) -> None:
        """Fetch the revision; what was fetched before stays where that fails. Raises ValueError: it does."""
        what = f"+{self.revision}:{FETCHED}"
        git(repository, "fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", self.path, what)


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

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


def environment() -> dict[str, str]:
    """The environment of a git command on a repository that is given by its path: git asks nothing, and fetches nothing
    that a partial clone lacks, for which it would run what the repository's own configuration says."""
    kept = {name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}


def git(repository: Path, *command: str) -> bytes:
    """The output of a git command. Raises MachineFault, with the last line of its error output."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(repository), *command],
            capture_output=True,
            check=False,
            env=environment(),
        )
    except OSError:
        raise MachineFault("reading repositories needs git, which is not on this machine") from None
    if answer.returncode:
        said = answer.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        lacks = "; `git checkout` of the revision fetches what a partial clone lacks" * ("promisor" in said[-1])
        raise MachineFault(f"git cannot read {repository}: {without_password(said[-1])}{lacks}")
    return answer.stdout
