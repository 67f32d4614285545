"""Each process has a device of its own, and what that cannot hold is said."""

from types import SimpleNamespace

import pytest
import torch

from bluejay.train.distributed.device import bfloat16_is_fast, own_device, within_memory
from bluejay.train.loop import train


@pytest.mark.parametrize(
    ("variables", "count", "expected"),
    [
        ({}, 2, 0),
        ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "a"}, 2, 1),
        ({"LOCAL_RANK": "3"}, 1, 0),  # a scheduler that lets each process see its own GPU
        ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "a"}, 1, None),
        ({"LOCAL_RANK": "3"}, 2, None),
    ],
)
def test_a_process_has_a_gpu_of_its_own_or_says_so(variables, count, expected, monkeypatch):
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if expected is None:
        with pytest.raises(ValueError, match=rf"has no GPU of its own: at most .* GPUs, {count}, can train here"):
            own_device()
    else:
        assert own_device() == torch.device("cuda", expected)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_a_gpu_without_bfloat16_computes_in_float32(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=capability[0]))
    assert bfloat16_is_fast(torch.device("cuda", 0)) == (capability >= (8, 0))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_is_not_enough_is_one_sentence(error):
    with pytest.raises(ValueError, match=r"lower train\.micro_batch_tokens, set train\.recompute"), within_memory():
        raise error


def test_a_model_that_no_memory_holds_is_one_sentence_and_other_errors_stay(recipe_file, load_recipe):
    huge = ("--model.d_model", str(2**24), "--model.n_head", str(2**18))
    with pytest.raises(ValueError, match="the device has too little memory"):
        train(load_recipe(recipe_file, *huge))
    with pytest.raises(RuntimeError, match="a mistake of ours"), within_memory():
        raise RuntimeError("a mistake of ours")
