"""`bluejay pile`. A result is a text, and values for JSON."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bluejay.fields import at_least

Result = tuple[str, dict[str, Any]]


def pile_verbs(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the steps of `bluejay pile` by `add(name, run, help, overrides=...)`."""
    build_options(add("build", run_build, "build a corpus from a recipe", overrides=True))
    recipe_option(add("plan", run_plan, "print a recipe's components before anything runs", overrides=True))
    card_options(add("card", run_card, "write the data card of a corpus, Markdown and HTML"))
    quality_options(add("quality", run_quality, 'train the classifier of the filter "quality:MODEL>9"'))


def build_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay pile build`."""
    recipe_option(verb)
    verb.add_argument("--executor", choices=["local", "ray"], default="local", help="where it runs (default: local)")
    verb.add_argument("--workers", type=at_least(1), help="number of processes (default: one per core)")
    help = "build again from the files as they are now, and replace a corpus of other sources"
    verb.add_argument("--force", action="store_true", help=help)


def recipe_option(verb: argparse.ArgumentParser) -> None:
    """Add the recipe, the only option of `bluejay pile plan`."""
    verb.add_argument("recipe", type=Path, help="a recipe, such as recipes/pile/quickstart.toml")


def card_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay pile card`."""
    verb.add_argument("directory", type=Path, help="a corpus, such as data/quickstart")


def quality_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay pile quality`."""
    verb.add_argument("model", type=Path, help="the file to write, MODEL.safetensors")
    verb.add_argument("--good", nargs="+", required=True, help="files of texts as they should be (.jsonl, .parquet)")
    verb.add_argument("--bad", nargs="+", required=True, help="files of ordinary texts")


def run_build(options: argparse.Namespace, overrides: list[str]) -> Result:
    """`bluejay pile build`."""
    from bluejay import recipe as recipes
    from bluejay.pile.recipe import PileRecipe

    recipe = recipes.load(PileRecipe, options.recipe, overrides)  # before imports that take seconds
    from bluejay.pile.build import build
    from bluejay.pile.pipeline.executor import choose_executor

    built = build(recipe, choose_executor(options.executor, options.workers), options.force)
    if recipe.index:
        from bluejay.trace.indexing import index

        index(built.directory)
    return built.summary(), built.as_dict()


def run_plan(options: argparse.Namespace, overrides: list[str]) -> Result:
    """`bluejay pile plan`."""
    from bluejay import recipe as recipes
    from bluejay.pile.recipe import PileRecipe

    recipe = recipes.load(PileRecipe, options.recipe, overrides)
    from bluejay.pile.plan import as_dict, plan, table
    from bluejay.pile.text.minhash import curve_table

    rows, near = plan(recipe), recipe.dedup.near
    curve = f"\n\nnear-copies, by similarity: how likely a pair is found\n{curve_table(near)}" if near else ""
    return table(rows) + curve, as_dict(rows)


def run_card(options: argparse.Namespace, _: list[str]) -> Result:
    """`bluejay pile card`."""
    from bluejay.pile.report.card import write_card

    path = write_card(options.directory)
    return f"{path} and {path.with_suffix('.html')}", {"card": str(path)}


def run_quality(options: argparse.Namespace, _: list[str]) -> Result:
    """`bluejay pile quality`."""
    from bluejay.files import require_writable
    from bluejay.pile.filters.quality_train import TOO_FEW, train_from_files

    require_writable(options.model)
    share = train_from_files(options.good, options.bad, options.model)
    right = (
        "" if share is None else f"it classifies {share:.1%} of the held-out texts correctly, as the mean of both kinds"
    )
    text = f"{options.model} is trained; {right or TOO_FEW}"
    return text, {"model": str(options.model), "right": share}
