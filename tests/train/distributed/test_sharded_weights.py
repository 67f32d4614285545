"""A model too large for one process is drawn and exported by several, each with its part in memory."""

import json
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.huggingface import write_model
from bluejay.gpt.formats.layouts import load_model
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.init import draw, new_model
from bluejay.gpt.model import GPT
from bluejay.train.distributed import parallel
from bluejay.train.distributed.sharded_weights import gather_weights, load_weights
from bluejay.train.distributed.stage import Stage
from bluejay.train.recipe import Mesh, Train

SMALL = GPTConfig(n_layer=4, d_model=32, n_head=2, vocab_size=259, n_ctx=32)
LARGE = GPTConfig(n_layer=32, d_model=512, n_head=8, vocab_size=4096, n_ctx=32)
MESHES = {
    "shard 4": Mesh(shard=4),
    "replicate 2 x shard 2": Mesh(replicate=2),
    "shard 2 x tensor 2": Mesh(tensor=2),
    "tensor 2 x pipeline 2": Mesh(tensor=2, pipeline=2),
}


def private_bytes() -> int:
    """The memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def draw_and_export(config: GPTConfig, mesh: Mesh, tokenizer, directory: Path) -> None:
    """Draw a model on a mesh and write it to a directory."""
    with parallel.init_world(mesh, timedelta(minutes=10)) as world:
        export(config, world, tokenizer, directory / "model")


def measure(config: GPTConfig, mesh: Mesh, tokenizer, directory: Path) -> None:
    """Do so, and note how much memory that takes above what a small model has taken before."""
    with parallel.init_world(mesh, timedelta(minutes=10)) as world:
        export(SMALL, world, tokenizer, directory / "small")
        before, most, done = private_bytes(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.002):
                most.append(private_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        export(config, world, tokenizer, directory / "model")
        done.set()
        watcher.join()
        (directory / f"memory-{world.rank}.json").write_text(json.dumps(max(most) - before))


def export(config: GPTConfig, world: parallel.World, tokenizer, path: Path) -> None:
    with torch.device("meta"):
        model = GPT(config)
    stage = Stage(model, None, Train(tokens=1, batch_tokens=1), *world.axis("pipeline"))
    parallel.parallelize(world, stage, "float32")
    load_weights(model, lambda name, shape, region, device: draw(config, 5, name, shape, region, device))

    def write(weights: Mapping[str, torch.Tensor]) -> None:
        write_model(StoredModel(config, weights.__getitem__, torch.float32, lambda: tokenizer, 0), path)

    gather_weights(world, model, write)


def run(processes, function, *arguments) -> None:
    started = processes(function, *arguments, count=4)
    for process in started:
        process.join(900)
    assert [process.exitcode for process in started] == [0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_a_model_drawn_and_exported_on_a_mesh_is_that_of_one_process(mesh, processes, byte_tokenizer, tmp_path):
    run(processes, draw_and_export, SMALL, mesh, byte_tokenizer, tmp_path)
    written, expected = load_model(tmp_path / "model").state_dict(), new_model(SMALL, 5).state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_each_of_four_processes_needs_a_quarter_of_the_weights_and_a_tensor(processes, byte_tokenizer, tmp_path):
    run(processes, measure, LARGE, Mesh(shard=4), byte_tokenizer, tmp_path)
    with torch.device("meta"):
        sizes = [4 * weight.numel() for weight in GPT(LARGE).parameters()]
    used = [json.loads((tmp_path / f"memory-{rank}.json").read_text()) for rank in range(4)]
    print(f"weights {sum(sizes):,} bytes, the largest {max(sizes):,}; used by each process: {used}")
    assert max(used) < sum(sizes) / 4 + 2 * max(sizes)
