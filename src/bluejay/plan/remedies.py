"""What to change in a recipe that does not fit in memory."""

import dataclasses
from typing import Any

from bluejay.plan.memory import memory
from bluejay.plan.workload import RECOMPUTE, Workload
from bluejay.train.recipe import TrainRecipe


def remedies(workload: Workload) -> tuple[str, ...]:
    """Changes of a recipe, each enough by itself, after which a workload fits: the largest micro-batch, the least
    recomputation, sharding over all replicas. If none is enough, all of them together, or what `--best` finds. Empty if
    the workload fits."""
    if fits(workload):
        return ()
    recipe, mesh, length = workload.recipe, workload.mesh, workload.recipe.data.sequence_length
    whole = mesh | {"replicate": 1, "shard": mesh["replicate"] * mesh["shard"]}
    sizes = [rows * length for rows in divisors(workload.micro // length)][-2::-1]
    smaller: dict[str, dict[str, Any]] = {f"train.micro_batch_tokens = {micro}": {"micro": micro} for micro in sizes}
    kinds = RECOMPUTE[RECOMPUTE.index(recipe.train.recompute) + 1 :]
    recomputed: dict[str, dict[str, Any]] = {
        f'train.recompute = "{kind}"': {"recipe": with_recompute(recipe, kind)} for kind in kinds
    }
    sharded: dict[str, dict[str, Any]] = (
        {f"mesh.replicate = 1, mesh.shard = {whole['shard']}": {"mesh": whole}} if whole != mesh else {}
    )
    found = []
    for changes in (smaller, recomputed, sharded):
        enough = (name for name, change in changes.items() if fits(dataclasses.replace(workload, **change)))
        found += list(enough)[:1]
    if found:
        return tuple(found)
    together = {key: value for changes in (smaller, recomputed, sharded) for key, value in list(changes.items())[-1:]}
    merged: dict[str, Any] = {field: value for change in together.values() for field, value in change.items()}
    if together and fits(dataclasses.replace(workload, **merged)):
        return (", ".join(together),)
    return ("another mesh, which --best finds if there is one",)


def fits(workload: Workload) -> bool:
    """Whether a workload fits in all of a device's memory."""
    return memory(workload).total <= 1e9 * workload.hardware.memory


def with_recompute(recipe: TrainRecipe, kind: str) -> TrainRecipe:
    """A recipe with another kind of recomputation."""
    train = dataclasses.replace(recipe.train, recompute=kind)  # pyrefly: ignore[bad-argument-type]
    return dataclasses.replace(recipe, train=train)


def divisors(n: int) -> list[int]:
    """The divisors of n in ascending order."""
    return [d for d in range(1, n + 1) if n % d == 0]
