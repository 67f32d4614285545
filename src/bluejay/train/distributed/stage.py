"""A pipeline stage: the part of the model that one process trains, and the loss after the last block."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial

from bluejay.gpt.attention import document_bounds, has_varlen
from bluejay.gpt.model import GPT
from bluejay.train.data.batches import TrainBatch, document_starts, to_device
from bluejay.train.loss import VocabularyShard, head_loss, token_nll
from bluejay.train.recipe import Train


class OtherStage(nn.Module):
    """Replaces a block or norm that another stage holds; passes its input on."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class ReceivedHidden(nn.Module):
    """Replaces the embedding in all stages but the first: returns the hidden states received from the stage before."""

    states: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return self.states


class Stage(nn.Module):
    """Stage `index` of `count` of a model, which is modified in place. The first stage has the embedding, each has its
    part of the blocks, the last computes the loss. Parameters keep their names; those of other stages are removed.

    `eot` is the token that separates the documents of a batch that does not say where they begin, or None if attention
    crosses their boundaries.
    """

    def __init__(self, model: GPT, eot: int | None, settings: Train, index: int = 0, count: int = 1) -> None:
        super().__init__()
        self.model, self.eot, self.z_loss, self.compiled = model, eot, settings.z_loss, settings.compile
        model.recompute = settings.recompute
        if settings.compile:
            for block in model.blocks:  # what FSDP adds to a block around `forward` is not compiled
                block.forward = torch.compile(block.forward)
        self.is_first, self.is_last = index == 0, index == count - 1
        self.hidden_dtype = model.embed.weight.dtype  # bfloat16 for adapters on a bfloat16 base
        n = len(model.blocks)
        self.layers = range(index * n // count, (index + 1) * n // count)
        for layer in set(range(n)) - set(self.layers):
            model.blocks[layer] = OtherStage()
        if not self.is_first:
            model.add_module("embed", ReceivedHidden())
            model.position = None
        if not self.is_last:
            model.add_module("norm", OtherStage())
            model.add_module("head", None)

    @property
    def is_whole(self) -> bool:
        """Whether this stage is the whole model."""
        return self.is_first and self.is_last

    def forward(
        self,
        received: Tensor | None = None,
        *,
        inputs: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        weights: Float[Tensor, "B T"] | None,
        starts: Int[Tensor, "B T"] | None = None,
        scale: float | None,
        bounds: Int[Tensor, " bounds"] | None = None,
    ) -> Tensor:
        """The last stage returns its loss (`head_loss`) or, without a scale, the negative log-likelihood of each target
        in nats (B T). Other stages return the hidden states that the next stage gets as `received`. `bounds` are those
        of `document_bounds`, if they are known."""
        embedding = self.model.get_submodule("embed")
        if isinstance(embedding, ReceivedHidden):
            assert received is not None
            embedding.states = received
        hidden = self.model.hidden(inputs, document_start=self.starts(inputs, starts), bounds=bounds)
        if not self.is_last:
            return hidden
        weight, bias = self.model.unembedding
        shard = None
        if isinstance(hidden, DTensor):
            mesh = hidden.device_mesh
            first = mesh.get_local_rank() * -(-self.model.config.vocab_size // mesh.size())
            hidden = hidden.to_local(grad_placements=[Partial()])
            weight, bias = (part.to_local() if isinstance(part, DTensor) else part for part in (weight, bias))
            assert weight is not None
            shard = VocabularyShard(mesh.get_group(), first, len(weight))
        if scale is None:
            return token_nll(hidden, weight, bias, targets, shard)
        compiled = self.compiled and hidden.device.type == "cuda"
        return head_loss(hidden, weight, bias, targets, scale, weights, shard, self.z_loss, compiled)

    def document_bounds(self, batch: TrainBatch, device: torch.device) -> Int[Tensor, " bounds"] | None:
        """The bounds of the documents of a micro-batch that is still in main memory, on the device that trains on it;
        None if attention there does not ask for them."""
        starts = self.starts(batch.inputs, batch.starts) if has_varlen(device) else None
        return None if starts is None else to_device(document_bounds(starts), device)

    def starts(self, inputs: Int[Tensor, "B T"], given: Int[Tensor, "B T"] | None) -> Int[Tensor, "B T"] | None:
        """Position at which each token's document begins, as the batch or else its end tokens say; None if attention
        crosses them."""
        return document_starts(inputs, self.eot) if given is None and self.eot is not None else given
