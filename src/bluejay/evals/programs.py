"""The suite `code`: programs that models write, run in the cage and graded outside it (`bluejay.evals.code`)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluejay.evals import cage as cages
from bluejay.evals.code import Problem, from_answer, grade_all, pass_at_k, problem_of, problems
from bluejay.evals.tasks import Answer, Generation, Question, Scores, Task
from bluejay.testsets.rows import documents

MAX_TOKENS = 256
"""Tokens of a program, at most."""
MAX_TOKENS_OF_ANSWER = 512
"""Tokens at most of a chat model's answer, which repeats the prompt and explains the program."""
OWN_SAMPLES = 20
TEMPERATURE = 0.8
"""Of the samples, where there are several; a single one is greedy."""
KS = (1, 2, 5, 10, 20, 50, 100)
MOST_AT_ONCE = min(os.cpu_count() or 1, 64)
"""Problems that are graded at the same time, where each has a single sample."""
SHOWN = 2000
"""Characters of a program that results keep."""


@dataclass
class Programs:
    """Problems as a task; keeps what was written and the verdicts, for the report."""

    name: str
    problems: Sequence[Problem]
    samples: int
    cage: str
    """The level of the cage; empty for the best that this machine has."""
    chat: bool = False
    """Whether models answer in a chat template, so that the program is the fenced code of an answer."""
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def max_tokens(self) -> int:
        """Tokens of an answer, at most."""
        return MAX_TOKENS_OF_ANSWER if self.chat else MAX_TOKENS

    def questions(self, _: int) -> Iterator[Question]:
        """A question for each problem, with a request for each sample."""
        temperature = TEMPERATURE if self.samples > 1 else 0.0
        for number, problem in enumerate(self.problems):
            stop = () if self.chat else problem.stop
            requests = tuple(
                Generation(problem.prompt, stop, self.max_tokens, temperature, seed) for seed in range(self.samples)
            )
            yield Question(problem.task_id, requests, number)

    def measure(self, question: Question, answers: list[Answer]) -> Scores:
        """pass@k of a problem for each k that the number of samples allows."""
        problem = self.problems[question.gold]
        texts = [answer for answer in answers if isinstance(answer, str)]
        if self.chat:
            texts = [from_answer(problem, text) for text in texts]
        found = list(grade_all([(problem, text) for text in texts], cage=self.cage))
        passed = sum(verdict.passed for verdict in found)
        self.verdicts += [
            {
                "suite": self.name,
                "problem": problem.task_id,
                "article": problem.article,
                "prompt": problem.prompt[-SHOWN:],
                "completion": text[:SHOWN],
                "passed": verdict.passed,
                "reason": verdict.reason,
                "forgeable": problem.forgeable,
            }
            for text, verdict in zip(texts, found, strict=True)
        ]
        return {f"pass@{k}": pass_at_k(len(texts), passed, k) for k in KS if k <= len(texts)}

    def by_model(self, models: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The verdicts with the model of each, in the order of the problems; models answer one after another, each the
        same questions."""
        of_one = len(self.verdicts) // max(len(models), 1)
        order = {problem.task_id: number for number, problem in enumerate(self.problems)}
        for number, model in enumerate(models):
            verdicts = self.verdicts[number * of_one : (number + 1) * of_one]
            yield from ({**one, "model": model} for one in sorted(verdicts, key=lambda one: order[one["problem"]]))

    def task(self, data: tuple[str, ...]) -> Task:
        """The task. Raises ValueError: this machine has no such cage."""
        level = cages.choose(self.cage)
        forgeable = sum(problem.forgeable for problem in self.problems)
        how = "one greedy sample" if self.samples == 1 else f"{self.samples} samples at temperature {TEMPERATURE}"
        notes = [f"{how} of a problem, at most {self.max_tokens} tokens", f"cage: {level}"]
        if self.chat:
            notes.append(
                "the program is the fenced code of the answer; an answer without any is cut as a completion is"
            )
        if forgeable:
            notes.append(f"{forgeable} problems are tested in the sample's own process, so their verdict is forgeable")
        at_once = MOST_AT_ONCE if self.samples == 1 else 1  # the samples of one problem fill the processors, too
        return Task(
            self.name, self.questions, self.measure, "pass@1", data=data, chance=0.0, notes=tuple(notes),
            measured_at_once=at_once,
        )  # fmt: skip


def code_tasks(cage: str = "", samples: int | None = None, chat: bool = False) -> tuple[list[Task], list[Programs]]:
    """HumanEval and MBPP with one greedy sample of a problem, our own suite with 20, unless the number is given; and
    where their verdicts are kept. With `chat`, models answer in their chat templates. Raises ValueError: this machine
    has no cage, the number is not positive, or the data cannot be had."""
    if samples is not None and samples < 1:
        raise ValueError(f"--n is {samples}; a problem needs at least 1 sample")
    found = [
        Programs("human_eval", [problem_of(row) for row in documents("human_eval")], samples or 1, cage, chat),
        Programs("mbpp", [problem_of(row) for row in documents("mbpp")], samples or 1, cage, chat),
        Programs("bluejay-code", problems("bluejay-code"), samples or OWN_SAMPLES, cage, chat),
    ]
    data = (("human_eval",), ("mbpp",), ())
    return [one.task(names) for one, names in zip(found, data, strict=True)], found
