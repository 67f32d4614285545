"""MinHash finds the pairs that theory predicts from the exact Jaccard similarity of real and edited texts."""

import itertools
import random
import re
import sysconfig
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bluejay.pile.text import clusters, minhash
from bluejay.pile.text.minhash import MinHashSettings

NEAR = MinHashSettings()
WITHIN = 0.02
"""Tolerance between the measured recall and precision and those in theory."""


def shingles(text: str, n: int = 5) -> set[int]:
    """The shingles in plain Python, for text without combining marks and in scripts with spaces."""
    terms = re.findall(r"[^\W_]+", text.lower())
    return {hash(tuple(terms[i : i + n])) for i in range(max(1, len(terms) - n + 1))} if terms else set()


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def found(signatures: np.ndarray) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """The pairs that bands propose, and those that also pass the threshold."""
    keys, rows = minhash.band_keys(signatures, NEAR), np.arange(len(signatures))
    pairs = clusters.unique_pairs(
        np.concatenate([clusters.candidate_pairs(keys[:, band], rows) for band in range(NEAR.bands)])
    )
    agree = clusters.agreeing_pairs(pairs, signatures, NEAR)
    return set(map(tuple, pairs.tolist())), set(map(tuple, pairs[agree].tolist()))


def check_against_theory(pairs: dict[tuple[int, int], float], texts: list[str]) -> None:
    """Compare recall and precision over pairs of known similarity with theory."""
    proposed, verified = found(minhash.signatures(pa.array(texts), NEAR))
    likely = {pair: minhash.curve(NEAR, similarity) for pair, similarity in pairs.items()}
    for column, sets in enumerate((proposed, verified)):
        near = [pair for pair, similarity in pairs.items() if similarity >= NEAR.threshold]
        recall = sum(pair in sets for pair in near) / len(near)
        in_theory = sum(likely[pair][column] for pair in near)
        assert abs(recall - in_theory / len(near)) < WITHIN
        precision = sum(pair in sets for pair in near) / sum(pair in sets for pair in pairs)
        assert abs(precision - in_theory / sum(chance[column] for chance in likely.values())) < WITHIN


def edited(words: list[str], share: float, random: random.Random) -> list[str]:
    """Replace some words, each by a new one."""
    return [f"new{random.random()}" if random.random() < share else word for word in words]


def test_edited_texts_are_found_as_theory_predicts() -> None:
    random_, vocabulary = random.Random(7), [f"word{number}" for number in range(5000)]
    texts: list[str] = []
    for _ in range(2500):
        words = random_.choices(vocabulary, k=random_.randint(80, 250))
        texts += [" ".join(words), " ".join(edited(words, random_.uniform(0, 0.12), random_))]
    pairs = {(i, i + 1): jaccard(shingles(texts[i]), shingles(texts[i + 1])) for i in range(0, len(texts), 2)}
    assert sum(0.5 < similarity < 0.9 for similarity in pairs.values()) > 1000
    check_against_theory(pairs, texts)


@pytest.mark.slow
def test_versions_of_the_standard_library_are_found_as_theory_predicts() -> None:
    folders = sorted({*Path.home().glob(".pyenv/versions/3*/lib/python3.*"), *Path("/usr/lib").glob("python3.*")})
    versions: dict[str, set[str]] = defaultdict(set)
    for folder in {*folders, Path(sysconfig.get_path("stdlib"))}:
        for path in sorted(folder.rglob("*.py")):
            if "site-packages" not in path.parts and "dist-packages" not in path.parts:
                versions[path.relative_to(folder).as_posix()].add(path.read_text(errors="replace"))
    if sum(len(texts) > 1 for texts in versions.values()) < 500:  # only one Python is here: make other versions of it
        random_ = random.Random(1)
        for texts in versions.values():
            lines = next(iter(texts)).splitlines()
            texts |= {"\n".join(edited(lines, share, random_)) for share in (0.01, 0.03, 0.1)}
    texts = sorted({text for group in versions.values() for text in group})
    row, sets = {text: row for row, text in enumerate(texts)}, [shingles(text) for text in texts]
    pairs = {
        (a, b): jaccard(sets[a], sets[b])
        for group in versions.values()
        for a, b in itertools.combinations(sorted(row[text] for text in group), 2)
        if sets[a] and sets[b]
    }
    assert len(pairs) > 2000
    check_against_theory(pairs, texts)
    _, verified = found(minhash.signatures(pa.array(texts), NEAR))
    far = [pair for pair in verified if jaccard(sets[pair[0]], sets[pair[1]]) < NEAR.threshold - 0.2]
    assert len(far) < 0.001 * len(verified)


def test_the_share_of_equal_positions_estimates_similarity() -> None:
    words = [f"w{number}" for number in range(3000)]
    texts = [" ".join(words), " ".join(words[:2000] + ["x"] * 1000)]
    near = MinHashSettings(bands=128, rows=16)
    signatures = minhash.signatures(pa.array(texts), near)
    exact = jaccard(*map(shingles, texts))
    assert abs((signatures[0] == signatures[1]).mean() - exact) < 4 * (exact * (1 - exact) / 2048) ** 0.5


def test_layout_case_and_punctuation_do_not_count() -> None:
    texts = ["The quick, brown fox — jumps over\n\nthe lazy dog!", "the QUICK brown fox jumps; over the (lazy) dog"]
    signatures = minhash.signatures(pa.array([*texts, "the quick brown fox jumps over the lazy cat"]), NEAR)
    assert (signatures[0] == signatures[1]).all()
    assert (signatures[0] != signatures[2]).any()


def test_word_order_matters_and_the_batch_does_not() -> None:
    texts = ["one two three", "three two one", "一二三四五六七八九十", "一二三四五六七八九十。", "", "-", "one"]
    together = minhash.signatures(pa.array(texts, pa.large_string()), NEAR)
    alone = [minhash.signatures(pa.array([text]), NEAR)[0] for text in texts]
    assert (together == np.stack(alone)).all()
    assert (together[0] != together[1]).any()
    assert (together[2] == together[3]).all()
    assert (minhash.band_keys(together, NEAR)[4:6] == 0).all()
    assert (minhash.band_keys(together, NEAR)[[0, 1, 2, 3, 6]] != 0).all()
    assert minhash.signatures(pa.array([], pa.string()), NEAR).shape == (0, 112)


def test_the_curve_is_the_one_of_the_paper() -> None:
    for similarity in (0.5, 0.7, 0.8, 0.9):
        assert minhash.curve(NEAR, similarity)[0] == pytest.approx(1 - (1 - similarity**8) ** 14)
    # Verified alone, without bands: one row in each of 112 bands proposes every pair with one equal place.
    tail = minhash.curve(MinHashSettings(bands=112, rows=1), 0.7)[1]
    agree = np.random.RandomState(0).binomial(112, 0.7, 200_000) >= 79
    assert tail == pytest.approx(agree.mean(), abs=0.005)
    assert "0.80     0.924     0.921" in minhash.curve_table(NEAR)


@pytest.mark.parametrize("fields", [{"bands": 0}, {"ngram": 0}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_impossible_settings_are_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match=r"dedup\.near: bands, rows and ngram are from 1"):
        MinHashSettings(**fields)
