"""What the tests of training share: a corpus, a recipe of 40 steps for it, and processes that train by it."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bluejay import recipe as recipes
from bluejay.tokens import TokenWriter
from bluejay.train.recipe import TrainRecipe
from tests.train.ranks import as_rank

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


@pytest.fixture(scope="session")
def load_recipe() -> Callable[..., TrainRecipe]:
    """Reads a recipe with overrides, such as `load_recipe(file, "--seed", "2")`."""
    return lambda file, *overrides: recipes.load(TrainRecipe, file, list(overrides))


@pytest.fixture(scope="session")
def weights() -> Callable[[Path], bytes]:
    """Reads the weights that a run ended with, to the bit."""
    return lambda directory: (directory / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def processes(tmp_path):
    """Starts functions in processes, forked from one that has imported the trainer; kills them after the test.

    `processes(function, *arguments, count=2)` gives them the environment that torchrun would, and lets them write their
    standard error to `tmp_path / "stderr-RANK"`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.forked"])
    started = []

    def start(function: Callable[..., None], *arguments: object, count: int = 1) -> list:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        new = [
            context.Process(target=as_rank, args=(rank, count, port, tmp_path, function, arguments))
            for rank in range(count)
        ]
        for process in new:
            process.start()
        started.extend(new)
        return new

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()
