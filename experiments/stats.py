"""What a study may claim: intervals by document and by seed, the noise floor, and the power of a design.

Documents of equal parts are resampled in pairs: both sides of a comparison are measured on the same ones (Koehn 2004).
The interval by seed is Student's t of the seeds' means. A difference is claimed where neither interval holds zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.evals.estimates import t_quantile

DRAWS = 4000
Line = Mapping[str, Any]
"""A recorded run."""
SECOND_PERSON = """Of the pairs of single runs, one of each side, the share that agrees in the sign says how often a
second person with one other seed a side would find the same direction; the rest would conclude otherwise.
"""
"""What every page says beside its differences."""


@dataclass(frozen=True)
class Difference:
    """How much one side of a comparison is above the other."""

    value: float
    by_document: tuple[float, float]
    """95 % interval over documents."""
    by_seed: tuple[float, float]
    """95 % interval over seeds; from minus to plus infinity where there are too few."""
    agreeing: float
    """The share of all pairs of single runs, one of each side, that differ in the same direction."""

    @property
    def claimed(self) -> int:
        """1 where it is above zero in both intervals, -1 where it is below, else 0."""
        low, high = min(self.by_document[0], self.by_seed[0]), max(self.by_document[1], self.by_seed[1])
        return 1 if low > 0 else -1 if high < 0 else 0

    def __str__(self) -> str:
        spans = (f"{low:+.4f} to {high:+.4f}" for low, high in (self.by_document, self.by_seed))
        return f"{self.value:+.4f} ({'; '.join(spans)}; {100 * self.agreeing:.0f} % agree)"


def matrices(runs: Sequence[Line], components: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bits of each document in each run (runs x documents), and the bytes of the documents."""
    bits = [[value for name in components for value, _ in run["documents"][name]] for run in runs]
    size = [n_bytes for name in components for _, n_bytes in runs[0]["documents"][name]]
    return np.array(bits), np.array(size, dtype=float)


def bits_per_byte(run: Line, components: Iterable[str]) -> float:
    """All bits of a run over all bytes."""
    bits, size = matrices([run], components)
    return float(bits.sum() / size.sum())


def difference(one: Sequence[Line], other: Sequence[Line], components: Sequence[str]) -> Difference:
    """The bits per byte of the mean of some runs less those of others."""
    (first, size), (second, _) = matrices(one, components), matrices(other, components)
    return compared(first, second, size)


def compared(
    first: NDArray[np.float64], second: NDArray[np.float64], size: NDArray[np.float64], exact: bool = False
) -> Difference:
    """The mean of some runs less that of others: sums over documents (runs x documents) over sums of their sizes.
    `exact` is that of `by_seed`."""
    gap = first.mean(0) - second.mean(0)
    chosen = np.random.default_rng(0).multinomial(len(gap), np.full(len(gap), 1 / len(gap)), DRAWS)
    low, high = np.percentile(chosen @ gap / (chosen @ size), [2.5, 97.5])
    of_runs = [values.sum(1) / size.sum() for values in (first, second)]
    seeds = by_seed(*of_runs, exact=exact)
    return Difference(float(gap.sum() / size.sum()), (float(low), float(high)), seeds, agreeing(*of_runs))


def by_seed(
    one: Sequence[float] | NDArray, other: Sequence[float] | NDArray, *, exact: bool = False
) -> tuple[float, float]:
    """The 95 % interval of a difference of means over seeds, with a common variance. With `exact`, a side of one value
    is a model that no seed changes, such as one that was not trained; without, it is one draw as others are."""
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    groups = [group for group in (a, b) if len(group) > 1]
    if not groups:
        return (-float("inf"), float("inf"))
    free = sum(len(group) - 1 for group in groups)
    pooled = sum(group.var(ddof=1) * (len(group) - 1) for group in groups) / free
    drawn = groups if exact else (a, b)
    half = t_quantile(free) * float(np.sqrt(pooled * sum(1 / len(group) for group in drawn)))
    centre = float(a.mean() - b.mean())
    return (centre - half, centre + half)


def agreeing(one: Iterable[float], other: Iterable[float]) -> float:
    """The share of all pairs of values, one of each side, whose difference has the sign of most."""
    signs = [np.sign(a - b) for a, b in product(one, other)]
    return max(signs.count(1), signs.count(-1)) / len(signs)


def detectable(sd: float, seeds: int, power: float = 0.8) -> float:
    """The smallest difference between two points of so many seeds each that a t-test at 5 % finds with a power, by
    simulation."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 20_000, seeds))
    spread = np.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)) / seeds)
    gap, needed = first.mean(1) - second.mean(1), t_quantile(2 * seeds - 2) * spread
    # Found where |gap + effect| > needed; the share that is found grows with the effect.
    effects = np.linspace(0, 12, 601)
    found = [(np.abs(gap + effect) > needed).mean() for effect in effects]
    return float(sd * effects[np.searchsorted(found, power)])


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of equal runs; not a number where there are fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def noise_floor(noise: Sequence[float], seeds: int, form: str = ".4f") -> str:
    """In words, how much equal runs differ, and the least difference that points of so many seeds find."""
    if len(noise) < 2:
        return f"{len(noise)} equal runs were done, too few to say how much they differ"
    sd = deviation(noise)
    return (
        f"{len(noise)} equal runs have a standard deviation of {sd:{form}}; {seeds} seeds a side find a difference of "
        f"{detectable(sd, seeds):{form}}"
    )


def spread(values: Sequence[float]) -> str:
    """A mean and the range."""
    if not values:
        return "not run"
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def crossing(sizes: Sequence[float], gaps: Sequence[float]) -> float | None:
    """The size from which a gap is no longer above zero, interpolated in its logarithm; None where it is not above zero
    at first, or always is."""
    for (a, x), (b, y) in pairwise(zip(sizes, gaps, strict=True)):
        if x <= 0:
            return None
        if y <= 0:
            return float(np.exp(np.log(a) + (np.log(b) - np.log(a)) * x / (x - y)))
    return None
