"""What studies claim: intervals that cover, differences that are claimed only where both allow it, pages that say what
their results say."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import check
import data_mix
import narrow
import scaling
import specialist
import study
from stats import Difference, by_seed, compared, crossing, detectable, difference
from surface import Surface, fitted

from bluejay.train.data.order import Order, phases
from bluejay.train.recipe import Mixture

DOCUMENTS = 40


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch) -> Path:
    """Folders of their own for results and pages."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    for module in (study, check):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(check.nano, "PAGE", tmp_path / "docs" / "nano.md")
    return tmp_path


def line(name: str, seed: int, level: float, components: list[str] | tuple[str, ...]) -> dict:
    """A made-up run whose documents take about `level` bits per byte, the same documents in every run."""
    random, documents = np.random.default_rng(abs(hash((0, seed))) % 2**32), {}
    for i, component in enumerate(components):
        sizes = np.random.default_rng(i).integers(500, 5000, DOCUMENTS)
        bits = sizes * (level + np.random.default_rng(i + 99).normal(0, 0.2, DOCUMENTS) + random.normal(0, 0.002))
        documents[component] = [[round(b, 1), int(n)] for b, n in zip(bits, sizes, strict=True)]
    programs = {"written": 150, "parsed": int(30 + 10 * level), "passed": 0}
    return {"run": name, "seed": seed, "documents": documents, "programs": programs, "minutes": 4.0, "processor": "a"}


def record(name: str, lines: list[dict]) -> None:
    for one in lines:
        study.record(name, one)


def test_an_interval_by_seed_covers_the_true_difference():
    random = np.random.default_rng(1)
    drawn = [by_seed(random.normal(2, 1, 3), random.normal(1, 1, 3)) for _ in range(2000)]
    assert np.mean([low <= 1 <= high for low, high in drawn]) == pytest.approx(0.95, abs=0.015)


def test_a_single_run_is_one_draw_unless_no_seed_changes_it():
    random = np.random.default_rng(1)
    pairs = [(random.normal(size=5), random.normal(size=1)) for _ in range(2000)]
    covered = {
        exact: np.mean([low <= 0 <= high for low, high in (by_seed(*pair, exact=exact) for pair in pairs)])
        for exact in (False, True)
    }
    assert covered[False] == pytest.approx(0.95, abs=0.015) and covered[True] < 0.75
    fixed = [by_seed(random.normal(size=5), [0.0], exact=True) for _ in range(2000)]
    assert np.mean([low <= 0 <= high for low, high in fixed]) == pytest.approx(0.95, abs=0.015)


def test_the_power_of_three_seeds_is_that_of_the_t_test():
    assert detectable(1.0, 3) == pytest.approx(3.07, abs=0.1)  # statsmodels: TTestIndPower().solve_power(nobs1=3)


def test_a_difference_is_claimed_only_where_documents_and_seeds_agree():
    steady = [line("a", seed, 1.5, ["x"]) for seed in range(3)]
    lower = [line("b", seed, 1.3, ["x"]) for seed in range(3)]
    assert difference(lower, steady, ["x"]).claimed == -1 and difference(steady, lower, ["x"]).claimed == 1
    assert difference(lower, steady, ["x"]).value == pytest.approx(-0.2, abs=0.01)
    assert difference(steady, steady, ["x"]).claimed == 0
    single = difference(lower[:1], steady[:1], ["x"])
    assert single.claimed == 0 and single.by_document[1] < 0  # the documents alone would have claimed it
    few = compared(np.array([[1.0, 0, 0, 0], [1, 0, 0, 0]]), np.zeros((2, 4)), np.ones(4))
    assert few.claimed == 0 and few.by_seed == pytest.approx((0.25, 0.25))  # here the documents forbid it


def test_a_crossing_is_interpolated_in_the_logarithm_of_the_size():
    assert crossing([1, 100], [1.0, -1.0]) == pytest.approx(10)
    assert crossing([1, 100], [-1.0, 1.0]) is None  # the smallest was below already
    assert crossing([1, 10, 100], [3.0, 1.0, 0.5]) is None


def test_a_surface_is_found_again_and_its_best_size_is_the_best():
    true = Surface(0.9, 1.2, 0.4, 1.6, 0.32)
    points = [(n, d) for n in (1e6, 2e6, 4e6, 9e6) for d in (1e6, 3e6, 9e6)]
    [found] = fitted(*zip(*points, strict=True), np.array([[true.loss(*point) for point in points]]))
    assert (found.alpha, found.beta) == pytest.approx((0.4, 0.32)) and found.floor == pytest.approx(0.9, abs=1e-6)
    sizes = np.geomspace(1e5, 1e8, 2000)
    losses = [true.loss(n, 1e14 / 6 / n) for n in sizes]
    assert found.best_weights(1e14) == pytest.approx(sizes[np.argmin(losses)], rel=0.01)
    rising = [[2, 2.1, 2.2, 2.3, 2, 2.1]]  # with the weights, which no surface does
    assert fitted([1e6, 2e6, 4e6, 8e6, 1e6, 2e6], [1e7] * 4 + [2e7] * 2, np.array(rising)) == []
    with pytest.raises(ValueError, match="there are 4 runs"):
        fitted([1, 2, 3, 4], [1, 2, 3, 4], np.zeros((1, 4)))


