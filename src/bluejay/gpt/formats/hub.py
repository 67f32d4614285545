"""Models of the Hugging Face hub: `pull` downloads and checks one, `cached` finds it again without a network.

They are kept in the hub's own cache, where every tool that uses the hub looks for them (its guide "Understand
caching"): files by hash in `blobs`, links to them in `snapshots/COMMIT`, the commit in `refs/REVISION`.
`huggingface_hub` provides names, tokens and metadata, but its own downloads, by Xet as by HTTP, go to a temporary file
that is removed when they are interrupted (its `file_download.py`). `bluejay.download` can resume them.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from bluejay.download import Answer, download, http
from bluejay.files import FULL_DISK, partial_of, require_writable, sha256_of, sync, write_text
from bluejay.gpt.formats.companions import KEPT_FILES, TRAINED_ON
from bluejay.gpt.formats.gguf_parts import part_names
from bluejay.progress import Bar, progress, say

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

PUBLISHED = {
    "EleutherAI": "gpt-j-6b gpt-neo-125m gpt-neo-1.3B gpt-neo-2.7B gpt-neox-20b pythia-14m pythia-31m pythia-70m "
    "pythia-160m pythia-410m pythia-1b pythia-1.4b pythia-2.8b pythia-6.9b pythia-12b",
    "openai-community": "gpt2 gpt2-medium gpt2-large gpt2-xl",
}
"""Owner -> models that may be named without their owner."""
NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(\w[\w./-]*))?", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
"""The last files to be written, so that a directory that has them is complete."""
PULLED = ".pulled"
"""The file of a directory that says of which repository its files are."""
SMALL_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|vocab|special_tokens_map|added_tokens|tekken)\.json"
    r"|merges\.txt|chat_template\.jinja|tokenizer\.model"
)
ADAPTER = re.compile(r"adapter_config\.json|adapter_model\.(safetensors|bin)")
GGUF = re.compile(r".+\.gguf", re.IGNORECASE)
WEIGHTS = {
    "model.safetensors": re.compile(r"model\.safetensors"),
    "model.safetensors.index.json": re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors"),
    "pytorch_model.bin": re.compile(r"pytorch_model\.bin"),
    "pytorch_model.bin.index.json": re.compile(r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin"),
}
"""Files that mark a form of the weights -> the files of that form. The first form that a repository has is used."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    url: str
    size: int
    digest: str
    """The SHA-256 of files in large-file storage; git's SHA-1, over a header and the content, of all others."""

    def matches(self, source: Path | bytes) -> bool:
        """Whether a local file, or a content, is this one."""
        if len(self.digest) == 64:
            found = sha256_of(source) if isinstance(source, Path) else hashlib.sha256(source).hexdigest()
            return found == self.digest
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        header = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        with source.open("rb") if isinstance(source, Path) else BytesIO(source) as file:
            return hashlib.file_digest(file, lambda: header).hexdigest() == self.digest

    def request(self, start: int, version: str | None) -> AbstractContextManager[Answer]:
        """Request the file from byte `start` on. Raises the hub's own errors."""
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        def stream(headers: dict[str, str]) -> "AbstractContextManager[Response]":
            headers, timeout = build_hf_headers(library_name="bluejay") | headers, constants.HF_HUB_DOWNLOAD_TIMEOUT
            return get_session().stream("GET", self.url, headers=headers, timeout=float(timeout))

        return http(stream, hf_raise_for_status, start, version)


