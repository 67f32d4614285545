"""A batch is a function of the seed and the step, and a mixture has its proportions at every moment."""

import numpy as np
import pytest
import torch

from bluejay.tokens import TokenWriter
from bluejay.train.data.batches import Batches, ShardWindows, document_starts, open_sources
from bluejay.train.data.order import MIXTURE_BLOCK
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


def batches_of(*mixture: Mixture, length: int = 16, batch_size: int = 4, seed: int = 1, steps: int = STEPS) -> Batches:
    sources = [ShardWindows(part.shards, length, vocab_size=50_000, eot=None) for part in mixture]
    return Batches(sources, mixture, batch_size, seed, steps)


def first_token(batches: Batches, number: int) -> int:
    return int(batches.sequence(number)[0][0])


def test_an_epoch_reads_every_window_once_and_the_next_in_another_order(shards):
    batches = batches_of(Mixture(shards[0]))
    windows = (40 * 50 - 1) // 16
    starts = [first_token(batches, number) for number in range(MIXTURE_BLOCK)]
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
        firsts = [first_token(batches, block * MIXTURE_BLOCK + i) for i in range(MIXTURE_BLOCK)]
        assert sum(first >= 30_000 for first in firsts) == MIXTURE_BLOCK // 4


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
    with pytest.raises(ValueError, match="less than one sequence in 1024"):
        batches_of(Mixture(shards[0]), Mixture(shards[1], 1e-5))


def test_the_end_of_a_document_opens_the_next():
    eot = 9
    starts = document_starts(torch.tensor([[1, 2, eot, 3, eot, 4], [eot, 5, 6, 7, 8, eot]]), eot)
    assert starts.tolist() == [[0, 0, 2, 2, 4, 4], [0, 0, 0, 0, 0, 5]]


def test_shards_that_do_not_fit_are_named(shards):
    with pytest.raises(ValueError, match="too few tokens for one sequence of 5000"):
        ShardWindows(shards[0], 5000, 50_000, None)
    with pytest.raises(ValueError, match=r"do not end with <\|endoftext\|> \(7\).* data\.mask_documents = false"):
        ShardWindows(shards[0], 16, 50_000, 7)
    with pytest.raises(ValueError, match=r"holds the token \d+ and the vocabulary has 100;"):
        ShardWindows(shards[0], 16, 100, None).window(20)


@pytest.mark.parametrize("documents", [[], [[]], [[5] * 8]])
def test_too_few_tokens_for_one_sequence_are_one_sentence(documents, tmp_path):
    with TokenWriter(tmp_path / "few", vocab_size=50_000) as writer:
        for ids in documents:
            writer.add(ids)
    with pytest.raises(ValueError, match=r"few holds too few tokens for one sequence of 16, data\.sequence_length"):
        ShardWindows(str(tmp_path / "few"), 16, 50_000, None)


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
