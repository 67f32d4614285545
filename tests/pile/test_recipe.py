"""Recipes of corpora: the shipped one is valid, and a mistake gives a clear message."""

from pathlib import Path

import pytest

from bluejay.pile.recipe import PileRecipe
from bluejay.recipe import load

QUICKSTART = Path(__file__).parents[2] / "recipes" / "pile" / "quickstart.toml"


def test_the_quickstart_recipe_is_valid() -> None:
    recipe = load(PileRecipe, QUICKSTART)
    assert recipe.directory == Path("data/quickstart")
    assert recipe.tokenizer.train is not None
    assert recipe.tokenizer.train.vocab_size == 8192
    assert recipe.tokenizer.train.sample_bytes == 50_000_000
    assert [source.kind for component in recipe.component for source in component.source] == ["stdlib", "package-docs"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--tokenizer.path", "gpt2"], "tokenizer needs one of"),
        (["--tokenizer.train.sample", "50 potatoes"], "'50 potatoes'; write a number and a unit"),
        (["--tokenizer.train.vocab_size", "256"], "at least 257"),
        (["--split.valid", "1.0"], "together below 1"),
        (["--split.vaild", "0.1"], "unknown key split.vaild; did you mean valid"),
        (["--component", "[]"], r"no \[\[component\]\]"),
        (["--component", "[{name='A', source=[]}]"], "component A has no source"),
        (["--component", "[{name='A', source=[{kind='warp'}]}]"], "'stdlib', 'package-docs', 'text'"),
        (["--component", "[{name='A', epochs=0.0, source=[{kind='stdlib'}]}]"], "must be above 0"),
        (["--component", "[{name='A', source=[{kind='text', pth='*.md'}]}]"], "did you mean path"),
        (["--name", "../up"], "letters, digits"),
        (["--component", "[{name='A', source=[{kind='stdlib'}]}, {name='A', source=[{kind='stdlib'}]}]"], "two comp"),
    ],
)
def test_a_mistake_gives_a_clear_message(overrides: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(PileRecipe, QUICKSTART, overrides)
