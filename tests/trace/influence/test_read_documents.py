"""What of each document a run read, and how often, is what its batches held."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bluejay import recipe as recipes
from bluejay.tokens import TokenWriter
from bluejay.trace import Influence
from bluejay.trace.indexing import index
from bluejay.trace.influence.learnt import learnt
from bluejay.trace.influence.read_documents import ReadSet
from bluejay.train.data.batches import Batches, ShardWindows, open_sources
from bluejay.train.loop import train
from bluejay.train.recipe import Data, Mixture, Train, TrainRecipe
from tests.trace.conftest import TEXTS, write_corpus
from tests.trace.test_corpora import read_by


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=20), st.integers(1, 6), st.data())
def test_pieces_are_the_targets_of_their_documents_and_no_others(tmp_path_factory, sizes, length, data):
    folder = tmp_path_factory.mktemp("pieces")
    tokens = [document for document, size in enumerate(sizes) for _ in range(size)]  # the number of its document
    with TokenWriter(folder / "a", vocab_size=50_000) as writer:
        for document, size in enumerate(sizes):
            writer.add([document] * size)
    if len(tokens) <= length:
        return
    windows = ShardWindows([str(folder / "a")], length, vocab_size=50_000, eot=None)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(windows), max_size=len(windows))))
    masked = tuple(data.draw(st.sets(st.integers(0, len(sizes) - 1), max_size=2)))
    read = ReadSet(0, windows, times, masked)
    expected = np.zeros(len(sizes), int)
    for window, often in enumerate(times.tolist()):
        for target in tokens[window * length + 1 : (window + 1) * length + 1]:
            expected[target] += often * (target not in masked)
    assert read.tokens_read.tolist() == expected.tolist()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sizes) - 1), max_size=3)))
    found = np.zeros(len(sizes), int)
    for first, end in zip([0, *cuts], [*cuts, len(sizes)], strict=True):
        for batch, pieces, documents, often in read.batches(first, end):
            for piece, document, n in zip(pieces, documents, often, strict=True):
                assert first <= document < end and piece.end > piece.first
                assert (batch.targets[piece.row, piece.first : piece.end] == document).all()
                found[document] += n * (piece.end - piece.first)
    assert found.tolist() == expected.tolist()


def test_a_run_read_what_its_batches_held(project, monkeypatch):
    monkeypatch.chdir(project)
    of = learnt("runs/base/model")
    [read] = of.reads
    recipe = recipes.load(TrainRecipe, project / "runs" / "base" / "recipe.toml")
    rows = [row for _, batch in read_by(project) for row in batch]
    held = [tuple(read.windows.window(number)[0].tolist()) for number in range(len(read.windows))]
    assert read.times.sum() == recipe.steps * recipe.batch_rows == len(rows)
    assert all(often == rows.count(list(window)) for window, often in zip(held, read.times.tolist(), strict=True))


@pytest.fixture
def in_pieces(tmp_path, byte_tokenizer, monkeypatch):
    """A run that read two sets: one of four token shards of two corpora, and one that holds one of them again."""
    monkeypatch.chdir(tmp_path)
    ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS]
    pieces = {"a": {"part-0": ids[:9], "part-1": [[], []], "part-2": ids[9:20], "valid": ids[28:]}}
    pieces["b"] = {"part-0": [ids[27], *ids[20:28]]}
    known = [{"licence": f"licence {n}", "source": f"source {n}", "id": f"{n:064x}"} for n in range(30)]
    nothing = {"id": f"{99:064x}"}
    rows = {"a": {"part-0": known[:9], "part-1": [nothing] * 2, "part-2": known[9:20], "valid": known[28:]}}
    rows["b"] = {"part-0": [known[27], *known[20:28]]}
    for name, shards in pieces.items():
        index(write_corpus(tmp_path / name, shards, rows=rows[name]))
        byte_tokenizer.save(tmp_path / name)
    mixture = (Mixture(("a/tokens/part-*", "b/tokens/part-0")), Mixture("b/tokens/part-0"))
    data = Data(mixture, valid="a/tokens/valid", sequence_length=64)
    settings = Train(tokens=64 * 4 * 12, batch_tokens=256, lr=1e-3)
    train(TrainRecipe("pieces", data, settings, {"n_layer": 1, "d_model": 16, "n_head": 1}))
    return tmp_path / "runs" / "pieces"


def test_sets_of_many_shards_and_sources_are_what_their_batches_held(in_pieces, byte_tokenizer):
    recipe = recipes.load(TrainRecipe, in_pieces / "recipe.toml")
    sources = open_sources(recipe.data, byte_tokenizer)
    batches = Batches(sources, recipe.data.train, recipe.batch_rows, recipe.seed, recipe.steps)
    # the number of each document's text
    order = [*range(9), None, None, *range(9, 20), 27, *range(20, 28)], [27, *range(20, 28)]
    sizes = [[0 if n is None else len(byte_tokenizer.encode(TEXTS[n])) + 1 for n in one] for one in order]
    owners = [np.repeat(np.arange(len(one)), one) for one in sizes]  # the document of each token of a set
    expected = [np.zeros(len(one), int) for one in order]
    for number in range(recipe.steps * recipe.batch_rows):
        source, window = batches.place(number)
        of = sources.index(source)
        np.add.at(expected[of], owners[of][window * 64 + 1 : (window + 1) * 64 + 1], 1)
    assert [read.tokens_read.tolist() for read in learnt("runs/pieces").reads] == [one.tolist() for one in expected]

    influence = Influence("runs/pieces")
    told = {one.id: one for one in influence.rank(TEXTS[12], most=100)}
    read = np.zeros(30, int)
    for texts, tokens in zip(order, expected, strict=True):
        for text, n in zip(texts, tokens.tolist(), strict=True):
            read[text or 0] += n
    assert {int(id, 16): one.tokens for id, one in told.items()} == {n: t for n, t in enumerate(read.tolist()) if t}
    for id, one in told.items():
        assert (one.source, one.licence) == (f"source {int(id, 16)}", f"licence {int(id, 16)}")
    places = {n: ("a", "part-0", n) for n in range(9)} | {n: ("a", "part-2", n - 9) for n in range(9, 20)}
    places |= {n: ("b", "part-0", n - 19) for n in range(20, 27)} | {27: ("b", "part-0", 0)}
    assert {int(id, 16): (one.corpus, one.split, one.document) for id, one in told.items()} == {
        n: place for n, place in places.items() if read[n]
    }
    assert told[f"{27:064x}"].copies == 2  # in both sets, but each place counts once
