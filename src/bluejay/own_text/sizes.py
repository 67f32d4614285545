"""The size of a model of a user's own text and the length of its run, by the speed of this machine and the minutes."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.progress import format_duration, say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.train.distributed import parallel
from bluejay.train.distributed.device import within_memory
from bluejay.train.loop import Run, Trained, timeout
from bluejay.train.recipe import TrainRecipe
from bluejay.train.schedule import Schedule

SIZES = ((2, 64), (4, 128), (4, 192), (6, 256), (6, 384), (8, 512), (12, 768), (16, 1024))
"""Layers and width of the models to choose from."""
LEAST_TOKENS_PER_PARAMETER = 1.0
"""Training tokens for each parameter, below which a smaller model learns more in the same time (docs/log.md)."""
MOST_EPOCHS = 16
"""Repetitions of a text after which more teach nothing (Muennighoff et al. 2023, section 6)."""
FIRST_SCHEDULE, FIRST_SHARE = "constant", 0.6
"""Schedule and share of the first part of a run. The second part, which ends with a cooldown, is as long as the time
allows at the speed that the first had: a machine is not always as fast as in a trial."""
LEAST_TOKENS = 513
"""Tokens of training text below which there may not be one sequence, and nothing to be learnt."""
LEAST_STEPS = 8
"""Steps that a run has in any case."""
EVALUATIONS = 4
TRIAL_SHARE = 0.03
"""Share of the time in which the speed is measured."""
FINISH_SECONDS = 4.0
"""Time to write the model, and to start and stop."""
SMALL_MODEL = 50_000_000
"""Parameters up to which all weights of `init` are trained; of a larger model only adapters are."""


def sized(corpus: Path, directory: Path, name: str, init: str | None, seconds: float) -> TrainRecipe:
    """The recipe of the run that takes about `seconds` on this machine, by a trial of its speed."""
    n_tokens = len(TokenShard(corpus / "tokens" / "train").tokens)
    if n_tokens < LEAST_TOKENS:
        raise ValueError(f"the text gives {n_tokens:,} tokens, too few to train on; give more text, and --force")
    trial = max(1.0, TRIAL_SHARE * seconds)
    began = time.monotonic()
    if init is not None:
        chosen = training_recipe(corpus, name, init, 0, 0, 1_000_000)
        speed = speed_of(chosen, trial)
    else:
        chosen, speed = choose_size(corpus, name, seconds, n_tokens, trial)
    left = seconds - (time.monotonic() - began) - FINISH_SECONDS
    # An evaluation is a forward pass, a third of the work of a step.
    left -= EVALUATIONS * chosen.evaluate.tokens / (3 * speed)
    tokens, most = int(max(0.1 * seconds, left) * speed), MOST_EPOCHS * n_tokens
    if tokens > most:
        say(
            f"the text gives {n_tokens:,} tokens, which more than {MOST_EPOCHS} epochs teach nothing new; "
            f"the run takes {format_duration(most / speed)} in place of {format_duration(seconds)}"
        )
    shape = chosen.model.get("n_layer", 0), chosen.model.get("d_model", 0)
    recipe = training_recipe(corpus, name, init, *shape, min(tokens, most))
    epochs = recipe.train.tokens / n_tokens
    say(f"{speed:,.0f} tokens/s: about {recipe.train.tokens:,} tokens, {epochs:.1f} epochs")
    tokens = max(recipe.train.batch_tokens, int(FIRST_SHARE * recipe.train.tokens))
    warmup = max(recipe.train.schedule.warmup, warmup_of(tokens, recipe.train.batch_tokens))
    schedule = Schedule(FIRST_SCHEDULE, warmup, final=recipe.train.schedule.final)
    return dataclasses.replace(
        recipe, output=str(directory), train=dataclasses.replace(recipe.train, tokens=tokens, schedule=schedule)
    )


def with_cooldown(recipe: TrainRecipe, trained: Trained, corpus: Path, seconds: float) -> TrainRecipe:
    """The recipe that continues the first part of a run to its end in about `seconds`, by the speed that it had."""
    done, batch = recipe.train.tokens, recipe.train.batch_tokens
    speed = trained.steps * batch / max(trained.seconds, 1e-9)
    usual = (1 - FIRST_SHARE) / FIRST_SHARE * done
    more = min(max(0.2 * usual, speed * (seconds - FINISH_SECONDS)), 10 * usual)
    most = MOST_EPOCHS * len(TokenShard(corpus / "tokens" / "train").tokens)
    tokens = max(done + batch, min(int(done + more), most))
    cooldown = min(0.3, (tokens - done) / tokens)
    schedule = dataclasses.replace(recipe.train.schedule, kind="wsd", cooldown=cooldown)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, tokens=tokens, schedule=schedule))


def choose_size(corpus: Path, name: str, seconds: float, n_tokens: int, trial: float) -> tuple[TrainRecipe, float]:
    """The largest model that sees enough tokens in the time, and its speed in tokens per second."""
    chosen: tuple[TrainRecipe, float] | None = None
    vocab_size = Tokenizer.load(corpus).vocab_size
    for n_layer, d_model in SIZES:
        recipe = training_recipe(corpus, name, None, n_layer, d_model, 1_000_000)
        speed = speed_of(recipe, trial)
        config = recipe.gpt_config(vocab_size)
        tokens = min(speed * seconds, MOST_EPOCHS * n_tokens)
        if chosen is not None and tokens < LEAST_TOKENS_PER_PARAMETER * config.n_parameters:
            break
        chosen = recipe, speed
        # The next size is about twice as slow; one that is sure to see too little is not tried.
        if tokens / 2 < 0.7 * LEAST_TOKENS_PER_PARAMETER * config.n_parameters:
            break
    assert chosen is not None
    return chosen


def training_recipe(corpus: Path, name: str, init: str | None, n_layer: int, d_model: int, tokens: int) -> TrainRecipe:
    """A recipe for a corpus: a GPT-J of a size, or the further training of the model `init`."""
    length = 512 if init or d_model > 192 else 256
    if init is not None:
        length = min(length, open_model(locate(init)).config.n_ctx)
    held_out = len(TokenShard(corpus / "tokens" / "valid").tokens) if (corpus / "tokens").is_dir() else 10**6
    batch = min(max(2 * length, 1 << max(0, round(tokens / 1000).bit_length() - 1)), 16_384)
    steps = max(LEAST_STEPS, tokens // batch)
    head = 32 if d_model < 384 else 64
    values: dict[str, Any] = {
        "name": name,
        "data": {"train": [{"shards": str(corpus / "tokens" / "train")}], "sequence_length": length},
        "train": {
            "tokens": max(tokens, LEAST_STEPS * batch),
            "batch_tokens": batch,
            "schedule": {"kind": "wsd", "warmup": warmup_of(steps * batch, batch), "cooldown": 0.3, "final": 0.0},
            "optimizer": {"kind": "adamw", "betas": [0.9, 0.98], "weight_decay": 0.1},
        },
        "evaluate": {"every_steps": max(1, steps // EVALUATIONS), "tokens": min(32_768, max(length, held_out))},
        "checkpoint": {"every_steps": max(1, steps // EVALUATIONS), "every_minutes": 5.0},
    }
    if init is None:
        values["model"] = {
            "preset": "gpt-j",
            "n_layer": n_layer,
            "d_model": d_model,
            "n_head": d_model // head,
            "rotary_dim": head // 2,
        }
        values["train"]["lr"] = round(3e-3 * min(1.0, (192 / d_model) ** 0.75), 5)
    else:
        large = open_model(locate(init)).config.n_parameters > SMALL_MODEL
        values |= {"init": init} | ({"lora": {"rank": 16, "alpha": 32.0}} if large else {})
        values["train"]["lr"] = 1e-3 if large else 5e-4
    return recipes.check(TrainRecipe, values, "the recipe")


def warmup_of(tokens: int, batch_tokens: int) -> float:
    """The share of a run in which the learning rate rises, at least one step of it."""
    return max(0.03, 1.01 / -(-tokens // batch_tokens))


def speed_of(recipe: TrainRecipe, seconds: float) -> float:
    """Training tokens per second of a recipe on this machine, by some of its steps, which are thrown away."""
    with (
        tempfile.TemporaryDirectory() as folder,
        parallel.init_world(recipe.mesh, timeout(recipe)) as world,
        within_memory(),
    ):
        run = Run(dataclasses.replace(recipe, output=folder), world)
        durations: list[float] = []
        while len(durations) < 4 or sum(durations[2:]) < seconds:
            began = time.perf_counter()
            run.stepper.gradient(run.batches.batch(len(durations), world.data_shard))
            run.stepper.update(0.0)
            durations.append(time.perf_counter() - began)
    measured = durations[2:]  # the first ones are slower: memory is allocated, kernels are chosen
    return recipe.train.batch_tokens * len(measured) / sum(measured)
