"""What of a model stays in memory: whose it is, how long it stays, and what several callers do to each other."""

import gc
import multiprocessing
import threading
import weakref

import pytest
import torch

import bluejay
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from tests.waiting import PATIENCE


def test_the_model_may_be_used_between_predictions(model):
    pairs = [([5] * 20 + [i] * 10, [last, 8]) for last in (7, 9) for i in range(60)]
    expected, found = dict(model.predictions(pairs)), {}
    for number, rows in model.predictions(pairs):
        found[number] = rows
        if number % 20 == 0:
            model.score([[3] * 50] * 8)
            thread = threading.Thread(target=model.logits, args=("a",))
            thread.start()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert all(torch.allclose(found[number], rows, atol=1e-5) for number, rows in expected.items())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_load_the_model_and_does_not_wait_for_threads_of_torch(model, tmp_path):
    save_model(model.gpt, model.tokenizer, tmp_path / "tiny")
    expected = model.generate("a", max_tokens=5, temperature=0)
    ours, theirs = multiprocessing.Pipe()

    def use() -> None:
        for call in (model.generate, model.score, model.logits, lambda text: list(model.predictions([([1], [2])]))):
            with pytest.raises(bluejay.InferenceError, match=r"loaded in another process; call bluejay\.load in this"):
                call("a")
        own = bluejay.load(tmp_path / "tiny")
        theirs.send((own.generate("a", max_tokens=5, temperature=0), torch.get_num_threads()))

    torch.set_num_threads(2)
    process = multiprocessing.get_context("fork").Process(target=use)
    with model._resident.turn():  # a lock that another thread holds
        process.start()
    torch.set_num_threads(1)
    try:
        assert ours.poll(PATIENCE) and ours.recv() == (expected, 1)
    finally:
        process.kill()
        process.join()


def test_a_model_that_nobody_has_any_more_leaves_memory_at_once(tiny_config, byte_tokenizer):
    model = Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer)
    model.generate("a", max_tokens=2), model.score("a")
    weights = weakref.ref(model.weights)
    gc.disable()  # which would find a circle some time later
    try:
        del model
        assert weights() is None
    finally:
        gc.enable()
