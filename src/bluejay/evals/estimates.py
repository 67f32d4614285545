"""Figures with intervals: means, proportions, ratios, and differences of two models (docs/evaluation.md).

Every interval covers the true value with 95 % probability over the questions that might have been asked.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Z = 1.959963984540054
"""Standard deviations on either side of the mean of a normal distribution that hold 95 % of it."""
FEW = 100
"""Below this many questions, and near 0 and 1, a proportion gets Wilson's interval."""
RARE = 10
"""With fewer right answers, wrong ones or questions that two models differ on, the variance is not known from them."""


def shown(value: float | None, form: str = ".4g") -> str:
    """A number as text; a dash where there is none, because the questions were too few."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def span(low: float | None, high: float | None, form: str = ".4g") -> str:
    """An interval as text; a dash where the questions were too few for one."""
    ends = shown(low, form), shown(high, form)
    return "-" if "-" in ends else " to ".join(ends)


@dataclass(frozen=True)
class Estimate:
    """A figure with the number of questions it comes from and its interval."""

    value: float
    low: float
    high: float
    error: float
    """Standard error."""
    n: int
    """Number of questions, documents or problems."""
    clusters: int
    """Number of groups within which they may be alike, such as the questions of one passage."""

    def __str__(self) -> str:
        return f"{self.value:.4g} ({span(self.low, self.high)}, n = {self.n})"

    @property
    def share(self) -> "Estimate":
        """The estimate as that of a share: its interval ends at 0 and at 1, beyond which no share is."""
        return replace(self, low=max(0.0, self.low), high=min(1.0, self.high))


@dataclass(frozen=True)
class Difference(Estimate):
    """By how much one model's figure exceeds another's on the same questions."""

    correlation: float
    """Correlation of the two models' scores, which is what the comparison in pairs gains by."""

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def t_quantile(degrees: int | float) -> float:
    """The value that Student's t exceeds in absolute value with 5 % probability.

    Exact for 1 and 2 degrees of freedom, by Fisher's expansion within 0.2 % from 3 (Abramowitz and Stegun, 26.7.5).
    """
    if degrees == 1:
        return math.tan(math.pi * LEVEL / 2)
    if degrees == 2:
        return LEVEL * math.sqrt(2 / (1 - LEVEL**2))
    z, n = Z, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def cluster_sums(values: NDArray[np.float64], clusters: Sequence[Hashable] | None) -> NDArray[np.float64]:
    """The sum of the values in each cluster; without clusters each value is its own."""
    if clusters is None:
        return values
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    return np.bincount(index, values, len(numbers)).astype(np.float64)


def mean(values: ArrayLike, clusters: Sequence[Hashable] | None = None, share: bool = False) -> Estimate:
    """The mean, with a standard error that counts the values of a cluster as dependent (arXiv 2411.00640, appendix A)
    and an interval by Student's t.

    `share` says that the values are shares from 0 to 1, such as whether an answer is right, or pass@k: no interval then
    leaves 0 to 1. Near 0 and 1, and of few questions whose values are all 0 or 1, it is Wilson's instead, which is too
    wide for values in between rather than too narrow. Raises ValueError: there are no values.
    """
    scores = np.asarray(values, np.float64)
    n = len(scores)
    if not n:
        raise ValueError("there is no figure without questions")
    value = float(scores.mean())
    found = with_error(value, cluster_sums(scores - value, clusters), float(n), n)
    if not share:
        return found
    proportion, rare = np.isin(scores, (0.0, 1.0)).all(), min(scores.sum(), n - scores.sum()) < RARE
    if rare or (proportion and n < FEW):
        low, high = wilson(value, independent(scores, found.error, found.clusters))
        found = replace(found, low=low, high=high)
    return found.share


def independent(values: NDArray[np.float64], error: float, clusters: int) -> float:
    """How many independent values would have the standard error that was found by clusters; at most as many as there
    are, and as many as there are clusters where all values are equal, which tell nothing of that."""
    n = len(values)
    alone = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return n * min(1.0, (alone / error) ** 2) if error > 0 else float(clusters)


