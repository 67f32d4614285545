"""Servers that run as programs, each in a process of its own, with a small real model."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.serve.server import serve
from bluejay.serve.settings import ServeSettings
from bluejay.tokenizer import Tokenizer
from tests.waiting import PATIENCE

# Programs fork from a process that has imported what they need: importing takes seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.forked"])


def small_model(n_ctx: int) -> Model:
    """A model that never ends a text."""
    tokenizer = Tokenizer.train(["the the the cat"], 259)
    gpt = new_model(GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=259, n_ctx=n_ctx), 0).requires_grad_(False)
    gpt.head.bias[tokenizer.eot] = -1e4
    return Model(gpt, tokenizer)


def large_vocabulary(n_ctx: int) -> Model:
    """A tiny model with GPT-2's vocabulary and a chat template."""
    tokenizer = Tokenizer.load("gpt2")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
    config = GPTConfig(n_layer=1, d_model=16, n_head=1, vocab_size=tokenizer.vocab_size, n_ctx=n_ctx)
    return Model(new_model(config, seed=0).requires_grad_(False), tokenizer)


def be(make: Callable[[int], Model], n_ctx: int, settings: ServeSettings, output: Path, announce: Connection) -> None:
    """The main function of the process: serve a model."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    torch.set_num_threads(1)
    serve(make(n_ctx), settings, announce.send)


@dataclass
class Program:
    """A running server."""

    process: BaseProcess
    url: str
    path: Path

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        return self._status("VmRSS")

    @property
    def peak_memory(self) -> int:
        """The most resident memory in bytes since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Have `peak_memory` begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))

    @property
    def processor_seconds(self) -> float:
        """Processor time that the server, its child processes and the ended children of both have used."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                figures = path.read_text().rpartition(")")[2].split()
                if self.process.pid in (int(path.parent.name), int(figures[1])):
                    ticks += sum(map(int, figures[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def output(self) -> list[str]:
        """The lines that the server has written, including its request log."""
        return self.path.read_text().splitlines()

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self) -> int | None:
        """The exit code; None if the process has not ended within some seconds."""
        self.process.join(PATIENCE)
        return self.process.exitcode


@contextlib.contextmanager
def program(
    settings: ServeSettings, n_ctx: int = 1024, make: Callable[[int], Model] = small_model
) -> Iterator[Program]:
    """A server in a process of its own."""
    ours, theirs = FORKS.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "output"
        process = FORKS.Process(target=be, args=(make, n_ctx, settings, path, theirs))
        process.start()
        theirs.close()
        try:
            assert ours.poll(PATIENCE), path.read_text()
            yield Program(process, ours.recv(), path)
        finally:
            process.kill()
            process.join()
            ours.close()
