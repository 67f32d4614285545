"""The recipe of a training run: every setting with its meaning and unit."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import to_hugging_face
from bluejay.gpt.presets import adapted
from bluejay.recipe import STRICT, NotEmpty, PathText
from bluejay.train.recipe.data_table import EXAMPLES as EXAMPLES
from bluejay.train.recipe.data_table import Count, Data, NotNegative
from bluejay.train.recipe.data_table import Mixture as Mixture
from bluejay.train.recipe.data_table import is_examples as is_examples
from bluejay.train.schedule import Schedule

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Optimizer:
    """Optimizer settings. Weight decay applies to matrices only, as in GPT-J."""

    __pydantic_config__ = STRICT
    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019); or Muon for the matrices of the blocks and AdamW for all other weights."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay rates of AdamW's running means of the gradient and of the squared gradient."""
    eps: Positive = 1e-8
    """Added to the square root of AdamW's second moment, to avoid division by zero."""
    weight_decay: NotNegative = 0.1
    """Each step multiplies every matrix by 1 - `weight_decay` times the learning rate."""


@dataclass(frozen=True)
class Train:
    """Length of the run, batch, learning rate, optimizer and precision."""

    __pydantic_config__ = STRICT
    tokens: Count
    """Training tokens of the whole run; rounded up to whole steps."""
    batch_tokens: Count
    """Tokens in one optimizer step; a multiple of `data.sequence_length`."""
    micro_batch_tokens: Count | None = None
    """Tokens in one forward pass of a process; gradients are accumulated over the batch. Default: the whole batch."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    schedule: Schedule = field(default_factory=Schedule)
    optimizer: Optimizer = field(default_factory=Optimizer)
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient over all weights; a larger gradient is scaled down to it."""
    precision: Literal["auto", "bfloat16", "float32", "tf32"] = "auto"
    """Data type of matrix products; "auto" chooses bfloat16 where the hardware multiplies it fast, else float32. "tf32"
    is float32 that a GPU of NVIDIA rounds to 10 bits in products."""
    z_loss: NotNegative = 0.0
    """Weight of the squared log-partition function in the loss, which keeps logits small (PaLM, section 5)."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass recomputes to save memory: "selective" cheap operations, "full" all of a block."""
    compile: bool = False
    """Whether each block is compiled with `torch.compile`, which fuses the operations between matrix products."""

    def matmul_precision(self, bfloat16_is_fast: bool) -> str:
        """Data type of matrix products, "bfloat16", "float32" or "tf32", where bfloat16 is or is not faster."""
        return ("bfloat16" if bfloat16_is_fast else "float32") if self.precision == "auto" else self.precision


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: each target matrix gets a trainable product of two thin matrices (LoRA, Hu et al. 2021)."""

    __pydantic_config__ = STRICT
    rank: Count = 16
    """Rank of the adapters: the inner dimension of the product."""
    alpha: Positive = 32.0
    """Numerator of the scale alpha / rank that multiplies the product."""
    targets: tuple[Literal["q", "k", "v", "out", "gate", "up", "down"], ...] | None = None
    """Matrices that get an adapter in every block. Default: all."""

    def __post_init__(self) -> None:
        if self.targets == ():
            raise ValueError("lora.targets is empty; without it all matrices get an adapter")
        if self.targets and len(set(self.targets)) < len(self.targets):
            raise ValueError(f"lora.targets is {', '.join(self.targets)}; it names each matrix once")

    @property
    def scale(self) -> float:
        """The factor that multiplies the low-rank product."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Mesh:
    """Degrees of parallelism (`bluejay.train.distributed.parallel`). Results do not depend on them, up to rounding."""

    __pydantic_config__ = STRICT
    replicate: int = 1
    """Data-parallel replicas; each holds all weights and trains on its part of the batch."""
    shard: int = -1
    """Processes that divide the weights and optimizer state of a replica (FSDP); -1 uses all remaining processes."""
    tensor: int = 1
    """Processes that divide the matrices of each layer (tensor parallelism)."""
    pipeline: int = 1
    """Pipeline stages, among which the layers are divided."""

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "tensor", "pipeline"):
            size = getattr(self, name)
            if size < 1 and (name, size) != ("shard", -1):
                raise ValueError(f"mesh.{name} is {size}; it must be at least 1")

    def sizes(self, processes: int) -> dict[str, int]:
        """Size of each mesh axis. Raises ValueError if their product is not `processes`."""
        fixed = self.replicate * self.tensor * self.pipeline
        shard = max(1, processes // fixed) if self.shard == -1 else self.shard
        if fixed * shard != processes:
            raise ValueError(
                f"the mesh {self.replicate} x {shard} x {self.tensor} x {self.pipeline} (replicate x shard x tensor x "
                f"pipeline) needs {fixed * shard} processes and there are {processes}; --processes N starts as many"
            )
        return {"replicate": self.replicate, "shard": shard, "tensor": self.tensor, "pipeline": self.pipeline}


@dataclass(frozen=True)
class Evaluate:
    """Evaluation during training: loss on held-out text, and sample continuations."""

    __pydantic_config__ = STRICT
    every_steps: Count = 1000
    """Steps between evaluations; the last step is always evaluated."""
    tokens: Count = 65_536
    """Held-out tokens in an evaluation, always the same ones, divided equally among the components of the corpus."""
    prompts: tuple[str, ...] = ()
    """Prompts that the model continues at each evaluation; ignored in runs of more than one process."""
    sample_tokens: Count = 64
    """Maximum tokens of each continuation."""


@dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are written (in the background), and which are kept."""

    __pydantic_config__ = STRICT
    every_steps: Count = 1000
    """Steps between permanent checkpoints."""
    every_minutes: Annotated[float, Field(ge=0)] = 15.0
    """Minutes after which another checkpoint is written. Only the newest two and the permanent ones are kept."""
    storage: NotEmpty | None = None
    """A place in object storage, s3://BUCKET/FOLDER, to which checkpoints are copied and from which a run resumes, too;
    then its hosts need no common disk."""
    at: tuple[float, ...] = ()
    """Fractions of the run after which the model alone is kept, in `model-step-N`: [0.01, 0.03, 0.1, 0.3]."""

    def __post_init__(self) -> None:
        if wrong := [share for share in self.at if not 0 < share < 1]:
            raise ValueError(f"checkpoint.at has {wrong[0]}; each fraction of the run is between 0 and 1")

    def kept_steps(self, steps: int) -> set[int]:
        """Numbers of steps, in a run of `steps`, after which the model is kept."""
        return {max(1, round(share * steps)) for share in self.at}


@dataclass(frozen=True)
class Guard:
    """Protection against diverging and hanging runs. A step whose loss or gradient is not finite is always skipped."""

    __pydantic_config__ = STRICT
    spike: Literal["keep", "skip", "back"] = "keep"
    """Response to a spike in loss or gradient norm: "keep" takes the step, "skip" skips it, and "back" also rolls the
    run back to its last permanent checkpoint after `patience` skipped steps in a row, past the batches since then."""
    sigma: Annotated[float, Field(gt=0)] = 6.0
    """Spike threshold for loss and gradient norm, in standard deviations above the mean of the last 128 steps."""
    patience: Count = 10
    """Consecutive skipped steps after which the run rolls back (`spike = "back"`) or stops with an error."""
    stuck_minutes: Annotated[float, Field(gt=0, le=525_600)] = 15.0
    """Minutes without progress after which all processes exit, naming the one that is stuck. Every single step,
    evaluation and save must finish within this time."""


@dataclass(frozen=True)
class TrainRecipe:
    """A whole training run."""

    __pydantic_config__ = STRICT
    name: NotEmpty
    """Name of the run, for its directory and reports."""
    data: Data
    train: Train
    model: dict[str, Any] = field(default_factory=dict, metadata={"table": GPTConfig})
    """`preset`, a name from `bluejay.gpt.presets`, and fields of GPTConfig that override it."""
    init: PathText | None = None
    """Model to start from instead of [model]: a directory (quantised or not), a .gguf file or the name of a model."""
    lora: LoRA | None = None
    """Settings of adapters. When given, only adapters are trained and the weights of `init` are frozen."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    """Random seed of the initial weights and of the order of the data."""
    mesh: Mesh = field(default_factory=Mesh)
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    guard: Guard = field(default_factory=Guard)
    output: PathText | None = None
    """Directory of the run. Default: runs/NAME."""

    def __post_init__(self) -> None:
        length, batch = self.data.sequence_length, self.train.batch_tokens
        if not self.data.train:
            raise ValueError("data.train is empty; it needs at least one { shards = ... }")
        if length < 1 or batch % length:
            raise ValueError(f"train.batch_tokens {batch} is not a multiple of data.sequence_length {length}")
        if self.evaluate.tokens < length:
            raise ValueError(f"evaluate.tokens {self.evaluate.tokens} is below data.sequence_length {length}")
        micro = self.train.micro_batch_tokens or batch
        if micro < length or micro % length or batch % micro:
            raise ValueError(
                f"train.micro_batch_tokens {micro} must be a multiple of data.sequence_length {length} "
                f"and divide train.batch_tokens {batch}"
            )
        if self.init is None:
            self.gpt_config(vocab_size=1)
        if self.init is None and self.lora is not None:
            raise ValueError("lora needs init, the model that gets the adapters")
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
        """Directory of the run's checkpoints, metrics and model. Raises ValueError as `directory_of` does; such recipes
        can be read all the same, because older versions began runs by them."""
        return directory_of(self.name, self.output)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.train.tokens // self.train.batch_tokens)

    @property
    def cooldown_step(self) -> int | None:
        """Number of steps before the cooldown; None if the schedule has none."""
        return self.train.schedule.cooldown_step(self.steps) if self.train.schedule.kind == "wsd" else None

    @property
    def batch_rows(self) -> int:
        """Sequences in a batch."""
        return self.train.batch_tokens // self.data.sequence_length

    def micro_batch_rows(self, processes: int) -> int:
        """Sequences in one forward pass of each of `processes` data-parallel processes. Raises ValueError if the batch
        cannot be divided into equal micro-batches."""
        micro = (self.train.micro_batch_tokens or self.train.batch_tokens) // self.data.sequence_length
        rows = max(1, min(micro, self.batch_rows // processes))
        if self.batch_rows % (processes * rows):
            raise ValueError(
                f"train.batch_tokens is {self.batch_rows} sequences, which {processes} processes cannot divide into "
                f"micro-batches of {rows}; it must be a multiple of {processes * rows} sequences"
            )
        return rows

    def gpt_config(self, vocab_size: int) -> GPTConfig:
        """The model to train: the preset, sized to tokenizer and sequences, overridden by the fields of [model].

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
        """The part of the recipe that determines the final weights; a run resumes only if it is unchanged.

        Files are known by their content (`State.inputs`), not by their paths. [guard] may change for later steps.
        """
        values = dataclasses.asdict(self)
        for table, names in (
            (values, ("name", "init", "output", "mesh", "evaluate", "checkpoint", "guard")),
            (values["data"], ("valid", "tokenizer", "chat_template")),
            (values["train"], ("micro_batch_tokens", "recompute", "compile")),
            *((part, ("shards",)) for part in values["data"]["train"]),
        ):
            for name in names:
                del table[name]
        return values


def directory_of(name: str, output: str | None) -> Path:
    """The directory of a run: `output`, by default runs/NAME. Raises ValueError if that would not be a folder of this
    name in runs/."""
    if output is None and (name == ".." or Path(name).name != name):
        raise ValueError(
            f"name is {name!r}, which cannot be the name of a folder in runs/; give one without separators, and a "
            'folder elsewhere as output, as in output = "runs/group/small"'
        )
    return Path(output or f"runs/{name}")
