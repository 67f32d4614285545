"""Model directories in the Hugging Face layout, written whole and read tensor by tensor."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bluejay.files import atomic_directory
from bluejay.gpt.families import from_hugging_face, to_hugging_face, weight_names
from bluejay.gpt.model import GPT
from bluejay.tokenizer import Tokenizer


def save_model(model: GPT, tokenizer: Tokenizer, path: Path) -> None:
    """Write `config.json`, `model.safetensors`, `tokenizer.json` and `generation_config.json`, all or nothing.

    Weights keep their type. Raises OSError when the disk is full; what stood at `path` before then stays.
    """
    weights = model.state_dict()
    tensors = {theirs: weights[ours].contiguous().cpu() for ours, theirs in weight_names(model.config).items()}
    dtype = str(model.head.weight.dtype).removeprefix("torch.")
    with atomic_directory(path) as temporary:
        config = to_hugging_face(model.config, tokenizer.eot, dtype)
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        generation = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
        (temporary / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        (temporary / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        tokenizer.save(temporary)


def load_model(path: Path, device: str | torch.device = "cpu") -> GPT:
    """Read a model directory; weights keep the type they are stored in.

    Raises FileNotFoundError or ValueError, naming the file and the first thing that does not fit.
    """
    config_file, weights_file = path / "config.json", path / "model.safetensors"
    if not path.is_dir():
        raise FileNotFoundError(f"no model directory at {path}; `bluejay train RECIPE` makes one")
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{path} is not a model directory: it has no {file.name}")
    try:
        config = from_hugging_face(json.loads(config_file.read_text(encoding="utf-8")))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{config_file}: {error}") from None
    with torch.device("meta"):
        model = GPT(config)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    weights = {}
    try:
        with safe_open(weights_file, framework="pt", device=str(device)) as stored:
            missing = set(weight_names(config).values()) - set(stored.keys())
            if missing:
                raise ValueError(f"{weights_file} has no {min(missing)}")
            for ours, theirs in weight_names(config).items():
                weights[ours] = stored.get_tensor(theirs)
                if weights[ours].shape != shapes[ours]:
                    raise ValueError(
                        f"{weights_file}: {theirs} is {list(weights[ours].shape)}; "
                        f"config.json makes it {list(shapes[ours])}"
                    )
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is not a whole safetensors file: {error}") from None
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False)
