"""Figures and intervals equal scipy's (1.18), the formulas written out, and what simulation gives."""

import math
import random

import numpy as np
import pytest

from bluejay.evals import estimates
from bluejay.evals.evaluate import Settings, evaluate
from bluejay.evals.scorers import LocalScorer
from bluejay.evals.tasks import Continuation, Question, Task, by_choice

ONE, OTHER = [0.1, 0.4, 0.35, 0.8, 0.9, 0.2], [0.2, 0.3, 0.3, 0.6, 0.7, 0.3]


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [
        (1, 12.7062047),
        (2, 4.3026527),
        (3, 3.1824463),
        (4, 2.7764451),
        (7, 2.3646243),
        (20, 2.0859634),
        (1000, 1.9623391),
    ],
)
def test_quantiles_are_those_of_students_distribution(degrees, quantile):
    assert estimates.t_quantile(degrees) == pytest.approx(quantile, rel=0.002)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 20, 0.0, 0.1611252), (19, 20, 0.7638688, 0.9911186), (3, 50, 0.020615, 0.1621709), (50, 50, 0.9286524, 1.0)],
)
def test_proportions_near_0_and_1_get_wilsons_interval(successes, n, low, high):
    found = estimates.mean([1.0] * successes + [0.0] * (n - successes), share=True)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert (found.value, found.n) == (successes / n, n)


@pytest.mark.parametrize("rest", [[], [1.0], [0.05], [0.05] * 4, [0.3, 0.95]])
def test_shares_near_0_have_no_narrower_interval_than_none_right(rest):
    """Nor near 1: pass@k of a problem may be anything between."""
    scores = [*rest, *[0.0] * (68 - len(rest))]
    none, found = (estimates.mean(some, share=True) for some in ([0.0] * 68, scores))
    assert 0 <= found.low <= found.value <= found.high and found.high >= none.high - 1e-9
    mirrored = estimates.mean([1 - one for one in scores], share=True)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))
    by_group = estimates.macro(scores, ["a"] * 34 + ["b"] * 34, share=True)
    assert (by_group.low, by_group.high) == pytest.approx((found.low, found.high))
    pair, equal = (estimates.difference(some, [0.0] * 68, share=True) for some in (scores, [0.0] * 68))
    assert pair.high - pair.low >= equal.high - equal.low and not (pair.clear and sum(rest) < 1)
    few = estimates.mean([1.0, 0.5], share=True)
    assert 0 < few.low < 0.75 < few.high <= 1


def test_numbers_that_happen_to_be_0_and_1_are_no_shares():
    """As the lengths of the longest copies in texts, or the nats by which two models differ."""
    lengths = [1.0] * 17 + [0.0] * 3
    assert estimates.mean(lengths).high > 1 and estimates.macro(lengths, ["a"] * 10 + ["b"] * 10).high > 1
    pair = estimates.difference([2.0, *lengths], [2.0] * 21)
    assert pair.high - pair.value == pytest.approx(pair.value - pair.low)


