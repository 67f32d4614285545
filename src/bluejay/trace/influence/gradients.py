"""Gradients of single documents, projected, from one backward pass over many (LoGra, arXiv 2405.13954, section 3).

The gradient of a matrix is a sum over tokens of the gradient d of its output times its input x, d x^T. It is projected
from both sides, (P d) (Q x)^T. So a token costs two thin products, a document is the sum over its own tokens, and
nothing as large as the model is made for one. Biases and norms, a thousandth of the weights, are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bluejay.gpt.model import GPT
from bluejay.train.data.batches import TrainBatch
from bluejay.train.loss import logit_rows
from bluejay.train.step import autocast

EMBEDDING, HEAD = "embed.weight", "head.weight"


@dataclass(frozen=True)
class Sides:
    """The projection of a matrix to K x K numbers."""

    left: Float[Tensor, "K rows"]
    right: Float[Tensor, "K columns"]


@dataclass(frozen=True)
class Piece:
    """Neighbouring targets of one sequence that are of one document."""

    row: int
    """The number of the sequence in its batch."""
    first: int
    """Its first target."""
    end: int
    """The target after its last one."""


def matrices(model: GPT) -> dict[str, torch.Size]:
    """The matrices whose gradients are projected, by name: those of the blocks, the embedding, and the head where it is
    another matrix."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.ndim == 2]
    return {name: weight.shape for name, weight in named if name != "position.weight"}


class ProjectedGradients:
    """Projects gradients of documents of a model, whose parameters it freezes.

    `sides` has the projection of each of its `matrices`, all to the same K. `precision` is that of matrix products, as
    in `bluejay.train.checkpoint.state.State`.
    """

    def __init__(self, model: GPT, sides: Mapping[str, Sides], precision: str) -> None:
        self.model, self.sides, self.precision = model.requires_grad_(False), sides, precision
        self.K = len(next(iter(sides.values())).left)
        self.left: dict[str, Float[Tensor, "B T K"]] = {}
        self.right: dict[str, Float[Tensor, "B T K"]] = {}

    def __call__(self, batch: TrainBatch, pieces: Sequence[Piece]) -> Iterator[Float[Tensor, "matrices K K"]]:
        """For each piece of a batch the projected gradient of the negative log-likelihood of its targets, summed with
        their weights, in the order of `matrices`. `batch.starts` keeps the attention within documents."""
        with ExitStack() as stack:
            stack.enter_context(autocast(batch.inputs.device, self.precision))
            stack.enter_context(torch.enable_grad())
            for name in self.sides.keys() - {EMBEDDING, HEAD}:
                hook = partial(self.keep_input, name)
                stack.callback(
                    self.model.get_submodule(name.removesuffix(".weight")).register_forward_hook(hook).remove
                )
            stack.callback(self.model.embed.register_forward_hook(self.keep_tokens).remove)
            hidden = self.model.hidden(batch.inputs, document_start=batch.starts)
        hidden.backward(self.head(hidden.detach(), batch).to(hidden.dtype))
        names = [*self.sides, *({HEAD} - self.sides.keys())]
        left, right = (torch.stack([side.pop(name) for name in names]) for side in (self.left, self.right))
        tied = list(self.sides).index(EMBEDDING) if HEAD not in self.sides else None
        for piece in pieces:
            here = (slice(None), piece.row, slice(piece.first, piece.end))
            found = left[here].mT @ right[here]
            if tied is not None:  # the last of the products is of the same matrix as the embedding's
                found[tied] += found[-1]
                found = found[:-1]
            yield found

    def keep_input(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the projected input of a matrix, and once it is known the projected gradient of its output."""
        self.right[name] = inputs[0].detach().float() @ self.sides[name].right.T
        output.register_hook(partial(self.keep_gradient, self.left, name, self.sides[name].left))

    def keep_tokens(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """The same for the embedding, which is looked up with a one in the row of the token."""
        self.left[EMBEDDING] = self.sides[EMBEDDING].left.T[inputs[0]]
        output.requires_grad_()  # all gradients are those of what follows, for no parameter has one
        output.register_hook(partial(self.keep_gradient, self.right, EMBEDDING, self.sides[EMBEDDING].right))

    def keep_gradient(self, into: dict[str, Tensor], name: str, side: Tensor, gradient: Tensor) -> None:
        """Keep a projected gradient."""
        into[name] = gradient.float() @ side.T

    def head(self, hidden: Float[Tensor, "B T D"], batch: TrainBatch) -> Float[Tensor, "B T D"]:
        """The gradient of the hidden states, without the logits of a whole batch; keeps both sides of the head's."""
        sides = self.sides[HEAD if HEAD in self.sides else EMBEDDING]
        weight, bias = self.model.unembedding
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        matrix, columns, index = weight.to(dtype), sides.left.T.to(dtype), batch.targets.flatten()
        states, shape = hidden.flatten(0, 1), batch.targets.shape
        d_states, left = torch.empty(states.shape), torch.empty(len(index), len(sides.left))
        for rows in logit_rows(len(index)):
            logits = (states[rows].to(dtype) @ matrix.T).float()
            gradient = (logits if bias is None else logits + bias).softmax(-1)
            gradient.scatter_add_(1, index[rows, None], -torch.ones(len(gradient), 1))
            if batch.weights is not None:
                gradient *= batch.weights.flatten()[rows, None]
            narrow = gradient.to(dtype)
            d_states[rows], left[rows] = narrow @ matrix, narrow @ columns
        self.left[HEAD], self.right[HEAD] = left.unflatten(0, shape), hidden.float() @ sides.right.T
        return d_states.unflatten(0, shape)
