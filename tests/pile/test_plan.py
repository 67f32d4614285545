"""The plan of The Pile reproduces its published table."""

from pathlib import Path

import pytest

from bluejay.pile.plan import plan, table
from bluejay.pile.recipe import PileRecipe
from bluejay.recipe import check, load

RECIPES = Path(__file__).parents[2] / "recipes" / "pile"
PUBLISHED = {
    "Pile-CC": 18.11,
    "PubMed Central": 14.40,
    "Books3": 12.07,
    "OpenWebText2": 10.01,
    "ArXiv": 8.96,
    "Github": 7.59,
    "FreeLaw": 6.12,
    "StackExchange": 5.13,
    "USPTO Backgrounds": 3.65,
    "PubMed Abstracts": 3.07,
    "Gutenberg (PG-19)": 2.17,
    "OpenSubtitles": 1.55,
    "Wikipedia (en)": 1.53,
    "DM Mathematics": 1.24,
    "Ubuntu IRC": 0.88,
    "BookCorpus2": 0.75,
    "EuroParl": 0.73,
    "HackerNews": 0.62,
    "YoutubeSubtitles": 0.60,
    "PhilPapers": 0.38,
    "NIH ExPorter": 0.30,
    "Enron Emails": 0.14,
}
"""Component -> weight in per cent (Gao et al. 2020, table 1)."""


def test_the_piles_weights_are_the_published_ones() -> None:
    *rows, total = plan(load(PileRecipe, RECIPES / "the-pile.toml"))
    assert {row.name: row.weight for row in rows} == pytest.approx(PUBLISHED, abs=0.011)
    assert total.size == pytest.approx(825.18 * 2**30, rel=1e-4)
    assert total.effective == pytest.approx(1254.20 * 2**30, rel=1e-4)
    gone = {row.name for row in rows if row.share is None}
    assert gone == {"Books3", "OpenWebText2", "OpenSubtitles", "BookCorpus2", "YoutubeSubtitles"}
    assert sum(row.share for row in rows if row.share is not None) == pytest.approx(100)


@pytest.mark.parametrize("name", ["common-pile", "mini-pile", "quickstart"])
def test_every_shipped_recipe_has_a_plan(name: str) -> None:
    rows = plan(load(PileRecipe, RECIPES / f"{name}.toml"))
    assert len(table(rows).splitlines()) == len(rows) + 1


SOURCE = {"source": [{"kind": "stdlib"}]}
GONE = {"name": "C", "size": "200 GB", "unavailable": "gone"}


@pytest.mark.parametrize(
    ("components", "mix", "epochs"),
    [
        ([{"name": "A", "size": "11 kB"}, {"name": "B", "size": "110 kB"}, GONE], {"temperature": 2.0}, [10**0.5, 1]),
        ([{"name": "A", "size": "11 kB"}, {"name": "B"}], {"temperature": 2.0}, [None, None]),
        ([{"name": "A", "size": "10 kB", "weight": 1.0}, {"name": "B", "size": "30 kB", "weight": 1.0}], {}, [3, 1]),
        ([{"name": "A", "weight": 1.0}, {"name": "B", "weight": 1.0}], {}, [None, None]),
        ([{"name": "A"}, {"name": "B", "epochs": 2.5}, GONE], {}, [1, 2.5]),
    ],
)
def test_the_epochs_are_those_of_the_build_as_far_as_they_are_known(components, mix, epochs, tmp_path) -> None:
    some = [one if "unavailable" in one else one | SOURCE for one in components]
    values = {"name": "c", "output": str(tmp_path / "c"), "tokenizer": {"train": {}}, "component": some, "mix": mix}
    rows = plan(check(PileRecipe, values, "the test"))
    assert [row.epochs for row in rows[:2]] == [one if one is None else pytest.approx(one) for one in epochs]
    assert len(table(rows).splitlines()) == len(rows) + 1


def test_a_total_of_which_a_part_is_not_known_is_not_given(tmp_path: Path) -> None:
    components = [{"name": "A", "size": "11 MB"} | SOURCE, {"name": "B"} | SOURCE, GONE]
    values = {"name": "c", "output": str(tmp_path / "c"), "tokenizer": {"train": {}}, "component": components}
    rows = plan(check(PileRecipe, values, "the test"))
    assert [row.size for row in rows] == [11_000_000, None, 200_000_000_000, None]
    assert {(row.weight, row.share) for row in rows} == {(None, None)}
    assert rows[-1].effective is None
    assert "2 of 3 sizes are known, 186.27 GiB in all" in table(rows).splitlines()[-1]

    values["component"] = [components[0], {**components[2], "size": None}]
    rows = plan(check(PileRecipe, values, "the test"))
    assert [row.share for row in rows] == [100, None, 100]  # what is not available is not needed for a share
    assert {row.weight for row in rows} == {None}
