"""Runs that continue with more tokens than they were started for."""

from pathlib import Path

from bluejay import recipe as recipes
from bluejay.files import set_aside, sha256_of
from bluejay.progress import say
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.checkpoint.state import State, step_of
from bluejay.train.recipe import TrainRecipe
from bluejay.train.schedule import learning_rate


def before_cooldown(
    checkpoints: Checkpoints, newest: tuple[Path, State], recipe: TrainRecipe
) -> tuple[tuple[Path, State], TrainRecipe | None]:
    """The checkpoint that a run goes on from, and its recipe if that had fewer steps.

    It is the newest one, or the one before the cooldown if a run that cooled down gets more tokens: weights that
    cooled down learn little at a high rate (Haegele et al. 2024, section 3).
    """
    path, state = newest
    shorter = recipes.check(TrainRecipe, state.recipe, str(path))
    if shorter.steps >= recipe.steps:
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
    """Rename the models of a finished run to `model-step-N` before the run continues; of other weights that have that
    name already, the folder is renamed."""
    for name in names:
        model, kept = directory / name, directory / f"{name}-step-{step}"
        if kept.exists() and weights_of(kept) != weights_of(model):
            rename_others(kept)
        if not kept.exists():
            model.rename(kept)


def weights_of(model: Path) -> dict[str, str]:
    """SHA-256 of each file of a model's weights, by its name."""
    return {file.name: sha256_of(file) for file in model.glob("*.safetensors")}


def rename_others(*folders: Path) -> None:
    """Rename those folders that exist to the next free `NAME.other`, with a warning, because the run writes others."""
    for folder in filter(Path.exists, folders):
        name = set_aside(folder, "other").name
        say(f"WARNING: {folder} is not as this run writes it; renamed to {name}")


def missed_models(checkpoints: Checkpoints, recipe: TrainRecipe, done: int) -> str | None:
    """A sentence on the models of `checkpoint.at` that are not there although the run is past their steps, and on what
    writes them; None if none is missing."""
    kept = sorted(step for step in recipe.checkpoint.kept_steps(recipe.steps) if step <= done)
    past = [step for step in kept if not (recipe.directory / f"model-step-{step}").exists()]
    if not past:
        return None
    found = ", ".join(str(step) for step in map(step_of, checkpoints.found()) if step <= done) or "none"
    return (
        f"checkpoint.at: no model was kept after step {', '.join(map(str, past))}, which the run is past; "
        f"--export N writes that of a checkpoint, which there is of step {found}"
    )
