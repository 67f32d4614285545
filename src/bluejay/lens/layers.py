"""What the model would have said after each layer: the logit lens and the tuned lens.

The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens") gives the residual stream after each layer to
the last norm and the head. The tuned lens (Belrose et al. 2023, arXiv 2303.08112, section 3) first adds an affine map
of it that was trained, for each layer, to come near what the model says at the end; its parameters begin at zero, where
it is the logit lens.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bluejay.files import require_writable, write_bytes
from bluejay.gpt.formats.companions import TUNED_LENS
from bluejay.gpt.model import GPT
from bluejay.lens.activations import Activations, Lens, position_of, positions_of
from bluejay.notebook import colour, page, table, visible, window
from bluejay.progress import progress

ROWS = 64
"""Rows of logits that are computed at once, where there are so many places."""
WEIGHTS = "weights_sha256"
"""What the file of a tuned lens calls the `fingerprint` of the weights that it was trained for."""
SAMPLE = 4096
"""About how many numbers of a weight the `fingerprint` reads."""
POSITIONS = 256
"""Positions of a batch at which a tuned lens is trained, where each place goes through the whole vocabulary."""

LAYER_NEEDS = ("blocks.0.hook_resid_pre", "blocks.*.hook_resid_post")
"""The activations that both lenses read."""


@dataclass(frozen=True)
class LayerPredictions:
    """What each of L + 1 places would have said at each of T positions: before the first layer, and after each."""

    kind: str
    """Which lens it is: logit or tuned."""
    tokens: list[str]
    """The texts of the prompt's tokens."""
    top: list[list[str]]
    """The likeliest token, (L + 1) lists of T texts."""
    top_ids: Int[Tensor, "places T"]
    """The id of the likeliest token at each place and position."""
    probability: Float[Tensor, "places T"]
    """The probability of the likeliest token."""
    rank: Int[Tensor, "places T"]
    """How many tokens were likelier than the one that the model said in the end; 0 where it was the likeliest."""
    final: Float[Tensor, "places T"]
    """The probability of the token that the model said in the end."""
    entropy: Float[Tensor, "places T"]
    """The entropy of the probabilities, in bits."""
    kl: Float[Tensor, "places T"]
    """The Kullback-Leibler divergence from what the model said in the end to this, in bits."""

    def as_dict(self, position: SupportsIndex | None = None) -> dict[str, Any]:
        """The predictions for JSON; of one position if it is given. Raises ValueError if there is none."""
        at = positions_of(position, len(self.tokens))
        return {
            "kind": self.kind,
            "tokens": self.tokens[at],
            "top": [row[at] for row in self.top],
            **{name: getattr(self, name)[:, at].tolist() for name in ("probability", "rank", "final", "entropy", "kl")},
        }

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, last: SupportsIndex | None = None) -> str:
        """The predictions as HTML; of a long prompt those up to a position, or to the end. Raises as `as_dict`."""
        n_tokens = len(self.tokens)
        (shown, cut), rows = window(n_tokens, None if last is None else position_of(last, n_tokens)), []
        columns = zip(places(len(self.top)), self.top, self.probability.tolist(), strict=True)
        for name, top, probabilities in reversed(list(columns)):
            cells = (
                f'<span style="{colour(probability, 1.0)}" title="{probability:.3f}">{visible(token)}</span>'
                for token, probability in zip(top[shown], probabilities[shown], strict=True)
            )
            rows.append((name, *cells))
        head = ("", *(visible(token) for token in self.tokens[shown]))
        return page(f"What each layer would have said ({self.kind} lens)", cut, table(head, rows))


def places(n: int) -> list[str]:
    """The names of the first places: the embedding, and each layer."""
    return ["embedding", *(f"layer {number}" for number in range(n - 1))]


