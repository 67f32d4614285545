"""A document is contaminated if and only if it shares thirteen consecutive words with a test set."""

import bz2
import gzip
import json
import lzma
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bluejay.pile.text import test_sets, unicode

QUESTION = (
    "A train leaves the station at noon and travels at forty miles per hour; how far is it from the station "
    "when the clock strikes three in the afternoon of the same day?"
)
ITEM = {"question": QUESTION, "choices": ["one hundred", "one hundred and twenty"], "answer": 1, "more": {"id": "x"}}


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    line = json.dumps(ITEM) + "\n\n"
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(b"{}\n") + zstandard.compress(line.encode()))
    (tmp_path / "d.json").write_text(json.dumps([ITEM]))
    (tmp_path / "d2.json").write_text("{}\n" + line)
    (tmp_path / "e.txt").write_text(QUESTION)
    pq.write_table(pa.Table.from_pylist([ITEM]), tmp_path / "f.parquet")
    texts = pa.array(["Nothing of it.", f"He asked: {QUESTION.upper()}", QUESTION[:50]])
    for path in sorted(tmp_path.iterdir()):
        reasons = test_sets.TestSetIndex.load([str(path)]).reasons(texts)
        assert reasons.to_pylist() == [None, f"contaminated: {path.name}", None], path
    together = test_sets.TestSetIndex.load([f"{tmp_path}/*.json*", f"{tmp_path}/e.txt"])
    assert together.reasons(texts).to_pylist()[1] == "contaminated: a.jsonl"


def test_matches_are_those_of_python_sets(tmp_path: Path) -> None:
    random_ = random.Random(2)
    words = [f"Wörd{number}" for number in range(3000)]
    tests = [" ".join(random_.choices(words, k=random_.randint(5, 40))) for _ in range(300)]
    texts = [" ".join(random_.choices(words, k=random_.randint(0, 300))) for _ in range(400)]
    for row in range(0, 400, 3):
        quoted, start = random_.choice(tests).split(), random_.randint(0, 20)
        passage = ",\n".join(quoted[start : start + random_.randint(10, 16)])
        texts[row] = f"{texts[row]} ({passage.upper()}) {texts[row - 1]}"

    def passages(text: str) -> set[tuple[str, ...]]:
        terms = re.findall(r"[^\W_]+", text.lower())
        return {tuple(terms[i : i + 13]) for i in range(len(terms) - 12)}

    (tmp_path / "tests.jsonl").write_text("".join(json.dumps([text]) + "\n" for text in tests))
    wanted = [bool(passages(text) & {passage for test in tests for passage in passages(test)}) for text in texts]
    reasons = test_sets.TestSetIndex.load([f"{tmp_path}/tests.jsonl"]).reasons(pa.array(texts, pa.large_string()))
    assert [reason is not None for reason in reasons.to_pylist()] == wanted
    assert 30 < sum(wanted) < 120


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_found_in_cleaned_text_and_in_text_as_it_is_written(tmp_path: Path, form: str) -> None:
    question = unicodedata.normalize(form, "Où sont passés les élèves de l'école qui se trouvait près de la forêt ?")
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": question}))
    texts = pa.array([question, *unicode.normalise(pa.array([question])).to_pylist(), "Où sont passés les élèves ?"])
    reasons = test_sets.TestSetIndex.load([f"{tmp_path}/a.jsonl"]).reasons(texts)
    assert reasons.to_pylist() == ["contaminated: a.jsonl"] * 2 + [None]


def test_half_a_character_in_a_test_set_does_not_end_a_build(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": f"\ud83d {QUESTION}"}))
    reasons = test_sets.TestSetIndex.load([f"{tmp_path}/a.jsonl"]).reasons(pa.array([QUESTION]))
    assert reasons.to_pylist() == ["contaminated: a.jsonl"]


def test_a_text_shorter_than_a_passage_is_no_passage(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "Yes.", "long": "one two three four five"}')
    index = test_sets.TestSetIndex.load([f"{tmp_path}/a.jsonl"], ngram=5)
    texts = pa.array(["Yes.", "", "one two three four", "Zero one two three: four, five six."])
    assert index.reasons(texts).to_pylist() == [None, None, None, "contaminated: a.jsonl"]
    assert index.reasons(pa.array([], pa.string())).to_pylist() == []


def test_a_file_without_a_passage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text('{"q": "too short"}')
    (tmp_path / "broken.jsonl").write_text('{"q": ')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(ITEM).encode())[:40])
    for name, says in (
        ("short.jsonl", "has no passage of 13 words"),
        ("broken.jsonl", "cannot be read as a test set"),
        ("cut.jsonl.gz", "cannot be read as a test set"),
        ("none.jsonl", "no file matches"),
    ):
        with pytest.raises(ValueError, match=says):
            test_sets.TestSetIndex.load([f"{tmp_path}/{name}"])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_name_within_a_compression_decides(tmp_path: Path, pack: Callable[[bytes], bytes], encoding: str) -> None:
    question = "alpha beta gamma delta\nepsilon zeta eta theta iota kappa lambda mu nu"
    end = {bytes: "", gzip.compress: ".gz", bz2.compress: ".BZ2", lzma.compress: ".xz"}[pack]
    for name, content in (("a.jsonl", json.dumps({"q": question}) + "\n"), ("b.json", json.dumps([question]))):
        (tmp_path / f"{name}{end}").write_bytes(pack(content.encode(encoding)))
        index = test_sets.TestSetIndex.load([str(tmp_path / f"{name}{end}")])
        assert index.reasons(pa.array([f"So {question} it is.", "nothing"])).to_pylist() == [
            f"contaminated: {name}{end}",
            None,
        ]
