"""Recipes load as they are written, nothing is converted in silence, and a mistake is told in one sentence."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluejay.pile.recipe import PileRecipe
from bluejay.plan.hardware import Hardware
from bluejay.recipe import STRICT, load, parse_overrides, save, toml_value
from bluejay.train.recipe import TrainRecipe


@dataclass(frozen=True)
class Wheel:
    __pydantic_config__ = STRICT
    kind: Literal["steel", "wood"]
    size: float = 1.0


@dataclass(frozen=True)
class Engine:
    __pydantic_config__ = STRICT
    power: int = 1
    quiet: bool = False
    ratios: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        if self.power < 1:
            raise ValueError(f"engine.power is {self.power}; it must be at least 1")


@dataclass(frozen=True)
class Car:
    __pydantic_config__ = STRICT
    name: str
    engine: Engine = field(default_factory=Engine)
    wheel: tuple[Wheel, ...] = ()
    note: str | None = None


WRITTEN = """
name = "beetle"
[engine]
power = 34
[[wheel]]
kind = "steel"
[[wheel]]
kind = "wood"
size = 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "car.toml").write_text(WRITTEN)
    return tmp_path / "car.toml"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e3", 1000),
        ('"3K"', 3000),
        ('"2m"', 2_000_000),
        ("2.5e3", 2500),
        ('"10M"', 10_000_000),
        ('"2.5k"', 2500),
        ('"1e4"', 10_000),
        ('"2500e-1k"', 250_000),
    ],
)
def test_a_whole_number_may_be_written_short(path: Path, written: str, read: int) -> None:
    path.write_text(WRITTEN.replace("34", written))
    assert load(Car, path).engine.power == read
    overridden = load(Car, path, ["--engine.power", written.strip('"'), "--engine.ratios", '["1k", 2]'])
    assert overridden.engine == Engine(read, ratios=(1000.0, 2.0)) and isinstance(overridden.engine.power, int)


NO_NUMBERS = ['"34"', "3.5", '"3.5"', '"10Q"', '"M"', '"1e-3"', "true", '"._"', '"_"', '"1e9999999k"', "nan", "1e400"]


@pytest.mark.parametrize("written", NO_NUMBERS)
def test_what_is_no_whole_number_is_refused(path: Path, written: str) -> None:
    path.write_text(WRITTEN.replace("34", written))
    with pytest.raises(ValueError, match=r"engine\.power is "):
        load(Car, path)


def test_a_recipe_is_what_its_file_says(path: Path) -> None:
    assert load(Car, path) == Car("beetle", Engine(34), (Wheel("steel"), Wheel("wood", 2.0)))


def test_overrides_go_over_the_file(path: Path) -> None:
    arguments = ["--name", "bus", "--engine.quiet=true", "--engine.ratios", "[1, 3]", "--wheel", '[{kind = "wood"}]']
    assert load(Car, path, arguments) == Car("bus", Engine(34, True, (1.0, 3.0)), (Wheel("wood"),))
    assert load(Car, path, ["--engine.quiet", "True"]).engine.quiet
    assert load(Car, path, ["--note", "a = b"]).note == "a = b"
    assert load(Car, path, ["--note=--x=1"]).note == "--x=1"


@pytest.mark.parametrize("typed", ["7", "1e5", "0x10", "true", "nan", "[1]", "2024-01-01", "2024-01-01T07:30:00", "3a"])
def test_a_text_may_look_like_a_number_on_the_command_line(path: Path, typed: str) -> None:
    car = load(Car, path, ["--name", typed, f"--note={typed}", "--engine.power", "1e3"])
    assert (car.name, car.note, car.engine.power) == (typed, typed, 1000)
    path.write_text(WRITTEN.replace('"beetle"', "7"))
    with pytest.raises(ValueError, match="name is 7: input should be a valid string"):
        load(Car, path, ["--note", typed])


