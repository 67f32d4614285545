"""A loss surface over weights N and tokens D, L = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, arXiv 2203.15556,
section 3.3), by least squares: alpha and beta from a grid, and for each pair of them the best E, A and B, none of which
may be negative.

Intervals come from fits to losses that are drawn again: the documents with replacement, the same for all runs, and for
each run a seed's noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.arange(0.02, 1.501, 0.02)
MILLION = 1e6

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """A fitted surface, of weights and tokens in millions."""

    floor: float
    """E: the loss of a model without end that read text without end."""
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, weights: float, tokens: float) -> float:
        """The loss of so many weights and tokens."""
        return float(
            self.floor + self.a * (weights / MILLION) ** -self.alpha + self.b * (tokens / MILLION) ** -self.beta
        )

    def best_weights(self, compute: float) -> float:
        """The weights with the lowest loss among all N and D that take so many floating-point operations, 6 N D."""
        product = compute / 6 / MILLION**2
        ratio = self.alpha * self.a / (self.beta * self.b) * product**self.beta
        return float(MILLION * ratio ** (1 / (self.alpha + self.beta)))


def fitted(weights: Sequence[float], tokens: Sequence[float], losses: NDArray[np.float64]) -> list[Surface]:
    """The surface of each row of losses (draws x runs) that has one: a row is left out where no exponents fit it with
    E, A and B above 0. Raises ValueError: there are fewer than five runs."""
    if len(weights) < 5:
        raise ValueError(f"a surface has five parameters; there are {len(weights)} runs")
    alphas, betas = (grid.ravel() for grid in np.meshgrid(EXPONENTS, EXPONENTS))
    n, d = (np.asarray(values, dtype=float) / MILLION for values in (weights, tokens))
    terms = np.stack(np.broadcast_arrays(1.0, n ** -alphas[:, None], d ** -betas[:, None]), axis=-1)
    inverse = np.linalg.pinv(terms)
    found: list[Surface] = []
    for row in losses:
        coefficients = inverse @ row
        residual = ((terms @ coefficients[..., None])[..., 0] - row) ** 2
        error = np.where((coefficients > 0).all(1), residual.sum(1), np.inf)
        best = int(error.argmin())
        if not np.isfinite(error[best]):
            continue
        floor, a, b = coefficients[best]
        found.append(Surface(float(floor), float(a), float(alphas[best]), float(b), float(betas[best])))
    return found


def drawn(bits: NDArray[np.float64], size: Vector, noise: float, draws: int) -> NDArray[np.float64]:
    """Losses in bits per byte (draws x runs) of documents drawn again, from the bits of all runs (runs x documents) and
    the bytes of the documents, with the standard deviation of a seed added."""
    random = np.random.default_rng(0)
    chosen = random.multinomial(len(size), np.full(len(size), 1 / len(size)), draws)
    return chosen @ bits.T / (chosen @ size)[:, None] + random.normal(0, noise, (draws, len(bits)))
