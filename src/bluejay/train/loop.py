"""The training loop, with checkpoints, evaluation and interruption, so that no work is lost."""

import contextlib
import dataclasses
import datetime
import math
import os
import shutil
import signal
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.infer.backends.native import say_absent
from bluejay.mistakes import Interrupted, stop_signals
from bluejay.progress import say, unfailing_messages
from bluejay.train.checkpoint.checkpoints import Checkpoints, without_process_group_warning
from bluejay.train.checkpoint.longer import before_cooldown, how_it_continues, keep_models, missed_models, rename_others
from bluejay.train.checkpoint.result import Result, hashes_of, read_result, write_result
from bluejay.train.checkpoint.state import State, check_same_run
from bluejay.train.checkpoint.trained_on import is_model_of
from bluejay.train.data.batches import Batches, TrainBatch, check_files, open_sources
from bluejay.train.data.content import hash_of_model
from bluejay.train.data.held_out import HeldOutLoss, HeldOutText
from bluejay.train.data.read_ahead import ReadAhead
from bluejay.train.distributed import parallel
from bluejay.train.distributed.device import bfloat16_is_fast, reads_late, within_memory
from bluejay.train.distributed.parallel import World
from bluejay.train.distributed.run_directory import run_directory
from bluejay.train.distributed.sharded_weights import gather_weights, load_weights, not_finite
from bluejay.train.distributed.stage import Stage
from bluejay.train.distributed.watchdog import Watchdog, start_watchdog
from bluejay.train.initial import adapter_of, initial_model
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import Mesh, TrainRecipe
from bluejay.train.report.generations import continue_prompts
from bluejay.train.report.metrics import PICTURES, draw_run
from bluejay.train.report.profile import check_steps_left, profiler
from bluejay.train.report.reporter import Reporter, reporter
from bluejay.train.schedule import learning_rate
from bluejay.train.step import MAX_ROLLBACKS, TOO_FAST, Launched, Step, advance, largest, spike_reason, without_last


@dataclass(frozen=True)
class Trained:
    """The result of a finished run."""

    model: Path
    """The model directory."""
    steps: int
    """Optimizer steps."""
    seconds: float
    """Seconds spent training, without interruptions."""
    held_out: HeldOutLoss
    """The last evaluation."""

    def summary(self) -> str:
        """The result in one line."""
        return (
            f"{self.model}: {self.steps:,} steps in {self.seconds:,.0f} s; held-out loss "
            f"{self.held_out.nats_per_token:.3f} nats per token, {self.held_out.bits_per_byte:.3f} bits per byte"
        )


def train(recipe: TrainRecipe, profile: bool = False, more_follows: bool = False) -> Trained:
    """Run a recipe to its end, from its newest checkpoint if there is one. A finished run is not repeated.

    A run that is interrupted at any point and started again ends with bit-identical weights. `profile` also writes
    PyTorch's trace of a few steps. Raises Interrupted after SIGINT, SIGTERM or SIGHUP, once the state is saved, in the
    last step only if more training follows; ValueError or OSError for errors that the user can correct, among them that
    another run owns the directory and that the device's memory is not enough.
    """
    with (
        unfailing_messages(),
        parallel.init_world(recipe.mesh, timeout(recipe)) as world,
        run_directory(recipe.directory, world, shared=recipe.checkpoint.storage is None),
        within_memory(),
    ):
        run = Run(recipe, world)
        if profile:
            check_steps_left(recipe.steps - run.state.step)
        run.begin()
        return run.finish() if run.state.step == recipe.steps else run.train(profile, more_follows)


def export(recipe: TrainRecipe, step: int) -> Path:
    """Write the model of the checkpoint `step-N` to `model-step-N` in the run's directory, and return that path.
    Another model that has that name is renamed.

    Raises ValueError if there is no such checkpoint or it is damaged.
    """
    with parallel.init_world(Mesh(), timeout(recipe)) as world, within_memory():
        return Run(recipe, world, step).keep_model()


