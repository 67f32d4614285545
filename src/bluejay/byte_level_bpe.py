"""Byte-level BPE, GPT-2's kind of tokenizer, whose vocabulary spells each byte as a printable character; also from the
ranks of tokens, as OpenAI's and Mistral's files have them.

The rank of a token is its place in the order of the merges: of all neighbours in a word, those are merged first whose
token has the lowest rank.
"""

import base64
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from bluejay.files import parse_json

N_BYTES = 256
TEKKEN_SPECIALS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The first special tokens of a `tekken.json` that lists none."""


def byte_level(model: models.BPE, space: bool = False) -> tokenizers.Tokenizer:
    """A tokenizer from a BPE, with GPT-2's division of text into words (its regular expression) and, if asked for, a
    space in front."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def words_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """What divides a text into the words that a regular expression finds, and spells their bytes. Raises Exception for
    what is no regular expression."""
    words = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def ranked_bpe(ranks: dict[bytes, int], special: tuple[str, ...] = (), **settings: Any) -> models.BPE:
    """A BPE from the ranks of its tokens, which are 0, 1, 2, ... The `special` tokens have the ids before those of the
    others, which are their ranks otherwise. Raises ValueError if one of them is spelled as another token is."""
    spelling = str.maketrans({chr(byte): character for byte, character in byte_characters().items()})
    name = {token: token.decode("latin-1").translate(spelling) for token in ranks}
    vocabulary = {name[token]: len(special) + rank for token, rank in ranks.items()}
    if twice := vocabulary.keys() & set(special):
        raise ValueError(f"it has {min(twice)} twice")
    merges = [merge for token in ranks if len(token) > 1 and (merge := merge_of(token, ranks))]
    vocabulary |= {token: id for id, token in enumerate(special)}
    return models.BPE(vocab=vocabulary, merges=[(name[a], name[b]) for a, b in merges], **settings)


def merge_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The pair that a token was merged from: its two parts after all earlier merges have been applied. None for a token
    that no merges lead to."""
    none = len(ranks)
    parts = [token[i : i + 1] for i in range(len(token))]
    pairs = [ranks.get(token[i : i + 2], none) for i in range(len(token) - 1)]
    while len(parts) > 2:
        if (lowest := min(pairs)) == none:
            return None
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del pairs[at]
        if at > 0:
            pairs[at - 1] = ranks.get(parts[at - 1] + parts[at], none)
        if at < len(pairs):
            pairs[at] = ranks.get(parts[at] + parts[at + 1], none)
    return parts[0], parts[1]


def tekken_tokenizer(file: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer from a `tekken.json`, Mistral's file: special tokens, which have the first ids, the ranks
    of the others, and the regular expression that divides a text into words. Raises ValueError, naming the file, if it
    is damaged."""
    try:
        values = parse_json(file.read_text(encoding="utf-8"))
        config, listed = values["config"], values.get("special_tokens")
        n_special = config["default_num_special_tokens"]
        n_tokens = config["default_vocab_size"] - n_special  # the file has more, which models do not use
        named = (
            dict(enumerate(TEKKEN_SPECIALS)) if listed is None else {one["rank"]: one["token_str"] for one in listed}
        )
        special = tuple(named.get(id, f"<SPECIAL_{id}>") for id in range(n_special))
        tokens = [base64.b64decode(one["token_bytes"], validate=True) for one in values["vocab"][:n_tokens]]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        if not len(ranks) == len(tokens) == n_tokens or len(set(special)) < n_special or max(named) >= n_special:
            raise ValueError("its tokens are not those that its config counts")
        if any(one["rank"] != rank for rank, one in enumerate(values["vocab"][:n_tokens])):
            raise ValueError("its tokens are not in the order of their ranks")
        backend = byte_level(ranked_bpe(ranks, special, ignore_merges=True))  # a word that is a token is taken whole
        backend.pre_tokenizer = words_by(config["pattern"])
    except Exception as error:  # tokenizers raises plain Exception; what is read of a damaged file can raise others
        raise ValueError(f"{file} is not a tekken.json of Mistral: {error}") from None
    backend.add_special_tokens(list(special))
    return backend


@cache
def characters_to_bytes() -> dict[str, int]:
    """The inverse of `byte_characters`."""
    return {character: byte for byte, character in byte_characters().items()}


@cache
def byte_characters() -> dict[int, str]:
    """The printable character that spells each byte in a vocabulary (GPT-2's `encoder.py`, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(N_BYTES + i) for i, byte in enumerate(others)}


def bytes_of_spelled(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary; a token with other characters is its own UTF-8."""
    byte_of = characters_to_bytes()
    return bytes(map(byte_of.__getitem__, token)) if byte_of.keys() >= set(token) else token.encode()
