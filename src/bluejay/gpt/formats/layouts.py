"""Models on disk in every layout that Bluejay reads or writes; the only module that knows them all."""

import dataclasses
import re
from contextlib import suppress
from pathlib import Path

import torch

from bluejay.gpt.formats.companions import Companions, companions_of, licence_of
from bluejay.gpt.formats.gguf_parts import part_names, parts_of
from bluejay.gpt.formats.hub import ADAPTER_CONFIG
from bluejay.gpt.formats.huggingface import open_hugging_face, read_config, write_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.mesh_transformer import newest, open_mesh_transformer
from bluejay.gpt.formats.peft import base_of, merged, read_adapter, read_adapter_config
from bluejay.gpt.formats.quantized import open_quantized, write_quantized
from bluejay.gpt.formats.tensors import StoredModel, converted, has_tensors
from bluejay.gpt.model import GPT
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer
from bluejay.tokenizer_files import chat_template_beside, json_object, valid_ends
from bluejay.tokens import is_corpus

QUANTISED_NAME = re.compile(r"[-_.](bnb|gptq|awq|fp8|[48]bit)\b", re.IGNORECASE)
"""What the names of models have whose weights other programs quantised."""


def load_model(path: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> GPT:
    """Read a model; weights keep their stored type unless `dtype` is given. On a CPU, weights that need no conversion
    stay mapped from their file. Raises FileNotFoundError or ValueError, naming the file and the first thing that does
    not fit."""
    return read_model(open_model(path), device, dtype)


def read_model(stored: StoredModel, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> GPT:
    """Read the weights of an opened model into the memory of a device, tensor by tensor. Raises ValueError for a weight
    that is too large for `dtype`, or that is read in another type and is not a number."""
    with torch.device("meta"):
        model = GPT(stored.config)
    weights = {}
    with progress("load", stored.config.n_parameters, "weights") as bar:
        for name in model.state_dict():
            weight = stored.read(name)
            if dtype is not None and dtype != weight.dtype:
                weight = converted(name, weight, dtype)
            weights[name] = weight.to(device)
            bar.advance(weights[name].numel())
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False)


def open_model(path: Path, adapted: frozenset[Path] = frozenset()) -> StoredModel:
    """Open a model directory in Hugging Face's or the quantised layout, a checkpoint of mesh-transformer-jax, a GGUF
    file, or an adapter in peft's layout, which is merged into the model that it names. `adapted` are the
    folders of adapters that were opened on the way to this model. Raises FileNotFoundError or ValueError, each with one
    sentence."""
    if path.is_file():
        return open_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no model directory at {path}; `bluejay train RECIPE` makes one")
    if (path / ADAPTER_CONFIG).is_file() and not is_own_base(path, adapted):
        return open_adapted(path, adapted)
    if is_hugging_face(path):
        config, quantization = read_config(path)
        if quantization is None:
            return open_hugging_face(path, config)
        return open_quantized(path, config, quantization)
    if (path / "shard_0").is_dir() or (path / "meta.json").is_file():
        return open_mesh_transformer(path)
    ggufs = ggufs_in(path)
    if len(ggufs) == 1:
        return open_file(ggufs[0])
    if ggufs:
        names = ", ".join(file.name for file in ggufs)
        raise ValueError(f"{path} holds several GGUF files; name one of {names}")
    if is_corpus(path):
        raise FileNotFoundError(f"{path} is a corpus, and no model; name a model that was trained on it, or its run")
    raise FileNotFoundError(f"{path} is not a model directory: it has no config.json")


def is_hugging_face(path: Path) -> bool:
    """Whether a directory is opened in Hugging Face's or the quantised layout: it has a config.json, which beside a
    GGUF file may stand without weights."""
    stated = (path / "config.json").is_file() and not (path / "shard_0").is_dir()
    return stated and (has_tensors(path) or not ggufs_in(path))


def ggufs_in(path: Path) -> list[Path]:
    """The GGUF files in a directory; of those that are parts of one model, the first."""
    files = sorted(file for file in path.iterdir() if is_gguf(file))
    return list({part_names(file.name)[0]: file for file in reversed(files)}.values())[::-1]


def open_file(path: Path) -> StoredModel:
    """Open a GGUF file, whatever its name. Raises ValueError for any other file."""
    if not is_gguf(path):
        raise ValueError(f"{path} is a file, and not a GGUF file; a model is named by its directory")
    from bluejay.gpt.formats.gguf import open_gguf  # the library behind it takes a third of a second to import

    return open_gguf(path)


def is_gguf(path: Path) -> bool:
    """Whether a path is a file that begins as GGUF files do, or that calls itself one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF" or path.suffix.lower() == ".gguf"


def is_own_base(path: Path, adapted: frozenset[Path]) -> bool:
    """Whether a folder with an adapter is now opened as the model that the adapter adapts."""
    return path.resolve() in adapted and (path / "config.json").is_file()


def open_adapted(path: Path, adapted: frozenset[Path] = frozenset()) -> StoredModel:
    """Open the base model of an adapter, with the adapter merged into it and with the tokenizer and the licence of the
    adapter's folder, where it has them. Raises ValueError if adapters name each other as their bases."""
    file = path / ADAPTER_CONFIG
    if path.resolve() in adapted:
        raise ValueError(f"{file} leads back to itself: a chain of adapters must end in a model with weights")
    base = base_of(read_adapter_config(path))
    try:
        stored = open_model(locate(base), adapted | {path.resolve()})
    except FileNotFoundError as missing:
        hint = ""
        if QUANTISED_NAME.search(base):
            hint = "; as it is quantised, name the model that it was made of in base_model_name_or_path instead"
        raise FileNotFoundError(f"{file} is an adapter of {base}, which is not here: {missing}{hint}") from None
    adapter = read_adapter(path, stored.config)
    if stored.config.tied and not adapter.config.tied:
        stored = untied(stored)
    stored = dataclasses.replace(stored, config=adapter.config)
    licence, own = licence_of(path), companions_of(path)
    companions = Companions(
        {**stored.companions.generation, **own.generation},
        {**stored.companions.files, **(own.files if licence else {})},
    )
    return dataclasses.replace(
        merged(stored, adapter.updates, adapter.replaced),
        tokenizer=lambda: adapted_tokenizer(path, stored),
        licence=licence or stored.licence,
        companions=companions,
    )


def untied(stored: StoredModel) -> StoredModel:
    """The same model with a head of its own, which is equal to the embedding that it was tied to."""

    def read(name: str) -> torch.Tensor:
        return stored.read("embed.weight" if name == "head.weight" else name)

    return dataclasses.replace(stored, config=dataclasses.replace(stored.config, tied=False), read=read)


def adapted_tokenizer(path: Path, base: StoredModel) -> Tokenizer:
    """The tokenizer in an adapter's folder, which may have other tokens and a chat template, or else that of the base
    with the chat template in the folder. A text ends as the adapter's generation_config.json says, or else as for the
    base. Raises ValueError if the model has no row for a token that texts have; FileNotFoundError if the folder has
    files of a tokenizer that are not read alone."""
    ends = json_object(path / "generation_config.json").get("eos_token_id")
    names = ("tokenizer.json", "merges.txt", "tokenizer.model", "tekken.json", "added_tokens.json")
    if not any((path / name).is_file() for name in names):
        theirs = base.tokenizer()
        named = valid_ends(ends if isinstance(ends, list) else [ends], theirs.backend) or theirs.ends
        try:
            template = chat_template_beside(path / "tokenizer.json") or theirs.chat_template
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return Tokenizer(theirs.backend, named, template, theirs.settings)
    own = Tokenizer.load(path)
    if not ends:
        with suppress(FileNotFoundError):  # a base without a tokenizer
            others = base.tokenizer()
            names = (others.backend.id_to_token(id) or "" for id in others.ends)
            own.ends = tuple(valid_ends(map(own.backend.token_to_id, names), own.backend)) or own.ends
    try:
        own.without_rowless(base.config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return own


def save_model(model: GPT, tokenizer: Tokenizer, path: Path) -> None:
    """Write a model in memory as a Hugging Face directory. Weights keep their type; errors as in `write_model`."""
    weights = model.state_dict()
    dtypes = {weight.dtype for weight in weights.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    write_model(StoredModel(model.config, weights.__getitem__, dtype, lambda: tokenizer, 0), path)


def convert(
    source: Path,
    target: Path,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    calibrate: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a model in any layout to a Hugging Face directory, or to a GGUF file if `target` ends in .gguf. Weights
    keep their bits if `dtype` is not given. With `quantize`, the name of a quantised format, write a directory for the
    native engine instead, or a GGUF file in q8_0 or q4_0; the text file `calibrate` fits q4 to its inputs. Raises the
    errors of `open_model` and of the writers, and ValueError if `target` exists, unless it is an empty folder, or a
    model of that layout and `overwrite` is set. The source is never overwritten."""
    if target.suffix.lower() == ".gguf":
        return convert_to_gguf(source, target, dtype, quantize, calibrate, overwrite)
    if quantize is not None and quantize not in QUANTISED:
        known = " or ".join(QUANTISED)
        raise ValueError(f"{quantize} is a format of GGUF files: name a target that ends in .gguf, or {known}")
    stored = open_model(source)
    check_apart(source, target)
    taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken and not (target / "config.json").is_file():
        raise ValueError(f"{target} exists and is not a model directory; name a new folder")
    if taken and not overwrite:
        raise ValueError(f"{target} is a model already; name a new folder, or replace all that is there by --overwrite")
    if calibrate is not None and not (quantize and QUANTISED[quantize].gptq):
        raise ValueError("a calibration text is only used with --quantize q4; leave it out")
    if quantize is None:
        return write_model(stored, target, dtype)
    text = None if calibrate is None else calibrate.read_text(encoding="utf-8", errors="replace")
    write_quantized(stored, target, QUANTISED[quantize], text)


def check_apart(source: Path, target: Path) -> None:
    """Raise ValueError if the model `source`, which can be opened, is read from `target` or from what lies in it."""
    for place in read_from(source):
        if place.resolve().is_relative_to(target.resolve()):
            what = "is the model to convert, or holds it" if place == source else f"holds {place}, which {source} needs"
            raise ValueError(f"{target} {what}; name a new place")


def read_from(path: Path, adapted: frozenset[Path] = frozenset()) -> list[Path]:
    """The folders and files that a model is read from, for an adapter also those of its base; arguments as for
    `open_model`."""
    if (path / ADAPTER_CONFIG).is_file() and not is_own_base(path, adapted):
        return [path, *read_from(locate(base_of(read_adapter_config(path))), adapted | {path.resolve()})]
    if path.is_file():
        return parts_of(path)
    if is_hugging_face(path):
        return [path]
    return [path, newest(path), *(part for file in ggufs_in(path) for part in parts_of(file))]


def convert_to_gguf(
    source: Path, target: Path, dtype: torch.dtype | None, quantize: str | None, calibrate: Path | None, overwrite: bool
) -> None:
    """Convert a model to a GGUF file; arguments and errors are those of `convert`."""
    from bluejay.gpt.formats import gguf_writer

    if quantize is not None and quantize not in gguf_writer.BLOCK_KINDS:
        raise ValueError(f"{quantize} is a format of directories: a GGUF file has q8_0 or q4_0")
    if calibrate is not None:
        raise ValueError("a calibration text is only used with --quantize q4; leave it out")
    stored = open_model(source)
    check_apart(source, target)
    if target.exists() and not (is_gguf(target) and overwrite):
        can = "name a new file, or replace it by --overwrite" if is_gguf(target) else "name a new file"
        raise ValueError(f"{target} exists; {can}")
    gguf_writer.write_gguf(stored, target, quantize or dtype)
