"""From what a model wrote to a program: where a completion stops, and which part of an answer is code."""

import ast
import re
from collections.abc import Sequence

from bluejay.evals.code.problems import Problem

FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


def cut(completion: str, stop: Sequence[str]) -> str:
    """A completion up to the first of the texts that end it."""
    found = [at for text in stop if (at := completion.find(text)) >= 0]
    return completion[: min(found)] if found else completion


def program(problem: Problem, completion: str) -> str:
    """The program that a completion makes of a problem's prompt, as it stands: nothing is cut."""
    return f"{problem.prompt}{completion}\n{problem.setup}"


def from_answer(problem: Problem, answer: str) -> str:
    """The completion that a chat model's answer stands for.

    Of an answer with fenced code, the first block that defines the entry point, or else the first block; a block that
    defines it anew stands below the prompt, which is harmless, because the later definition counts.
    """
    blocks = FENCE.findall(answer)
    if not blocks:
        return cut(answer, problem.stop)
    defines = re.compile(rf"^(?:async\s+def|def|class)\s+{re.escape(problem.entry_point)}\b", re.MULTILINE)
    block = next((one for one in blocks if defines.search(one)), blocks[0])
    if not defines.search(block):
        return block
    return f"{body_for(problem.prompt)}\n{block}"


def body_for(prompt: str) -> str:
    """What makes a whole program of a prompt that ends inside a function."""
    for body in ("", "    pass\n", "        pass\n"):
        try:
            ast.parse(prompt + body)
        except SyntaxError:
            continue
        return body
    return ""
