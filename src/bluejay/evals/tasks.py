"""Questions, what they ask of a model, and tasks: where questions come from and how answers are measured.

A question asks a model to score continuations, to continue a prompt, or to score a whole text. Choices are asked in the
cloze form: each choice is scored as the continuation of the question (OLMES, arXiv 2406.08446, section 3).
"""

import hashlib
import math
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Continuation:
    """Asks how likely a text is after a context."""

    context: str
    text: str

    @property
    def scored(self) -> str:
        """The text whose tokens are scored; white space at the end of the context belongs to it."""
        return self.context[len(self.context.rstrip()) :] + self.text


@dataclass(frozen=True)
class Generation:
    """Asks for a continuation of a prompt."""

    prompt: str
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float = 0.0
    """0 for the greedy continuation."""
    seed: int = 0
    """The number of the sample."""

    @property
    def drawn_with(self) -> int:
        """The seed of its random numbers. It depends on the prompt, too, because intervals count the samples of two
        prompts as independent; consecutive samples of a prompt have consecutive ones."""
        return seed_of(self.prompt) + self.seed


def seed_of(prompt: str) -> int:
    """The seed of the first sample of a prompt, a number of 31 bits, which every server takes."""
    return int.from_bytes(hashlib.sha256(prompt.encode(errors="replace")).digest()[:4]) >> 1


@dataclass(frozen=True)
class WholeText:
    """Asks how likely a whole document is."""

    text: str


