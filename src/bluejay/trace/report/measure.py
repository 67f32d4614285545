"""`bluejay trace report`: everything that is measured of a model and of what it read."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from bluejay.evals import suites
from bluejay.evals.answers import AnswerFile
from bluejay.evals.evaluate import Settings
from bluejay.evals.scorers import Scorer, open_scorer
from bluejay.evals.tasks import Task
from bluejay.progress import say
from bluejay.recipe import STRICT
from bluejay.trace.corpora import tokenizer_folder
from bluejay.trace.report.contaminated import contamination
from bluejay.trace.report.drawing import Reading, alike
from bluejay.trace.report.extractable import LENGTHS, extraction
from bluejay.trace.report.findings import Finding, Report
from bluejay.trace.report.membership import membership
from bluejay.trace.report.memorised import memorisation
from bluejay.trace.report.novelty import PROMPT, novelty

PASSAGE, SHORTEST = 2 * max(LENGTHS), 2 * min(LENGTHS)
"""Tokens of a passage, and of one where the run's sequences are shorter."""
LEAST = 2
"""Passages of a kind that a figure needs."""


@dataclass(frozen=True)
class ReportSettings:
    """What is measured, and how much of it."""

    __pydantic_config__ = STRICT
    passages: int = 500
    """Passages of each kind that are drawn."""
    samples: int = 200
    """Texts that the model writes."""
    suite: str = "small"
    """The evaluation sets that are looked for; an empty text for none."""
    tasks: tuple[str, ...] = ()
    """Evaluation sets that are looked for by name, or by a TOML file."""
    limit: int | None = 200
    """Questions of each evaluation set that are asked; all are looked for."""
    seed: int = 1234
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("passages", "samples"):
            if getattr(self, name) < LEAST:
                raise ValueError(f"--{name} is {getattr(self, name)}; an interval needs at least {LEAST}")
        Settings(self.limit)
        self.chosen()

    def chosen(self) -> list[Task]:
        """The evaluation sets. Raises ValueError: there is none of a name."""
        return [*(suites.suite(self.suite) if self.suite else ()), *map(suites.task, self.tasks)]


def report(target: str, reading: Reading, settings: ReportSettings, command: str) -> Report:
    """The report of a model by what its run read, which says that `command` made it. Answers are kept in the user's
    cache, so that the same call goes on where it was interrupted.

    Raises FileNotFoundError or ValueError: there is no such model, or too little of what its run read.
    """
    notes = list(reading.notes)
    findings: list[Finding] = []
    scorer = open_scorer(str(tokenizer_folder(reading.model)), settings.device)
    for one in measured(target, reading, scorer, settings):
        if isinstance(one, Finding):
            findings.append(one)
        else:
            notes.append(one)
    date = datetime.now(UTC).date().isoformat()
    identities = {target: scorer.identity}
    return Report(target, command, date, asdict(settings), findings, notes, identities)


def measured(target: str, reading: Reading, scorer: Scorer, settings: ReportSettings) -> Iterator[Finding | str]:
    """What was found, in order, and a sentence for what could not be measured."""
    n, seed = settings.passages, settings.seed
    length = max(SHORTEST, min(PASSAGE, reading.run.recipe.data.sequence_length))
    read = reading.drawn_read(n, length, seed)
    if len(read) < LEAST:
        raise ValueError(f"what the run of {target} read has too few documents of {length} tokens to measure anything")
    held_out = reading.drawn_held_out(n, length, seed, read)
    say(f"drew {len(read):,} passages of {length} tokens that were read, and {len(held_out):,} held-out ones")
    file = AnswerFile.of(scorer)
    yield extraction(reading, scorer, file, read, held_out)
    both = alike(read, held_out)
    if len(both[0]) < LEAST:
        yield "no held-out text is indexed with what was read, so membership and novelty are not measured"
    else:
        yield membership(scorer, file, reading.tracer.tokenizer, *both)
        yield novelty(reading, scorer, file, held_out[: settings.samples], length - PROMPT, seed)
    yield memorisation(reading, n, length, seed, settings.device)
    if tasks := settings.chosen():
        asked = Settings(settings.limit, seed=seed)
        finding, left_out = contamination(reading, scorer, tasks, asked)
        if finding.rows:
            yield finding
        yield from (f"{task} was left out: {why}" for task, why in left_out.items())
