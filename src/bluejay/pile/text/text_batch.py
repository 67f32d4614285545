"""A batch of texts as arrays of characters, words and lines, which filters and hashes share.

A batch is one string of about 120,000 characters, small enough for the cache of a processor: its texts, joined by line
ends. Everything is computed with numpy over its code points, so no Python runs per word. The results for a text never
depend on the other texts of its batch.
"""

import itertools
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

T = TypeVar("T")
Texts = pa.StringArray | pa.LargeStringArray
"""An array of UTF-8 texts without nulls."""

MAX_BATCH_CHARACTERS = 120_000
"""A longer text is a batch of its own; a batch takes about 40 bytes of memory per character."""
MAX_BATCH_TEXTS = 4096
"""Texts of a batch at most."""

SPACE, LETTER, CONTENT, TERMINAL, TERM, ALONE = (np.uint8(1 << bit) for bit in range(6))
"""Bits for the kinds of a character: white space; a letter; neither space nor PUNCTUATION; the end of a sentence; part
of a term (a letter, digit or mark); a term by itself, because its script puts no spaces between words."""

TABLED_POINTS = 0x40000
"""Code points whose kinds are tabled; all above them are CONTENT, and neither letters nor marks."""
SENTENCE_END = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d6 "
    "17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 "
    "2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb "
    "fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 "
    "111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 "
    "1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 "
    "16b37-16b38 16b44 16e98 1bc9f 1da88"
)
"""Code points that end a sentence, hexadecimal: Unicode's Sentence_Terminal and the Khmer signs that FineWeb adds."""
PUNCTUATION = "0-8 b-1f 21-2f 3a-40 5b-60 7b-9f ab b4 bb 2013-2014 2019 201c-201e 2026 2236 2501 25ba 3001-3002 "
PUNCTUATION += "3008-300d 3010-3011 ff01 ff05 ff08-ff09 ff0c ff0e ff11 ff1a-ff1b ff1f ff5e"
"""Code points that, like SENTENCE_END, do not make a word in Gopher's rules: the set of datatrove, text.py."""
UNSPACED = "e00-eff 1000-109f 1780-17ff 3040-30ff 3400-4dbf 4e00-9fff f900-faff 20000-3ffff"
"""Code points of Thai, Lao, Burmese, Khmer, Kana and Han."""


