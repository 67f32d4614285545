"""What the studies measure of a model: the bits of held-out documents one by one, and the programs that it writes."""

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def held_out(corpus: Path, longest: int | None = None) -> dict[str, list[NDArray[Any]]]:
    """The first held-out documents of every component of a corpus, or of each its first `longest` tokens, without their
    ends; none that are empty."""
    shard = TokenShard(corpus / "tokens" / "valid")
    names, component = shard.components()
    found: dict[str, list[NDArray[Any]]] = {}
    for i, name in enumerate(names):
        documents = [shard[number][:-1][:longest] for number in (component == i).nonzero()[0].tolist()]
        before = np.cumsum([0, *(len(document) for document in documents)])
        found[name] = [document for document, n in zip(documents, before, strict=False) if n < TOKENS and len(document)]
    return found


def held_out_bits(model: Model, corpus: Path, longest: int | None = None) -> Documents:
    """How many bits a model takes for each of those documents."""
    tokenizer, found = Tokenizer.load(corpus), {}
    for name, documents in held_out(corpus, longest).items():
        scores = model.score([tokenizer.decode(document.tolist()) for document in documents], progress=False)
        found[name] = [(round(-score.logprob / math.log(2), 1), score.n_bytes) for score in scores]
    return found


def programs(model: Model) -> dict[str, int]:
    """How many programs a model writes for the problems that people put to GPT-J in 2021, how many of these are Python
    to which the model added a statement, and how many pass all tests."""
    counts = {"written": 0, "parsed": 0, "passed": 0}
    for problem in problems("bluejay-code"):
        if not problem.article:
            continue
        settings = {"max_tokens": 128, "temperature": 0.8, "seed": 0, "stop": list(problem.stop)}
        written = model.generate(problem.prompt, n=SAMPLES, progress=False, **settings)
        empty = parsed_form(program(problem, ""))
        parsed = [text for text in written if parsed_form(program(problem, text)) not in (None, empty)]
        verdicts = grade_all([(problem, text) for text in parsed])
        counts["written"] += len(written)
        counts["parsed"] += len(parsed)
        counts["passed"] += sum(verdict.passed for verdict in verdicts)
    return counts


def parsed_form(source: str) -> str | None:
    """A program as Python reads it, without comments; None if it is none."""
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
