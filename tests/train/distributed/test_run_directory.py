"""A run begins nowhere where it would overwrite what is not its own, and nowhere by mistake."""

import shutil

import pytest

from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.train.distributed.run_directory import check_recipe
from bluejay.train.loop import train

SHORT = ("--train.tokens", "256")


def test_a_recipe_that_no_run_wrote_is_not_overwritten(recipe_file, load_recipe, tmp_path):
    for text in ("# of my own\n" + recipe_file.read_text(), 'name = "a corpus"\n'):
        own = tmp_path / "mine" / "recipe.toml"
        own.parent.mkdir(exist_ok=True)
        own.write_text(text)
        with pytest.raises(ValueError, match=r"mine/recipe\.toml was not written by a run.* rename that file"):
            train(load_recipe(recipe_file, *SHORT, "--output", str(own.parent)))
        assert own.read_text() == text and list(own.parent.iterdir()) == [own]


def test_a_run_that_was_stopped_before_its_first_step_begins_again(recipe_file, load_recipe, tmp_path):
    path = tmp_path / "run" / "recipe.toml"
    recipes.save(load_recipe(recipe_file), path)
    check_recipe(path)


def test_the_recipe_of_a_moved_run_goes_on_with_it_or_is_refused(recipe_file, tmp_path, monkeypatch, capsys):
    main(["train", str(recipe_file), *SHORT])
    moved = tmp_path / "a b"
    (tmp_path / "run").rename(moved)
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(moved / "recipe.toml")])
    assert f"bluejay train '{moved}/recipe.toml' --output '{moved}' goes on with it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    main(["train", str(moved / "recipe.toml"), "--output", str(moved)])
    monkeypatch.chdir(moved)
    main(["train", "recipe.toml", "--output", "."])
    assert capsys.readouterr().out.count("2 steps") == 2 and not (tmp_path / "run").exists()


def test_a_model_whose_checkpoints_are_gone_is_not_replaced_without_a_word(recipe_file, load_recipe, tmp_path, capsys):
    train(load_recipe(recipe_file, *SHORT))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train(load_recipe(recipe_file, "--train.tokens", "384"))
    assert "run/model is left: training begins anew and replaces it at the end" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a/", "/"])
def test_a_name_that_leads_out_of_the_folder_of_runs_is_refused(name, recipe_file, tmp_path, monkeypatch, capsys):
    recipe_file.write_text(recipe_file.read_text().replace(f'output = "{tmp_path}/run"', ""))
    monkeypatch.chdir(tmp_path / "tokens")
    before = sorted(tmp_path.rglob("*"))
    for target in (recipe_file, "train.bin"):
        with pytest.raises(SystemExit, match="2"):
            main(["train", str(target), "--name", name])
        assert f"name is {name!r}, which cannot be the name of a folder in runs/" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
