"""Training: the loop, and what surrounds it so that no work is lost."""

import contextlib
import dataclasses
import datetime
import os
import shutil
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from bluejay import recipe as recipes
from bluejay.progress import say
from bluejay.train.checkpoint.checkpoints import Checkpoints, alone
from bluejay.train.checkpoint.state import State, check_same_run
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.data.held_out import HeldOut, HeldOutText
from bluejay.train.distributed import parallel
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.stage import Stage
from bluejay.train.distributed.watchdog import watchdog
from bluejay.train.initial import initial_model
from bluejay.train.optimizer import learning_rate, make_optimizer
from bluejay.train.recipe import Mesh, TrainRecipe
from bluejay.train.report.generations import samples
from bluejay.train.report.metrics import draw_learning_rate, draw_loss, read_metrics
from bluejay.train.report.profile import profiler
from bluejay.train.report.reporter import report
from bluejay.train.spikes import MAX_ROLLBACKS, advance, spike_reason
from bluejay.train.step import Step


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


@dataclass(frozen=True)
class Trained:
    """What a finished run gives."""

    model: Path
    """The model directory."""
    steps: int
    seconds: float
    """Time spent training, over all its interruptions."""
    held_out: HeldOut

    def summary(self) -> str:
        """The result in one line."""
        return (
            f"{self.model}: {self.steps:,} steps in {self.seconds:,.0f} s; held-out loss "
            f"{self.held_out.nats_per_token:.3f} nats per token, {self.held_out.bits_per_byte:.3f} bits per byte"
        )


def train(recipe: TrainRecipe, profile: bool = False) -> Trained:
    """Run a recipe to its end, from its newest checkpoint if there is one. A finished run is not run again.

    Interrupted at any point and called again, it ends with the same bits. `profile` also writes PyTorch's trace of a
    few steps. Raises Interrupted after SIGINT or SIGTERM, once the state is saved; ValueError or OSError for what the
    user can mend.
    """
    with parallel.init_world(recipe.mesh, timeout(recipe)) as world:
        run = Run(recipe, world)
        return run.finish() if run.state.step == recipe.steps else run.train(profile)


def export(recipe: TrainRecipe, step: int) -> Path:
    """Write the model that a run had after a step, from its checkpoint, as `model-step-N` in the run's folder.

    Raises ValueError where there is no such checkpoint or it is damaged.
    """
    with parallel.init_world(Mesh(), timeout(recipe)) as world:
        run = Run(recipe, world, step)
        path = run.directory / f"model-step-{step}"
        run.initial.export(dict(run.model.named_parameters()), path)
    return path


