"""Directories of quantised weights, which the native engine uses where they are mapped into memory.

`config.json` is the family's own with one more entry, `quantization`, which names the format of each matrix.
`model.safetensors` holds, under our names, each matrix as bytes (blocks, groups, bytes of a group), its scales and the
smoothing of its input; the embedding likewise, in 8 bits; positions as bfloat16; vectors as float32.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bluejay.files import atomic_directory
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import companions_of, licence_of
from bluejay.gpt.formats.huggingface import write_companions
from bluejay.gpt.formats.tensors import Header, StoredModel, check_layers, finite, open_tensors, write_safetensors
from bluejay.gpt.model import input_of, matrices_by_input, weight_shapes
from bluejay.gpt.quantization.calibrate import Calibration
from bluejay.gpt.quantization.format import BLOCK, GROUP, Format
from bluejay.gpt.quantization.packing import QUANTISED, Packed, unpack
from bluejay.gpt.quantization.q4 import CODEBOOK, HALF_GROUP
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer

LAYOUT = {"group": GROUP, "half": HALF_GROUP, "block": BLOCK, "code": list(CODEBOOK), "smoothing": True}
"""The entries of `quantization` that describe the layout; a file with other values cannot be read."""
NAMES = " or ".join(QUANTISED)


def matrix_names(config: GPTConfig) -> list[str]:
    """Names of the weights that are multiplied as matrices; the others are looked up row by row or added."""
    return [name for names in matrices_by_input(config).values() for name in names]


def matrix_formats(config: GPTConfig, format: Format) -> dict[str, Format]:
    """The format in which each matrix and the embedding are written. Two kinds always have 8 bits. The errors of an
    embedding are in every layer's input, and if it is tied in the logits, too. Keys and values shared by several query
    heads are small, and their errors recur in each of these heads."""
    shared = ("attention.k.weight", "attention.v.weight") if config.kv_heads < config.n_head else ()
    sensitive, names = ("embed.weight", *shared), dict.fromkeys([*matrix_names(config), "embed.weight"])
    return {name: QUANTISED["q8"] if name.endswith(sensitive) else format for name in names}


def write_quantized(stored: StoredModel, path: Path, format: Format, text: str | None = None) -> None:
    """Write a quantised model. An error leaves what was at `path` before; besides the scales, the matrices of one block
    are in memory at a time. A `text` fits q4 to its inputs (`bluejay.gpt.quantization.calibrate`). Raises ValueError if
    the family's `config.json` cannot describe the model, a weight is not a number or the text is too short; OSError
    when the disk is full."""
    config = stored.config
    shapes, formats, inputs = weight_shapes(config), matrix_formats(config, format), input_of(config)
    small: dict[str, Tensor | None] = {}
    calibration = Calibration(config, finite(stored.read), stored.tokenizer(), formats, text)
    with atomic_directory(path) as temporary, progress("quantise", config.n_parameters, "weights") as bar:

        def read(name: str) -> Tensor:
            if name in small:
                return torch.empty(0) if (tensor := small[name]) is None else tensor
            bar.advance(shapes[name].numel())
            if name not in formats:
                return stored.read(name)
            packed = calibration.packed(name)
            small[scales_name(name)] = packed.scales
            if name in inputs:
                small[smoothing_name(inputs[name])] = packed.smoothing
            return packed.data

        mix = {name: other.name for name, other in formats.items() if other is not format or name not in inputs}
        write_companions(stored, temporary, "bfloat16", {"format": format.name, "mix": mix, **LAYOUT})
        write_safetensors(headers(config, formats), read, temporary / "model.safetensors")


def headers(config: GPTConfig, formats: dict[str, Format]) -> list[Header]:
    """All tensors of the file. Packed matrices come first; they are multiples of 64 bytes, so all are aligned."""
    shapes = weight_shapes(config)
    others = {name: tuple(shape) for name, shape in shapes.items() if name not in formats}
    smoothing = {smoothing_name(source): shapes[names[0]][1:] for source, names in matrices_by_input(config).items()}
    scales = ((name, format.scale_dtype, format.scales_shape(shapes[name])) for name, format in formats.items())
    return [
        *(Header(name, torch.uint8, format.data_shape(shapes[name])) for name, format in formats.items()),
        *(Header(name, torch.float32, shape) for name, shape in others.items() if len(shape) == 1),
        *(Header(name, torch.float32, tuple(shape)) for name, shape in smoothing.items()),
        *(Header(scales_name(name), dtype, shape) for name, dtype, shape in scales if dtype is not None),
        *(Header(name, torch.bfloat16, shape) for name, shape in others.items() if len(shape) == 2),
    ]


def quantized_bytes(config: GPTConfig, format: Format) -> int:
    """Size of the weights in a directory of this format."""
    return sum(header.n_bytes for header in headers(config, matrix_formats(config, format)))


def scales_name(matrix: str) -> str:
    """Name of the scales of a matrix."""
    return matrix.removesuffix(".weight") + ".scales"


def smoothing_name(activation: str) -> str:
    """Name of the smoothing of an activation, which is named as in `matrices_by_input`."""
    return activation + ".smoothing"


def open_quantized(path: Path, config: GPTConfig, quantization: Any) -> StoredModel:
    """Open a quantised directory. Raises FileNotFoundError or ValueError, naming the first thing that does not fit."""
    tensors, where = open_tensors(path), f"{path / 'config.json'}: quantization"
    check_layers(config.n_layer, tensors, path)
    formats, shapes, inputs = stored_formats(config, quantization, where), weight_shapes(config), input_of(config)
    by_name = {header.name: header for header in headers(config, formats)}
    for name in by_name:
        if name not in tensors.files:
            raise ValueError(f"{path / 'model.safetensors'} has no {name}")
    if unknown := tensors.files.keys() - by_name.keys():
        raise ValueError(f"{path / 'model.safetensors'} has {min(unknown)}, which has no place in it")

    def stored_tensor(name: str) -> Tensor:
        tensor, header = tensors.read(name), by_name[name]
        if tuple(tensor.shape) != header.shape or tensor.dtype != header.dtype:
            raise ValueError(
                f"{tensors.files[name]}: {name} is {tensor.dtype} {list(tensor.shape)}; "
                f"config.json makes it {header.dtype} {list(header.shape)}"
            )
        return tensor

    def packed(name: str) -> Packed | None:
        if name not in formats:
            return None
        shape = (shapes[name][0], shapes[name][1])
        smoothing = stored_tensor(smoothing_name(inputs[name])) if name in inputs else None
        return Packed(formats[name], shape, stored_tensor(name), stored_tensor(scales_name(name)), smoothing)

    def read(name: str) -> Tensor:
        matrix = packed(name)
        return stored_tensor(name) if matrix is None else unpack(matrix)

    return StoredModel(
        config,
        read,
        None,
        lambda: Tokenizer.load(path),
        tensors.n_bytes,
        licence_of(path),
        packed,
        quantised=True,
        companions=companions_of(path),
    )


def stored_formats(config: GPTConfig, quantization: Any, where: str) -> dict[str, Format]:
    """The format in which each matrix is stored: `format`, except for those that `mix` names. An embedding that is not
    tied is packed if it is named there; in files of earlier versions it is not. Raises ValueError."""
    name = quantization.get("format") if isinstance(quantization, dict) else None
    if not isinstance(name, str) or name not in QUANTISED:
        raise ValueError(f"{where}.format is {name!r}; it must be {NAMES}")
    for key, value in LAYOUT.items():
        if quantization.get(key) != value:
            raise ValueError(
                f"{where}.{key} is {quantization.get(key)}; this version reads {value}, so convert the model again"
            )
    formats, mix = dict.fromkeys(matrix_names(config), QUANTISED[name]), quantization.get("mix")
    if not isinstance(mix, dict):
        raise ValueError(f"{where}.mix is {mix!r}; it must map names of matrices to formats")
    for matrix, kind in mix.items():
        if matrix not in formats and matrix != "embed.weight":
            raise ValueError(f"{where}.mix names {matrix!r}, which is not a matrix of this model")
        if not isinstance(kind, str) or kind not in QUANTISED:
            raise ValueError(f"{where}.mix stores {matrix} as {kind!r}; it must be {NAMES}")
    return formats | {matrix: QUANTISED[kind] for matrix, kind in mix.items()}
