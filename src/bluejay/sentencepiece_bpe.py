"""SentencePiece's BPE, Llama 2's kind of tokenizer: pieces with scores, in a `tokenizer.model` or a GGUF file, and the
tokenizer of the `tokenizers` library that gives the same ids.

A `tokenizer.model` is one message of protocol buffers, `ModelProto` in SentencePiece's `sentencepiece_model.proto`.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

SPACE = "▁"
"""The character for a space in SentencePiece's vocabularies."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces; GGUF files number them alike."""
MOST_CHARACTERS = 1000
"""Characters of a piece, which may be divided anywhere; SentencePiece's own limit is 16 unless it is changed."""
BPE = 2
"""The number of BPE among SentencePiece's kinds of models."""


@dataclass(frozen=True)
class Pieces:
    """The vocabulary of a `tokenizer.model`, in the order of the ids."""

    tokens: list[str]
    scores: list[float]
    """A pair of tokens is merged the earlier, the higher the score of what they form."""
    kinds: list[int]
    space: bool
    """Whether a space is put in front of every text."""


def read_pieces(file: Path) -> Pieces:
    """The vocabulary of a `tokenizer.model`. Raises ValueError, naming the file, if it is damaged, of another kind than
    BPE with byte fallback, or changes the characters of texts before it divides them."""
    try:
        model = fields_of(file.read_bytes())
        pieces = messages(model, 1)
        tokens = [piece[1][0].decode() for piece in pieces]
        scores, kinds = [float32(piece, 2) for piece in pieces], [number(piece, 3, NORMAL) for piece in pieces]
        trained, normal, inverse = (merged(messages(model, key)) for key in (2, 3, 5))
        kind, fallback, suffix = number(trained, 3, 1), number(trained, 35, 0), number(trained, 24, 0)
        space, squeezed, escaped = (number(normal, key, 1) for key in (3, 4, 5))
        rules = [*normal.get(2, ()), *inverse.get(2, ())]
        if not pieces:
            raise ValueError
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, struct.error):
        raise ValueError(f"{file} is not a tokenizer.model of SentencePiece") from None
    if kind != BPE or not fallback:
        raise ValueError(f"{file} is not a BPE that falls back on bytes, as Llama's; a tokenizer.json would be read")
    if any(rules) or squeezed or suffix or not escaped:
        raise ValueError(f"{file} changes the characters of a text, unlike Llama's; a tokenizer.json would be read")
    return Pieces(tokens, scores, kinds, bool(space))


def fields_of(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message: number of a field -> its values, integers or bytes. Raises ValueError or IndexError."""
    fields: dict[int, list[Any]] = {}
    at = 0

    def integer() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("an integer has more than 64 bits")

    while at < len(data):
        key, form = divmod(integer(), 8)
        if form == 0:
            value: int | bytes = integer()
        else:
            length = {1: 8, 5: 4}[form] if form != 2 else integer()
            value, at = data[at : at + length], at + length
        if at > len(data):
            raise ValueError("a message ends early")
        fields.setdefault(key, []).append(value)
    return fields


def messages(fields: dict[int, list[Any]], key: int) -> list[dict[int, list[Any]]]:
    """The messages in a field."""
    return [fields_of(data) for data in fields.get(key, ())]


def merged(parts: list[dict[int, list[Any]]]) -> dict[int, list[Any]]:
    """One message from its parts, of which the last counts."""
    return {key: values for part in parts for key, values in part.items()}


def number(fields: dict[int, list[Any]], key: int, default: int) -> int:
    """The integer or the truth value in a field."""
    value = fields.get(key, [default])[-1]
    if not isinstance(value, int):
        raise TypeError
    return value


def float32(fields: dict[int, list[Any]], key: int) -> float:
    """The number in a field of 4 bytes; 0 without it."""
    return struct.unpack("<f", fields[key][-1])[0] if key in fields else 0.0


def pieces_tokenizer(
    tokens: list[str], scores: Sequence[float], kinds: Sequence[int], space: bool, once: bool = False
) -> tokenizers.Tokenizer:
    """The library's tokenizer: a space is a character like others, and unknown characters become byte tokens. With
    `space`, one is put in front of a text and of what follows an added token in it; with `once`, as transformers does
    where `legacy` is false, only in front of a text that begins with none. Raises ValueError if tokens and scores are
    not a BPE."""
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN), None)
    merges = list(merges_by_score(tokens, scores, kinds))
    backend = tokenizers.Tokenizer(bpe(tokens, kinds, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    if space and once:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        front = [normalizers.Prepend(SPACE)] if space else []
        backend.normalizer = normalizers.Sequence([*front, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if space else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def add_pieces(backend: tokenizers.Tokenizer, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Register the pieces that no text is divided into, and those that are found in a text before it is divided."""
    special = (CONTROL, UNKNOWN)
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind in special)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in special or kind == USER_DEFINED
        ]
    )


def merges_by_score(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> Iterator[tuple[str, str]]:
    """All possible merges in SentencePiece's order: it merges the two pieces that form the token of the highest score,
    regardless of which two they are. Raises ValueError for a token that is too long to be divided everywhere."""
    normal = {token: id for id, token in enumerate(tokens) if kinds[id] == NORMAL}
    if (longest := max(map(len, normal), default=0)) > MOST_CHARACTERS:
        raise ValueError(f"it has a token of {longest} characters; bluejay reads those of at most {MOST_CHARACTERS}")
    for token in sorted(normal, key=lambda token: -float(scores[normal[token]])):
        for cut in range(1, len(token)):
            if token[:cut] in normal and token[cut:] in normal:
                yield token[:cut], token[cut:]


def bpe(tokens: list[str], kinds: Sequence[int], merges: list[tuple[str, str]], **settings: Any) -> models.BPE:
    """A BPE model of `tokenizers`, without the tokens that only stand for rows that pad the embedding. Raises
    ValueError if tokens and merges do not fit together."""
    used = (id for id, kind in enumerate(kinds) if kind != UNUSED)
    try:
        return models.BPE(vocab={tokens[id]: id for id in used}, merges=merges, **settings)
    except Exception as error:  # tokenizers raises plain Exception
        raise ValueError(f"its tokens and merges are not a BPE: {error}") from None