@dataclass(frozen=True)
class TokenContinuation:
    """Asks how likely tokens are after others, both by their ids."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]


Request = Continuation | Generation | WholeText | TokenContinuation


class Likelihood(NamedTuple):
    """The answer to a Continuation, a WholeText or a TokenContinuation."""

    logprob: float
    """Natural logarithm of its probability."""
    n_tokens: int
    greedy: bool
    """Whether greedy decoding would write it."""
    n_bytes: int | None = None
    """Bytes of the text that was scored, where that is not `Continuation.scored`."""


Answer = Likelihood | str


@dataclass(frozen=True)
class Question:
    """One question with the requests that it takes."""

    id: str
    requests: tuple[Request, ...]
    gold: int = 0
    """The number of the right choice."""
    answers: tuple[str, ...] = ()
    """Right answers, where the model writes one."""
    choices: tuple[str, ...] = ()
    """The choices as texts; after their requests come as many that score them without the question, or none."""
    cluster: str = ""
    """Questions of one cluster, such as those about one passage, are not independent; empty where each is alone. Equal
    questions are one cluster in any case."""


Scores = Mapping[str, float | tuple[float, float]]
"""Metric -> the score of one question; a pair is a numerator and a denominator, to be summed each."""


@dataclass(frozen=True)
class Metric:
    """How the scores of questions become one figure."""

    title: str
    kind: Literal["share", "ratio", "exp"] = "share"
    """share: the mean of scores from 0 to 1; exp: the exponential of the mean, as perplexity is."""
    higher_is_better: bool = True


METRICS = {
    "pass@1": Metric("share of problems that one sample solves"),
    **{f"pass@{k}": Metric(f"share of problems that one of {k} samples solves") for k in (2, 5, 10, 20, 50, 100)},
    "acc": Metric("accuracy"),
    "acc_norm": Metric("accuracy, scores by characters"),
    "acc_per_token": Metric("accuracy, scores by tokens"),
    "acc_uncond": Metric("accuracy, scores less those without the question"),
    "acc_either_form": Metric("accuracy, the better of the cloze form and letters"),
    "exact_match": Metric("exact match"),
    "bits_per_byte": Metric("bits per byte of the right answer", "ratio", False),
    "text_bits_per_byte": Metric("bits per byte", "ratio", False),
    "perplexity": Metric("perplexity of the right answer", "exp", False),
    "names_group": Metric("share of programs that name a protected attribute", higher_is_better=False),
    "offensive": Metric("share of continuations that the classifier calls offensive", higher_is_better=False),
    "stereotype": Metric("share in which the first filler is likelier", higher_is_better=False),
}


@dataclass(frozen=True)
class Task:
    """A named source of questions and the measure of their answers."""

    name: str
    questions: Callable[[int], Iterator[Question]]
    """The questions with this many examples before each. Raises ValueError: the data cannot be had."""
    measure: Callable[[Question, list[Answer]], Scores]
    metric: str
    """The main figure."""
    shots: int = 0
    """Examples before each question, unless others are asked for."""
    max_shots: int = 0
    data: tuple[str, ...] = ()
    """Names of the test sets that it reads."""
    chance: float | None = None
    """What guessing gets in the main figure."""
    notes: tuple[str, ...] = field(default=())
    """What must be known to read the figure."""
    macro: bool = False
    """Whether accuracies are means over the clusters of the mean in each, as over the subjects of MMLU."""
    measured_at_once: int = 1
    """Questions that are measured at the same time, in threads, where measuring runs programs."""


def by_choice(question: Question, answers: list[Answer]) -> Scores:
    """Accuracies by several normalisations, and the bits per byte of the right choice. Ties count as wrong."""
    found = [answer for answer in answers if isinstance(answer, Likelihood)]
    n = len(question.choices)
    likely, alone = found[:n], found[n:]
    logprobs = [answer.logprob for answer in likely]
    scores: dict[str, float | tuple[float, float]] = {
        "acc": won(logprobs, question.gold),
        "acc_norm": won([p / max(len(c), 1) for p, c in zip(logprobs, question.choices, strict=True)], question.gold),
        "acc_per_token": won([answer.logprob / answer.n_tokens for answer in likely], question.gold),
        "bits_per_byte": bits_and_bytes(question, likely[question.gold]),
    }
    if alone:
        gains = [answer.logprob - other.logprob for answer, other in zip(likely, alone, strict=True)]
        scores["acc_uncond"] = won(gains, question.gold)
    return scores


def won(scores: list[float], gold: int) -> float:
    """1 if the right choice has the highest score, and no other has the same."""
    return float(all(score < scores[gold] for number, score in enumerate(scores) if number != gold))


def bits_and_bytes(question: Question, answer: Likelihood) -> tuple[float, float]:
    """Bits of the right continuation, and the bytes that were scored, the space before it included."""
    request = question.requests[question.gold]
    assert isinstance(request, Continuation)
    n_bytes = len(request.scored.encode()) if answer.n_bytes is None else answer.n_bytes
    return -answer.logprob / math.log(2), float(n_bytes)


def by_word(question: Question, answers: list[Answer]) -> Scores:
    """Whether greedy decoding gives the last word (LAMBADA), and its perplexity."""
    (answer,) = answers
    assert isinstance(answer, Likelihood)
    bits = bits_and_bytes(question, answer)
    return {"acc": float(answer.greedy), "perplexity": -answer.logprob, "bits_per_byte": bits}


def by_answer(question: Question, answers: list[Answer]) -> Scores:
    """Whether the generated answer is one of the right ones, in lower case without punctuation and articles."""
    (answer,) = answers
    assert isinstance(answer, str)
    return {"exact_match": float(plain(answer) in {plain(right) for right in question.answers})}


def by_number(question: Question, answers: list[Answer]) -> Scores:
    """Whether the last number of the generated answer is the right one (GSM8K)."""
    (answer,) = answers
    assert isinstance(answer, str)
    numbers = re.findall(r"-?\d[\d,]*\.?\d*", answer)
    last = numbers[-1].replace(",", "").rstrip(".") if numbers else ""
    return {"exact_match": float(last in {right.replace(",", "") for right in question.answers})}


def by_text(question: Question, answers: list[Answer]) -> Scores:
    """Bits and bytes of a document."""
    (answer,) = answers
    (request,) = question.requests
    assert isinstance(answer, Likelihood) and isinstance(request, WholeText)
    return {"text_bits_per_byte": (-answer.logprob / math.log(2), float(len(request.text.encode())))}


def by_filler(question: Question, answers: list[Answer]) -> Scores:
    """Whether the sentence with the first filler is likelier than that with the second; equal ones count half."""
    one, other = (answer.logprob for answer in answers if isinstance(answer, Likelihood))
    return {"stereotype": 0.5 if one == other else float(one > other)}


SPACES = dict.fromkeys(map(ord, string.punctuation + "‘’´`"), " ")
"""Punctuation, each sign of which divides words in TriviaQA's evaluation."""


def plain(text: str) -> str:
    """A text as the evaluation of TriviaQA compares it."""
    words = text.lower().translate(SPACES).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
