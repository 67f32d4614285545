"""The encoder gives the ids of `tokenizers`, text by text."""

import builtins
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluejay.pile.text.encoder import Encoder
from bluejay.tokenizer import Tokenizer

ODD = [
    "",
    "<|endoftext|> a<|endoftext|>",
    "é" * 300,
    "\u3000x\u00a0\t",
    "a\u0085b",
    "ſs’s 'S I'LL",
    "٣٤ ½ ²",
    "👩‍👩‍👧",
    "\x00",
]


@pytest.mark.parametrize("name", ["gpt2", "new"])
def test_ids_are_those_of_tokenizers(name: str) -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-e]*.py"))
    texts = ODD + [file.read_text(encoding="utf-8") for file in files]
    tokenizer = Tokenizer.load("gpt2") if name == "gpt2" else Tokenizer.train(texts, 1000)
    encoder = Encoder(tokenizer, parallel=False)
    assert encoder.gigatoken is not None
    ids, sizes = encoder(texts)
    ours = [part.tolist() for part in np.split(ids, np.cumsum(sizes)[:-1])]
    assert ours == [[*tokenizer.encode(text), tokenizer.eot] for text in texts]
    encoder.gigatoken = None
    slow, slow_sizes = encoder(texts)
    assert (slow == ids).all()
    assert (slow_sizes == sizes).all()


def test_an_interrupt_while_gigatoken_begins_is_not_lost(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken")
    imported = builtins.__import__

    def interrupted(name: str, *rest: Any) -> Any:
        if name == "awkward":
            raise KeyboardInterrupt
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Encoder(byte_tokenizer, parallel=False)(["a text"])
