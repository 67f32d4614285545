"""Checkpoints of mesh-transformer-jax, in which GPT-J was published: `step_N/shard_S/P.npz`, with or without Adam's
state ("full" and "slim").

Each shard holds its part of every weight. Its arrays are the leaves of a tree; they have numbers instead of names. The
order is that of the state's keys (`opt_state`, `params`, `step`), within the parameters that of the modules' names
(layer_0, layer_1, layer_10, ...), and within a module that of its parameters' names. The sequence is divided into the
files P from front to back (mesh_transformer/checkpoint.py and layers.py). So only the position of an array tells which
weight it is; its shape is checked against that weight's.

Matrices are stored (in, out). D model · V vocabulary, as in `bluejay.gpt.model`.
"""

import math
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from bluejay.files import parse_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import from_hugging_face
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer

D_HEAD = 256
"""GPT-J's width of a head (configs/6B_roto_256.json). The files do not tell how the width is divided into heads."""
FLOATS = {"V2": torch.bfloat16, "f2": torch.float16, "f4": torch.float32}
"""NumPy's type codes of the weights; it has no bfloat16 and stores it as two untyped bytes."""
EMBEDDING_ROWS = 4096
"""Rows of the embedding that are converted to float32 at a time."""
EMBED_BIAS = "embed.bias"
"""Our name of the bias of the embedding. It is added to every row, so our models have no such weight."""
LAYER_LEAVES = (
    ("linear/w", "attention.q.weight", 0),
    ("linear_1/w", "attention.v.weight", 0),
    ("linear_2/w", "attention.k.weight", 0),
    ("linear_3/w", "attention.out.weight", 1),
    ("linear_4/b", "mlp.up.bias", 0),
    ("linear_4/w", "mlp.up.weight", 0),
    ("linear_5/b", "mlp.down.bias", None),
    ("linear_5/w", "mlp.down.weight", 1),
    ("replicated_layer_norm/offset", "norm.bias", None),
    ("replicated_layer_norm/scale", "norm.weight", None),
)
"""The leaves of a layer in order: path, our name within a block, the axis of our weight that the shards divide."""


