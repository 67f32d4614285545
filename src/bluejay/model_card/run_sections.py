"""Sections from the records of the run itself: its data, its training and its held-out loss."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bluejay.pile.report.card import table
from bluejay.pile.report.counts import Report
from bluejay.progress import counted, format_bytes, format_duration
from bluejay.tokens import corpus_of
from bluejay.train.checkpoint.result import Result
from bluejay.train.recipe import LoRA, TrainRecipe, is_examples
from bluejay.train.report.runs import RunSummary

PICTURE = "loss.png"
CORPORA = "corpora"
"""Folder of a run for the reports of its corpora, each in a folder of the corpus's name."""
LICENCES = 6
"""Licences of a component that the card names, the most frequent first."""
LICENSED = "The weights are released under the licence above."
RIGHTS = (
    "Whether weights that were trained on a text are bound by the licence of that text is not settled in law, and this "
    "card does not settle it"
)
NAMED = (
    "it names the licences of all documents, and `bluejay trace` leads from a passage that "
    "the model writes to the documents that hold it, each with its licence. Who passes on such a passage has to keep "
    "to the licence of the document"
)
"""Said of documents whose licences the card names."""


def data(run: Path, recipe: TrainRecipe, licence: str | None) -> Iterator[str]:
    """The corpora, their components and their licences; from the copy of a corpus's report in a run that was moved away
    from its corpus."""
    yield "## Data\n"
    known = False
    for name in [name for source in recipe.data.train for name in source.names]:
        corpus = corpus_of(Path(name))
        report = Report.load(corpus) or Report.load(run / CORPORA / corpus.name)
        if report is None:
            yield f"`{name}`: no report of a corpus lies there, so its licences are not known.\n"
            continue
        known = True
        train = report.total("train")
        yield (
            f"`{report.name}` (recipe {report.recipe_sha256[:16]}), {counted(train.documents, 'training document')}, "
            f"{format_bytes(train.bytes)}. The shares are of their tokens; the licences are of all documents, "
            "held-out ones included.\n"
        )
        rows = [("component", "share", "training documents", "licences of all documents")]
        for component, entry in report.components.items():
            if entry.unavailable is None:
                part = entry.splits["train"]
                share = f"{100 * part.tokens / max(train.tokens, 1):.1f} %"
                rows.append((component, share, f"{part.documents:,}", licences(entry.licences)))
        yield table(rows)
    yield f"{f'{LICENSED} ' if licence else ''}{RIGHTS}{f': {NAMED}' if known else ''}.\n"


def licences(counts: dict[str, int]) -> str:
    """The most frequent licences, with their shares of the documents."""
    whole = max(1, sum(counts.values()))
    named = [f"{name} {100 * n / whole:.0f} %" for name, n in Counter(counts).most_common(LICENCES)]
    rest = len(counts) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "") or "not known"


def training(recipe: TrainRecipe, summary: RunSummary, result: Result, watts: float | None) -> Iterator[str]:
    """How, on what and how long the model was trained."""
    train = recipe.train
    hours, rate = summary.seconds / 3600, summary.tokens / max(summary.seconds, 1e-9)
    energy = f"about {hours * watts / 1000:.3g} kWh at {watts:g} W" if watts else "not estimated: --watts was not given"
    time = f"{format_duration(summary.seconds)} of steps, {rate:,.0f} tokens/s"
    if not summary.seconds:
        time, energy = "not known: the metrics of the run are not whole", "not estimated: the time is not known"
    rows = [
        ("", ""),
        (
            "steps",
            f"{summary.steps_done:,} of {train.batch_tokens:,} tokens, in sequences of {recipe.data.sequence_length:,}",
        ),
        *([("trained weights", adapted(recipe.lora))] if recipe.lora else []),
        ("optimizer", f"{train.optimizer.kind}, rate {train.lr:g}, schedule {train.schedule.kind}, seed {recipe.seed}"),
        ("machine", result.machine or "not recorded"),
        ("time", time),
        ("energy", energy),
    ]
    yield "## Training\n"
    yield table(rows)
    yield f"![Loss over tokens]({PICTURE})\n"


def adapted(lora: LoRA) -> str:
    """Which weights of a model adapters were trained for."""
    targets = f"the matrices {', '.join(lora.targets)}" if lora.targets else "all matrices"
    return f"adapters of rank {lora.rank} and alpha {lora.alpha:g} on {targets} of the blocks, merged into the model"


def held_out(recipe: TrainRecipe, result: Result) -> Iterator[str]:
    """The loss on held-out text."""
    rows = [("held-out text", "bits per byte"), ("all", f"{result.held_out['bits_per_byte']:.3f}")]
    rows += [(name, f"{value:.3f}") for name, value in (result.held_out.get("components") or {}).items()]
    of = f"{recipe.evaluate.tokens:,} tokens, as many of each component as there are. Other documents"
    if is_examples(recipe.data.held_out):
        of = f"the answers in examples of at most {recipe.evaluate.tokens:,} tokens together. Other examples"
    of += ", and more of them, give other figures: an evaluation says its own."
    yield "## Held-out loss\n"
    yield f"What the run measured at its end, on {of}\n"
    yield table(rows)
