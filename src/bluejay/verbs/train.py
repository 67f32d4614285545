"""`bluejay train`."""

import argparse
import difflib
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
        lists = "" if options.target.suffix else "; bluejay recipes lists the recipes that come with bluejay"
        raise FileNotFoundError(f"no recipe at {options.target}, and no text: there is no such file or folder{lists}")
    if by_text and is_run(options.target):
        raise ValueError(f"{options.target} is the folder of a run; {how_to_go_on(options.target)}")
    if by_text and is_model(options.target):
        raise ValueError(f"{options.target} is a model, and no text; bluejay train TEXT --init MODEL trains it further")
    if by_text:
        require_known(overrides, options.parser)
    several = wants_launch(options, by_text)
    recipe = None if by_text else recipes.load(TrainRecipe, options.target, overrides)  # before imports take seconds
    if by_text and (options.export is not None or options.profile):
        raise ValueError("--export and --profile are for a recipe; a run on a text has one in RUN/train.toml")
    if not by_text and (options.minutes is not None or options.force):
        raise ValueError("--minutes and --force are for a text; train.tokens is the length of a recipe's run")
    if options.export is not None and options.profile:
        raise ValueError("--profile traces steps, and --export takes none; give one of the two")
    directory = None if recipe is None else recipe.directory
    if directory is not None and not {"name", "output"} & dict(recipes.parse_overrides(overrides)).keys():
        check_moved(options.target, directory)
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


def is_model(target: Path) -> bool:
    """Whether a file or folder is a model, of which the files would be taken for text."""
    holds = {path.suffix for path in target.iterdir()} if (target / "config.json").is_file() else set()
    return target.suffix == ".gguf" or bool(holds & {".safetensors", ".bin"})


def require_known(overrides: list[str], parser: argparse.ArgumentParser) -> None:
    """Raise ValueError for an override that no recipe of a run has a field for, and name what was probably meant. Of a
    run on a text the recipe is only checked when the corpus is built."""
    from bluejay import recipe as recipes
    from bluejay.train.recipe import TrainRecipe

    fields = recipes.key_paths(TrainRecipe)
    for key, _ in recipes.parse_overrides(overrides):
        if key in fields or key.startswith("model."):  # which presets know
            continue
        path = key.split(".")
        options = difflib.get_close_matches(f"--{key}", parser._option_string_actions, 1, cutoff=0.8)
        beside = recipes.field_names_at(TrainRecipe, path[:-1])
        near = options[0] if options else recipes.nearest(TrainRecipe, path, beside)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"--{key} is neither an option nor a field of a recipe{hint}")


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
