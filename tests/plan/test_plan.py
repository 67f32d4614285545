"""Predictions for published runs match the published figures, with one hardware description for all runs on it.

Only the share of the peak that matrix products reach was fitted to a run (docs/planning.md): for A100 to the first row
of MEGATRON, for TPU v3 to mesh-transformer-jax's benchmark on a v3-32. All other figures are predictions.
"""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.plan.hardware import Hardware, load
from bluejay.plan.plan import Plan, model_of, plan
from bluejay.plan.search import best, mesh_choices
from bluejay.train.recipe import Mesh, TrainRecipe

ROOT = Path(__file__).parents[2]
HARDWARE, RECIPES = ROOT / "recipes" / "hardware", ROOT / "recipes" / "train"
OF_2021 = ("--fused_attention", "false")


def hardware(name: str, *overrides: str) -> Hardware:
    return load(HARDWARE / f"{name}.toml", list(overrides))


def recipe(name: str, *overrides: str) -> TrainRecipe:
    return recipes.load(TrainRecipe, RECIPES / f"{name}.toml", list(overrides))


def test_gpt_j_takes_the_five_weeks_that_it_took():
    planned = plan(recipe("gpt-j-6b"), hardware("tpu-v3-256"))
    assert planned.tokens == 402_128_896_000 and planned.steps == 383_500
    assert planned.days == pytest.approx(35, rel=0.2)
    assert planned.flops == pytest.approx(1.5e22, rel=0.2)  # README of mesh-transformer-jax
    assert planned.fits


def test_gpt_neox_20b_takes_the_time_and_the_rate_that_its_paper_states():
    planned = plan(recipe("gpt-neox-20b"), hardware("a100-40gb", *OF_2021))
    assert 24 * planned.days == pytest.approx(1830, rel=0.2)
    assert megatron_rate(planned, 44, 6144, 50432) == pytest.approx(117, rel=0.2)
    assert planned.fits


PYTHIA = [("410m", 32, 1, 32, 2540), ("1b", 64, 1, 16, 4830), ("1.4b", 64, 1, 16, 7120), ("6.9b", 128, 2, 8, 33500)]
"""Size, GPUs, tensor parallelism, sequences at a time, GPU hours (Biderman et al. 2023, appendix; gpt-neox,
configs/pythia). The prediction for 2.8B is 13 % too fast, and that for 12B, of which the paper says least, 26 %."""


