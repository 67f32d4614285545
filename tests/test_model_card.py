"""The card of a model says what the records of its run say; `check_card` in `test_own_text.py` makes a run for it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bluejay.evals.evaluation_file import identity_at
from bluejay.model_card import model_card
from bluejay.model_card.report_sections import interval
from tests.test_house import ROOT

RELEASED = Path("models/bluejay-nano")


@pytest.fixture
def released(tmp_path, monkeypatch) -> Path:
    """The released run in a folder without its corpus."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / RELEASED, RELEASED)
    return RELEASED


def test_the_released_card_is_what_its_records_give_and_its_documents_add_up(released):
    card = model_card(released, watts=15.0)
    assert card == (released / "model/README.md").read_text()
    [total] = re.findall(r"([\d,]+) training documents, ", card)
    components = re.findall(r"^\| [^|]+ \| [\d.]+ % \| ([\d,]+) \|", card, re.MULTILINE)
    assert sum(int(n.replace(",", "")) for n in components) == int(total.replace(",", ""))


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        (0, "recipe.toml --processes 2\n"),  # by the mesh, 2 x -1 x 1 x 1
        (1, "recipe.toml\n"),
        (4, "recipe.toml --processes 4\n"),
    ],
)
def test_a_run_is_repeated_in_as_many_processes_as_it_had(recorded, command, released):
    path, recipe = released / "result.json", released / "recipe.toml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processes": recorded}))
    recipe.write_text(recipe.read_text().replace("replicate = 1\n", "replicate = 2\n"))
    assert f"bluejay train {released}/{command}" in model_card(released)
    shutil.rmtree(released / "corpora")
    assert f"`bluejay train {released}/{command.strip()}`, with the data above" in model_card(released)


def test_figures_of_other_weights_are_not_shown(released):
    whole = model_card(released)
    reports = ("evaluation/report.json", "trace-report/report.json")
    written = {name: json.loads((released / name).read_text()) for name in (*reports, "heads.json")}
    names = {name: written[name].get("model", released.name) for name in reports}

    def measured(identity: str) -> str:
        for name, values in written.items():
            noted = {"identities": {names[name]: identity}} if name in names else {"identity": identity}
            (released / name).write_text(json.dumps(values | noted))
        return model_card(released)

    assert measured(identity_at(released)) == whole
    other = measured("0" * 16)
    assert other.count("are of other weights; run `bluejay ") == 3
    assert f"`{released}/evaluation/report.json` are of other weights; run `{written[reports[0]]['command']}`" in other
    assert "95 % interval" in whole and "95 % interval" not in other and "| step-916 |" not in other


def test_heads_of_a_run_that_kept_no_models_on_its_way_are_shown(released):
    heads = json.loads((released / "heads.json").read_text())["scores"][-1]
    (released / "heads.json").write_text(json.dumps(heads))
    assert "| model |  |  | 3.2, 0.89 | 1.1, 0.90 |" in model_card(released)
    (released / "heads.json").write_text(json.dumps(heads | {"identity": "0" * 16}))
    assert f"The figures in `{released}/heads.json` are of other weights" in model_card(released)


def test_a_figure_that_is_no_number_is_a_dash():
    assert interval({"value": None, "low": None, "high": None, "n": 1200}) == ("-", "-", "1,200")
