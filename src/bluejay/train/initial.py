"""The model that a run starts from, new or stored, and the export of the trained model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import TRAINED_ON
from bluejay.gpt.formats.hub import ADAPTER_CONFIG
from bluejay.gpt.formats.layouts import open_model, write_model
from bluejay.gpt.formats.locate import locate, name_on_hub
from bluejay.gpt.formats.peft import merged, write_adapter
from bluejay.gpt.formats.tensors import StoredModel, tokenizer_of
from bluejay.gpt.init import draw
from bluejay.gpt.model import GPT
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import corpus_of
from bluejay.train.checkpoint.state import State
from bluejay.train.checkpoint.trained_on import trained_on
from bluejay.train.data.encoding import with_template
from bluejay.train.lora import adapters, load_with_adapters, targets_of
from bluejay.train.recipe import TrainRecipe, is_examples

ONLY_OURS = (
    "peft cannot open its base, which is {}; for peft, load the adapter on a directory that `bluejay convert` makes of "
    "the base"
)


@dataclass(frozen=True)
class InitialModel:
    """The model of a recipe before training; weights are read or drawn only on demand."""

    recipe: TrainRecipe
    config: GPTConfig
    tokenizer: Tokenizer
    stored: StoredModel | None
    """The model that `init` names; None if weights are drawn at random."""

    def model(self, device: torch.device, precision: str) -> GPT:
        """The model to train: with its weights if it has adapters, else on the meta device for `weight` to fill."""
        if self.recipe.lora is not None:
            assert self.stored is not None
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            return load_with_adapters(self.stored, self.recipe.lora, self.recipe.seed, device, dtype)
        with torch.device("meta"):
            return GPT(self.config)

    def weight(self, name: str, shape: torch.Size, region: tuple[slice, ...], device: torch.device) -> Tensor:
        """A region of a weight of the model in float32, drawn on the device or read from a file that is mapped into
        memory. `shape` is that of the whole weight, `region` as for `draw`."""
        if self.stored is None:
            return draw(self.config, self.recipe.seed, name, shape, region, device)
        return self.stored.read(name)[region].float()

    def export(self, trained: Mapping[str, Tensor], path: Path, state: State) -> None:
        """Write a model directory from all trained parameters, by name, at this state of the run.

        Adapters are merged into the model, and also written by themselves beside it (`adapter_of`).
        """
        stored, low_rank = self.stored, None
        if self.recipe.lora is not None:
            assert stored is not None
            low_rank = adapters(trained, self.recipe.lora)
            stored = merged(stored, low_rank)
        else:
            base = stored or StoredModel(self.config, trained.__getitem__, torch.float32, lambda: self.tokenizer, 0)
            stored = dataclasses.replace(
                base,
                config=self.config,
                read=trained.__getitem__,
                dtype=torch.float32,
                packed=None,
                quantised=False,
            )
        files = stored.companions.files
        files = {**files, TRAINED_ON: trained_on(path.parent / "checkpoints", state, files)}
        companions = dataclasses.replace(stored.companions, files=files)
        write_model(dataclasses.replace(stored, tokenizer=lambda: self.tokenizer, companions=companions), path)
        if low_rank is not None:  # after the model, by which a run that was stopped in between knows both
            adapter_path = adapter_of(path)
            base, revision = base_name(str(self.recipe.init))
            write_adapter(low_rank, self.config, self.tokenizer, base, adapter_path, revision)
            if self.stored is not None and (kind := closed_to_peft(self.stored, locate(str(self.recipe.init)))):
                say(f"{adapter_path}: {ONLY_OURS.format(kind)}")


def closed_to_peft(base: StoredModel, path: Path) -> str | None:
    """What a base model is that peft cannot open, or opens as another model; None for a directory of weights."""
    if (path / ADAPTER_CONFIG).is_file():
        return "an adapter itself"
    if path.is_file():
        return "a GGUF file"
    if base.quantised:
        return "quantised"
    return None if (path / "config.json").is_file() else "not in Hugging Face's layout"


def adapter_of(model: Path) -> Path:
    """The directory beside a model that its adapter has: its name has "adapter" for "model"."""
    return model.with_name(model.name.replace("model", "adapter"))


def initial_model(recipe: TrainRecipe) -> InitialModel:
    """Open the model that a recipe starts from, or the tokenizer for a new one.

    Raises FileNotFoundError, or ValueError if tokenizer, shards and model do not belong together.
    """
    if recipe.init is None:
        path = recipe.data.tokenizer_path
        if path is None:
            raise ValueError('data.tokenizer is missing: files of examples have no tokenizer; "gpt2" is that of GPT-J')
        tokenizer = with_template(Tokenizer.load(path), recipe.data.chat_template)
        return InitialModel(recipe, recipe.gpt_config(tokenizer.vocab_size), tokenizer, None)
    stored = open_model(locate(recipe.init))
    config, tokenizer = stored.config, tokenizer_of(stored, recipe.init)
    check_initial(recipe, config)
    for where in tokenizers_of(recipe):
        other = Tokenizer.load(where)
        if not extends(tokenizer, other):
            raise ValueError(
                f"{recipe.init} and {where} have different tokenizers, of {tokenizer.vocab_size} and "
                f'{other.vocab_size} tokens; build the corpus with tokenizer = {{ path = "{recipe.init}" }}'
            )
    return InitialModel(recipe, config, with_template(tokenizer, recipe.data.chat_template), stored)


def check_initial(recipe: TrainRecipe, config: GPTConfig) -> None:
    """Raise ValueError if the sequences are longer than the context of the model that a recipe starts from, or adapters
    are for a matrix that it does not have."""
    if (length := recipe.data.sequence_length) > config.n_ctx:
        raise ValueError(f"data.sequence_length {length} is above the {config.n_ctx} tokens of {recipe.init}'s context")
    if recipe.lora is not None:
        targets_of(recipe.lora, config)


def tokenizers_of(recipe: TrainRecipe) -> list[str]:
    """The tokenizer of the recipe, if given, and those in the corpus directories of its shards."""
    prefixes = [*(prefix for part in recipe.data.train for prefix in part.prefixes), recipe.data.held_out]
    beside = {str(corpus_of(prefix)) for prefix in prefixes if not is_examples(prefix)}
    there = sorted(folder for folder in beside if (Path(folder) / "tokenizer.json").is_file())
    return there if recipe.data.tokenizer is None else [recipe.data.tokenizer, *there]


def extends(tokenizer: Tokenizer, other: Tokenizer) -> bool:
    """Whether `tokenizer` decodes every id of `other` to the same bytes; it may have more ids."""
    known = other.token_bytes()
    return tokenizer.eot == other.eot and tokenizer.token_bytes()[: len(known)] == known


def base_name(init: str) -> tuple[str, str | None]:
    """The name of an adapter's base model and its revision, as peft looks for it: the repository of a model on the hub,
    also where `init` is its folder in the hub's cache; else the absolute path of its directory, for a run that of its
    model."""
    repo, revision = name_on_hub(init) or (str(locate(init).resolve()), "main")
    return repo, None if revision == "main" else revision