@torch.no_grad()
def logit_lens(
    model: Lens, prompt: Any, tuned: "TunedLens | None" = None, positions: Sequence[SupportsIndex] | None = None
) -> LayerPredictions:
    """What each layer would have said at each position of a prompt, or at some; through a tuned lens if one is given.

    Raises ValueError for a position that is not there, and for an empty list of them.
    """
    tokens = model.tokens_of(prompt)
    n_tokens = tokens.shape[1]
    if positions is not None and not len(positions):
        raise ValueError("there is no position to read the layers at; leave positions out to read all")
    at = list(range(n_tokens)) if positions is None else [model.position(one, n_tokens) for one in positions]
    only = at[0] if len(at) == 1 else None
    run = model.read(prompt if isinstance(prompt, Activations) else tokens, LAYER_NEEDS, only)
    final = run.logits[0, at] if only is None else run.after(only)[None]
    likelihood, said = final.softmax(-1), largest(final)
    places = residuals(model, run)[:-1]
    group = max(1, ROWS // len(at))  # places in one product
    logits = final.new_empty(min(group, len(places)) + 1, *final.shape)  # of every group: pages of memory are dear
    scratch, rows = torch.empty_like(logits), []
    for first in range(0, len(places), group):
        some = places[first : first + group]
        normed = [normalized(model, one[0, at], first + number, tuned) for number, one in enumerate(some)]
        unembed(model, torch.cat(normed), logits[: len(some)].flatten(0, 1))
        rows.append(compared(logits[: len(some)], likelihood, said, scratch[: len(some)]))
    logits[0] = final
    rows.append(compared(logits[:1], likelihood, said, scratch[:1]))
    ids, probability, rank, of_final, entropy, cross = (torch.cat(column) for column in zip(*rows, strict=True))
    top = [model.texts(row) for row in ids.tolist()]
    texts = model.texts(tokens[0, at].tolist())
    kind = "logit" if tuned is None else "tuned"
    kl = (cross - entropy[-1]).clamp(min=0)
    return LayerPredictions(kind, texts, top, ids, probability, rank, of_final, entropy, kl)


def residuals(model: Lens, run: Any) -> list[Float[Tensor, "B T D"]]:
    """The residual stream before the first layer and after each."""
    after = [run[f"blocks.{layer}.hook_resid_post"] for layer in range(model.config.n_layer)]
    return [run["blocks.0.hook_resid_pre"], *after]


def normalized(
    model: Lens, residual: Float[Tensor, "*batch D"], place: int, tuned: "TunedLens | None"
) -> Float[Tensor, "*batch D"]:
    """What the head gets of the residual stream at a place."""
    return model.gpt.norm(residual if tuned is None else tuned(residual, place))


def unembed(model: Lens, normed: Float[Tensor, "rows D"], out: Float[Tensor, "rows V"]) -> None:
    """Write the logits of what the head gets to `out`. A single row is a product with a vector, which torch's matrix
    product into given memory is slow at."""
    weight, bias = model.gpt.unembedding
    if len(normed) == 1:
        out.copy_(model.gpt.logits(normed))
    elif bias is None:
        torch.mm(normed, weight.T, out=out)
    else:
        torch.addmm(bias, normed, weight.T, out=out)


def largest(x: Float[Tensor, "*batch V"]) -> Int[Tensor, "*batch"]:
    """Where each row is largest. On a CPU numpy is ten times as fast, because torch takes one number at a time."""
    return torch.from_numpy(x.numpy().argmax(-1)) if x.device.type == "cpu" else x.argmax(-1)


def compared(
    logits: Float[Tensor, "places T V"],
    likelihood: Float[Tensor, "T V"],
    said: Int[Tensor, " T"],
    scratch: Float[Tensor, "places T V"],
) -> tuple[Tensor, ...]:
    """The figures of `LayerPredictions` for the logits of some places, from the probabilities of the last; for the
    divergence, the cross-entropy in bits, from which the entropy of the last is still to be subtracted. The vocabulary
    is by far the largest dimension, so it is gone through few times; the logits are overwritten."""
    at = said.expand(len(logits), -1)[..., None]
    ids = largest(logits)
    logits -= logits.gather(-1, ids[..., None])
    of_final = logits.gather(-1, at)
    rank = torch.gt(logits, of_final, out=scratch).sum(-1).long()
    cross = torch.mul(likelihood, logits, out=scratch).sum(-1)
    total = torch.exp(logits, out=scratch).sum(-1)
    chance = scratch.gather(-1, at)[..., 0] / total
    log_total = total.log()
    entropy = log_total - logits.mul_(scratch).sum(-1) / total
    return ids, 1 / total, rank, chance, entropy / math.log(2), (log_total - cross) / math.log(2)


class TunedLens:
    """An affine map for each place before the last: weight (L D D) and bias (L D), both zero at first."""

    def __init__(self, weight: Float[Tensor, "L D D"], bias: Float[Tensor, "L D"]) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, residual: Float[Tensor, "*batch D"], place: int) -> Float[Tensor, "*batch D"]:
        """The residual stream as it would be at the end."""
        if place == len(self.weight):
            return residual
        return residual + F.linear(residual, self.weight[place], self.bias[place])

    def save(self, model: Lens) -> Path:
        """Write it beside the model that it was trained for; returns the file. Raises ValueError for a model that is
        not in a file."""
        path = new_file(model)
        tensors = {"weight": self.weight.detach().cpu(), "bias": self.bias.detach().cpu()}
        write_bytes(path, save(tensors, {WEIGHTS: fingerprint(model.gpt)}))
        return path

    @classmethod
    def load(cls, model: Lens) -> "TunedLens":
        """The tuned lens of a model. Raises FileNotFoundError if there is none, ValueError if it is damaged or was
        trained for other weights."""
        path = tuned_file(model)
        if path is None or not path.exists():
            raise FileNotFoundError(f"{model.name} has no tuned lens; train one with bluejay lens MODEL --tune TEXT")
        try:
            with safe_open(path, "pt") as file:
                weight, bias, known = file.get_tensor("weight"), file.get_tensor("bias"), file.metadata() or {}
        except SafetensorError:
            raise ValueError(f"{path} is damaged; train it again with --tune") from None
        shape = (model.config.n_layer, model.config.d_model, model.config.d_model)
        if (weight.shape, bias.shape) != (shape, shape[:2]) or known.get(WEIGHTS) != fingerprint(model.gpt):
            raise ValueError(f"{path} is not the tuned lens of these weights; train it again with --tune")
        device = model.gpt.embed.weight.device
        return cls(weight.to(device), bias.to(device))


