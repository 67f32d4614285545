"""Log-likelihoods of the same requests by our engine and by lm-evaluation-harness's own `hf` adapter, in float32.

    python benchmarks/eval.py MODEL [--questions 20] [--limit 40] [--rounds 3]

MODEL is a Hugging Face directory in float32; the extra `harness` must be installed. Both are asked through the
harness's interface in one process and take turns; the `hf` adapter has the batch size that was fastest for it on a
quarter of the requests. Measured are 5-shot multiple choice (ARC-Easy), each of the four zero-shot tasks of 2021 and
these together, and the largest difference of a log-likelihood for each token that was scored. Last come the seconds in
which `evaluate` answers the suite gpt-j-2021 with `--limit`, against the least that they could be: the number of
tokens of the trie divided by the rate at which the engine reads a prompt, which is measured before and after each.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from report import interleaved, report, result

from bluejay.evals.evaluate import Settings, asked, evaluate
from bluejay.evals.scorers import LocalScorer
from bluejay.evals.suites import FIVE_SHOT, GPT_J
from bluejay.evals.tasks import Continuation, Question, Task
from bluejay.infer.model import Model, load
from bluejay.infer.prompts import encode_pairs
from bluejay.infer.scoring import windows
from bluejay.infer.trie import Trie
from bluejay.machine import n_processors

BATCH_SIZES = (1, 4, 16, 64)
PROMPT_TOKENS = 512
MOST = 1e-4
"""The largest difference for each token scored that parity allows."""


def requests_of(task: Task, count: int) -> Iterator[tuple[str, str]]:
    """What a task asks in some of its questions, drawn at random."""
    questions = list(task.questions(task.shots))
    for question in random.Random(1234).sample(questions, min(count, len(questions))):
        yield from ((one.context, one.text) for one in question.requests if isinstance(one, Continuation))


def trie_tokens(model: Model, questions: list[Question]) -> int:
    """The tokens that are left to compute where every prefix that several requests share is computed once."""
    requests = [one for question in questions for one in question.requests]
    ids = encode_pairs(model.tokenizer, [(r.context, r.text) for r in requests if isinstance(r, Continuation)])
    found = [window for i, (a, b) in enumerate(ids) for window in windows(i, a + b, len(a), model.config.n_ctx)]
    return Trie(found).n_tokens


def prompt_rate(model: Model) -> float:
    """Tokens of a prompt that are read in a second, the median of five."""
    length = min(PROMPT_TOKENS, model.config.n_ctx - 1)
    draw, taken = random.Random(1), []
    for _ in range(5):
        prompt = [draw.randrange(model.config.vocab_size) for _ in range(length)]
        began = time.perf_counter()
        model.generate(prompt, max_tokens=1, temperature=0.0)
        taken.append(time.perf_counter() - began)
    return length / statistics.median(taken)


def suite_seconds(model: Model, limit: int, rounds: int) -> tuple[float, float]:
    """Seconds in which the suite gpt-j-2021 is answered, and those that the tokens of its tries would take."""
    scorer, settings = LocalScorer(model, "model", "1"), Settings(limit)
    tokens = sum(trie_tokens(model, asked(task, [scorer], settings)[0]) for task in GPT_J)
    taken, rates = [], [prompt_rate(model)]
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:  # so that no answer is known already
            found = evaluate([scorer], GPT_J, settings, Path(folder))
        taken.append(sum(result.seconds for result in found.results))
        rates.append(prompt_rate(model))
    return statistics.median(taken), tokens / statistics.median(rates)


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
    print(f"{len(pairs)} requests, best batch size of hf {theirs.batch_size_per_gpu}", file=sys.stderr)
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
    parser.add_argument("--questions", type=int, default=20, help="of each task, asked of both")
    parser.add_argument("--limit", type=int, default=40, help="questions of each task in the suite")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    from bluejay.evals.harness import BluejayLM

    torch.set_num_threads(n_processors())
    model = load(options.model)
    assert model.native is not None
    ours = BluejayLM(model)
    theirs = HFLM(pretrained=str(options.model), dtype="float32", device="cpu", batch_size=1)
    name, rows, worst = options.model.name, [], 0.0
    seconds, requests = [0.0, 0.0], 0
    for task, shots, goal in ((FIVE_SHOT["arc_easy"], "5-shot", 8.0), *((task, "zero-shot", 2.0) for task in GPT_J)):
        pairs = list(requests_of(task, options.questions))
        one, other, difference = compare(ours, theirs, pairs, options.rounds)
        worst = max(worst, difference)
        what = f"{name}: {task.name.removesuffix('_5shot')}, {shots}, vs hf"
        rows.append(result(what, len(pairs) / one, len(pairs) / other, "requests/s", goal))
        print(f"{rows[-1]}; largest difference {difference:.2g} a token", file=sys.stderr)
        if shots == "zero-shot":
            seconds, requests = [seconds[0] + one, seconds[1] + other], requests + len(pairs)
    one, other = (requests / taken for taken in seconds)
    rows.append(result(f"{name}: the four zero-shot tasks vs hf", one, other, "requests/s", 2.0))
    largest = f"{name}: largest difference of a token to hf vs that allowed"
    rows.append(result(largest, worst * 1e6, MOST * 1e6, "1e-6 nats", 1.0, lower_is_better=True))
    taken, least = suite_seconds(model, options.limit, options.rounds)
    what = f"{name}: suite gpt-j-2021 vs the tokens of its tries at the rate of a prompt"
    rows.append(result(what, taken, least, "s", round(1 / 1.3, 3), lower_is_better=True))
    report("eval", rows)


if __name__ == "__main__":
    main()
