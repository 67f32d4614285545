"""Models of the Hugging Face hub: `pull` downloads and checks one, `cached` finds it again without a network.

Models lie in the hub's own cache, where every tool that uses the hub looks for them (its guide "Understand caching"):
`blobs` by hash, `snapshots/COMMIT` with links to them, `refs/REVISION` with the commit. `huggingface_hub` answers for
names, tokens and that cache. The bytes of a file are fetched here: the library gives every download a temporary file of
its own and removes it when it breaks off, by Xet as by HTTP (its `file_download.py`), so there it cannot be resumed.
"""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bluejay.files import TEMPORARY, sync, write_text
from bluejay.progress import Bar, progress, say

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

KNOWN = {
    "EleutherAI": "gpt-j-6b gpt-neo-125m gpt-neo-1.3B gpt-neo-2.7B gpt-neox-20b pythia-14m pythia-31m pythia-70m "
    "pythia-160m pythia-410m pythia-1b pythia-1.4b pythia-2.8b pythia-6.9b pythia-12b",
    "openai-community": "gpt2 gpt2-medium gpt2-large gpt2-xl",
}
"""Who published the models that go by one name, without an owner."""
NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(\w[\w./-]*))?", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CONFIG = "config.json"
"""Comes last, so that a directory that has it is whole."""
TEXTS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|vocab|special_tokens_map|added_tokens)\.json"
    r"|merges\.txt|chat_template\.jinja|README\.md|LICENSE(\.\w+)?"
)
WEIGHTS = {
    "model.safetensors": re.compile(r"model\.safetensors"),
    "model.safetensors.index.json": re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors"),
    "pytorch_model.bin": re.compile(r"pytorch_model\.bin"),
    "pytorch_model.bin.index.json": re.compile(r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin"),
}
"""The first of these that a repository has is what is loaded, with the files that belong to it."""
CHUNK = 1 << 20
REQUESTS = 4
"""So many in a row that bring nothing end a download. The pauses between them double, from a second."""
TRANSIENT = (408, 429, 500, 502, 503, 504)
"""HTTP's statuses that may be others a moment later."""


@dataclass(frozen=True)
class Remote:
    """A file of a repository."""

    name: str
    url: str
    size: int
    digest: str
    """SHA-256 of what lies in large-file storage; of the rest git's SHA-1, which is over a header and the content."""

    def matches(self, path: Path) -> bool:
        """Whether a file on the disk has this content."""
        hasher = hashlib.sha256() if len(self.digest) == 64 else hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as file:
            if len(self.digest) == 40:
                hasher.update(f"blob {path.stat().st_size}\0".encode())
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest() == self.digest


def pull(name: str, directory: Path | None = None) -> Path:
    """Download a model; where it then is: in the hub's cache, or `directory`.

    `name` is `owner/model`, or `model` alone for those of `KNOWN`; `@revision` may follow, else it is `main`. What is
    fetched is configuration, tokenizer, model card and weights, and of these the safetensors where there are any. What
    an earlier call began is taken up where it stopped. Every file, also one that was there, is checked against the
    hub's hash, and fetched again once where it differs. Raises ValueError: no such model or revision, one that needs
    permission, a file that differs twice; OSError: no network, no space.
    """
    repo, revision = parse(name)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import WeakFileLock

    cache = Path(constants.HF_HUB_CACHE)
    storage = cache / f"models--{repo.replace('/', '--')}"
    locks = cache / ".locks" / storage.name
    locks.mkdir(parents=True, exist_ok=True)
    with plainly(repo, revision, constants.ENDPOINT), WeakFileLock(locks / "pull.lock", timeout=1.0):
        timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
        commit, files = remote_files(repo, info)
        if directory is not None:
            (directory / CONFIG).unlink(missing_ok=True)
            download(repo, {directory / file.name: file for file in files}, directory)
            return directory
        download(repo, {storage / "blobs" / file.digest: file for file in files}, storage)
        snapshot = storage / "snapshots" / commit
        for file in files:
            link(snapshot / file.name, storage / "blobs" / file.digest)
        if revision != commit:
            write_text(storage / "refs" / revision, commit)
        return snapshot


def parse(name: str) -> tuple[str, str]:
    """Repository and revision. Raises ValueError for what cannot be a name."""
    match = NAME.fullmatch(name)
    published = {model.lower(): f"{owner}/{model}" for owner, models in KNOWN.items() for model in models.split()}
    if not match or ".." in name or ("/" not in match[1] and match[1].lower() not in published):
        raise ValueError(f"{name} is no model on the hub: it must be OWNER/MODEL, or one of {', '.join(published)}")
    repo, revision = match.groups(default="main")
    return published.get(repo.lower(), repo), revision


def cached(repo: str, revision: str) -> Path | None:
    """The directory of a pulled model in the hub's cache; None if it is absent or incomplete. Makes no request."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, CONFIG, revision=revision)
    if isinstance(config, str) and wanted([file.name for file in Path(config).parent.iterdir()]):
        return Path(config).parent
    return None


def wanted(names: list[str]) -> list[str]:
    """Of a repository's files those that a model is loaded from, the configuration last; none if it has no model."""
    weights = next((pattern for key, pattern in WEIGHTS.items() if key in names), None)
    if weights is None or CONFIG not in names:
        return []
    return sorted((name for name in names if TEXTS.fullmatch(name) or weights.fullmatch(name)), key=CONFIG.__eq__)


def remote_files(repo: str, info: "ModelInfo") -> tuple[str, list[Remote]]:
    """The commit, and what to fetch of it. Raises ValueError where there is no model, or no hash to check it by."""
    from huggingface_hub import hf_hub_url

    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = wanted(list(there))
    if not names:
        has = ", ".join(sorted(there)[:10]) or "no files"
        raise ValueError(f"{repo} has no {CONFIG} with model.safetensors or pytorch_model.bin; it has {has}")
    commit, files = info.sha or "", []
    for name in names:
        sibling = there[name]
        digest = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
        if sibling.size is None or not DIGEST.fullmatch(digest) or not DIGEST.fullmatch(commit):
            raise ValueError(f"the hub gives no size and hash for {name} of {repo}, so it cannot be checked")
        files.append(Remote(name, hf_hub_url(repo, name, revision=commit), sibling.size, digest))
    return commit, files


def download(repo: str, files: dict[Path, Remote], root: Path) -> None:
    """Have every file in its place, whole and checked. Raises OSError where there is no room."""
    root.mkdir(parents=True, exist_ok=True)
    size = sum(file.size for file in files.values())
    done = sum(min(file.size, at_hand(place)) for place, file in files.items())
    free = shutil.disk_usage(root).free
    if size - done > free:
        raise OSError(f"{repo} takes {(size - done) / 1e9:.1f} GB more, and {root} has {free / 1e9:.1f} GB left")
    with progress(f"pull {repo}", size, "B", done) as bar:
        for place, file in files.items():
            obtain(file, place, bar)


def at_hand(place: Path) -> int:
    """Bytes of a file that are there, in its place or beside it."""
    return next((path.stat().st_size for path in (place, partial_of(place)) if path.exists()), 0)


def partial_of(place: Path) -> Path:
    """Where a file is until it is whole."""
    return place.with_name(f"{place.name}{TEMPORARY}")


def obtain(file: Remote, place: Path, bar: Bar) -> None:
    """Have one file in its place. Raises ValueError where it comes twice with another hash than the hub's."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and correct(file, place, bar):
        return
    partial = partial_of(place)
    for _ in range(2):
        fetch(file, partial, bar)
        if correct(file, partial, bar):
            sync(partial)
            partial.replace(place)
            return
    raise ValueError(f"{file.name} came twice with another hash than the hub's own, {file.digest}: {file.url}")


def correct(file: Remote, path: Path, bar: Bar) -> bool:
    """Whether a file is what the hub has; removed if not."""
    bar.advance(0, f"checking {file.name}")
    if file.matches(path):
        return True
    say(f"{file.name} is corrupted: its hash is not the hub's. It is removed and fetched again")
    bar.advance(-path.stat().st_size)
    path.unlink()
    return False


def fetch(file: Remote, partial: Path, bar: Bar) -> None:
    """Append what a partial file lacks, and where the connection breaks, go on from there.

    Raises the hub's own errors; ConnectionError after `REQUESTS` that brought nothing.
    """
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError

    failures = 0
    with partial.open("ab") as out:
        while (start := out.tell()) < file.size:
            problem = None
            try:
                receive(file, out, bar)
            except (TransportError, HfHubHTTPError) as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code not in TRANSIENT:
                    raise
                problem = error
            failures = 0 if out.tell() > start else failures + 1
            if failures == REQUESTS:
                raise ConnectionError(f"{file.url} sends nothing any more: {problem}")
            if failures:
                time.sleep(2 ** (failures - 1))


def receive(file: Remote, out: BinaryIO, bar: Bar) -> None:
    """One request for the rest of a file. Bytes are asked for as they are: a part of a compressed text is no text."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = out.tell()
    headers = build_hf_headers(library_name="bluejay") | {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    with get_session().stream("GET", file.url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if start and response.status_code != HTTPStatus.PARTIAL_CONTENT:  # it sends the whole file
            out.seek(0)
            out.truncate()
            bar.advance(-start)
        for chunk in response.iter_raw():
            out.write(chunk)
            bar.advance(len(chunk), file.name)
            if out.tell() > file.size:
                return


def link(path: Path, blob: Path) -> None:
    """Name a blob in a snapshot, relative so that the cache can be moved."""
    target = os.path.relpath(blob, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() or path.readlink() != Path(target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


@contextmanager
def plainly(repo: str, revision: str, hub: str) -> Generator[None]:
    """Say in one sentence what kept a model from being pulled."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    again = "what has come is kept, and the same command goes on from there"
    try:
        yield
    except errors.GatedRepoError:
        raise ValueError(
            f"{repo} is gated: accept its terms at {hub}/{repo}, then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{repo} has no revision {revision}") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"{hub} has no model {repo}; if it is a private one, log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise ConnectionError(f"{repo} cannot be pulled while HF_HUB_OFFLINE is set") from None
    except TimeoutError:  # the lock's: the network's are HTTPError
        raise ValueError(f"{repo} is being pulled by another process") from None
    except HTTPError as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConnectionError(f"{repo} cannot be pulled from {hub}: {reason}; {again}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(f"no space left for {repo}; make room: {again}") from None
        raise
