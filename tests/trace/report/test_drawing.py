"""Passages are of documents that the run read, or did not, at the steps that are asked for."""

import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from bluejay import recipe as recipes
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.trace.index import Index
from bluejay.trace.indexing import index
from bluejay.trace.report import read_tokens
from bluejay.trace.report.drawing import Passage, Reading, Shard, alike
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.recipe import Mixture, TrainRecipe

LENGTH = 64


@pytest.fixture
def reading(moved):
    return Reading(str(moved / "runs" / "base" / "model"), [])


def rows_of(root, steps) -> list[list[int]]:
    """The sequences that the run's own code reads at some steps."""
    recipe = recipes.load(TrainRecipe, root / "runs" / "base" / "recipe.toml")
    shards = (Mixture(str(root / "data" / "c" / "tokens" / "train")),)
    sources = open_sources(dataclasses.replace(recipe.data, train=shards), Tokenizer.load(root / "data" / "c"))
    batches = Batches(sources, shards, recipe.batch_rows, recipe.seed, recipe.steps)
    read = [batches.batch(step - 1) for step in steps]
    return [[*a, b[-1]] for one in read for a, b in zip(one.inputs.tolist(), one.targets.tolist(), strict=True)]


def inside(passage: Passage, rows: list[list[int]]) -> bool:
    """Whether a passage stands in a sequence."""
    wanted = list(passage.tokens)
    return any(row[at : at + len(wanted)] == wanted for row in rows for at in range(len(row) - len(wanted) + 1))


def rows_with(passage: Passage, rows: list[list[int]]) -> set[tuple[int, ...]]:
    """The different sequences that hold a passage; documents here say the same several times."""
    return {tuple(row) for row in rows if inside(passage, [row])}


def test_what_is_drawn_was_first_read_at_the_steps_that_were_asked_for(moved, reading):
    passages = reading.drawn_read(8, 20, seed=1, first=5, last=8)
    during, before = rows_of(moved, range(5, 9)), rows_of(moved, range(1, 5))
    assert len(passages) == 8
    assert all(rows_with(one, during) - rows_with(one, before) for one in passages)
    again = reading.drawn_read(8, 20, seed=1, first=5, last=8)
    assert again == passages != reading.drawn_read(8, 20, seed=2, first=5, last=8)


def test_a_passage_is_of_one_document_and_of_each_document_there_is_one(moved, reading):
    shard = TokenShard(moved / "data" / "c" / "tokens" / "train")
    texts = [shard[number].tolist() for number in range(len(shard))]
    passages = reading.drawn_read(60, 40, seed=3)
    found = [next(i for i, text in enumerate(texts) if inside(one, [text[:-1]])) for one in passages]
    assert 5 < len(found) == len(set(found)) <= len(texts)


def test_what_was_not_read_is_in_no_batch(moved):
    run = moved / "runs" / "base"
    reading = Reading(str(run), [])
    reading.run.steps = 6
    read = reading.drawn_read(10, 20, seed=1)
    unread = reading.drawn_unread(10, 20, seed=1, like=read)
    size, tokens = reading.run.recipe.data.sequence_length, TokenShard(moved / "data" / "c" / "tokens" / "train").tokens
    every = [tokens[at : at + size + 1].tolist() for at in range(0, len(tokens) - size, size)]
    rows = rows_of(moved, range(1, 7))
    assert len(unread) == 10 and all(rows_with(one, every) - rows_with(one, rows) for one in unread)
    assert all(rows_with(one, rows) for one in read)


