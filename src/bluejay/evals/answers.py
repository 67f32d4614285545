"""Answers that are kept: each is appended to a file at once, so that an interrupted evaluation goes on."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from bluejay.evals.scorers import Scorer
from bluejay.evals.tasks import Answer, Likelihood, Request
from bluejay.progress import progress


def key_of(request: Request) -> str:
    """What identifies a request, whichever task asks it."""
    return hashlib.sha256(json.dumps([type(request).__name__, *vars(request).values()]).encode()).hexdigest()[:24]


class AnswerFile:
    """The answers of one model: a line for each, `[key, answer]`, in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # the process ended while it wrote this line
                key, answer = json.loads(line)
                self.known[key] = answer if isinstance(answer, str) else Likelihood(*answer)
                whole += len(line)
            with path.open("r+b") as file:
                file.truncate(whole)

    def ask(self, scorer: Scorer, requests: Sequence[Request], label: str) -> list[Answer]:
        """The answers to requests; those that the file lacks are asked for, each once. Raises ValueError as `answers`
        of the scorer."""
        keys = [key_of(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.known}
        order = list(missing)
        done = len(set(keys)) - len(order)
        with self.path.open("a", encoding="utf-8") as file, progress(label, len(set(keys)), "requests", done) as bar:
            for number, answer in scorer.answers(list(missing.values())):
                self.known[order[number]] = answer
                file.write(json.dumps([order[number], answer]) + "\n")
                file.flush()
                bar.advance(1)
        return [self.known[key] for key in keys]
