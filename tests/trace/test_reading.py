"""The steps that are told are those whose batches held the match: compared with the batches themselves."""

import dataclasses

import numpy as np
import pytest

from bluejay.tokens import TokenShard
from bluejay.trace.reading import Read, ReadRun, ShardSequences, run_of
from bluejay.train.checkpoint.state import State, write_marker
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.recipe import Data, Mixture, Train, TrainRecipe

LENGTH, VOCABULARY = 8, 259


@pytest.fixture
def shards(tmp_path, corpus, byte_tokenizer):
    """Two shards whose documents are 1 to 29 tokens, so that windows cut many of them; every token pair is unique."""
    for name, first in (("a", 0), ("b", 7)):
        documents, number = [], first
        for size in [1, 29, 3, 11, 20, 2, 17] * 4:
            documents.append([(number + i) * (i + 3) % 256 for i in range(size)] + [byte_tokenizer.eot])
            number += size
        corpus(tmp_path / name, {"train": documents})
        byte_tokenizer.save(tmp_path / name)
    return [str(tmp_path / name / "tokens" / "train") for name in "ab"]


def recipe_of(shards, steps: int, changes=()) -> TrainRecipe:
    mixture = (Mixture(shards[0], 3.0, changes), Mixture(shards[1], 1.0))
    data = Data(mixture, valid=shards[0], sequence_length=LENGTH, mask_documents=False, tokenizer=shards[0])
    return TrainRecipe("test", data, Train(tokens=steps * 4 * LENGTH, batch_tokens=4 * LENGTH, lr=1e-3))


def recorded(directory, recipe: TrainRecipe, states: list[tuple[int, int]]) -> ReadRun:
    """The record of a run whose checkpoints are of the steps, after so many batches had been jumped over."""
    for step, jumped in states:
        (directory / "checkpoints" / f"step-{step}").mkdir(parents=True)
        state = State(step, dataclasses.asdict(recipe), "", "float32", 0.0, batches_skipped=jumped)
        write_marker(directory / "checkpoints" / f"step-{step}", state, {})
    run = ReadRun(directory)
    for part, mixture in enumerate(recipe.data.train):
        run.sets[part] = ShardSequences(len(TokenShard(mixture.shards).tokens), LENGTH)
    return run


def steps_of(run: ReadRun, places: list[int], length: int) -> tuple[int, ...]:
    """The steps that read a match at one of the places of the first set."""
    n = len(places)
    return run.reads([(0, 0)], np.array(places), np.full(n, length), np.zeros(n, np.int64), 1)[0].steps