def test_at_equal_prose_the_same_prose_is_read_in_the_same_order_of_blocks():
    def prose(share: int) -> list[int]:
        mixture = [Mixture(shards, float(weight)) for shards, weight in data_mix.mixture(share)]
        rows = int(data_mix.TOKENS / 512 * 1024 / data_mix.prose(share))
        order = Order((90_000, 70_000, 70_000)[: len(mixture)], tuple(phases(mixture, rows)), 7)
        return [window for part, window in map(order.place, range(rows)) if part == 0]

    alone = prose(0)
    assert len(alone) * 512 == data_mix.TOKENS
    for share, common in ((12, 7168), (50, 1024)):
        mixed = prose(share)
        for first in range(0, len(alone), common):
            assert set(mixed[first : first + common]) == set(alone[first : first + common])


def all_parts() -> list[str]:
    return sorted({*data_mix.CODE, *data_mix.PROSE})


@pytest.mark.slow
def test_pages_are_made_from_results_and_a_changed_number_is_found(results, monkeypatch, capsys):
    for run in data_mix.RUNS[:-1]:
        share = int(run.name.rpartition("-")[2])
        record(data_mix.STUDY, [line(run.name, run.seed, 2.0 - share / 100, all_parts())])
    for run in specialist.RUNS:
        level = (
            1.5 if run.name.startswith("specialist") else {"1.1M": 2.0, "3.3M": 1.8}.get(run.name.split("-")[1], 1.3)
        )
        record(specialist.STUDY, [line(run.name, run.seed, level, list(specialist.DOMAIN))])
    for run in scaling.RUNS:
        level = {"rate-muon-0.003": 1.4, "optimizer-muon": 1.4, "vocabulary-16k": 1.3}.get(run.name, 1.5)
        if isinstance(run, study.TrainingRun):
            size, tokens = run.overrides["model.d_model"], run.overrides["train.tokens"]
            level += 10 / size + 2e5 / tokens
            made = line(run.name, run.seed, level, ["Github", "FreeLaw"])
            study.record(scaling.STUDY, made | {"overrides": run.overrides})
    for run in narrow.RUNS:
        right = "1" * 90 + "0" * 10 if "tuned" in run.name else "1" * 20 + "0" * 80
        study.record(narrow.STUDY, line(run.name, run.seed, 1.0, []) | {"right": right})
    monkeypatch.setattr(check, "RELEASED", Path("none"))
    for path, text in check.made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mix = (results / "docs" / "claims" / "data-mix.md").read_text()
    assert "50 % code: the loss on code is lower" in mix and "Not run: equal-prose-50 (seed 2)" in mix
    assert "0 of 450, at most 0.67 %" in mix
    small = (results / "docs" / "claims" / "specialist.md").read_text()
    assert "as good as a generalist of" in small and "All runs of the list were done" in small
    scaled = (results / "docs" / "claims" / "scaling.md").read_text()
    assert "| better |" in scaled and "best size for 1e+14 operations" in scaled
    tuned = (results / "docs" / "claims" / "narrow.md").read_text()
    assert "The tuned quickstart is better: +70" in tuned and "100 % of the pairs of single runs agree" in tuned
    assert "dates: the tuned quickstart is better" in tuned and "5 equal runs have a standard deviation of 0.0" in tuned
    assert "| SmolLM2-135M-Instruct-5-shown | 1 | 20 | 13 to 29 |" in tuned
    with pytest.raises(SystemExit, match="0"):
        check.main()
    path = study.page_of(data_mix.STUDY)
    path.write_text(path.read_text().replace("0 of 450", "1 of 450", 1))
    with pytest.raises(SystemExit, match="1"):
        check.main()
    assert "-| 0 % code" in capsys.readouterr().out


INTERVALS = {
    "is lower": ((-0.3, -0.1), (-0.4, -0.1)),
    "is higher": ((0.1, 0.3), (0.1, 0.4)),
    "is not shown to differ, by document or by seed": ((-0.1, 0.3), (-0.2, 0.4)),
    "is higher by document (+0.1000 to +0.3000) but is not shown to differ by seed (-0.2000 to +0.4000)": (
        (0.1, 0.3),
        (-0.2, 0.4),
    ),
    "is lower by seed (-0.3000 to -0.1000) but is not shown to differ by document (-0.5000 to +0.1000)": (
        (-0.5, 0.1),
        (-0.3, -0.1),
    ),
}


