"""A run that is stopped anywhere ends with the same bits as one that is not."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bluejay
from bluejay.cli import main
from bluejay.mistakes import Interrupted
from bluejay.tokens import TokenWriter
from bluejay.train import loop
from bluejay.train.data.held_out import HeldOutLoss, HeldOutText
from bluejay.train.distributed.device import bfloat16_is_fast
from bluejay.train.loop import train
from bluejay.train.report.metrics import read_metrics
from bluejay.train.step import spike_reason
from tests.waiting import PATIENCE, eventually


@pytest.fixture
def reference(recipe_file, load_recipe, weights, tmp_path) -> bytes:
    """The weights of a run that nothing disturbs."""
    train(load_recipe(recipe_file, "--output", f"{tmp_path}/reference"))
    return weights(tmp_path / "reference")


def test_the_loss_falls_and_the_model_speaks_what_it_learnt(recipe_file, tmp_path, load_recipe, plots):
    trained = train(load_recipe(recipe_file, "--train.tokens", "20480"))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 5 and losses[-1] < 1
    assert trained.held_out.nats_per_token < 1
    [text] = bluejay.load(trained.model).generate("abc", bluejay.SamplingParams(max_tokens=10, temperature=0.0))
    assert text == "defghijklm"
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_stopped_by_a_signal_and_started_again_it_ends_with_the_same_bits(
    recipe_file, reference, tmp_path, load_recipe, weights
):
    file = tmp_path / "run" / "metrics.jsonl"
    stopper = threading.Thread(target=lambda: (wait_for_rows(file, 11), os.kill(os.getpid(), signal.SIGINT)))
    stopper.start()
    with pytest.raises(Interrupted, match="run the same command to resume"):
        train(load_recipe(recipe_file))
    stopper.join()
    assert not (tmp_path / "run" / "model").exists()
    train(load_recipe(recipe_file))
    assert weights(tmp_path / "run") == reference
    steps = [row["step"] for row in read_metrics(file) if "loss" in row]
    assert steps == list(range(1, 41))


def wait_for_rows(file: Path, count: int) -> None:
    while not file.exists() or file.read_text().count("\n") < count:
        time.sleep(0.002)


def test_a_signal_in_the_last_step_stops_what_follows_it(recipe_file, tmp_path, load_recipe, monkeypatch):
    recipe, measure = load_recipe(recipe_file, *SHORT), loop.Run.measure

    def stopped(run: loop.Run) -> HeldOutLoss:
        signal.raise_signal(signal.SIGTERM)
        return measure(run)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 10 of 10"):
        patch.setattr(loop.Run, "measure", stopped)
        train(recipe, more_follows=True)
    assert not (tmp_path / "run/model").exists()
    assert train(recipe, more_follows=True).steps == 10  # it is done, and its model is written


def test_accumulated_gradients_are_those_of_the_whole_batch(recipe_file, tmp_path, load_recipe):
    exact = ("--train.tokens", "512", "--train.precision", "float32")
    train(load_recipe(recipe_file, *exact, "--output", f"{tmp_path}/whole"))
    train(load_recipe(recipe_file, *exact, "--train.micro_batch_tokens", "32", "--output", f"{tmp_path}/parts"))
    whole, parts = (bluejay.load(tmp_path / name / "model").gpt.state_dict() for name in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=2e-4, rtol=1e-3)


SHORT = ("--train.tokens", "1280", "--checkpoint.every_steps", "5")
"""A run of ten steps."""


def test_what_cannot_change_the_result_may_change_and_inputs_are_known_by_content(
    recipe_file, tmp_path, load_recipe, weights, byte_tokenizer
):
    first = train(load_recipe(recipe_file, *SHORT))
    shutil.copytree(tmp_path / "tokens", tmp_path / "moved" / "tokens")
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "moved")
    elsewhere = ("--data.train", f'[{{shards = "{tmp_path}/moved/tokens/train"}}]')
    others = ("--name", "x", "--train.micro_batch_tokens", "64", "--train.recompute", "full")
    assert train(load_recipe(recipe_file, *SHORT, *elsewhere, *others)) == first
    with TokenWriter(tmp_path / "tokens" / "train", byte_tokenizer.vocab_size) as writer:
        for _ in range(60):
            writer.add([*byte_tokenizer.encode("the cat " * 9), byte_tokenizer.eot])
    with pytest.raises(ValueError, match=r"holds a run whose data\.train\.0 had another content"):
        train(load_recipe(recipe_file, *SHORT))
    # The held-out text, which changes no weight, is measured anew instead.
    again = train(load_recipe(recipe_file, *SHORT, *elsewhere))
    assert again.held_out != first.held_out and weights(tmp_path / "run")
    assert train(load_recipe(recipe_file, *SHORT, *elsewhere)) == again


def test_a_folder_has_one_run_at_a_time(recipe_file, tmp_path, load_recipe, processes):
    long = load_recipe(recipe_file, "--train.tokens", "51200000")
    [first] = processes(train, long)
    assert eventually(lambda: (tmp_path / "run" / "checkpoints" / "step-7").exists())
    with pytest.raises(ValueError, match=rf"run is in use by process {first.pid} on "):
        train(long)
    assert first.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_run_whose_log_nobody_reads_saves_its_state_all_the_same(number, recipe_file, load_recipe, tmp_path):
    read, write = os.pipe()
    long = (*SHORT[2:], "--train.tokens", "51200000", "--evaluate.prompts", '["abc"]', "--evaluate.every_steps", "2")
    command = "import sys; from bluejay.cli import main; main(sys.argv[1:])"
    run = subprocess.Popen([sys.executable, "-c", command, "train", str(recipe_file), *long], stderr=write)
    os.close(write)
    assert eventually(lambda: (tmp_path / "run" / "checkpoints" / "step-5").exists())
    os.close(read)
    assert eventually(lambda: (tmp_path / "run" / "checkpoints" / "step-15").exists())  # it goes on, and writes samples
    run.send_signal(number)
    assert run.wait(PATIENCE) == 128 + number
    states = sorted((tmp_path / "run" / "checkpoints").glob("step-*"), key=lambda path: path.stat().st_mtime)
    assert not (tmp_path / "run" / "owner.json").exists() and (states[-1] / "state.json").exists()


def test_paths_begin_at_home(recipe_file, load_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe(recipe_file, *SHORT, "--output", "~/there", "--data.valid", "~/tokens/train")
    assert recipe.directory == tmp_path / "there" and recipe.data.valid == f"{tmp_path}/tokens/train"
    assert train(recipe).model == tmp_path / "there" / "model"


@pytest.mark.parametrize("name", ["price_$5_and_$6_x", "[/red] \\frac{", "a\tb $", "日本"])
def test_a_name_is_plain_text(name, recipe_file, load_recipe, tmp_path, plots):
    recipe = dataclasses.replace(load_recipe(recipe_file, *SHORT), name=name)
    train(recipe)
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "run" / "learning_rate.png").unlink()  # the last file to be written, before which a run may be killed
    train(recipe)
    assert (tmp_path / "run" / "learning_rate.png").exists()


def test_numbers_that_are_none_end_in_one_sentence_that_names_where(recipe_file, load_recipe, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"the model after step \d+ has values in .* that are not finite|held-out text"
    ):
        train(load_recipe(recipe_file, *SHORT, "--train.lr", "1e38", "--train.schedule.warmup", "0.0"))
    assert not (tmp_path / "run" / "model").exists()

    def broken(self: HeldOutText, nll: object) -> HeldOutLoss:
        return HeldOutLoss(float("nan"), float("nan"), {"Books": 1.0, "Github": float("nan")})

    monkeypatch.setattr(HeldOutText, "measure", broken)
    with pytest.raises(ValueError, match=r"the loss of the model after step 10 on the held-out text of Github is nan"):
        train(load_recipe(recipe_file, *SHORT, "--output", f"{tmp_path}/other"))
    assert not (tmp_path / "other" / "model").exists()


def test_a_model_whose_weights_are_no_numbers_is_not_trained(recipe_file, load_recipe, tmp_path):
    base = train(load_recipe(recipe_file, *SHORT)).model
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name][0, 0] = float("inf")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    text = recipe_file.read_text()
    recipe_file.write_text(text[: text.index("[model]")] + text[text.index("[train]") :])
    tuned = (*SHORT, "--init", str(base), "--train.schedule.warmup", "0.2", "--output", f"{tmp_path}/tuned")
    for adapters in ((), ("--lora.rank", "2")):
        with pytest.raises(ValueError, match=r"the run starts from has values in .* that are not finite numbers"):
            train(load_recipe(recipe_file, *tuned, *adapters))


def test_another_recipe_does_not_go_on_from_this_ones_checkpoint(recipe_file, load_recipe):
    train(load_recipe(recipe_file, "--train.tokens", "1280"))
    with pytest.raises(ValueError, match=r"holds a run with train\.lr 0\.01, not 0\.02"):
        train(load_recipe(recipe_file, "--train.tokens", "1280", "--train.lr", "0.02"))


def test_a_full_disk_while_saving_leaves_the_older_checkpoint_to_go_on_from(
    recipe_file, reference, tmp_path, file_size_limit, load_recipe, weights
):
    with file_size_limit(60_000), pytest.raises(OSError):
        train(load_recipe(recipe_file))
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    train(load_recipe(recipe_file))
    assert weights(tmp_path / "run") == reference


@pytest.mark.slow
def test_bfloat16_learns_too(recipe_file, load_recipe):
    trained = train(load_recipe(recipe_file, "--train.precision", "bfloat16"))
    assert trained.held_out.nats_per_token < 3.0


def test_precision_follows_the_processor(recipe_file, monkeypatch, load_recipe):
    settings = load_recipe(recipe_file).train
    for able, expected in (({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert settings.matmul_precision(bfloat16_is_fast(torch.device("cpu"))) == expected


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
        (("--seed", "18446744073709551616"), "seed is 18446744073709551616"),
        (("--seed", "-1"), "seed is -1"),
        (("--train.optimizer.betas", "[1.5, 0.9]"), r"train\.optimizer\.betas\.0 is 1\.5"),
        (("--train.optimizer.weight_decay", "-0.1"), r"train\.optimizer\.weight_decay is -0\.1"),
        (("--train.optimizer.eps", "nan"), r"train\.optimizer\.eps is nan"),
        (("--train.z_loss", "-1.0"), r"train\.z_loss is -1\.0"),
        (("--train.lr", "inf"), r"train\.lr is inf"),
        (("--train.micro_batch_tokens", "0"), r"train\.micro_batch_tokens is 0"),
        (("--guard.stuck_minutes", "inf"), r"guard\.stuck_minutes is inf"),
        (("--evaluate.tokens", "16"), r"evaluate\.tokens 16 is below data\.sequence_length 32"),
        (("--name", ""), r"name is ''"),
        (("--output", "~nobody-of-that-name/x"), "there is no such home folder"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(recipe_file, override, sentence, load_recipe):
    with pytest.raises(ValueError, match=sentence):
        load_recipe(recipe_file, *override)


def test_what_a_run_used_is_written_beside_it_and_loads_again(recipe_file, tmp_path, load_recipe):
    recipe = load_recipe(recipe_file, "--train.tokens", "128", "--seed", "5")
    train(recipe)
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["n_positions"] == 32


@pytest.fixture
def bad_batches(monkeypatch):
    """Lets the guard find some batches bad, by number; returns the list of those that were tried."""

    def use(bad: range, stop_at: int | None = None) -> list[int]:
        tried = []

        def judge(gradient, state, settings):
            tried.append(state.step + state.batches_skipped)
            if tried[-1] == stop_at and tried.count(stop_at) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return "it is bad" if tried[-1] in bad else spike_reason(gradient, state, settings)

        monkeypatch.setattr(loop, "spike_reason", judge)
        return tried

    return use


def test_skipped_steps_change_nothing_and_are_told(recipe_file, load_recipe, tmp_path, bad_batches):
    bad_batches(range(5, 8))
    train(load_recipe(recipe_file, "--train.tokens", str(128 * 8), "--checkpoint.every_steps", "1"))
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows if row.get("skipped") == "it is bad"] == [6, 7, 8]
    before, after = (saved(tmp_path, step) for step in (5, 8))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "run" / "checkpoints" / "step-8" / "state.json").read_text())["skipped"] == 3


def saved(path: Path, step: int) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of one process."""
    [file] = (path / "run" / "checkpoints" / f"step-{step}").glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
