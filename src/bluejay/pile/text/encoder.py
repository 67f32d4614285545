"""Tokenize many texts at once: by gigatoken where it is installed, else by tokenizers. The ids are the same."""

import importlib.util
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.tokenizer import Tokenizer
from bluejay.tokenizer_files import END_OF_TEXT
from bluejay.tokens import dtype_for


class Encoder:
    """Encodes texts to token ids; each text is ended by <|endoftext|>."""

    def __init__(self, tokenizer: Tokenizer, parallel: bool) -> None:
        self.tokenizer, self.parallel, self.gigatoken = tokenizer, parallel, None
        self.dtype = dtype_for(tokenizer.vocab_size)
        """Type in which the ids are stored."""
        # gigatoken does not split a text at added tokens other than <|endoftext|>.
        supported = list(tokenizer.backend.get_added_tokens_decoder()) == [tokenizer.eot]
        if supported and importlib.util.find_spec("gigatoken"):
            import awkward  # noqa: F401 - gigatoken, which imports it when first used, would lose an interrupt
            from gigatoken import Tokenizer as GigaTokenizer

            self.gigatoken = GigaTokenizer.from_json(json.dumps(without_special(tokenizer)))

    def __call__(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of all texts, concatenated, (sum of sizes,), and how many each text has, (texts,)."""
        if self.gigatoken is None:
            lists = self.tokenizer.encode_batch(texts)
            ids = np.array([id for ids in lists for id in ids], np.uint32)
            sizes = np.array([len(ids) for ids in lists], np.int64)
        else:
            layout: Any = self.gigatoken.encode_batch(texts, parallel=self.parallel).layout
            offsets = np.asarray(layout.offsets, np.int64)
            ids, sizes = np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
        return np.insert(ids, np.cumsum(sizes), self.tokenizer.eot), sizes + 1


def without_special(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer.json without its special token, so that the token's name in a text is encoded as ordinary text."""
    values = json.loads(tokenizer.backend.to_str())
    values["model"]["vocab"].pop(END_OF_TEXT, None)
    return values | {"added_tokens": [], "post_processor": None}
