"""What can be extracted, from what a model says of tokens that it is given."""

from collections.abc import Iterator, Sequence

import pytest

from bluejay.evals.answers import AnswerFile
from bluejay.evals.tasks import Answer, Likelihood, Request, TokenContinuation
from bluejay.tokens import TokenShard
from bluejay.trace.report.drawing import Reading
from bluejay.trace.report.extractable import extraction
from bluejay.trace.report.membership import membership


class Parrot:
    """A model that knows one text by heart, and nothing else."""

    name = identity = "parrot"
    n_ctx = None

    def __init__(self, text: list[int]) -> None:
        self.text = b"".join(id.to_bytes(4, "little") for id in text)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number, request in enumerate(requests):
            assert isinstance(request, TokenContinuation)
            ids = b"".join(id.to_bytes(4, "little") for id in request.context + request.tokens)
            known = ids in self.text
            yield number, Likelihood(0.0 if known else -9.0, len(request.tokens), known)

    def longest(self, requests: Sequence[Request]) -> int:
        return 0


@pytest.fixture
def reading(moved):
    return Reading(str(moved / "runs" / "base"), [])


def test_a_parrot_writes_all_that_it_read_and_nothing_else(moved, reading, tmp_path):
    parrot = Parrot(TokenShard(moved / "data" / "c" / "tokens" / "train").tokens.tolist())
    read = reading.drawn_read(20, 64, seed=1)
    held_out = reading.drawn_held_out(20, 64, seed=1, like=read)
    file = AnswerFile.of(parrot, tmp_path)
    found = extraction(reading, parrot, file, read, held_out)
    figures = dict(found.rows)
    assert figures["k = 32, read"].value == 1.0 and figures["k = 32, read"].n == len(read)
    assert figures["k = 32, held out"].value == 0.0
    assert figures["k = 32, read"].low > figures["k = 32, held out"].high - 0.8
    assert "k = 50, read" not in figures  # the sequences are too short
    [picture] = found.pictures
    assert picture.startswith("<svg") and "k = 32, read" in picture
    losses = dict(membership(parrot, file, reading.tracer.tokenizer, read, held_out).rows)
    assert losses["loss"].value == losses["loss by zlib"].value == 1.0


def test_a_passage_that_stands_in_what_was_read_is_no_control(reading, tmp_path):
    read = reading.drawn_read(4, 64, seed=1)
    found = extraction(reading, Parrot([]), AnswerFile.of(Parrot([]), tmp_path), read, [*read[:1]])
    assert "k = 32, held out" not in dict(found.rows)
    assert any("1 held-out passages were read in others" in note for note in found.notes)
