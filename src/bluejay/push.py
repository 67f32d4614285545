"""Giving a model or a corpus to the Hugging Face hub: `push` sends what the hub lacks and checks what it then has.

Files go to the hub's large-file storage one after another and appear in one commit at the end, so nobody sees half of a
model; a file that arrived before an interruption is not sent again, because the storage knows it by its hash.
"""

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.files import TEMPORARY
from bluejay.gpt.formats.companions import CARD, KEPT_FILES, TRAINED_ON
from bluejay.gpt.formats.gguf_parts import parts_of
from bluejay.gpt.formats.hub import ADAPTER, ADAPTER_CONFIG, GGUF, SMALL_FILES, WEIGHTS, RemoteFile, remote_digest
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate, name_on_hub, title
from bluejay.gpt.formats.peft import base_of, read_adapter_config
from bluejay.gpt.formats.tensors import StoredModel, has_tensors
from bluejay.pile.report.card import write_card
from bluejay.progress import progress, say

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
REPORT, CARD_FOLDER = "report.json", "card"
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Our names of the parts of a corpus -> those that `datasets` uses."""
CORPUS_FILES = re.compile(
    r"documents/(train|valid|test)\.parquet/.+|tokens/.+|jsonl/.+|card/.+\.png|tokenizer(_config)?\.json"
    r"|recipe\.toml|report\.json|SHA256SUMS"
)


@dataclass(frozen=True)
class Parcel:
    """What is sent."""

    kind: str
    """The hub's kind of repository: model or dataset."""
    files: Mapping[str, Path | bytes]
    """Name in the repository -> a local file, or its content."""


def push(path: Path, name: str, private: bool = False) -> str:
    """Send a model directory or that of its run, an adapter, a GGUF file or a corpus to the repository `name`,
    `OWNER/NAME`, and return its address. The repository is made where there is none, `private` if asked for; its other
    files stay. A model without a card gets one, unless the hub has one, a corpus one that `datasets` reads. An
    interrupted call is resumed. Raises FileNotFoundError: there is no model or corpus; ValueError: the name is wrong,
    no permission, or the hub holds another file than was sent; OSError: no network."""
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name} is not the name of a repository; it must be OWNER/NAME")
    located = path if (path / REPORT).is_file() else locate(path)
    called = title(path, located)
    parcel = corpus(path) if (path / REPORT).is_file() else model(located, called)
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api, where = HfApi(), {"repo_id": name, "repo_type": parcel.kind}
    with in_one_sentence(name, constants.ENDPOINT):
        url = api.create_repo(**where, private=private or None, exist_ok=True)
        info: Any = api.repo_info(**where, files_metadata=True)
        files, there = sent_files(parcel, [sibling.rfilename for sibling in info.siblings or []]), held(info)
        missing = {file: source for file, source in files.items() if not same(there.get(file), source)}
        sizes = {file: size_of(source) for file, source in files.items()}
        done = sum(sizes[file] for file in files.keys() - missing.keys())
        with progress(f"push {name}", sum(sizes.values()), "B", done) as bar:
            sent = []
            for file, source in missing.items():
                bar.advance(0, file)
                operation = CommitOperationAdd(file, source)
                api.preupload_lfs_files(additions=[operation], **where)
                sent.append(operation)
                bar.advance(sizes[file])
        if sent:
            commit = api.create_commit(operations=sent, commit_message=f"Add {called} by bluejay push", **where)
            there = held(api.repo_info(revision=commit.oid, files_metadata=True, **where))
        for file, source in files.items():
            if not same(there.get(file), source):
                raise ValueError(f"{url} holds another {file} than was sent; the same command sends it again")
    return str(url)


def sent_files(parcel: Parcel, there: list[str]) -> dict[str, Path | bytes]:
    """The files of a parcel, without the card that was generated for a model where the hub has one, maybe written by
    hand; `there` are the hub's files."""
    generated = parcel.kind == "model" and isinstance(parcel.files.get(CARD), bytes)
    return {file: source for file, source in parcel.files.items() if not (generated and file == CARD and CARD in there)}


def held(info: Any) -> dict[str, RemoteFile]:
    """The files of a repository that the hub can name by a hash."""
    found = {sibling.rfilename: remote_digest(sibling) for sibling in info.siblings or []}
    return {name: RemoteFile(name, "", 0, digest) for name, digest in found.items() if digest}


def same(remote: RemoteFile | None, source: Path | bytes) -> bool:
    """Whether the hub's file has the content of a local one."""
    return remote is not None and remote.matches(source)


def size_of(source: Path | bytes) -> int:
    """Bytes of a file."""
    return source.stat().st_size if isinstance(source, Path) else len(source)