def macro(values: ArrayLike, groups: Sequence[Hashable], share: bool = False) -> Estimate:
    """The mean over groups, such as the subjects of MMLU, of the mean in each.

    The groups are fixed and the questions in each are drawn, so the error is that of a stratified mean, with one
    variance for all groups because `--limit` may leave a single question of some. Where the values are shares
    (`share`), no interval leaves 0 to 1, and near 0 and 1 it is Wilson's. Raises ValueError: no values.
    """
    scores = np.asarray(values, np.float64)
    if not len(scores):
        raise ValueError("there is no figure without questions")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    counts = np.bincount(index)
    means = np.bincount(index, scores) / counts
    value, n, degrees = float(means.mean()), len(scores), len(scores) - len(means)
    if not degrees:
        return Estimate(value, math.nan, math.nan, math.nan, n, len(means))
    variance = float(((scores - means[index]) ** 2).sum()) / degrees
    error = math.sqrt(variance * float((1 / counts).sum())) / len(means)
    half = t_quantile(degrees) * error
    low, high = value - half, value + half
    if share and min(scores.sum(), n - scores.sum()) < RARE:
        low, high = wilson(value, of_groups(counts))
    found = Estimate(value, low, high, error, n, len(means))
    return found.share if share else found


def of_groups(counts: NDArray[np.int64]) -> float:
    """The number of questions whose plain mean would have the variance of the mean over groups of these sizes."""
    return len(counts) ** 2 / float((1 / counts).sum())


