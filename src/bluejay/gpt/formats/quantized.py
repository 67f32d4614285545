"""Directories of quantised weights: packed for the native engine, mapped into memory as they are.

`config.json` is the family's own with one entry more, `quantization`, which says how each matrix is stored;
`model.safetensors` holds, under our names, each matrix as bytes (blocks, groups, bytes of a group) with its scales and
its input's smoothing, embeddings as bfloat16, vectors as float32.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import to_hugging_face
from bluejay.gpt.formats.layouts import weight_shapes
from bluejay.gpt.formats.tensors import Header, StoredModel, TensorFiles, write_safetensors
from bluejay.gpt.quantization.calibrate import Calibration, inputs_of, readers
from bluejay.gpt.quantization.packing import (
    BLOCK,
    CODE,
    GROUP,
    HALF,
    SCALES,
    Format,
    Packed,
    by_block,
    in_steps,
    packed_shape,
    rows_of_scales,
    scales_shape,
    unpack,
)
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer

LAYOUT = {"group": GROUP, "half": HALF, "block": BLOCK, "code": list(CODE), "smoothing": True}
"""What `quantization` in `config.json` says besides the formats; a file that says something else cannot be read."""
LATER = ("half", "smoothing")
"""What directories written before do not say."""


def matrices(config: GPTConfig) -> list[str]:
    """Names of the weights that are multiplied as matrices; the others are looked up row by row or added."""
    return [name for names in readers(config).values() for name in names]


def formats(config: GPTConfig, format: Format) -> dict[str, Format]:
    """How each matrix is written.

    A tied matrix is the embedding, too, and feels a coarse code twice: it is never below 8 bits. Nor are keys and
    values that several query heads share, which are small and whose errors come back in every one of those heads.
    """
    shared = ("attention.k.weight", "attention.v.weight") if config.kv_heads < config.n_head else ()
    return {name: "q8" if name.endswith(("embed.weight", *shared)) else format for name in matrices(config)}


def write_quantized(stored: StoredModel, path: Path, format: Format, text: str | None = None) -> None:
    """Write a quantised model, all or nothing, with one block of it in memory at a time besides the scales. With a
    `text`, columns of q4 make up for each other's errors (`bluejay.gpt.quantization.calibrate`).

    Raises ValueError where the family's `config.json` cannot say what the model is, or the text is too short; OSError
    when the disk is full.
    """
    config, tokenizer = stored.config, stored.tokenizer()
    shapes, kinds = weight_shapes(config), formats(config, format)
    inputs = inputs_of(config)
    small: dict[str, Tensor | None] = {}
    calibration = Calibration(stored, kinds, text)
    with atomic_directory(path) as temporary, progress("quantise", config.n_parameters, "weights") as bar:

        def read(name: str) -> Tensor:
            if name in small:
                return torch.empty(0) if (tensor := small[name]) is None else tensor
            bar.advance(shapes[name].numel())
            if name not in kinds:
                return stored.read(name)
            packed = calibration.packed(name)
            small[scales_of(name)], small[smoothing_of(inputs[name])] = packed.scales, packed.smoothing
            return packed.data

        values = to_hugging_face(config, tokenizer.eot, tokenizer.eot, "bfloat16")
        mix = {name: kind for name, kind in kinds.items() if kind != format}
        write_json(temporary / "config.json", values | {"quantization": {"format": format, "mix": mix, **LAYOUT}})
        write_json(temporary / "generation_config.json", {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot})
        write_safetensors(headers(config, kinds), read, temporary / "model.safetensors")
        tokenizer.save(temporary)


def headers(config: GPTConfig, kinds: dict[str, Format], smoothed: bool = True) -> list[Header]:
    """All tensors of the file. The packed matrices come first: each is a multiple of 64 bytes, so all begin at one."""
    shapes = weight_shapes(config)
    others = {name: tuple(shape) for name, shape in shapes.items() if name not in kinds}
    smoothing = {smoothing_of(source): shapes[names[0]][1:] for source, names in readers(config).items()}
    return [
        *(Header(name, torch.uint8, packed_shape(shapes[name], kind)) for name, kind in kinds.items()),
        *(Header(name, torch.float32, shape) for name, shape in others.items() if len(shape) == 1),
        *(Header(name, torch.float32, tuple(shape)) for name, shape in smoothing.items() if smoothed),
        *(Header(scales_of(name), SCALES[kind], scales_shape(shapes[name], kind)) for name, kind in kinds.items()),
        *(Header(name, torch.bfloat16, shape) for name, shape in others.items() if len(shape) == 2),
    ]


def quantized_bytes(config: GPTConfig, format: Format) -> int:
    """Size of the weights in a directory of this format."""
    return sum(header.n_bytes for header in headers(config, formats(config, format)))


def scales_of(name: str) -> str:
    """Name of the scales that belong to a matrix."""
    return name.removesuffix(".weight") + ".scales"


def smoothing_of(source: str) -> str:
    """Name of the smoothing of what `source` gives, or, where that is a matrix, of what it multiplies."""
    return source + ".smoothing"


def open_quantized(path: Path, config: GPTConfig, quantization: Any, tensors: TensorFiles) -> StoredModel:
    """Open a quantised directory. Raises ValueError, naming the first thing that does not fit."""
    where = f"{path / 'config.json'}: quantization"
    format = quantization.get("format") if isinstance(quantization, dict) else None
    if format not in ("q8", "q4"):
        raise ValueError(f"{where}.format is {format!r}; it must be q8 or q4")
    earlier = format == "q4" and "half" not in quantization
    for key, value in LAYOUT.items():
        if quantization.get(key, value if key in LATER else None) != value:
            raise ValueError(
                f"{where}.{key} is {quantization.get(key)}; this version reads {value}, so convert the model again"
            )
    shapes, kinds = weight_shapes(config), stored_formats(config, format, quantization, where)
    inputs = inputs_of(config) if "smoothing" in quantization else {}
    by_name = {header.name: header for header in headers(config, kinds, bool(inputs))}
    if earlier:
        by_name |= {header.name: header for header in earlier_scales(shapes, kinds)}
    for header in by_name.values():
        if header.name not in tensors.files:
            raise ValueError(f"{path / 'model.safetensors'} has no {header.name}")

    def stored_tensor(header: Header) -> Tensor:
        tensor = tensors.read(header.name)
        if tuple(tensor.shape) != header.shape or tensor.dtype != header.dtype:
            raise ValueError(
                f"{tensors.files[header.name]}: {header.name} is {tensor.dtype} {list(tensor.shape)}; "
                f"config.json makes it {header.dtype} {list(header.shape)}"
            )
        return tensor

    def packed(name: str) -> Packed:
        data, scales = stored_tensor(by_name[name]), stored_tensor(by_name[scales_of(name)])
        if earlier and kinds[name] == "q4":
            scales = of_halves(scales)
        smoothing = stored_tensor(by_name[smoothing_of(inputs[name])]) if inputs else None
        return Packed(kinds[name], (shapes[name][0], shapes[name][1]), data, scales, smoothing)

    def read(name: str) -> Tensor:
        return unpack(packed(name)) if name in kinds else stored_tensor(by_name[name])

    return StoredModel(config, read, None, lambda: Tokenizer.load(path), tensors.n_bytes, licence=None, packed=packed)


def stored_formats(config: GPTConfig, format: Format, quantization: dict[str, Any], where: str) -> dict[str, Format]:
    """How each matrix is stored: in `format`, but for those that `mix` names. Raises ValueError."""
    kinds = dict.fromkeys(matrices(config), format)
    mix = quantization.get("mix", {"embed.weight": "q8"} if config.tied else {})
    if not isinstance(mix, dict):
        raise ValueError(f"{where}.mix is {mix!r}; it must give names of matrices their formats")
    for name, kind in mix.items():
        if name not in kinds:
            raise ValueError(f"{where}.mix names {name!r}, which is no matrix of this model")
        if kind not in tuple(SCALES):
            raise ValueError(f"{where}.mix makes {name} {kind!r}; it must be q8 or q4")
    return kinds | mix


def earlier_scales(shapes: dict[str, torch.Size], kinds: dict[str, Format]) -> Iterator[Header]:
    """The scales of q4 in directories written before halves of groups had their own: one bfloat16 for a group."""
    for name, kind in kinds.items():
        if kind == "q4":
            yield Header(scales_of(name), torch.bfloat16, scales_shape(shapes[name], "q8"))


def of_halves(scales: Tensor) -> Tensor:
    """Scales of q4 as they are written now from those of earlier directories, to half a step."""
    of_groups = scales.float().transpose(1, 2).flatten(0, 1)
    return by_block(rows_of_scales(*in_steps(of_groups.repeat_interleave(2, dim=1))))
