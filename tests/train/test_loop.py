"""A run that is stopped anywhere ends with the same bits as one that is not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import bluejay
from bluejay import recipe as recipes
from bluejay.tokens import TokenWriter
from bluejay.train.loop import Interrupted, precision, train
from bluejay.train.metrics import read_metrics
from bluejay.train.recipe import TrainRecipe

RECIPE = """
name = "tiny"
seed = 1
output = "{path}/run"

[data]
train = [{{ shards = "{path}/tokens/train" }}]
valid = "{path}/tokens/train"
sequence_length = 32

[model]
n_layer = 2
d_model = 32
n_head = 2

[train]
tokens = 5120
batch_tokens = 128
lr = 1e-2

[evaluate]
every_steps = 20
tokens = 320

[checkpoint]
every_steps = 7
"""


@pytest.fixture
def recipe_file(tmp_path, byte_tokenizer) -> Path:
    """A corpus of the alphabet over and over, and a recipe of 40 steps for it."""
    byte_tokenizer.save(tmp_path)
    with TokenWriter(tmp_path / "tokens" / "train", byte_tokenizer.vocab_size) as writer:
        for start in range(60):
            text = "abcdefghijklmnopqrstuvwxyz"[start % 26 :] * 3
            writer.add([*byte_tokenizer.encode(text), byte_tokenizer.eot])
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(path=tmp_path))
    return file


def load(file: Path, *overrides: str) -> TrainRecipe:
    return recipes.load(TrainRecipe, file, list(overrides))


def weights(directory: Path) -> bytes:
    return (directory / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def reference(recipe_file, tmp_path) -> bytes:
    """The weights of a run that nothing disturbs."""
    train(load(recipe_file, "--output", f"{tmp_path}/reference"))
    return weights(tmp_path / "reference")


def test_the_loss_falls_and_the_model_speaks_what_it_learnt(recipe_file, tmp_path):
    trained = train(load(recipe_file, "--train.tokens", "20480"))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 5 and losses[-1] < 1
    assert trained.held_out.nats_per_token < 1
    [text] = bluejay.load(trained.model).generate("abc", bluejay.SamplingParams(max_tokens=10, temperature=0.0))
    assert text == "defghijklm"
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_stopped_by_a_signal_and_started_again_it_ends_with_the_same_bits(recipe_file, reference, tmp_path):
    file = tmp_path / "run" / "metrics.jsonl"
    stopper = threading.Thread(target=lambda: (wait_for_rows(file, 11), os.kill(os.getpid(), signal.SIGINT)))
    stopper.start()
    with pytest.raises(Interrupted, match="the same command goes on"):
        train(load(recipe_file))
    stopper.join()
    assert not (tmp_path / "run" / "model").exists()
    train(load(recipe_file))
    assert weights(tmp_path / "run") == reference
    steps = [row["step"] for row in read_metrics(file) if "loss" in row]
    assert steps == list(range(1, 41))


def test_killed_without_warning_it_ends_with_the_same_bits(recipe_file, reference, tmp_path):
    program = f"import torch; torch.set_num_threads(1); from bluejay.cli import main; main(['train', '{recipe_file}'])"
    for rows in (9, 25):
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        wait_for_rows(tmp_path / "run" / "metrics.jsonl", rows)
        process.kill()
        process.wait()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert weights(tmp_path / "run") == reference


def wait_for_rows(file: Path, count: int) -> None:
    while not file.exists() or file.read_text().count("\n") < count:
        time.sleep(0.002)


def test_accumulated_gradients_are_those_of_the_whole_batch(recipe_file, tmp_path):
    exact = ("--train.tokens", "512", "--train.precision", "float32")
    train(load(recipe_file, *exact, "--output", f"{tmp_path}/whole"))
    train(load(recipe_file, *exact, "--train.micro_batch_tokens", "32", "--output", f"{tmp_path}/parts"))
    whole, parts = (bluejay.load(tmp_path / name / "model").gpt.state_dict() for name in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=2e-4, rtol=1e-3)


def test_a_finished_run_is_not_run_again(recipe_file, tmp_path):
    first = train(load(recipe_file))
    before = (first.model / "model.safetensors").stat().st_mtime_ns
    again = train(load(recipe_file))
    assert again == first
    assert (first.model / "model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_does_not_go_on_from_this_ones_checkpoint(recipe_file):
    train(load(recipe_file, "--train.tokens", "1280"))
    with pytest.raises(ValueError, match=r"holds a run with train\.lr 0\.01, not 0\.02"):
        train(load(recipe_file, "--train.tokens", "1280", "--train.lr", "0.02"))


def test_a_full_disk_while_saving_leaves_the_older_checkpoint_to_go_on_from(
    recipe_file, reference, tmp_path, file_size_limit
):
    with file_size_limit(60_000), pytest.raises(OSError):
        train(load(recipe_file))
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    train(load(recipe_file))
    assert weights(tmp_path / "run") == reference


def test_bfloat16_learns_too(recipe_file):
    trained = train(load(recipe_file, "--train.precision", "bfloat16"))
    assert trained.held_out.nats_per_token < 3.0


def test_precision_follows_the_processor(recipe_file, monkeypatch):
    for able, expected in (({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert precision(load(recipe_file), torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (("--train.batch_token", "3"), r"unknown key train\.batch_token; did you mean batch_tokens\?"),
        (("--model.n_layers", "3"), r"unknown key n_layers; did you mean n_layer\?"),
        (("--train.lr", "fast"), r"train\.lr is 'fast'"),
        (("--train.batch_tokens", "100"), "100 is not a multiple of data.sequence_length 32"),
        (("--model.n_head", "5"), "d_model 32 is not a multiple of model.n_head 5"),
        (("--model.preset", "gpt-k"), "model.preset is 'gpt-k'; it must be one of gpt-j"),
        (("--train.schedule.warmup", "1.5"), "warmup"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(recipe_file, override, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(recipe_file, *override)


def test_what_a_run_used_is_written_beside_it_and_loads_again(recipe_file, tmp_path):
    recipe = load(recipe_file, "--train.tokens", "128", "--seed", "5")
    train(recipe)
    assert load(tmp_path / "run" / "recipe.toml") == recipe
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["n_positions"] == 32
