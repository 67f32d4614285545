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
        (["--tokenizer.train.vocab_size", "1e12"], "at most 10,000,000"),
        (["--tokenizer.train.sample", "0 MB"], "'0 MB', which is not a text to train on"),
        (
            ["--component", "[{name='A', epochs=1e9, source=[{kind='stdlib'}]}]"],
            "epochs 1e.09; it must be at most 100,000",
        ),
        (["--split.valid", "1.0"], "together below 1"),
        (["--split.vaild", "0.1"], "unknown key split.vaild; did you mean valid"),
        (["--component", "[]"], r"no \[\[component\]\]"),
        (["--component", "[{name='A', source=[]}]"], "component A has no source"),
        (
            ["--component", "[{name='A', source=[{kind='warp'}]}]"],
            r"A\.source\.0 has the kind 'warp', .* mean warc\? \(there are st",
        ),
        (
            ["--component", "[{name=' ', source=[{kind='stdlib'}]}]"],
            'has an empty name; give it one, as in name = "Books"',
        ),
        (["--component", "[{name='A', source=[{kind='tree', path='x', include=[]}]}]"], "include is empty; write"),
        (
            ["--component", "[{name='A', source=[{kind='mathematics', documents=1000000000000}]}]"],
            "documents is 1,000,000,000,000; it must be at least 1 and at most 1,000,000,000",
        ),
        (["--component", "[{name='A', epochs=0.0, source=[{kind='stdlib'}]}]"], "must be above 0"),
        (["--component", "[{name='A', source=[{kind='text', pth='*.md'}]}]"], "did you mean path"),
        (["--component", "[{name='A', source=[{kind='txt', path='x'}]}]"], r"did you mean text\?"),
        (["--component", "[{name='A', source=[{path='x'}]}]"], r"component\.A\.source\.0\.kind is missing"),
        (["--component", "[{name='A', source={kind='stdlib'}}]"], r"A\.source must be a list; write source = \[\{"),
        (["--component", "[{name='A', source=[{kind='stdlib'}], filters='c4'}]"], r'write filters = \["c4"\]'),
        (["--component", "{name='A', source=[{kind='stdlib'}]}"], r"write \[\[component\]\], in two pairs"),
        (["--component", "[{name='A', source=[{kind='tree', path='x', include='*.py'}]}]"], r"source\.0\.include must"),
        (["--component", "[{name='A', source=[{kind='text', path=''}]}]"], "path is '': string should have at least 1"),
        (
            [
                "--component",
                "[{name='A', weight=1.0, source=[{kind='stdlib'}]}, {name='B', source=[{kind='stdlib'}]}, "
                "{name='C', weight=1.0, unavailable='gone'}]",
            ],
            "component A has a weight, so every component needs one",
        ),
        (["--output", "/"], "output is '/', which has no name; name a folder, such as data/"),
        (["--output", "."], "which has no name"),
        (["--storage", ""], "storage is '': string should have at least 1"),
        (["--tokenizer", "gpt2"], r'tokenizer is \'gpt2\'; it must be a table, as { path = "gpt2" }'),
        (["--dedup.near", "true"], r"dedup.near is True; it must be a table, \[dedup.near\]"),
        (["--output", "~nobody-of-this-name/a"], "there is no such home folder"),
        (["--split.least", "9" * 400 + " kB"], "it must be below 9,000,000 TB"),
        (["--split.valid", "nan"], "together below 1"),
        (["--mix.temperature", "nan"], "are from 1"),
        (["--name", "../up"], "letters, digits"),
        (["--component", "[{name='A', source=[{kind='stdlib'}]}, {name='A', source=[{kind='stdlib'}]}]"], "two comp"),
    ],
)
def test_a_mistake_gives_a_clear_message(overrides: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(PileRecipe, QUICKSTART, overrides)


def test_a_tokenizer_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load(PileRecipe, QUICKSTART, ["--tokenizer", "{path = '~/tokenizer'}"])
    assert recipe.tokenizer.path == f"{tmp_path}/tokenizer"
