"""Published training runs (data/published.toml) and what `bluejay plan` predicts for them.

`python -m tests.plan.published` writes the tables of docs/planning.md anew.
"""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.gpt.presets import PRESETS
from bluejay.plan.hardware import Hardware, load
from bluejay.plan.plan import Plan, plan
from bluejay.train.recipe import TrainRecipe

ROOT = Path(__file__).parents[2]
HARDWARE = ROOT / "recipes" / "hardware"
PAGE = ROOT / "docs" / "planning.md"


@dataclass(frozen=True)
class Run:
    """One published run; the fields are those of the file."""

    name: str
    role: str
    source: str
    hardware: str
    devices: int
    published: float
    unit: str
    length: int
    batch: int
    micro: int
    recompute: str
    compile: bool
    mesh: dict[str, int]
    model: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    lora: dict[str, Any] | None = None
    hardware_fields: dict[str, Any] = field(default_factory=dict)
    best: bool = False
    reason: str = ""

    @property
    def machine(self) -> Hardware:
        values = recipes.plain(load(HARDWARE / f"{self.hardware}.toml", []))
        return recipes.check(Hardware, values | self.hardware_fields | {"devices": self.devices}, self.name)

    @property
    def recipe(self) -> TrainRecipe:
        tokens = self.batch * self.length
        values: dict[str, Any] = {
            "name": self.name,
            "data": {"train": [{"shards": "none"}], "valid": "none", "sequence_length": self.length},
            "train": {
                "tokens": 100 * tokens,
                "batch_tokens": tokens,
                "micro_batch_tokens": self.micro * self.length,
                "precision": "bfloat16",
                "recompute": self.recompute,
                "compile": self.compile,
            },
            "mesh": {"shard": 1} | self.mesh,
        }
        values["data"]["mask_documents"] = False
        if self.init is None:
            values["model"] = {"vocab_size": PRESETS[self.model["preset"]].vocab_size} | self.model
        else:
            values |= {"init": self.init, "lora": self.lora}
            values["train"]["schedule"] = {"warmup": 0.1}
        return recipes.check(TrainRecipe, values, self.name)

    @property
    def planned(self) -> Plan:
        return planned(self.name)

    @property
    def predicted(self) -> float:
        """The predicted figure, in the unit of the published one."""
        found = self.planned
        if self.unit == "s a step":
            return found.seconds.total
        if self.unit == "MFU without the pipeline":
            return found.share_of_peak * found.seconds.total / (found.seconds.total - found.seconds.pipeline)
        return found.tokens_per_second / found.devices

    @property
    def ratio(self) -> float:
        """Predicted over published time."""
        return self.predicted / self.published if self.unit == "s a step" else self.published / self.predicted


@cache
def runs() -> tuple[Run, ...]:
    """All published runs, in the order of the file."""
    path = Path(__file__).parent / "data" / "published.toml"
    return tuple(Run(**values) for values in tomllib.loads(path.read_text())["run"])


@cache
def planned(name: str) -> Plan:
    """The plan of a published run."""
    run = next(run for run in runs() if run.name == name)
    return plan(run.recipe, run.machine)


def origins() -> dict[str, str]:
    """The source of each run that is held out, with references to the one before resolved."""
    found, last = {}, ""
    for run in runs():
        if not run.source.startswith("the same"):
            last = run.source.partition(",")[0].partition(" (")[0]
        if run.role == "held out":
            found[run.name] = last
    return found


def table(role: str) -> str:
    """The table of the runs with a role, as it stands in docs/planning.md."""
    lines = ["| run | unit | published | predicted | time, predicted / published | source |", "| --- " * 6 + "|"]
    for run in runs():
        if run.role == role:
            figures = " | ".join(rounded(figure) for figure in (run.published, run.predicted))
            why = f"; {run.reason}" if run.reason else ""
            lines.append(f"| {run.name} | {run.unit} | {figures} | {run.ratio:.2f} | {run.source}{why} |")
    return "\n".join(lines)


def rounded(figure: float) -> str:
    """A figure with three digits or more."""
    return f"{figure:,.{3 if figure < 10 else 1 if figure < 1000 else 0}f}"


def documented() -> str:
    """The planning page with its tables made anew."""
    text = PAGE.read_text()
    for role in ("fit", "held out", "measured", "not counted"):
        start, end = f"<!-- {role} -->\n", f"\n<!-- end of {role} -->"
        before, rest = text.split(start)
        text = before + start + table(role) + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(documented())
