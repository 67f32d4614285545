"""A text that a person and a model write in turns, and what is known of each of the model's tokens."""

import math
from dataclasses import dataclass, field, replace

from bluejay.infer.engine import Chunk
from bluejay.terminal.function import function_end
from bluejay.tokenizer import Tokenizer

LEVELS = (0.8, 0.5, 0.2, 0.05)
"""Probabilities at which the colour deepens."""


@dataclass(frozen=True)
class Mark:
    """A stretch of the text that the model wrote; a token where its probability is known."""

    start: int
    end: int
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens in its place, with the natural logarithms of their probabilities."""


@dataclass(frozen=True)
class Draft:
    """A text, and who wrote what of it."""

    text: str = ""
    marks: tuple[Mark, ...] = ()

    def edited(self, after: str) -> "Draft":
        """The draft after a person turned its text into another; what they touched is theirs."""
        start = common(self.text, after)
        tail = min(common(self.text[::-1], after[::-1]), min(len(self.text), len(after)) - start)
        end, shift = len(self.text) - tail, len(after) - len(self.text)
        marks: list[Mark] = []
        for mark in self.marks:
            if mark.end <= start:
                marks.append(mark)
            elif mark.start >= end:
                marks.append(replace(mark, start=mark.start + shift, end=mark.end + shift))
            else:
                rest = Mark(mark.start, start), Mark(end + shift, mark.end + shift)
                marks += [part for part in rest if part.start < part.end]
        return Draft(after, tuple(marks))

    def written(self, text: str, logprob: float | None = None, top: tuple[tuple[str, float], ...] = ()) -> "Draft":
        """The draft with a token of the model's at its end."""
        if not text:
            return self
        mark = Mark(len(self.text), len(self.text) + len(text), logprob, top)
        return Draft(self.text + text, (*self.marks, mark))

    def cut(self, length: int) -> "Draft":
        """The first so many characters."""
        begun = (mark for mark in self.marks if mark.start < length)
        return Draft(
            self.text[:length], tuple(mark if mark.end <= length else Mark(mark.start, length) for mark in begun)
        )

    def at(self, position: int) -> Mark | None:
        """The token at a place in the text."""
        known = (mark for mark in self.marks if mark.start <= position < mark.end and mark.logprob is not None)
        return next(known, None)


def common(one: str, other: str) -> int:
    """Length of the longest beginning of both."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


@dataclass
class Sample:
    """One continuation while it grows."""

    draft: Draft
    prompt: str | None = None
    """What it continues, where it is to end with its function."""
    waiting: list[Chunk] = field(default_factory=list)
    """Chunks whose text has not come."""
    reason: str | None = None
    """Why it has ended: length, stop or function."""

    def __post_init__(self) -> None:
        self.start = len(self.draft.text)

    def take(self, chunk: Chunk, tokenizer: Tokenizer) -> None:
        """Put a chunk's text at the end; several tokens that give text only together become one mark."""
        if self.reason is not None:
            return  # it has ended here, though not yet for the engine
        self.reason = chunk.finish_reason
        self.waiting.append(chunk)
        if not chunk.text:
            return
        logprobs = [one.logprob for one in self.waiting if one.logprob is not None]
        top: tuple[tuple[str, float], ...] = ()
        if len(self.waiting) == 1 and logprobs:
            top = tuple((spelled(tokenizer, token), logprob) for token, logprob in logprobs[0].top)
        self.draft = self.draft.written(chunk.text, sum(one.logprob for one in logprobs) if logprobs else None, top)
        self.waiting = []
        end = None if self.prompt is None else function_end(self.prompt, self.draft.text[self.start :])
        if end is not None:
            self.draft, self.reason = self.draft.cut(self.start + end), "function"


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; empty for one that ends the text."""
    return tokenizer.token_bytes()[token].decode("utf-8", errors="replace")


def level(logprob: float) -> int:
    """How deep the colour of a probability is: 0 for a likely token, 4 for an unlikely one."""
    return sum(math.exp(logprob) < limit for limit in LEVELS)


def percent(logprob: float) -> str:
    """A probability, for people."""
    return f"{math.exp(logprob):.2%}" if logprob < math.log(0.01) else f"{math.exp(logprob):.0%}"
