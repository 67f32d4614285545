"""The projections of a model's matrices, with the correction of the optimizer that trained it.

AdamW divides a gradient by the square root of its second moment V, so the product of two gradients that says how much
one moves the other is that of V^-1/4 times each. V is taken as the outer product of the means of its rows and columns
(Adafactor, arXiv 1804.04235, section 3, as TrackStar does, arXiv 2410.17413, section 4.2), which the two sides of the
projection then hold. Muon multiplies the momentum M by (M M^T)^-1/4 and (M^T M)^-1/4 from its sides (Jordan 2024), of
which each gradient takes the square root.
"""

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.gpt.model import GPT
from bluejay.trace.influence.gradients import Sides, matrices

DAMPING = 0.1
"""A second moment of no row is below this share of the mean one: a token that was not seen of late has almost none."""


def projections(model: GPT, optimizer: torch.optim.Optimizer, K: int, seed: int = 0) -> dict[str, Sides]:
    """Random projections of all matrices to K x K numbers, corrected. They preserve inner products of corrected
    gradients on average, exactly where a side has at most K dimensions."""
    found, parameters = {}, dict(model.named_parameters())
    for name, (rows, columns) in matrices(model).items():
        left, right = random_rows(K, rows, f"{seed}/{name}/left"), random_rows(K, columns, f"{seed}/{name}/right")
        found[name] = corrected(Sides(left, right), optimizer.state[parameters[name]])
    return found


def random_rows(K: int, size: int, key: str) -> Float[Tensor, "K size"]:
    """K random orthogonal directions of a space of `size` dimensions, scaled so that inner products are preserved on
    average; all dimensions, and rows of zeros, where there are no more than K."""
    if size <= K:
        return torch.eye(K, size)
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
    drawn = torch.randn(size, K, generator=torch.Generator().manual_seed(number))
    return torch.linalg.qr(drawn).Q.T * (size / K) ** 0.5


def corrected(sides: Sides, state: Mapping[str, Tensor]) -> Sides:
    """Sides that also apply the correction of the optimizer with this state of a matrix."""
    if "exp_avg_sq" in state:
        moment = state["exp_avg_sq"].float()
        mean = moment.mean()
        factors = [(part / mean + DAMPING) ** -0.25 * mean**-0.125 for part in (moment.mean(1), moment.mean(0))]
        found = Sides(sides.left * factors[0], sides.right * factors[1])
    else:
        momentum = state["momentum_buffer"].float()
        found = Sides(
            sides.left @ inverse_eighth_root(momentum @ momentum.T),
            sides.right @ inverse_eighth_root(momentum.T @ momentum),
        )
    finite = found.left.isfinite().all() and found.right.isfinite().all()
    return found if finite else sides  # of a matrix that was never updated


def inverse_eighth_root(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The power -1/8 of a positive semidefinite matrix, damped."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * (values.clamp(min=0) + DAMPING * values.clamp(min=0).mean()) ** -0.125) @ vectors.T
