"""The recipes of an installed package: found from any folder, listed, copied with their data."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from bluejay import recipe, shipped
from bluejay.cli import main
from bluejay.pile.recipe import PileRecipe
from bluejay.train.recipe import TrainRecipe

ROOT = Path(__file__).parents[1]


def test_a_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/pile/quickstart.toml", "pile/quickstart.toml", "pile/quickstart"):
        assert recipe.load(PileRecipe, Path(name)).name == "quickstart"
    assert recipe.load(TrainRecipe, Path("recipes/train/quickstart.toml"), ["--seed", "7"]).seed == 7


def test_a_file_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes" / "pile").mkdir(parents=True)
    own = (ROOT / "recipes/pile/quickstart.toml").read_text().replace('name = "quickstart"', 'name = "own"')
    (tmp_path / "recipes/pile/quickstart.toml").write_text(own)
    assert recipe.load(PileRecipe, Path("recipes/pile/quickstart.toml")).name == "own"


def test_another_name_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/pile/none.toml", "my.toml", "../recipes/pile/quickstart", str(tmp_path / "pile/quickstart")):
        with pytest.raises(FileNotFoundError, match=r"no recipe at .*one that `bluejay recipes` lists"):
            recipe.load(PileRecipe, Path(name))


def test_all_are_listed_with_a_sentence(capsys):
    main(["recipes", "--json"])
    listed = json.loads(capsys.readouterr().out)["recipes"]
    files = {str(path.relative_to(ROOT / "recipes").with_suffix("")) for path in ROOT.glob("recipes/*/*.toml")}
    assert listed.keys() == files and len(files) > 12
    assert all(10 < len(sentence) < 300 for sentence in listed.values())


def test_a_copied_recipe_trains_on_what_was_copied_with_it(tmp_path, monkeypatch, capsys, file_size_limit):
    monkeypatch.chdir(tmp_path)
    with file_size_limit(2_000), pytest.raises(OSError, match="File too large"):
        shipped.copy("train/camel-case", Path("recipes"))
    main(["recipes", "train/camel-case", "pile/quickstart"])
    copied = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert copied == {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path.is_file()}
    data = recipe.load(TrainRecipe, Path("recipes/train/camel-case.toml")).data
    assert Path(data.train[0].shards).is_file() and Path(str(data.valid)).is_file()
    for name in ("train/camel-case", "recipes/train/camel-case.toml", "./recipes/train/camel-case"):
        main(["recipes", name])  # the same again is no mistake
    Path("recipes/train/camel-case.toml").write_text("mine")
    with pytest.raises(SystemExit):
        main(["recipes", "train/camel-case"])
    assert "is there already and differs; name another folder by --to" in capsys.readouterr().err
    assert Path("recipes/train/camel-case.toml").read_text() == "mine"


def test_an_installed_package_holds_them(tmp_path, monkeypatch):
    """The wheel's layout: the folder lies in the package."""
    package = tmp_path / "site-packages" / "bluejay"
    mapped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]["packages"]
    assert mapped == {"bluejay": "src/bluejay", "bluejay/recipes": "recipes"}
    shutil.copytree(ROOT / "recipes", package / "recipes")
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    assert shipped.folder() == package / "recipes"
    with pytest.raises(ValueError, match="no recipe gpt-5 comes with bluejay; it must be one of hardware/a100-40gb"):
        shipped.copy("gpt-5", tmp_path)
