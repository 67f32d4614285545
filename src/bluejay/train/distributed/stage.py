"""The part of the model that one process trains, and the loss at its end."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial

from bluejay.gpt.model import GPT
from bluejay.train.data.batches import document_starts
from bluejay.train.loss import head_loss, token_nll
from bluejay.train.recipe import Train


class OtherStage(nn.Module):
    """Where another stage has a block or a norm."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class ReceivedHidden(nn.Module):
    """Where another stage has the embedding: gives the hidden states that came from there."""

    states: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return self.states


class Stage(nn.Module):
    """Stage `index` of `count` of a model, made from it in place: the first embeds, each has its share of the blocks,
    the last measures the loss. Parameters keep their names; those of other stages are gone.

    `eot` is the token at which documents are kept apart, if they are.
    """

    def __init__(self, model: GPT, eot: int | None, settings: Train, index: int = 0, count: int = 1) -> None:
        super().__init__()
        self.model, self.eot, self.z_loss = model, eot, settings.z_loss
        model.recompute = settings.recompute
        if settings.compile:
            for block in model.blocks:
                block.compile()
        self.first, self.last = index == 0, index == count - 1
        self.stream = model.embed.weight.dtype  # of the hidden states between blocks; adapters' bases can be narrow
        n = len(model.blocks)
        self.layers = range(index * n // count, (index + 1) * n // count)
        for layer in set(range(n)) - set(self.layers):
            model.blocks[layer] = OtherStage()
        if not self.first:
            model.add_module("embed", ReceivedHidden())
            model.position = None
        if not self.last:
            model.add_module("norm", OtherStage())
            model.add_module("head", None)

    @property
    def whole(self) -> bool:
        """Whether this is all of the model."""
        return self.first and self.last

    def forward(
        self,
        arrived: Tensor | None = None,
        *,
        inputs: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        weights: Float[Tensor, "B T"] | None,
        scale: float | None,
    ) -> Tensor:
        """The loss of the last stage: weighted sum over all targets in nats, times `scale`; without a scale, each
        target's nats (B T). Of the others, the hidden states for the next, which it gets as `arrived`."""
        entrance = self.model.get_submodule("embed")
        if isinstance(entrance, ReceivedHidden):
            assert arrived is not None
            entrance.states = arrived
        starts = None if self.eot is None else document_starts(inputs, self.eot)
        hidden = self.model.hidden(inputs, document_start=starts)
        if not self.last:
            return hidden
        weight, bias = self.model.unembedding
        group, first = None, 0
        if isinstance(hidden, DTensor):
            group, mesh = hidden.device_mesh.get_group(), hidden.device_mesh
            first = mesh.get_local_rank() * -(-self.model.config.vocab_size // mesh.size())
            hidden = hidden.to_local(grad_placements=[Partial()])
            weight, bias = (part.to_local() if isinstance(part, DTensor) else part for part in (weight, bias))
        assert weight is not None
        if scale is None:
            return token_nll(hidden, weight, bias, targets, group, first)
        return head_loss(hidden, weight, bias, targets, scale, weights, group, first, self.z_loss)
