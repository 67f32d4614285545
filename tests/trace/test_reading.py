"""The steps that are told are those whose batches held the match: compared with the batches themselves."""

import dataclasses

import pytest

from bluejay.tokens import TokenShard
from bluejay.trace.reading import ReadRun, ShardSequences, run_of
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
        for place in range(0, n_tokens - 5, 3):
            length = 1 + place % 5
            read = run.read_of(part, [place], length)
            covers = {w: set(range(w * LENGTH, (w + 1) * LENGTH + 1)) for w in range((n_tokens - 1) // LENGTH)}
            match = set(range(place, place + length))
            whole = [step for step, read in rows.items() if any(p == part and match <= covers[w] for p, w in read)]
            some = [step for step, read in rows.items() if any(p == part and match & covers[w] for p, w in read)]
            assert list(read.steps) == whole
            assert list(read.in_part) == [step for step in some if step not in whole]


def test_what_a_run_did_not_reach_is_not_read(shards, tmp_path):
    run = recorded(tmp_path / "run", recipe_of(shards, 60), [(1, 0)])
    places = range(0, len(TokenShard(shards[0]).tokens) - 2, LENGTH)
    assert sum(bool(run.read_of(0, [place], 2).steps) for place in places) <= 4


def test_an_earlier_model_of_a_run_has_read_less(shards, tmp_path):
    recorded(tmp_path / "run", recipe_of(shards, 60), [(60, 0)])
    for name in ("model", "model-step-9", "adapter"):
        (tmp_path / "run" / name).mkdir()
    assert run_of(tmp_path / "run" / "model") == (tmp_path / "run", None)
    assert run_of(tmp_path / "run" / "model-step-9") == (tmp_path / "run", 9)
    assert run_of(tmp_path / "run") == (tmp_path / "run", None)
    assert run_of(tmp_path) is None
    run = ReadRun(tmp_path / "run", until=9)
    run.sets = {0: ShardSequences(len(TokenShard(shards[0]).tokens), LENGTH)}
    read = [step for place in range(200) for step in run.read_of(0, [place], 1).steps]
    assert read and max(read) <= 9


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        ReadRun(tmp_path)