@pytest.mark.parametrize("verdict", INTERVALS)
def test_the_page_of_mixtures_says_which_interval_shows_a_difference(verdict):
    by_document, by_seed = INTERVALS[verdict]
    found = Difference(sum(by_document) / 2, by_document, by_seed, 0.8)
    said = data_mix.answer("12 % code", "the loss on prose", found, "is lower", "is higher")
    assert said == f"- 12 % code: the loss on prose {verdict}; 80 % of the pairs of single runs agree in the sign."


def test_the_page_of_specialists_speaks_only_of_sizes_that_were_run_and_of_crossings_that_it_has():
    runs = [run for run in specialist.RUNS if "29M" not in run.name]
    for run in runs:
        level = 1.5 if run.name.startswith("specialist") else 2.0
        record(specialist.STUDY, [line(run.name, run.seed, level, list(specialist.DOMAIN))])
    small = specialist.page()
    assert "GPT-Js of 1.1M, 3.3M, 10M weights" in small and "Models of 29M are listed but were not run." in small
    assert "interpolated" not in small and "A draw is of the documents" in small
    for run in specialist.RUNS:
        if "29M" in run.name:
            level = 1.3 if run.name.startswith("specialist") else 1.45
            record(specialist.STUDY, [line(run.name, run.seed, level, list(specialist.DOMAIN))])
    large = specialist.page()
    assert "10M, 29M weights" in large and "listed but were not run" not in large
    assert "interpolated" in large and specialist.AS_GOOD in large and "All runs of the list were done" in large


def test_a_study_that_has_just_begun_has_a_page():
    record(data_mix.STUDY, [line("code-12", 0, 1.5, all_parts())])
    assert "1 equal runs" in data_mix.page() and "nan" not in data_mix.page()


@pytest.mark.parametrize("module", [data_mix, narrow, scaling, specialist])
def test_a_study_without_runs_has_a_page_that_says_so_and_speaks_of_no_results(module, results):
    module.picture()
    page = module.page()
    assert page.endswith(f"No run was done yet; `python experiments/{module.STUDY}.py --list` lists them.\n")
    assert not re.search(r"\bnan\b", page) and ".png" not in page and "What would change it" not in page
    assert study.page_of(module.STUDY) in check.made()


def test_the_mean_of_the_seeds_stands_beside_the_interval_of_the_mean():
    for seed, n in enumerate((36, 41, 76)):
        record(narrow.STUDY, [line("dates-bluejay-nano-tuned", seed, 1.0, []) | {"right": "1" * n + "0" * (100 - n)}])
    assert "| bluejay-nano-tuned | 3 | 51 (36 to 76) | 41 to 61 |" in list(narrow.rows(narrow.DATES))


def test_a_failing_run_does_not_keep_the_others_from_running(monkeypatch, capsys):
    done = []

    class Failing(study.Run):
        def carry_out(self, study_: str, seed: int) -> dict | None:
            done.append(self.name)
            if self.name == "bad":
                study.bluejay("train", "nowhere.toml")
            return {"value": 1}

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit, match="1"):
        study.main("failing", [Failing("bad", 1.0), Failing("good", 1.0)])
    assert done == ["bad", "good"] and [run for run, _ in study.recorded("failing")] == ["good"]
    assert "bad (seed 0) failed: bluejay train ended with 2" in capsys.readouterr().err


def test_another_corpus_of_the_same_name_is_refused(results):
    corpus = results / study.CORPUS
    corpus.mkdir(parents=True)
    (corpus / "SHA256SUMS").write_text("1")
    runs = [study.small("one", "1.1M", 1e6)]
    lines = [{"run": "zero", "corpus": study.hash_of_corpus(corpus)}]
    study.check_corpora(runs, lines)
    (corpus / "SHA256SUMS").write_text("2")
    with pytest.raises(ValueError, match=r"is now .* and zero was measured on"):
        study.check_corpora(runs, lines)


def test_a_run_that_takes_too_long_is_refused():
    with pytest.raises(ValueError, match="divide it, 15 are the most"):
        study.small("big", "29M", 10**9)


def test_recorded_runs_are_not_repeated(results, monkeypatch, capsys):
    done = []

    class Quick(study.Run):
        def carry_out(self, study: str, seed: int) -> dict | None:
            done.append((self.name, seed))
            return None if self.name == "missing" else {"value": 1}

    runs, order = [Quick("one", 1.0), Quick("two", 1.0), Quick("missing", 1.0)], list[str]()
    for arguments in ([], [], ["--seed", "100"]):
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        study.main("quick", runs, lambda: order.append("page") or "", lambda: order.append("picture"))
    assert order == ["picture", "page"] * 3
    assert [one for one in done if one[0] != "missing"] == [("one", 0), ("two", 0), ("one", 100), ("two", 100)]
    assert "missing cannot be done here" in capsys.readouterr().err
    lines = [json.loads(row) for row in (results / "results" / "quick.jsonl").read_text().splitlines()]
    assert [(one["run"], one["seed"]) for one in lines] == [("one", 0), ("two", 0), ("one", 100), ("two", 100)]
