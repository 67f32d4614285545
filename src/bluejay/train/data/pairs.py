"""Pairs of prompt and completion from a file of JSON lines, packed into sequences without splitting a pair.

A sequence is an end token, a pair and its end token, another pair, ..., padded with end tokens. The tokens of
completions, including their end token, have loss weight 1, those of prompts `data.prompt_weight`, all others 0.
"""

import bisect
import json
from pathlib import Path

import numpy as np

from bluejay.progress import say
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.content import hash_of_arrays


class Pairs:
    """The sequences of a `.jsonl` file, a `bluejay.train.data.batches.SequenceSource`.

    Raises FileNotFoundError if there is no such file; ValueError if a line is not a pair or no pair fits in a sequence.
    """

    weighted = True

    def __init__(self, path: str, length: int, tokenizer: Tokenizer, prompt_weight: float) -> None:
        self.length, self.eot = length, tokenizer.eot
        pairs = [encode(prompt, completion, tokenizer) for prompt, completion in read_pairs(Path(path))]
        fitting = [(ids, n_prompt) for ids, n_prompt in pairs if len(ids) <= length]
        if not fitting:
            raise ValueError(f"{path} has no pair of at most {length} tokens, data.sequence_length")
        if len(fitting) < len(pairs):
            skipped = len(pairs) - len(fitting)
            say(f"{path}: skipped {skipped:,} of {len(pairs):,} pairs, longer than data.sequence_length {length}")
        self.tokens = [np.array(ids, dtype=np.int32) for ids, _ in fitting]
        self.weights = [
            np.array([prompt_weight] * n_prompt + [1.0] * (len(ids) - n_prompt), dtype=np.float32)
            for ids, n_prompt in fitting
        ]
        self.packed = pack([len(ids) for ids in self.tokens], length)
        say(f"{path}: {len(fitting):,} pairs in {len(self):,} sequences; one epoch is {len(self) * length:,} tokens")

    def __len__(self) -> int:
        return len(self.packed)

    def content(self) -> str:
        """A hash of the tokens and the weights of all pairs."""
        return hash_of_arrays(*self.tokens, *self.weights)

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A sequence of length + 1 tokens, and the loss weight of each but the first."""
        tokens = np.full(self.length + 1, self.eot, dtype=np.int32)
        weights = np.zeros(self.length, dtype=np.float32)
        at = 0
        for pair in self.packed[number]:
            end = at + len(self.tokens[pair])
            tokens[at + 1 : end + 1], weights[at:end] = self.tokens[pair], self.weights[pair]
            at = end
        return tokens, weights


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The prompts and completions in a file. Raises ValueError, naming the first line that is not a pair."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of pairs at {path}")
    pairs = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                prompt, completion = (json.loads(line)[key] for key in ("prompt", "completion"))
                if not isinstance(prompt, str) or not isinstance(completion, str) or not completion:
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                wanted = '{"prompt": "...", "completion": "..."}, the completion not empty'
                raise ValueError(f"{path}, line {number} is not {wanted}") from None
            pairs.append((prompt, completion))
    return pairs


def encode(prompt: str, completion: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The ids of a pair and its end token, and the number of ids that belong to the prompt.

    The prompt is encoded by itself, as at inference; an empty one has no ids, since an end token precedes each pair.
    The completion has the ids that follow when both are encoded as one text or, if a token of that text spans the
    boundary, those of the completion encoded by itself.
    """
    prompt_ids, joint_ids = (tokenizer.begin + tokenizer.encode(text) for text in (prompt, prompt + completion))
    n = len(prompt_ids)
    completion_ids = joint_ids[n:] if joint_ids[:n] == prompt_ids else []
    return [*prompt_ids, *(completion_ids or tokenizer.encode(completion)), tokenizer.eot], n


def pack(lengths: list[int], capacity: int) -> list[list[int]]:
    """The pairs in each sequence, by best-fit decreasing: longest first, into the fullest sequence that has room."""
    packed: list[list[int]] = []
    free: list[tuple[int, int]] = []
    """Free tokens and number of each sequence, sorted."""
    for pair in sorted(range(len(lengths)), key=lambda pair: -lengths[pair]):
        at = bisect.bisect_left(free, (lengths[pair], 0))
        if at == len(free):
            tokens, number = capacity, len(packed)
            packed.append([])
        else:
            tokens, number = free.pop(at)
        packed[number].append(pair)
        bisect.insort(free, (tokens - lengths[pair], number))
    return packed
