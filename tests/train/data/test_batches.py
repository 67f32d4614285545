"""A batch is a function of the seed and the step, and a mixture has its proportions at every moment."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bluejay.tokens import TokenWriter
from bluejay.train.data.batches import Batches, ShardWindows, document_starts, open_sources
from bluejay.train.data.order import bounds_of
from bluejay.train.recipe import Data, Mixture


@pytest.fixture
def shards(tmp_path):
    """Two sets: `a` counts up from 0, `b` from 30,000."""
    for name, start, documents in (("a", 0, 40), ("b", 30_000, 10)):
        with TokenWriter(tmp_path / name, vocab_size=50_000) as writer:
            for i in range(documents):
                writer.add(list(range(start + 50 * i, start + 50 * (i + 1))))
    return str(tmp_path / "a"), str(tmp_path / "b")


STEPS = 100
BLOCK = 1024  # of these mixtures


def batches_of(*mixture: Mixture, length: int = 16, batch_size: int = 4, seed: int = 1, steps: int = STEPS) -> Batches:
    sources = [ShardWindows(part.prefixes, length, vocab_size=50_000, eot=None) for part in mixture]
    return Batches(sources, mixture, batch_size, seed, steps)


def first_token(batches: Batches, number: int) -> int:
    return int(batches.sequence(number)[0][0])


def test_an_epoch_reads_every_window_once_and_the_next_in_another_order(shards):
    batches = batches_of(Mixture(shards[0]))
    windows = (40 * 50 - 1) // 16
    starts = [first_token(batches, number) for number in range(BLOCK)]
    # Sequence numbers are shuffled within a block, so look at whole epochs through sorted multiplicity.
    counts = np.bincount(np.array(starts) // 16, minlength=windows)
    assert len(counts) == windows
    assert counts.max() - counts.min() <= 1


def test_targets_are_the_next_tokens(shards):
    batch = batches_of(Mixture(shards[0])).batch(3)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert torch.equal(batch.targets, batch.inputs + 1)


def test_the_same_step_gives_the_same_batch_and_another_seed_another(shards):
    def make(seed):
        return batches_of(Mixture(shards[0]), seed=seed).batch(7).inputs

    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))


def test_a_batch_is_the_rows_of_smaller_ones(shards):
    whole = batches_of(Mixture(shards[0]), batch_size=8).batch(2).inputs
    halves = batches_of(Mixture(shards[0]))
    assert torch.equal(whole, torch.cat([halves.batch(4).inputs, halves.batch(5).inputs]))


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_any_number_of_processes_shares_out_the_same_batch(shards, processes):
    batches = batches_of(Mixture(shards[0]), Mixture(shards[1]), batch_size=6)
    parts = [batches.batch(5, (index, processes)).inputs for index in range(processes)]
    assert torch.equal(torch.cat(parts), batches.batch(5).inputs)


def test_every_block_mixes_by_weight(shards):
    batches = batches_of(Mixture(shards[0], 3.0), Mixture(shards[1], 1.0))
    for block in range(3):
        firsts = [first_token(batches, block * BLOCK + i) for i in range(BLOCK)]
        assert sum(first >= 30_000 for first in firsts) == BLOCK // 4


def test_weights_change_at_the_step_they_are_meant_to(shards):
    mixture = Mixture(shards[0]), Mixture(shards[1], 0.0, changes=((0.5, 3.0), (0.9, 0.0)))
    batches = batches_of(*mixture, batch_size=64)
    drawn = [int((batches.batch(step).inputs[:, 0] >= 30_000).sum()) for step in range(STEPS)]
    assert sum(drawn[:50]) == sum(drawn[90:]) == 0
    assert sum(drawn[50:90]) == pytest.approx(0.75 * 40 * 64, rel=0.05)


def test_a_change_repeats_no_sequence_before_all_have_been_seen(tmp_path):
    with TokenWriter(tmp_path / "long", vocab_size=50_000) as writer:
        writer.add(list(range(40_001)))
    changing = Mixture(str(tmp_path / "long"), changes=((0.3, 2.0), (0.7, 5.0)))
    batches = batches_of(changing, length=4, batch_size=40)
    firsts = [first_token(batches, number) for number in range(40 * STEPS)]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"weight": -1.0}, "has a weight below 0"),
        ({"weight": 0.0}, "or none above 0"),
        ({"changes": ((0.5, 1.0), (0.2, 2.0))}, "not in order between 0 and 1"),
        ({"changes": ((1.0, 2.0),)}, "not in order between 0 and 1"),
    ],
)
def test_an_impossible_weight_is_one_sentence(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Mixture("x", **values)


def test_a_mixture_that_draws_nothing_or_too_little_is_one_sentence(shards):
    with pytest.raises(ValueError, match=r"at 0\.5 of the run all weights are 0"):
        batches_of(Mixture(shards[0], changes=((0.5, 0.0),)))
    with pytest.raises(ValueError, match="less than one sequence in 1,048,576"):
        batches_of(Mixture(shards[0]), Mixture(shards[1], 1e-7))


@pytest.mark.parametrize(
    ("weights", "block"),
    [
        ([1], 1024),
        ([1, 1], 1024),
        ([5, 3], 1024),
        ([1, 2], 1024),
        ([1, 9], 2048),
        ([1] * 1100, 2**20),
    ],
    ids=["one", "halves", "eighths", "thirds", "tenths", "1,100 equal sets"],
)
def test_a_block_is_the_smallest_with_the_shares_of_the_weights(weights, block):
    shares = np.array(weights) / sum(weights)
    bounds = bounds_of(shares)
    assert bounds[-1] == block
    assert np.abs(np.diff(bounds) / block / shares - 1).max() <= 1e-3


MANY = 40


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """Shards of one document each, of 20 to 39 tokens; the first token of each is its number, plus 1,000."""
    folder = tmp_path_factory.mktemp("many") / "tokens"
    for number in range(MANY):
        with TokenWriter(folder / f"train-{number:04}", vocab_size=50_000) as writer:
            writer.add([1000 + number] * (20 + number % 20))
    return folder


def test_many_shards_are_one_set_without_a_token_lost(many_shards):
    part = Mixture(str(many_shards / "train-*"))
    source = ShardWindows(part.prefixes, 16, 50_000, None)
    tokens = [1000 + number for number in range(MANY) for _ in range(20 + number % 20)]
    assert len(source) == (len(tokens) - 1) // 16
    windows = [source.window(number)[0] for number in range(len(source))]
    assert np.concatenate([window[:-1] for window in windows]).tolist() == tokens[: len(source) * 16]
    assert all(window[-1] == after[0] for window, after in itertools.pairwise(windows))
    listed = ShardWindows(Mixture(tuple(part.prefixes)).prefixes, 16, 50_000, None)
    assert listed.content() == source.content() != ShardWindows(part.prefixes[1:], 16, 50_000, None).content()


def test_many_sets_are_drawn_by_weight(many_shards):
    mixture = [Mixture(str(path.with_suffix(""))) for path in sorted(many_shards.glob("*.idx"))]
    mixture[7] = Mixture(mixture[7].shards, 2.0)
    batches = batches_of(*mixture, steps=2**20)
    drawn = np.diff(batches.order.phases[0].bounds) / batches.order.phases[0].size * (MANY + 1)
    assert drawn == pytest.approx([2.0 if number == 7 else 1.0 for number in range(MANY)], rel=1e-3)
    assert first_token(batches, 5) in range(1000, 1000 + MANY)


def test_what_is_no_set_of_shards_is_one_sentence(many_shards):
    with pytest.raises(FileNotFoundError, match=r"no token shard fits the pattern .*valid-\*: there is no .*\.idx"):
        Mixture(str(many_shards / "valid-*")).prefixes  # noqa: B018
    with pytest.raises(ValueError, match=r"each file of examples is a set"):
        Mixture(("a.jsonl", "b.jsonl"))
    with pytest.raises(ValueError, match=r"a list names token shards"):
        Mixture(())
    twice = str(many_shards / "train-0001")
    with pytest.raises(ValueError, match=r"one set names .*train-0001 twice"):
        ShardWindows(Mixture((twice, str(many_shards / "train-*"))).prefixes, 16, 50_000, None)
    with pytest.raises(ValueError, match=r"one set names .*train-0001 twice"):
        ShardWindows([twice, f"{many_shards}/../{many_shards.name}/train-0001"], 16, 50_000, None)
    with pytest.raises(ValueError, match=r"train-0001 and 1 more hold too few tokens"):
        ShardWindows([twice, str(many_shards / "train-0002")], 64, 50_000, None)


def test_the_end_of_a_document_opens_the_next():
    eot = 9
    starts = document_starts(torch.tensor([[1, 2, eot, 3, eot, 4], [eot, 5, 6, 7, 8, eot]]), eot)
    assert starts.tolist() == [[0, 0, 2, 2, 4, 4], [0, 0, 0, 0, 0, 5]]


def test_shards_that_do_not_fit_are_named(shards):
    with pytest.raises(ValueError, match="too few tokens for one sequence of 5000"):
        ShardWindows(shards[:1], 5000, 50_000, None)
    with pytest.raises(ValueError, match=r"do not end with <\|endoftext\|> \(7\).* data\.mask_documents = false"):
        ShardWindows(shards[:1], 16, 50_000, 7)
    with pytest.raises(ValueError, match=r"holds the token \d+ and the vocabulary has 100;"):
        ShardWindows(shards[:1], 16, 100, None).window(20)


@pytest.mark.parametrize("documents", [[], [[]], [[5] * 8]])
def test_too_few_tokens_for_one_sequence_are_one_sentence(documents, tmp_path):
    with TokenWriter(tmp_path / "few", vocab_size=50_000) as writer:
        for ids in documents:
            writer.add(ids)
    with pytest.raises(ValueError, match=r"few holds too few tokens for one sequence of 16, data\.sequence_length"):
        ShardWindows([str(tmp_path / "few")], 16, 50_000, None)


def test_a_batch_of_examples_and_of_shards_says_where_each_document_begins(byte_tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "the", "completion": "cat"}\n' * 9)
    with TokenWriter(tmp_path / "b", vocab_size=259) as writer:
        for size in (3, 9, 30):
            writer.add([5] * size + [byte_tokenizer.eot])
    data = Data((Mixture(str(tmp_path / "a.jsonl")), Mixture(str(tmp_path / "b"))), valid="", sequence_length=16)
    batch = Batches(open_sources(data, byte_tokenizer), data.train, 32, 1, 10).batch(0)
    assert batch.starts is not None and batch.weights is not None
    starts, examples = document_starts(batch.inputs, byte_tokenizer.eot), batch.weights.min(-1).values < 1
    starts[examples] += batch.inputs[examples] != byte_tokenizer.eot  # a prompt does not see the end token before it
    assert torch.equal(batch.starts, starts)
    assert 0 < int((batch.weights.min(-1).values == 1).sum()) < 32  # both kinds


def test_what_is_held_out_of_a_file_is_in_no_set_of_that_file(byte_tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"prompt": "{n}", "completion": "x"}}\n' for n in range(40)))
    names = str(tmp_path / "a.jsonl"), f"{tmp_path}/../{tmp_path.name}/a.jsonl"
    one, other = open_sources(Data(tuple(map(Mixture, names)), sequence_length=16), byte_tokenizer)
    assert one.content() == other.content()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=30), st.integers(1, 5), st.data())
def test_masked_documents_lose_their_targets_and_no_batch_another_token(tmp_path_factory, sizes, cut, data):
    folder, numbers = tmp_path_factory.mktemp("masked"), range(len(sizes))
    for name, part in (("a", numbers[:cut]), ("b", numbers[cut:])):
        with TokenWriter(folder / name, vocab_size=50_000) as writer:
            for i in part:
                writer.add([i] * sizes[i])  # so that a token is the number of its document
    prefixes = [str(folder / "a"), str(folder / "b")]
    length = data.draw(st.integers(1, max(1, sum(sizes) - 1)))
    masked = tuple(data.draw(st.lists(st.sampled_from(numbers), min_size=1)))
    hypothesis.assume(sum(sizes) > length)
    whole = ShardWindows(prefixes, length, vocab_size=50_000, eot=None)
    source = ShardWindows(prefixes, length, vocab_size=50_000, eot=None, masked=masked)
    assert source.weighted and source.content() == whole.content()
    for window in range(len(source)):
        tokens, weights = source.window(window)
        assert np.array_equal(tokens, whole.window(window)[0])
        assert np.array_equal(weights, [token not in masked for token in tokens[1:].tolist()])


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"shards": "a", "masked": (40,)}, "has 40 documents, and data.train masks number 40"),
        ({"shards": ("a", "b"), "masked": (3, 50)}, "has 50 documents, and data.train masks number 50"),
        ({"shards": "pairs.jsonl", "masked": (1,)}, "documents of token shards, and pairs.jsonl has examples"),
    ],
)
def test_what_cannot_be_masked_is_refused_in_one_sentence(
    part, sentence, shards, tmp_path, monkeypatch, byte_tokenizer
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        open_sources(Data((Mixture(**part),), sequence_length=16, mask_documents=False), byte_tokenizer)