@pytest.mark.parametrize(("size", "gpus", "tensor", "rows", "hours"), PYTHIA)
def test_pythia_takes_the_gpu_hours_that_its_paper_states(size, gpus, tensor, rows, hours):
    model = ("--model.preset", f"pythia-{size}", "--train.micro_batch_tokens", str(2048 * rows))
    mesh = ("--mesh.shard", str(gpus // tensor), "--mesh.tensor", str(tensor))
    planned = plan(recipe("pythia-6.9b", *model, *mesh), hardware("a100-40gb", "--devices", str(gpus)))
    assert 24 * planned.days * gpus == pytest.approx(hours, rel=0.2)


def test_gpt_3_is_as_much_work_as_its_paper_states_and_a_month_on_a_thousand_gpus():
    planned = plan(recipe("gpt-3-175b"), hardware("a100-80gb", *OF_2021))
    assert planned.flops == pytest.approx(3.14e23, rel=0.2)  # Brown et al. 2020, table D.1
    assert planned.days == pytest.approx(34, rel=0.2)  # Narayanan et al. 2021, section 5.1
    assert planned.fits


MEGATRON = [
    (24, 2304, 24, 1, 1, 32, 512, 137),
    (30, 3072, 32, 2, 1, 64, 512, 138),
    (36, 4096, 32, 4, 1, 128, 512, 142),
    (40, 6144, 48, 8, 1, 256, 1024, 135),
    (48, 8192, 64, 8, 2, 512, 1536, 138),
    (60, 10240, 80, 8, 4, 1024, 1792, 140),
    (80, 12288, 96, 8, 8, 1536, 2304, 148),
    (96, 16384, 128, 8, 16, 1920, 2160, 155),
    (105, 20480, 128, 8, 35, 2520, 2520, 163),
    (128, 25600, 160, 8, 64, 3072, 3072, 163),
]
"""Layers, width, heads, tensor and pipeline parallelism, GPUs, sequences in a batch, TFLOP/s of a GPU (Narayanan et al.
2021, table 1). Their pipelines were interleaved, which is faster for the deep models."""


@pytest.mark.parametrize("row", MEGATRON)
def test_megatron_reaches_the_rates_that_its_paper_states(row):
    layers, width, heads, tensor, pipeline, gpus, rows, rate = row
    replicate = gpus // (tensor * pipeline)
    base = recipe("gpt-3-175b", "--train.batch_tokens", str(2048 * rows), "--mesh.shard", "1")
    size = {"n_layer": layers, "d_model": width, "n_head": heads}
    model = {"preset": "gpt-3-175b", "vocab_size": 51200, "tied": False} | size
    mesh = Mesh(replicate, 1, tensor, pipeline)
    train = dataclasses.replace(base.train, micro_batch_tokens=2048 * (4 if pipeline == 1 else 1))
    run = dataclasses.replace(base, model=model, mesh=mesh, train=train)
    planned = plan(run, hardware("a100-80gb", *OF_2021, "--devices", str(gpus)))
    assert megatron_rate(planned, layers, width, 51200) == pytest.approx(rate, rel=0.25)


def megatron_rate(planned: Plan, layers: int, width: int, vocabulary: int) -> float:
    """TFLOP/s of a device by equation 3 of the same paper, which includes recomputation."""
    per_token = 96 * layers * width**2 * (1 + 2048 / (6 * width) + vocabulary / (16 * layers * width))
    return per_token * planned.tokens_per_second / planned.devices / 1e12


def test_the_best_mesh_fits_and_is_no_slower_than_the_recipes_own():
    neox = recipe("gpt-neox-20b", "--mesh.shard", "-1")
    machine = hardware("a100-40gb", "--devices", "32")
    found, own = best(neox, machine), plan(neox, machine)
    assert found.fits and found.seconds.total <= own.seconds.total
    mesh = Mesh(**found.mesh)
    train = dataclasses.replace(neox.train, micro_batch_tokens=found.micro_batch_tokens, recompute=found.recompute)
    assert plan(dataclasses.replace(neox, mesh=mesh, train=train), machine) == found


def test_a_pipeline_has_a_micro_batch_for_each_stage():
    machine = hardware("a100-40gb", "--devices", "8")
    deep = recipe("gpt-neox-20b", "--mesh.shard", "1", "--mesh.tensor", "1", "--mesh.pipeline", "8")
    with pytest.raises(ValueError, match=r"needs at least 8 .* has 1; lower train\.micro_batch_tokens"):
        plan(dataclasses.replace(deep, train=dataclasses.replace(deep.train, micro_batch_tokens=None)), machine)
    few = recipe("gpt-neox-20b", "--train.batch_tokens", "8192", "--train.micro_batch_tokens", "2048")
    meshes = [
        (mesh["pipeline"], few.train.batch_tokens // (mesh["replicate"] * mesh["shard"] * micro))
        for mesh, micro in mesh_choices(few, model_of(few)[0], machine)
    ]
    assert meshes and all(micro_batches >= stages for stages, micro_batches in meshes)


def test_more_devices_take_less_time_and_less_memory_each():
    plans = [best(recipe("gpt-j-6b"), hardware("h100", "--devices", str(n))) for n in (4, 8)]
    assert plans[0].days > plans[1].days
    assert all(later.days > plans[0].days * 4 / later.devices * 0.95 for later in plans[1:])


def test_a_run_that_does_not_fit_is_reported_in_one_sentence(capsys):
    with pytest.raises(
        ValueError, match=r"does not fit on 8 x NVIDIA H100.*needs \d+\.\d GB and each has 85\.9; it fits on \d+"
    ):
        best(recipe("gpt-3-175b"), hardware("h100", "--devices", "8"))
    with pytest.raises(ValueError, match="needs 1024 processes and there are 8; --best finds a mesh"):
        plan(recipe("gpt-3-175b"), hardware("h100", "--devices", "8"))
    small = recipe("camel-case", "--init", "gpt-j-6b")
    for planner in (plan, best):
        with pytest.raises(ValueError, match=r"cannot divide.*; .*--hardware\.devices changes"):
            planner(small, hardware("h100"))
    with pytest.raises(SystemExit):
        main(["plan", str(RECIPES / "gpt-j-6b.toml"), "--hardware", str(ROOT / "recipes/hardware/a101.toml")])
    assert capsys.readouterr().err.startswith("error: no hardware at")


def test_a_small_run_has_its_price_in_cents():
    assert ", $0.09; published" in plan(recipe("gpt-j-6b-lora"), hardware("h100", "--devices", "1")).table()


def test_a_plan_that_does_not_fit_names_each_change_that_is_enough():
    too_much = ("--mesh.replicate", "8", "--mesh.tensor", "1", "--train.recompute", "none")
    machine = hardware("h100", "--devices", "8")
    planned = plan(recipe("gpt-j-6b", *too_much), machine)
    assert not planned.fits and planned.remedies == ("mesh.replicate = 1, mesh.shard = 8",)
    assert "fits if mesh.replicate = 1, mesh.shard = 8" in planned.table()
    assert plan(recipe("gpt-j-6b", *too_much, "--mesh.replicate", "1", "--mesh.shard", "8"), machine).fits
    long = ("--mesh.replicate", "1", "--mesh.shard", "8", "--mesh.tensor", "1", "--train.recompute", "none")
    planned = plan(recipe("gpt-j-6b", *long, "--train.micro_batch_tokens", "65536"), machine)
    assert [change.partition(" = ")[0] for change in planned.remedies] == [
        "train.micro_batch_tokens",
        "train.recompute",
    ]
    for change in planned.remedies:
        name, _, value = change.partition(" = ")
        micro = ("--train.micro_batch_tokens", "65536")
        assert plan(recipe("gpt-j-6b", *long, *micro, f"--{name}", value.strip('"')), machine).fits


def test_the_best_plan_chooses_the_recomputation_that_the_memory_asks_for():
    small = best(recipe("gpt-j-6b"), hardware("h100", "--devices", "8"))
    tight = best(recipe("gpt-j-6b"), hardware("h100", "--devices", "8", "--memory", "20"))
    assert small.recompute == "none" != tight.recompute


def test_the_verb_prints_a_table_or_one_json_line(capsys):
    arguments = ["plan", str(RECIPES / "gpt-j-6b.toml"), "--hardware", str(HARDWARE / "tpu-v3-256.toml")]
    main(arguments)
    table = capsys.readouterr().out
    assert all(word in table for word in ("replicate 32", "tensor 8", "fits", "tokens/s", "402,128,896,000 tokens"))
    main([*arguments, "--best", "--json", "--hardware.devices", "32", "--train.recompute=none"])
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert values["fits"] and values["devices"] == 32
    assert set(values["memory"]) == {"weights", "gradients", "optimizer", "activations", "reserved"}


@pytest.mark.parametrize(("precision", "width"), [("bfloat16", 2), ("float32", 4), ("tf32", 4)])
def test_a_frozen_model_is_held_in_the_type_of_products(precision, width):
    lora = recipe("gpt-j-6b-lora", "--train.precision", precision)
    planned = plan(lora, hardware("h100", "--devices", "1")).memory
    assert planned.weights == pytest.approx(width * model_of(lora)[0].n_parameters + planned.optimizer / 2)


def test_muon_keeps_one_moment_of_each_adapter():
    kinds, machine = ("adamw", "muon"), hardware("h100", "--devices", "1")
    adam, muon = (plan(recipe("gpt-j-6b-lora", "--train.optimizer.kind", kind), machine) for kind in kinds)
    assert muon.memory.optimizer == adam.memory.optimizer / 2


LONG = ("--train.batch_tokens", "4096", "--train.micro_batch_tokens", "4096", "--evaluate.tokens", "4096")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("--lora.targets", '["q", "gate"]'),
            "lora.targets has gate; the matrices of the model's blocks are q, k, v, out",
        ),
        (("--lora.targets", '["q", "q"]'), "lora.targets is q, q; it names each matrix once"),
        (("--data.sequence_length", "4096", *LONG), "data.sequence_length 4096 is above the 2048 tokens of"),
    ],
)
@pytest.mark.parametrize("planner", [plan, best])
def test_what_training_refuses_is_not_planned(planner, overrides, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        planner(recipe("gpt-j-6b-lora", *overrides), hardware("h100", "--devices", "1"))


def test_a_vocabulary_may_be_written_short_as_in_training():
    assert model_of(recipe("gpt-j-6b", "--model.vocab_size", "50k"))[0].vocab_size == 50_000


def test_this_machine_is_measured_where_no_hardware_is_given(capsys):
    tiny = ["--model.vocab_size", "2048", "--hardware.price", "0.5"]
    main(["plan", str(RECIPES / "quickstart.toml"), *tiny, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["fits"] and 1 < values["seconds"]["matmul"] * values["steps"] < 3600
