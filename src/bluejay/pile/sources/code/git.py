"""Source code: one revision of a git repository."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.files import atomic_directory, cache_directory
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.code.tree import SourceFiles
from bluejay.pile.sources.io.spdx import LicenceFiles

FILE_MODES = ("100644", "100755")
"""Of plain files; links and other repositories within are passed over (git-ls-tree(1))."""


@dataclass(frozen=True, kw_only=True)
class Git(SourceFiles):
    """The files of one commit, as git keeps them: no filter and no hook runs. `path` is a folder or an address."""

    kind: Literal["git"]
    revision: str = "HEAD"
    """A commit, tag or branch; only a commit is the same tomorrow."""

    def units(self) -> list[str]:
        """The commit. Raises ValueError: the repository cannot be had, or has no such revision."""
        return [git(self.repository(), "rev-parse", "--verify", "--end-of-options", self.head).decode().strip()]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, in git's order of path."""
        repository = self.repository()
        listing = git(repository, "ls-tree", "-r", "-z", "--long", unit).decode(errors="surrogateescape")
        files = {}
        for line in listing.split("\0")[:-1]:
            described, _, name = line.partition("\t")
            mode, _, blob, size = described.split()
            if mode in FILE_MODES:
                files[name] = (blob, int(size))
        with Blobs(repository) as blobs:
            licences = LicenceFiles(list(files), lambda name: blobs.read(files[name][0]))
            for name in filter(self.wants, files):
                blob, size = files[name]
                url = f"{self.path}@{unit}#{name}"
                try:
                    if size > self.max_bytes:
                        raise ValueError(f"larger than {self.max_bytes:,} bytes")
                    yield self.document(name, blobs.read(blob), licences, f"{self.title}-{unit[:12]}", url)
                except ValueError as error:
                    yield Skipped(url, str(error))

    @property
    def title(self) -> str:
        """The repository's name."""
        return self.path.rstrip("/").removesuffix("/.git").removesuffix(".git").rpartition("/")[2] or "repository"

    @property
    def head(self) -> str:
        """The revision, as the local repository names it."""
        return "FETCH_HEAD^{commit}" if self.remote else self.revision + "^{commit}"

    @property
    def remote(self) -> bool:
        """Whether the repository is at an address: https://HOST/NAME, or USER@HOST:NAME."""
        return "://" in self.path or ("@" in self.path.partition(":")[0] and ":" in self.path)

    def repository(self) -> Path:
        """Where the repository is; what is at an address is brought into the cache, that one revision alone."""
        if not self.remote:
            return Path(self.path).expanduser()
        key = hashlib.sha256(f"{self.path}@{self.revision}".encode()).hexdigest()
        kept = cache_directory() / "git" / key
        if not kept.exists():
            with atomic_directory(kept) as fetched:
                git(fetched, "init", "--quiet", "--bare")
                git(fetched, "fetch", "--quiet", "--depth=1", "--end-of-options", self.path, self.revision)
        return kept


class Blobs:
    """The contents of a repository's files, through one process (git-cat-file(1), --batch)."""

    def __init__(self, repository: Path) -> None:
        self.process = subprocess.Popen(
            ["git", "-C", str(repository), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, blob: str) -> bytes:
        """The content of a file. Raises ValueError: the repository lacks it."""
        ask, answer = self.process.stdin, self.process.stdout
        assert ask is not None and answer is not None
        ask.write(f"{blob}\n".encode())
        ask.flush()
        header = answer.readline().split()
        if len(header) != 3:
            raise ValueError("the repository is broken: it lacks the file's content")
        return answer.read(int(header[2]) + 1)[:-1]

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


def git(repository: Path, *command: str) -> bytes:
    """What a git command answers. Raises ValueError: with its own last words."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(repository), *command],
            capture_output=True,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except OSError:
        raise ValueError("reading repositories needs git, which is not on this machine") from None
    if answer.returncode:
        said = answer.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ValueError(f"git cannot read {repository}: {said[-1]}")
    return answer.stdout
