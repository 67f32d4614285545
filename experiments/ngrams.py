"""An interpolated Kneser-Ney model of n-grams of tokens, to know what a language model must be better than.

Chen & Goodman, "An empirical study of smoothing techniques for language modeling" (1998), section 3. The discounts of
an order are estimated from the numbers of n-grams that occur once to four times. Lower orders count in how many
contexts an n-gram occurs, but how often where it begins a document (Heafield et al. 2013, section 3.1). The lowest
order is interpolated with the uniform distribution. End-of-text tokens, as many as a context has, precede a document.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

FALLBACK = (0.0, 0.5, 1.0, 1.5)
"""The discounts where too few n-grams are rare to estimate them, as in KenLM."""


@dataclass(frozen=True)
class Level:
    """The n-grams of one order. A context is a number of its own for the longest, else its tokens, the last lowest."""

    keys: Ids
    """context x vocabulary + token, ascending."""
    counts: Ids
    contexts: Ids
    """Ascending."""
    totals: Ids
    """The sum of the counts of each context."""
    kinds: Ids
    """(contexts, 3): how many n-grams of each context are counted once, twice, and more often."""
    discounts: NDArray[np.float64]
    """What is taken from the counts 0, 1, 2, and 3 or more."""

    def interpolated(self, contexts: Ids, tokens: Ids, shorter: NDArray, vocab_size: int) -> NDArray[np.float64]:
        """The probabilities of tokens after contexts, of which -1 never occurred, from those after the shorter ones."""
        known, at = find(self.contexts, contexts)
        seen, gram = find(self.keys, contexts * vocab_size + tokens)
        counts = np.where(known & seen, self.counts[gram], 0)
        kept = counts - self.discounts[np.minimum(counts, 3)]
        taken = self.kinds[at] @ self.discounts[1:]
        return np.where(known, (kept + taken * shorter) / self.totals[at], shorter)


class KneserNey:
    """The model of the given sequences of token ids, of which `eot` separates documents. At most 55,000 tokens."""

    def __init__(self, sequences: Iterable[NDArray], vocab_size: int, eot: int, order: int = 5) -> None:
        if vocab_size ** (order - 1) >= 2**63:
            raise ValueError(f"contexts of {order - 1} of {vocab_size} tokens do not fit into 63 bits")
        self.vocab_size, self.eot, self.order = vocab_size, eot, order
        packed, tokens = zip(*map(self.read, sequences), strict=True)
        contexts, of = np.unique(np.concatenate(packed), return_inverse=True)
        self.longest = contexts
        """The longest contexts, by their numbers."""
        keys, raw = np.unique(of * vocab_size + np.concatenate(tokens), return_counts=True)
        self.levels = [level(keys, raw, vocab_size)]
        grams = contexts[keys // vocab_size], keys % vocab_size
        for length in range(order - 2, -1, -1):
            # Of the n-grams of one token more, each different one counts once.
            shorter = grams[0] % vocab_size**length * vocab_size + grams[1]
            keys, of, counts = np.unique(shorter, return_inverse=True, return_counts=True)
            raw = np.bincount(of, raw).astype(np.int64)
            begins = length > 0 and keys // vocab_size**length == eot
            self.levels.insert(0, level(keys, np.where(begins, raw, counts), vocab_size))
            grams = keys // vocab_size, keys % vocab_size

    def read(self, tokens: NDArray) -> tuple[Ids, Ids]:
        """The packed context and the token of each position of a sequence that has a whole context: from the beginning
        of a document, or after the first `order` - 1 tokens of a sequence that begins within one."""
        ids = tokens.astype(np.int64)
        starts = np.where(ids == self.eot, np.arange(1, len(ids) + 1), 0)
        start = np.concatenate([[0], np.maximum.accumulate(starts)[:-1]])
        context, whole = np.zeros(len(ids), np.int64), np.arange(len(ids)) >= self.order - 1
        for back in range(self.order - 1, 0, -1):
            at = np.arange(len(ids)) - back
            before = at < start
            context = context * self.vocab_size + np.where(before, self.eot, ids[np.maximum(at, 0)])
        whole |= start > 0
        return context[whole], ids[whole]

    def bits(self, document: NDArray) -> float:
        """How many bits a document takes, without its end."""
        ids = np.concatenate([[self.eot], document])
        packed, tokens = self.read(ids)
        probability = np.full(len(tokens), 1 / self.vocab_size)
        for length, one in enumerate(self.levels):
            context = packed % self.vocab_size**length
            if length == self.order - 1:
                found, at = find(self.longest, packed)
                context = np.where(found, at, -1)
            probability = one.interpolated(context, tokens, probability, self.vocab_size)
        return float(-np.log2(probability).sum())


def level(keys: Ids, counts: Ids, vocab_size: int) -> Level:
    """The n-grams of one order, with their discounts."""
    contexts, first = np.unique(keys // vocab_size, return_index=True)
    kinds = np.stack([np.add.reduceat(chosen, first) for chosen in (counts == 1, counts == 2, counts > 2)], 1)
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    discounts = np.array(FALLBACK)
    if n.all():
        share = n[0] / (n[0] + 2 * n[1])
        estimates = np.array([i - (i + 1) * share * n[i] / n[i - 1] for i in (1, 2, 3)])
        if (estimates > 0).all():
            discounts[1:] = estimates
    return Level(keys, counts, contexts, np.add.reduceat(counts, first), kinds.astype(np.int64), discounts)


def find(sorted_values: Ids, wanted: Ids) -> tuple[NDArray[np.bool_], Ids]:
    """Whether ascending values hold the wanted ones, and where; somewhere, if they do not."""
    at = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return sorted_values[at] == wanted, at
