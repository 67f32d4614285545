"""A run on any mesh of processes is the run of one process, and each mesh goes on from the checkpoint of any other."""

import dataclasses
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.gpt.model import GPT
from bluejay.train.checkpoint.checkpoints import Checkpoints, without_process_group_warning
from bluejay.train.distributed import parallel
from bluejay.train.distributed.parallel import TENSOR_STYLES, World
from bluejay.train.distributed.sharded_weights import gather_weights
from bluejay.train.loop import Run
from bluejay.train.recipe import Mesh, TrainRecipe

STEPS, SAVED = 20, 10
ONE = Mesh()
MESHES = {
    "one process": ONE,
    "shard 2": Mesh(shard=2),
    "replicate 2": Mesh(replicate=2, shard=1),
    "tensor 2": Mesh(tensor=2),
    "pipeline 2": Mesh(pipeline=2),
    "shard 2 x tensor 2": Mesh(shard=2, tensor=2),
    "replicate 2 x pipeline 2": Mesh(replicate=2, pipeline=2),
    "tensor 2 x pipeline 2": Mesh(tensor=2, pipeline=2),
}
QUICK = ("one process", "shard 2", "tensor 2", "pipeline 2")


def run_on(recipe: TrainRecipe, mesh: Mesh, directory: Path) -> None:
    """Train for some steps, save after half of them, and write down what each gave."""
    recipe = dataclasses.replace(recipe, mesh=mesh)
    with parallel.init_world(mesh, timedelta(minutes=5)) as world, without_process_group_warning():
        run = Run(recipe, world)
        seen = []
        for number in range(STEPS):
            gradient = run.stepper.gradient(run.batches.batch(number, world.data_shard))
            run.stepper.update(1e-2)
            seen.append((gradient.loss, gradient.norm))
            if number + 1 == SAVED:
                saved = dataclasses.replace(run.state, step=SAVED)
                checkpoints = Checkpoints(directory, recipe.checkpoint)
                checkpoints.save(saved, run.model, run.optimizer)
                checkpoints.wait()
                gather_weights(world, run.model, lambda all_: save_file(dict(all_), directory / "weights.safetensors"))
        nats = run.held_out.measure(run.stepper.nll).nats_per_token
        (directory / f"process-{world.rank}.json").write_text(json.dumps([seen, nats]))


def go_on(recipe: TrainRecipe, mesh: Mesh, directories: list[Path], results: Path) -> None:
    """Load the checkpoints of several runs; say whether the weights are the saved ones, and the next steps' losses."""
    recipe = dataclasses.replace(recipe, mesh=mesh)
    with parallel.init_world(mesh, timedelta(minutes=5)) as world, without_process_group_warning():
        run = Run(recipe, world)
        seen = []
        for directory in directories:
            path, _ = Checkpoints(directory, recipe.checkpoint).at(SAVED)
            run.checkpoints.load(path, run.model, run.optimizer)
            weights = gather_weights(world, run.model, dict) or {}
            saved = load_file(directory / "weights.safetensors") if world.is_main else {}
            same = weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)
            gradient = [run.stepper.gradient(run.batches.batch(SAVED, world.data_shard)), run.stepper.update(1e-2)][0]
            after = run.stepper.gradient(run.batches.batch(SAVED + 1, world.data_shard))
            run.stepper.discard()
            seen.append((same, gradient.loss, after.loss))
        results.with_name(f"{results.name}-{world.rank}").write_text(json.dumps(seen))


def evaluate(recipe: TrainRecipe, mesh: Mesh, directory: Path) -> None:
    """Measure the held-out loss before the first step."""
    recipe = dataclasses.replace(recipe, mesh=mesh)
    with parallel.init_world(mesh, timedelta(minutes=5)) as world:
        run = Run(recipe, world)
        nats = run.held_out.measure(run.stepper.nll).nats_per_token
        (directory / f"nats-{world.size}-{world.rank}").write_text(repr(nats))


def all_together(processes, function, mesh, *arguments) -> None:
    """Run a function in all processes of a mesh."""
    count = mesh.replicate * max(1, mesh.shard) * mesh.tensor * mesh.pipeline
    started = processes(function, *arguments, count=count)
    for process in started:
        process.join(900)
    assert [process.exitcode for process in started] == [0] * count


