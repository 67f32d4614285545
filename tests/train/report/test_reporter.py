"""A run says what it does: a row for each step, samples, the noise scale, a profile."""

import json
import math

import pytest

from bluejay.gpt.formats.huggingface import read_config
from bluejay.train.loop import train
from bluejay.train.report.metrics import read_metrics


@pytest.fixture
def run(recipe_file, load_recipe, tmp_path, plots, monkeypatch):
    """The rows of a run in micro-batches, with a prompt and a profile, on a device with a data sheet."""
    monkeypatch.setattr("bluejay.train.report.reporter.stated_peak", lambda *_: 1e12)
    options = ("--train.tokens", "2560", "--train.micro_batch_tokens", "64", "--evaluate.prompts", '["abc", "xyz"]')
    train(load_recipe(recipe_file, *options, "--evaluate.every_steps", "10", "--evaluate.sample_tokens", "8"), True)
    return read_metrics(tmp_path / "run" / "metrics.jsonl")


def test_what_a_run_says(run, tmp_path):
    steps, measured = [row for row in run if "loss" in row], [row for row in run if "valid_loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 21)) and [row["step"] for row in measured] == [10, 20]
    last = steps[-1]
    assert last["tokens"] == 2560 and last["lr"] > 0 and last["memory"] > 0.05
    # A token of this corpus is a byte; only the ends of documents are none.
    assert last["bits_per_byte"] == pytest.approx(last["loss"] / math.log(2), rel=0.05)
    assert 0 < last["share_of_peak"] < 1
    config = read_config(tmp_path / "run" / "model")[0]
    assert last["mfu"] == pytest.approx(last["tokens_per_second"] * 3 * config.forward_flops(32) / 1e12)
    assert all(row["noise_scale"] is None or row["noise_scale"] > 0 for row in steps)
    assert any(row["noise_scale"] for row in steps)
    assert set(measured[0]["samples"]) == {"abc", "xyz"}
    assert all(len(said) <= 8 for said in measured[1]["samples"].values())  # a text may end at once
    for name in ("loss.png", "learning_rate.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::mm" for event in events)
    assert "Self CPU" in (tmp_path / "run" / "profile" / "table.txt").read_text()


@pytest.mark.parametrize(("lr", "diverges"), [("1e-2", False), ("10", True)])
def test_a_loss_above_that_of_a_guess_is_told(lr, diverges, recipe_file, load_recipe, byte_tokenizer, capsys):
    options = ("--train.tokens", "1280", "--train.precision", "float32", "--train.schedule.warmup", "0.0")
    found = train(load_recipe(recipe_file, *options, "--train.lr", lr)).held_out.nats_per_token
    assert (found > math.log(byte_tokenizer.vocab_size)) == diverges
    said = f"the held-out loss, {found:.3f}, is above {math.log(byte_tokenizer.vocab_size):.3f}, that of a guess"
    assert (said in capsys.readouterr().err) == diverges
