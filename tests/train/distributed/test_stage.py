"""What is compiled of a block is one graph, alone and where FSDP gathers its weights."""

import dataclasses
import functools
import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import draw, new_model
from bluejay.gpt.model import GPT
from bluejay.train.data.batches import TrainBatch
from bluejay.train.distributed import parallel
from bluejay.train.distributed import stage as stages
from bluejay.train.distributed.sharded_weights import load_weights
from bluejay.train.distributed.stage import Stage
from bluejay.train.recipe import Mesh, Train

CONFIG = GPTConfig(n_layer=3, d_model=32, n_head=2, vocab_size=259, n_ctx=32)


def compile_blocks(recompute: str, directory: Path) -> None:
    """Run compiled blocks forward and backward twice; note the breaks, the graphs and the loss."""
    torch.compile = functools.partial(torch.compile, backend="aot_eager")  # graphs are the same, and no C++ is compiled
    with parallel.init_world(Mesh(), timedelta(minutes=10)) as world:
        with torch.device("meta"):
            model = GPT(CONFIG)
        stage = Stage(model, None, Train(tokens=1, batch_tokens=1, recompute=recompute, compile=True))
        parallel.parallelize(world, stage, "float32")
        load_weights(model, lambda name, shape, region, device: draw(CONFIG, 0, name, shape, region, device))
        tokens = torch.arange(64).view(2, 32)
        losses = []
        for _ in range(2):
            loss = stage(inputs=tokens, targets=tokens + 1, weights=None, scale=1 / tokens.numel())
            loss.backward()
            losses.append(loss.item())
        seen = (sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"], losses)
        (directory / f"{world.size}-{world.rank}.json").write_text(json.dumps(seen))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_blocks_are_compiled_without_a_break_alone_and_under_fsdp(recompute, processes, tmp_path):
    for count in (1, 2):
        for process in (started := processes(compile_blocks, recompute, tmp_path, count=count)):
            process.join(600)
        assert [process.exitcode for process in started] == [0] * count
    seen = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("?-?.json"))]
    assert len(seen) == 3
    for breaks, graphs, losses in seen:
        assert (breaks, graphs) == (0, 1)
        assert losses == pytest.approx(seen[0][2], rel=1e-5)


def test_examples_do_not_attend_to_each_other_although_documents_do(monkeypatch):
    tokens, starts = torch.arange(32).view(1, 32) % 7, torch.arange(32).view(1, 32) // 8 * 8
    batch = TrainBatch(tokens, tokens + 1, starts=starts)
    monkeypatch.setattr(stages, "has_varlen", lambda device: True)  # as on a GPU
    masked, crossing = (Stage(new_model(CONFIG, 3), eot, Train(tokens=1, batch_tokens=1)) for eot in (0, None))
    nats, also = (one(scale=None, **vars(batch)) for one in (masked, crossing))
    torch.testing.assert_close(also, nats)
    assert crossing.document_bounds(batch, tokens.device).tolist() == [0, 8, 16, 24, 32]
    without = dataclasses.replace(batch, starts=None)
    assert crossing.document_bounds(without, tokens.device) is None
    assert not torch.allclose(crossing(scale=None, **vars(without)), nats)
