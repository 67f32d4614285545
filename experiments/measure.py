"""What the studies measure of a model: the bits of held-out documents one by one, and the programs that it writes."""

import ast
import math
from pathlib import Path

from bluejay.evals.code import grade_all, problems
from bluejay.evals.code.extract import program
from bluejay.infer.model import Model
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard

Documents = dict[str, list[tuple[float, int]]]
"""Component -> the bits and the bytes of each of its documents."""

TOKENS = 40_000
"""Held-out tokens of each component that are measured, and the rest of the last document."""
SAMPLES = 10
"""Programs for each problem."""


def held_out_bits(model: Model, corpus: Path) -> Documents:
    """How many bits a model takes for each of the first held-out documents of every component of a corpus."""
    shard, tokenizer = TokenShard(corpus / "tokens" / "valid"), Tokenizer.load(corpus)
    names, component = shard.components()
    found: Documents = {}
    for i, name in enumerate(names):
        texts, left = [], TOKENS
        for number in (component == i).nonzero()[0].tolist():
            if left > 0 and (text := tokenizer.decode(shard[number].tolist())):
                texts.append(text)
                left -= len(shard[number])
        scores = model.score(texts, progress=False)
        found[name] = [(round(-score.logprob / math.log(2), 1), score.n_bytes) for score in scores]
    return found


def programs(model: Model) -> dict[str, int]:
    """How many programs a model writes for the problems that people put to GPT-J in 2021, how many of these have a
    statement and are Python, and how many pass all tests."""
    counts = {"written": 0, "parsed": 0, "passed": 0}
    for problem in problems("bluejay-code"):
        if not problem.article:
            continue
        settings = {"max_tokens": 128, "temperature": 0.8, "seed": 0, "stop": list(problem.stop)}
        written = model.generate(problem.prompt, n=SAMPLES, progress=False, **settings)
        parsed = [text for text in written if text.strip() and is_python(program(problem, text))]
        verdicts = grade_all([(problem, text) for text in parsed])
        counts["written"] += len(written)
        counts["parsed"] += len(parsed)
        counts["passed"] += sum(verdict.passed for verdict in verdicts)
    return counts


def is_python(source: str) -> bool:
    """Whether a text is a program that Python can compile."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