def test_a_run_goes_back_past_bad_batches_and_that_too_survives_a_stop(
    recipe_file, load_recipe, weights, tmp_path, bad_batches
):
    back = ("--guard.spike", "back", "--guard.patience", "3")
    tried = bad_batches(range(17, 20))
    train(load_recipe(recipe_file, *back))
    assert tried == [*range(20), *range(20, 46)]
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 41))
    assert [(row["step"], row["went_back_from"]) for row in rows if "went_back_from" in row] == [(14, 20)]
    for stop_at in (18, 24):  # before it goes back, and after
        elsewhere = (*back, "--output", f"{tmp_path}/stopped-at-{stop_at}")
        bad_batches(range(17, 20), stop_at)
        with pytest.raises(Interrupted):
            train(load_recipe(recipe_file, *elsewhere))
        train(load_recipe(recipe_file, *elsewhere))
        assert weights(tmp_path / f"stopped-at-{stop_at}") == weights(tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "bad", "sentence"),
    [
        (
            ("--train.lr", "1e30"),
            range(0),
            r"steps skipped in a row: 10, the last of them step \d+: its .* is nan; lower train.lr",
        ),
        (("--guard.spike", "back"), range(3, 99), "there is no permanent checkpoint to roll back to yet"),
        (
            ("--guard.spike", "back", "--guard.patience", "3"),
            range(15, 99),
            "3 rollbacks to step 14 did not help",
        ),
    ],
)
def test_a_run_that_cannot_go_on_says_so(recipe_file, load_recipe, bad_batches, overrides, bad, sentence):
    bad_batches(bad)
    with pytest.raises(ValueError, match=sentence):
        train(load_recipe(recipe_file, *overrides))


