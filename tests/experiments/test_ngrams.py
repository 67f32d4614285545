"""The Kneser-Ney model gives the probabilities of the definition, worked out here with dictionaries."""

import math
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from ngrams import KneserNey

N_TOKENS, EOT, ORDER = 7, 6, 4


@pytest.fixture(scope="module")
def documents():
    draw = np.random.default_rng(0)
    return [draw.choice(6, draw.integers(1, 30), p=[0.4, 0.25, 0.15, 0.1, 0.05, 0.05]).tolist() for _ in range(60)]


@pytest.fixture(scope="module")
def model(documents):
    return KneserNey(
        [np.array([EOT, *(token for document in documents for token in [*document, EOT])])], N_TOKENS, EOT, ORDER
    )


class ByDefinition:
    """Chen & Goodman (1998), equation 27, with the counts of n-grams that begin a document left as they are."""

    def __init__(self, documents):
        counts = Counter()
        for document in documents:
            padded = (EOT,) * (ORDER - 1) + (*document, EOT)
            counts.update(padded[i : i + ORDER] for i in range(len(document) + 1))
        self.counts = {ORDER: counts}
        for n in range(ORDER - 1, 0, -1):
            longer = {gram[-n:] for gram in self.counts[n + 1]}
            raw, contexts = Counter(), defaultdict(set)
            for gram, count in counts.items():
                raw[gram[-n:]] += count
            for gram in self.counts[n + 1]:
                contexts[gram[1:]].add(gram[0])
            self.counts[n] = {gram: raw[gram] if n > 1 and gram[0] == EOT else len(contexts[gram]) for gram in longer}
        self.discounts = {n: self.discounts_of(Counter(self.counts[n].values())) for n in self.counts}

    @staticmethod
    def discounts_of(n):
        if all(n[i] for i in (1, 2, 3, 4)):
            share = n[1] / (n[1] + 2 * n[2])
            estimates = [i - (i + 1) * share * n[i + 1] / n[i] for i in (1, 2, 3)]
            if min(estimates) > 0:
                return [0.0, *estimates]
        return [0.0, 0.5, 1.0, 1.5]

    def probability(self, token, context):
        n = len(context) + 1
        shorter = self.probability(token, context[1:]) if context else 1 / N_TOKENS
        after = {gram: count for gram, count in self.counts[n].items() if gram[:-1] == context}
        if not after:
            return shorter
        discounts, count = self.discounts[n], after.get((*context, token), 0)
        taken = sum(discounts[min(one, 3)] for one in after.values())
        return (count - discounts[min(count, 3)] + taken * shorter) / sum(after.values())


def test_probabilities_are_those_of_the_definition(model, documents):
    defined = ByDefinition(documents)
    for document in ([0], [5, 5, 5, 4], documents[3], [3, 1, 4, 1, 5, 2, 0, 5, 3, 5]):
        padded = (EOT,) * (ORDER - 1) + tuple(document)
        places = range(ORDER - 1, len(padded))
        expected = -sum(math.log2(defined.probability(padded[i], padded[i - ORDER + 1 : i])) for i in places)
        assert model.bits(np.array(document)) == pytest.approx(expected, rel=1e-12)


def test_probabilities_sum_to_one(model):
    for context in product(range(6), repeat=2):
        before = model.bits(np.array(context))
        total = sum(2 ** (before - model.bits(np.array([*context, token]))) for token in range(N_TOKENS))
        assert total == pytest.approx(1, abs=1e-12)


def test_sequences_that_begin_within_a_document_count_from_where_their_context_is_whole():
    """They are what a run reads: windows of the tokens, one of which ends where the next begins."""
    cut = KneserNey([np.array([1, 2, 3, 4, 5]), np.array([0, EOT, 1, 2])], N_TOKENS, EOT, ORDER)
    assert cut.levels[-1].counts.sum() == 2 + 2  # 4 and 5 after three tokens, 1 and 2 after the end of a document


def test_a_vocabulary_too_large_is_refused():
    with pytest.raises(ValueError, match="do not fit into 63 bits"):
        KneserNey([np.array([EOT, 1])], 60_000, EOT)
