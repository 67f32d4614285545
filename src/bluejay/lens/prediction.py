"""A first look at a prompt: what each layer would have said, what made one prediction, and where attention looked."""

from dataclasses import dataclass
from html import escape
from typing import Any, SupportsIndex

import torch

from bluejay.lens.activations import Activations, Lens
from bluejay.lens.attribution import Attribution, attribute, attribution_needs
from bluejay.lens.heads import Patterns, pattern_needs, patterns
from bluejay.lens.layers import LAYER_NEEDS, LayerPredictions, TunedLens, logit_lens, places
from bluejay.notebook import grid, page, window


@dataclass(frozen=True)
class Look:
    """What was found about one prediction of a prompt."""

    tokens: list[str]
    """The texts of the prompt's tokens."""
    position: int
    """The position whose prediction is explained."""
    probabilities: list[tuple[str, float]]
    """The likeliest tokens after it, with their probabilities."""
    layers: LayerPredictions
    """What each layer would have said, at all positions or at that one alone."""
    attribution: Attribution
    """What made the logit of the target."""
    patterns: list[Patterns]
    """Where the heads of each layer look."""
    note: str = ""
    """How the numbers differ from those of the model where it generates; empty where they do not."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON; of patterns the rows of the position."""
        return {
            "tokens": self.tokens,
            "position": self.position,
            "probabilities": [{"token": token, "probability": value} for token, value in self.probabilities],
            "layers": self.layers.as_dict(),
            "attribution": self.attribution.as_dict(),
            "patterns": [layer.as_dict(self.position) for layer in self.patterns],
            "note": self.note,
        }

    def text(self) -> str:
        """The result in lines, for a terminal."""
        layers = self.layers
        at = min(self.position, len(layers.tokens) - 1)
        lines = [f"after {self.tokens[self.position]!r} (position {self.position}):"]
        lines += [f"  {probability:6.1%}  {token!r}" for token, probability in self.probabilities]
        lines += ["", f"what each layer would have said ({layers.kind} lens), and the rank of the final token:"]
        for place, (name, top) in enumerate(zip(places(len(layers.top)), layers.top, strict=True)):
            probability, rank = float(layers.probability[place, at]), int(layers.rank[place, at])
            lines.append(f"  {name:10} {probability:6.1%}  {rank:6d}  {top[at]!r}")
        of = self.attribution
        difference = "" if of.against is None else f" minus that of {of.against!r}"
        lines += ["", f"what made the logit of {of.target!r}{difference}, {of.logit:.3f}:"]
        shown = of.largest(12)
        lines += [f"  {value:+9.3f}  {name}" for name, value in shown]
        lines.append(f"  {of.total - sum(value for _, value in shown):+9.3f}  all others")
        lines.append(f"  {of.total:+9.3f}  the sum, which differs from the logit by {of.error:.0e} of the largest term")
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        last = self.position if len(self.layers.tokens) > 1 else None
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return self.layers.html(last) + self.attribution._repr_html_() + self.moved() + note

    def moved(self) -> str:
        """What the heads of each layer together moved from each token to the position, as HTML."""
        before = self.tokens[: self.position + 1]
        shown, cut = window(len(before))
        rows = [one.value_weighted[:, self.position, : len(before)].sum(0)[shown].tolist() for one in self.patterns]
        layers = [f"layer {one.layer}" for one in self.patterns]
        return page(
            f"What attention moved to position {self.position}, by layer", cut, grid(rows, layers, before[shown])
        )


@torch.no_grad()
def look(
    model: Lens,
    prompt: Any,
    position: SupportsIndex = -1,
    target: str | SupportsIndex | None = None,
    against: str | SupportsIndex | None = None,
    tuned: TunedLens | None = None,
    everywhere: bool = True,
) -> Look:
    """Look at the prediction after a position of a prompt: that of `target`, or of the likeliest token, or the
    difference from `against`. One run of the model. The layers are read at all positions unless `everywhere` is off.
    Raises ValueError for a position or a token that is not there."""
    layers = range(model.config.n_layer)
    heads = [name for layer in layers for name in pattern_needs(model.config, layer)]
    tokens = model.tokens_of(prompt)
    at = model.position(position, tokens.shape[1])
    names = [*LAYER_NEEDS, *attribution_needs(model.config), *heads]
    run = model.read(prompt if isinstance(prompt, Activations) else tokens, names, None if everywhere else at)
    likely = run.after(at).softmax(-1).topk(min(10, model.config.vocab_size))
    return Look(
        model.texts(run.tokens[0].tolist()),
        at,
        list(zip(model.texts(likely.indices.tolist()), likely.values.tolist(), strict=True)),
        logit_lens(model, run, tuned, None if everywhere else [at]),
        attribute(model, run, at, target, against),
        [patterns(model, run, layer) for layer in layers],
        model.note,
    )
