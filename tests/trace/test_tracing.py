"""Spans, the documents behind them, and their order."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bluejay.trace import Index
from bluejay.trace.display import MOST_SPANS, Traced, heading, row, underlined
from bluejay.trace.indexing import index
from bluejay.trace.spans import Quoted, char_offsets, maximal, reach
from bluejay.trace.tracing import LOOKED_AT, Source, Tracer, TraceSettings


@pytest.fixture
def traced_in(tmp_path, corpus, byte_tokenizer):
    """A tracer of a corpus of texts, given with the rows of its table."""

    def tracer(documents: list[tuple[str, dict]]) -> Tracer:
        ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text, _ in documents]
        corpus(tmp_path / "c", {"train": ids}, rows={"train": [row for _, row in documents]})
        byte_tokenizer.save(tmp_path / "c")
        index(tmp_path / "c")
        opened = Index(tmp_path / "c")
        return Tracer([Source(opened)], opened.tokenizer)

    return tracer


def text_of(seed: int, words: int = 60) -> str:
    """Words of five random letters."""
    return " ".join("".join(row) for row in np.random.default_rng(seed).choice(list("abcdefghijklmnop"), (words, 5)))


def test_a_document_repeated_by_its_epochs_is_one_row(traced_in):
    row = {"id": "ab" * 32, "licence": "MIT", "url": "u"}
    tracer = traced_in([(text_of(1), row)] * 3 + [(text_of(2), {"id": "cd" * 32})])
    [span] = tracer.trace(text_of(1)[:90], TraceSettings(min_tokens=40)).spans
    [document] = span.documents
    assert (span.count, span.n_documents, document.copies, document.occurrences) == (3, 1, 3, 3)
    assert document.id == "ab" * 32 and document.offset == 0 and document.steps is None


def test_near_copies_are_one_row_and_others_that_quote_the_same_are_not(traced_in):
    passage = "an unmistakable passage that four of them quote"
    before, after = text_of(1), text_of(2)
    near = [f"{before} {passage} {after}", f"{before} {passage} {after} And one more.", f"A {before} {passage} {after}"]
    other = [f"{text_of(3)} {passage} {text_of(4)}"]
    tracer = traced_in([(text, {"source": str(n)}) for n, text in enumerate(near + other)])
    [span] = tracer.trace(passage, TraceSettings(min_tokens=20)).spans
    assert span.count == span.n_documents == 4
    assert [document.source for document in span.documents] == ["0", "3"]
    assert [len(document.near_copies) for document in span.documents] == [2, 0]


def test_what_is_rare_comes_before_what_stands_everywhere(traced_in):
    notice = "permission is hereby granted to everyone who reads this notice, which stands in each document"
    rare = "zebra quartz vexed a jumbled fox"
    tracer = traced_in([(f"{notice} {text_of(n, 20)}", {}) for n in range(40)] + [(f"{text_of(99)} {rare}", {})])
    traced = tracer.trace(f"{notice} {rare}", TraceSettings(min_tokens=12))
    assert [rare in span.text for span in traced.spans][:2] == [True, False]
    assert traced.spans[1].count == 40 and len(traced.spans[1].documents) == 10


def test_what_the_model_found_likely_comes_later(traced_in):
    tracer = traced_in([(f"{text_of(1)} first of two pieces", {}), (f"{text_of(2)} other one of them", {})])
    text = "first of two pieces...other one of them"
    ids = tracer.ids(text).tolist()
    begin = len(tracer.ids("first of two pieces..."))
    for likely in (range(begin), range(begin, len(ids))):
        logprobs = [-0.001 if i in likely else -4.0 for i in range(len(ids))]
        first = tracer.trace(text, TraceSettings(min_tokens=12), logprobs).spans[0]
        assert first.start not in likely


def test_a_match_that_is_everywhere_takes_bounded_work(tmp_path, corpus, byte_tokenizer):
    corpus(tmp_path, {"train": [[7, 7, 7]] * (LOOKED_AT + 9)})
    byte_tokenizer.save(tmp_path)
    index(tmp_path)
    opened = Index(tmp_path)
    [span] = Tracer([Source(opened)], opened.tokenizer).trace([7, 7, 7], TraceSettings(min_tokens=2)).spans
    assert span.count == LOOKED_AT + 9 and span.n_documents == LOOKED_AT and not span.all_looked_at
    assert span.documents[0].licence == "unknown" and span.documents[0].id.startswith("train:")


def test_each_word_says_how_the_corpus_continues(traced_in):
    tracer = traced_in([("the cat sat", {}), ("the cat ran", {}), ("a dog ran", {})])
    ids = tracer.ids("the cat ran")
    rows = tracer.infinigram(ids)
    assert [row["followed"] <= row["count"] for row in rows] == [True] * len(rows)
    assert rows[-3] == {"context": len(ids) - 3, "count": 2, "followed": 1}
    assert rows[-1] == {"context": len(ids) - 1, "count": 1, "followed": 1}
    length, follows = tracer.next_tokens(tracer.ids("no cat ever, the cat "))
    assert length == len(tracer.ids("the cat ")) and sum(follows.values()) == 2


def test_segments_are_the_text_and_agree_with_the_shares(traced_in):
    tracer = traced_in([("the herons stand in the water", {})])
    text = "Zthe herons stand#ndQ🪶 in the water"
    traced = tracer.trace(text, TraceSettings(min_tokens=5))
    parts = [(one.kind, text[one.start_char : one.end_char]) for one in traced.segments]
    quoted, others = ("quoted", "the herons stand"), [("new", "#"), ("interpolated", "nd"), ("new", "Q🪶")]
    assert parts == [("new", "Z"), quoted, *others, ("quoted", " in the water")]
    encode = tracer.tokenizer.encode
    n_tokens = {kind: sum(len(encode(part)) for one, part in parts if one == kind) for kind in traced.shares}
    assert traced.shares == {kind: n / len(encode(text)) for kind, n in n_tokens.items()}
    assert tracer.trace([], TraceSettings()).segments == []


def test_a_notebook_shows_the_text_and_the_documents_of_its_spans(traced_in):
    passage = "if (a < b && c > d) return '<b>bold</b>';"
    links = ["https://example.org/?a=1&b=2", "javascript:alert(1)"]
    known = [{"licence": "MIT", "source": f"<i>{url}", "url": url} for url in links]
    texts = [f"{text_of(n)} {passage} {text_of(n + 10)}" for n in range(2)]
    tracer = traced_in(list(zip(texts, known, strict=True)))
    shown = tracer.trace(f"#{passage}#")._repr_html_()
    assert "if (a &lt; b &amp;&amp; c &gt; d)" in shown and "<b>bold" not in shown and "<i>" not in shown
    assert '<a href="https://example.org/?a=1&amp;b=2">' in shown and 'href="javascript' not in shown
    assert shown.count("<details>") == 1 and "2 × in 2 documents" in shown and "95% quoted" in shown
    many = tracer.trace("".join(f"{text[n : n + 8]}#" for text in texts for n in range(0, 90, 6)))
    assert len(many.spans) > MOST_SPANS and many._repr_html_().count("<details>") == MOST_SPANS
    assert f"{len(many.spans) - MOST_SPANS} more matches are not shown" in many._repr_html_()
    assert "0 matches" in tracer.trace("")._repr_html_()
    line = heading(tracer.trace(texts[0]).spans[0])  # a document that is quoted whole has one line as well
    assert line.startswith(f'"{texts[0][:200]} … {texts[0][-200:]}" · ') and len(line) < 500


@pytest.mark.parametrize("folders", [("one/c", "two/c"), ("c", "two/c"), ("two/c", "c"), ("c-2", "one/c", "c")])
def test_corpora_of_one_name_are_told_apart(tmp_path, corpus, byte_tokenizer, monkeypatch, folders):
    monkeypatch.chdir(tmp_path)
    for folder in map(Path, folders):
        ids = [*byte_tokenizer.encode(f"{folder} has the shared passage"), byte_tokenizer.eot]
        byte_tokenizer.save(corpus(folder, {"train": [[9] * (100 - len(ids)) + ids]}))
        index(folder)
    tracer = Tracer([Source(Index(folder)) for folder in folders], byte_tokenizer)
    [span] = tracer.trace("the shared passage", TraceSettings(min_tokens=9)).spans
    shown = {}
    for document in span.documents:
        place = document.split, document.position, span.end - span.start, 99
        whole, short = (tracer.snippet(name, *place) for name in (document.corpus, tracer.short_names[document.corpus]))
        assert whole == short and f"{document.corpus} has " in whole["before"]
        shown[document.corpus] = whole
    assert tuple(shown) == folders and len(set(tracer.short_names.values())) == len(folders)


def test_a_text_that_the_corpus_does_not_know_is_new(traced_in):
    tracer = traced_in([("abc", {})])
    assert tracer.trace("xyz", TraceSettings()).shares == {"quoted": 0.0, "interpolated": 0.0, "new": 1.0}
    assert tracer.trace([], TraceSettings()).spans == []


@pytest.mark.parametrize("name, value", [("min_tokens", 0), ("documents", 33), ("spans", -1)])
def test_settings_have_limits(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be from 1"):
        TraceSettings(**{name: value})


@given(st.text(max_size=12), st.lists(st.integers(0, 48), max_size=6))
def test_characters_of_tokens_that_divide_them(text, cuts):
    data = text.encode("utf-8", errors="ignore")
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(bounds)]
    found = char_offsets(pieces)
    whole = data.decode()
    assert found[0] == 0 and found[-1] == len(whole) and found == sorted(found)
    for bound, place in zip(bounds, found, strict=False):
        assert len(whole[:place].encode()) <= bound < len(whole[: place + 1].encode()) or bound == len(data)


SOME_BYTES = st.lists(st.sampled_from([b"a", "é".encode(), "日".encode(), b"\x97", b"\xe6\x97", b"\xff"]), max_size=8)


@given(SOME_BYTES, st.lists(st.integers(0, 24), max_size=6))
def test_characters_of_tokens_that_are_no_utf_8(parts, cuts):
    data = b"".join(parts)
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found = char_offsets([data[a:b] for a, b in pairwise(bounds)])
    assert found[0] == 0 and found == sorted(found)
    assert found[-1] == len(data.decode("utf-8", errors="replace"))
    assert char_offsets([b"\x97", b"ab", b"\xe6\x97", b"\xa5", b"c\xe6"]) == [0, 1, 3, 3, 4, 6]


@given(st.lists(st.integers(0, 6), max_size=20))
def test_maximal_spans_are_in_no_other(lengths):
    ends = [min(i + n, len(lengths)) for i, n in enumerate(lengths)]
    ends = [max(ends[: i + 1]) for i in range(len(ends))]  # a match loses one token at most when it begins later
    longest = np.array([end - i if end > i else 0 for i, end in enumerate(ends)], np.int32)
    spans = [(i, i + int(n)) for i, n in enumerate(longest) if n]
    inside = [s for s in spans if any(o != s and o[0] <= s[0] and s[1] <= o[1] for o in spans)]
    assert maximal(longest, 1) == [span for span in spans if span not in inside]
    begins = reach(longest)
    for end in range(len(lengths) + 1):
        assert begins[end] == min([i for i in range(end) if ends[i] >= end], default=end)


def test_control_characters_of_a_corpus_do_not_reach_the_terminal():
    document = Quoted("0", "a\x1b[31m", "MIT", "all", "", "c", "train", 0, 1, 1, 0)
    assert row(document).startswith("a\\x1b[31m · all · licence MIT")


def test_control_characters_of_a_text_do_not_reach_the_terminal():
    text = "a\x1b]0;b\x07\tc\u00a0d\n\x9bm"
    assert underlined(Traced(text, [], [], {}, [], [])) == "a\\x1b]0;b\\x07\tc\u00a0d\n\\x9bm"


def test_logprobs_are_of_all_tokens(traced_in):
    with pytest.raises(ValueError, match="there are 1 logprobs for 3 tokens; give one for each"):
        traced_in([("abc", {})]).trace("abc", None, [-1.0])


def test_logprobs_that_would_rank_by_nothing_are_refused(traced_in):
    tracer = traced_in([("abc", {})])
    for value in (float("nan"), float("-inf")):
        with pytest.raises(ValueError, match=f"logprobs holds {value}; give a finite number for each token, or None"):
            tracer.trace("abc", None, [None, value, -1.0])


def test_a_text_is_its_token_ids_in_any_kind_of_list(traced_in):
    tracer = traced_in([("a cat sat on the mat", {})])
    text = tracer.trace("cat sat on the")
    ids = text.tokens
    same = (
        tuple(ids),
        np.array(ids, np.uint16),
        torch.tensor(ids),
        [torch.tensor(id) for id in ids],
        list(map(np.int64, ids)),
    )
    for given_ids in same:
        traced = tracer.trace(given_ids)
        assert (traced.tokens, [span.text for span in traced.spans]) == (ids, ["cat sat on the"])
    last = tracer.tokenizer.vocab_size - 1
    for wrong in ([1.5, 2.0], np.array(ids, float), [True], [ids], torch.tensor([ids]), [ids, ids[:1]], ["cat", "sat"]):
        with pytest.raises(ValueError, match=f"one list of token ids, which are integers from 0 to {last}"):
            tracer.trace(wrong)
    for wrong in ([-1], [last + 1], [2**40], [2**70], None, b"cat", iter(ids)):
        with pytest.raises(ValueError, match=f"one list of token ids, which are integers from 0 to {last}"):
            tracer.trace(wrong)
