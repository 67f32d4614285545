"""The directory of a run, which all its processes see and one of them owns."""

import secrets
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tomli_w
import torch

from bluejay import recipe as recipes
from bluejay.train.checkpoint.owner import owned
from bluejay.train.checkpoint.result import is_run
from bluejay.train.distributed.parallel import World
from bluejay.train.recipe import TrainRecipe

PATIENCE = 5.0
"""Seconds within which a file that one host has written shows on the network disks of the others."""


@contextmanager
def run_directory(directory: Path, world: World, shared: bool = True) -> Generator[None]:
    """Own the directory of a run in the main process. Every process raises ValueError if another run owns it, if it has
    a recipe that no run wrote, or, if it must be `shared`, if a process does not see it."""
    with ExitStack() as stack:
        problem = None
        try:
            if world.is_main:
                check_recipe(directory / "recipe.toml")
                stack.enter_context(owned(directory))
        except (ValueError, OSError) as error:
            problem = error
        if any(world.any(problem is not None)):
            raise problem or ValueError(f"{directory} cannot be used; process 0 says why")
        if shared:
            check_shared(directory, world)
        yield


def check_recipe(path: Path) -> None:
    """Raise ValueError if a file that a run would overwrite with its recipe was not written by a run."""
    if not path.is_file() or is_run(path.parent):
        return
    try:
        own = tomli_w.dumps(recipes.plain(recipes.load(TrainRecipe, path))) == path.read_text(encoding="utf-8")
    except ValueError:
        own = False
    if not own:
        raise ValueError(
            f"{path} was not written by a run, and a run writes its recipe under this name; rename that file, or "
            "choose another folder with --output"
        )


def check_shared(directory: Path, world: World) -> None:
    """Raise ValueError in every process if one of them does not see the directory in which the main process writes."""
    if world.size == 1:
        return
    number = torch.tensor(secrets.randbelow(2**62) if world.is_main else 0)
    mark = directory / f"shared-{int(world.sum(number))}"
    if world.is_main:
        mark.touch()
    world.any(False)  # the main process has made it
    until = time.monotonic() + PATIENCE
    while not (seen := mark.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    [missed] = world.any(not seen)
    if world.is_main:
        mark.unlink()
    if missed:
        here = "" if seen else f" ({socket.gethostname()} does not)"
        raise ValueError(
            f"the processes of the run do not all see the same {directory.resolve()}{here}; put it on a disk that all "
            "hosts share, with an absolute path as --output, or set checkpoint.storage"
        )
