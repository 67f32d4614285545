"""Find documents that share a passage with a test set (Brown et al. 2020, appendix C): 13 consecutive words.

Words are runs of letters, digits and marks, in lower case, so differences of punctuation and layout hide nothing.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.files import parse_json
from bluejay.pile.sources.formats.json_objects import from_first_line, is_by_line
from bluejay.pile.sources.io.decode import decode, file_text, in_utf8, uncompressed
from bluejay.pile.sources.io.open import BROKEN, matching, open_bytes
from bluejay.pile.text.minhash import shingles_of
from bluejay.pile.text.text_batch import TextBatch, Texts, map_batches, split_texts
from bluejay.pile.text.unicode import normalise_text
from bluejay.progress import say
from bluejay.testsets.catalogue import PREFIX, named
from bluejay.testsets.rows import documents
from bluejay.tokenizer import well_formed

TABLE_BITS = 24
"""First bits of a hash, which are looked up in a table before the hash is searched: most words are in no test set."""


@dataclass(frozen=True)
class TestSetIndex:
    """The passages of test sets, by their hashes."""

    ngram: int
    hashes: NDArray[np.uint64]
    """The hash of each passage, ascending, (n,)."""
    file: NDArray[np.int64]
    """The first file that holds each passage, an index in `names`, (n,)."""
    names: tuple[str, ...]
    likely: NDArray[np.bool_]
    """For each value of the first TABLE_BITS bits, whether the hash of a passage begins with it."""

    @classmethod
    def load(cls, paths: Sequence[str], ngram: int = 13) -> "TestSetIndex":
        """Index the passages of every string in .jsonl, .json and .parquet files, and of whole files of plain text.

        `paths` may be patterns, URLs and names such as eval:hellaswag, and the files compressed.

        Raises ValueError: a file is missing, broken, or without a passage of `ngram` words.
        """
        names = tuple(dict.fromkeys(name for path in paths for name in files_of(path)))
        found = [passages(name, ngram) for name in names]
        hashes = np.concatenate([np.zeros(0, np.uint64), *found])
        hashes, first = np.unique(hashes, return_index=True)
        file = np.repeat(np.arange(len(names)), [len(each) for each in found])[first]
        likely = np.zeros(1 << TABLE_BITS, np.bool_)
        likely[hashes >> np.uint64(64 - TABLE_BITS)] = True
        return cls(ngram, hashes, file, names, likely)

    def reasons(self, texts: Texts) -> pa.StringArray:
        """For each text "contaminated: FILE" with the first file that shares a passage, null where none does."""
        found = map_batches(texts, self.batch_files)
        files = np.concatenate([np.zeros(0, np.int64), *found])
        reasons = pa.array([reason_of(name) for name in self.names], pa.string())
        return reasons.take(pa.array(files, mask=files == len(self.names)))

    def batch_files(self, batch: TextBatch) -> NDArray[np.int64]:
        """For each text the first file that shares a passage, the number of files where none does: (texts,)."""
        hashes, bounds = whole_ngrams(batch, self.ngram)
        files = np.full(len(batch), len(self.names))
        at = np.flatnonzero(self.likely[hashes >> np.uint64(64 - TABLE_BITS)])
        place = np.minimum(np.searchsorted(self.hashes, hashes[at]), len(self.hashes) - 1)
        equal = self.hashes[place] == hashes[at]
        document = np.searchsorted(bounds, at[equal], side="right") - 1
        np.minimum.at(files, document, self.file[place[equal]])
        return files


def reason_of(name: str) -> str:
    """Why a document is dropped that shares a passage with a file of a test set."""
    return f"contaminated: {Path(name).name}"


def whole_ngrams(batch: TextBatch, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every n consecutive words, text by text, and the bounds of each text's hashes, (texts + 1,)."""
    hashes, bounds = shingles_of(batch, n)
    # A text of fewer than n words has one shorter shingle, which is no passage.
    short = np.flatnonzero((batch.terms.counts < n) & (np.diff(bounds) > 0))
    counts = np.where(batch.terms.counts < n, 0, np.diff(bounds))
    return np.delete(hashes, bounds[short]), np.append(0, np.cumsum(counts))


def passages(name: str, n: int) -> NDArray[np.uint64]:
    """The hashes of the passages of a file. Raises ValueError: the file has none, or cannot be read."""
    try:
        texts = list(dict.fromkeys(form for text in strings_of(name) for form in forms_of(text)))
    except (*BROKEN, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{name} cannot be read as a test set: {error}") from None
    found = [whole_ngrams(TextBatch(group), n)[0] for group in split_texts(pa.array(texts, pa.large_string()))]
    hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))
    if not len(hashes):
        raise ValueError(f"{name} has no passage of {n} words to look for; lower decontaminate.ngram or leave it out")
    say(f"{name}: {len(hashes):,} passages of {n} words to look for")
    return hashes


def forms_of(text: str) -> tuple[str, str]:
    """The forms in which documents may hold a text: as it is written, and as `clean = ["unicode"]` makes it."""
    text = well_formed(text)
    return text, normalise_text(text)


def files_of(path: str) -> list[str]:
    """The files that a path, a pattern or an address matches; the name of a known test set stands for itself.

    Raises ValueError: there is none.
    """
    if not path.startswith(PREFIX):
        return matching(path)
    named(path.removeprefix(PREFIX))
    return [path]


def strings_of(name: str) -> Iterator[str]:
    """Yield the texts of a test set."""
    if name.startswith(PREFIX):
        for document in documents(name.removeprefix(PREFIX)):
            yield from strings_in(document)
        return
    kind = Path(uncompressed(name)).suffix.lower()
    with open_bytes(name) as file:
        if kind in (".jsonl", ".jsonlines", ".ndjson"):
            for line in in_utf8(file):
                yield from strings_in(parse_json(decode(line))) if line.strip() else ()
        elif kind == ".json":
            first, content = from_first_line(file)
            for written in content if is_by_line(first) else [content.read()]:
                yield from strings_in(parse_json(decode(written))) if written.strip() else ()
        elif kind == ".parquet":
            for row in pq.read_table(io.BytesIO(file.read())).to_pylist():
                yield from strings_in(row)
        else:
            yield file_text(file.read(), name)


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string of a JSON value, except the keys of objects."""
    match value:
        case str():
            yield value
        case dict():
            yield from (text for part in value.values() for text in strings_in(part))
        case list():
            yield from (text for part in value for text in strings_in(part))
