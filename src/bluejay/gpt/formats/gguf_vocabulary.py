"""The fields of a GGUF file that describe a tokenizer: the inverse of `gguf_tokenizer`.

llama.cpp knows ways to split a text into words by their names, so a tokenizer with another way cannot be written.
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from gguf.constants import TokenType
from tokenizers import decoders

from bluejay.gpt.formats.gguf_tokenizer import (
    GPT2,
    LLAMA_3,
    QWEN2,
    SMOLLM,
    TEKKEN,
    WHOLE_WORDS,
    backend_of,
    words_of,
)
from bluejay.progress import say
from bluejay.sentencepiece_bpe import merges_by_score
from bluejay.tokenizer import Tokenizer

ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Fields for the ids that end a text, a turn and a message; llama.cpp stops at each."""
WRITTEN = tuple(names[0] for names in (GPT2, SMOLLM, LLAMA_3, QWEN2, TEKKEN))
"""The names by which ways to split a text into words are written."""
PROBE = (
    "It's 1234567 o'clock; WE'LL see 3.14 % of x_y[12].camelCase\\n\\tif a  ==\\t'b' :\r\n\r\n    return\n \n"
    "naïve Straße 東京 2024年 ١٢٣ ½ 😀🏳️‍🌈 \u00a0\u3000end   "
)
"""A text on which all ways to split words that llama.cpp knows differ."""


def vocabulary(tokenizer: Tokenizer, n_rows: int, generation: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """The fields, by their full names, for a model with `n_rows` rows in its embedding and these defaults for
    generating. Raises ValueError if llama.cpp cannot encode as the tokenizer does."""
    tokens, kinds = rows(tokenizer, n_rows)
    own: dict[str, Any] = {"tokens": tokens, "token_type": kinds}
    if isinstance(tokenizer.backend.decoder, decoders.ByteLevel):
        own |= byte_level_fields(tokenizer.backend)
    else:
        own |= sentencepiece_fields(tokenizer.backend, tokens, kinds)
    own |= named_tokens(tokenizer, n_rows, generation)
    check_ids(tokenizer, own, architecture)
    fields = {f"tokenizer.ggml.{key}": value for key, value in own.items()}
    return fields | ({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {})


def rows(tokenizer: Tokenizer, n_rows: int) -> tuple[list[str], list[int]]:
    """The token of each row of the embedding, and its type. A row without a token only pads the embedding."""
    backend, unknown = tokenizer.backend, getattr(tokenizer.backend.model, "unk_token", None)
    added, pieces = backend.get_added_tokens_decoder(), not isinstance(backend.decoder, decoders.ByteLevel)
    tokens, kinds = [], []
    for id in range(n_rows):
        token = backend.id_to_token(id)
        kind = TokenType.NORMAL
        if token is None:
            token, kind = f"[PAD{id}]", TokenType.UNUSED
        elif pieces and token == unknown:
            kind = TokenType.UNKNOWN
        elif id in added:
            kind = TokenType.CONTROL if added[id].special or id in tokenizer.ends else TokenType.USER_DEFINED
        elif pieces and len(token) == 6 and token.startswith("<0x"):
            kind = TokenType.BYTE
        tokens.append(token)
        kinds.append(int(kind))
    return tokens, kinds


def byte_level_fields(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """Merges and the way to split words. Raises ValueError if llama.cpp has no name for it."""
    model = json.loads(backend.to_str())["model"]
    found = backend.pre_tokenizer and backend.pre_tokenizer.pre_tokenize_str(PROBE)
    whole_words = bool(model.get("ignore_merges"))
    for pre in WRITTEN:
        if found == words_of(pre).pre_tokenize_str(PROBE) and whole_words == (pre in WHOLE_WORDS):
            break
    else:
        raise ValueError(
            "the tokenizer splits a text into words in another way than those that bluejay can write to GGUF: "
            f"{', '.join(WRITTEN)}"
        )
    if backend.normalizer is not None:
        kind = json.loads(backend.to_str())["normalizer"]["type"]
        say(
            f"llama.cpp encodes without this tokenizer's normalisation of characters ({kind}), so it may give other ids"
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"model": "gpt2", "pre": pre, "merges": merges}


def sentencepiece_fields(backend: tokenizers.Tokenizer, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    """Scores, which order the merges, and whether a text begins with a space. Raises ValueError if the tokenizer merges
    by other rules than SentencePiece."""
    merges = [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    scores = [-float(rank.get(token, len(merges))) for token in tokens]
    spaced = backend.encode("a", add_special_tokens=False).tokens[:1] != ["a"]
    if set(merges_by_score(tokens, scores, kinds)) != set(merges):
        raise ValueError("the tokenizer does not merge every pair that forms a token, as SentencePiece in GGUF does")
    return {"model": "llama", "scores": scores, "add_space_prefix": spaced}


def named_tokens(tokenizer: Tokenizer, n_rows: int, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The ids that begin, end and pad a text, and the id of what is unknown."""
    if len(tokenizer.begin) > 1:
        raise ValueError(f"every text begins with {len(tokenizer.begin)} tokens; a GGUF file can name one")
    if len(tokenizer.ends) > len(ENDS):
        say(f"a GGUF file names {len(ENDS)} tokens that end a text; it lacks the others of this model")
    fields: dict[str, Any] = dict(zip(ENDS, tokenizer.ends, strict=False))
    for name, default in (("bos", tokenizer.eot), ("unk", None), ("pad", None)):
        spelled = tokenizer.settings.get(f"{name}_token")
        stated = generation.get(f"{name}_token_id", spelled and tokenizer.backend.token_to_id(spelled))
        id = stated if tokenizer.has(stated) and stated < n_rows else default
        if id is not None:
            fields[{"unk": "unknown_token_id", "pad": "padding_token_id"}.get(name, f"{name}_token_id")] = id
    if tokenizer.begin:
        fields["bos_token_id"] = tokenizer.begin[0]
    return fields | {"add_bos_token": bool(tokenizer.begin), "add_eos_token": False}


def check_ids(tokenizer: Tokenizer, own: Mapping[str, Any], architecture: str) -> None:
    """Raise ValueError unless the tokenizer that the fields describe gives the same ids, also around each token that is
    matched before splitting. It is said which special tokens absorb whitespace beside them, which no field states."""
    again = backend_of(own, architecture)
    again.encode_special_tokens = True
    kinds = zip(own["tokens"], own["token_type"], strict=True)
    matched = [token for token, kind in kinds if kind == TokenType.USER_DEFINED]
    probes = [f"{front}{token}{back}" for token in matched for front, back in (("a", "b"), ("a  ", "  b"))]
    texts = [PROBE, PROBE.strip(), "a", " a", "", *probes]
    found = again.encode_batch_fast(texts, add_special_tokens=False)
    for text, encoding, ids in zip(texts, found, tokenizer.encode_batch(texts), strict=True):
        if encoding.ids != ids:
            near = f" for {text!r}" if text in probes else ""
            raise ValueError(
                f"the tokenizer gives ids that no tokenizer in a GGUF file gives{near}; bluejay cannot write it"
            )
    special = (one for one in tokenizer.backend.get_added_tokens_decoder().values() if one.special)
    if taking := [one.content for one in special if one.lstrip or one.rstrip]:
        say(f"llama.cpp keeps the whitespace beside these tokens, which they absorb here: {', '.join(taking)}")
