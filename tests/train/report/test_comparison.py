"""What a fine-tuning run changed is shown: answers before and after it, and the loss on held-out examples."""

import dataclasses
import json
from pathlib import Path

import pytest

from bluejay.cli import main
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.held_out import HeldOutLoss
from bluejay.train.loop import train
from bluejay.train.report.comparison import Answers, Comparison, held_out_examples, same_examples
from bluejay.train.report.metrics import read_metrics
from tests.train.data.test_encoding import CHATML, FORGETFUL, tokenizer_with

ANSWERS = {"a": "the cat", "b": "x [y] z"}


@pytest.fixture
def tuned(load_recipe, recipe_file, tmp_path):
    """A run that taught a random model two answers, and counts a third part of them."""
    tokenizer = tokenizer_with(CHATML)
    config = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=tokenizer.vocab_size, n_ctx=64)
    save_model(new_model(config, seed=7).requires_grad_(False), tokenizer, tmp_path / "base")
    turns = [[("user", asked), ("assistant", answer)] for asked, answer in ANSWERS.items()]
    talks = [*turns, [*turns[0], *turns[1]]]
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe_file.write_text(recipe_file.read_text().replace("[model]\nn_layer = 2\nd_model = 32\nn_head = 2\n", ""))
    examples = str(tmp_path / "talk.jsonl")
    overrides = {
        "init": str(tmp_path / "base"),
        "data.train": f'[{{ shards = "{examples}" }}]',
        "data.valid": examples,
        "data.sequence_length": "64",
        "train.schedule.warmup": "0.1",
        "train.tokens": "12800",
        "train.lr": "1e-2",
        "train.precision": "float32",
        "evaluate.tokens": "4096",
    }
    recipe = load_recipe(recipe_file, *(word for key, value in overrides.items() for word in (f"--{key}", value)))
    train(recipe)
    return recipe


def test_answers_stand_beside_each_other_with_the_losses_of_the_run(tuned, capsys):
    capsys.readouterr()
    main(["compare", str(tuned.directory), tuned.init, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == ["a", "b", "b"] and found["wanted"] == [ANSWERS[asked] for asked in found["questions"]]
    before, after, again = found["answers"]
    assert after["texts"] == found["wanted"] != before["texts"]
    assert (before["title"], after["title"], again["model"]) == ("before", "after", tuned.init)
    assert before["held_out"] == again["held_out"] and before["texts"] == again["texts"]
    losses = [row for row in read_metrics(tuned.directory / "metrics.jsonl") if "valid_loss" in row]
    for key, measured in (("nats_per_token", "valid_loss"), ("bits_per_byte", "valid_bits_per_byte")):
        assert after["held_out"][key] == pytest.approx(losses[-1][measured], rel=1e-3)
        assert before["held_out"][key] > 5 * after["held_out"][key]
    main(["compare", str(tuned.directory), "--show", "2"])
    lines = capsys.readouterr().out
    assert "before" in lines and "the cat" in lines and "x [y] z" in lines
    main(["compare", str(tuned.directory), "--show", "0", "--json"])
    none = json.loads(capsys.readouterr().out)
    assert none["questions"] == []
    assert [one["held_out"] for one in none["answers"]] == [before["held_out"], after["held_out"]]


def test_models_of_other_tokens_are_asked_the_same(load_recipe, recipe_file, byte_tokenizer, tmp_path):
    rows = [{"prompt": f"{number} the cat", "completion": " the" * (number % 7 + 1)} for number in range(100)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load_recipe(
        recipe_file, "--data.train", f'[{{ shards = "{tmp_path}/pairs.jsonl" }}]', "--evaluate.tokens", "64"
    )
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, valid=None, sequence_length=64))
    other = Tokenizer.train(["the cat the cat"], vocab_size=264)
    chosen = held_out_examples(recipe, byte_tokenizer, tmp_path)
    assert {one.question for one in chosen} != {one.question for one in held_out_examples(recipe, other, tmp_path)}
    same = same_examples(chosen, recipe, other, 64, "other")
    assert [one.question for one in same] == [one.question for one in chosen]
    assert all(len(one.ids) < len(first.ids) for one, first in zip(same, chosen, strict=True))
    with pytest.raises(
        ValueError, match=r"other cannot be asked .*pairs\.jsonl, line \d+, text 1: that is longer than"
    ):
        same_examples(chosen, recipe, other, min(len(one.ids) for one in same) - 1, "other")


def test_a_template_that_makes_other_texts_of_a_conversation_is_said(load_recipe, recipe_file, tmp_path):
    talk = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b|c")) * 2]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    recipe = load_recipe(recipe_file, "--data.valid", f"{tmp_path}/talk.jsonl", "--evaluate.tokens", "4096")
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, sequence_length=128))
    whole, parts = tokenizer_with(CHATML), tokenizer_with(FORGETFUL)
    for first, second in ((whole, parts), (parts, whole)):
        with pytest.raises(ValueError, match="or its chat template writes it otherwise"):
            same_examples(held_out_examples(recipe, first, tmp_path), recipe, second, 128, "other")
    plain = tokenizer_with(CHATML)
    plain.chat_template = None
    with pytest.raises(ValueError, match=r"^other cannot be asked these examples: .* the model has no chat template"):
        same_examples(held_out_examples(recipe, whole, tmp_path), recipe, plain, 128, "other")


def test_what_cannot_be_compared_is_one_sentence(tuned, load_recipe, recipe_file, tmp_path, capsys):
    def fails(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="2"):
            main(["compare", *arguments])
        return capsys.readouterr().err

    for option, number, least in (("--show", "-1", 0), ("--max-tokens", "0", 1)):
        said = f"{option}: it is {number}; it must be a whole number of at least {least}"
        assert said in fails(str(tuned.directory), option, number)

    assert "no run at" in fails(str(tmp_path / "none"))
    recipe = tuned.directory / "recipe.toml"
    whole = recipe.read_text()
    recipe.write_text(whole.replace(f'init = "{tuned.init}"\n', ""))
    assert "began with random weights" in fails(str(tuned.directory))
    recipe.write_text(whole.replace(f'valid = "{tuned.data.valid}"', 'valid = "data/tokens/valid"'))
    assert "only examples have answers to compare" in fails(str(tuned.directory))
    recipe.write_text(whole)
    assert "no model at nowhere" in fails(str(tuned.directory), "nowhere")
    file = Path(tuned.data.held_out)
    rows = file.read_text()
    file.write_text("".join(rows.splitlines(keepends=True)[1:]))
    spaced = tuned.directory.rename(tmp_path / "my run")
    said = fails(str(spaced))
    assert f"talk.jsonl was changed since {spaced} was measured on it" in said
    assert f"bluejay train '{spaced}/recipe.toml' --output '{spaced}'\n" in said
    spaced.rename(tuned.directory)
    file.write_text(rows)
    (tuned.directory / "model").rename(tuned.directory / "elsewhere")
    assert f"run has no model yet; bluejay train {recipe} --output" in fails(str(tuned.directory))


def test_a_terminal_does_not_obey_answers():
    held_out = HeldOutLoss(1.0, 1.0, {})
    answers = [Answers("before", "a", held_out, ["\x1b]0;title\a"])]
    table = Comparison(["\x9b2J"], ["[b]yes"], answers).table()
    assert r"\x1b]0;title\x07" in table and r"\x9b2J" in table and "[b]yes" in table
    assert table.replace("\n", "").isprintable()
