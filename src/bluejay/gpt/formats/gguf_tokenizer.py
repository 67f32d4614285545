"""The tokenizer in a GGUF file: tokens, and merges or scores (ggml's `docs/gguf.md`, "Tokenizer")."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import tokenizers
from gguf.constants import TokenType
from tokenizers import pre_tokenizers, processors

from bluejay.byte_level_bpe import byte_level, words_by
from bluejay.sentencepiece_bpe import add_pieces, bpe, pieces_tokenizer
from bluejay.tokenizer import Tokenizer
from bluejay.tokenizer_files import (
    chat_template_beside,
    default_template,
    ends_beside,
    read_backend,
    settings_beside,
    valid_ends,
)

LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The expression by which Llama 3 splits a text into words (its `tokenizer.py`)."""
QWEN2_PATTERN = LLAMA_3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
"""That of Qwen2 (its `tokenizer.json`), which takes each digit by itself."""
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""That of Mistral Nemo (its `tekken.json`), which also divides words before capital letters."""
GPT2 = ("gpt-2", "mpt", "olmo", "mellum", "trillion")
SMOLLM = ("smollm", "starcoder", "refact", "minerva-7b")
LLAMA_3 = ("llama-bpe", "llama-v3", "llama3", "falcon3", "pixtral", "midm-2.0")
QWEN2 = ("qwen2", "deepseek-r1-qwen", "megrez", "kormo")
TEKKEN = ("tekken",)
"""llama.cpp's names of ways to split a text into words; names in a group mean the same (`llama-vocab.cpp`)."""
WORDS = (*GPT2, *SMOLLM, *LLAMA_3, *QWEN2, *TEKKEN)
PATTERNS = dict.fromkeys(LLAMA_3, LLAMA_3_PATTERN) | dict.fromkeys(QWEN2, QWEN2_PATTERN) | {TEKKEN[0]: TEKKEN_PATTERN}
"""Name of a way -> its expression, for those that are no variants of GPT-2's."""
WHOLE_WORDS = LLAMA_3 + TEKKEN
"""Ways in which a word that is a token is taken whole, and every text begins with a token, if the file does not say."""
SPELLED_ENDS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<EOT>",
    "_<EOT>",
    "<end_of_utterance>",
)
"""Tokens that end a text in llama.cpp, whatever the file says of them (`llama-vocab.cpp`)."""


