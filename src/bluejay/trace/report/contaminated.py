"""Which questions of evaluation sets stand in what a model read, and its scores with and without them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bluejay.evals.estimates import Estimate, mean
from bluejay.evals.evaluate import Result, Settings, asked, evaluate, figure
from bluejay.evals.pictures import Bar, bar_chart
from bluejay.evals.scorers import Scorer
from bluejay.evals.tasks import METRICS, Continuation, Generation, Question, Task, WholeText
from bluejay.pile.text.unicode import normalise_text
from bluejay.tokenizer import well_formed
from bluejay.trace.report.drawing import Reading
from bluejay.trace.report.findings import Finding
from bluejay.trace.spans import char_offsets
from bluejay.trace.tracing import Tracer

WORDS = 13
"""Words that a question and what was read have in common where the question counts as contaminated (arXiv 2005.14165,
appendix C)."""
AT_ONCE = 500
"""Questions that are looked for at once."""
TEXT = (
    f"A question is contaminated where {WORDS} words of it in a row, with its right answer, stand as they are in a "
    "sequence that the run read. Its examples do not count, and a question that has so many only with the words of "
    "every prompt, such as Answer:, is too short to tell. Scores are those of the contaminated and of the other "
    "questions apart."
)


@dataclass(frozen=True)
class Contamination:
    """Which questions of a task were there to read."""

    dirty: dict[str, bool]
    """By the question's name."""
    short: int
    """Clean questions with too few words of their own in a row to tell (`own_words`)."""
    share: Estimate | None
    """The share of contaminated questions, without those that are too short to tell; None if all are."""


def contamination(
    reading: Reading, scorer: Scorer, tasks: Sequence[Task], settings: Settings
) -> tuple[Finding, dict[str, str]]:
    """The contaminated share of each task, and its scores clean and contaminated; and why tasks were left out."""
    rows, bars, notes, left_out = list[tuple[str, Estimate]](), list[Bar](), list[str](), dict[str, str]()
    for task in tasks:
        try:
            found = contaminated(reading.read, task)
            evaluation = evaluate([scorer], [task], settings)
        except (ValueError, OSError) as error:  # its data cannot be had
            left_out[task.name] = str(error)
            continue
        left_out |= evaluation.not_run
        if (share := found.share) is not None:
            rows.append((f"{task.name}: contaminated questions", share))
            bars.append(Bar(task.name, share.value, share.low, share.high))
        if found.short:
            notes.append(
                f"{task.name}: {found.short} of {len(found.dirty)} questions have fewer than {WORDS} words of their "
                "own in a row and are not among these; their scores count as clean"
            )
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
    questions = list(task.questions(0))
    texts = list(map(text_of, questions))
    found = stand(tracer, texts)
    told = [i for i, n in enumerate(own_words(questions)) if found[i] or n >= WORDS]
    # Questions of one passage, and equal ones, are read together; a subject, over which accuracies are averaged, is no
    # text.
    clusters = [(not task.macro and questions[i].cluster) or texts[i] for i in told]
    share = mean([found[i] for i in told], clusters, share=True) if told else None
    dirty = dict(zip((question.id for question in questions), found, strict=True))
    return Contamination(dirty, len(questions) - len(told), share)


def text_of(question: Question) -> str:
    """What a question says, with its right answer, in the form that texts have in a corpus."""
    return normalise_text(well_formed("".join(parts_of(question))))


def parts_of(question: Question) -> tuple[str, str]:
    """The prompt of a question and its right answer; of a whole text that, and nothing."""
    request = question.requests[question.gold if question.choices else 0]
    match request:
        case Continuation():
            return request.context, request.text
        case Generation():
            return request.prompt, "".join(f" {answer}" for answer in question.answers[:1])
        case WholeText():
            return request.text, ""
        case _:
            return "", ""


def own_words(questions: Sequence[Question]) -> list[int]:
    """For each question the most words in a row that are of it or of its right answer, and not the beginning or the end
    of every prompt, such as `Answer:`, which texts do not have between the two."""
    parts = [(prompt.split(), answer.split()) for prompt, answer in map(parts_of, questions)]
    prompts = [prompt for prompt, _ in parts]
    several = len(set(map(tuple, prompts))) > 1  # of a single one it cannot be known
    before = n_shared(prompts) if several else 0
    after = n_shared([prompt[::-1] for prompt in prompts]) if several else 0
    own = ((len(prompt) - before - after, len(answer)) for prompt, answer in parts)
    return [max(one) if after else sum(one) for one in own]


def n_shared(rows: Sequence[Sequence[str]]) -> int:
    """How many words all rows begin with alike."""
    columns = enumerate(zip(*rows, strict=False))
    return next((at for at, words in columns if len(set(words)) > 1), min(map(len, rows)))


def stand(tracer: Tracer, texts: Sequence[str]) -> list[bool]:
    """Whether any `WORDS` words in a row of each text stand in what was read, with the white space between them."""
    found: list[bool] = []
    for begin in range(0, len(texts), AT_ONCE):
        # The first word has other tokens where a space is before it.
        some = [f"{space}{text}" for text in texts[begin : begin + AT_ONCE] for space in ("", " ")]
        held = iter(held_of(tracer, some))
        found += [first or other for first, other in zip(held, held, strict=True)]
    return found


def held_of(tracer: Tracer, texts: Sequence[str]) -> Iterator[bool]:
    """Whether any `WORDS` words of each text, divided into tokens as it is here, stand in what was read."""
    tokens = tracer.tokenizer.encode_batch(list(texts))
    longest = tracer.longest(np.array([id for ids in tokens for id in ids], np.int32))  # which may reach into the next
    begin = 0
    for text, ids in zip(texts, tokens, strict=True):
        words = [match.span() for match in re.finditer(r"\S+", text)]
        chars = np.array(char_offsets(tracer.pieces(ids, encoded=True)))
        firsts = np.searchsorted(chars, [start for start, _ in words[: max(0, len(words) - WORDS + 1)]], "right") - 1
        ends = np.searchsorted(chars, [end for _, end in words[WORDS - 1 :]], "left")
        yield bool((longest[begin + firsts] >= ends - firsts).any())
        begin += len(ids)
