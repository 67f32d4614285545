"""Direct logit attribution: what each part of the model added to a logit (Elhage et al. 2021, "A Mathematical Framework
for Transformer Circuits"; nostalgebraist 2020 for the reading of the residual stream).

The residual stream is the sum of the embedding, of what each head and each MLP wrote, and of biases. The logit is a
linear function of it once the scale of the last norm is taken as it was: so it is a sum too, a term for each part, and
`Attribution.total` is that sum. That the scale would have been another without a part is the one thing left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT, Block
from bluejay.lens.activations import Activations, Lens
from bluejay.notebook import bars, page

LARGEST = 20
"""Terms that are shown."""
LARGEST_ERROR = 1e-3
"""The error of an attribution of a run beyond which it is none; rounding makes one of about 1e-6."""


@dataclass(frozen=True)
class Attribution:
    """The terms that add up to a logit, or to the difference of two, in float64."""

    target: str
    """The token whose logit it is."""
    against: str | None
    """The token whose logit is subtracted; None for a logit by itself."""
    position: int
    """The position after which the token would come."""
    logit: float
    """The logit, or difference of two, that the model computed."""
    embedding: float
    """What the embedding of the last token added."""
    positions: float
    """What the embedding of the position added; 0 in a model without one."""
    heads: Float[Tensor, "L N"]
    """What each head added."""
    mlps: Float[Tensor, " L"]
    """What each MLP added: its neurons and its bias."""
    neurons: Float[Tensor, "L F"]
    """What each neuron added."""
    mlp_biases: Float[Tensor, " L"]
    """What the bias of each MLP added."""
    attention_biases: Float[Tensor, " L"]
    """What the bias of each attention added."""
    bias: float
    """What the biases of the last norm and of the head added."""

    @property
    def total(self) -> float:
        """The sum of all terms; equal to `logit` but for rounding."""
        return sum(value for _, value in self.terms())

    @property
    def error(self) -> float:
        """How far the sum is from the logit that the model computed, relative to the largest term if one is not 0."""
        return abs(self.total - self.logit) / (max(abs(value) for _, value in self.terms()) or 1.0)

    def terms(self) -> Iterator[tuple[str, float]]:
        """Each term with its name, in the order of the model. MLPs are whole."""
        yield "embedding", self.embedding
        yield "position", self.positions
        for layer, heads in enumerate(self.heads.tolist()):
            yield from ((f"head {layer}.{head}", value) for head, value in enumerate(heads))
            yield f"attention bias {layer}", float(self.attention_biases[layer])
            yield f"MLP {layer}", float(self.mlps[layer])
        yield "bias", self.bias

    def largest(self, count: int = LARGEST) -> list[tuple[str, float]]:
        """The terms that are farthest from zero."""
        return sorted(((name, value) for name, value in self.terms() if value), key=lambda term: -abs(term[1]))[:count]

    def top_neurons(self, count: int = LARGEST) -> list[tuple[int, int, float]]:
        """The neurons whose terms are farthest from zero: layer, neuron, term."""
        at = self.neurons.abs().flatten().topk(min(count, self.neurons.numel())).indices.tolist()
        width = self.neurons.shape[1]
        return [(i // width, i % width, float(self.neurons.flatten()[i])) for i in at]

    def as_dict(self, count: int = LARGEST) -> dict[str, Any]:
        """The attribution for JSON."""
        return {
            "target": self.target,
            "against": self.against,
            "position": self.position,
            "logit": self.logit,
            "total": self.total,
            "error": self.error,
            "embedding": self.embedding,
            "position_embedding": self.positions,
            "heads": self.heads.tolist(),
            "mlps": self.mlps.tolist(),
            "attention_biases": self.attention_biases.tolist(),
            "bias": self.bias,
            "neurons": [
                {"layer": layer, "neuron": neuron, "value": value} for layer, neuron, value in self.top_neurons(count)
            ],
        }

    def _repr_html_(self) -> str:
        shown = self.largest()
        rest = self.total - sum(value for _, value in shown)
        of = f"the logit of {self.target!r}" + (f" minus that of {self.against!r}" if self.against is not None else "")
        heading = f"What made {of} after position {self.position}: {self.logit:.3f}"
        return page(heading, bars([*shown, ("all others", rest)]))


def attribution_needs(config: GPTConfig) -> list[str]:
    """The activations that `attribute` reads."""
    positions = ["hook_pos_embed"] if config.learned_positions else []
    return ["hook_embed", *positions, "blocks.*.attn.hook_z", "blocks.*.mlp.hook_post", "ln_final.hook_scale"]


@torch.no_grad()
def attribute(
    model: Lens,
    prompt: Any,
    position: SupportsIndex = -1,
    target: str | SupportsIndex | None = None,
    against: str | SupportsIndex | None = None,
) -> Attribution:
    """The terms of the logit of `target` after a position of a prompt; of the likeliest token when it is not given.
    With `against`, the terms of the difference of the two logits.

    Raises ValueError for a position or a token that is not there, where both tokens are the same, and for a run whose
    terms do not add up: one in which something else was written than what the terms are made of, or another model's.
    """
    tokens = model.tokens_of(prompt)
    at = model.position(position, tokens.shape[1])
    run = model.read(prompt if isinstance(prompt, Activations) else tokens, attribution_needs(model.config), at)
    logits = run.after(at).double()
    wanted = int(logits.argmax()) if target is None else model.token(target)
    other = None if against is None else model.token(against)
    if wanted == other:
        raise ValueError(f"target and against are both {model.text(wanted)!r}; name two tokens")
    logit = float(logits[wanted]) - (0.0 if other is None else float(logits[other]))
    direction, bias = unembedded(model.gpt, run["ln_final.hook_scale"][0, at], wanted, other)
    z, post = (
        torch.stack([run[f"blocks.{layer}.{name}"][0, at] for layer in range(model.config.n_layer)]).double()
        for name in ("attn.hook_z", "mlp.hook_post")
    )
    blocks = [block for block in model.gpt.blocks if isinstance(block, Block)]
    outs, downs = [block.attention.out for block in blocks], [block.mlp.down for block in blocks]
    heads = (z * unit_terms(outs, direction).view_as(z)).sum(-1)
    neuron_terms, mlp_bias_terms = post * unit_terms(downs, direction), bias_terms(downs, direction)
    positions = run["hook_pos_embed"][0, at] if model.config.learned_positions else None
    made = Attribution(
        target=model.text(wanted),
        against=None if other is None else model.text(other),
        position=at,
        logit=logit,
        embedding=float(dot(run["hook_embed"][0, at], direction)),
        positions=float(dot(positions, direction)),
        heads=heads,
        mlps=neuron_terms.sum(1) + mlp_bias_terms,
        neurons=neuron_terms,
        mlp_biases=mlp_bias_terms,
        attention_biases=bias_terms(outs, direction),
        bias=bias,
    )
    if isinstance(prompt, Activations) and made.error > LARGEST_ERROR:
        raise ValueError(
            "the terms of this run do not add up to its logit: what was written to it is not among them, or another"
            " model made it; write attn.hook_z or mlp.hook_post instead, or give a prompt"
        )
    return made


def unembedded(
    gpt: GPT, scale: Float[Tensor, " 1"], target: int, against: int | None
) -> tuple[Float[Tensor, " D"], float]:
    """The direction whose product with the residual stream is a token's logit, or the difference of two, given the
    scale of the last norm; and the term that biases add."""
    weight, head_bias = gpt.unembedding
    row = weight[target].double() - (0 if against is None else weight[against].double())
    direction = row * gpt.norm.weight.double()
    bias = 0.0
    if gpt.norm.bias is not None:  # a layer norm, which subtracts the mean
        bias, direction = float(row @ gpt.norm.bias.double()), direction - direction.mean()
    if head_bias is not None:
        bias += float(head_bias[target].double()) - (0.0 if against is None else float(head_bias[against].double()))
    return direction / scale.double(), bias


def unit_terms(matrices: Sequence[nn.Linear], direction: Float[Tensor, " D"]) -> Float[Tensor, "L inputs"]:
    """What one unit of each input of the matrices adds along a direction."""
    row = direction.to(matrices[0].weight.dtype)
    return torch.stack([row @ matrix.weight for matrix in matrices]).double()


def bias_terms(matrices: Sequence[nn.Linear], direction: Float[Tensor, " D"]) -> Float[Tensor, " L"]:
    """What the biases of the matrices add along a direction; 0 where they have none."""
    return torch.stack([dot(matrix.bias, direction) for matrix in matrices])


def dot(vector: Float[Tensor, " D"] | None, direction: Float[Tensor, " D"]) -> Float[Tensor, ""]:
    """The product of a vector, if there is one, with a direction."""
    return direction.new_zeros(()) if vector is None else vector.double() @ direction