@dataclass(frozen=True)
class Leaf:
    """The meaning of the array at one position."""

    path: str
    weight: str
    axis: int | None
    """The axis of our weight that the shards divide; None if each shard has the whole shape."""

    @property
    def transposed(self) -> bool:
        """Whether the array is (in, out) and our weight (out, in)."""
        return self.path.endswith("/w") and self.weight != "embed.weight"

    @property
    def summed(self) -> bool:
        """Whether the weight is the sum over the shards, like a bias that each shard adds. Norms are equal in all."""
        return self.path.endswith("/b") and self.axis is None

    def shape(self, whole: torch.Size, n_shards: int) -> tuple[int, ...]:
        """The shape of one shard's array."""
        sizes = [size // n_shards if axis == self.axis else size for axis, size in enumerate(whole)]
        return tuple(reversed(sizes) if self.transposed else sizes)


@dataclass(frozen=True)
class Array:
    """One array of a file, opened but not read."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def kind(self) -> torch.dtype | None:
        """The type of its values; None if weights are not stored in that type."""
        return FLOATS.get(self.dtype.str[1:]) if self.dtype.isnative else None

    @property
    def n_bytes(self) -> int:
        """Size of its values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """Read its values. Raises ValueError if the file is damaged."""
        assert self.kind is not None, self
        with open_npz(self.file) as archive, named_errors(str(self)), archive.open(f"{self.name}.npy") as data:
            values = npy.read_array(data, allow_pickle=False)
        return torch.from_numpy(values.view(np.uint16) if self.dtype.kind == "V" else values).view(self.kind)


def open_mesh_transformer(path: Path) -> StoredModel:
    """Open a checkpoint (`step_N`), or the newest one of a directory with a `meta.json`. The number of layers, the
    width and the vocabulary follow from the arrays. Everything else is GPT-J's (heads of 256, of which 64 dimensions
    are rotated; 2,048 tokens of context) unless a `config.json` in Hugging Face's form lies next to the shards. The
    tokenizer is GPT-2's. Raises FileNotFoundError or ValueError, naming the file and the array."""
    step = newest(path)
    shards = [numbered(shard, "{}.npz") for shard in numbered(step, "shard_{}")]
    n_pieces = max(map(len, shards), default=0)
    if n_pieces == 0:
        raise FileNotFoundError(f"{step} is not a checkpoint of mesh-transformer-jax: it needs shard_0/0.npz and so on")
    for number, pieces in enumerate(shards):
        if len(pieces) < n_pieces:
            raise FileNotFoundError(f"{step / f'shard_{number}' / f'{len(pieces)}.npz'} is missing; others have it")
    file = step / "config.json"
    config = read_config(file) if file.is_file() else None
    first = parameters(shards[0], config)
    config = config or inferred_config(first, len(shards))
    arrays = [first, *(parameters(pieces, config) for pieces in shards[1:])]
    shapes = weight_shapes(config)
    leaves = {leaf.weight: leaf for leaf in leaves_of(config.n_layer)}
    if leaves.keys() != {*shapes, EMBED_BIAS}:
        raise ValueError(f"{file} describes a model whose weights are not GPT-J's")
    shapes[EMBED_BIAS] = torch.Size([config.d_model])
    parts = {name: list(row) for name, row in zip(leaves, zip(*arrays, strict=True), strict=True)}
    for name, leaf in leaves.items():
        check_shapes(leaf, parts[name], shapes[name])

    def read(name: str) -> Tensor:
        weight = join(leaves[name], parts[name], shapes[name])
        if name == "embed.weight":
            bias = join(leaves[EMBED_BIAS], parts[EMBED_BIAS], shapes[EMBED_BIAS])
            for rows in weight.split(EMBEDDING_ROWS):
                rows.copy_(rows.float() + bias)
        return weight.to(parts[name][0].kind)

    used = [array for row in parts.values() for array in row]
    dtypes = {array.kind for array in used}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    n_bytes = sum(array.n_bytes for array in used)
    return StoredModel(config, read, dtype, lambda: Tokenizer.load("gpt2"), n_bytes)


def newest(path: Path) -> Path:
    """The checkpoint that `meta.json` lists last; the path itself if it has no `meta.json`."""
    meta = path / "meta.json"
    if not meta.is_file():
        return path
    try:
        step = path / f"step_{int(parse_json(meta.read_bytes())['checkpoints'][-1])}"
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(f"{meta} lists no checkpoints") from None
    if not step.is_dir():
        raise FileNotFoundError(f"{step} is missing; {meta.name} lists it as the newest checkpoint")
    return step


def numbered(directory: Path, pattern: str) -> list[Path]:
    """The paths that match `pattern` with 0, 1, 2, ... Raises FileNotFoundError if a number is missing."""
    found = {path.name for path in directory.glob(pattern.format("*"))}
    names = [pattern.format(number) for number in range(len(found))]
    for name in names:
        if name not in found:
            raise FileNotFoundError(f"{directory / name} is missing; there are {', '.join(sorted(found))}")
    return [directory / name for name in names]


def read_config(file: Path) -> GPTConfig:
    """The configuration in a `config.json`. Raises ValueError, naming it."""
    try:
        return from_hugging_face(dict(parse_json(file.read_bytes())))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None


def inferred_config(arrays: list[Array], n_shards: int) -> GPTConfig:
    """GPT-J's configuration with the sizes that follow from the shapes of one shard's parameters. Raises ValueError if
    the shapes contradict each other or do not determine the sizes."""
    embed, q, v, up, scale = (arrays[i] for i in (1, 2, 3, 7, -1))
    for array, rank in ((scale, 1), (embed, 2), (q, 2), (up, 2)):
        if len(array.shape) != rank or 0 in array.shape:
            kind = ("a vector", "a matrix")[rank - 1]
            raise ValueError(f"{array} should be {kind}, given its position; it is {list(array.shape)}")
    d_model, width = scale.shape[0], q.shape[1]
    if q.shape == v.shape == (d_model, width) and d_model % width == 0 and width * n_shards != d_model:
        raise ValueError(
            f"{q.file.parent.parent} has {n_shards} shards, but each of them holds 1/{d_model // width} of a model"
        )
    if d_model % D_HEAD:
        raise ValueError(
            f"{q.file.parent.parent}: the width {d_model} is not a multiple of {D_HEAD}, the width of GPT-J's heads; "
            "put a config.json in Hugging Face's form, with n_head, next to the shards"
        )
    return GPTConfig(
        n_layer=(len(arrays) - 6) // 10,
        d_model=d_model,
        n_head=d_model // D_HEAD,
        d_ff=up.shape[1] * n_shards,
        vocab_size=embed.shape[0] * n_shards,
    )


def leaves_of(n_layer: int) -> Iterator[Leaf]:
    """The parameters in the order of their arrays."""
    yield Leaf("embedding_shard/linear/b", EMBED_BIAS, None)
    yield Leaf("embedding_shard/linear/w", "embed.weight", 0)
    for layer in sorted(range(n_layer), key=str):
        for path, weight, axis in LAYER_LEAVES:
            yield Leaf(f"layer_{layer}/{path}", f"blocks.{layer}.{weight}", axis)
    yield Leaf("projection_shard/linear/b", "head.bias", 0)
    yield Leaf("projection_shard/linear/w", "head.weight", 0)
    yield Leaf("projection_shard/replicated_layer_norm/offset", "norm.bias", None)
    yield Leaf("projection_shard/replicated_layer_norm/scale", "norm.weight", None)


def check_shapes(leaf: Leaf, parts: list[Array], whole: torch.Size) -> None:
    """Raise ValueError if the array of a shard does not have the shape of its part of the weight."""
    if leaf.axis is not None and whole[leaf.axis] % len(parts):
        raise ValueError(
            f"{parts[0]} is part of {leaf.weight}; {list(whole)} cannot be divided into {len(parts)} shards"
        )
    shape = leaf.shape(whole, len(parts))
    for array in parts:
        if array.shape != shape:
            raise ValueError(f"{array} should be {leaf.path}, {list(shape)}; it is {list(array.shape)}")
        if array.kind is None or array.kind != parts[0].kind:
            raise ValueError(
                f"{array} should be {leaf.path}, in bfloat16, float16 or float32, the same in all shards; "
                f"it is of type {array.dtype.str}"
            )


def join(leaf: Leaf, parts: list[Array], whole: torch.Size) -> Tensor:
    """The whole weight, from the arrays of all shards, one of which is in memory at a time. Sums are in float32."""
    if leaf.summed:
        total = parts[0].read().float()
        for array in parts[1:]:
            total += array.read()
        return total
    if leaf.axis is None:
        return parts[0].read()
    weight = torch.empty(whole, dtype=parts[0].kind)
    for target, array in zip(weight.chunk(len(parts), leaf.axis), parts, strict=True):
        part = array.read().T if leaf.transposed else array.read()
        # Transposing into a buffer first takes half the time of transposing into the columns of another matrix.
        target.copy_(part if target.is_contiguous() else part.contiguous())
    return weight


def parameters(pieces: list[Path], config: GPTConfig | None) -> list[Array]:
    """The arrays of one shard's parameters, which follow the optimizer's state and precede the step. A layer has 10
    parameters, and 6 are outside the layers. Without a configuration, the number of layers follows from that of the
    arrays: Adam's state has two arrays for each parameter and two counts."""
    names = [(piece, name) for piece in pieces for name in array_names(piece)]
    slim, full = divmod(len(names) - 7, 10), divmod(len(names) - 21, 30)
    n_layer = config.n_layer if config else next((count for count, rest in (slim, full) if rest == 0), 0)
    chosen = names[-(10 * n_layer + 7) :]
    if n_layer < 1 or len(chosen) != 10 * n_layer + 7:
        layers = f"{config.n_layer}" if config else "L"
        raise ValueError(
            f"{pieces[0].parent} holds {len(names)} arrays; with {layers} layers they are 10 x {layers} + 7, "
            f"or 30 x {layers} + 21 with Adam's state"
        )
    *arrays, step = (array for piece in pieces for array in headers(piece, [n for p, n in chosen if p == piece]))
    if step.shape not in ((), (1,)):
        raise ValueError(f"{step} should be the step, a single number; it is {list(step.shape)}")
    return arrays


def array_names(file: Path) -> list[str]:
    """The names of the arrays of an npz, in order. `numpy.savez` calls unnamed arrays arr_0, arr_1, ... Raises
    ValueError if an array has another name."""
    with open_npz(file) as archive:
        found = archive.namelist()
    names = [f"arr_{i}" for i in range(len(found))]
    if sorted(found) != sorted(f"{name}.npy" for name in names):
        raise ValueError(f"{file} should hold arrays without names; it holds {', '.join(sorted(found))}")
    return names


def headers(file: Path, names: list[str]) -> Iterator[Array]:
    """The shapes and types of arrays, without reading their values. Raises ValueError for a damaged array."""
    with open_npz(file) as archive:
        for name in names:
            with named_errors(f"{file}: {name}"), archive.open(f"{name}.npy") as data:
                version = npy.read_magic(data)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(data)
                array = Array(file, name, shape, dtype)
                if dtype.hasobject:
                    raise ValueError("it holds Python objects, which are never loaded")
                if data.tell() + array.n_bytes != archive.getinfo(f"{name}.npy").file_size:
                    raise ValueError(
                        f"{list(shape)} of {dtype.str} takes {array.n_bytes} bytes, but the array has another size"
                    )
            yield array


@contextmanager
def open_npz(file: Path) -> Generator[zipfile.ZipFile]:
    """Open an npz. Raises ValueError if it is damaged."""
    try:
        archive = zipfile.ZipFile(file)
    except OSError:
        raise
    except Exception as error:  # what is read of a damaged archive can raise anything
        raise ValueError(f"{file} is not a whole npz: {error}") from None
    with archive:
        yield archive


@contextmanager
def named_errors(what: str) -> Generator[None]:
    """Turn any error of reading an array into a ValueError that names it."""
    try:
        yield
    except Exception as error:  # what is read of a damaged archive can raise anything
        raise ValueError(f"{what} cannot be read: {error}") from None