def wilson(value: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a proportion `value` of `n` trials (Wilson 1927)."""
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    return max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))  # 0 and 1 despite rounding


def relative_risk(one: int, n: int, other: int, m: int) -> tuple[float, float, float]:
    """The ratio of the proportions `one` of `n` and `other` of `m`, and its interval by the logarithm (Katz 1978), with
    half a success and half a failure added to each, so that it exists near 0 and 1. Trials count as independent."""
    a, b, c, d = one + 0.5, n + 1.0, other + 0.5, m + 1.0
    value = math.log(a / b) - math.log(c / d)
    half = Z * math.sqrt(1 / a - 1 / b + 1 / c - 1 / d)
    return math.exp(value), math.exp(value - half), math.exp(value + half)


def ratio(
    above: ArrayLike, below: ArrayLike, clusters: Sequence[Hashable] | None = None, share: bool = False
) -> Estimate:
    """The ratio of two sums over documents, such as bits and bytes, with the standard error of a ratio that is
    estimated from a sample (Cochran 1977, section 2.11).

    `share` says that the sum above is a part of that below, such as the n-grams that are new: no interval then leaves
    0 to 1, and where fewer than ten are of one kind, as they would be if they were independent, it is Wilson's. Raises
    ValueError: the sum below is 0.
    """
    numerator, denominator = np.asarray(above, np.float64), np.asarray(below, np.float64)
    total = float(denominator.sum())
    if not total:
        raise ValueError("there is no figure without text")
    value = float(numerator.sum()) / total
    found = with_error(value, cluster_sums(numerator - value * denominator, clusters), total, len(numerator))
    if not share:
        return found
    known = found.error > 0  # where all documents are alike, they tell nothing of how dependent their parts are
    trials = min(total, value * (1 - value) / found.error**2) if known else float(found.clusters)
    if min(value, 1 - value) * trials < RARE:
        low, high = wilson(value, trials)
        found = replace(found, low=low, high=high)
    return found.share


def with_error(value: float, residuals: NDArray[np.float64], total: float, n: int) -> Estimate:
    """An estimate whose error is that of the sum of the clusters' residuals over a total."""
    c = len(residuals)
    error = math.sqrt(c / (c - 1) * float((residuals**2).sum())) / total if c > 1 else math.nan
    half = t_quantile(c - 1) * error if c > 1 else math.nan
    return Estimate(value, value - half, value + half, error, n, c)


def difference(
    one: ArrayLike,
    other: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    by_group: bool = False,
    share: bool = False,
) -> Difference:
    """The mean of the differences of two models' scores on the same questions; `by_group`, that of `macro`.

    Where the scores are shares (`share`), such as whether an answer is right, and the models differ by less than ten
    questions, the interval is that of `paired`.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    d = a - b
    sides = np.maximum(d, 0.0), np.maximum(-d, 0.0)
    if by_group and clusters is not None:
        found = macro(d, clusters)
        n = of_groups(np.unique(np.asarray(clusters), return_counts=True)[1])
        up, down = (macro(side, clusters).value for side in sides)
    else:
        value = float(d.mean())
        found = with_error(value, cluster_sums(d - value, clusters), float(len(d)), len(d))
        n, (up, down) = independent(d, found.error, found.clusters), (float(side.mean()) for side in sides)
    if share and np.abs(d).sum() < RARE:
        low, high = paired(up, down, n)
        found = replace(found, low=low, high=high)
    elif share:
        found = replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))
    return Difference(**vars(found), correlation=correlation(a, b))


def paired(up: float, down: float, n: float) -> tuple[float, float]:
    """The interval of the difference of two proportions of the same `n` questions, of which the first alone is right in
    a share `up` and the second alone in a share `down`, with half a question added to each of the four kinds (Agresti
    and Min 2005)."""
    b, c, m = up * n + 0.5, down * n + 0.5, n + 2
    value, half = (b - c) / m, Z * math.sqrt(b + c - (b - c) ** 2 / m) / m
    return max(-1.0, value - half), min(1.0, value + half)


def ratio_difference(
    one: ArrayLike, other: ArrayLike, below: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Difference:
    """The difference of two models' ratios over the same documents, such as bits per byte."""
    a, b, denominator = (np.asarray(values, np.float64) for values in (one, other, below))
    found = ratio(a - b, denominator, clusters)
    return Difference(**vars(found), correlation=correlation(a, b))


def unpaired(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two figures that come from different texts, with Welch's degrees of freedom (Welch 1947)."""
    a, b = one.error**2, other.error**2
    error = math.sqrt(a + b)
    degrees = (a + b) ** 2 / (a**2 / max(1, one.clusters - 1) + b**2 / max(1, other.clusters - 1)) if error > 0 else 1
    half = t_quantile(degrees if degrees >= 3 else max(1, int(degrees))) * error if math.isfinite(error) else math.nan
    value = one.value - other.value
    return Estimate(value, value - half, value + half, error, one.n + other.n, one.clusters + other.clusters)


def auc(
    positive: ArrayLike,
    negative: ArrayLike,
    clusters: tuple[Sequence[Hashable] | None, Sequence[Hashable] | None] = (None, None),
) -> Estimate:
    """The probability that a value of the first kind exceeds one of the second, where equal ones count half: the area
    under the ROC curve, with DeLong's variance (DeLong et al. 1988), within each kind by clusters (Obuchowski 1997).

    That is too small of few values and near 0 and 1. There, as in `mean`, the interval is Wilson's of a share of as
    many trials as the smaller kind has clusters, whose variance is an upper bound (van Dantzig 1951). Raises
    ValueError: a kind has no values.
    """
    a, b = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(a) or not len(b):
        raise ValueError("there is no figure without texts of both kinds")
    above, below = mean(placements(a, b), clusters[0]), mean(1 - placements(b, a), clusters[1])
    value, error = above.value, math.hypot(above.error, below.error)
    low, high, trials = value - Z * error, value + Z * error, float(min(above.clusters, below.clusters))
    if min(value, 1 - value) * trials < RARE:
        low, high = wilson(value, trials)
    return Estimate(value, max(0.0, low), min(1.0, high), error, len(a) + len(b), above.clusters + below.clusters)


def placements(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value the share of `others` below it, where equal ones count half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return sides / (2 * len(ordered))


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's correlation; not a number where one of the two is constant."""
    if len(one) < 2 or not one.std() or not other.std():
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])
