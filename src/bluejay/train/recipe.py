"""What a training run is: every setting, its meaning, its unit."""

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import to_hugging_face
from bluejay.gpt.presets import adapted
from bluejay.recipe import STRICT
from bluejay.tokens import corpus_of


@dataclass(frozen=True)
class Mixture:
    """One set of shards and how often it is drawn from."""

    __pydantic_config__ = STRICT
    shards: str
    """Prefix of a `.bin` and an `.idx` file, or a `.jsonl` file of {"prompt": ..., "completion": ...}."""
    weight: float = 1.0
    """Share of the training sequences, relative to the other sets."""
    changes: tuple[tuple[float, float], ...] = ()
    """Other weights later on, each with the share of the run after which it holds: [[0.8, 5.0], [0.9, 0.0]]."""

    def __post_init__(self) -> None:
        shares, weights = [0.0, *(share for share, _ in self.changes)], [self.weight, *(w for _, w in self.changes)]
        if not all(a < b < 1 for a, b in itertools.pairwise(shares)):
            raise ValueError(f"data.train: the changes of {self.shards} are not in order between 0 and 1 of the run")
        if not min(weights) >= 0 or not max(weights) > 0:
            raise ValueError(f"data.train: {self.shards} has a weight below 0, or none above 0")

    def weight_at(self, share: float) -> float:
        """The weight when such a share of the run is done."""
        return [self.weight, *(weight for at, weight in self.changes if at <= share)][-1]


def is_pairs(shards: str) -> bool:
    """Whether a set of sequences is a file of prompts and completions, not a shard."""
    return shards.endswith(".jsonl")