@dataclass(frozen=True)
class Spans:
    """Ranges of characters of a batch, such as its words or its lines, in order."""

    starts: NDArray[np.int64]
    """The first character of each span, (n,)."""
    ends: NDArray[np.int64]
    """One past the last character of each span, (n,)."""
    bounds: NDArray[np.int64]
    """(texts + 1,): the spans of text i are bounds[i] to bounds[i + 1]."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each span, (n,)."""
        return self.ends - self.starts

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Spans of each text, (texts,)."""
        return np.diff(self.bounds)

    @cached_property
    def document(self) -> NDArray[np.int64]:
        """The text of each span, (n,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def total(self, values: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """Sum a value per span (n,) over each text: (texts,)."""
        return segment_sums(values, self.bounds)


class TextBatch:
    """Texts, and arrays over the characters of all of them, which are computed at the first use."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self.starts = np.cumsum(self.lengths + 1) - self.lengths - 1

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def text(self) -> str:
        """All texts, joined by line ends."""
        return "\n".join(self.texts)

    @cached_property
    def points(self) -> NDArray[np.uint32]:
        """The code points of `text`."""
        return np.frombuffer(self.text.encode("utf-32-le"), np.uint32)

    @cached_property
    def lower_points(self) -> NDArray[np.uint32]:
        """The code points of `lower`."""
        return np.take(lowercase_points(), self.points, mode="clip")

    @cached_property
    def lower(self) -> str:
        """`text` in lower case, character by character, so that all positions stay."""
        return self.lower_points.tobytes().decode("utf-32-le")

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """The kinds of each character of `text`: bits SPACE, LETTER, and so on."""
        return np.take(character_kinds(), self.points, mode="clip")

    @cached_property
    def words(self) -> Spans:
        """The words between white space, as `str.split` finds them."""
        return self.spans_where((self.kinds & SPACE) == 0)

    @cached_property
    def terms(self) -> Spans:
        """Runs of letters, digits and marks; in scripts without spaces, single characters."""
        kinds = self.kinds
        alone = (kinds & ALONE) != 0 if int(self.points.max(initial=0)) > 0xDFF else None
        return self.spans_where((kinds & TERM) != 0, alone)

    def spans_where(self, inside: NDArray[np.bool_], alone: NDArray[np.bool_] | None = None) -> Spans:
        """The runs of characters where `inside` holds; a character that is `alone` is a run by itself."""
        before, after = np.zeros_like(inside), np.zeros_like(inside)
        before[1:], after[:-1] = inside[:-1], inside[1:]
        if alone is not None:
            before[1:] &= ~(alone[1:] | alone[:-1])
            after[:-1] &= ~(alone[1:] | alone[:-1])
        starts, ends = np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1
        return Spans(starts, ends, self.bounds_of(starts))

    @cached_property
    def lines(self) -> Spans:
        """The lines that `text.split("\\n")` gives, including empty ones."""
        if not self.texts:
            return Spans(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
        ends = np.append(np.flatnonzero(self.points == ord("\n")), len(self.points))
        starts = np.append(0, ends[:-1] + 1)
        return Spans(starts, ends, self.bounds_of(starts))

    @cached_property
    def words_of_lines(self) -> NDArray[np.int64]:
        """(lines + 1,): the words of line i are entry i to entry i + 1."""
        return np.append(np.searchsorted(self.words.starts, self.lines.starts), len(self.words.starts))

    def bounds_of(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """`Spans.bounds` of spans that begin at `starts`, which ascend."""
        return np.append(np.searchsorted(starts, self.starts), len(starts))

    @cached_property
    def prefix(self) -> NDArray[np.uint64]:
        """`prefix_sums` of the code points, whose differences `hashes` takes."""
        return prefix_sums(self.points)

    @cached_property
    def lower_prefix(self) -> NDArray[np.uint64]:
        """`prefix_sums` of `lower_points`."""
        return prefix_sums(self.lower_points)

    def hashes(self, spans: Spans, prefix: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
        """A hash of the characters of each span (Karp and Rabin 1987), whatever its position: (n,)."""
        prefix = self.prefix if prefix is None else prefix
        raw = prefix[spans.ends] - prefix[spans.starts]
        return mix64(raw * powers(INVERSE, len(prefix))[spans.starts] + spans.lengths.astype(np.uint64))

    def find(self, phrase: str) -> NDArray[np.int64]:
        """The positions of a lower-case phrase in `lower`, without overlaps."""
        places, at = [], self.lower.find(phrase)
        while at >= 0:
            places.append(at)
            at = self.lower.find(phrase, at + len(phrase))
        return np.array(places, np.int64)

    def count(self, phrase: str) -> NDArray[np.int64]:
        """How often a phrase occurs in each text, without overlaps: (texts,)."""
        return np.fromiter((text.count(phrase) for text in self.texts), np.int64, len(self))


def word_hashes(words: tuple[str, ...]) -> NDArray[np.uint64]:
    """The hashes of words, as `TextBatch.hashes` gives them."""
    batch = TextBatch([" ".join(words)])
    return batch.hashes(batch.words)


BASE = 0x9E3779B97F4A7C15
"""Base of the hash; odd, so that it has an inverse modulo 2**64."""
INVERSE = pow(BASE, -1, 1 << 64)
"""The inverse of BASE modulo 2**64."""
TABLED_POWERS = 1 << 18
"""Powers of BASE, and of INVERSE, that are tabled."""


def prefix_sums(points: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """The sums of points[i] * BASE**i before each position, modulo 2**64: (n + 1,)."""
    totals = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(points * powers(BASE, len(points)), out=totals[1:])
    return totals


def powers(base: int, count: int) -> NDArray[np.uint64]:
    """The first `count` powers of `base`, from power 0, modulo 2**64."""
    return table_of_powers(base)[:count] if count <= TABLED_POWERS else new_powers(base, count)


@cache
def table_of_powers(base: int) -> NDArray[np.uint64]:
    """The powers that nearly all batches need."""
    return new_powers(base, TABLED_POWERS)


def new_powers(base: int, count: int) -> NDArray[np.uint64]:
    table = np.full(count, base, np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each value: the finalizer of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def segment_sums(values: NDArray[np.int64] | NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of values[bounds[i] : bounds[i + 1]] for each i."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return np.diff(totals[bounds])


@cache
def character_kinds() -> NDArray[np.uint8]:
    """The kinds of every code point below TABLED_POINTS; one last entry serves all others."""
    kinds = np.full(TABLED_POINTS + 1, CONTENT, np.uint8)
    characters = [chr(point) for point in range(TABLED_POINTS)]
    categories = np.array([unicodedata.category(character)[0] for character in characters])
    space = np.array([character.isspace() for character in characters])
    kinds[:-1][np.array([character.isalpha() for character in characters])] |= LETTER
    kinds[:-1][np.isin(categories, ["L", "M", "N"])] |= TERM
    for points in ranges(SENTENCE_END):
        kinds[points] = (kinds[points] | TERMINAL) & ~CONTENT
    for points in ranges(PUNCTUATION):
        kinds[points] &= ~CONTENT
    for points in ranges(UNSPACED):
        kinds[points] |= (kinds[points] & TERM) // TERM * ALONE
    kinds[:-1][space] = SPACE
    return kinds


@cache
def lowercase_points() -> NDArray[np.uint32]:
    """The lower case of every code point below TABLED_POINTS, in one code point: of İ, which has two, the first."""
    return np.array([ord(chr(point).lower()[0]) for point in range(TABLED_POINTS)] + [0xFFFD], np.uint32)


def ranges(points: str) -> Iterator[slice]:
    """The ranges of code points in a line such as "21 2e-2f"."""
    for part in points.split():
        first, _, last = part.partition("-")
        yield slice(int(first, 16), int(last or first, 16) + 1)


def split_texts(texts: Texts) -> Iterator[list[str]]:
    """Split texts into lists of as many as one batch holds, in order."""
    group: list[str] = []
    characters = 0
    for text in itertools.chain.from_iterable(part.to_pylist() for part in array_slices(texts)):
        if group and (characters + len(text) > MAX_BATCH_CHARACTERS or len(group) == MAX_BATCH_TEXTS):
            yield group
            group, characters = [], 0
        group.append(text)
        characters += len(text)
    if group:
        yield group


def array_slices(texts: Texts) -> Iterator[Texts]:
    """Slice an array, so that only a part of it exists as Python strings at a time."""
    for start in range(0, len(texts), 256):
        yield texts.slice(start, 256)


def map_batches(texts: Texts, function: Callable[[TextBatch], T]) -> list[T]:
    """Apply a function to every batch of the texts, in order."""
    return [function(TextBatch(group)) for group in split_texts(texts)]
