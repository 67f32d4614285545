"""Test sets are read out of wheels that are named by their hash, each document once."""

import pyarrow as pa
import pytest

from bluejay.pile.recipe import Decontaminate
from bluejay.pile.steps.match_tests import test_files as files_to_match
from bluejay.pile.text import test_sets
from bluejay.testsets.catalogue import ALL, BY_NAME, named
from bluejay.testsets.rows import documents, rows, wheel_file
from tests.testsets.conftest import STORY

COUNTS = {
    "hellaswag": 10_042,
    "winogrande": 1_267,
    "piqa": 1_838,
    "lambada": 5_153,
    "arc_easy_5shot": 2_376,
    "arc_challenge_5shot": 1_172,
    "boolq": 3_270,
    "csqa_5shot": 1_221,
    "openbookqa": 500,
    "sciq": 1_000,
    "socialiqa": 1_954,
    "mmlu": 14_042,
    "triviaqa": 7_993,
    "gsm8k": 1_319,
    "mbpp": 500,
    "human_eval": 164,
    "basic_skills_pattern": 534,
}
"""Documents as the data sets' own pages and papers count them."""


def test_every_kind_of_file_is_read(small):
    assert [row["label"] for _, row in rows("table")] == [1, 0]
    assert [row["text"] for _, row in rows("lines")] == ["one\u2028line", "two"]
    assert [row["text"] for _, row in rows("sheet")] == ["he, she"]
    assert len([*rows("prompts")]) == 8


def test_a_question_is_one_document_however_often_it_is_asked(small):
    assert [document["id"] for document in documents("prompts")] == ["0", "1"]


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="there is no test set helaswag; the nearest is hellaswag"):
        named("helaswag")
    with pytest.raises(ValueError, match="no test set winogrand; the nearest is winogrande"):
        Decontaminate(against=("eval:winogrand",))


def test_a_wheel_of_another_hash_is_not_read(small, monkeypatch):
    small.write_bytes(small.read_bytes() + b"x")
    wheel_file.cache_clear()
    monkeypatch.setattr("bluejay.package_index.project_files", lambda index, name: [])
    with pytest.raises(ValueError, match="small is in none of the package indexes: "):
        [*rows("table")]


def test_a_corpus_is_cleaned_of_a_test_set_by_its_name(small):
    texts = pa.array(["nothing of it", f"I read that {STORY}.", "short"])
    for name in ("eval:table", "eval:prompts"):
        assert test_sets.TestSetIndex.load([name]).reasons(texts).to_pylist() == [None, f"contaminated: {name}", None]
        ((path, checksum),) = files_to_match(Decontaminate(against=(name,)))
        assert path == name and len(checksum) > 64


def test_every_licence_is_stated():
    assert all(one.licence for one in ALL) and len(BY_NAME) == len(ALL)
    assert {one.name for one in ALL if one.non_commercial} == {"sciq", "sciq_5shot"}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_the_published_data_are_whole(name):
    assert sum(1 for _ in documents(name)) == COUNTS[name]