class Run:
    """The state of a run: model, optimizer, data and checkpoints.

    A run resumes from its newest checkpoint, or from that of `step`. Raises ValueError or FileNotFoundError if recipe,
    data, model and checkpoint do not fit together.
    """

    def __init__(self, recipe: TrainRecipe, world: World, step: int | None = None) -> None:
        self.recipe, self.world = recipe, world
        check_files(recipe.data)
        self.directory = recipe.directory
        self.initial = initial_model(recipe)
        self.tokenizer = self.initial.tokenizer
        length = recipe.data.sequence_length
        parallel.check_mesh(world, self.initial.config, length)
        if recipe.train.compile and world.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise ValueError("train.compile needs a C++ compiler, g++ or $CXX; install one, or set it to false")
        sources = open_sources(recipe.data, self.tokenizer)
        self.batches = Batches(sources, recipe.data.train, recipe.batch_rows, recipe.seed, recipe.steps)
        self.held_out = HeldOutText.of(recipe, self.tokenizer, sources)
        self.checkpoints = Checkpoints(self.directory / "checkpoints", recipe.checkpoint, recipe.cooldown_step)
        self.rollbacks: list[int] = []
        self.launched: deque[Launched] = deque()
        self.flags: tuple[bool, ...] = (False, False, False)
        """Whether any process was stopped, failed to save, or has waited long enough since it saved."""
        self.settled, self.clock = 0.0, time.monotonic
        precision = recipe.train.matmul_precision(bfloat16_is_fast(world.device))
        inputs = {f"data.train.{number}": source.content() for number, source in enumerate(sources)}
        inputs |= {} if recipe.init is None else {"init": hash_of_model(recipe.init)}
        self.state = State(0, dataclasses.asdict(recipe), self.tokenizer.sha256, precision, 0.0, inputs=inputs)
        found = self.checkpoints.newest() if step is None else self.checkpoints.at(step)
        self.shorter: TrainRecipe | None = None
        if found and step is not None:  # it is only exported, so the length is that of its run
            self.state.recipe["train"] |= {name: found[1].recipe["train"][name] for name in ("tokens", "schedule")}
        if found:
            check_same_run(found[1], self.state, self.directory)
        if not found:
            recipe.train.schedule.check_used()
        if found and step is None:
            found, self.shorter = before_cooldown(self.checkpoints, found, recipe)
        if found:
            self.state = dataclasses.replace(found[1], recipe=self.state.recipe, inputs=inputs)
        self.model = self.initial.model(world.device, self.state.precision)
        eot = self.tokenizer.eot if recipe.data.mask_documents else None
        stage = Stage(self.model, eot, recipe.train, *world.axis("pipeline"))
        parallel.parallelize(world, stage, self.state.precision)
        self.optimizer = make_optimizer(self.model, recipe.train.optimizer)
        self.stepper = Step(recipe, world, stage, self.optimizer, self.state.precision)
        if found:
            self.checkpoints.load(found[0], self.model, self.optimizer)
        elif recipe.lora is None:
            load_weights(self.model, self.initial.weight)
        self.check_weights("the model that the run starts from" if not found else str(found[0]), True)

    def begin(self) -> None:
        """Say how a shorter run continues, and keep its models under other names; then say which model is replaced, and
        which are missing."""
        if not self.world.is_main:
            return
        if self.shorter is not None:
            say(how_it_continues(self.shorter, self.recipe, self.state.step))
            keep_models(self.directory, self.written(), self.shorter.steps)
        if not self.state.step and (model := self.directory / "model").exists() and read_result(self.directory):
            say(f"no checkpoint of the run that wrote {model} is left: training begins anew and replaces it at the end")
        if missed := missed_models(self.checkpoints, self.recipe, self.state.step):
            say(f"WARNING: {missed}")

    def train(self, profile: bool, more_follows: bool = False) -> Trained:
        """Train to the end and return the result. Raises Interrupted if the user stops the run."""
        recipe = self.recipe
        if self.world.is_main:
            recipes.save(recipe, self.directory / "recipe.toml")
        self.checkpoints.remove_stale(self.state.step)
        if self.world.is_main and self.world.device.type == "cpu":
            say_absent()
        size = f"{self.model.config.n_parameters / 1e6:,.1f} M parameters"
        self.say(f"training {recipe.name}: {size}, {recipe.steps:,} steps, {self.state.precision}, in {self.directory}")
        if self.state.step:
            self.say(f"resuming after step {self.state.step:,}")
        self.steps(profile, more_follows)
        return self.finish()

    def keep_model(self) -> Path:
        """Write the model after this step to `model-step-N`; one of another run or schedule is renamed."""
        path = self.directory / f"model-step-{self.state.step}"
        if self.world.is_main and path.exists() and not is_model_of(path, self.state):
            rename_others(path, adapter_of(path))
        self.export(path)
        return path

    def export(self, path: Path) -> None:
        """Write the model as it is. Every process must call this."""
        gather_weights(self.world, self.model, lambda weights: self.initial.export(weights, path, self.state))

    def steps(self, profile: bool, more_follows: bool) -> None:
        """The loop over the steps: evaluates, saves and rolls back when due, and stops when asked to."""
        recipe, kept = self.recipe, self.recipe.checkpoint.kept_steps(self.recipe.steps)
        with (
            stop_signals() as signals,
            start_watchdog(recipe.guard.stuck_minutes, self.world.rank, self.world.size) as watchdog,
            without_process_group_warning(),
            reporter(recipe, self.model.config, self.world, self.state, self.held_out.bytes_per_token) as report,
            profiler(self.directory / "profile", profile and self.world.is_main) as trace,
            contextlib.closing(ReadAhead(self.read, self.world.device.type == "cuda")) as ahead,
        ):
            self.clock = watchdog.clock
            while self.state.step < recipe.steps:
                problem = self.step(ahead, watchdog, report, bool(signals))
                if trace is not None:
                    trace.step()
                if self.world.size == 1:
                    self.flags = bool(signals), self.checkpoints.failed, self.checkpoints.overdue
                launched = self.state.step + len(self.launched)
                if self.state.consecutive_skips >= recipe.guard.patience:
                    self.launched.clear()  # it has no part in what follows
                elif any(self.flags) or launched in (*kept, recipe.steps) or self.acts_after(launched):
                    problem = self.settle(report, 0) or problem
                if self.launched:
                    continue
                if self.state.consecutive_skips >= recipe.guard.patience:
                    self.roll_back(str(problem), report)
                    continue
                step, last = self.state.step, self.state.step == recipe.steps
                evaluates = last or step % recipe.evaluate.every_steps == 0
                if evaluates and self.rolled_back(report):
                    continue
                if evaluates:
                    watchdog.doing("the held-out text")
                    self.evaluate(report)
                (stop, failed, due), self.flags = self.flags, (False, False, False)
                due = due or self.checkpoints.keeps(step)
                if failed:
                    self.checkpoints.wait()
                if (stop or due) and not evaluates and self.rolled_back(report):
                    continue
                if step in kept:
                    watchdog.doing("writing the model")
                    self.keep_model()
                if last or stop or due:
                    watchdog.doing("saving")
                    report.sync()
                    self.checkpoints.save(self.state, self.model, self.optimizer)
                if last or stop:
                    self.checkpoints.wait()
                if (signals and more_follows) if last else stop:
                    message = f"stopped after step {step:,} of {recipe.steps:,}; run the same command to resume"
                    raise Interrupted(message, signals[0] if signals else signal.SIGTERM)  # another process got it

    def read(self, number: int) -> TrainBatch:
        """This process's part of a batch."""
        return self.batches.batch(number, self.world.data_shard)

    def acts_after(self, step: int) -> bool:
        """Whether the weights after a step are looked at or kept."""
        return step % self.recipe.evaluate.every_steps == 0 or self.checkpoints.keeps(step)

    def step(self, ahead: ReadAhead, watchdog: Watchdog, report: Reporter, stopped: bool) -> str | None:
        """Take one step; on a device that is not waited for, the figures of the step before are read then. Returns the
        reason if the step that they are of was skipped, else None."""
        began = self.clock()
        settings, step = self.recipe.train, self.state.step + len(self.launched)
        watchdog.doing(f"the batch of step {step + 1}")
        batch = ahead.batch(step + self.state.batches_skipped)
        watchdog.doing(f"step {step + 1}")
        flags = (stopped, self.checkpoints.failed, self.checkpoints.overdue)
        state = self.state if self.launched else without_last(self.state)
        lr = learning_rate(step, self.recipe.steps, settings.lr, settings.schedule)
        self.launched.append(Launched(self.stepper.launch(batch, flags), state, lr, began))
        if reads_late(self.world.device):
            self.stepper.update(lr, self.launched[-1].figures.refused(largest(state, self.recipe.guard)))
            return self.settle(report, 1)
        if problem := self.settle(report, 0):
            self.stepper.discard()
        else:
            self.stepper.update(lr)
        return problem

    def settle(self, report: Reporter, but: int) -> str | None:
        """Read the figures of the launched steps but for the last ones. Returns the last reason for which a step was
        skipped."""
        problem = None
        while len(self.launched) > but:
            one = self.launched.popleft()
            gradient = one.figures.read()
            problem = spike_reason(gradient, one.state, self.recipe.guard)
            if problem is not None:
                self.say(f"WARNING: step {self.state.step + 1:,} is skipped: {problem}")
            now = self.clock()
            seconds, self.settled = now - max(one.began, self.settled), now
            state = advance(self.state, gradient, problem, self.recipe.guard)
            self.state = dataclasses.replace(state, seconds=state.seconds + seconds)
            self.flags = tuple(a or b for a, b in zip(self.flags, gradient.flags, strict=True))
            report.stepped(self.state, gradient, one.lr, seconds, problem)
        return problem

    def roll_back(self, problem: str, report: Reporter) -> None:
        """Roll back to the last permanent checkpoint and skip the batches trained on since.

        Raises ValueError if the recipe does not allow it, there is no such checkpoint, or it has not helped before.
        """
        here = self.state
        in_a_row = f"steps skipped in a row: {here.consecutive_skips:,}, the last of them step {here.step:,}: "
        where = (in_a_row if here.consecutive_skips else "") + problem
        if self.recipe.guard.spike != "back":
            raise ValueError(f'{where}; lower train.lr, or set guard.spike = "back" to skip these batches')
        self.checkpoints.wait()
        found = self.checkpoints.newest(here.step - here.consecutive_skips, permanent=True)
        if found is None:
            raise ValueError(f"{where}; there is no permanent checkpoint to roll back to yet")
        path, state = found
        self.rollbacks.append(state.step)
        if self.rollbacks.count(state.step) > MAX_ROLLBACKS:
            raise ValueError(f"{where}; {MAX_ROLLBACKS} rollbacks to step {state.step:,} did not help; lower train.lr")
        self.checkpoints.load(path, self.model, self.optimizer)
        self.checkpoints.remove_stale(state.step)
        batches_skipped = here.step + here.batches_skipped - state.step
        self.state = dataclasses.replace(
            state, batches_skipped=batches_skipped, skipped=here.skipped, seconds=here.seconds
        )
        self.say(
            f"WARNING: {where}; back to step {state.step:,}, past {batches_skipped - state.batches_skipped:,} batches"
        )
        report.rolled_back(state, here.step, problem)

    def say(self, message: str) -> None:
        """Print one line for the user, in the main process only."""
        if self.world.is_main:
            say(message)

    def evaluate(self, report: Reporter) -> None:
        """Measure the held-out loss, generate the sample continuations, and report both."""
        held_out = self.measure()
        texts = continue_prompts(self.model, self.tokenizer, self.recipe.evaluate) if self.world.size == 1 else {}
        report.evaluated(self.state, held_out, texts)

    def measure(self) -> HeldOutLoss:
        """The held-out loss of the weights as they are. Raises ValueError, naming where, if it is not a number."""
        held_out = self.held_out.measure(self.stepper.nll)
        if not math.isfinite(held_out.nats_per_token):
            step = f"the model after step {self.state.step:,}"
            self.check_weights(step)
            where = next((name for name, value in held_out.components.items() if not math.isfinite(value)), None)
            of = f" of {where}" if where else ""
            raise ValueError(f"the loss of {step} on the held-out text{of} is {held_out.nats_per_token}; {TOO_FAST}")
        return held_out

    def check_weights(self, of: str, frozen: bool = False) -> None:
        """Raise ValueError in every process if a trained weight in any of them, or a frozen one, is not finite."""
        wrong = self.checkpoints.gather(not_finite(self.stepper.stage, frozen))
        if name := next(filter(None, wrong), None):
            raise ValueError(f"{of} has values in {name} that are not finite numbers; {TOO_FAST}")

    def rolled_back(self, report: Reporter) -> bool:
        """Whether the run was rolled back because weights are no numbers; raises ValueError if that is not allowed."""
        try:
            self.check_weights(f"the model after step {self.state.step:,}")
        except ValueError as problem:
            if self.recipe.guard.spike != "back":
                raise
            self.roll_back(str(problem), report)
            return True
        return False

    def finish(self) -> Trained:
        """Write the model directory and the plots of a run whose last step is done, and measure its held-out loss,
        where that has not been done for this checkpoint and this held-out text."""
        saved, held_out_data = self.checkpoints.marker(self.state.step), self.held_out.content()
        model = self.directory / "model"
        done = read_result(self.directory) if self.world.is_main else None
        now = hashes_of(self.directory, *self.written()) if self.world.is_main else {}
        same = done is not None and done.checkpoint == saved
        whole = done is not None and bool(done.files) and done.files.items() <= now.items()
        measure, write = self.world.any(
            self.world.is_main and not (same and done is not None and done.held_out_data == held_out_data),
            self.world.is_main and not (same and whole),
        )
        known: Any = self.checkpoints.gather({} if done is None else done.held_out)[0]
        held_out = self.measure() if measure else HeldOutLoss(**known)
        if write:
            own = not self.world.is_main or (is_model_of(model, self.state) if done is None else done.files == now)
            rename_others(*(() if own else map(self.directory.joinpath, self.written())))
            self.export(model)
        if self.world.is_main and (write or measure):
            files, on = hashes_of(self.directory, *self.written()), (self.world.machine, self.world.size)
            write_result(self.directory, Result(saved, dataclasses.asdict(held_out), held_out_data, files, *on))
        drawn = all((self.directory / picture).exists() for picture in PICTURES)
        if self.world.is_main and (write or measure or not drawn):
            draw_run(self.directory, self.recipe.name)
        return Trained(model, self.state.step, self.state.seconds, held_out)

    def written(self) -> list[str]:
        """The folders of a finished run's models that exist in its directory."""
        names = ["model"] + ["adapter"] * (self.recipe.lora is not None)
        return [name for name in names if (self.directory / name).exists()]


def timeout(recipe: TrainRecipe) -> datetime.timedelta:
    """How long a collective operation may take: longer than the watchdog, which names the stuck process first."""
    return datetime.timedelta(minutes=4 * recipe.guard.stuck_minutes)
