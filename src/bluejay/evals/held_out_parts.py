"""The suite `pile`: bits per byte of each component of a corpus's held-out part, as The Pile measures models.

Every document is scored whole. What is longer than a model's context is read in windows of that length that overlap by
half, so that each token has half a context before it, or all of the document so far (`Model.score`).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bluejay.evals.tasks import Question, Task, WholeText, by_text
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard

LEAST_BYTES = 20_000
"""A component with less text gets no figure."""
WINDOWS = "documents longer than a model's context are read in windows of that length that overlap by half"


def component_tasks(corpus: Path, split: str = "valid") -> list[Task]:
    """A task for each component. Raises FileNotFoundError and ValueError: it is not a corpus with that part."""
    shard = TokenShard(corpus / "tokens" / split)
    tokenizer = Tokenizer.load(corpus)
    names, component = shard.components()
    return [
        component_task(shard, tokenizer, name, (component == i).nonzero()[0].tolist()) for i, name in enumerate(names)
    ]


def component_task(shard: TokenShard, tokenizer: Tokenizer, name: str, numbers: list[int]) -> Task:
    """The task of one component, whose documents have these numbers in the shard."""
    table = tokenizer.token_bytes()
    size = sum(len(table[token]) for number in numbers for token in shard[number].tolist())
    few = size < LEAST_BYTES
    too_little = f"{size / 1000:.1f} kB of text, less than the {LEAST_BYTES // 1000} kB that a figure needs"
    notes = (too_little if few else WINDOWS,)
    read = partial(texts, shard, tokenizer, [] if few else numbers)
    return Task(f"pile/{name}", read, by_text, "text_bits_per_byte", notes=notes)


def texts(shard: TokenShard, tokenizer: Tokenizer, numbers: list[int], _: int) -> Iterator[Question]:
    """The documents as questions; empty ones have no score."""
    for number in numbers:
        text = tokenizer.decode(shard[number].tolist())
        if text:
            yield Question(str(number), (WholeText(text),))
