"""Whether a model's loss tells texts that it read from others: membership inference, as the area under the curve."""

import zlib
from collections.abc import Sequence

import numpy as np

from bluejay.evals.answers import AnswerFile
from bluejay.evals.estimates import auc
from bluejay.evals.pictures import Bar, bar_chart
from bluejay.evals.scorers import Scorer
from bluejay.evals.tasks import Likelihood, TokenContinuation
from bluejay.tokenizer import Tokenizer
from bluejay.trace.report.drawing import Passage, documents_of
from bluejay.trace.report.findings import Finding

TEXT = (
    "The probability that a passage which was read gets a better score than one which was not; 0.5 is guessing. Both "
    "are as many of each component. The scores are the loss alone, and the loss in bits by what zlib makes of the text "
    "(arXiv 2012.07805, section 5.2), which allows for texts that are easy for any model."
)


def membership(
    scorer: Scorer,
    file: AnswerFile,
    tokenizer: Tokenizer,
    read: Sequence[Passage],
    held_out: Sequence[Passage],
) -> Finding:
    """The areas under the curve of the loss and of the loss by zlib."""
    one, other = (np.array(likelihoods(scorer, file, passages)) for passages in (read, held_out))
    sizes, other_sizes = ([compressed(tokenizer, passage) for passage in passages] for passages in (read, held_out))
    clusters = documents_of(read), documents_of(held_out)
    rows = [("loss", auc(one, other, clusters)), ("loss by zlib", auc(one / sizes, other / other_sizes, clusters))]
    bars = [Bar(label, one.value, one.low, one.high) for label, one in rows]
    picture = bar_chart("area under the curve; the line is guessing", bars, 0.5)
    return Finding("membership", "Membership", TEXT, "AUC", rows, [picture])


def likelihoods(scorer: Scorer, file: AnswerFile, passages: Sequence[Passage], label: str = "losses") -> list[float]:
    """The mean log-probability of a passage's tokens after its first, in nats."""
    asked = [TokenContinuation(one.tokens[:1], one.tokens[1:]) for one in passages]
    answers = file.ask(scorer, asked, label)
    return [answer.logprob / answer.n_tokens for answer in answers if isinstance(answer, Likelihood)]


def compressed(tokenizer: Tokenizer, passage: Passage) -> int:
    """The bytes that zlib makes of a passage."""
    table = tokenizer.token_bytes()
    return len(zlib.compress(b"".join(table[id] for id in passage.tokens), 9))