def gguf_tokenizer(path: Path, fields: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF file: a tokenizer.json in the same folder if there is one, else from the file's fields.
    Raises ValueError, naming the file, for an unknown kind of tokenizer or way of splitting text, or damaged fields."""
    own = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}
    beside = path.with_name("tokenizer.json")
    try:
        templates = dict.fromkeys(fields.get("tokenizer.chat_templates", ()))
        chat_template = default_template(templates | {"default": fields.get("tokenizer.chat_template")}, path)
        if beside.is_file():
            backend = read_backend(beside)
            template = chat_template_beside(beside) or chat_template
            ends = ends_beside(beside, backend) or ends_of(own, backend)
            stated, named = settings_beside(beside), named_tokens(own, backend)
            named = {name: token for name, token in named.items() if stated.get(name) is None}
            return Tokenizer(backend, ends, template, stated | named)
        backend = backend_of(own, fields.get("general.architecture"))
        return Tokenizer(backend, ends_of(own, backend), chat_template, named_tokens(own, backend))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (TypeError, AttributeError) as error:  # for example a number in place of a list
        raise ValueError(f"{path}: its tokenizer's fields are not what they should be: {error}") from None


def backend_of(own: Mapping[str, Any], architecture: Any) -> tokenizers.Tokenizer:
    """The library's tokenizer, from a file's fields without their prefix "tokenizer.ggml."."""
    tokens, kinds = tokens_of(own)
    match own.get("model"):
        case "gpt2":
            backend = byte_level_bpe(own, architecture, tokens, kinds)
        case "llama":
            scores = own.get("scores", ())
            if len(scores) != len(tokens):
                raise ValueError(f"it has {len(tokens)} tokens, but tokenizer.ggml.scores has {len(scores)}")
            backend = pieces_tokenizer(tokens, scores, kinds, own.get("add_space_prefix", True))
        case kind:
            raise ValueError(f"tokenizer.ggml.model is {kind!r}; bluejay reads 'gpt2' and 'llama'")
    add_tokens(backend, own, tokens, kinds)
    return backend


def tokens_of(own: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """The tokens in the order of their ids, and the type of each."""
    tokens = own.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError("it has no tokenizer.ggml.tokens; a tokenizer.json beside it would be read")
    kinds = list(map(int, own.get("token_type", [TokenType.NORMAL] * len(tokens))))
    if len(kinds) != len(tokens):
        raise ValueError(f"it has {len(tokens)} tokens, but tokenizer.ggml.token_type has {len(kinds)}")
    return tokens, kinds


def byte_level_bpe(
    own: Mapping[str, Any], architecture: Any, tokens: list[str], kinds: list[int]
) -> tokenizers.Tokenizer:
    """A byte-level BPE that splits text into words in the way that `tokenizer.ggml.pre` names."""
    # Files older than this field use GPT-2's way, or belong to models whose text llama.cpp then split wrongly.
    pre = own.get("pre", "gpt-2" if architecture in ("gpt2", "gptneox") else None)
    if pre not in WORDS:
        known = ", ".join(map(repr, WORDS))
        raise ValueError(f"tokenizer.ggml.pre is {pre!r}; bluejay reads {known}, or a tokenizer.json beside it")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in own.get("merges", ()))]
    if not merges and any(
        len(token) > 1 for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.NORMAL
    ):
        raise ValueError("it has no tokenizer.ggml.merges; a tokenizer.json beside it would be read")
    backend = byte_level(bpe(tokens, kinds, merges, ignore_merges=pre in WHOLE_WORDS))
    backend.pre_tokenizer = words_of(pre)
    return backend


def words_of(pre: str) -> pre_tokenizers.PreTokenizer:
    """What splits a text into words in the way of a name in `WORDS`."""
    if pre in PATTERNS:
        return words_by(PATTERNS[pre])
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, words]) if pre in SMOLLM else words


def add_tokens(backend: tokenizers.Tokenizer, own: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> None:
    """Register special tokens, tokens that are matched before splitting, and the token that begins a text."""
    pairs = zip(tokens, kinds, strict=True)
    add_pieces(backend, tokens, [TokenType.CONTROL if token in SPELLED_ENDS else kind for token, kind in pairs])
    if own.get("add_bos_token", own["model"] == "llama" or own.get("pre") in WHOLE_WORDS):
        begin = own.get("bos_token_id")
        if not isinstance(begin, int) or not 0 <= begin < len(tokens):
            raise ValueError(f"tokenizer.ggml.bos_token_id is {begin!r}; it must be the id of a token")
        token = tokens[begin]
        backend.post_processor = processors.TemplateProcessing(single=[token, "$A"], special_tokens=[(token, begin)])


def named_tokens(own: Mapping[str, Any], backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The tokens that begin and pad a text and that of what is unknown, by their names in tokenizer_config.json."""
    keys = {"bos_token": "bos_token_id", "unk_token": "unknown_token_id", "pad_token": "padding_token_id"}
    ids = {name: id for name, key in keys.items() if is_id(id := own.get(key))}
    return {name: token for name, id in ids.items() if (token := backend.id_to_token(id)) is not None}


def named_ids(fields: Mapping[str, Any]) -> dict[str, int]:
    """The ids of the tokens that begin and pad a text, by their names in generation_config.json."""
    keys = {"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"}
    return {name: id for name, key in keys.items() if is_id(id := fields.get(f"tokenizer.ggml.{key}"))}


def is_id(value: Any) -> TypeGuard[int]:
    """Whether the value of a field can be the id of a token; -1 in 32 bits means that there is none."""
    return type(value) is int and 0 <= value < 2**32 - 1


def ends_of(own: Mapping[str, Any], backend: tokenizers.Tokenizer) -> list[int]:
    """The ids that end generation: the end of text first, then the ends of a turn, which llama.cpp also knows by their
    spelling. Where answers end with <|return|> and <|call|>, <|end|> only ends a part of one."""
    stated = [own.get(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    control = {token.content: id for id, token in backend.get_added_tokens_decoder().items() if token.special}
    if "<|return|>" in control and "<|call|>" in control:
        control.pop("<|end|>", None)
    return valid_ends([*stated, *(control[name] for name in SPELLED_ENDS if name in control)], backend)
