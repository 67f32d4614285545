"""What of each document a run read, and how often, is what its batches held."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from bluejay import recipe as recipes
from bluejay.tokens import TokenWriter
from bluejay.trace.influence.learnt import learnt
from bluejay.trace.influence.read_documents import ReadSet
from bluejay.train.data.batches import ShardWindows
from bluejay.train.recipe import TrainRecipe
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
