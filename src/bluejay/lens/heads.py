"""Heads of attention: where they look, and which of them copy what followed before (induction).

A weight of attention is not yet importance: a key whose value is small says little. `value_weighted` is therefore the
length of what each position adds to the stream (Kobayashi et al. 2020, arXiv 2004.10102, section 3), and the scores are
shown in the part that depends on the distance and the part that depends on the content (rotary positions turn only some
dimensions of a head in GPT-J and GPT-NeoX).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.evals.evaluation_file import identity_at
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import Block
from bluejay.infer.model import load
from bluejay.lens.activations import Activations, Lens, positions_of
from bluejay.lens.hooks import Edit, attended_tokens
from bluejay.notebook import grid, page, window
from bluejay.progress import progress

SCORES = ("induction", "previous_token", "duplicate_token", "copying")


@dataclass(frozen=True)
class Patterns:
    """Where the heads of one layer look, from each position T to each position S."""

    layer: int
    """The layer whose heads these are."""
    tokens: list[str]
    """The texts of the prompt's tokens."""
    pattern: Float[Tensor, "N T S"]
    """The weights of attention; a row adds up to 1."""
    value_weighted: Float[Tensor, "N T S"]
    """The length of what each position adds to the residual stream: the weight times the length of its value, after the
    output matrix."""
    q: Float[Tensor, "N T H"]
    """The queries, rotated where the model rotates them."""
    k: Float[Tensor, "K T H"]
    """The keys, rotated as the queries are."""
    config: GPTConfig
    """The model's configuration, which says how scores are made of queries and keys."""

    @property
    def rotary(self) -> Float[Tensor, "N T S"]:
        """The part of the scores that comes from rotated dimensions and so depends on the distance; 0 above the
        diagonal."""
        return self.part(self.rotated)

    @property
    def content(self) -> Float[Tensor, "N T S"]:
        """The part of the scores that comes from dimensions that are not rotated and so depends on the content only."""
        return self.part(self.unrotated)

    @property
    def rotated(self) -> slice:
        """The dimensions of a head that are rotated."""
        return slice(None, self.config.n_rotary)

    @property
    def unrotated(self) -> slice:
        """The dimensions of a head that are not rotated."""
        return slice(self.config.n_rotary, None)

    def part(self, dimensions: slice, queries: slice = slice(None)) -> Float[Tensor, "N T S"]:
        """The part of the scores that comes from some dimensions of heads, of all queries or of some; 0 where a query
        does not look."""
        seen = attended_tokens(self.config, self.layer, self.q.shape[1], self.q.device)[queries]
        q, k = self.q[:, queries, dimensions], self.k[..., dimensions]
        k = k.repeat_interleave(len(q) // len(k), 0)
        return q @ k.transpose(1, 2) * (self.config.scale * seen)

    def as_dict(self, position: SupportsIndex | None = None) -> dict[str, Any]:
        """The patterns for JSON; of one query position if it is given. Raises ValueError if there is none."""
        at = positions_of(position, len(self.tokens))
        found = {"pattern": self.pattern[:, at], "value_weighted": self.value_weighted[:, at]}
        found |= {"rotary": self.part(self.rotated, at), "content": self.part(self.unrotated, at)}
        return {"layer": self.layer, **{name: value.tolist() for name, value in found.items()}}

    def _repr_html_(self) -> str:
        shown, cut = window(len(self.tokens))
        tokens = self.tokens[shown]
        grids = [
            grid(head[shown, shown].tolist(), tokens, tokens, corner=f"head {self.layer}.{number}")
            for number, head in enumerate(self.pattern)
        ]
        return page(f"Where the heads of layer {self.layer} look, from each row to each column", cut, *grids)


def pattern_needs(config: GPTConfig, layer: int) -> list[str]:
    """The activations that `patterns` reads."""
    rotated = ("q", "k") if config.rotary == "none" else ("rot_q", "rot_k")
    return [f"blocks.{layer}.attn.hook_{name}" for name in (*rotated, "v", "pattern")]


@torch.no_grad()
def patterns(model: Lens, prompt: Any, layer: SupportsIndex) -> Patterns:
    """Where the heads of a layer look in a prompt. Raises ValueError for a layer that is not there."""
    layer = model.layer(layer)
    names = pattern_needs(model.config, layer)
    run = model.read(prompt, names, prompt.only if isinstance(prompt, Activations) else -1)  # whatever logits it has
    q, k, v, pattern = (run[name] for name in names)
    lengths = value_lengths(model, v, layer)
    weighted = pattern[0] * lengths[0, :, None]
    q, k = (x[0].transpose(0, 1) for x in (q, k))
    return Patterns(layer, model.texts(run.tokens[0].tolist()), pattern[0], weighted, q, k, model.config)


def value_lengths(model: Lens, v: Float[Tensor, "B T K H"], layer: int) -> Float[Tensor, "B N T"]:
    """The length of the value of each position after the output matrix of each head. It is computed from the products
    of the matrix's columns, so that no vector of width D is made for each head and position."""
    squares = model.head_products(layer).unflatten(0, (model.config.kv_heads, -1))  # (K G H H)
    values = v.transpose(1, 2)[:, :, None]  # (B K 1 T H)
    return ((values @ squares) * values).sum(-1).clamp(min=0).sqrt().flatten(1, 2)


@dataclass(frozen=True)
class HeadScores:
    """Scores of all heads, (L N) each."""

    induction: Float[Tensor, "L N"]
    """In a random text that is repeated, the weight on the token after the earlier copy of the present one (Olsson et
    al. 2022, arXiv 2209.11895, "prefix matching")."""
    previous_token: Float[Tensor, "L N"]
    """The weight on the token before."""
    duplicate_token: Float[Tensor, "L N"]
    """The weight on the earlier copy of the present token."""
    copying: Float[Tensor, "L N"]
    """From -1 to 1, whether a head raises the logit of what it looks at: the sum of the eigenvalues of its matrix from
    tokens to tokens, divided by the sum of their lengths (Elhage et al. 2021, "Summarizing OV/QK Matrices")."""
    identity: str = ""
    """That of the model (`bluejay.evals.evaluation_file.identity_at`); empty where it was not asked for."""

    def largest(self, score: str, count: int = 10) -> list[tuple[int, int, float]]:
        """The heads with the largest score: layer, head, score."""
        values = getattr(self, score)
        at = values.flatten().topk(min(count, values.numel())).indices.tolist()
        return [(i // values.shape[1], i % values.shape[1], float(values.flatten()[i])) for i in at]

    def as_dict(self) -> dict[str, Any]:
        """The scores for JSON."""
        known = {"identity": self.identity} if self.identity else {}
        return {name: getattr(self, name).tolist() for name in SCORES} | known

    def text(self, count: int = 5) -> str:
        """The heads with the largest scores."""
        lines = []
        for name in SCORES:
            best = (f"{layer}.{head} {value:.2f}" for layer, head, value in self.largest(name, count))
            lines.append(f"{name.replace('_', ' '):16} {'  '.join(best)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        layers = [f"layer {layer}" for layer in range(len(self.induction))]
        heads = [str(head) for head in range(self.induction.shape[1])]
        grids = [grid(getattr(self, name).tolist(), layers, heads, corner=name.replace("_", " ")) for name in SCORES]
        return page("Scores of all heads", *grids)


@torch.no_grad()
def head_scores(model: Lens, length: int = 50, sequences: int = 4, seed: int = 0) -> HeadScores:
    """The scores of all heads, from texts of `length` random tokens, each repeated once. Raises ValueError for a text
    that is longer than the context."""
    rows = repeated_tokens(model, length, sequences, seed)
    offset = rows.shape[1] - 2 * length
    found: dict[str, list[Tensor]] = {name: [] for name in SCORES[:3]}

    def note(pattern: Float[Tensor, "B N T S"]) -> Tensor:  # of each layer in turn, so that no more than one is kept
        for score, distance in (("induction", length - 1), ("previous_token", 1), ("duplicate_token", length)):
            diagonal = pattern.diagonal(-distance, 2, 3)  # from each query to the key at this distance before it
            queries = slice(offset + length - distance, None) if score != "previous_token" else slice(None)
            found[score].append(diagonal[..., queries].mean((0, 2)))
        return pattern

    model.run(rows, write={"blocks.*.attn.hook_pattern": note})
    return HeadScores(*(torch.stack(found[name]) for name in SCORES[:3]), copying=copying_scores(model))


def repeated_tokens(model: Lens, length: int, sequences: int, seed: int) -> Tensor:
    """Random tokens that are repeated once, after the token that begins a document if the model has one, (B, T). Raises
    ValueError for a length of 1, or one of which two do not fit in the context."""
    begin = model.tokenizer.begin or [model.tokenizer.eot]
    if not 2 <= length <= (model.config.n_ctx - len(begin)) // 2:
        most = (model.config.n_ctx - len(begin)) // 2
        raise ValueError(f"the length is {length}; for this model it must be from 2 to {most}")
    generator = torch.Generator().manual_seed(seed)
    n_tokens = min(model.tokenizer.vocab_size, model.config.vocab_size)
    once = torch.randint(n_tokens, (sequences, length), generator=generator)
    return torch.cat([torch.tensor([begin] * sequences), once, once], 1).to(model.gpt.embed.weight.device)


@torch.no_grad()
def copying_scores(model: Lens) -> Float[Tensor, "L N"]:
    """The score `HeadScores.copying` of all heads. A head's matrix from tokens to tokens has the rank of a head's width
    H, so its eigenvalues are those of an H x H matrix."""
    gpt, config = model.gpt, model.config
    layernorm = config.norm == "layernorm"
    unembedding = gpt.unembedding[0].double() * gpt.norm.weight.double()
    embedding = gpt.embed.weight.double()
    if layernorm:  # both norms subtract the mean
        unembedding = unembedding - unembedding.mean(1, keepdim=True)
        embedding = embedding - embedding.mean(1, keepdim=True)
    both = embedding.T @ unembedding  # (D D), from the stream at the key to the stream at the query
    scores = []
    for block in gpt.blocks:
        assert isinstance(block, Block)
        gain = block.norm.weight.double()
        v = (block.attention.v.weight.double() * gain).unflatten(0, (config.kv_heads, config.d_head))
        v = v.repeat_interleave(config.n_head // config.kv_heads, 0)  # (N H D)
        out = (
            block.attention.out.weight.double().unflatten(1, (config.n_head, config.d_head)).transpose(0, 1)
        )  # (N D H)
        values = torch.linalg.eigvals(v @ both @ out)
        scores.append(values.real.sum(-1) / values.abs().sum(-1).clamp(min=1e-300))
    return torch.stack(scores).float()


@torch.no_grad()
def repeat_gain(
    model: Lens, length: int = 50, sequences: int = 4, seed: int = 0, write: Mapping[str, Edit] | None = None
) -> float:
    """By how many bits a token is easier to predict in the second copy of a random text than in the first, which is
    what induction heads are for (Olsson et al. 2022); with `write`, while activations are written. Raises as
    `head_scores`."""
    rows = repeated_tokens(model, length, sequences, seed)
    logprobs = model.run(rows, write=write).logits[:, :-1].log_softmax(-1)
    bits = logprobs.gather(2, rows[:, 1:, None])[..., 0].mean(0) / math.log(2)
    return float(bits[-length + 1 :].mean() - bits[-2 * length : -length].mean())


@dataclass(frozen=True)
class HeadsOverTraining:
    """Heads over the checkpoints of a run."""

    steps: list[str]
    """The names of the checkpoints, the model at the end last."""
    losses: list[float | None]
    """The training loss at each checkpoint, in nats per token; None where the run's metrics do not have it."""
    scores: list[HeadScores]
    """The scores of all heads at each checkpoint."""
    repeat_gain: list[float]
    """The result of the function `repeat_gain` at each checkpoint, in bits per token."""
    identity: str = ""
    """That of the model at the end (`bluejay.evals.evaluation_file.identity_at`); empty where the run has none yet."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "steps": self.steps,
            "losses": self.losses,
            "repeat_gain": self.repeat_gain,
            "scores": [scores.as_dict() for scores in self.scores],
            "identity": self.identity,
        }

    def text(self) -> str:
        """A line for each checkpoint, with its strongest heads."""
        lines = ["checkpoint          loss   easier when repeated   strongest induction head   previous-token head"]
        for step, loss, scores, gain in zip(self.steps, self.losses, self.scores, self.repeat_gain, strict=True):
            [induction], [previous] = (scores.largest(name, 1) for name in ("induction", "previous_token"))
            heads = (f"{layer}.{head} {value:.2f}" for layer, head, value in (induction, previous))
            columns = f"{step:18}{'?' if loss is None else f'{loss:.2f}':>6}{gain:15.2f} bits"
            lines.append(f"{columns}{'':8}{'           '.join(f'{head:16}' for head in heads)}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        n_layer, n_head = self.scores[0].induction.shape
        columns = [f"{layer}.{head}" for layer in range(n_layer) for head in range(n_head)]
        rows = [scores.induction.flatten().tolist() for scores in self.scores]
        names = [
            f"{step} ({'' if loss is None else f'loss {loss:.2f}, '}{gain:.2f} bits)"
            for step, loss, gain in zip(self.steps, self.losses, self.repeat_gain, strict=True)
        ]
        return page("Induction scores of all heads over a run", grid(rows, names, columns))


def heads_over_training(run: Path | str, length: int = 50) -> HeadsOverTraining:
    """The heads of every model that a run kept (`checkpoint.at` of its recipe), and of the one at its end. Raises
    FileNotFoundError if it kept none."""
    run = Path(run)
    kept = kept_models(run)
    if not kept:
        raise FileNotFoundError(f"{run} has no models; checkpoint.at in its recipe says when they are kept")
    found = []
    with progress("scoring heads", len(kept), "checkpoints") as bar:
        for path in kept.values():
            found.append(scored(path, length))
            bar.advance(1)
    scores, gains = zip(*found, strict=True)
    losses = [one["loss"] for one in history(run, kept)]
    identity = identity_at(kept["model"]) if "model" in kept else ""
    return HeadsOverTraining(list(kept), losses, list(scores), list(gains), identity)


def kept_models(run: Path) -> dict[str, Path]:
    """The models that a run kept on its way, by name, and the one at its end. Others beside them, such as copies with a
    longer name, are not the run's."""
    steps = ((path.name.removeprefix("model-step-"), path) for path in run.glob("model-step-*"))
    at_steps = [path for _, path in sorted((int(step), path) for step, path in steps if step.isdecimal())]
    paths = [*at_steps, *([run / "model"] if (run / "model").is_dir() else [])]
    return {path.name.removeprefix("model-"): path for path in paths}


def scored(path: Path, length: int = 50) -> tuple[HeadScores, float]:
    """The scores of a model's heads, and by how many bits repetition helps it."""
    model = load(path).lens()
    size = min(length, (model.config.n_ctx - 1) // 2)
    return head_scores(model, size), repeat_gain(model, size)


def history(run: Path, names: Iterable[str]) -> list[dict[str, float | None]]:
    """Of each checkpoint the `share` of the run's steps until it, and the training `loss`, the mean of the last ten
    steps; None where they are not known."""
    from bluejay.train.report.metrics import read_metrics

    rows = [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if row.get("loss") is not None]
    end = max((at for at, _ in rows), default=math.inf)
    found: list[dict[str, float | None]] = []
    for name in names:
        step = int(name.removeprefix("step-")) if name.startswith("step-") else end
        until = [loss for at, loss in rows if at <= step][-10:]
        share, loss = (step / end, sum(until) / len(until)) if until else (None, None)
        found.append({"share": share, "loss": loss})
    return found