@dataclass(frozen=True)
class Data:
    """Where the tokens come from."""

    __pydantic_config__ = STRICT
    train: tuple[Mixture, ...]
    """Shards to train on."""
    valid: str
    """Prefix of the held-out shards, or a `.jsonl` file of pairs."""
    sequence_length: int = 512
    """Tokens that the model sees at once; also the context of the model, unless `model.n_ctx` says otherwise."""
    mask_documents: bool = True
    """Whether a token sees only its own document where a sequence holds several."""
    prompt_weight: float = 0.0
    """How much a token of a prompt counts in the loss of pairs; one of a completion counts 1."""
    tokenizer: str | None = None
    """A `tokenizer.json` or "gpt2"; when not given, that of `init`, or the one in the folder of the corpus."""

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_weight <= 1:
            raise ValueError(f"data.prompt_weight is {self.prompt_weight}; it must be from 0 to 1")

    @property
    def tokenizer_path(self) -> str | None:
        """Where the tokenizer is: as given, or beside the first shards; None where there are only pairs."""
        shards = (part.shards for part in self.train if not is_pairs(part.shards))
        return self.tokenizer or next((str(corpus_of(prefix)) for prefix in shards), None)


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
    """How a gradient becomes an update; decay on matrices only, as GPT-J did."""

    __pydantic_config__ = STRICT
    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW (Loshchilov & Hutter), or Muon for the matrices of the blocks and AdamW for the rest."""
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
    z_loss: float = 0.0
    """Weight of the square of the logarithm of the softmax's sum, which keeps logits small (PaLM, section 5)."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again in place of keeping it (`bluejay.gpt.recompute`)."""
    compile: bool = False
    """Whether `torch.compile` fuses what surrounds the matrix products."""

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True)
class LoRA:
    """Adapters: what is learnt is a product of two thin matrices beside each target (Hu et al. 2021)."""

    __pydantic_config__ = STRICT
    rank: int = 16
    """Width of the thin matrices."""
    alpha: float = 32.0
    """The product counts alpha / rank times."""
    targets: tuple[Literal["q", "k", "v", "out", "gate", "up", "down"], ...] | None = None
    """Which matrices of every block; all of them when not given."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or self.targets == ():
            raise ValueError("lora needs rank >= 1, alpha > 0 and at least one of targets")

    @property
    def scale(self) -> float:
        """How often the product counts."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Mesh:
    """How many processes share out what (`bluejay.train.distributed.parallel`). The weights do not depend on it."""

    __pydantic_config__ = STRICT
    replicate: int = 1
    """Groups that each hold the whole state and share out the rows of a batch."""
    shard: int = -1
    """Processes of such a group that share out the state, too; -1 is as many as the other three leave."""
    tensor: int = 1
    """Processes that share out the matrices of each layer."""
    pipeline: int = 1
    """Processes in a row that share out the layers."""

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "tensor", "pipeline"):
            size = getattr(self, name)
            if size < 1 and (name, size) != ("shard", -1):
                raise ValueError(f"mesh.{name} is {size}; it must be at least 1")

    def sizes(self, processes: int) -> dict[str, int]:
        """How many processes lie along each axis. Raises ValueError where there are not that many."""
        fixed = self.replicate * self.tensor * self.pipeline
        shard = max(1, processes // fixed) if self.shard == -1 else self.shard
        if fixed * shard != processes:
            raise ValueError(
                f"the mesh {self.replicate} x {shard} x {self.tensor} x {self.pipeline} (replicate x shard x tensor x "
                f"pipeline) needs {fixed * shard} processes and there are {processes}; torchrun starts more than one"
            )
        return {"replicate": self.replicate, "shard": shard, "tensor": self.tensor, "pipeline": self.pipeline}


@dataclass(frozen=True)
class Evaluate:
    """Measuring the loss on held-out text as training goes, and hearing what the model says."""

    __pydantic_config__ = STRICT
    every_steps: int = 1000
    tokens: int = 65_536
    """Held-out tokens read each time, the same ones; as many of each component of the corpus as there are."""
    prompts: tuple[str, ...] = ()
    """Texts that the model continues each time, where one process holds all of it."""
    sample_tokens: int = 64
    """Length of an answer."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "tokens", "sample_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"evaluate.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True)
class Checkpoint:
    """When the state is saved, in the background, and what is kept."""

    __pydantic_config__ = STRICT
    every_steps: int = 1000
    """The state after each so many steps is kept for good."""
    every_minutes: float = 15.0
    """It is also saved when so much time went by; of all checkpoints, the newest two stay."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.every_minutes < 0:
            raise ValueError("checkpoint needs every_steps >= 1 and every_minutes >= 0")


@dataclass(frozen=True)
class Guard:
    """What protects a run from itself. A step whose loss or gradient is not finite is always skipped."""

    __pydantic_config__ = STRICT
    spike: Literal["keep", "skip", "back"] = "keep"
    """What happens to a step far outside what was usual: nothing, it is skipped, or it is skipped and, when too many
    follow each other, the run goes back to its last checkpoint that is kept for good and past the batches since."""
    sigma: float = 6.0
    """Far outside is this many standard deviations above the mean of the last 128 steps, in loss or gradient norm."""
    patience: int = 10
    """Skipped steps in a row after which the run goes back; otherwise it stops."""
    stuck_minutes: float = 15.0
    """Time without any progress after which the processes end, saying which of them is stuck. One step, one
    measurement of the held-out loss and one save must each be faster than this."""

    def __post_init__(self) -> None:
        for name in ("sigma", "patience", "stuck_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"guard.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True)
class TrainRecipe:
    """A whole training run."""

    __pydantic_config__ = STRICT
    name: str
    data: Data
    train: Train
    model: dict[str, Any] = field(default_factory=dict)
    """`preset`, and any field of GPTConfig over it."""
    init: str | None = None
    """A model to start from, in place of [model]: a directory, quantised or not, a .gguf file or a hub name."""
    lora: LoRA | None = None
    """Learn adapters of the matrices of `init` and leave the model itself as it is."""
    seed: int = 1234
    """Draws the weights and the order of the data."""
    mesh: Mesh = field(default_factory=Mesh)
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    guard: Guard = field(default_factory=Guard)
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
        if self.init is None:
            self.gpt_config(vocab_size=1)
        if self.init is None and self.lora is not None:
            raise ValueError("lora needs init, the model that the adapters are for")
        if self.init is not None and self.model:
            given = next(iter(self.model))
            raise ValueError(f"model.{given} and init are both given; init already says what the model is")
        if self.init is not None and self.train.schedule.warmup * self.steps < 1 < self.steps:
            right = max(5, math.ceil(100 / self.steps)) / 100
            raise ValueError(
                f"init begins with a fresh optimizer, for which the learning rate must rise first; "
                f"train.schedule.warmup is less than one of the {self.steps} steps, and {right} would be right"
            )
        if self.lora is not None and self.mesh.tensor > 1:
            raise ValueError("lora needs mesh.tensor = 1; the other three axes can be larger")

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
        for name in ("output", "mesh", "evaluate", "checkpoint", "guard"):
            del values[name]
        return values
