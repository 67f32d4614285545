"""Examples for fine-tuning from a file, packed into sequences without splitting an example.

A sequence is an end token, an example and its end token, another example, ..., padded with end tokens. The tokens of
answers, including their end token, have loss weight 1, those of prompts `data.prompt_weight`, all others 0.

An example is read as it will be asked for. Nothing stands before a prompt, so its first token sees no end token and is
not predicted; an end token stands before an answer without a prompt, and before a text.
"""

import bisect
import hashlib
import heapq
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path

import numpy as np

from bluejay.chat_template import Chat
from bluejay.files import unnested
from bluejay.progress import counted, progress, say
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.content import hash_of_arrays
from bluejay.train.data.encoding import Encoded, encode_conversation, encode_pair
from bluejay.train.data.example_files import NoRow, read_rows
from bluejay.train.data.examples import Conversation, Form, Pair, Unusable, advice, form_of
from bluejay.train.recipe import Data

NO_TEMPLATE = (
    "holds a conversation, and the model has no chat template; name a file with one in data.chat_template, "
    "or make pairs of prompt and completion"
)


class Part(Enum):
    """The part of a file's examples that is read. One example in twenty is held out, with all texts of its row; equal
    ones are never divided."""

    ALL = ""
    TRAINING = "training "
    HELD_OUT = "held-out "

    def of(self, encoded: list[Encoded]) -> list[Encoded]:
        """The examples of this part, in order. Which ones are held out follows from their tokens alone."""
        if self is Part.ALL:
            return encoded
        keys = keys_of(encoded)
        different = sorted(set(keys))
        held_out = set(different[: min(max(1, len(different) // 20), len(different) - 1)])
        return [one for one, key in zip(encoded, keys, strict=True) if (key in held_out) == (self is Part.HELD_OUT)]


def part_of(data: Data, name: str) -> Part:
    """The part of a file of examples that a run learns: without `data.valid`, some of the held-out file is held out."""
    return Part.TRAINING if data.valid is None and is_same_file(name, data.held_out) else Part.ALL


def is_same_file(one: str, other: str) -> bool:
    """Whether two names are those of one file or shard."""
    return Path(one).resolve() == Path(other).resolve()


def keys_of(encoded: list[Encoded]) -> list[str]:
    """A key for each text, the same for texts that are equal or of one row, and for those that such texts link: the
    least of the hashes of their tokens."""
    hashes = [hash_of_arrays(np.asarray(one.ids, dtype=np.int32)) for one in encoded]
    keys = dict(zip(hashes, hashes, strict=True))
    rows = defaultdict[str, set[str]](set)
    for one, hash in zip(encoded, hashes, strict=True):
        rows[one.row].add(hash)
    several = [row for row in rows.values() if len(row) > 1]
    while apart := [row for row in several if len({keys[hash] for hash in row}) > 1]:
        for row in apart:
            keys |= dict.fromkeys(row, min(keys[hash] for hash in row))
    return [keys[hash] for hash in hashes]


class PackedExamples:
    """The sequences of a file of examples, a `bluejay.train.data.batches.SequenceSource`.

    `columns` is `data.columns` of the recipe. With `at_most`, only some of the examples are taken, evenly over the
    file, that have about so many tokens. `read` are the examples of all of the file, where they have been read before
    for the same model and length. What is left out is counted and said. Raises FileNotFoundError if there is no
    such file; ValueError if it is of another kind, or no example fits in a sequence.
    """

    weighted = True

    def __init__(
        self,
        path: str,
        length: int,
        tokenizer: Tokenizer,
        prompt_weight: float,
        columns: Mapping[str, str] | None = None,
        part: Part = Part.ALL,
        at_most: int | None = None,
        read: list[Encoded] | None = None,
    ) -> None:
        self.path, self.length, self.eot = path, length, tokenizer.eot
        self.read = encode_file(Path(path), length, tokenizer, columns or {}) if read is None else read
        """The examples of all parts of the file."""
        encoded = part.of(self.read)
        if not encoded:
            raise ValueError(f"{path} has one example, of which none can be held out; name others in data.valid")
        if at_most is not None:
            encoded = evenly(encoded, at_most)
        self.encoded = encoded
        self.tokens = [np.asarray(one.ids, dtype=np.int32) for one in encoded]
        self.weights = [np.where(one.learnt, 1.0, prompt_weight).astype(np.float32) for one in encoded]
        self.asked = [one.has_prompt for one in encoded]
        self.packed = pack([len(ids) for ids in self.tokens], length)
        filled = sum(map(len, self.tokens)) / (len(self) * length)
        epoch = f"one epoch is {len(self) * length:,} tokens, {1 - filled:.0%} of them padding"
        examples = counted(len(encoded), f"{part.value}example")
        say(f"{path}: {examples} in {counted(len(self), 'sequence')}; {epoch}")

    def __len__(self) -> int:
        return len(self.packed)

    def content(self) -> str:
        """A hash of the tokens and the weights of all examples."""
        return hash_of_arrays(*self.tokens, *self.weights)

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A sequence of length + 1 tokens, and the loss weight of each but the first."""
        tokens = np.full(self.length + 1, self.eot, dtype=np.int32)
        weights = np.zeros(self.length, dtype=np.float32)
        for example, at, end in self.places(number):
            tokens[at + 1 : end + 1], weights[at:end] = self.tokens[example], self.weights[example]
            weights[at : at + self.asked[example]] = 0.0
        return tokens, weights

    def starts(self, number: int) -> np.ndarray:
        """Position in a sequence at which each token's example begins: a conversation may hold end tokens within."""
        starts = np.arange(self.length, dtype=np.int64)
        for example, at, end in self.places(number):
            first = at + self.asked[example]
            starts[first:end] = first
        return starts

    def places(self, number: int) -> Iterator[tuple[int, int, int]]:
        """The examples of a sequence, each with the positions of the end token before it and of its last token."""
        at = 0
        for example in self.packed[number]:
            end = at + len(self.tokens[example])
            yield example, at, end
            at = end


def encode_file(path: Path, length: int, tokenizer: Tokenizer, columns: Mapping[str, str]) -> list[Encoded]:
    """The examples of a file that have at most `length` tokens, in order."""
    chat = None if tokenizer.chat_template is None else Chat(tokenizer)
    encoded: list[Encoded] = []
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}
    n_rows = n_special = 0
    special = special_names(tokenizer)
    with progress(f"read {path.name}", 0, "examples") as bar:
        for place, example in read_examples(path, columns, chat is not None):
            n_rows += 1
            bar.advance(1)
            try:
                if isinstance(example, Unusable):
                    raise example
                if isinstance(example, Pair):
                    n_special += special.search(example.prompt + example.completion) is not None
                    found = [encode_pair(example.prompt, example.completion, tokenizer)]
                elif chat is None:
                    raise ValueError(f"{path}, {place} {NO_TEMPLATE}")
                else:
                    found = encode_conversation(example, tokenizer, chat, length)
                found = [replace(one, row=place, number=number) for number, one in enumerate(found, start=1)]
                fitting = [compact(one) for one in found if len(one.ids) <= length]
                encoded += fitting
                if len(fitting) < len(found):
                    raise Unusable(f"longer than data.sequence_length {length}")
            except Unusable as reason:
                left_out[str(reason)] += 1
                first.setdefault(str(reason), place)
    if left_out:
        each = "; ".join(f"{count:,} {reason} ({first[reason]})" for reason, count in left_out.most_common())
        say(f"{path}: left out {left_out.total():,} of {n_rows:,} examples: {each}")
    if not encoded:
        raise ValueError(f"{path} has no example of at most {length} tokens, data.sequence_length, to learn from")
    if n_special:
        say(
            f"WARNING: {path}: {n_special:,} examples hold the name of a special token, which is ordinary text in "
            "pairs, as it is in prompts; write conversations as messages, and the model's chat template sets the tokens"
        )
    return encoded


def compact(encoded: Encoded) -> Encoded:
    """The same with 5 bytes a token, where lists take some 40."""
    return replace(encoded, ids=array("i", encoded.ids), learnt=array("b", encoded.learnt))


def read_examples(
    path: Path, columns: Mapping[str, str], as_chat: bool
) -> Iterator[tuple[str, Pair | Conversation | Unusable]]:
    """The example of each row of a file, or why it has none, with its place.

    Raises ValueError after the last row, naming the first of the rows that are no examples, and how many there are.
    """
    form: Form | None = None
    wrong: list[str] = []
    there: dict[str, None] = {}
    read: dict[str, None] = {}
    for place, row in read_rows(path):
        try:
            if isinstance(row, NoRow):
                raise ValueError(row.reason)
            row = unnested(row, columns.values())
            if form is None:
                form = form_of(list(row), columns)
                if form is None:
                    raise ValueError(advice(list(row)))
            there |= dict.fromkeys(row)
            read |= dict.fromkeys(form.columns(row).values())
            example = form.example(row, as_chat)
        except Unusable as reason:
            yield place, reason
        except ValueError as error:
            wrong.append(f"{place} {error}")
            if form is None and not isinstance(row, NoRow):
                break
        else:
            yield place, example
    if read:
        unused = [name or "one without a name" for name in there if name not in read]
        say(f"{path}: reads the columns {', '.join(read)}" + (f"; not used: {', '.join(unused)}" if unused else ""))
        if absent := [name for name in columns.values() if name not in there]:
            say(f"WARNING: {path} has no {', '.join(absent)}, which data.columns names")
    if wrong:
        others = f" ({len(wrong):,} rows are no examples)" if len(wrong) > 1 else ""
        raise ValueError(f"{path}, {wrong[0]}{others}")


def special_names(tokenizer: Tokenizer) -> re.Pattern[str]:
    """A pattern for the names of special tokens: those of the tokenizer, and what is spelled like the usual ones."""
    added = tokenizer.backend.get_added_tokens_decoder().values()
    return re.compile("|".join([r"<\|\w+\|>", *(re.escape(token.content) for token in added if token.special)]))


def evenly(encoded: list[Encoded], tokens: int) -> list[Encoded]:
    """As many of the examples as have about so many tokens, drawn evenly over the file, and always the same ones."""
    order = sorted(range(len(encoded)), key=lambda i: hashlib.blake2b(str(i).encode(), digest_size=8).digest())
    taken, total = [], 0
    for number in order:
        if taken and total + len(encoded[number].ids) > tokens:
            break
        taken.append(number)
        total += len(encoded[number].ids)
    return [encoded[number] for number in sorted(taken)]


def pack(lengths: list[int], capacity: int) -> list[list[int]]:
    """The examples in each sequence, by best-fit decreasing: longest first, into the fullest sequence that has room."""
    packed: list[list[int]] = []
    numbers: dict[int, list[int]] = {}
    """For each number of free tokens a heap of the sequences that have so many."""
    sizes: list[int] = []
    """The keys of `numbers`, sorted."""
    for example in sorted(range(len(lengths)), key=lambda example: -lengths[example]):
        at = bisect.bisect_left(sizes, lengths[example])
        if at == len(sizes):
            free, number = capacity, len(packed)
            packed.append([])
        else:
            free = sizes[at]
            number = heapq.heappop(numbers[free])
            if not numbers[free]:
                del sizes[at], numbers[free]
        packed[number].append(example)
        free -= lengths[example]
        if free not in numbers:
            bisect.insort(sizes, free)
        heapq.heappush(numbers.setdefault(free, []), number)
    return packed
