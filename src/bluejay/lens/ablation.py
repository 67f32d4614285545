"""What a prediction rests on: tokens that are left out in turn (Li et al. 2016, "Understanding Neural Networks through
Representation Erasure", arXiv 1612.08220)."""

from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.lens.activations import Activations, Lens
from bluejay.lens.hooks import CHANGED_AT_ONCE, Past
from bluejay.notebook import marked, page
from bluejay.progress import progress


@dataclass(frozen=True)
class Ablation:
    """What happens to a prediction without each token."""

    tokens: list[str]
    """The texts of the tokens before the prediction."""
    target: str
    """The token that is predicted."""
    logprob: float
    """The log-probability of the target after all tokens, in nats."""
    effect: Float[Tensor, " T"]
    """How much lower the log-probability is without each token, in nats; below zero where it is higher."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "target": self.target,
            "logprob": self.logprob,
            "tokens": self.tokens,
            "effect": self.effect.tolist(),
        }

    def _repr_html_(self) -> str:
        heading = f"How much less likely {self.target!r} is without each token"
        return page(heading, marked(self.tokens, self.effect.tolist()))

    def text(self) -> str:
        """The result in lines, for a terminal."""
        lines = [f"{self.target!r} has the log-probability {self.logprob:.3f}; without each token it falls by"]
        pairs = zip(self.effect.tolist(), self.tokens, strict=True)
        return "\n".join([*lines, *(f"  {value:+8.3f}  {token!r}" for value, token in pairs)])


@torch.no_grad()
def without_tokens(
    model: Lens,
    prompt: Any,
    position: SupportsIndex = -1,
    target: str | SupportsIndex | None = None,
    by: str | SupportsIndex | None = None,
) -> Ablation:
    """Leave out each token up to a position in turn, and say how the log-probability of what follows changes. With
    `by`, the token is replaced by that one, so that the others keep their places.

    Raises ValueError for a position or a token that is not there, for a prompt of one token, and for a run that was
    changed.
    """
    tokens = model.tokens_of(prompt)
    if isinstance(prompt, Activations) and prompt.changed:
        raise ValueError(
            "this run was changed by write or past; give a prompt, whose tokens are left out in other runs"
        )
    ids = tokens[0, : model.position(position, tokens.shape[1]) + 1]
    if len(ids) < 2 and by is None:
        raise ValueError("the prompt has one token, and nothing is left without it")
    run = model.run(ids[None], Past.names(model.config), only=-1)
    whole = run.logits[0, -1].log_softmax(-1)
    wanted = int(whole.argmax()) if target is None else model.token(target)
    changed = ids.repeat(len(ids), 1)
    own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    changed = changed[~own].view(len(ids), -1) if by is None else changed.masked_fill(own, model.token(by))
    found = []
    with progress("leaving out tokens", len(changed), "tokens") as bar:
        for first in range(0, len(changed), CHANGED_AT_ONCE):
            rows = changed[first : first + CHANGED_AT_ONCE]
            past = Past(model.config, run, min(first, rows.shape[1] - 1))
            found.append(model.run(rows[:, past.n :], only=-1, past=past).logits[:, -1].log_softmax(-1)[:, wanted])
            bar.advance(len(rows))
    effect = whole[wanted] - torch.cat(found)
    return Ablation(model.texts(ids.tolist()), model.text(wanted), float(whole[wanted]), effect)