def pull(name: str, directory: Path | None = None) -> Path:
    """Download a model to `directory`, or to the hub's cache; returns the model's directory.

    `name` is `owner/model`, or `model` alone for those of `PUBLISHED`; `@revision` may follow, and is `main` if absent.
    Configuration, tokenizer, model card, licence and weights are downloaded, the weights as safetensors where
    available; or an adapter, without its base, or the only GGUF file, with all its parts. An interrupted call is
    resumed. Every file, also one that was pulled before, is checked against the hub's hash, and downloaded again, once,
    if it differs. Raises ValueError: no such model or revision, no permission, a file that differs twice, or a
    directory that cannot be written or has a file of another model; OSError: no network, no space.
    """
    repo, revision = parse(name)
    if directory is not None:
        require_writable(directory, is_folder=True)
    from filelock import FileLock
    from huggingface_hub import HfApi, constants

    cache = Path(constants.HF_HUB_CACHE)
    storage = cache / f"models--{repo.replace('/', '--')}"
    locks = cache / ".locks" / storage.name
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / "pull.lock", timeout=1.0, mode=0o664)  # the cache may belong to a group of users
    with in_one_sentence(repo, revision, constants.ENDPOINT), lock:
        timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
        commit, files = remote_files(repo, info)
        if directory is not None:
            check_own(directory, repo, files)
            write_text(directory / PULLED, f"{repo}\n")
            for name in {CONFIG, ADAPTER_CONFIG} & {file.name for file in files}:
                (directory / name).unlink(missing_ok=True)
            download_all(repo, {directory / file.name: file for file in files}, directory)
            return directory
        download_all(repo, {storage / "blobs" / file.digest: file for file in files}, storage)
        snapshot = storage / "snapshots" / commit
        for file in files:
            link(snapshot / file.name, storage / "blobs" / file.digest)
        if revision != commit:
            write_text(storage / "refs" / revision, commit)
        return snapshot


def parse(name: str) -> tuple[str, str]:
    """The repository and revision that a name means. Raises ValueError: it cannot be a model's name."""
    match = NAME.fullmatch(name)
    published = {model.lower(): f"{owner}/{model}" for owner, models in PUBLISHED.items() for model in models.split()}
    if not match or ".." in name or ("/" not in match[1] and match[1].lower() not in published):
        short = ", ".join(published)
        raise ValueError(f"{name} is not the name of a model on the hub: it must be OWNER/MODEL, or one of {short}")
    repo, revision = match.groups(default="main")
    return published.get(repo.lower(), repo), revision


def cached(repo: str, revision: str) -> Path | None:
    """The directory of a pulled model in the hub's cache; None if it is absent or incomplete. Makes no request."""
    from huggingface_hub import constants

    return snapshot_in(Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}", revision)


