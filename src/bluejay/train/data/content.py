"""What the inputs of a run contain, as hashes: a file may move, and a run must notice when its content changes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bluejay.gpt.formats.companions import TUNED_LENS
from bluejay.gpt.formats.gguf_parts import parts_of
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.peft import base_of
from bluejay.tokenizer_files import json_object
from bluejay.tokens import suffixed

WHOLE_BYTES = 2**30
"""Larger files are known by their size and by blocks spread evenly over them; reading all of a corpus takes hours."""
BLOCKS, BLOCK_BYTES = 4096, 2**16
WEIGHTS = (".safetensors", ".bin", ".gguf", ".npz", ".npy", ".pt", ".pth")
"""Ends of the names of files that hold weights."""
DESCRIPTIONS = ("config.json", "adapter_config.json")
"""Files that say what is computed with the weights; others beside them, such as a card, cannot change a run."""


def hash_of_file(path: Path, of: int = 1) -> str:
    """A hash of a file's content, from all of it up to `WHOLE_BYTES`; if it is one `of` many files, these share the
    limit."""
    size, blocks = path.stat().st_size, max(2, BLOCKS // of)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= max(WHOLE_BYTES // of, BLOCK_BYTES):
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            for number in range(blocks):
                file.seek(number * (size - BLOCK_BYTES) // (blocks - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def hash_of_shard(prefix: str | Path, of: int = 1) -> str:
    """A hash of a token shard, which may be one `of` many."""
    return "".join(hash_of_file(suffixed(Path(prefix), suffix), of) for suffix in (".idx", ".bin"))


def hash_of_shards(prefixes: Sequence[str]) -> str:
    """A hash of token shards that are one set; of a single one it is that of `hash_of_shard`."""
    hashes = [hash_of_shard(prefix, len(prefixes)) for prefix in prefixes]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def hash_of_arrays(*arrays: np.ndarray) -> str:
    """A hash of arrays of numbers, their types and shapes included."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_of_model(name: str, adapted: frozenset[Path] = frozenset()) -> str:
    """A hash of what decides the weights of a model in any layout, and of the model that an adapter adapts; `adapted`
    are the folders of adapters that led to it. Raises FileNotFoundError if there is no such model.
    """
    path = locate(name)
    # Only checkpoints of mesh-transformer-jax have folders; below another model a run may write its own.
    deep = (path / "shard_0").is_dir() or (path / "meta.json").is_file()
    files = parts_of(path) if path.is_file() else sorted(filter(decides, path.glob("**/*" if deep else "*")))
    digest = hashlib.sha256()
    for file in files:
        named = "" if path.is_file() else file.relative_to(path).as_posix()
        digest.update(f"{named} {hash_of_file(file)} ".encode())
        if file.name == "adapter_config.json" and path.resolve() not in adapted:  # it may lie with its own base
            base = base_of(json_object(file))
            digest.update(hash_of_model(base, adapted | {path.resolve()}).encode())
    return digest.hexdigest()


def decides(file: Path) -> bool:
    """Whether a file of a model's directory decides its weights or what is computed with them."""
    known = (file.suffix in WEIGHTS and file.name != TUNED_LENS) or file.name in DESCRIPTIONS
    return known and file.is_file()
