"""How influence is checked: sets of one size, a baseline that is BM25, figures with intervals."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import influence


def test_the_baseline_is_bm25():
    """The formula by hand, for a word that one of two documents has, once and twice as long as the mean."""
    documents = [np.array([1, 2, 2]), np.array([3])]
    [scores] = influence.bm25(documents, [np.array([2])])
    idf, norm = math.log(1 + 1.5 / 1.5), 1.2 * (0.25 + 0.75 * 3 / 2)
    assert scores.tolist() == pytest.approx([idf * 2 * 2.2 / (2 + norm), 0.0])
    [scores] = influence.bm25(documents, [np.array([2, 3, 3])])
    assert scores[1] == pytest.approx(2 * idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 / 2)))


def test_a_set_is_filled_in_order_with_what_was_read(monkeypatch):
    monkeypatch.setattr(influence, "MASKED", 1000)
    tokens = np.array([400, 0, 500, 300, 200])
    assert influence.filled([2, 1, 0, 3, 4], tokens) == [2, 0]
    assert influence.filled([3, 2, 0, 4], tokens) == [3, 2, 4]


def test_a_figure_is_the_rise_of_the_querys_own_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(influence, "QUERIES", 3)
    rows = [("nothing", None, [], [1.0, 2.0, 3.0])]
    rows += [("random", n, [n], [1.0 + n, 2.0 + n, 3.0 + n]) for n in (0, 1)]
    rows += [("bm25", q, [5], [2.0, 3.0, 4.0]) for q in range(3)]
    rows += [("influence", q, [6], [4.0 if i == q else 99.0 for i in range(3)]) for q in range(3)]
    lines = [dict(zip(("chosen", "query", "documents", "losses"), row, strict=True)) for row in rows]
    path = tmp_path / "1.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = influence.figures([path, path])
    assert found["random"].value == 0.5 and found["bm25"].value == 1.0 and found["influence"].value == 2.0
    between = found["influence - bm25"]
    assert between.value == 1.0 and between.low < 1.0 < between.high and between.clusters == 3