def test_what_counts_as_read_is_what_the_sequences_of_the_run_held_whole(moved, byte_tokenizer):
    """Of a part of an epoch, and of several; equal to a search in the sequences."""
    base, tokens = moved / "runs" / "base", TokenShard(moved / "data" / "c" / "tokens" / "train").tokens.tolist()
    some = [tokens[at : at + 64] for at in np.random.default_rng(5).integers(len(tokens) - 64, size=80)]
    passages = [Passage(tuple(ids), "all", 0, "d") for ids in some if byte_tokenizer.eot not in ids]
    texts = ["".join(map(chr, passage.tokens)) for passage in passages]
    for steps in (6, 40):
        shutil.copytree(base / "model", base / f"model-step-{steps}")
        reading = Reading(str(base / f"model-step-{steps}"), [])
        rows = ["".join(map(chr, row)) for row in rows_of(moved, range(1, steps + 1))]
        counts = reading.counts(passages, 24)
        expected = [sum(text[:24] == row[at : at + 24] for row in rows for at in range(42)) for text in texts]
        assert counts.tolist() == expected
        assert 0 in counts and counts.max() > 1 and (reading.places(passages, 24) > 0).all() and reading.notes == []
        for text, passage in zip(texts[:12], passages, strict=False):
            ends = [[n for n in range(65 - at) if any(text[at : at + n] in row for row in rows)] for at in range(64)]
            assert reading.read.longest(np.array(passage.tokens, np.int32)).tolist() == [max(one) for one in ends]


def test_where_memory_is_too_small_for_what_was_read_the_report_says_what_it_searches(moved, monkeypatch):
    monkeypatch.setattr(read_tokens, "free_memory", lambda: 0)
    reading = Reading(str(moved / "runs" / "base" / "model"), [])
    [note] = reading.notes
    assert reading.read is reading.tracer and re.search(r"of whose [\d,]+ tokens it read [\d,]+: an index", note)


def test_held_out_passages_are_of_held_out_documents_and_places_are_of_what_could_be_read(moved, reading):
    shard = TokenShard(moved / "data" / "c" / "tokens" / "valid")
    read = reading.drawn_read(10, LENGTH - 24, seed=1)
    held_out = reading.drawn_held_out(10, LENGTH - 24, seed=1, like=read)
    assert len(held_out) == 10 and all(inside(one, [shard[0].tolist(), shard[1].tolist()]) for one in held_out)
    train = TokenShard(moved / "data" / "c" / "tokens" / "train").tokens
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(train), 30)
    expected = [int((windows == one.tokens[:30]).all(axis=1).sum()) for one in (*read, *held_out)]
    assert reading.places([*read, *held_out], 30).tolist() == expected and min(expected[:10]) >= 1


def test_held_out_passages_are_drawn_in_proportion_to_the_length_of_documents(tmp_path, corpus, byte_tokenizer):
    texts = [[n, *(n + at * (at + n) % 256 for at in range(2000 if n < 30 else 100))] for n in range(60)]
    texts = [[id % 256 for id in ids] + [byte_tokenizer.eot] for ids in texts]
    index(corpus(tmp_path, {"valid": texts}, rows={"valid": [{}] * 60}))
    byte_tokenizer.save(tmp_path)
    reading = Reading.__new__(Reading)
    data = SimpleNamespace(sequence_length=LENGTH)
    reading.run, reading.opened = SimpleNamespace(recipe=SimpleNamespace(data=data)), {}
    reading.held_out = [Shard(Index(tmp_path), "valid")]
    like = [Passage((1,), "all", 0, "d")] * 20
    held_out = reading.drawn_held_out(20, 40, 1, like)
    rows = [int(passage.document.rpartition(" ")[2]) for passage in held_out]
    assert len(held_out) == len(set(rows)) == 20 and sum(row < 30 for row in rows) >= 16  # 95 % of the tokens
    assert len(reading.drawn_held_out(2000, 40, 1, like * 100)) > 8 * 30


def test_two_kinds_are_made_alike_by_component():
    a, b = ([Passage((1,), name, 0, "d") for name in names] for names in ("xxxyz", "yxxw"))
    one, other = ("".join(sorted(passage.component for passage in some)) for some in alike(a, b))
    assert one == other == "xxy"