class Run:
    """One run: its model, its data, its place on disk. It begins at its newest checkpoint, or at that of a step."""

    def __init__(self, recipe: TrainRecipe, world: World, step: int | None = None) -> None:
        self.recipe, self.world = recipe, world
        self.directory = recipe.directory
        self.initial = initial_model(recipe)
        self.tokenizer = self.initial.tokenizer
        parallel.check_mesh(world, self.initial.config, recipe.data.sequence_length)
        if recipe.train.compile and world.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise ValueError(
                "train.compile needs a C++ compiler, g++ or what CXX names; install it, or set it to false"
            )
        rows = recipe.train.batch_tokens // recipe.data.sequence_length
        sources = open_sources(recipe.data, self.tokenizer)
        self.batches = Batches(sources, recipe.data.train, rows, recipe.seed, recipe.steps)
        self.held_out = HeldOutText(
            recipe.data.valid, recipe.data.sequence_length, recipe.evaluate.tokens, self.tokenizer
        )
        self.eot = self.tokenizer.eot if recipe.data.mask_documents else None
        self.checkpoints = Checkpoints(self.directory / "checkpoints", recipe.checkpoint)
        self.returns: list[int] = []
        self.state = State(0, recipe.same_run(), self.tokenizer.sha256, precision(recipe, world.device), 0.0)
        found = self.checkpoints.newest() if step is None else self.checkpoints.at(step)
        if found:
            check_same_run(found[1], self.state, self.directory)
            self.state = dataclasses.replace(found[1], recipe=self.state.recipe)
        self.model = self.initial.model(world.device, self.state.precision)
        stage = Stage(self.model, self.eot, recipe.train, *world.at("pipeline"))
        parallel.parallelize(world, stage, self.state.precision)
        self.optimizer = make_optimizer(self.model, recipe.train.optimizer)
        if found:
            self.checkpoints.load(found[0], self.model, self.optimizer)
        else:
            parallel.load_weights(self.model, self.initial.weights())
        self.stepper = Step(recipe, world, stage, self.optimizer, self.state.precision)

    def train(self, profile: bool) -> Trained:
        """Step until the end, or until the user stops it."""
        recipe = self.recipe
        if self.world.main:
            recipes.save(recipe, self.directory / "recipe.toml")
        self.checkpoints.tidy(self.state.step)
        size = f"{self.model.config.n_parameters / 1e6:,.1f} M parameters"
        self.say(f"training {recipe.name}: {size}, {recipe.steps:,} steps, {self.state.precision}, in {self.directory}")
        if self.state.step:
            self.say(f"going on after step {self.state.step:,}")
        self.steps(profile)
        return self.finish()

    def steps(self, profile: bool) -> None:
        """What happens between the steps, and when."""
        recipe = self.recipe
        with (
            stop_signals() as signals,
            watchdog(recipe.guard.stuck_minutes, self.world.rank, self.world.size) as self.dog,
            alone(),
            report(recipe, self.model.config, self.world, self.state, self.held_out.bytes_per_token) as self.report,
            profiler(self.directory / "profile", profile and self.world.main) as trace,
        ):
            while self.state.step < recipe.steps:
                problem = self.step()
                if trace is not None:
                    trace.step()
                if self.state.consecutive_skips >= recipe.guard.patience:
                    self.roll_back(str(problem))
                    continue
                step, last = self.state.step, self.state.step == recipe.steps
                if last or step % recipe.evaluate.every_steps == 0:
                    self.dog.doing("the held-out text")
                    self.evaluate()
                stop, failed, due = self.world.any(bool(signals), self.checkpoints.failed, self.checkpoints.due(step))
                if failed:
                    self.checkpoints.settle()
                if last or stop or due:
                    self.dog.doing("saving")
                    self.report.sync()
                    self.checkpoints.save(self.state, self.model, self.optimizer)
                if last or stop:
                    self.checkpoints.settle()
                if stop and not last:
                    stopped = f"stopped after step {step:,} of {recipe.steps:,}; the same command goes on"
                    raise Interrupted(stopped, signals[0] if signals else signal.SIGTERM)  # another process got it

    def step(self) -> str | None:
        """One step; gives back why the weights did not take its gradient, if they did not."""
        began = time.monotonic()
        settings, step = self.recipe.train, self.state.step
        self.dog.doing(f"the batch of step {step + 1}")
        batch = self.batches.batch(step + self.state.batches_skipped, self.world.data)
        self.dog.doing(f"step {step + 1}")
        gradient = self.stepper.gradient(batch)
        problem = spike_reason(gradient, self.state, self.recipe.guard)
        lr = learning_rate(step, self.recipe.steps, settings.lr, settings.schedule)
        if problem is None:
            self.stepper.update(lr)
        else:
            self.stepper.drop()
            self.say(f"WARNING: step {step + 1:,} is skipped: {problem}")
        seconds = time.monotonic() - began
        state = advance(self.state, gradient, problem, self.recipe.guard)
        self.state = dataclasses.replace(state, seconds=state.seconds + seconds)
        self.report.stepped(self.state, gradient, lr, seconds, problem)
        return problem

    def roll_back(self, problem: str) -> None:
        """Give up the steps since the last checkpoint that is kept for good, and pass over their batches.

        Raises ValueError where the recipe does not want it, or it cannot help.
        """
        here = self.state
        where = f"step {here.step:,} was the {here.consecutive_skips}th in a row to be skipped: {problem}"
        if self.recipe.guard.spike != "back":
            raise ValueError(f'{where}; lower train.lr, or let guard.spike = "back" look for a way round')
        self.checkpoints.settle()
        found = self.checkpoints.newest(until=here.step - here.consecutive_skips)
        if found is None:
            raise ValueError(f"{where}; there is no checkpoint to go back to, for none was due before")
        path, state = found
        self.returns.append(state.step)
        if self.returns.count(state.step) > MAX_ROLLBACKS:
            raise ValueError(
                f"{where}; going back to step {state.step:,} did not help {MAX_ROLLBACKS} times; lower train.lr"
            )
        self.checkpoints.load(path, self.model, self.optimizer)
        self.checkpoints.tidy(state.step)
        batches_skipped = here.step + here.batches_skipped - state.step
        self.state = dataclasses.replace(
            state, batches_skipped=batches_skipped, skipped=here.skipped, seconds=here.seconds
        )
        self.say(
            f"WARNING: {where}; back to step {state.step:,}, past {batches_skipped - state.batches_skipped:,} batches"
        )
        self.report.rolled_back(state, here.step, problem)

    def say(self, message: str) -> None:
        """One line for the user, from the first process."""
        if self.world.main:
            say(message)

    def evaluate(self) -> None:
        """Measure the held-out loss and note it."""
        held_out = self.held_out.measure(self.stepper.nll)
        said = samples(self.model, self.tokenizer, self.recipe.evaluate) if self.world.size == 1 else {}
        self.report.evaluated(self.state, held_out, said)

    def finish(self) -> Trained:
        """Write the model directory and the picture of a run whose last step is done, unless they are there."""
        rows = read_metrics(self.directory / "metrics.jsonl")
        model = self.directory / "model"
        if any(self.world.any(not (model / "config.json").exists())):
            weights = parallel.gather_weights(self.world, self.model)
            if self.world.main:
                self.initial.export(weights, model)
        for draw, name in ((draw_loss, "loss.png"), (draw_learning_rate, "learning_rate.png")):
            if self.world.main and not (self.directory / name).exists():
                draw(rows, self.recipe.name, self.directory / name)
        last = next(row for row in reversed(rows) if "valid_loss" in row)
        held_out = HeldOut(last["valid_loss"], last["valid_bits_per_byte"], last.get("valid_bits_per_byte_of", {}))
        return Trained(model, self.state.step, self.state.seconds, held_out)


def timeout(recipe: TrainRecipe) -> datetime.timedelta:
    """How long a process waits for the others: longer than the watchdog, which says who is stuck."""
    return datetime.timedelta(minutes=4 * recipe.guard.stuck_minutes)


def precision(recipe: TrainRecipe, device: torch.device) -> str:
    """The type of the matrix products: the recipe's, or what this machine multiplies fast.

    Without instructions for it, bfloat16 is up to a hundred times slower than float32 on x86.
    """
    if recipe.train.precision != "auto":
        return recipe.train.precision
    able = torch.cpu.get_capabilities()
    fast = device.type != "cpu" or any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if fast else "float32"


@contextlib.contextmanager
def stop_signals() -> Generator[list[int]]:
    """A list of the requests to stop, SIGINT or SIGTERM. A second SIGINT stops at once; whoever sends SIGTERM sends
    SIGKILL when the patience ends."""
    caught: list[int] = []

    def catch(number: int, _: object) -> None:
        if signal.SIGINT in caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not caught:
            say("stopping after this step, to save its state")
        caught.append(number)

    previous = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
