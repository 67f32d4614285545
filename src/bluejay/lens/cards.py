"""Cards of neurons and heads: on what texts of the model's own corpus they are strongest, and what they then promote.

The strongest examples alone mislead (Bolukbasi et al. 2021, arXiv 2104.07143), so a card also has examples of half that
strength and random ones. A neuron promotes the tokens whose logits its row of the output matrix raises (Geva et al.
2022, arXiv 2203.14680); a head promotes what it wrote at the example.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.model import Block
from bluejay.lens.activations import Lens
from bluejay.lens.heads import value_lengths
from bluejay.notebook import link, page, table, visible
from bluejay.progress import progress
from bluejay.trace.display import printable
from bluejay.trace.document_rows import Row
from bluejay.trace.suffix_arrays import IndexShard
from bluejay.trace.tracing import Tracer

LENGTH = 64
"""Tokens of a passage that is read."""
BATCH = 16
"""Passages that are read at once."""
AROUND = 12
"""Tokens that an example shows before and after its place."""
PROMOTED = 10
"""Tokens that a card says are promoted, and as many that are suppressed."""
Strength = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""From the ids of passages (B T): how strong a neuron or a head is at each token, (B T), and for a head the position at
which it looked most, (B T)."""


@dataclass(frozen=True)
class Passage:
    """Tokens of a document of the corpus."""

    tokens: Int[Tensor, " T"]
    """The ids of the tokens."""
    corpus: str
    """The corpus that the passage is from."""
    split: str
    """The token shard: train, valid or test."""
    position: int
    """Where the passage begins in the token shard, in tokens."""
    document: Row
    """What is known of the document."""


@dataclass(frozen=True)
class Example:
    """A place in the corpus, and how strong a neuron or a head is there."""

    value: float
    """The activation of the neuron, or the length of what the head moved."""
    before: str
    """The text before the token."""
    token: str
    """The token."""
    after: str
    """The text after the token."""
    looked_at: str | None
    """The token that a head looked at most; None for a neuron."""
    promoted: list[str]
    """The tokens that the head promoted here; empty for a neuron, which always promotes the same."""
    corpus: str
    """The corpus of the document."""
    split: str
    """The token shard: train, valid or test."""
    position: int
    """The position of the token in the token shard."""
    document: str
    """The id of the document, the SHA-256 of its text."""
    source: str
    """The source that the document comes from."""
    licence: str
    """The licence of the document."""
    url: str
    """The address of the document; empty where it has none."""


