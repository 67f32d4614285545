"""Exactly the passages that occurred before are cut."""

import random
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from bluejay.pile.text import substring, text_batch


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


@pytest.mark.parametrize("at_once", [800_000_000, 3000])
@pytest.mark.parametrize("size", [120_000, 500])
def test_repeated_passages_are_cut(at_once: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_with_repeats()
    monkeypatch.setattr(substring, "CHARACTERS_AT_ONCE", at_once)
    monkeypatch.setattr(text_batch, "MAX_BATCH_CHARACTERS", size)

    def read() -> Iterator[pa.Array]:
        yield pa.array(texts[:50])
        yield pa.array(texts[50:])

    spans = substring.repeats(read, 60, sum(map(len, texts)))
    assert substring.without(pa.array(texts), spans).to_pylist() == by_hand(texts, 60)
    assert len(set(spans[:, 0].tolist())) > 20


def test_without_repetition_nothing_is_cut() -> None:
    texts = pa.array([" ".join(f"{row}-{word}" for word in range(100)) for row in range(20)], pa.large_string())
    spans = substring.repeats(lambda: [texts], 60, 20_000)
    assert spans.shape == (0, 3)
    assert substring.without(texts, spans) == texts
    assert substring.repeats(list, 60, 0).shape == (0, 3)