def test_equal_answers_count_by_clusters():
    """Of which they do not tell how alike the answers within are."""
    documents = [number // 4 for number in range(400)]
    found = estimates.mean([0.0] * 400, documents, share=True)
    assert (found.low, found.high) == estimates.wilson(0.0, 100.0)
    pair = estimates.difference([1.0] * 400, [1.0] * 400, documents, share=True)
    assert (pair.low, pair.high) == estimates.paired(0.0, 0.0, 100.0)


def test_a_mean_has_scipys_interval():
    found = estimates.mean(ONE)
    assert found.error == pytest.approx(0.1319195883, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((0.1192232, 0.7974434), abs=2e-4)


def test_a_mean_in_clusters_has_the_error_written_out():
    # Means 0.5: the sums of deviations are 1 in the first cluster of two and -1 in the second.
    found = estimates.mean([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    assert found.error == pytest.approx(math.sqrt(2 / 1 * (1 + 1)) / 4)
    assert found.clusters == 2 and found.n == 4
    apart = estimates.mean(ONE * 20)
    assert estimates.mean(ONE * 20, list(range(120))) == apart
    assert estimates.mean(ONE * 20, [number % 6 for number in range(120)]).error > 3 * apart.error


def test_a_mean_over_subjects_counts_each_subject_alike():
    values, subjects = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0], ["law", "law", "law", "law", "art", "art"]
    found = estimates.macro(values, subjects)
    variance = (3 * 0.25**2 + 0.75**2) / 4  # within law alone: all of art are 0
    assert found.value == pytest.approx((0.75 + 0.0) / 2) and (found.n, found.clusters) == (6, 2)
    assert found.error == pytest.approx(math.sqrt(variance * (1 / 4 + 1 / 2)) / 2)
    assert math.isnan(estimates.macro([1.0, 0.0], ["law", "art"]).error)  # one question of each says nothing
    pair = estimates.difference(values, [0.0] * 6, subjects, by_group=True)
    assert (pair.value, pair.error) == (found.value, found.error)


def test_the_interval_of_a_mean_over_subjects_covers_the_truth():
    chance, sizes, shares = random.Random(5), (5, 20, 80), (0.2, 0.5, 0.7)
    subjects = [number for number, size in enumerate(sizes) for _ in range(size)]
    inside = 0
    for _ in range(400):
        right = [float(chance.random() < shares[subject]) for subject in subjects]
        found = estimates.macro(right, subjects, share=True)
        inside += found.low <= sum(shares) / 3 <= found.high
    assert 0.92 <= inside / 400 <= 0.99


def test_a_difference_has_the_interval_of_the_paired_t_test():
    found = estimates.difference(ONE, OTHER)
    assert (found.low, found.high) == pytest.approx((-0.0840835, 0.2007502), abs=2e-4)
    assert found.correlation == pytest.approx(0.9748227170, abs=1e-9)
    assert not found.clear and estimates.difference([2.0, 2.1, 2.2], [1.0, 1.1, 1.2]).value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ([1] * 4 + [0] * 96, [0] * 100, -0.003072, 0.081504),
        ([0] * 164, [0] * 164, -0.011807, 0.011807),
        ([1, 1], [0, 0], -0.192952, 1.0),
    ],
)
def test_models_that_few_questions_set_apart_have_an_interval_of_agresti_and_min(one, other, low, high):
    found = estimates.difference(one, other, share=True)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5) and not found.clear
    assert found.value == pytest.approx(np.mean(one) - np.mean(other))
    pairs = [number // 2 for number in range(len(one))]
    by_group = estimates.difference(one, other, pairs, by_group=True, share=True)
    assert by_group.low < by_group.value < by_group.high or by_group.high == 1


def test_few_wrong_answers_over_subjects_leave_room_for_more():
    found = estimates.macro([1.0] * 40, ["law"] * 20 + ["art"] * 20, share=True)
    assert (found.low, found.high) == pytest.approx(estimates.wilson(1.0, 40.0))


def test_alike_questions_widen_the_interval_of_few_differences():
    one, other = [1.0] * 4 + [0.0] * 36, [0.0] * 40
    apart = estimates.difference(one, other, share=True)
    together = estimates.difference(one, other, [number // 4 for number in range(40)], share=True)
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_bits_per_byte_is_a_ratio_of_sums():
    bits, sizes = [10.0, 30.0, 20.0], [10.0, 20.0, 30.0]
    found = estimates.ratio(bits, sizes)
    # r = 1; the residuals are 0, 10 and -10: sqrt(3 / 2 * 200) / 60.
    assert found.value == 1.0 and found.error == pytest.approx(math.sqrt(300) / 60)
    paired = estimates.ratio_difference(bits, [bit - size / 10 for bit, size in zip(bits, sizes, strict=True)], sizes)
    assert paired.value == pytest.approx(0.1) and paired.error == pytest.approx(0, abs=1e-12) and paired.clear


def test_intervals_cover_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(5)
    covered = {"mean": 0, "ratio": 0}
    for _ in range(400):
        cluster = np.repeat(np.arange(30), 4)
        values = draw.normal(0.3, 1, 30)[cluster] + draw.normal(0, 1, 120)
        found = estimates.mean(values, cluster.tolist())
        covered["mean"] += found.low <= 0.3 <= found.high
        sizes = draw.integers(100, 1000, 60)
        found = estimates.ratio(sizes * draw.normal(1.2, 0.3, 60), sizes)
        covered["ratio"] += found.low <= 1.2 <= found.high
    assert all(0.91 < count / 400 < 0.985 for count in covered.values()), covered


def test_the_interval_of_a_share_of_parts_near_1_covers_the_truth():
    draw = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        sizes = draw.integers(30, 70, 20)
        new = draw.binomial(sizes, draw.beta(0.999 * 30, 0.001 * 30, 20))  # the n-grams of a text are alike
        found = estimates.ratio(new, sizes, share=True)
        assert 0 <= found.low < found.value <= found.high <= 1
        covered += found.low <= 0.999 <= found.high
    assert covered > 0.91 * 200
    # Of 20 texts that are new as a whole, as of 20 answers that are right.
    whole = estimates.ratio([50] * 20, [50] * 20, share=True)
    assert (whole.low, whole.high) == pytest.approx(estimates.wilson(1.0, 20))
    # Where both kinds are many, it is that of a ratio.
    sizes, new = [10, 20, 30] * 20, [4, 12, 15] * 20
    same = estimates.ratio(new, sizes)
    assert estimates.ratio(new, sizes, share=True) == same


def test_what_has_no_figure_is_refused():
    with pytest.raises(ValueError, match="no figure without questions"):
        estimates.mean([])
    with pytest.raises(ValueError, match="no figure without text"):
        estimates.ratio([], [])


def test_an_interval_over_a_thousand_questions_is_six_points_wide():
    draw = random.Random(3)
    values = [float(draw.random() < 0.5) for _ in range(1000)]
    assert estimates.mean(values).high - estimates.mean(values).low == pytest.approx(0.062, abs=0.001)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order_and_its_interval_covers():
    """Equal to counting pairs, and to the area that two normal distributions have in 95 of 100 draws."""
    one, other = [3.0, 1.0, 2.0, 2.0], [2.0, 0.0, 1.0]
    pairs = [(a > b) + (a == b) / 2 for a in one for b in other]
    found = estimates.auc(one, other)
    assert found.value == pytest.approx(sum(pairs) / 12) and found.n == 7
    rng, covered, clustered = np.random.default_rng(1), 0, 0
    truth = 0.5 * (1 + math.erf(0.5 / math.sqrt(2) / math.sqrt(2)))  # a mean of 0.5 above
    for _ in range(60):
        a, b = rng.normal(0.5, 1, 60), rng.normal(0, 1, 50)
        covered += (plain := estimates.auc(a, b)).low <= truth <= plain.high
        documents = [str(i // 5) for i in range(50)]
        alike = np.repeat(rng.normal(0, 1, 10), 5)  # all five of a document have one value
        by_document = estimates.auc(a, alike, (None, documents))
        clustered += by_document.low <= truth <= by_document.high
        assert by_document.clusters == 70
    assert 53 <= covered <= 60 and 50 <= clustered <= 60
    with pytest.raises(ValueError, match="both kinds"):
        estimates.auc([1.0], [])


@pytest.mark.parametrize(
    ("above", "below", "value", "interval"),
    [
        ([3, 4, 5, 6, 7], [1, 2, 2, 1, 0], 1.0, (0.566, 1.0)),
        ([3, 4], [1, 1, 0], 1.0, (0.342, 1.0)),
        ([0] * 5, [1] * 9, 0.0, (0.0, 0.434)),
        ([1] * 5, [1] * 5, 0.5, (0.170, 0.830)),
        ([3, 4, 5, 6, 1.5], [1, 2, 2, 1, 0], 0.92, (0.482, 0.993)),  # two pairs of 25 out of order
        (range(100, 200), range(100), 1.0, (0.963, 1.0)),
    ],
)
def test_the_interval_of_an_area_of_few_texts_or_near_0_and_1_is_wilsons(above, below, value, interval):
    found = estimates.auc(list(above), list(below))
    assert found.value == pytest.approx(value) and (found.low, found.high) == pytest.approx(interval, abs=1e-3)
    documents = [number // 5 for number in range(len(below))]
    wider = estimates.auc(list(above), list(below), (None, documents))
    assert wider.high - wider.low >= found.high - found.low


def test_the_difference_of_two_means_is_welchs():
    """scipy.stats.ttest_ind(ONE, OTHER, equal_var=False).confidence_interval()."""
    found = estimates.unpaired(estimates.mean(ONE), estimates.mean(OTHER))
    assert found.value == pytest.approx(np.mean(ONE) - np.mean(OTHER)) and found.n == 12
    assert (found.low, found.high) == pytest.approx((-0.2969008, 0.4135675), rel=0.003)


def test_equal_questions_are_one_cluster(tiny_model, tmp_path):
    """A test set in which each question stands five times tells no more than that without the copies."""
    asked = [tuple(Continuation(f"Q{n}", text) for text in (" a", " b")) for n in range(12)]
    questions = [Question(f"{n}", one, n % 2, choices=("a", "b")) for n, one in enumerate(asked)]
    tasks = [Task(f"{n}", lambda _, n=n: iter(questions * n), by_choice, "bits_per_byte") for n in (1, 5)]
    alone, copied = evaluate([LocalScorer(tiny_model, "tiny", "1")], tasks, Settings(), tmp_path).results
    assert (alone.main.clusters, copied.main.clusters, copied.main.n) == (12, 12, 60)
    assert (copied.main.low, copied.main.high) == pytest.approx((alone.main.low, alone.main.high))
