"""Starting the processes of a run: torchrun, with what it needs for a lost process to be replaced."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from bluejay.machine import n_processors

if TYPE_CHECKING:
    from bluejay.train.recipe import TrainRecipe

RESTARTS = 100
"""How often the processes are started again after one of them was lost; each time goes on from a checkpoint."""
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""With this variable torchrun makes a store for each start. In a shared one, processes that are started again find the
addresses of those before them, and wait for these in vain (torch 2.13, `torch/distributed/rendezvous.py`)."""
LAUNCHER = "BLUEJAY_LAUNCHER"
"""The variable that has the number of the process that launched this one."""
SECONDS_TO_REPORT = 2.0
"""How long the other processes of a host wait for the first to report an error."""
SECONDS_TO_SAVE = 300
"""How long processes have after a signal to save their state, before they are killed."""
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The environment variables by which gloo and NCCL are told the network interface between hosts."""


def launch_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that divide a run among processes and hosts."""
    group = verb.add_argument_group("more than one process", "divided as the recipe's [mesh] says")
    group.add_argument("--processes", type=int, metavar="N", help="processes on this host, one for each GPU")
    group.add_argument("--hosts", metavar="N", help="hosts, each with the same command: 4, or 2:4 if some may be lost")
    group.add_argument("--meet", metavar="HOST:PORT", help="where the hosts meet; HOST is one of them, and must stay")
    group.add_argument("--interface", metavar="NAME", help="the network between the hosts, such as eth0")


def wants_launch(options: argparse.Namespace, by_text: bool) -> bool:
    """Whether a command, on a text or on a recipe, asks for several processes. Raises ValueError for options
    that contradict each other."""
    if options.processes is None and options.hosts is None:
        if options.meet or options.interface:
            raise ValueError("--meet and --interface are for several hosts; --hosts says how many there are")
        return False
    if by_text or options.export is not None:
        raise ValueError(
            "several processes train by a recipe; `bluejay new` writes one for a text, and --export needs one process"
        )
    if options.processes is not None and options.processes < 1:
        raise ValueError(f"--processes is {options.processes}; it must be at least 1")
    low, _, high = (options.hosts or "1").partition(":")
    if not (low.isdecimal() and (high or low).isdecimal() and 1 <= int(low) <= int(high or low)):
        raise ValueError(f"--hosts is {options.hosts}; it must be a number, or the least and the most, such as 2:4")
    if options.hosts not in (None, "1", "1:1") and not options.meet:
        raise ValueError("several hosts need --meet HOST:PORT, where HOST is one of them, such as node1:29400")
    return True


def check_hosts(options: argparse.Namespace, recipe: "TrainRecipe") -> None:
    """Raise ValueError if a run whose hosts may be lost could not go on with some number of those that are allowed."""
    low, _, high = (options.hosts or "").partition(":")
    for hosts in range(int(low), int(high) + 1) if high else ():
        try:
            sizes = recipe.mesh.sizes(hosts * (options.processes or 1))
            recipe.micro_batch_rows(sizes["replicate"] * sizes["shard"])
        except ValueError as error:
            raise ValueError(f"--hosts is {options.hosts}, and with {hosts} of them {error}") from None


def launch(options: argparse.Namespace, command: Sequence[str]) -> NoReturn:
    """Become torchrun, which runs `bluejay COMMAND` in the processes that the options ask for."""
    processes = options.processes or 1
    torchrun = [sys.executable, "-m", __name__, f"--nproc-per-node={processes}"]
    torchrun += [f"--nnodes={options.hosts or 1}", f"--max-restarts={RESTARTS}"]
    torchrun.append(f"--shutdown-timeout={SECONDS_TO_SAVE}")
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint={options.meet}"] if options.meet else ["--standalone"]
    environment = environment_of(processes, options.interface, os.environ) | {LAUNCHER: str(os.getpid())}
    os.execve(sys.executable, [*torchrun, "-m", "bluejay", *command], environment)


def environment_of(processes: int, interface: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of torchrun and its processes; what the user has set stays."""
    threads = max(1, n_processors() // processes)
    own = {OWN_STORE: "1", "OMP_NUM_THREADS": str(threads), "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    return own | dict.fromkeys(INTERFACES if interface else (), interface or "") | dict(given)


@contextmanager
def reporting_once() -> Generator[None]:
    """Report an error once for all processes of the host and have the launcher end them, which would otherwise start
    them again. The first process reports; the others wait, and report only an error of their own."""
    launched = os.environ.get(LAUNCHER) == str(os.getppid())
    if launched and os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SECONDS_TO_REPORT)
    yield
    if launched:
        os.kill(os.getppid(), signal.SIGUSR1)


def torchrun() -> None:
    """Run torchrun. It ends with code 2 after a mistake, and after a signal as a process that the signal ended."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.run import main

    mistaken = False

    def give_up(*_: object) -> None:
        nonlocal mistaken
        if not mistaken:
            mistaken = True
            raise SignalException("a process found a mistake", signal.SIGTERM)

    for name in ("agent.server.api", "multiprocessing.api"):  # which would warn of the signals that they pass on
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.ERROR)
    signal.signal(signal.SIGUSR1, give_up)
    try:
        main()
    except SignalException as stopped:
        sys.exit(2 if mistaken else 128 + stopped.sigval)


if __name__ == "__main__":
    torchrun()
