"""Generated mathematics: school questions, each followed by its answer (after Saxton et al. 2019).

The idea, the areas and the form (a question on one line, its answer on the next, up to 8,192 characters of one kind of
question per document) are those of "Analysing Mathematical Reasoning Abilities of Neural Models", arXiv 1904.01557,
whose output is the Pile's component "DM Mathematics". The questions and the code are our own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.mathematics.questions import QUESTIONS
from bluejay.recipe import STRICT

MAX_CHARACTERS = 8192
"""The length at which The Pile cuts the generator's files into documents."""
DOCUMENTS_PER_UNIT = 1000
"""Documents that are one unit, and so in one part of a build."""
MAX_DOCUMENTS = 10**9
"""More than anybody wants: 8 TB."""
SIZES = (10, 100, 10_000)
"""The approximate magnitude of the numbers in easy, medium and hard questions."""


@dataclass(frozen=True, kw_only=True)
class Mathematics:
    """Generated documents of about 8 kB, each a pure function of the seed and its number."""

    __pydantic_config__ = STRICT
    kind: Literal["mathematics"]
    documents: int
    """The number of documents."""
    seed: int = 0
    """Another seed gives other documents."""

    def __post_init__(self) -> None:
        if not 1 <= self.documents <= MAX_DOCUMENTS:
            raise ValueError(f"documents is {self.documents:,}; it must be at least 1 and at most {MAX_DOCUMENTS:,}")

    def units(self) -> list[str]:
        """Ranges of DOCUMENTS_PER_UNIT documents, named by the number of the first."""
        return [str(first) for first in range(0, self.documents, DOCUMENTS_PER_UNIT)]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of a range, which take the kinds of question and the difficulties in turn."""
        first = int(unit)
        for number in range(first, min(first + DOCUMENTS_PER_UNIT, self.documents)):
            level, kind = divmod(number, len(QUESTIONS))
            ask, size = QUESTIONS[kind], SIZES[level % len(SIZES)]
            random, text = Random(f"{self.seed}/{number}"), ""
            while True:
                question, answer = ask(random.random, size)
                if len(text) + len(question) + len(answer) + 2 > MAX_CHARACTERS:
                    break
                text += f"{question}\n{answer}\n"
            meta = {"kind": ask.__name__, "size": size}
            yield Document(text, "mathematics", "Apache-2.0", f"generated:mathematics/{self.seed}/{number}", meta)