def tuned_file(model: Lens) -> Path | None:
    """Where the tuned lens of a model is, or would be; None for a model that is not in a file."""
    if model.path is None:
        return None
    return model.path / TUNED_LENS if model.path.is_dir() else model.path.with_name(f"{model.path.stem}.{TUNED_LENS}")


def new_file(model: Lens) -> Path:
    """Where a tuned lens of a model is saved. Raises ValueError where it cannot be."""
    path = tuned_file(model)
    if path is None:
        raise ValueError(f"{model.name} has no folder to save a tuned lens in; load the model from one")
    require_writable(path)
    return path


def fingerprint(gpt: GPT) -> str:
    """The SHA-256 of some thousands of numbers of every weight, which tells models of one shape apart."""
    digest = hashlib.sha256()
    for weight in gpt.state_dict().values():
        sample = weight.flatten()[:: max(1, weight.numel() // SAMPLE)]
        digest.update(sample.cpu().contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Tuned:
    """A tuned lens that was trained, and how near it comes on text that it was not trained on."""

    lens: TunedLens
    """The tuned lens that was trained."""
    logit_kl: list[float]
    """The divergence of the logit lens at each place before the last, in bits per token."""
    tuned_kl: list[float]
    """The divergence of the tuned lens at each place before the last, in bits per token."""
    tokens: int
    """The tokens that it was trained on."""

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {"logit_kl": self.logit_kl, "tuned_kl": self.tuned_kl, "tokens": self.tokens}

    def text(self) -> str:
        """The divergences, a line for each place."""
        lines = ["place        logit lens  tuned lens   bits from the model's own answer"]
        for name, logit, tuned in zip(places(len(self.logit_kl)), self.logit_kl, self.tuned_kl, strict=True):
            lines.append(f"{name:12} {logit:10.3f}  {tuned:10.3f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        both = (map("{:.3f}".format, kl) for kl in (self.logit_kl, self.tuned_kl))
        rows = list(zip(places(len(self.logit_kl)), *both, strict=True))
        return page("Bits from the model's own answer", table(("place", "logit lens", "tuned lens"), rows))


def tune(
    model: Lens,
    tokens: str | Sequence[int] | np.ndarray | Int[Tensor, " T"],
    steps: int = 250,
    length: int = 128,
    batch: int = 8,
    lr: float = 1.0,
) -> Tuned:
    """Train a tuned lens on a text or its token ids, of which the last tenth is held out.

    As in the paper: SGD with Nesterov momentum 0.9, a rate that falls linearly to zero, gradients clipped to a norm of
    1, weight decay 0.001, the loss the divergence from the model's own answer; but on `POSITIONS` random positions of
    each batch, not on all; `length` is in tokens, `batch` in rows of that length. Raises ValueError for too few tokens
    or several lists of them, and for steps, a length or a batch below 1.
    """
    for name, value in {"steps": steps, "length": length, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    tokens = torch.as_tensor(model.tokenizer.encode(tokens) if isinstance(tokens, str) else tokens)
    if tokens.ndim != 1:
        raise ValueError(f"the token ids have the shape {tuple(tokens.shape)}; a tuned lens takes one list of them")
    length = min(length, model.config.n_ctx)
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    held_out = max(1, len(rows) // 10)
    if len(rows) < 2:
        raise ValueError(f"the text has {len(tokens)} tokens; a tuned lens needs at least {2 * length}")
    training, held = rows[:-held_out], rows[-held_out:][:batch]
    n_layer, width = model.config.n_layer, model.config.d_model
    device = model.gpt.embed.weight.device
    weight = torch.zeros(n_layer, width, width, device=device, requires_grad=True)
    bias = torch.zeros(n_layer, width, device=device, requires_grad=True)
    tuned = TunedLens(weight, bias)
    optimizer = torch.optim.SGD([weight, bias], lr * (1 - 0.9), momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(0)
    with progress("tuning the lens", steps, "steps") as bar:
        for _ in range(steps):
            chosen = training[torch.randint(len(training), (batch,), generator=generator)]
            at = torch.randperm(chosen.numel(), generator=generator)[:POSITIONS]
            losses = divergences(model, chosen, tuned, at, backward=True)
            clip_gradients(tuned)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            bar.advance(1, f"{sum(losses) / len(losses):.3f} bits")
    plain = TunedLens(torch.zeros_like(weight), torch.zeros_like(bias))
    both = [divergences(model, held, one) for one in (plain, tuned)]
    made = TunedLens(weight.detach(), bias.detach())
    return Tuned(made, *both, tokens=min(training.numel(), steps * min(POSITIONS, batch * length)))


def clip_gradients(tuned: TunedLens) -> None:
    """Clip the gradients of the affine map of each place to a norm of 1: each by itself, as lenses of their own."""
    weight, bias = tuned.weight.grad, tuned.bias.grad
    assert weight is not None and bias is not None
    norm = (weight.square().sum((1, 2)) + bias.square().sum(1)).sqrt().clamp(min=1)
    weight /= norm[:, None, None]
    bias /= norm[:, None]


def tune_and_save(model: Lens, text: str, steps: int = 250) -> Tuned:
    """Train a tuned lens on a text and save it beside the model. Raises ValueError as `tune` and `TunedLens.save`, the
    latter before it is trained."""
    new_file(model)
    tuned = tune(model, text, steps)
    tuned.lens.save(model)
    return tuned


def divergences(
    model: Lens,
    rows: Int[Tensor, "B T"],
    tuned: TunedLens,
    at: Int[Tensor, " chosen"] | None = None,
    backward: bool = False,
) -> list[float]:
    """The mean divergence of each place before the last, in bits per token, at some of the B T positions or at all;
    with gradients if they are wanted."""
    run = model.run(rows, [*LAYER_NEEDS, "ln_final.hook_out"], only=-1)
    at = torch.arange(rows.numel()) if at is None else at
    final, found = model.gpt.logits(run["ln_final.hook_out"].flatten(0, 1)[at]).log_softmax(-1), []
    for place, residual in enumerate(residuals(model, run)[:-1]):
        with torch.set_grad_enabled(backward):
            logprobs = model.gpt.logits(normalized(model, residual.flatten(0, 1)[at], place, tuned)).log_softmax(-1)
            loss = F.kl_div(logprobs, final, log_target=True, reduction="sum") / len(at)
            if backward:
                loss.backward()
        found.append(float(loss.detach()) / math.log(2))
    return found
