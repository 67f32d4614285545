"""The card of a run is of its own model, its commands can be pasted, and no words of others are lost."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.model_card import model_card
from bluejay.train.loop import train
from bluejay.train.recipe import TrainRecipe

STEPS = ("--train.tokens", "256")


@pytest.fixture
def own(recipe_file, load_recipe, tmp_path) -> Path:
    """A finished run in a folder with a space in its name."""
    run = tmp_path / "my run"
    train(load_recipe(recipe_file, *STEPS, "--output", str(run)))
    return run


def test_the_commands_of_a_card_can_be_pasted_and_repeat_the_run_elsewhere(own):
    commands = [line.partition("`")[0] for line in re.findall(r"bluejay (?!trace`).*", model_card(own))]
    assert len(commands) == 6
    for words in map(shlex.split, commands):
        assert any(word == str(own) or word.startswith(f"{own}/") for word in words), words
    [(_, _, recipe, *overrides)] = [shlex.split(one) for one in commands if one.startswith("bluejay train")]
    assert recipes.load(TrainRecipe, Path(recipe), overrides).directory == own.with_name("my run-again")


def test_a_card_that_was_changed_by_hand_is_kept_beside_the_new_one(own, capsys):
    main(["card", str(own)])
    main(["card", str(own), "--licence", "mit"])
    card = own / "model/README.md"
    assert "renamed" not in capsys.readouterr().err and "license: mit" in card.read_text()
    card.write_text(changed := card.read_text() + "Thanks to all.\n")
    main(["card", str(own)])
    main(["card", str(own)])
    assert capsys.readouterr().err.count("README.md is not as `bluejay card` wrote it; renamed to README.md.other") == 1
    assert (own / "model/README.md.other").read_text() == changed and "license: mit" in card.read_text()


def test_a_model_that_another_run_wrote_does_not_get_this_runs_card(own, recipe_file, load_recipe, capsys):
    other = own.with_name("other")
    train(load_recipe(recipe_file, *STEPS, "--output", str(other), "--seed", "2"))
    shutil.copy(other / "model/model.safetensors", own / "model")
    model_card(own)  # of the right shape, and perhaps only in another type
    assert "model.safetensors is not as the run wrote it" in capsys.readouterr().err
    shutil.copy(other / "model/trained_on.json", own / "model")
    for _ in range(2):
        with pytest.raises(ValueError, match="is not the model that this run wrote, so the run's figures are not its"):
            model_card(own)
        (own / "model/trained_on.json").unlink(missing_ok=True)
    model_card(other)