def compare(
    processes, recipe: TrainRecipe, names: tuple[str, ...], tmp_path: Path, rel: float, norms: float, fall: float = 1.0
) -> None:
    """Train on each mesh, the first one process, then go on from the checkpoint of each on each: the same losses within
    `rel`, the same norms of gradients within `norms`."""
    found = {}
    for name in names:
        directory = tmp_path / name
        directory.mkdir()
        all_together(processes, run_on, MESHES[name], recipe, MESHES[name], directory)
        answers = [json.loads(file.read_text()) for file in directory.glob("process-*.json")]
        assert all(answer == answers[0] for answer in answers), "the processes do not agree"
        found[name] = answers[0]
    steps, nats = found[names[0]]
    assert steps[-1][0] < steps[0][0] - fall
    for name, (other, other_nats) in found.items():
        assert [loss for loss, _ in other] == pytest.approx([loss for loss, _ in steps], rel=rel), name
        assert [norm for _, norm in other] == pytest.approx([norm for _, norm in steps], rel=norms), name
        assert other_nats == pytest.approx(nats, rel=rel), name
    for name in names:
        results = tmp_path / f"from {name}"
        all_together(processes, go_on, MESHES[name], recipe, MESHES[name], [tmp_path / n for n in names], results)
        for (same, *losses), origin in zip(json.loads(Path(f"{results}-0").read_text()), names, strict=True):
            assert same, f"{name} from {origin}"
            assert losses == pytest.approx([loss for loss, _ in steps[SAVED : SAVED + 2]], rel=rel), (name, origin)


EXACT = ("--train.precision", "float32", "--train.micro_batch_tokens", "32")


HEAD_NORMS_AND_WINDOW = ("--model.preset", "qwen3-0.6b", "--model.n_kv_head", "2", "--model.head_dim", "16")
HEAD_NORMS_AND_WINDOW += ("--model.tied", "false", "--model.window", "8", "--model.local_layers", "[1]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "model"),
    [(QUICK, ()), (tuple(MESHES), ()), (QUICK, HEAD_NORMS_AND_WINDOW)],
    ids=["quick", "all", "norms of heads and a window"],
)
def test_every_mesh_gives_the_losses_of_one_process_and_goes_on_from_every_checkpoint(
    processes, recipe_file, load_recipe, tmp_path, names, model
):
    # The vocabulary of 259 does not divide by two.
    norms = 1e-4 if model else 1e-5
    compare(processes, load_recipe(recipe_file, *EXACT, *model), names, tmp_path, rel=1e-5, norms=norms)


def test_a_pipeline_measures_fewer_rows_than_it_has_stages(processes, recipe_file, load_recipe, tmp_path):
    recipe = load_recipe(recipe_file, *EXACT, "--evaluate.tokens", "32", "--train.tokens", "128")
    evaluate(recipe, ONE, tmp_path)
    all_together(processes, evaluate, MESHES["pipeline 2"], recipe, MESHES["pipeline 2"], tmp_path)
    alone, *staged = (float(file.read_text()) for file in sorted(tmp_path.glob("nats-*")))
    assert staged == pytest.approx([alone, alone], rel=1e-5)


def test_a_step_of_too_few_micro_batches_for_the_pipeline_is_one_sentence(recipe_file, load_recipe, monkeypatch):
    monkeypatch.setattr(World, "axis", lambda _, axis: (0, 2 if axis == "pipeline" else 1))
    with pytest.raises(ValueError, match=r"needs at least 2 .* has 1; lower train\.micro_batch_tokens"):
        Run(load_recipe(recipe_file), World(torch.device("cpu")))


SPREAD = ("one process", "shard 2", "replicate 2", "tensor 2", "pipeline 2", "shard 2 x tensor 2")
UNSPLIT = ("one process", "shard 2", "replicate 2", "pipeline 2", "replicate 2 x pipeline 2")
"""For adapters, which `tensor` does not share out."""


@pytest.mark.slow
def test_so_does_muon(processes, recipe_file, load_recipe, tmp_path):
    # It turns matrices in bfloat16, where the last bit of a gradient can change the third digit of a number.
    recipe = load_recipe(recipe_file, *EXACT, "--train.optimizer.kind", "muon")
    compare(processes, recipe, SPREAD, tmp_path, rel=1e-3, norms=1e-2)


