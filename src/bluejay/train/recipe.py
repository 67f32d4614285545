"""What a training run is: every setting, its meaning, its unit."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.families import to_hugging_face
from bluejay.gpt.presets import adapted
from bluejay.recipe import STRICT


@dataclass(frozen=True)
class Mixture:
    """One set of shards and how often it is drawn from."""

    __pydantic_config__ = STRICT
    shards: str
    """Prefix of a `.bin` and an `.idx` file."""
    weight: float = 1.0
    """Share of the training sequences, relative to the other sets."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"data.train: the weight of {self.shards} is {self.weight}; it must be above 0")


@dataclass(frozen=True)
class Data:
    """Where the tokens come from."""

    __pydantic_config__ = STRICT
    train: tuple[Mixture, ...]
    """Shards to train on."""
    valid: str
    """Prefix of the held-out shards."""
    sequence_length: int = 512
    """Tokens that the model sees at once; also the context of the model, unless `model.n_ctx` says otherwise."""
    mask_documents: bool = True
    """Whether a token sees only its own document where a sequence holds several."""
    tokenizer: str | None = None
    """A `tokenizer.json` or "gpt2"; when not given, the one in the corpus directory of the first shards."""

    @property
    def tokenizer_path(self) -> str:
        """Where the tokenizer is, resolved."""
        return self.tokenizer or str(Path(self.train[0].shards).parent.parent)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over time: linear warm-up, cosine, floor (GPT-3, appendix B)."""

    __pydantic_config__ = STRICT
    kind: Literal["cosine"] = "cosine"
    warmup: float = 0.01
    """Share of the run in which the rate rises from 0."""
    decay: float = 1.0
    """Share of the run after which the rate stays at its floor."""
    final: float = 0.1
    """The floor, as a share of the peak."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.decay <= 1 or not 0 <= self.final <= 1:
            raise ValueError("train.schedule needs 0 <= warmup < decay <= 1 and 0 <= final <= 1")


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter); decay on matrices only, as GPT-J did."""

    __pydantic_config__ = STRICT
    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second."""
    weight_decay: float = 0.1
    """Shrinks matrices by this times the learning rate each step."""


@dataclass(frozen=True)
class Train:
    """How the weights are fitted."""

    __pydantic_config__ = STRICT
    tokens: int
    """Tokens to train on in all; rounded up to whole steps."""
    batch_tokens: int
    """Tokens per step; a multiple of `data.sequence_length`."""
    micro_batch_tokens: int | None = None
    """Tokens per forward pass; gradients add up to the same batch with less memory. All at once when not given."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Schedule = field(default_factory=Schedule)
    optimizer: Optimizer = field(default_factory=Optimizer)
    clip: float = 1.0
    """Largest norm of the gradient over all weights; longer ones are scaled down to it."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Type of the matrix products; "auto" is bfloat16 where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True)
class Evaluate:
    """Measuring the loss on held-out text as training goes."""

    __pydantic_config__ = STRICT
    every_steps: int = 1000
    tokens: int = 65_536
    """Held-out tokens read each time; the first of the shards, so that all figures are of the same text."""


@dataclass(frozen=True)
class Checkpoint:
    """When the state is saved; the newest is kept."""

    __pydantic_config__ = STRICT
    every_steps: int = 1000
    every_minutes: float = 15.0


@dataclass(frozen=True)
class TrainRecipe:
    """A whole training run."""

    __pydantic_config__ = STRICT
    name: str
    data: Data
    train: Train
    model: dict[str, Any] = field(default_factory=dict)
    """`preset`, and any field of GPTConfig over it."""
    seed: int = 1234
    """Draws the weights and the order of the data."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    output: str | None = None
    """Directory of the run; runs/NAME when not given."""

    def __post_init__(self) -> None:
        length, batch = self.data.sequence_length, self.train.batch_tokens
        if not self.data.train:
            raise ValueError("data.train is empty; it needs at least one { shards = ... }")
        if length < 1 or batch % length:
            raise ValueError(f"train.batch_tokens {batch} is not a multiple of data.sequence_length {length}")
        micro = self.train.micro_batch_tokens or batch
        if micro < length or micro % length or batch % micro:
            raise ValueError(
                f"train.micro_batch_tokens {micro} must be a multiple of data.sequence_length {length} "
                f"and divide train.batch_tokens {batch}"
            )
        self.gpt_config(vocab_size=1)

    @property
    def directory(self) -> Path:
        """Where the run keeps its checkpoints, metrics and model."""
        return Path(self.output or f"runs/{self.name}")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.train.tokens // self.train.batch_tokens)

    def gpt_config(self, vocab_size: int) -> GPTConfig:
        """The model to train: the preset, sized to the tokenizer and the sequences, with the recipe's fields over it.

        Raises ValueError for an unknown field or preset, or a context shorter than the sequences.
        """
        given = dict(self.model)
        preset = str(given.pop("preset", "gpt-j"))
        config = adapted(preset, {"vocab_size": vocab_size, "n_ctx": self.data.sequence_length} | given, "[model]")
        to_hugging_face(config, 0, 0, "float32")  # raises where the finished model could not be written
        if config.vocab_size < vocab_size:
            raise ValueError(f"model.vocab_size {config.vocab_size} is below the tokenizer's {vocab_size}")
        if config.n_ctx < self.data.sequence_length:
            raise ValueError(f"model.n_ctx {config.n_ctx} is below data.sequence_length {self.data.sequence_length}")
        return config

    def same_run(self) -> dict[str, Any]:
        """The part of the recipe that decides the final weights; a checkpoint continues only under the same."""
        values = dataclasses.asdict(self)
        for name in ("output", "evaluate", "checkpoint"):
            del values[name]
        return values
