"""`bluejay` and `python` as commands that start at once: a process that has imported all of Bluejay forks for each.

The guides have some sixty commands, and importing torch for each would take longer than all of them. What is forked is
a process of its own in every other way: arguments, folder, environment, standard streams, signals, exit code.

Usage: `prepared.py SOCKET`, a Unix socket that this process then listens on.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    "bluejay.evals.command",
    "bluejay.gpt.info",
    "bluejay.lens.prediction",
    "bluejay.model_card",
    "bluejay.own_text",
    "bluejay.plan.search",
    "bluejay.push",
    "bluejay.serve.replicas",
    "bluejay.trace.report.measure",
    "bluejay.train.report.comparison",
    "gigatoken",
    "huggingface_hub.hf_api",
    "matplotlib.pyplot",
    "torch._dynamo",
)
"""What the verbs import when they are called."""
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({path!r})
    call = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [call.encode()], [0, 1, 2])
    process = int(server.recv(64))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    sys.exit(int(server.recv(64)))
"""
"""The command: it hands its call to the prepared process, passes on signals, and ends as what was forked ends."""


@contextlib.contextmanager
def commands(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A folder with `bluejay` and `python`, while the process behind them runs, which imports in `environment`."""
    path, bin = folder / "socket", folder / "bin"
    bin.mkdir(parents=True)
    for name in ("bluejay", "python"):
        (bin / name).write_text(CLIENT.format(python=sys.executable, path=str(path)))
        (bin / name).chmod(0o755)
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield bin
        finally:
            process.kill()


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    from matplotlib.figure import Figure

    Figure(layout="constrained").savefig(io.BytesIO())  # fonts are read for the first figure
    import torch

    from bluejay.machine import matmul_rate

    for dtype in (torch.float32, torch.bfloat16):
        matmul_rate(torch.device("cpu"), dtype)
    gc.collect()
    gc.freeze()  # or each process that is forked would go through all that was imported
    # On a machine of one processor nothing is worth processes of its own, each of which would have to import all.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(sys.argv[1])
        server.listen()
        print("ready", flush=True)
        while True:
            if sys.stdin in select.select([server, sys.stdin], [], [])[0]:
                return  # whoever started this has ended
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    call, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
    if process := os.fork():
        connection.send(str(process).encode())
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())
        os._exit(0)
    connection.close()
    leave(run, *json.loads(call), streams)


def leave(function: Callable[..., None], *arguments: object) -> NoReturn:
    """Call a function and end as Python does after it, without taking apart all that was imported."""
    code: object = None
    try:
        function(*arguments)
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def run(name: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Be the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if name == "bluejay":
        sys.argv = [name, *arguments]
        from bluejay.cli import main

        return main()
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
