"""Filters give datatrove's verdicts and reasons on real documents, whatever else is in the batch."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from bluejay.pile.filters import FILTERS, chain
from bluejay.pile.text import text_batch

REASONS = {
    "gopher": {
        "gopher_short_doc": "gopher: fewer than 50 words",
        "gopher_long_doc": "gopher: more than 100,000 words",
        "gopher_below_avg_threshold": "gopher: words shorter than 3 characters",
        "gopher_above_avg_threshold": "gopher: words longer than 10 characters",
        "gopher_too_many_hashes": "gopher: too many hashes",
        "gopher_too_many_ellipsis": "gopher: too many ellipses",
        "gopher_too_many_bullets": "gopher: too many bullets",
        "gopher_too_many_end_ellipsis": "gopher: too many unfinished lines",
        "gopher_below_alpha_threshold": "gopher: too few words with letters",
        "gopher_enough_stop_words": "gopher: too few stop words",
    },
    "gopher-repetition": {
        "dup_para_frac": "gopher: repeated paragraphs",
        "dup_para_char_frac": "gopher: long repeated paragraphs",
        "dup_line_frac": "gopher: repeated lines",
        "dup_line_char_frac": "gopher: long repeated lines",
        **{f"top_{n}_gram": f"gopher: one {n}-gram too often" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"gopher: repeated {n}-grams" for n in range(5, 11)},
    },
    "c4": {
        "lorem_ipsum": "c4: lorem ipsum",
        "curly_bracket": "c4: curly bracket",
        "too_few_sentences": "c4: fewer than 5 sentences",
    },
    "fineweb": {
        "line_punct_ratio": "fineweb: too few lines end a sentence",
        "short_line_ratio": "fineweb: too many short lines",
        "char_dup_ratio": "fineweb: repeated lines",
        "list_ratio": "fineweb: too few words per line",
    },
}
"""Filter -> datatrove's reason -> ours."""


@pytest.fixture(scope="module")
def documents() -> list[dict]:
    """Real documents with datatrove's verdicts; see make_verdicts.py."""
    with gzip.open(Path(__file__).with_name("verdicts.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", REASONS)
def test_verdicts_and_reasons_are_those_of_datatrove(name: str, documents: list[dict]) -> None:
    texts, reasons = chain([name], seed=0)(pa.array([document["text"] for document in documents]))
    wanted = [REASONS[name].get(document[name]["reason"]) for document in documents]
    assert reasons.to_pylist() == wanted
    assert set(wanted) - {None} >= set(REASONS[name].values()) - {"gopher: more than 100,000 words"} - RARE
    edited = [document[name].get("text", document["text"]) for document in documents]
    kept = [(text, edit) for text, edit, reason in zip(texts.to_pylist(), edited, wanted, strict=True) if not reason]
    assert all(text == edit for text, edit in kept)


RARE = {"gopher: repeated 7-grams", "gopher: repeated 8-grams", "gopher: repeated paragraphs"}
"""Reasons that other reasons precede so often that no document was found for them."""


def test_a_verdict_does_not_depend_on_the_batch(documents: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [document["text"] for document in documents]
    every = chain(list(REASONS), seed=0)
    together = every(pa.array(texts))
    for size in (1, 3_000):
        monkeypatch.setattr(text_batch, "MAX_BATCH_CHARACTERS", size)
        assert [array.to_pylist() for array in every(pa.array(texts))] == [array.to_pylist() for array in together]
    backwards = every(pa.array(texts[::-1], pa.large_string()))
    assert [array.to_pylist()[::-1] for array in backwards] == [array.to_pylist() for array in together]


def test_a_chain_is_its_filters_one_after_another(documents: list[dict]) -> None:
    texts = pa.array([document["text"] for document in documents])
    names = ["length:100-", "c4", "gopher", "gopher-repetition", "fineweb"]
    reasons: list[str | None] = [None] * len(texts)
    now = texts
    for name in names:
        after, found = chain([name], seed=0)(now)
        reasons = [old or new for old, new in zip(reasons, found.to_pylist(), strict=True)]
        now = pa.array([a if not r else n for a, n, r in zip(after.to_pylist(), now.to_pylist(), reasons, strict=True)])
    kept, together = chain(names, seed=0)(texts)
    assert together.to_pylist() == reasons
    assert kept.to_pylist() == now.to_pylist()
    assert set(reasons) >= {None, "length: too short", "c4: curly bracket"}


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "\n\n\n", "x", "-", "...", "…", "\u3000", "a\n\n\n", "[1]", "İ" * 9, "\U000f0000"]
)
def test_tiny_texts_are_handled(text: str) -> None:
    for names in (*([name] for name in REASONS), ["code"], list(REASONS)):
        for texts in ([text], [text, "A word or two.", text]):
            kept, reasons = chain(names, seed=0)(pa.array(texts))
            assert len(kept) == len(reasons) == len(texts)
    assert [len(array) for array in chain(list(REASONS), seed=0)(pa.array([], pa.string()))] == [0, 0]


def test_length_counts_characters() -> None:
    texts = pa.array(["é" * 3, "é" * 4, "é" * 6])
    assert chain(["length:4-5"], seed=0)(texts)[1].to_pylist() == ["length: too short", None, "length: too long"]
    assert chain(["length:-5"], seed=0)(texts)[1].to_pylist() == [None, None, "length: too long"]


def test_code_that_nobody_wrote_is_dropped() -> None:
    written = (
        'def area(radius):\n    """The area of a circle, which is not generated."""\n    return 3.14 * radius**2\n'
    )
    texts = {
        written: None,
        written * 20 + "# see https://example.org/" + "a" * 900: None,
        "var a=1;" * 100: "code: long lines",
        written * 20 + "TABLE = '" + "a" * 1000 + "'\n": "code: a very long line",
        "0x01, -, (, ), [, ], {, }, ::, ++,\n" * 9: "code: too few letters and digits",
        "// Code generated by protoc-gen-go. DO NOT EDIT.\n" + written: "code: generated",
        "# This file was automatically generated by SWIG.\n" + written: "code: generated",
        written * 20 + "# DO NOT EDIT what is below\n": None,
    }
    kept, reasons = chain(["code"], seed=0)(pa.array(list(texts)))
    assert reasons.to_pylist() == list(texts.values())
    assert kept.to_pylist() == list(texts)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gofer", r"there is no filter 'gofer'; did you mean gopher\? \(there are length:100-100000, "),
        ("gopher:1", "the filter 'gopher:1' was not understood; write gopher"),
        ("length:", "the filter 'length:' was not understood; write length:100-100000"),
        ("length:12", "write length:100-100000"),
        ("length:a-b", "write length:100-100000"),
        ("length:1000-100", "the filter 'length:1000-100' drops every text; write length:100-1000"),
        ("language:en>65", "drops every text, since a score is from 0 to 1; write language:en,de>0.65"),
        ("language:en>much", "was not understood"),
        ("language:>0.5", "was not understood"),
        ("quality:missing.safetensors", "missing.safetensors cannot be read"),
    ],
)
def test_an_unknown_or_malformed_filter_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        chain([name], seed=0)


def test_the_documentation_lists_every_filter() -> None:
    page = (Path(__file__).parents[3] / "docs/filters.md").read_text(encoding="utf-8")
    table = page.partition("## Filters")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", table, re.MULTILINE)
    assert rows == [(kind.usage, kind.help) for kind in FILTERS.values()]
