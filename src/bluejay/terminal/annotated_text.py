"""A text that a user and a model write in turns, with what is known of each of the model's tokens."""

import math
from dataclasses import dataclass, field, replace

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from bluejay.infer.samples import Chunk
from bluejay.prefixes import common_prefix
from bluejay.terminal.assets import PROBABILITY_THRESHOLDS
from bluejay.terminal.function_end import function_end
from bluejay.tokenizer import Tokenizer

STYLES = {
    "model": "bg:#fbf0d3 fg:#15181c",
    "p0": "bg:#fdf8ea fg:#15181c",
    "p1": "bg:#fbeabf fg:#15181c underline",
    "p2": "bg:#f6d68b fg:#15181c underline",
    "p3": "bg:#eebd55 fg:#15181c underline",
    "p4": "bg:#e0a126 fg:#15181c underline bold",
    "bar": "reverse",
    "error": "bold",
}
STYLE = Style.from_dict(STYLES)
WITHOUT_COLOURS = Style.from_dict(STYLES | {"model": "underline"})


@dataclass(frozen=True)
class Span:
    """A part of the text that the model wrote: one token if its probability is known."""

    start: int
    end: int
    logprob: float | None = None
    """Natural logarithm of the token's probability."""
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at its place, each with its log-probability."""


@dataclass(frozen=True)
class AnnotatedText:
    """A text and the spans of it that the model wrote, in order."""

    text: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def bounds(self) -> list[list[int]]:
        """[start, end] of each span."""
        return [[span.start, span.end] for span in self.spans]

    def after_edit(self, after: str) -> "AnnotatedText":
        """The annotated text after the user changed it to `after`. What the edit touches becomes the user's."""
        start = common_prefix(self.text, after)
        room = min(len(self.text), len(after)) - start
        tail = min(common_prefix(self.text[::-1], after[::-1]), room)
        end, shift = len(self.text) - tail, len(after) - len(self.text)
        spans: list[Span] = []
        for span in self.spans:
            if span.end <= start:
                spans.append(span)
            elif span.start >= end:
                spans.append(replace(span, start=span.start + shift, end=span.end + shift))
            else:
                rest = Span(span.start, start), Span(end + shift, span.end + shift)
                spans += [part for part in rest if part.start < part.end]
        return AnnotatedText(after, tuple(spans))

    def append(
        self, text: str, logprob: float | None = None, top: tuple[tuple[str, float], ...] = ()
    ) -> "AnnotatedText":
        """The annotated text with one more token of the model at its end."""
        if not text:
            return self
        span = Span(len(self.text), len(self.text) + len(text), logprob, top)
        return AnnotatedText(self.text + text, (*self.spans, span))

    def truncate(self, length: int) -> "AnnotatedText":
        """The first `length` characters."""
        begun = (span for span in self.spans if span.start < length)
        spans = (span if span.end <= length else Span(span.start, length) for span in begun)
        return AnnotatedText(self.text[:length], tuple(spans))

    def token_at(self, position: int) -> Span | None:
        """The token at a position in the text; None if the user wrote it or its probability is unknown."""
        known = (span for span in self.spans if span.start <= position < span.end and span.logprob is not None)
        return next(known, None)


@dataclass
class Sample:
    """One continuation during its generation."""

    annotated: AnnotatedText
    prompt: str | None = None
    """The prompt, if generation is to stop at the end of a function; otherwise None."""
    waiting: list[Chunk] = field(default_factory=list)
    """Chunks whose text has not arrived."""
    reason: str | None = None
    """Why the sample has ended, one of the keys of `STOP_REASONS`; None until then."""

    def __post_init__(self) -> None:
        self.start = len(self.annotated.text)

    def take(self, chunk: Chunk, tokenizer: Tokenizer) -> None:
        """Append a chunk's text. Tokens that give text only together, such as the bytes of a character, become one
        span."""
        if self.reason is not None:
            return  # the sample has ended here but not yet for the engine
        ended = chunk.finish_reason == "stop" and chunk.token in tokenizer.ends
        self.reason = "end" if ended else chunk.finish_reason
        self.waiting.append(chunk)
        if not chunk.text:
            return
        logprobs = [one.logprob for one in self.waiting if one.logprob is not None]
        top: tuple[tuple[str, float], ...] = ()
        if len(self.waiting) == 1 and logprobs:
            top = tuple((token_text(tokenizer, token), logprob) for token, logprob in logprobs[0].top)
        logprob = sum(one.logprob for one in logprobs) if logprobs else None
        self.annotated = self.annotated.append(chunk.text, logprob, top)
        self.waiting = []
        end = None if self.prompt is None else function_end(self.prompt, self.annotated.text[self.start :])
        if end is not None:
            self.annotated, self.reason = self.annotated.truncate(self.start + end), "function"


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token; empty for a token that ends the text."""
    return tokenizer.token_bytes()[token].decode("utf-8", errors="replace")


def is_partial(text: str) -> bool:
    """Whether a token with this text is part of a character, which gives text only together with others."""
    return "\ufffd" in text


def probability_level(logprob: float) -> int:
    """0 for a likely token to 4 for an unlikely one, which is coloured most deeply."""
    return sum(math.exp(logprob) < limit for limit in PROBABILITY_THRESHOLDS)


def percent(logprob: float) -> str:
    """A probability as a percentage, from its logarithm."""
    return f"{math.exp(logprob):.2%}" if logprob < math.log(0.01) else f"{math.exp(logprob):.0%}"


def style_of(depth: ColorDepth) -> Style:
    """The style of a terminal; on one without colours, as after NO_COLOR=1, the model's words are underlined."""
    return WITHOUT_COLOURS if depth is ColorDepth.DEPTH_1_BIT else STYLE


def styled_fragments(annotated: AnnotatedText, start: int, end: int, probabilities: bool) -> StyleAndTextTuples:
    """The text from `start` to `end`, cut into fragments where its style changes."""
    text, at = annotated.text, start
    fragments: StyleAndTextTuples = []
    for span in annotated.spans:
        if span.end <= start or span.start >= end:
            continue
        fragments.append(("", text[at : max(at, span.start)]))
        known = span.logprob if probabilities else None
        style = "class:model" if known is None else f"class:p{probability_level(known)}"
        at = min(end, span.end)
        fragments.append((style, text[max(start, span.start) : at]))
    fragments.append(("", text[at:end]))
    return [fragment for fragment in fragments if fragment[1]]
