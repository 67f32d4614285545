"""What a finished run has written is its own and of its last step, whenever it was stopped."""

import json
import shutil
import signal

import pytest

from bluejay.mistakes import Interrupted
from bluejay.train import loop
from bluejay.train.loop import train
from tests.train.test_loop import SHORT


def test_a_finished_run_is_not_run_again(recipe_file, tmp_path, load_recipe):
    first = train(load_recipe(recipe_file))
    before = (first.model / "model.safetensors").stat().st_mtime_ns
    again = train(load_recipe(recipe_file))
    assert again == first
    assert json.loads((tmp_path / "run/result.json").read_text())["processes"] == 1
    with pytest.raises(ValueError, match="the run is finished, and --profile needs 6"):
        train(load_recipe(recipe_file), profile=True)
    with pytest.raises(ValueError, match="the run has 2 steps left, and --profile needs 6"):
        train(load_recipe(recipe_file, "--train.tokens", "5376"), profile=True)
    assert (first.model / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_model_is_of_the_run_that_is_reported(recipe_file, tmp_path, load_recipe, weights):
    train(load_recipe(recipe_file, *SHORT))
    first = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(load_recipe(recipe_file, *SHORT, "--train.lr", "0.02"))
    assert weights(tmp_path / "run") != first
    train(load_recipe(recipe_file, *SHORT, "--train.lr", "0.02", "--output", f"{tmp_path}/alone"))
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    assert not (tmp_path / "run" / "model.other").exists()  # the run's own former result


@pytest.mark.parametrize(
    "harm",
    [
        "no weights",
        *(pytest.param(what, marks=pytest.mark.slow) for what in ("another's weights", "no model", "another's model")),
    ],
)
def test_a_model_that_is_not_as_the_run_wrote_it_is_set_aside_and_written_again(
    harm, recipe_file, tmp_path, load_recipe, weights, capsys
):
    run = tmp_path / "run"
    first = train(load_recipe(recipe_file, *SHORT))
    right, file = weights(run), run / "model" / "model.safetensors"
    match harm:
        case "another's weights":
            file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        case "no weights":
            file.unlink()
        case "no model":
            shutil.rmtree(run / "model")
        case "another's model":  # of this recipe after other steps, and no result
            (run / "result.json").unlink()
            record = json.loads((run / "model" / "trained_on.json").read_text())
            (run / "model" / "trained_on.json").write_text(json.dumps(record | {"step": 5}))
    assert train(load_recipe(recipe_file, *SHORT)) == first
    assert weights(run) == right
    assert (run / "model.other").exists() == (harm != "no model")
    assert ("renamed to model.other" in capsys.readouterr().err) == (harm != "no model")


@pytest.mark.parametrize(
    "stopped_before",
    ["write_result", *(pytest.param(step, marks=pytest.mark.slow) for step in ("hashes_of", "draw_run"))],
)
def test_a_model_that_the_run_wrote_before_it_was_stopped_is_its_own(
    stopped_before, recipe_file, tmp_path, load_recipe, weights, capsys, monkeypatch
):
    def stop(*_: object) -> None:
        if (tmp_path / "run" / "model").exists():
            raise Interrupted("stopped", signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, stopped_before, stop)
        train(load_recipe(recipe_file, *SHORT))
    before = weights(tmp_path / "run")
    train(load_recipe(recipe_file, *SHORT, "--name", "renamed"))
    assert "WARNING" not in capsys.readouterr().err and not (tmp_path / "run" / "model.other").exists()
    assert weights(tmp_path / "run") == before


@pytest.mark.slow
def test_a_file_that_was_added_to_a_model_stays_and_changes_nothing(recipe_file, tmp_path, load_recipe, capsys):
    trained = train(load_recipe(recipe_file, *SHORT))
    added = trained.model / "tuned_lens.safetensors"
    added.write_bytes(b"a lens")
    assert train(load_recipe(recipe_file, *SHORT)) == trained and added.read_bytes() == b"a lens"
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(load_recipe(recipe_file, *SHORT, "--train.lr", "0.02"))  # which replaces the model
    assert (tmp_path / "run" / "model.other" / added.name).read_bytes() == b"a lens"


def test_a_run_is_whole_without_its_metrics(recipe_file, tmp_path, load_recipe, capsys, plots):
    first = train(load_recipe(recipe_file, *SHORT))
    for result, metrics in ((True, True), (True, False), (False, True), (False, False)):
        if not result:
            (tmp_path / "run" / "result.json").unlink()
        (tmp_path / "run" / "metrics.jsonl").unlink(missing_ok=True)
        if metrics:
            (tmp_path / "run" / "metrics.jsonl").touch()
        again = train(load_recipe(recipe_file, *SHORT))
        assert again.held_out.nats_per_token == pytest.approx(first.held_out.nats_per_token)
    assert "nothing is drawn" in capsys.readouterr().err