def model(path: Path, name: str) -> Parcel:
    """The files of a model called `name`, with a card. Raises FileNotFoundError or ValueError if there is none that can
    be read."""
    stored = open_model(path)
    if path.is_file():
        parts: dict[str, Path | bytes] = {part.name: part for part in parts_of(path)}
        return Parcel("model", parts | {CARD: short_card(stored, path.stem, "gguf").encode()})
    patterns = (SMALL_FILES, KEPT_FILES, ADAPTER, *WEIGHTS.values(), GGUF)
    local = {file.name: file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")}
    sent = (one for one in local if any(pattern.fullmatch(one) for pattern in patterns))
    files = {one: local[one] for one in sent if one != TRAINED_ON}  # which names folders of this machine
    if others := sorted(local.keys() - files.keys()):
        say(f"not sent, because no model is loaded from it: {', '.join(others)}")
    adapter = ADAPTER_CONFIG in files and not has_tensors(path)
    base = base_on_hub(path) if adapter else None
    if CARD in files:
        return Parcel("model", files)
    library = "peft" if adapter else "transformers" if has_tensors(path) else "gguf"
    return Parcel("model", files | {CARD: short_card(stored, name, library, base).encode()})


def base_on_hub(path: Path) -> str | None:
    """The name on the hub of the model that an adapter adapts, None if it has none, which is said, as is a base that
    the adapter's file names by its place on this machine."""
    base = base_of(read_adapter_config(path))
    named = name_on_hub(base)
    if Path(base).exists():
        say(
            f"{path / ADAPTER_CONFIG} names its base by a place on this machine, {base}; others can load the adapter "
            f"if base_model_name_or_path is {named[0] if named else 'the name of the base on the hub'}"
        )
    return named and named[0]


def short_card(stored: StoredModel, name: str, library: str, base: str | None = None) -> str:
    """The card of a model that has none, and no run from whose records `bluejay.model_card` could write one: its
    licence, shape and how to run it; of an adapter, also the name of its base on the hub."""
    config = stored.config
    shape = {
        "family": config.family,
        "parameters": f"{config.n_parameters:,}",
        "layers": config.n_layer,
        "width": config.d_model,
        "heads": config.n_head,
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.n_ctx:,} tokens",
    }
    licence = [f"license: {stored.licence}"] if stored.licence else []
    about = [*licence, f"library_name: {library}", *([f"base_model: {base}"] if base else [])]
    front = ["---", *about, "pipeline_tag: text-generation", "tags:", "- bluejay", "---"]
    table = ["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in shape.items())]
    pulled = [f"bluejay pull {one}" for one in (base, "OWNER/NAME") if one]
    use = ["```", *pulled, 'bluejay generate OWNER/NAME "A prompt"', "```"]
    return "\n".join([*front, "", f"# {name}", "", *table, "", *use, ""])


def corpus(path: Path) -> Parcel:
    """The documents, token shards, tokenizer and card of a corpus. Raises ValueError if it is not complete."""
    card = write_card(path).read_text(encoding="utf-8").replace("](", f"]({CARD_FOLDER}/")
    local = (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.endswith(TEMPORARY))
    names = {str(file.relative_to(path)): file for file in local}
    files = {name: file for name, file in names.items() if CORPUS_FILES.fullmatch(name)}
    if place := place_in(files):
        say(f"documents carry the places of their files on this machine, such as {place}; these are sent, too")
    return Parcel("dataset", files | {CARD: ("\n".join(front_matter(files)) + "\n" + card).encode()})


def place_in(files: Mapping[str, Path]) -> str | None:
    """The first place on this machine that stands as the address of a document; None if none does."""
    from pyarrow import parquet

    for name, file in files.items():
        if name.startswith("documents/"):
            rows = next(parquet.ParquetFile(file).iter_batches(columns=["url"]), None)  # 65,536 of each file
            urls = [] if rows is None else rows["url"].to_pylist()
            if place := next((url for url in urls if url.startswith(os.sep)), None):
                return place
    return None


def front_matter(files: Mapping[str, Path]) -> Iterator[str]:
    """The lines by which `datasets` finds the documents of each split."""
    yield from ("---", "task_categories:", "- text-generation", "configs:", "- config_name: default", "  data_files:")
    for ours, theirs in SPLITS.items():
        folder = f"documents/{ours}.parquet"
        if any(name.startswith(f"{folder}/") for name in files):
            yield from (f"  - split: {theirs}", f"    path: {folder}/*.parquet")
    yield "---"


@contextmanager
def in_one_sentence(repo: str, hub: str) -> Generator[None]:
    """Turn whatever keeps files from being sent into an error of one sentence that says what to do."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    kept = "what has arrived is kept, and the same command resumes"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise ConnectionError(f"{repo} cannot be pushed while HF_HUB_OFFLINE is set") from None
    except (errors.HfHubHTTPError, HTTPError, ConnectionError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            raise ValueError(
                f"{hub} does not let you write to {repo}: log in with `hf auth login`, or set HF_TOKEN"
            ) from None
        reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
        raise ConnectionError(f"{repo} cannot be pushed to {hub}: {reason}; {kept}") from None
