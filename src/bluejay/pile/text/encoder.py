"""Many texts to ids at once: through gigatoken where it is installed, else through tokenizers. The ids are the same."""

import importlib.util
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.tokenizer import END_OF_TEXT, Tokenizer
from bluejay.tokens import dtype_for


class Encoder:
    """`encoder(texts)` gives the ids of all texts end to end, each ended by <|endoftext|>, and how many each has."""

    def __init__(self, tokenizer: Tokenizer, parallel: bool) -> None:
        self.tokenizer, self.parallel, self.bulk = tokenizer, parallel, None
        self.dtype = dtype_for(tokenizer.vocab_size)
        """How the ids are stored."""
        # A tokenizer with added tokens of its own would need them cut out of the text first.
        alone = list(tokenizer.backend.get_added_tokens_decoder()) == [tokenizer.eot]
        if alone and importlib.util.find_spec("gigatoken"):
            from gigatoken import Tokenizer as Bulk

            self.bulk = Bulk.from_json(json.dumps(without_special(tokenizer)))

    def __call__(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids (sum of sizes,) and sizes (texts,)."""
        if self.bulk is None:
            lists = self.tokenizer.encode_batch(texts)
            ids = np.array([id for ids in lists for id in ids], np.uint32)
            sizes = np.array([len(ids) for ids in lists], np.int64)
        else:
            layout: Any = self.bulk.encode_batch(texts, parallel=self.parallel).layout
            offsets = np.asarray(layout.offsets, np.int64)
            ids, sizes = np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
        return np.insert(ids, np.cumsum(sizes), self.tokenizer.eot), sizes + 1


def without_special(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer.json of the same ids without the special token, so that its name in a text is text as any other."""
    values = json.loads(tokenizer.backend.to_str())
    values["model"]["vocab"].pop(END_OF_TEXT, None)
    return values | {"added_tokens": [], "post_processor": None}
