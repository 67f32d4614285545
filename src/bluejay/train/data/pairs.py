"""Prompts and completions to train on, from a file of JSON lines, packed into sequences so that each pair stays whole.

A sequence is the end token, a pair and its end token, another pair, ..., and end tokens to fill it up. The tokens of
completions, the end among them, count fully in the loss, those of prompts as much as the recipe says, the rest nothing.
"""

import bisect
import json
from pathlib import Path

import numpy as np

from bluejay.progress import say
from bluejay.tokenizer import Tokenizer


class Pairs:
    """The sequences of a `.jsonl` file, as `bluejay.train.data.batches.Source` wants them.

    Raises FileNotFoundError: no such file; ValueError: a line that is no pair, or no pair that fits.
    """

    weighted = True

    def __init__(self, path: str, length: int, tokenizer: Tokenizer, prompt_weight: float) -> None:
        self.length, self.eot = length, tokenizer.eot
        pairs = [encode(prompt, completion, tokenizer) for prompt, completion in read_pairs(Path(path))]
        fitting = [(ids, n_prompt) for ids, n_prompt in pairs if len(ids) <= length]
        if not fitting:
            raise ValueError(f"{path} has no pair of at most {length} tokens, data.sequence_length")
        if len(fitting) < len(pairs):
            left = len(pairs) - len(fitting)
            say(f"{path}: {left:,} of {len(pairs):,} pairs are longer than data.sequence_length {length} and left out")
        self.tokens = [np.array(ids, dtype=np.int32) for ids, _ in fitting]
        self.weights = [
            np.array([prompt_weight] * n_prompt + [1.0] * (len(ids) - n_prompt), dtype=np.float32)
            for ids, n_prompt in fitting
        ]
        self.packed = pack([len(ids) for ids in self.tokens], length)
        say(f"{path}: {len(fitting):,} pairs in {len(self):,} sequences; read once, {len(self) * length:,} tokens")

    def __len__(self) -> int:
        return len(self.packed)

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A sequence: length + 1 tokens, and the weight of each but the first."""
        tokens = np.full(self.length + 1, self.eot, dtype=np.int32)
        weights = np.zeros(self.length, dtype=np.float32)
        at = 0
        for pair in self.packed[number]:
            end = at + len(self.tokens[pair])
            tokens[at + 1 : end + 1], weights[at:end] = self.tokens[pair], self.weights[pair]
            at = end
        return tokens, weights


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The prompts and completions in a file. Raises ValueError, naming the first line that is something else."""
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
    """The ids of a pair and its end token, and how many of them are the prompt's.

    A prompt has the ids that it will have when the model is asked; an empty one is the end token before the pair. The
    completion has those that follow when both are one text, unless a token then reached over the seam.
    """
    asked, whole = (tokenizer.begin + tokenizer.encode(text) for text in (prompt, prompt + completion))
    rest = whole[len(asked) :] if whole[: len(asked)] == asked else []
    return [*asked, *(rest or tokenizer.encode(completion)), tokenizer.eot], len(asked)


def pack(lengths: list[int], room: int) -> list[list[int]]:
    """Which pairs share a sequence: longest first, each into the fullest sequence that still has room for it."""
    packed: list[list[int]] = []
    open_: list[tuple[int, int]] = []
    """Room left and number of the sequences, in this order."""
    for pair in sorted(range(len(lengths)), key=lambda pair: -lengths[pair]):
        at = bisect.bisect_left(open_, (lengths[pair], 0))
        if at == len(open_):
            left, number = room, len(packed)
            packed.append([])
        else:
            left, number = open_.pop(at)
        packed[number].append(pair)
        bisect.insort(open_, (left - lengths[pair], number))
    return packed
