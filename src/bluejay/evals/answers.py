"""Answers that are kept: each is appended to a file at once, so that an interrupted evaluation goes on."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bluejay.evals.scorers import AT_ONCE, Scorer
from bluejay.evals.tasks import Answer, Generation, Likelihood, Request
from bluejay.files import FULL_DISK, cache_directory, naming, parse_json
from bluejay.progress import progress


def key_of(request: Request) -> str:
    """What identifies a request, whichever task asks it, and the random numbers of its answer, where it has any."""
    drawn = [request.drawn_with] if isinstance(request, Generation) and request.temperature else []
    values = [type(request).__name__, *vars(request).values(), *drawn]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]


def safe(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)[-80:]


class AnswerFile:
    """The answers of one model: a line for each, `[key, answer]`, in the order in which they came."""

    def __init__(self, path: Path | None) -> None:
        """Without a path, answers are kept in memory alone. Damaged lines are asked again. Raises OSError, which says
        what helps: the file cannot be read and written."""
        self.path = path or Path(os.devnull)
        self.known: dict[str, Answer] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                lines = file.read()
                if not lines.endswith(b"\n"):  # the process ended while it wrote the last line
                    file.truncate(lines.rfind(b"\n") + 1)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            where = f"answers are kept in {path}, which is not possible: {error.strerror}"
            raise OSError(f"{where}; set BLUEJAY_CACHE to a folder of your own, which will hold them") from None
        for line in lines.split(b"\n"):
            with suppress(ValueError, TypeError):
                key, answer = parse_json(line)
                self.known[key] = answer if isinstance(answer, str) else Likelihood(*answer)

    @classmethod
    def of(cls, scorer: Scorer, directory: Path | None = None) -> "AnswerFile":
        """The answers of a model in a folder, or in the user's cache; in memory where it has no identity."""
        if not scorer.identity:
            return cls(None)
        folder = directory or cache_directory() / "evals"
        return cls(folder / f"{safe(scorer.name)}-{safe(scorer.identity)}.jsonl")

    def ask(self, scorer: Scorer, requests: Sequence[Request], label: str) -> list[Answer]:
        """The answers to requests; those that the file lacks are asked for, each once. Raises ValueError as `answers`
        of the scorer, or where it leaves out a request."""
        keys = [key_of(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.known}
        order = list(missing)
        done = len(set(keys)) - len(order)
        with (
            naming(self.path),
            self.path.open("a", encoding="utf-8") as file,
            progress(label, len(set(keys)), "requests", done) as bar,
        ):
            for begin in range(0, len(order), AT_ONCE):
                some = order[begin : begin + AT_ONCE]
                for number, answer in scorer.answers([missing[key] for key in some]):
                    self.known[some[number]] = answer
                    file.write(json.dumps([some[number], answer]) + "\n")
                    file.flush()
                    bar.advance(1)
        if left := [request for key, request in missing.items() if key not in self.known]:
            raise ValueError(f"{scorer.name} left {len(left)} of {len(order)} requests of {label} without an answer")
        return [self.known[key] for key in keys]