def test_a_damaged_checkpoint_costs_steps_and_not_the_run(
    recipe_file, load_recipe, reference, weights, tmp_path, capsys, bad_batches
):
    bad_batches(range(0), stop_at=24)
    with pytest.raises(Interrupted):
        train(load_recipe(recipe_file))
    [file] = (tmp_path / "run" / "checkpoints" / "step-25").glob("*.safetensors")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    train(load_recipe(recipe_file))
    assert "WARNING" in (said := capsys.readouterr().err) and "the run resumes from step-21" in said
    assert weights(tmp_path / "run") == reference


@pytest.mark.slow
def test_the_model_of_any_checkpoint_can_be_exported(recipe_file, load_recipe, tmp_path, capsys):
    train(load_recipe(recipe_file))
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    main(["train", str(recipe_file), "--export", "14"])
    path = tmp_path / "run" / "model-step-14"
    assert str(path) in capsys.readouterr().out
    exported, there = bluejay.load(path).gpt.state_dict(), saved(tmp_path, 14)
    assert all(torch.equal(exported[name], there[f"model.{name}"]) for name in exported)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(recipe_file), "--export", "15"])
    assert "has no checkpoint of step 15; it has 7, 14, 21, 28, 35, 40" in capsys.readouterr().err
    longer = ("--train.tokens", "7680", "--train.schedule.kind", "wsd")  # of what is only exported, it does not matter
    main(["train", str(recipe_file), "--export", "21", *longer])
    recorded = json.loads((tmp_path / "run" / "model-step-21" / "trained_on.json").read_text())["recipe"]["train"]
    assert (recorded["tokens"], recorded["schedule"]["kind"]) == (5120, "cosine")
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(recipe_file), "--export", "7", "--output", str(tmp_path / "none")])
    assert "has no checkpoint of step 7; it has none" in capsys.readouterr().err


def test_compiling_without_a_compiler_is_one_sentence(recipe_file, load_recipe, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"train\.compile needs a C\+\+ compiler"):
        train(load_recipe(recipe_file, "--train.compile", "true"))
