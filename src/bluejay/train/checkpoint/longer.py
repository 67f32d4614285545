"""Runs that continue with more tokens than they were started for."""

from pathlib import Path

from bluejay import recipe as recipes
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.checkpoint.state import State
from bluejay.train.recipe import TrainRecipe
from bluejay.train.schedule import learning_rate


def before_cooldown(
    checkpoints: Checkpoints, newest: tuple[Path, State], recipe: TrainRecipe
) -> tuple[tuple[Path, State], TrainRecipe | None]:
    """The checkpoint that a run goes on from, and its recipe if that had fewer tokens.

    It is the newest one, or the one before the cooldown if a run that cooled down gets more tokens: weights that
    cooled down learn little at a high rate (Haegele et al. 2024, section 3).
    """
    path, state = newest
    shorter = recipes.check(TrainRecipe, state.recipe, str(path))
    if shorter.train.tokens >= recipe.train.tokens:
        return newest, None
    cooldown = shorter.cooldown_step
    earlier = None if cooldown is None or state.step <= cooldown else checkpoints.newest(until=cooldown)
    return earlier or newest, shorter


def how_it_continues(shorter: TrainRecipe, recipe: TrainRecipe, step: int) -> str:
    """One sentence: from which step a run goes on, to which, and what its learning rate does there."""
    where = ", before its cooldown" if step == shorter.cooldown_step else ""
    before, now = (
        learning_rate(at, one.steps, one.train.lr, one.train.schedule)
        for one, at in ((shorter, max(0, step - 1)), (recipe, step))
    )
    return (
        f"the run of {shorter.steps:,} steps continues to {recipe.steps:,} from step {step:,}{where}; the learning "
        f"rate was {before:.2e} there and is {now:.2e} now ({recipe.train.schedule.kind})"
    )


def keep_models(directory: Path, names: list[str], step: int) -> None:
    """Rename the models of a finished run to `model-step-N`, where that is free, before the run continues."""
    for name in names:
        kept = directory / f"{name}-step-{step}"
        if not kept.exists():
            (directory / name).rename(kept)