@given(
    st.builds(
        Car,
        name=st.text(st.characters(codec="utf-8")),
        engine=st.builds(
            Engine,
            power=st.integers(1, 2**62),
            quiet=st.booleans(),
            ratios=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
        ),
        wheel=st.lists(st.builds(Wheel, kind=st.sampled_from(["steel", "wood"]), size=st.floats(0, 1e300))).map(tuple),
        note=st.none() | st.text(st.characters(codec="utf-8")),
    )
)
def test_what_is_saved_loads_as_the_same(tmp_path_factory: pytest.TempPathFactory, car: Car) -> None:
    path = tmp_path_factory.mktemp("recipe") / "car.toml"
    save(car, path)
    assert load(Car, path) == car


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--engine.powr", "3"], "unknown key engine.powr; did you mean power? (valid here: power, quiet, ratios)"),
        (["--nmae", "x"], "unknown key nmae; did you mean name? (valid here: name, engine, wheel, note)"),
        (["--wheel", "[{kidn = 'wood'}]"], "unknown key wheel.0.kidn; did you mean kind? (valid here: kind, size)"),
        (["--power", "3"], "unknown key power; did you mean engine.power? (valid here: name, engine, wheel, note)"),
        (["--quiett", "3"], "unknown key quiett; did you mean engine.quiet? (valid here: name, engine, wheel, note)"),
        (["--wheel", "[{}]"], "wheel.0.kind is missing"),
        (["--wheel", "[{kind = 'rubber'}]"], "wheel.0.kind is 'rubber': input should be 'steel' or 'wood'"),
        (["--engine.power", "'3'"], "engine.power is '3': input should be a valid integer"),
        (["--engine.power", "3.5"], "engine.power is 3.5: input should be a valid integer"),
        (["--engine.quiet", "1"], "engine.quiet is 1; it must be true or false"),
        (["--engine.ratios", "[true, 1]"], "engine.ratios.0 is True: input should be a valid number"),
        (["--engine.ratios", "[1]"], "engine.ratios is [1]; it must have 2 values"),
        (["--engine.ratios", "[1, 2, 3]"], "engine.ratios is [1, 2, 3]; it must have 2 values"),
        (["--engine.power", "0"], "engine.power is 0; it must be at least 1"),
        (["--engine.epochs", "3"], "unknown key engine.epochs (valid here: power, quiet, ratios)"),
        (["--wheel", "steel"], 'wheel must be a list; write wheel = [{ kind = "steel" }]'),
        (["--wheel", "rubber"], "wheel must be a list; write wheel = [{ ... }]"),
        (["--wheel", "['steel']"], "wheel.0 is 'steel'; it must be a table, as { kind = \"steel\" }"),
        (["--engine", "5"], "engine is 5; it must be a table, as { power = 5 }"),
        (["--engine", "true"], "engine is True; it must be a table, as { quiet = true }"),
        (["--engine", "strong"], "engine is 'strong'; it must be a table, [engine]"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_is_right(path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ValueError) as error:
        load(Car, path, overrides)
    assert str(error.value) == f"{path}: {says}"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["engine.power", "3"], "'engine.power' was not understood"),
        (["--engine.power"], "--engine.power needs a value"),
        (["--name.first", "x"], "name is not a table"),
    ],
)
def test_a_mistyped_override_is_told(path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(Car, path, overrides)


def test_what_is_no_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        load(Car, tmp_path / "none.toml")
    with pytest.raises(ValueError, match="is a folder"):
        load(Car, tmp_path)
    for raw in (b"name = ", b"\xff", b"name = " + b"[" * 9_000):
        (tmp_path / "bad.toml").write_bytes(raw)
        with pytest.raises(ValueError, match=r"bad\.toml is not TOML"):
            load(Car, tmp_path / "bad.toml")


def test_values_of_overrides_are_toml_or_else_text() -> None:
    pairs = parse_overrides(["--a", "1", "--b", "1e-3", "--c", "true", "--d", "plain", "--e", "'quoted'", "--f=-1"])
    values = {key: toml_value(text) for key, text in pairs}
    assert values == {"a": 1, "b": 1e-3, "c": True, "d": "plain", "e": "quoted", "f": -1}


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        (PileRecipe, "train/quickstart", "it is a recipe of a training run; bluejay train reads it"),
        (TrainRecipe, "pile/quickstart", "it is a recipe of a corpus; bluejay pile build reads it"),
        (TrainRecipe, "hardware/h100", "it is a recipe of hardware; bluejay plan --hardware reads it"),
        (Hardware, "pile/quickstart", "it is a recipe of a corpus"),
    ],
)
def test_a_recipe_of_another_kind_is_named_as_what_it_is(kind: type, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}\.toml: {sentence}"):
        load(kind, Path(f"recipes/{name}.toml"))


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [(PileRecipe, "pile/quickstart", "train.lr"), (TrainRecipe, "train/quickstart", "component")],
)
def test_a_field_of_another_kind_does_not_make_a_recipe_of_it(kind: type, name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key {field.partition('.')[0]}"):
        load(kind, Path(f"recipes/{name}.toml"), [f"--{field}", "3"])