@pytest.mark.slow
def test_so_does_bfloat16(processes, recipe_file, load_recipe, tmp_path):
    recipe = load_recipe(recipe_file, *EXACT, "--train.precision", "bfloat16")
    compare(processes, recipe, SPREAD, tmp_path, rel=0.03, norms=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rel", "norms"), [("float32", 1e-5, 1e-5), ("bfloat16", 0.01, 0.1)])
def test_so_do_adapters(processes, recipe_file, load_recipe, tmp_path, byte_tokenizer, precision, rel, norms):
    config = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=32)
    save_model(new_model(config, seed=2), byte_tokenizer, tmp_path / "base")
    # Without [model], which the base is.
    recipe_file.write_text(re.sub(r"\[model\][^\[]*", "", recipe_file.read_text()))
    adapters = ("--init", str(tmp_path / "base"), "--lora.rank", "4", "--train.schedule.warmup", "0.1")
    recipe = load_recipe(recipe_file, *EXACT, "--train.precision", precision, *adapters)
    compare(processes, recipe, UNSPLIT, tmp_path, rel, norms, fall=0.1)


@pytest.mark.slow
def test_so_do_compiled_blocks(processes, recipe_file, load_recipe, tmp_path):
    recipe = load_recipe(recipe_file, *EXACT)
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    plain.mkdir(), compiled.mkdir()
    all_together(processes, run_on, ONE, recipe, ONE, plain)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compile=True))
    compare(processes, recipe, ("one process", "shard 2", "tensor 2"), compiled, rel=1e-5, norms=1e-5)
    losses = [json.loads((path / "process-0.json").read_text())[0] for path in (plain, compiled / "one process")]
    assert torch.tensor(losses[1]) == pytest.approx(torch.tensor(losses[0]), rel=1e-5)


def test_the_table_knows_every_layer_that_has_weights():
    everything = GPTConfig(
        n_layer=1, d_model=8, n_head=2, vocab_size=9, learned_positions=True, gated=True, n_norm=2, qk_norm=True
    )
    with torch.device("meta"):
        names = {name.rpartition(".")[0] for name, _ in GPT(everything).named_parameters()}
    assert {name.rpartition(".")[2] for name in names} == set(TENSOR_STYLES)


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        (Mesh(tensor=2, shard=1), r"1 x 1 x 2 x 1 .* needs 2 processes and there are 4; --processes"),
        (Mesh(replicate=3), r"3 x 1 x 1 x 1 .* needs 3 processes and there are 4"),
    ],
)
def test_a_mesh_of_another_size_than_the_processes_is_one_sentence(mesh, sentence):
    with pytest.raises(ValueError, match=sentence):
        mesh.sizes(4)


def test_the_axis_shard_takes_the_processes_that_are_left():
    assert Mesh().sizes(1) == {"replicate": 1, "shard": 1, "tensor": 1, "pipeline": 1}
    assert Mesh(replicate=2, tensor=2).sizes(12)["shard"] == 3
    with pytest.raises(ValueError, match=r"mesh\.tensor is 0; it must be at least 1"):
        Mesh(tensor=0)


@pytest.mark.parametrize(
    ("config", "axes", "sentence"),
    [
        ({"vocab_size": 9, "n_head": 8}, {"tensor": 8}, r"vocab_size 9 leaves some of mesh\.tensor 8 .*; 15 would be"),
        ({"n_head": 2}, {"tensor": 4}, r"model\.n_head 2 is not a multiple of mesh\.tensor 4"),
        ({"n_head": 4, "n_kv_head": 2}, {"tensor": 4}, r"model\.n_kv_head 2 is not a multiple"),
        ({"d_ff": 33}, {"tensor": 2}, r"model\.d_ff 33"),
        ({"n_layer": 2}, {"pipeline": 3}, r"mesh\.pipeline 3 is more than the 2 blocks"),
        ({"tied": True, "head_bias": False}, {"pipeline": 2}, r"mesh\.pipeline above 1 needs model\.tied = false"),
    ],
)
def test_what_cannot_be_shared_out_evenly_is_one_sentence(monkeypatch, config, axes, sentence):
    shape = {"n_layer": 2, "d_model": 32, "n_head": 2, "vocab_size": 260, "n_ctx": 64} | config
    monkeypatch.setattr(World, "axis", lambda _, axis: (0, axes.get(axis, 1)))
    with pytest.raises(ValueError, match=sentence):
        parallel.check_mesh(World(torch.device("cpu")), GPTConfig(**shape), 32)
