"""The table [data] of the recipe of a training run: training sets with their weights, and held-out data."""

import itertools
import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from bluejay.recipe import STRICT, PathText
from bluejay.tokens import corpus_of, shards_named

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**63)]


@dataclass(frozen=True)
class Mixture:
    """One training set and its share of the mixture."""

    __pydantic_config__ = STRICT
    shards: PathText | tuple[PathText, ...]
    """Prefix of a `.bin` and an `.idx` file; a pattern ("c/tokens/train-*") or list of prefixes, which are one set; or
    a file of examples: JSON lines, a JSON array, CSV or Parquet."""
    weight: NotNegative = 1.0
    """Relative frequency of this set's sequences in training; only the ratio to the other sets' weights matters."""
    changes: tuple[tuple[float, NotNegative], ...] = ()
    """Later weights as pairs (fraction of the run after which it applies, weight): [[0.8, 5.0], [0.9, 0.0]]."""
    masked: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Documents of the shards, by their numbers from 0, whose tokens have no loss. They stay in their batches, so that
    all else is trained as without this."""

    def __post_init__(self) -> None:
        shares, weights = [0.0, *(share for share, _ in self.changes)], [self.weight, *(w for _, w in self.changes)]
        if not all(a < b < 1 for a, b in itertools.pairwise(shares)):
            raise ValueError(f"data.train: the changes of {self.shards} are not in order between 0 and 1 of the run")
        if not min(weights) >= 0 or not max(weights) > 0:
            raise ValueError(f"data.train: {self.shards} has a weight below 0, or none above 0")
        if not self.names or (len(self.names) > 1 and any(map(is_examples, self.names))):
            raise ValueError("data.train: a list names token shards; each file of examples is a set of its own")
        if self.masked and is_examples(self.names[0]):
            raise ValueError(f"data.train: masked names documents of token shards, and {self.names[0]} has examples")

    @property
    def names(self) -> tuple[str, ...]:
        """`shards` as a tuple, also where it is a single name."""
        return (self.shards,) if isinstance(self.shards, str) else self.shards

    @property
    def prefixes(self) -> list[str]:
        """The shards, or the file of examples. Raises FileNotFoundError if no shard fits a pattern."""
        return [prefix for name in self.names for prefix in ([name] if is_examples(name) else shards_named(name))]

    def weight_at(self, share: float) -> float:
        """The weight after a fraction `share` of the run."""
        return [self.weight, *(weight for at, weight in self.changes if at <= share)][-1]


EXAMPLES = ".jsonl, .ndjson, .json, .csv, .tsv or .parquet (also with .gz, .bz2, .xz or .zst behind)"
"""The ends of the names of files of examples."""
COLUMNS = (("messages",), ("prompt", "completion"), ("user", "assistant"), ("text",))
"""The parts of an example that `data.columns` can name together."""
EXAMPLES_NAME = re.compile(r".*\.(jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|bz2|xz|zst))?", re.IGNORECASE | re.DOTALL)


def is_examples(shards: str) -> bool:
    """Whether a set is a file of examples, prompts with their completions or conversations; else it is a shard."""
    return EXAMPLES_NAME.fullmatch(shards) is not None


@dataclass(frozen=True)
class Data:
    """The training and held-out data."""

    __pydantic_config__ = STRICT
    train: tuple[Mixture, ...]
    """The training sets; sequences are drawn from them in proportion to their weights."""
    valid: PathText | None = None
    """Held-out data: prefix of a shard, or a file of examples. Default: those of the first of `train`, which are the
    shard `valid` of its corpus, or one example in twenty, on which the run does not train."""
    sequence_length: Count = 512
    """Tokens in a training sequence; also the context length of the model unless `model.n_ctx` is given."""
    mask_documents: bool = True
    """Whether attention stays within a document where a sequence holds several; in an example it always does."""
    prompt_weight: float = 0.0
    """Loss weight of a prompt token in examples, from 0 to 1; tokens of answers have weight 1."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns of files of examples whose names are not known: { prompt = "...", completion = "..." } for plain text,
    { user = "...", assistant = "..." } for turns of a conversation, { messages = "..." } or { text = "..." }; beside
    user or messages also system. A dot leads into an object: { text = "data.text" }."""
    chat_template: PathText | None = None
    """A Jinja file with the chat template that conversations are written with. Default: the model's own."""
    tokenizer: PathText | None = None
    """A `tokenizer.json` or "gpt2". Default: the tokenizer of `init`, otherwise the one in the corpus directory."""

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_weight <= 1:
            raise ValueError(f"data.prompt_weight is {self.prompt_weight}; it must be from 0 to 1")
        parts = set(self.columns) - ({"system"} if {"user", "messages"} & set(self.columns) else set())
        if self.columns and parts not in map(set, COLUMNS):
            forms = " or ".join(" and ".join(form) for form in COLUMNS) + " (with user or messages also system)"
            raise ValueError(f"data.columns has {', '.join(self.columns)}; it needs {forms}")

    @property
    def held_out(self) -> str:
        """`valid` if given, else its default."""
        first = self.train[0].names[0]
        return self.valid or (first if is_examples(first) else str(corpus_of(first) / "tokens" / "valid"))

    @property
    def tokenizer_path(self) -> str | None:
        """`tokenizer` if given, else the corpus directory of the first shard; None if there are only examples."""
        prefixes = (part.names[0] for part in self.train)
        return self.tokenizer or next((str(corpus_of(name)) for name in prefixes if not is_examples(name)), None)