ONE_PLACE = np.array([17]), np.array([3]), np.array([0])
RUNS = {
    "a run to its end": (60, [(60, 0)]),
    "a run that was interrupted": (60, [(7, 0), (14, 0), (23, 0)]),
    "a run that jumped over batches": (60, [(10, 0), (20, 6), (60, 6)]),
    "a run that jumped twice from the same place": (60, [(20, 0), (60, 31)]),
    "a run that jumped at once": (60, [(20, 5), (40, 5), (55, 25)]),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("changes", [(), ((0.5, 0.5), (0.7, 0.0))], ids=["a constant mixture", "weights that change"])
def test_the_steps_are_those_whose_batches_hold_the_match(kind, changes, shards, tmp_path, byte_tokenizer):
    steps, states = RUNS[kind]
    recipe = recipe_of(shards, steps, changes)
    run = recorded(tmp_path / "run", recipe, states)
    batches = Batches(open_sources(recipe.data, byte_tokenizer), recipe.data.train, 4, recipe.seed, recipe.steps)
    rows: dict[int, set[tuple[int, int]]] = {}
    for step in range(1, states[-1][0] + 1):
        jumped = next(jumped for at, jumped in states if step <= at)
        first = 4 * (step - 1 + jumped)
        rows[step] = {batches.order.place(number) for number in range(first, first + 4)}
        batch = batches.batch(step - 1 + jumped)
        assert [batch.inputs[i].tolist() for i in range(4)] == [
            batches.sequence(number)[0][:-1].tolist() for number in range(first, first + 4)
        ]
    for part, shard in enumerate(shards):
        n_tokens = len(TokenShard(shard).tokens)
        places = np.arange(0, n_tokens - 5, 3)
        lengths = 1 + places % 5
        reads = run.reads([(part, 0)], places, lengths, np.arange(len(places)), len(places))
        covers = {w: set(range(w * LENGTH, (w + 1) * LENGTH + 1)) for w in range((n_tokens - 1) // LENGTH)}
        for place, length, read in zip(places.tolist(), lengths.tolist(), reads, strict=True):
            match = set(range(place, place + length))
            whole = [step for step, read in rows.items() if any(p == part and match <= covers[w] for p, w in read)]
            some = [step for step, read in rows.items() if any(p == part and match & covers[w] for p, w in read)]
            assert list(read.steps) == whole
            assert list(read.in_part) == [step for step in some if step not in whole]


def test_what_a_run_did_not_reach_is_not_read(shards, tmp_path):
    run = recorded(tmp_path / "run", recipe_of(shards, 60), [(1, 0)])
    places = range(0, len(TokenShard(shards[0]).tokens) - 2, LENGTH)
    assert sum(bool(steps_of(run, [place], 2)) for place in places) <= 4


def test_a_document_that_repeats_a_match_has_the_steps_of_all_its_places(shards, tmp_path):
    run = recorded(tmp_path / "run", recipe_of(shards, 60), [(60, 0)])
    for places in ([3, 3, 40], [6, 7, 8, 150], [0], list(range(0, 160, 5))):
        alone = [run.reads([(0, 0)], np.array([place]), np.array([4]), np.array([0]), 1)[0] for place in places]
        groups = np.array([1] * len(places) + [0])
        none, both, empty = run.reads([(0, 0)], np.array([*places, 90]), np.full(len(groups), 4), groups, 3)
        steps = {step for read in alone for step in read.steps}
        assert set(both.steps) == steps and list(both.steps) == sorted(steps)
        assert set(both.in_part) == {step for read in alone for step in read.in_part} - steps
        assert none == run.reads([(0, 0)], np.array([90]), np.array([4]), np.array([0]), 1)[0]
        assert empty == Read((), ())


def test_a_shard_that_is_in_two_sets_has_the_steps_of_both(shards, tmp_path):
    run = recorded(tmp_path / "run", recipe_of([shards[0], shards[0]], 60), [(60, 0)])
    either = {step for part in (0, 1) for step in run.reads([(part, 0)], *ONE_PLACE, 1)[0].steps}
    assert set(run.reads([(0, 0), (1, 0)], *ONE_PLACE, 1)[0].steps) == either
    assert run.reads([], *ONE_PLACE, 1) == [Read((), ())]


def test_an_earlier_model_of_a_run_has_read_less(shards, tmp_path):
    recorded(tmp_path / "run", recipe_of(shards, 60), [(60, 0)])
    for name in ("model", "model-step-9", "model-step-9-q4", "adapter"):
        (tmp_path / "run" / name).mkdir()
    assert run_of(tmp_path / "run" / "model") == (tmp_path / "run", None)
    assert run_of(tmp_path / "run" / "model-step-9") == (tmp_path / "run", 9)
    assert run_of(tmp_path / "run" / "model-step-9-q4") == (tmp_path / "run", 9)
    assert run_of(tmp_path / "run") == (tmp_path / "run", None)
    assert run_of(tmp_path) is None
    run = ReadRun(tmp_path / "run", until=9)
    run.sets = {0: ShardSequences(len(TokenShard(shards[0]).tokens), LENGTH)}
    read = [step for place in range(200) for step in steps_of(run, [place], 1)]
    assert read and max(read) <= 9


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        ReadRun(tmp_path)
