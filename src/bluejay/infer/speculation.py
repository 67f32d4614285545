"""Speculative decoding by prompt lookup: quotations and edits repeat text from earlier in the context.

The draft is the text that followed the last occurrence of the latest three tokens. It does not change the output: the
engine draws every token as it would without a draft, and uses the logits computed for the draft as long as the tokens
that it draws are those of the draft.
"""

import math
from collections.abc import Sequence

NGRAM = 3
"""Number of tokens that must match before the text after them becomes a draft."""
MAX_DRAFT = 16
"""The most tokens in a draft."""
ROWS_OF_A_STEP = 3
"""The cost of a step without any rows, most of which is reading the weights, as a number of rows."""
MAX_SEQUENCES = 16
"""The most sequences of a step for which drafts are worth the search: among more, the best draft saves a tenth."""
RATE_MEMORY = 0.8
"""Weight of the past in the moving average of the acceptance rate."""


class PromptLookup:
    """Drafts for one growing sequence. Every token updates the acceptance rate, whether it was drafted or not."""

    def __init__(self) -> None:
        self.continuations: dict[tuple[int, ...], int] = {}
        """N-gram of NGRAM tokens -> the position after its last occurrence."""
        self.n_read = 0
        self.match: int | None = None
        """The position of the token that is predicted to come next; None if there is none."""
        self.acceptance_rate = 0.5

    def draft(self, tokens: Sequence[int], limit: int, n_sequences: int = 1) -> list[int]:
        """At most `limit` tokens that may follow `tokens`, which only grows; none if it is not worth its cost.

        `n_sequences` is the number of sequences that the step advances. A drafted token is worth its row if it is
        accepted with at least the probability that a row's share of the step is: 1/4 alone, 84 % among 16.
        """
        if n_sequences > MAX_SEQUENCES:
            return []
        self._read(tokens)
        least = n_sequences / (n_sequences + ROWS_OF_A_STEP)
        if self.match is None or self.acceptance_rate < least:
            return []
        length = MAX_DRAFT if self.acceptance_rate > 0.99 else int(math.log(least) / math.log(self.acceptance_rate))
        period = len(tokens) - self.match  # a draft that reaches the end of the text repeats
        return [tokens[self.match + i % period] for i in range(min(length, MAX_DRAFT, limit))]

    def _read(self, tokens: Sequence[int]) -> None:
        """Note the n-grams that end in new tokens, and whether each of these was predicted."""
        for at in range(self.n_read, len(tokens)):
            if self.match is not None:
                hit = tokens[self.match] == tokens[at]
                self.acceptance_rate = RATE_MEMORY * self.acceptance_rate + (1 - RATE_MEMORY) * hit
            key = tuple(tokens[max(0, at + 1 - NGRAM) : at + 1])
            self.match = self.continuations.get(key)
            self.continuations[key] = at + 1
        self.n_read = len(tokens)
