"""Log-likelihoods of the same requests by our engine and by lm-evaluation-harness's own `hf` adapter, in float32.

    python benchmarks/eval.py MODEL [--questions 20] [--rounds 5]

MODEL is a Hugging Face directory in float32. Both are asked through the harness's interface in one process and take
turns; the `hf` adapter has the batch size that was fastest for it on the same requests. Three figures: 5-shot multiple
choice (ARC-Easy), the four zero-shot tasks of 2021 together, and the seconds of the latter against the least that they
could take, which is the number of tokens of the trie divided by the rate at which the engine reads a prompt. Printed
beside them is the largest difference of a log-likelihood for each token that was scored.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from report import interleaved, report, result

from bluejay.evals.suites import FIVE_SHOT, GPT_J
from bluejay.evals.tasks import Continuation, Task
from bluejay.infer.model import Model, load
from bluejay.infer.prompts import encode_pairs
from bluejay.infer.scoring import windows
from bluejay.infer.trie import Trie
from bluejay.machine import n_processors

BATCH_SIZES = (1, 4, 16, 64)
PROMPT_TOKENS = 2048


def requests_of(task: Task, count: int) -> Iterator[tuple[str, str]]:
    """What a task asks in some of its questions, drawn at random."""
    questions = list(task.questions(task.shots))
    for question in random.Random(1234).sample(questions, min(count, len(questions))):
        yield from ((one.context, one.text) for one in question.requests if isinstance(one, Continuation))


def trie_seconds(model: Model, pairs: list[tuple[str, str]]) -> float:
    """Seconds that the tokens of the trie take at the rate of a prompt of the model, the median of five."""
    ids = encode_pairs(model.tokenizer, pairs)
    trie = Trie([window for i, (a, b) in enumerate(ids) for window in windows(i, a + b, len(a), model.config.n_ctx)])
    draw, taken = random.Random(1), []
    length = min(PROMPT_TOKENS, model.config.n_ctx - 1)
    for _ in range(5):
        prompt = [draw.randrange(1000, 10_000) for _ in range(length)]
        began = time.perf_counter()
        model.generate(prompt, max_tokens=1, temperature=0.0)
        taken.append(time.perf_counter() - began)
    return trie.n_tokens * statistics.median(taken) / length


def compare(ours: Any, theirs: Any, pairs: list[tuple[str, str]], rounds: int) -> tuple[float, float, float]:
    """Seconds of ours and of the peer at its best batch size, and the largest difference for each scored token."""
    from lm_eval.api.instance import Instance

    instances: Any = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    few, best = instances[: max(len(instances) // 4, 1)], {}
    for size in BATCH_SIZES:
        theirs.batch_size_per_gpu = size
        began = time.perf_counter()
        theirs.loglikelihood(few, disable_tqdm=True)
        best[size] = time.perf_counter() - began
    theirs.batch_size_per_gpu = min(best, key=lambda size: best[size])
    print(f"best batch size of hf: {theirs.batch_size_per_gpu}", file=sys.stderr)
    answers: dict[str, Any] = {}
    seconds = interleaved(
        lambda: answers.update(ours=ours.loglikelihood(instances, disable_tqdm=True)),
        lambda: answers.update(theirs=theirs.loglikelihood(instances, disable_tqdm=True)),
        rounds,
    )
    lengths = [len(b) for _, b in encode_pairs(ours.model.tokenizer, pairs)]
    difference = max(
        abs(one - other) / n
        for (one, _), (other, _), n in zip(answers["ours"], answers["theirs"], lengths, strict=True)
    )
    return *seconds, difference


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=int, default=20, help="questions of each task")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    from bluejay.evals.harness import BluejayLM

    torch.set_num_threads(n_processors())
    model = load(options.model)
    assert model.native is not None
    ours = BluejayLM(model)
    theirs = HFLM(pretrained=str(options.model), dtype="float32", device="cpu", batch_size=1)
    shots = list(requests_of(FIVE_SHOT["arc_easy"], options.questions))
    zero = [pair for task in GPT_J for pair in requests_of(task, options.questions)]
    rows = []
    for name, pairs, goal in (("5-shot multiple choice", shots, 8.0), ("four zero-shot tasks", zero, 2.0)):
        one, other, difference = compare(ours, theirs, pairs, options.rounds)
        print(f"{name}: largest difference {difference:.2g} a token", file=sys.stderr)
        rows.append(result(name, len(pairs) / one, len(pairs) / other, "requests/s", goal))
        rows.append(result(f"{name}: difference a token", difference, 1e-4, "nats", 1.0, lower_is_better=True))
        if pairs is zero:
            least = trie_seconds(model, pairs)
            rows.append(
                result("time against that of the trie's tokens", one, least, "s", 1 / 1.3, lower_is_better=True)
            )
    report("eval", rows)


if __name__ == "__main__":
    main()
