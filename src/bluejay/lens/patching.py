"""What a prediction rests on: activations that come from another prompt.

Activation patching (Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2023, arXiv
2309.16042): two prompts of equal length differ in what decides the answer. The model runs on the second, with one
activation taken from the run on the first; the share of the difference of two logits that comes back says how much the
activation carries.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.model import Block
from bluejay.lens.activations import Activations, Lens
from bluejay.lens.hooks import CHANGED_AT_ONCE, Past
from bluejay.notebook import grid, page, window
from bluejay.progress import progress

HOOKS = {
    "residual": "hook_resid_pre",
    "attention": "hook_attn_out",
    "mlp": "hook_mlp_out",
    "heads": "attn.hook_z",
}
"""The activation of a layer that each part is."""
CANDIDATES, CHOSEN = 32, 16
"""How many heads, those that bring back most by themselves, the first ones of a curve are chosen from, and how many are
chosen so."""
WORDS = """tree house river stone bird cloud road fire ship moon song glass field king winter bread horse door flower
star mountain paper bridge garden ocean"""
"""Common words, of which a prompt for induction is made."""


@dataclass(frozen=True)
class Pair:
    """Two prompts of equal length, a run on each, and the two tokens whose logits are compared."""

    clean: Activations
    """The run on the prompt that has the answer."""
    corrupt: Activations
    """The run on the prompt that is changed."""
    answer: int
    """The token that the first prompt should be followed by."""
    other: int
    """The token that the second prompt should be followed by."""

    @property
    def same(self) -> int:
        """How many tokens the prompts begin with alike, without the last: there nothing differs."""
        differ = (self.clean.tokens != self.corrupt.tokens)[0].nonzero()
        return min(int(differ[0, 0]) if len(differ) else self.clean.tokens.shape[1], self.clean.tokens.shape[1] - 1)

    def difference(self, logits: Float[Tensor, "B T V"]) -> Float[Tensor, " B"]:
        """The logit of the answer minus that of the other, after the last token."""
        return logits[:, -1, self.answer] - logits[:, -1, self.other]

    def recovered(self, logits: Float[Tensor, "B T V"]) -> Float[Tensor, " B"]:
        """The share of the difference between the two prompts that came back: 0 as the second, 1 as the first."""
        clean, corrupt = self.difference(self.clean.logits), self.difference(self.corrupt.logits)
        return (self.difference(logits) - corrupt) / (clean - corrupt)


@torch.no_grad()
def pair_of(
    model: Lens,
    clean: Any,
    corrupt: Any,
    answer: str | SupportsIndex | None = None,
    other: str | SupportsIndex | None = None,
    parts: Iterable[str] = tuple(HOOKS),
) -> Pair:
    """Two prompts to patch between. The tokens that are compared are what each prompt is followed by in the model's
    opinion, unless they are given. Raises ValueError for prompts of different lengths, and where the two prompts do not
    differ in what is compared."""
    first, second = model.one(clean), model.one(corrupt)
    if first.shape != second.shape:
        raise ValueError(
            f"the prompts have {first.shape[1]} and {second.shape[1]} tokens; activations are patched between prompts"
            " of equal length"
        )
    names = [f"blocks.*.{hook_of(part)}" for part in ([parts] if isinstance(parts, str) else parts)]
    stream = ["blocks.*.hook_resid_pre", "blocks.*.hook_resid_post", *Past.names(model.config)]
    stream += [] if model.config.parallel else ["blocks.*.hook_resid_mid"]
    runs = [model.run(tokens, read, only=-1) for tokens, read in ((first, names), (second, [*names, *stream]))]
    said = [
        int(run.logits[0, -1].argmax()) if token is None else model.token(token)
        for run, token in zip(runs, (answer, other), strict=True)
    ]
    if said[0] == said[1]:
        raise ValueError(
            f"both prompts are followed by {model.text(said[0])!r}; name two tokens whose logits to compare"
        )
    pair = Pair(runs[0], runs[1], *said)
    if float(pair.difference(runs[0].logits)) == float(pair.difference(runs[1].logits)):
        raise ValueError("the two prompts have the same difference of logits, so that nothing can be recovered")
    return pair


def induction_prompts(model: Lens, n_words: int = 12, seed: int = 0) -> tuple[str, str, str, str]:
    """A text of words in which the first of them stand again, so that it is known what follows; the same text with
    another word at that place; and the two words. All words are one token each. Raises ValueError where the tokenizer
    has too few such words."""
    words = [f" {word}" for word in WORDS.split() if len(model.tokenizer.encode(f" {word}")) == 1]
    if len(words) < n_words + 2:
        raise ValueError(f"{len(words)} of the words are one token; the prompt needs {n_words + 2}")
    generator = torch.Generator().manual_seed(seed)
    chosen = [words[at] for at in torch.randperm(len(words), generator=generator).tolist()]
    first, half, other = chosen[:n_words], n_words // 2, chosen[n_words + 1]
    changed = [*first[:half], other, *first[half + 1 :]]
    return "".join(first + first[:half]), "".join(changed + first[:half]), first[half], other


def recovered_from(
    model: Lens, pair: Pair, stream: Float[Tensor, "rows later D"], layer: int, at: str, past: Past
) -> Float[Tensor, " rows"]:
    """The share that each row brings back as the residual stream of the second prompt without its first `past.n`
    tokens: before a layer (`at` is "pre"), or after it ("post"). Only later layers are run."""
    tokens = pair.corrupt.tokens[:, past.n :].expand(len(stream), -1)
    write, first = {f"blocks.{layer}.hook_resid_{at}": lambda _: stream}, layer + (at == "post")
    return pair.recovered(model.run(tokens, write=write, first_layer=first, only=-1, past=past).logits).cpu()


def patched_stream(
    model: Lens, pair: Pair, layer: int, part: str, columns: Int[Tensor, " rows"], n: int
) -> Float[Tensor, "rows later D"]:
    """The residual stream after a layer, or before it where that is what is patched, without the first `n` positions;
    in row i one position or one head is from the first prompt. The layer itself is not run again but for its MLP, where
    that reads what attention wrote."""
    at, block = f"blocks.{layer}.", model.gpt.blocks[layer]
    assert isinstance(block, Block)
    rows = torch.arange(len(columns))
    clean, corrupt = (run[at + hook_of(part)][0, n:] for run in (pair.clean, pair.corrupt))
    if part == "heads":
        out = block.attention.out.weight.unflatten(1, (model.config.n_head, -1))  # (D N H)
        change = torch.einsum("tnh,dnh->ntd", clean - corrupt, out)
    else:
        change = corrupt.new_zeros(len(columns), *corrupt.shape)
        change[rows, columns - n] = (clean - corrupt)[columns - n]
    if part == "residual":
        return corrupt + change
    if model.config.parallel or part == "mlp":
        return pair.corrupt[at + "hook_resid_post"][:, n:] + change
    assert block.mlp_norm is not None
    middle = pair.corrupt[at + "hook_resid_mid"][:, n:] + change
    return middle + block.mlp(block.mlp_norm(middle))


@dataclass(frozen=True)
class Patched:
    """The share of a difference of logits that each activation brings back."""

    part: str
    """What was patched: residual, attention, mlp or heads."""
    columns: list[str]
    """The tokens of the prompt, or the numbers of heads."""
    recovered: Float[Tensor, "L columns"]
    """The share for each layer and position, or each layer and head: 0 as the changed prompt, 1 as the clean one."""
    answer: str
    """The token whose logit is meant."""
    other: str
    """The token whose logit is subtracted."""
    clean: float
    """The difference of the logits after the first prompt."""
    corrupt: float
    """The difference of the logits after the second prompt."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {**vars(self), "recovered": self.recovered.tolist()}

    def text(self, count: int = 10) -> str:
        """What brings back most, in lines."""
        of = f"{self.answer!r} minus {self.other!r}"
        lines = [f"{of}: {self.clean:.3f} after the text, {self.corrupt:.3f} after the other; {self.part} bring back"]
        for layer, column in self.largest(count):
            at = f"head {layer}.{column}" if self.part == "heads" else f"layer {layer}, position {column}"
            token = "" if self.part == "heads" else f", {self.columns[column]!r}"
            lines.append(f"  {float(self.recovered[layer, column]):+7.1%}  {at}{token}")
        return "\n".join(lines)

    def largest(self, count: int) -> list[tuple[int, int]]:
        """The layers and columns that bring back most."""
        at = self.recovered.flatten().topk(min(count, self.recovered.numel())).indices.tolist()
        width = self.recovered.shape[1]
        return [(i // width, i % width) for i in at]

    def _repr_html_(self) -> str:
        layers = [f"layer {layer}" for layer in range(len(self.recovered))]
        heading = f"What {self.part} brings back of {self.answer!r} rather than {self.other!r}"
        shown, cut = (slice(None), "") if self.part == "heads" else window(len(self.columns))
        values = self.recovered[:, shown].tolist()
        return page(heading, cut, grid(values, layers, self.columns[shown], corner=self.part))


@torch.no_grad()
def patch(model: Lens, pair: Pair, part: str) -> Patched:
    """Patch each activation of a kind in turn: the residual stream before each layer, or what its attention or its MLP
    wrote, by position; or each head, at all positions. Raises ValueError for a kind that does not exist, or that the
    pair was not made for."""
    require_part(pair, part)
    n_layer, at = model.config.n_layer, "pre" if part == "residual" else "post"
    columns = torch.arange(model.config.n_head if part == "heads" else pair.clean.tokens.shape[1])
    found = torch.empty(n_layer, len(columns))
    with progress(f"patching {part}", found.numel(), "patches") as bar:
        for layer in range(n_layer):
            for some in (columns,) if part == "heads" else columns.split(CHANGED_AT_ONCE):
                past = Past(model.config, pair.corrupt, pair.same if part == "heads" else int(some[0]))
                stream = patched_stream(model, pair, layer, part, some, past.n)
                found[layer, some] = recovered_from(model, pair, stream, layer, at, past)
                bar.advance(len(some))
    return described(model, pair, part, found)


def require_part(pair: Pair, part: str) -> None:
    """Raise ValueError for a part that does not exist, or whose activations a pair does not have."""
    if f"blocks.0.{hook_of(part)}" not in pair.clean:
        made = " and ".join(one for one in HOOKS if f"blocks.0.{HOOKS[one]}" in pair.clean)
        raise ValueError(f"the pair was made for {made or 'no part'}; make it with parts=({part!r},)")


def hook_of(part: str) -> str:
    """The activation of a layer that a part is. Raises ValueError for a part that does not exist."""
    if part not in HOOKS:
        raise ValueError(f"part is {part!r}; it must be one of {', '.join(HOOKS)}")
    return HOOKS[part]


def described(model: Lens, pair: Pair, part: str, recovered: Tensor) -> Patched:
    """Shares with what they are of."""
    columns = (
        [str(head) for head in range(model.config.n_head)]
        if part == "heads"
        else model.texts(pair.corrupt.tokens[0].tolist())
    )
    differences = (float(pair.difference(run.logits)) for run in (pair.clean, pair.corrupt))
    return Patched(part, columns, recovered, model.text(pair.answer), model.text(pair.other), *differences)


@torch.no_grad()
def patch_heads(model: Lens, pair: Pair, heads: Sequence[tuple[int, int]]) -> float:
    """The share that several heads (layer, head) bring back together. Raises ValueError for one that is not there, and
    for a pair that was not made for heads."""
    return float(patch_sets(model, pair, [heads])[0])


def patch_sets(model: Lens, pair: Pair, sets: Sequence[Sequence[tuple[int, int]]]) -> Float[Tensor, " sets"]:
    """The share that the heads of each set bring back together. Raises as `patch_heads`."""
    require_part(pair, "heads")
    past = Past(model.config, pair.corrupt, pair.same)
    chosen = torch.zeros(model.config.n_layer, len(sets), model.config.n_head, dtype=torch.bool)
    for row, heads in enumerate(sets):
        for layer, head in heads:
            chosen[model.layer(layer), row, model.head(head)] = True

    def edit(mask: Tensor, clean: Tensor, z: Float[Tensor, "sets T N H"]) -> Tensor:
        return torch.where(mask, clean, z)

    write, changed = {}, chosen.any((1, 2)).nonzero()[:, 0].tolist()
    for layer in changed:
        clean = pair.clean[f"blocks.{layer}.attn.hook_z"][:, past.n :]
        write[f"blocks.{layer}.attn.hook_z"] = partial(edit, chosen[layer][:, None, :, None].to(clean.device), clean)
    first = changed[0] if changed else 0
    before = f"blocks.{first}.hook_resid_pre"
    stream = pair.corrupt[before][:, past.n :].expand(len(sets), -1, -1)
    tokens = pair.corrupt.tokens[:, past.n :].expand(len(sets), -1)
    run = model.run(tokens, write=write | {before: lambda _: stream}, first_layer=first, only=-1, past=past)
    return pair.recovered(run.logits).cpu()


@dataclass(frozen=True)
class HeadCurve:
    """How much is brought back by more and more heads, on average over pairs of prompts."""

    order: list[tuple[int, int]]
    """All heads (layer, head), in the order in which they are added (`best_together`)."""
    sizes: list[int]
    """Numbers of heads that were patched together."""
    by_pair: Float[Tensor, "pairs sizes"]
    """The share that the first heads of `order` bring back in each pair, for each number."""
    random: Float[Tensor, "sets sizes"]
    """The share that random sets of as many heads bring back."""

    @property
    def recovered(self) -> list[float]:
        """The share that the first heads of `order` bring back, for each number."""
        return self.by_pair.mean(0).tolist()

    def enough(self, share: float = 0.9) -> tuple[int, float]:
        """The smallest number of heads that bring back a share, and the most that a random set of as many does. Raises
        ValueError where no number does."""
        for number, recovered in enumerate(self.recovered):
            if recovered >= share:
                return self.sizes[number], float(self.random[:, number].max())
        raise ValueError(f"no number of heads brings back {share:.0%}")

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            **vars(self),
            "recovered": self.recovered,
            "by_pair": self.by_pair.tolist(),
            "random": self.random.tolist(),
        }

    def text(self) -> str:
        """A line for each number of heads."""
        n_pairs = len(self.by_pair)
        over = f", mean of {n_pairs} pairs and range" if n_pairs > 1 else ""
        lines = [f"heads   brought back{over}   {len(self.random)} random sets (median and range)"]
        for number, size in enumerate(self.sizes):
            each, sets = self.by_pair[:, number], self.random[:, number]
            between = f"  ({float(each.min()):.1%} to {float(each.max()):.1%})" if n_pairs > 1 else ""
            spread = f"{float(sets.median()):7.1%}  ({float(sets.min()):.1%} to {float(sets.max()):.1%})"
            lines.append(f"{size:5}   {float(each.mean()):12.1%}{between:{len(over)}}   {spread}")
        return "\n".join([*lines, f"first {', '.join(f'{layer}.{head}' for layer, head in self.order[:CHOSEN])}"])

    def _repr_html_(self) -> str:
        rows = [[value, *column] for value, column in zip(self.recovered, self.random.T.tolist(), strict=True)]
        names = ["best heads", *(f"random {number}" for number in range(len(self.random)))]
        return page("What more and more heads bring back", grid(rows, [f"{size} heads" for size in self.sizes], names))


@torch.no_grad()
def head_curve(model: Lens, pairs: Pair | Sequence[Pair], random_sets: int = 20, seed: int = 0) -> HeadCurve:
    """Patch the heads of `best_together`, each number of them up to CHOSEN, then 32, 64 and so on, a quarter and all,
    beside random sets of as many, drawn from all heads; in a pair of prompts, or in several, whose shares are averaged.
    Raises ValueError for a pair that was not made for heads, and without a pair or a random set."""
    pairs = [pairs] if isinstance(pairs, Pair) else pairs
    if not pairs or random_sets < 1:
        raise ValueError(f"there are {len(pairs)} pairs and {random_sets} random sets; a curve needs one of each")
    every = [(layer, head) for layer in range(model.config.n_layer) for head in range(model.config.n_head)]
    alone = torch.stack([patch(model, pair, "heads").recovered for pair in pairs]).mean(0).flatten()
    order = best_together(model, pairs, [every[at] for at in alone.argsort(descending=True, stable=True).tolist()])
    n = len(every)
    powers = (2**power for power in range(n.bit_length()))
    sizes = sorted({size for size in (*range(1, CHOSEN + 1), *powers, max(1, n // 4), n) if size <= n})
    generator = torch.Generator().manual_seed(seed)
    by_pair, random = torch.empty(len(pairs), len(sizes)), torch.empty(random_sets, len(sizes))
    with progress("patching sets of heads", (random_sets + 1) * len(sizes), "sets") as bar:
        for number, size in enumerate(sizes):
            sets = [[every[at] for at in torch.randperm(n, generator=generator)[:size].tolist()] for _ in random]
            shares = patch_each(model, pairs, [order[:size], *sets])
            by_pair[:, number], random[:, number] = shares[:, 0], shares[:, 1:].mean(0)
            bar.advance(random_sets + 1)
    return HeadCurve(order, sizes, by_pair, random)


def best_together(model: Lens, pairs: Sequence[Pair], heads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Heads in another order: first, one after the other, the one that brings back most together with those before it;
    then, as they were given, those that are not among the first CANDIDATES or were not chosen."""
    left, chosen = list(heads[:CANDIDATES]), []
    with progress("choosing heads", min(CHOSEN, len(left)), "heads") as bar:
        while left and len(chosen) < CHOSEN:
            best = int(patch_each(model, pairs, [[*chosen, head] for head in left]).mean(0).argmax())
            chosen.append(left.pop(best))
            bar.advance(1)
    return chosen + [head for head in heads if head not in chosen]


def patch_each(
    model: Lens, pairs: Sequence[Pair], sets: Sequence[Sequence[tuple[int, int]]]
) -> Float[Tensor, "pairs sets"]:
    """The share that the heads of each set bring back together in each pair. Raises as `patch_heads`."""
    return torch.stack([patch_sets(model, pair, sets) for pair in pairs])


def head_edits(
    model: Lens, heads: Sequence[tuple[int, int]], value: Callable[[int], Tensor | float]
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """What replaces heads (layer, head) by their parts of `value(layer)`, a tensor (1 T N H) or a number."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(model.layer(layer), []).append(model.head(head))

    def edit(numbers: list[int], new: Tensor | float, z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, numbers] = new[:, :, numbers] if isinstance(new, Tensor) else new
        return z

    for layer, numbers in by_layer.items():
        yield f"blocks.{layer}.attn.hook_z", partial(edit, numbers, value(layer))
