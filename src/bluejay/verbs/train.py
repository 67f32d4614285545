"""`bluejay train`."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bluejay.fields import at_least
from bluejay.train.distributed.processes import check_hosts, launch, launch_options, wants_launch

MINUTES = 5.0
"""How long a run on a text takes by default."""


def train_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    help = "a recipe, such as recipes/train/quickstart.toml; or a text file, a folder of files or a corpus"
    verb.add_argument("target", type=Path, metavar="RECIPE|TEXT", help=help)
    verb.add_argument("--minutes", type=float, help=f"time for a text, which decides sizes (default: {MINUTES:g})")
    help = "replace what was made under the same name, and choose sizes anew"
    verb.add_argument("--force", action="store_true", help=help)
    help = "only write the model of this step's checkpoint"
    verb.add_argument("--export", type=at_least(0), metavar="STEP", help=help)
    verb.add_argument("--profile", action="store_true", help="write PyTorch's trace of a few steps beside the run")
    launch_options(verb)


def run_train(options: argparse.Namespace, overrides: list[str]) -> tuple[str, dict[str, Any]]:
    """Train by a recipe or on a text, or only export; what was made, as text and for JSON."""
    began = time.monotonic()
    from bluejay import recipe as recipes
    from bluejay import shipped
    from bluejay.train.checkpoint.result import how_to_go_on, is_run
    from bluejay.train.recipe import TrainRecipe

    by_text = options.target.exists() and options.target.suffix != ".toml"
    if options.target.suffix != ".toml" and not shipped.find(options.target).exists():
        raise FileNotFoundError(f"no recipe at {options.target}, and no text: there is no such file or folder")
    if by_text and is_run(options.target):
        raise ValueError(f"{options.target} is the folder of a run; {how_to_go_on(options.target)}")
    several = wants_launch(options, by_text)
    recipe = None if by_text else recipes.load(TrainRecipe, options.target, overrides)  # before imports take seconds
    if by_text and (options.export is not None or options.profile):
        raise ValueError("--export and --profile are for a recipe; a run on a text has one in RUN/train.toml")
    if not by_text and (options.minutes is not None or options.force):
        raise ValueError("--minutes and --force are for a text; train.tokens is the length of a recipe's run")
    if options.export is not None and options.profile:
        raise ValueError("--profile traces steps, and --export takes none; give one of the two")
    if recipe is not None and not {"name", "output"} & dict(recipes.parse_overrides(overrides)).keys():
        check_moved(options.target, recipe.directory)
    if several and recipe is not None:
        check_hosts(options, recipe)
        flags = [f"--{name}" for name in ("profile", "json", "verbose") if getattr(options, name)]
        launch(options, ["train", str(options.target), *overrides, *flags])
    from bluejay.train.loop import export, train

    if recipe is None:
        from bluejay.own_text import train_text

        minutes = MINUTES if options.minutes is None else options.minutes
        made = train_text(options.target, minutes, options.force, overrides, began)
    elif options.export is not None:
        path = export(recipe, options.export)
        return f"in {path}", {"model": str(path)}
    else:
        made = train(recipe, options.profile)
    return made.summary(), asdict(made)


def check_moved(recipe: Path, directory: Path) -> None:
    """Raise ValueError if a recipe is that of a run whose folder was moved or copied, or that was started from another
    working directory: it would begin anew in its former directory."""
    from bluejay.train.checkpoint.result import how_to_go_on, is_run

    folder = recipe.parent
    is_own = recipe.name == "recipe.toml" and is_run(folder) and (folder / "checkpoints").is_dir()
    if is_own and folder.resolve() != directory.resolve():
        raise ValueError(
            f"{recipe} is the recipe of the run in {folder}, and would begin anew in {directory}; "
            f"{how_to_go_on(folder)}, and another --output begins anew"
        )