@dataclass(frozen=True)
class Card:
    """What is known of a neuron or a head."""

    name: str
    """Which neuron or head it is: "neuron 3.17" or "head 2.1"."""
    tokens: int
    """How many tokens of the corpus were read."""
    active: float
    """The share of tokens at which the neuron or head is above zero."""
    quantiles: dict[str, float]
    """The activation below which 1, 10, 50, 90, 99 and 99.9 % of the tokens are."""
    promoted: list[str]
    """The tokens whose logits a neuron raises most when it is positive; empty for a head."""
    suppressed: list[str]
    """The tokens whose logits a neuron lowers most when it is positive; empty for a head."""
    strongest: list[Example]
    """The strongest examples, at most one of each passage."""
    middling: list[Example]
    """Examples of about half the strength of the strongest."""
    random: list[Example]
    """Examples that were drawn at random."""

    def as_dict(self) -> dict[str, Any]:
        """The card for JSON."""
        return asdict(self)

    def text(self) -> str:
        """The card in lines."""
        lines = [f"{self.name}: above zero at {self.active:.1%} of {self.tokens:,} tokens"]
        if self.promoted:
            lines.append(f"promotes {' '.join(map(repr, self.promoted))}")
            lines.append(f"suppresses {' '.join(map(repr, self.suppressed))}")
        for title, examples in (("strongest", self.strongest), ("half", self.middling), ("random", self.random)):
            lines.append(f"{title}:")
            for one in examples:
                at = f" <- {one.looked_at!r}" if one.looked_at is not None else ""
                text = f"{one.before}[{one.token}]{one.after}".replace("\n", "⏎")
                shown = printable(f"{text}  ({one.url or one.source or one.document})")
                lines.append(f"  {one.value:8.3f}{at}  {shown}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for kind, examples in (("strongest", self.strongest), ("half", self.middling), ("random", self.random)):
            for one in examples:
                text = f"{visible(one.before)}<b>{visible(one.token)}</b>{visible(one.after)}"
                looked_at = "" if one.looked_at is None else visible(one.looked_at)
                document = (link(one.source or one.url or one.document, one.url), escape(one.licence))
                rows.append((kind, f"{one.value:.3f}", looked_at, text, words(one.promoted), *document))
        both = (("Promotes", self.promoted), ("Suppresses", self.suppressed))
        effects = (f"<p>{name} {words(tokens)}</p>" for name, tokens in both if tokens)
        heading = f"{self.name}: above zero at {self.active:.1%} of {self.tokens:,} tokens"
        head = ("", "value", "looked at", "text", "promoted", "document", "licence")
        return page(heading, *effects, table(head, rows))


def words(tokens: Sequence[str]) -> str:
    """Tokens beside each other, as HTML."""
    return " ".join(f"<code>{visible(token)}</code>" for token in tokens)


def passages(tracer: Tracer, n_tokens: int, length: int = LENGTH, seed: int = 0) -> Iterator[Passage]:
    """Random passages of the corpora of a model, at most `n_tokens` tokens together; each within one document."""
    shards = [(searcher, shard) for searcher in tracer.searchers for shard in searcher.shards]
    sizes = np.array([len(shard.tokens) for _, shard in shards], np.float64)
    generator = np.random.default_rng(seed)
    for _ in range(max(1, n_tokens // length) if sizes.any() else 0):
        searcher, shard = shards[generator.choice(len(shards), p=sizes / sizes.sum())]
        tokens, position, number = passage(shard, int(generator.integers(len(shard.tokens))), length)
        row = int(searcher.documents.rows(shard.shard, np.array([shard.first_document + number]))[0])
        [document] = searcher.documents.read(shard.shard, [row])
        yield Passage(torch.from_numpy(tokens), searcher.name, shard.shard, position, document)


def passage(shard: IndexShard, at: int, length: int) -> tuple[np.ndarray, int, int]:
    """The tokens of a passage around a token, where it begins, and the number of its document in the index shard."""
    document = int(np.searchsorted(shard.starts, at, "right")) - 1
    first, last = int(shard.starts[document]), int(shard.starts[document + 1])
    begin = max(first, min(at - length // 2, last - length))
    return shard.tokens[begin : min(last, begin + length)].astype(np.int64), shard.first_token + begin, document


def neuron_card(
    model: Lens, found: Sequence[Passage], layer: SupportsIndex, neuron: SupportsIndex, examples: int = 8
) -> Card:
    """The card of a neuron. Raises ValueError for a layer or a neuron that is not there."""
    layer, neuron = model.layer(layer), model.neuron(neuron)
    name = f"blocks.{layer}.mlp.hook_post"

    def strength(tokens: Tensor) -> tuple[Tensor, None]:
        return model.run(tokens, [name])[name][..., neuron], None

    block = model.gpt.blocks[layer]
    assert isinstance(block, Block)
    effect = promoted_logits(model, block.mlp.down.weight[:, neuron])
    return card_of(model, "neuron", (layer, neuron), found, strength, effect, examples)


def head_card(
    model: Lens, found: Sequence[Passage], layer: SupportsIndex, head: SupportsIndex, examples: int = 8
) -> Card:
    """The card of a head: how much it moves from tokens other than the first and the current one. Raises ValueError for
    a layer or a head that is not there."""
    layer, head = model.layer(layer), model.head(head)
    names = [f"blocks.{layer}.attn.hook_{name}" for name in ("pattern", "v")]

    def strength(tokens: Tensor) -> tuple[Tensor, Tensor]:
        run = model.run(tokens, names)
        lengths = value_lengths(model, run[names[1]], layer)[:, head]
        moved = (run[names[0]][:, head] * lengths[:, None]).tril(-1)
        moved[..., 0] = 0
        best = moved.max(-1)
        return best.values, best.indices

    return card_of(model, "head", (layer, head), found, strength, None, examples)


def promoted_logits(model: Lens, vector: Float[Tensor, " D"]) -> Float[Tensor, " V"]:
    """How much a vector of the residual stream raises each logit, but for the scale of the last norm."""
    norm = model.gpt.norm
    centred = vector if norm.bias is None else vector - vector.mean()
    return model.gpt.unembedding[0] @ (centred * norm.weight)


def strengths(
    model: Lens, name: str, found: Sequence[Passage], strength: Strength
) -> tuple[list[Float[Tensor, " T"]], list[Int[Tensor, " T"] | None]]:
    """What `strength` gives for each passage; `name` says in the progress bar what it is of."""
    values, looked = [], []
    with progress(f"reading for {name}", sum(len(one.tokens) for one in found), "tokens") as bar:
        for start in range(0, len(found), BATCH):
            batch = [one.tokens for one in found[start : start + BATCH]]
            rows = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=model.tokenizer.eot)
            value, at = strength(rows.to(model.gpt.embed.weight.device))
            values += [row[: len(tokens)].cpu() for row, tokens in zip(value, batch, strict=True)]
            looked += [None] * len(batch) if at is None else [row.cpu() for row in at]
            bar.advance(sum(map(len, batch)))
    return values, looked


def card_of(
    model: Lens,
    kind: str,
    place: tuple[int, int],
    found: Sequence[Passage],
    strength: Strength,
    effect: Float[Tensor, " V"] | None,
    examples: int,
) -> Card:
    """The card of a neuron or a head (`kind`) from the passages `found`; `place` has the layer and the number in it,
    `effect` how much a neuron raises each logit. Raises ValueError without passages."""
    if not found:
        raise ValueError("there is no text to make a card of")
    name = f"{kind} {place[0]}.{place[1]}"
    values, looked = strengths(model, name, found, strength)
    every = torch.cat(values)
    peaks = torch.stack([value.max() for value in values])
    order = peaks.argsort(descending=True)
    half = (peaks - peaks.max() / 2).abs().argsort()
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))

    def shown(numbers: Tensor, random: bool = False) -> list[Example]:
        rows = []
        for number in numbers[:examples].tolist():
            at = len(values[number]) // 2 if random else int(values[number].argmax())
            key = None if looked[number] is None else int(looked[number][at])
            rows.append(example(model, found[number], at, float(values[number][at]), key, place))
        return rows

    levels = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    quantiles = np.quantile(every.numpy(), levels).tolist()
    return Card(
        name=name,
        tokens=len(every),
        active=float((every > 0).double().mean()),
        quantiles={f"{level:.1%}": value for level, value in zip(levels, quantiles, strict=True)},
        promoted=[] if effect is None else model.texts(effect.topk(PROMOTED).indices.tolist()),
        suppressed=[] if effect is None else model.texts((-effect).topk(PROMOTED).indices.tolist()),
        strongest=shown(order),
        middling=shown(half),
        random=shown(chosen, random=True),
    )


def example(model: Lens, passage: Passage, at: int, value: float, key: int | None, place: tuple[int, int]) -> Example:
    """A place in a passage; for a head, whose `place` is (layer, head), with the token `key` that it looked at."""
    ids, promoted = passage.tokens.tolist(), []
    if key is not None:
        layer, head = place
        wrote = f"blocks.{layer}.attn.hook_result"
        result = model.run(passage.tokens[None, : at + 1], [wrote])[wrote][0, at, head]
        promoted = model.texts(promoted_logits(model, result).topk(5).indices.tolist())
    pieces = model.tokenizer.token_bytes()

    def text(part: Sequence[int]) -> str:
        return b"".join(pieces[id] for id in part).decode("utf-8", errors="replace")

    document = passage.document
    return Example(
        value=value,
        before=text(ids[max(0, at - AROUND) : at]),
        token=text(ids[at : at + 1]),
        after=text(ids[at + 1 : at + 1 + AROUND]),
        looked_at=None if key is None else text(ids[key : key + 1]),
        promoted=promoted,
        corpus=passage.corpus,
        split=passage.split,
        position=passage.position + at,
        document=document.id,
        source=document.source,
        licence=document.licence,
        url=document.url,
    )
