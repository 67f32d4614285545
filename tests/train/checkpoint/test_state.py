"""A marker is read as it was written, or not at all."""

import dataclasses
import json
import random
import re

import pytest

from bluejay.train.checkpoint import trained_on
from bluejay.train.checkpoint.state import (
    MARKER,
    DamagedCheckpoint,
    State,
    check_same_run,
    find_checkpoints,
    read_marker,
    write_marker,
)
from bluejay.train.recipe import TrainRecipe


@pytest.fixture
def state(recipe_file, load_recipe) -> State:
    recipe = load_recipe(recipe_file)
    return State(
        7, dataclasses.asdict(recipe), "a" * 64, "float32", 0.1 + 0.2, skipped=1, recent=((1 / 3, 1e-30), (2.5, 1.0))
    )


def test_a_state_comes_back_to_the_bit(state, tmp_path):
    write_marker(tmp_path, state, {"x.safetensors": "00"})
    again, files = read_marker(tmp_path)
    assert files == {"x.safetensors": "00"}
    assert dataclasses.replace(again, recipe={}) == dataclasses.replace(state, recipe={})
    check_same_run(again, state, tmp_path)


def test_the_states_of_a_run_are_those_of_its_whole_checkpoints_also_while_it_removes_one(state, tmp_path, monkeypatch):
    for step in (10, 9, 11):
        (tmp_path / f"step-{step}").mkdir()
        write_marker(tmp_path / f"step-{step}", dataclasses.replace(state, step=step), {})
    (tmp_path / "step-11" / MARKER).write_text("{}")
    (tmp_path / "step-12").mkdir()
    found = [*find_checkpoints(tmp_path), tmp_path / "step-13"]
    assert [path.name for path in found[:-1]] == ["step-9", "step-10", "step-11"]
    monkeypatch.setattr(trained_on, "find_checkpoints", lambda _: found)
    assert [one.step for one in trained_on.read_states(tmp_path)] == [9, 10]


def test_any_changed_byte_is_found(state, tmp_path):
    write_marker(tmp_path, state, {"x.safetensors": "00"})
    whole = (tmp_path / MARKER).read_bytes()
    for position in random.Random(0).sample(range(len(whole)), 300):
        changed = bytes([whole[position] ^ 1])
        (tmp_path / MARKER).write_bytes(whole[:position] + changed + whole[position + 1 :])
        with pytest.raises(DamagedCheckpoint, match=r"state\.json"):
            read_marker(tmp_path)
    (tmp_path / MARKER).write_bytes(whole[:-20])
    with pytest.raises(DamagedCheckpoint):
        read_marker(tmp_path)


def test_a_field_that_recipes_got_since_counts_as_its_default(state, tmp_path):
    saved = json.loads(json.dumps(state.recipe))
    del saved["train"]["z_loss"]
    check_same_run(dataclasses.replace(state, recipe=saved), state, tmp_path)
    saved["train"]["lr"] = 0.5
    with pytest.raises(ValueError, match=r"holds a run with train\.lr 0\.5, not 0\.01"):
        check_same_run(dataclasses.replace(state, recipe=saved), state, tmp_path)
    saved["train"]["warmth"] = 3
    with pytest.raises(ValueError, match=r"holds a run of another version: unknown key train\.warmth"):
        check_same_run(dataclasses.replace(state, recipe=saved), state, tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "--data.mask_documents=false",
            "holds a run with data.mask_documents true, not false; give the new run another",
        ),
        ("--model.n_ctx=64", "holds a run without model.n_ctx, not with 64; give"),
        ("--model={ n_layer = 2, d_model = 32 }", "holds a run with model.n_head 2, not without; give"),
        (
            "--train.tokens=2560",
            "holds a run of 40 steps, which may get more, but not fewer, such as 20; the same command with --export N",
        ),
    ],
)
def test_what_differs_is_said_as_a_recipe_has_it(change, says, state, recipe_file, load_recipe, tmp_path):
    wanted = dataclasses.replace(state, recipe=dataclasses.asdict(load_recipe(recipe_file, change)))
    with pytest.raises(ValueError, match=re.escape(says)):
        check_same_run(state, wanted, tmp_path)


def test_another_tokenizer_is_another_run(state, tmp_path):
    with pytest.raises(ValueError, match="another tokenizer"):
        check_same_run(dataclasses.replace(state, tokenizer="b" * 64), state, tmp_path)


def test_other_content_is_another_run_where_it_was_known(state, tmp_path):
    known = dataclasses.replace(state, inputs={"data.train.0": "a", "init": "b"})
    check_same_run(known, known, tmp_path)
    check_same_run(state, known, tmp_path)  # an older version did not look
    for inputs, name in (({"data.train.0": "x", "init": "b"}, r"data\.train\.0"), ({"data.train.0": "a"}, "init")):
        with pytest.raises(ValueError, match=f"whose {name} had another content; it was changed since"):
            check_same_run(known, dataclasses.replace(known, inputs=inputs), tmp_path)


@pytest.mark.parametrize(("valid", "was"), [(None, "without"), ("v.jsonl", "with")])
def test_examples_that_are_held_out_or_not_are_no_other_content(valid, was, state, tmp_path):
    examples = state.recipe["data"] | {"train": [{"shards": "x.jsonl"}]}
    saved, wanted = (
        dataclasses.replace(
            state, recipe=state.recipe | {"data": examples | {"valid": name}}, inputs={"data.train.0": x}
        )
        for name, x in ((valid, "a"), (None if valid else "v.jsonl", "b"))
    )
    says = rf"a run {was} data\.valid, .* one example in twenty is held out .*; go on {was} it, or give"
    with pytest.raises(ValueError, match=says):
        check_same_run(saved, wanted, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "--checkpoint.every_steps=3",
        "--guard.spike=skip",
        "--evaluate.tokens=32",
        "--name=x",
        "--train.recompute=full",
        "--data.valid=y",
        "--data.chat_template=y",
    ],
)
def test_what_may_change_in_a_run(state, recipe_file, load_recipe, change, tmp_path):
    recipe: TrainRecipe = load_recipe(recipe_file, change)
    check_same_run(state, dataclasses.replace(state, recipe=dataclasses.asdict(recipe)), tmp_path)
