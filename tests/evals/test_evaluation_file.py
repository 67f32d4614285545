"""The summary of an evaluation is found beside its model, and what is something else is said."""

import json

import pytest

from bluejay.evals.estimates import Estimate
from bluejay.evals.evaluation_file import NAME, find_summary, identity_at, write_summary
from bluejay.gpt.formats.layouts import save_model

FIGURE = Estimate(0.25, 0.18, 0.33, 0.04, 120, 118)
ALONE = Estimate(0.5, float("nan"), float("nan"), float("nan"), 2, 1)
FIGURES = [("piqa", "mine", "accuracy", FIGURE), ("boolq", "mine", "accuracy", ALONE), ("piqa", "other", "a", FIGURE)]


@pytest.mark.parametrize("place", ["model", "model/report", ".", "report"])
def test_it_lies_with_the_model_or_its_run_and_has_this_model_alone(tmp_path, place):
    run = tmp_path / "mine"
    (run / "model").mkdir(parents=True)
    (run / place).mkdir(exist_ok=True)
    assert find_summary(run / "model", "mine") is None
    write_summary(run / place, "2026-11-26", "bluejay eval mine", FIGURES)
    found = find_summary(run / "model", "mine")
    assert found["date"] == "2026-11-26" and found["command"] == "bluejay eval mine"
    assert [(one["task"], one["value"], one["low"], one["high"], one["n"]) for one in found["figures"]] == [
        ("piqa", 0.25, 0.18, 0.33, 120),
        ("boolq", 0.5, None, None, 2),
    ]
    assert find_summary(run / "model", "a third") is None and find_summary(None, "mine") is None


def test_figures_of_weights_that_the_model_had_before_are_not_shown(tiny_model, tmp_path):
    run = tmp_path / "mine"
    save_model(tiny_model.gpt, tiny_model.tokenizer, run / "model")
    write_summary(run, "2026-11-26", "bluejay eval mine", FIGURES, {"mine": identity_at(run / "model")})
    assert find_summary(run / "model", "mine") is not None
    weights = bytearray((run / "model/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model/model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is of other weights; run `bluejay eval mine` again"):
        find_summary(run / "model", "mine")
    (run / "report").mkdir()
    write_summary(run / "report", "2026-11-27", "bluejay eval mine", FIGURES, {"mine": identity_at(run / "model")})
    assert find_summary(run / "model", "mine")["date"] == "2026-11-27"


def test_a_folder_of_models_lends_no_model_the_summary_of_another(tmp_path):
    (tmp_path / "one").mkdir()
    write_summary(tmp_path, "", "", FIGURES)
    assert find_summary(tmp_path / "one", "mine") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"date": 5, "command": "", "figures": [{"task": 1}]}', json.dumps({"a": "x" * 2_000_000})],
    ids=["empty", "list", "no fields", "wrong types", "large"],
)
def test_another_file_of_that_name_is_refused(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ValueError, match=r"evaluation.json beside the model cannot be read"):
        find_summary(tmp_path, "mine")
