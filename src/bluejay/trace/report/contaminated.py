"""Which questions of evaluation sets stand in what a model read, and its scores with and without them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bluejay.evals.estimates import Estimate, mean
from bluejay.evals.evaluate import Result, Settings, asked, evaluate, figure
from bluejay.evals.pictures import Bar, bar_chart
from bluejay.evals.scorers import Scorer
from bluejay.evals.tasks import METRICS, Continuation, Generation, Question, Task, WholeText
from bluejay.trace.report.drawing import Reading
from bluejay.trace.report.findings import Finding
from bluejay.trace.spans import char_offsets
from bluejay.trace.tracing import Tracer

WORDS = 13
"""Words that a question and what was read have in common where the question counts as contaminated (arXiv 2005.14165,
appendix C)."""
TEXT = (
    f"A question is contaminated where {WORDS} words of it in a row, with its right answer, stand as they are in what "
    "the run read. Its examples do not count. Scores are those of the contaminated and of the other questions apart."
)


@dataclass(frozen=True)
class Contamination:
    """Which questions of a task were there to read."""

    dirty: dict[str, bool]
    """By the question's name."""
    short: int
    """Questions with too few words to tell, which count as clean."""

    @property
    def share(self) -> Estimate:
        """The share of contaminated questions."""
        return mean([float(one) for one in self.dirty.values()])


def contamination(
    reading: Reading, scorer: Scorer, tasks: Sequence[Task], settings: Settings
) -> tuple[Finding, dict[str, str]]:
    """The contaminated share of each task, and its scores clean and contaminated; and why tasks were left out."""
    rows, bars, notes, left_out = list[tuple[str, Estimate]](), list[Bar](), list[str](), dict[str, str]()
    for task in tasks:
        try:
            found = contaminated(reading.tracer, task)
            evaluation = evaluate([scorer], [task], settings)
        except (ValueError, OSError) as error:  # its data cannot be had
            left_out[task.name] = str(error)
            continue
        left_out |= evaluation.not_run
        share = found.share
        rows.append((f"{task.name}: contaminated questions", share))
        bars.append(Bar(task.name, share.value, share.low, share.high))
        if found.short:
            notes.append(f"{task.name}: {found.short} of {share.n} questions have fewer than {WORDS} words; clean")
        for result in evaluation.results[:1]:
            numbers = [found.dirty.get(question.id, False) for question in asked(task, [scorer], settings)[0]]
            rows += scores_of(result, np.array(numbers))
    picture = [bar_chart("share of contaminated questions", bars)] if bars else []
    unit = "share, or score"
    return Finding("contamination", "Contamination of evaluation sets", TEXT, unit, rows, picture, notes), left_out


def scores_of(result: Result, dirty: np.ndarray) -> list[tuple[str, Estimate]]:
    """The main figure of a task over its clean and over its contaminated questions."""
    scores, clusters = result.scores[result.metric], result.clusters
    found = []
    for name, chosen in (("clean", ~dirty), ("contaminated", dirty)):
        numbers = np.flatnonzero(chosen).tolist()
        if numbers:
            one = figure(result.metric, [scores[i] for i in numbers], [clusters[i] for i in numbers], result.macro)
            found.append((f"{result.task}: {METRICS[result.metric].title}, {name}", one))
    return found


def contaminated(tracer: Tracer, task: Task) -> Contamination:
    """Which questions of a task were there to read. Raises ValueError: its data cannot be had."""
    dirty, short = dict[str, bool](), 0
    for question in task.questions(0):
        text = text_of(question)
        short += len(text.split()) < WORDS
        dirty[question.id] = stands(tracer, text)
    return Contamination(dirty, short)


def text_of(question: Question) -> str:
    """What a question says, with its right answer."""
    request = question.requests[question.gold if question.choices else 0]
    match request:
        case Continuation():
            return request.context + request.text
        case Generation():
            return request.prompt + "".join(f" {answer}" for answer in question.answers[:1])
        case WholeText():
            return request.text
    return ""


def stands(tracer: Tracer, text: str) -> bool:
    """Whether any `WORDS` words of a text in a row stand in what was read, with the white space between them."""
    # The first word has other tokens where a space is before it.
    return any(holds(tracer, f"{space}{text}") for space in ("", " "))


def holds(tracer: Tracer, text: str) -> bool:
    """Whether any `WORDS` words of a text, divided into tokens as it is here, stand in what was read."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    if len(words) < WORDS:
        return False
    ids = np.array(tracer.tokenizer.encode(text), np.int32)
    table = tracer.tokenizer.token_bytes()
    pieces = [table[id] for id in ids.tolist()]
    if pieces and (prefix := len(tracer.tokenizer.prefix)):
        pieces[0] = pieces[0][prefix:]
    chars = np.array(char_offsets(pieces))
    firsts = np.searchsorted(chars, [start for start, _ in words[: len(words) - WORDS + 1]], "right") - 1
    ends = np.searchsorted(chars, [end for _, end in words[WORDS - 1 :]], "left")
    return bool((tracer.longest(ids)[firsts] >= ends - firsts).any())