def snapshot_in(storage: Path, revision: str) -> Path | None:
    """The directory of a revision in a repository's folder of the hub's cache; None if it is absent or incomplete."""
    commit = storage / "refs" / revision
    snapshot = storage / "snapshots" / (commit.read_text().strip() if commit.is_file() else revision)
    if not snapshot.is_dir():
        return None
    return snapshot if wanted([file.name for file in snapshot.iterdir() if file.is_file()]) else None


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files that a model, an adapter or the only GGUF file is loaded with, what marks it as
    complete last; none if it holds none of them."""
    weights = next((pattern for key, pattern in WEIGHTS.items() if key in names and CONFIG in names), None)
    adapter = [name for name in names if ADAPTER.fullmatch(name)]
    adapter = adapter if ADAPTER_CONFIG in adapter and len(adapter) > 1 else []
    ggufs = [name for name in names if GGUF.fullmatch(name)]
    loaded = [name for name in names if weights and weights.fullmatch(name)] + adapter
    loaded = loaded or (ggufs if ggufs and {*ggufs} == {*part_names(ggufs[0])} else [])
    small = [
        name for name in names if SMALL_FILES.fullmatch(name) or (KEPT_FILES.fullmatch(name) and name != TRAINED_ON)
    ]
    return sorted(small + loaded, key=lambda name: (name == CONFIG, name == ADAPTER_CONFIG)) if loaded else []


def check_own(directory: Path, repo: str, files: list[RemoteFile]) -> None:
    """Raise ValueError if a directory has a model that was trained here, a file that would be loaded with those of a
    repository and is none of them, or one of their names that is another file. What a former call, which `PULLED` says,
    or another revision brought may be there."""
    there = sorted(file.name for file in directory.iterdir()) if directory.is_dir() else []
    if TRAINED_ON in there:
        raise ValueError(f"{directory} has a model that was trained here, as its {TRAINED_ON} says; name a new folder")
    loaded, names = (SMALL_FILES, ADAPTER, GGUF, *WEIGHTS.values()), {file.name for file in files}
    for name in there:
        if name not in names and any(pattern.fullmatch(name) for pattern in loaded):
            raise ValueError(
                f"{directory} has {name}, which {repo} has not and which would be loaded with it; name a new folder, "
                "or remove that file"
            )
    if PULLED in there and (directory / PULLED).read_text(encoding="utf-8").strip() == repo:
        return
    for file in files:
        if file.name in there and not file.matches(directory / file.name):
            raise ValueError(f"{directory / file.name} is not that of {repo}; name a new folder, or remove that file")


def remote_files(repo: str, info: "ModelInfo") -> tuple[str, list[RemoteFile]]:
    """The commit and its files to download. Raises ValueError: the repository has no model, or the hub no hash."""
    from huggingface_hub import hf_hub_url

    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = wanted(list(siblings))
    if not names:
        has = ", ".join(sorted(siblings)[:10]) or "no files"
        one = min(filter(GGUF.fullmatch, siblings), default="")
        parts = " ".join(part_names(one))
        choice = f"; `hf download {repo} {parts} --local-dir FOLDER` brings one of several" if one else ""
        raise ValueError(
            f"{repo} has no {CONFIG} with model.safetensors or pytorch_model.bin, no adapter and no single GGUF file; "
            f"it has {has}{choice}"
        )
    commit, files = info.sha or "", []
    for name in names:
        sibling = siblings[name]
        digest = remote_digest(sibling)
        if sibling.size is None or not DIGEST.fullmatch(digest) or not DIGEST.fullmatch(commit):
            raise ValueError(f"the hub gives no size and hash for {name} of {repo}, so it cannot be checked")
        files.append(RemoteFile(name, hf_hub_url(repo, name, revision=commit), sibling.size, digest))
    return commit, files


def remote_digest(sibling: "RepoSibling") -> str:
    """The hash by which the hub knows a file; empty if it tells none."""
    return (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""


def download_all(repo: str, files: dict[Path, RemoteFile], root: Path) -> None:
    """Bring every file, complete and checked, to its path. Raises OSError: there is not enough space."""
    root.mkdir(parents=True, exist_ok=True)
    size = sum(file.size for file in files.values())
    done = sum(min(file.size, present_bytes(path)) for path, file in files.items())
    free = shutil.disk_usage(root).free
    if size - done > free:
        raise OSError(f"{repo} takes {(size - done) / 1e9:.1f} GB more, and {root} has {free / 1e9:.1f} GB left")
    with progress(f"pull {repo}", size, "B", done) as bar:
        for path, file in files.items():
            download_checked(file, path, bar)


def present_bytes(path: Path) -> int:
    """Bytes of a file that are on the disk, at its path or in its partial file."""
    return next((found.stat().st_size for found in (path, partial_of(path)) if found.exists()), 0)


def download_checked(file: RemoteFile, path: Path, bar: Bar) -> None:
    """Bring one file to its path. Raises ValueError: it arrives twice with another hash than the hub's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and remove_unless_whole(file, path, bar):
        return
    partial = partial_of(path)
    for _ in range(2):
        download(file.request, partial, bar, file.name, file.size)
        if remove_unless_whole(file, partial, bar):
            sync(partial)
            partial.replace(path)
            return
    raise ValueError(f"{file.name} came twice with another hash than the hub's own, {file.digest}: {file.url}")


def remove_unless_whole(file: RemoteFile, path: Path, bar: Bar) -> bool:
    """Remove a local file that is not the hub's; returns whether it stays."""
    bar.advance(0, f"checking {file.name}")
    if file.matches(path):
        return True
    say(f"{file.name} is not the hub's: its hash differs. It is removed and downloaded again")
    bar.advance(-path.stat().st_size)
    path.unlink()
    return False


def link(path: Path, blob: Path) -> None:
    """Name a blob in a snapshot; the link is relative, so that the cache can be moved."""
    target = os.path.relpath(blob, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() or path.readlink() != Path(target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


@contextmanager
def in_one_sentence(repo: str, revision: str, hub: str) -> Generator[None]:
    """Turn whatever keeps a model from being pulled into an error of one sentence that says what to do."""
    from filelock import Timeout
    from httpx2 import HTTPError
    from huggingface_hub import errors

    kept = "what has arrived is kept, and the same command resumes"
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
    except Timeout:
        raise ValueError(f"{repo} is being pulled by another process") from None
    except (HTTPError, ConnectionError) as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in (401, 403) and "authorization" in answer.request.headers:
            raise ValueError(
                f"{hub} refuses the token of HF_TOKEN or `hf auth login`; renew it, or unset it for a public model"
            ) from None
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConnectionError(f"{repo} cannot be pulled from {hub}: {reason}; {kept}") from None
    except OSError as error:
        if error.errno in FULL_DISK:
            raise OSError(f"no space left for {repo}; make room: {kept}") from None
        raise
