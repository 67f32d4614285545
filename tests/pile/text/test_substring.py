"""Exactly the passages that occurred before are cut."""

import itertools
import random
import re

import numpy as np
import pyarrow as pa
import pytest

from bluejay.pile.text import substring, text_batch
from bluejay.pile.text.sorted_records import key_range, sorted_records


def texts_with_repeats() -> list[str]:
    """Texts of few words, so that passages also repeat by chance, and some that quote each other."""
    random_ = random.Random(5)
    words = [f"{'ä' * (number % 4)}w{number}" for number in range(400)]
    texts = [" ".join(random_.choices(words, k=random_.randint(0, 120))) for _ in range(60)]
    quotes = [text[20:200] for text in texts if len(text) > 300][:8]
    texts += [f"Said {quotes[random_.randrange(8)]}\n\nand {quotes[random_.randrange(8)]}." for _ in range(30)]
    return [*texts, "", " \n", texts[0]]


def by_hand(texts: list[str], length: int) -> list[str]:
    """The cut texts in plain Python: a passage runs from a word to the first end of a word `length` or more later."""
    seen: set[str] = set()
    result = []
    for text in texts:
        cut = np.zeros(len(text), bool)
        words = list(re.finditer(r"\S+", text))
        for word in words:
            end = next((other.end() for other in words if other.end() >= word.start() + length), None)
            if end is not None:
                passage = text[word.start() : end]
                if passage in seen:
                    cut[word.start() : end] = True
                seen.add(passage)
        result.append("".join(character for character, gone in zip(text, cut, strict=True) if not gone))
    return result


def repeated_spans(texts: pa.Array, length: int, n_buckets: int = 1) -> np.ndarray:
    """The passages to cut, found in each of several ranges of hashes by itself."""
    found = list(substring.passage_hashes(texts, length))
    hashes = np.concatenate([np.empty(0, np.uint64), *(some for some, _ in found)])
    bounds = np.cumsum(np.concatenate([[0], *(counts for _, counts in found)]))
    records = sorted_records(hashes)
    ends = [np.searchsorted(records["key"], np.uint64(key_range(n, n_buckets)[0])) for n in range(n_buckets)]
    numbers = [substring.repeats(records[a:b]) for a, b in itertools.pairwise([*ends, len(records)])]
    return substring.merge_overlaps(substring.locate(texts, length, np.sort(np.concatenate(numbers)), bounds))


@pytest.mark.parametrize("n_buckets", [1, 7])
@pytest.mark.parametrize("size", [120_000, 500])
def test_repeated_passages_are_cut(n_buckets: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_with_repeats()
    monkeypatch.setattr(text_batch, "MAX_BATCH_CHARACTERS", size)
    spans = repeated_spans(pa.array(texts), 60, n_buckets)
    assert substring.without(pa.array(texts), spans).to_pylist() == by_hand(texts, 60)
    assert len(set(spans[:, 0].tolist())) > 20


def test_without_repetition_nothing_is_cut() -> None:
    texts = pa.array([" ".join(f"{row}-{word}" for word in range(100)) for row in range(20)], pa.large_string())
    spans = repeated_spans(texts, 60)
    assert spans.shape == (0, 3)
    assert substring.without(texts, spans) == texts
    assert repeated_spans(texts[:0], 60).shape == (0, 3)
