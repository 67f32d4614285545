"""What a GPU makes of the code: equality with the CPU, and speed and memory of training and of decoding.

    python benchmarks/gpu.py --part a --output a.jsonl     equality with the CPU, training
    python benchmarks/gpu.py --part b --output b.jsonl     GPT-J-6B, larger models

Each check has a process of its own, so that one that fails or hangs leaves the others alone. Checks go in rounds, the
most important ones first: those of a round build and compile at the same time, then measure one after the other. Every
figure is a JSON line, written as soon as it is known. A part ends after `--seconds`, whatever is left of it. `--tiny`
rehearses all of it on a CPU, without compiling.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # or a question about CUDA would spoil it for forks
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")

import torch
from gpu_checks import inference, training
from gpu_checks.rig import H100_PEAK, Check, Setting

ROUNDS = {"a": training.ROUNDS, "b": inference.ROUNDS}
DRIVER = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia")
"""One of them is there where a GPU is; to ask CUDA would spoil it for the processes of the checks."""
PREPARATION, MEASUREMENT = 90.0, 45.0
"""Seconds that a check may take, at most, to build and compile, and to measure."""
SECONDS_TO_END = 5.0
"""How long a killed process is waited for, whose driver may be busy."""
TIME_IS_UP = "left out: the time is up"


class Log:
    """Where the rows go: standard output, and a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.began = path, time.monotonic()
        self.rows: list[dict[str, Any]] = []

    def write(self, check: Check, **figures: Any) -> None:
        """Add a row."""
        row = {"check": check.number, "name": check.name, **figures, "at": round(time.monotonic() - self.began, 1)}
        self.rows.append(row)
        line = json.dumps(row)
        print(line, flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(line + "\n")


def work(check: Check, setting: Setting, turn: Connection) -> None:
    """The process of a check: prepare, wait for its turn, measure."""
    sys.stdout = sys.stderr  # standard output has nothing but rows
    try:
        if setting.tiny:
            torch.set_num_threads(1)
            if setting.traced:
                torch.compiler.set_stance("default", force_backend="aot_eager")
            else:
                torch.compiler.set_stance("force_eager")
        torch.manual_seed(0)
        began = time.monotonic()
        measure = check.prepare(setting)
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
        turn.send(("ready", round(time.monotonic() - began, 1)))
        turn.recv()
        for row in measure():
            turn.send(("row", row))
        turn.send(("done", None))
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"
        print(traceback.format_exc(), file=sys.stderr)
        turn.send(("error", text))


def run_round(checks: Sequence[Check], setting: Setting, log: Log, end: float) -> None:
    """Prepare the checks of a round together, then measure each by itself. At `end`, by the clock of `time.monotonic`,
    what is not done is left out."""
    if time.monotonic() > end:
        for check in checks:
            log.write(check, error=TIME_IS_UP)
        return
    context: Any = multiprocessing.get_context(start_method())
    pipes: dict[Connection, tuple[Check, Any]] = {}
    for check in checks:
        mine, theirs = context.Pipe()
        process = context.Process(target=work, args=(check, setting, theirs))
        process.start()
        theirs.close()
        pipes[mine] = check, process
    ready: list[Connection] = []
    pending, deadline = list(pipes), min(end, time.monotonic() + PREPARATION)
    while pending and (left := deadline - time.monotonic()) > 0:
        for pipe in wait(pending, left):
            assert isinstance(pipe, Connection)
            pending.remove(pipe)
            if receive(pipe, pipes[pipe][0], log) == "ready":
                ready.append(pipe)
    for pipe in pending:
        why = TIME_IS_UP if time.monotonic() > end else f"not ready within {PREPARATION:.0f} s"
        log.write(pipes[pipe][0], error=why)
        pipes[pipe][1].kill()
    for pipe in [pipe for pipe in pipes if pipe in ready]:
        check, process = pipes[pipe]
        deadline = min(end, time.monotonic() + MEASUREMENT)
        with suppress(BrokenPipeError):  # it ended since it was ready, which the next message says
            pipe.send("go")
        state = "row"
        while state == "row":
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                why = TIME_IS_UP if time.monotonic() > end else f"not measured within {MEASUREMENT:.0f} s"
                log.write(check, error=why)
                break
            state = receive(pipe, check, log)
        process.kill()
    for _, process in pipes.values():
        process.kill()
        process.join(SECONDS_TO_END)


@cache
def start_method() -> Literal["fork", "spawn"]:
    """Forking imports torch once for all; but where an import has asked for CUDA, forks cannot use it."""
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(torch.cuda._is_in_bad_fork()))
    process.start()
    process.join()
    return "spawn" if process.exitcode else "fork"


def receive(pipe: Connection, check: Check, log: Log) -> str:
    """Note what a process says; returns what kind of message it was."""
    message: tuple[str, Any]
    try:
        message = pipe.recv()
    except EOFError:
        message = "error", "the process ended"
    kind: str = message[0]
    content: Any = message[1]
    if kind == "row":
        log.write(check, **content)
    elif kind == "ready":
        log.write(check, prepared_s=content)
    elif kind == "error":
        log.write(check, error=content)
    return kind


def wanted(check: Check, only: Sequence[str]) -> bool:
    """Whether the number or the name of a check holds one of these."""
    return any(text in f"{check.number} {check.name}" for text in only)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("a", "b"), default="a")
    parser.add_argument("--output", type=Path, help="file to which the JSON lines are appended")
    parser.add_argument("--seconds", type=float, default=285.0, help="when to end, whatever is left (%(default)s)")
    parser.add_argument(
        "--only", nargs="*", help="run the checks whose numbers or names hold one of these, as one round"
    )
    parser.add_argument("--tiny", action="store_true", help="rehearse on the CPU")
    parser.add_argument("--traced", action="store_true", help="in a rehearsal, trace what would be compiled")
    arguments = parser.parse_args()
    if not arguments.tiny and not (
        torch.version.cuda and any(map(os.path.exists, DRIVER))
    ):  # CUDA does not survive forks
        print(json.dumps({"benchmark": "gpu", "results": [], "missing": "a GPU of CUDA; --tiny rehearses without one"}))
        return
    setting = Setting(torch.device("cpu" if arguments.tiny else "cuda"), arguments.tiny, arguments.traced)
    log = Log(arguments.output)
    rounds = ROUNDS[arguments.part]
    if arguments.only:
        rounds = [rounds[0], [check for checks in rounds[1:] for check in checks if wanted(check, arguments.only)]]
    for checks in rounds:
        run_round(checks, setting, log, log.began + arguments.seconds)
        peak = next((row["peak_tflops"] for row in log.rows if "peak_tflops" in row), H100_PEAK / 1e12)
        setting = dataclasses.replace(setting, peak=1e12 * peak)
    card = next((row["card"] for row in log.rows if "card" in row), "none")
    print(json.dumps({"benchmark": "gpu", "part": arguments.part, "machine": card, "results": log.rows}))


if __name__ == "__main__":
    main()
