"""The gradients of documents that share a pass are those of a pass for each alone, and projections keep products."""

import pytest
import torch
import torch.nn.functional as F

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import adapted
from bluejay.trace.influence.corrections import random_rows
from bluejay.trace.influence.gradients import Piece, ProjectedGradients, Sides, matrices
from bluejay.train.data.batches import TrainBatch, document_starts

VOCABULARY, EOT = 29, 28
SMALL = {"n_layer": 2, "d_model": 16, "n_head": 2, "vocab_size": VOCABULARY, "n_ctx": 24}
LARGEST = 64
"""No matrix of these models has more rows or columns."""


def whole(model) -> dict[str, Sides]:
    """Projections that change nothing."""
    return {name: Sides(*(random_rows(LARGEST, size, "") for size in shape)) for name, shape in matrices(model).items()}


def batch_of(weights: bool) -> tuple[TrainBatch, list[Piece]]:
    """Two sequences of three documents and one, and their pieces."""
    tokens = torch.randint(0, EOT, (2, 25), generator=torch.Generator().manual_seed(1))
    tokens[0, [7, 8]] = tokens[1, 0] = EOT  # a document of one token, too
    inputs = tokens[:, :-1]
    given = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(2)) if weights else None
    pieces = [Piece(0, 0, 7), Piece(0, 7, 8), Piece(0, 8, 24), Piece(1, 0, 24)]
    return TrainBatch(inputs, tokens[:, 1:], given, document_starts(inputs, EOT)), pieces


@pytest.mark.parametrize("preset", ["gpt-j", "gpt2", "smollm2-135m"])
@pytest.mark.parametrize("weights", [False, True])
def test_each_gradient_is_that_of_a_backward_pass_for_its_document_alone(preset, weights):
    config: GPTConfig = adapted(preset, SMALL | ({"n_kv_head": 1} if preset.startswith("smollm") else {}), "test")
    model, (batch, pieces) = new_model(config, seed=0), batch_of(weights)
    nats = F.cross_entropy(
        model(batch.inputs, document_start=batch.starts).transpose(1, 2), batch.targets, reduction="none"
    )
    nats = nats if batch.weights is None else nats * batch.weights
    parameters = dict(model.named_parameters())
    expected = [
        torch.autograd.grad(
            nats[one.row, one.first : one.end].sum(), [parameters[name] for name in matrices(model)], retain_graph=True
        )
        for one in pieces
    ]
    sides = whole(model)
    for found, alone in zip(ProjectedGradients(model, sides, "float32")(batch, pieces), expected, strict=True):
        for ours, theirs in zip(found, alone, strict=True):
            torch.testing.assert_close(ours[: theirs.shape[0], : theirs.shape[1]], theirs, rtol=1e-4, atol=1e-5)
            assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("K", [8, 16, 32])
def test_projections_keep_inner_products_within_twice_one_over_the_root_of_their_size(K):
    draw = torch.Generator().manual_seed(3)
    for rank in (1, 4, 64):  # of sums over so many tokens
        a, b = (torch.randn(96, rank, generator=draw) @ torch.randn(rank, 64, generator=draw) for _ in range(2))
        b = a + b
        products = []
        for seed in range(60):
            left, right = random_rows(K, 96, f"{seed} left"), random_rows(K, 64, f"{seed} right")
            products.append(((left @ a @ right.T) * (left @ b @ right.T)).sum())
        errors = (torch.stack(products) - (a * b).sum()) / (a.norm() * b.norm())
        spread = float(errors.square().mean().sqrt())
        assert spread < 2 / K**0.5 and abs(float(errors.mean())) < 4 * spread / 60**0.5
