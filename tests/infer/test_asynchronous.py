"""In a program with an event loop, calls give the same, and those that are cancelled leave nothing behind."""

import asyncio
import contextlib
import time

from bluejay.infer.engine import Engine
from tests.infer.test_model import TEXTS


def test_async_variants_give_the_same(model):
    async def all_of_them():
        streamed = [chunk.text async for chunk in model.astream("a", max_tokens=5, temperature=0)]
        return (
            "".join(streamed),
            await asyncio.gather(*(model.agenerate(text, max_tokens=5, temperature=0) for text in TEXTS)),
            await model.ascore("the cat"),
            await model.aloglikelihood([("the", " cat")]),
        )

    text, texts, score, likelihood = asyncio.run(all_of_them())
    assert [text] == model.generate("a", max_tokens=5, temperature=0)
    assert texts == model.generate(TEXTS, max_tokens=5, temperature=0)
    assert score == model.score("the cat") and likelihood == model.loglikelihood([("the", " cat")])


def test_a_cancelled_stream_leaves_nothing_in_the_engine(model, monkeypatch):
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: time.sleep(0.02) or step(engine))

    async def read() -> None:
        async for _ in model.astream("a", max_tokens=60, temperature=0):
            pass

    async def cancelled(seconds: float) -> bool:
        task = asyncio.create_task(read())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()  # and did not fail

    assert all(asyncio.run(cancelled(seconds)) for seconds in (0.0, 0.05, 0.1))
    shared = model._resident.engine([1])
    assert shared.engine.idle and not shared._chunks


def test_a_cancelled_call_computes_no_further(model, monkeypatch):
    step, steps = Engine.step, []
    monkeypatch.setattr(Engine, "step", lambda engine: steps.append(time.sleep(0.02)) or step(engine))

    async def cancelled() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(model.agenerate("a", max_tokens=60, temperature=0, stop="never"), 0.05)

    asyncio.run(cancelled())  # which waits for the threads of its calls
    assert len(steps) < 30 and model._resident.engine([1]).engine.idle
