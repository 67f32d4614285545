"""Reading ahead changes when batches are made, never which."""

import threading

import pytest
import torch

from bluejay.train.data.batches import TrainBatch
from bluejay.train.data.read_ahead import ReadAhead


def numbered(step: int) -> TrainBatch:
    if step == 9:
        raise ValueError("the disk is gone")
    return TrainBatch(torch.tensor([[step]]), torch.tensor([[step + 1]]))


def test_batches_are_those_asked_for_also_after_a_jump():
    ahead = ReadAhead(numbered, pinned=False)
    assert [int(ahead.batch(step).inputs) for step in (0, 1, 2, 7, 3, 3, 4)] == [0, 1, 2, 7, 3, 3, 4]
    ahead.close()


def test_the_next_batch_is_read_before_it_is_asked_for():
    read = threading.Event()
    ahead = ReadAhead(lambda step: (read.set() if step == 1 else None) or numbered(step), pinned=False)
    ahead.batch(0)
    assert read.wait(60)
    ahead.close()


def test_what_a_gpu_copies_lies_in_one_piece(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    tokens = torch.arange(12).view(2, 6)
    weights = torch.ones(2, 6)
    batch = TrainBatch(tokens[:, :-1], tokens[:, 1:], weights[:, 1:], tokens[:, :-1])
    ahead = ReadAhead(lambda step: batch, pinned=True)
    assert all(part.is_contiguous() for part in vars(ahead.batch(0)).values())
    assert torch.equal(ahead.batch(1).targets, batch.targets)
    ahead.close()


def test_a_failure_shows_when_its_batch_is_asked_for():
    ahead = ReadAhead(numbered, pinned=False)
    assert int(ahead.batch(8).inputs) == 8
    with pytest.raises(ValueError, match="the disk is gone"):
        ahead.batch(9)
    assert int(ahead.batch(3).inputs) == 3
    ahead.close()
