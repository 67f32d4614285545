"""The tokenizer of a GGUF file gives the ids of tiktoken and of sentencepiece; what is not known is one sentence."""

import json
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import torch
from gguf import GGUFWriter, TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bluejay.gpt.formats.gguf_file import read_gguf
from bluejay.gpt.formats.gguf_tokenizer import gguf_tokenizer
from bluejay.gpt.formats.layouts import convert
from bluejay.tokenizer import Tokenizer
from tests.gpt.formats.test_gguf import write_gguf

GPT_2_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# Every digit by itself; the space before one, too, because GPT-2's way is applied to what lies between digits.
SMOLLM_WORDS = r"""\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""
# llama3/tokenizer.py
LLAMA_3_WORDS = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
# tokenizer.json of Qwen2.5-0.5B
QWEN_2_WORDS = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
# tekken.json of Mistral-Nemo
TEKKEN_WORDS = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
WORDS = {"gpt-2": GPT_2_WORDS, "olmo": GPT_2_WORDS, "smollm": SMOLLM_WORDS, "llama-bpe": LLAMA_3_WORDS}
WORDS |= {"qwen2": QWEN_2_WORDS, "tekken": TEKKEN_WORDS}
# Names that mean the same in llama.cpp (llama-vocab.cpp) and that files of Llamas have.
SYNONYMS = {
    "gpt-2": ("mpt", "mellum", "trillion"),
    "smollm": ("starcoder", "refact", "minerva-7b"),
    "llama-bpe": ("falcon3", "pixtral", "midm-2.0"),
    "qwen2": ("deepseek-r1-qwen", "megrez", "kormo"),
}
TEXTS = [path.read_text(encoding="utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))]
any_text = st.text(max_size=40) | st.text(" \t\r\n'aAsSlL019½!.\u00a0\u3000é中😀", max_size=40)
Reader = Callable[..., Tokenizer]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS[::3], 1500)


@pytest.fixture
def read(tmp_path) -> Reader:
    """Writes a GGUF file of nothing but a tokenizer, and reads it."""

    def written(model: str, tokens: list, kinds: list, *, arch: str = "llama", **fields) -> Tokenizer:
        path = tmp_path / "model.gguf"
        writer = GGUFWriter(path, arch)
        writer.add_tokenizer_model(model)
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        for name, value in fields.items():
            getattr(writer, f"add_{name}")(value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return gguf_tokenizer(path, read_gguf(path).fields)

    return written


def byte_level(trained: Tokenizer, specials: list[str]) -> tuple[list[str], list[int], list[str]]:
    """Tokens, kinds and merges as llama.cpp writes them; the special tokens last."""
    model = json.loads(trained.backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [" ".join(merge) for merge in model["merges"]]
    return tokens + specials, [TokenType.NORMAL] * len(tokens) + [TokenType.CONTROL] * len(specials), merges


@pytest.mark.parametrize(("pre", "words"), WORDS.items())
def test_byte_level_ids_are_tiktokens(pre, words, trained, read):
    tokens, kinds, merges = byte_level(trained, ["<|begin|>", "<|end|>"])
    n = len(tokens)
    tokenizer = read(
        "gpt2", tokens, kinds, token_merges=merges, tokenizer_pre=pre, bos_token_id=n - 2, eos_token_id=n - 1
    )
    ranks = {token: id for id, token in enumerate(trained.token_bytes()[:-1])}
    reference = tiktoken.Encoding(pre, pat_str=words, mergeable_ranks=ranks, special_tokens={})
    assert tokenizer.encode_batch(TEXTS) == reference.encode_ordinary_batch(TEXTS)
    assert tokenizer.begin == ([n - 2] if pre in ("llama-bpe", "tekken") else [])
    assert (tokenizer.vocab_size, tokenizer.eot) == (n, n - 1)
    assert tokenizer.token_bytes() == [*ranks, b"", b""]
    for other in SYNONYMS.get(pre, ()):
        again = read("gpt2", tokens, kinds, token_merges=merges, tokenizer_pre=other, bos_token_id=n - 2)
        assert again.backend.to_str() == tokenizer.backend.to_str()

    @given(any_text)
    @settings(max_examples=150, deadline=None)
    def any_text_too(text):
        assert tokenizer.encode(text) == reference.encode_ordinary(text)
        assert tokenizer.decode(tokenizer.encode_prompt(text)) == text

    any_text_too()
    forged = tokenizer.encode("<|begin|>a<|end|>")
    assert not {n - 2, n - 1} & set(forged)


def test_sentencepiece_ids_are_sentencepieces(pieces, read):
    ids = range(pieces.get_piece_size())
    tokens = [pieces.id_to_piece(id) for id in ids]
    special = {0: TokenType.UNKNOWN, 1: TokenType.CONTROL, 2: TokenType.CONTROL}
    kinds = [TokenType.BYTE if pieces.is_byte(id) else special.get(id, TokenType.NORMAL) for id in ids]
    scores = [pieces.get_score(id) for id in ids]
    tokenizer = read("llama", tokens, kinds, token_scores=scores, bos_token_id=1, eos_token_id=2)
    assert (tokenizer.begin, tokenizer.eot, tokenizer.vocab_size) == ([1], 2, len(tokens))
    assert tokenizer.encode_prompt("") == [1]

    @given(any_text.filter(lambda text: "\0" not in text) | st.sampled_from([text[:300] for text in TEXTS]))
    @settings(max_examples=300, deadline=None)
    def any_text_gives_their_ids(text):
        ids = tokenizer.encode(text)
        assert ids == pieces.encode(text)
        assert b"".join(tokenizer.token_bytes()[id] for id in ids) == (b" " + text.encode() if text else b"")
        assert tokenizer.decode(tokenizer.encode_prompt(text)) == text

    any_text_gives_their_ids()
    assert not {0, 1, 2} & set(tokenizer.encode("<s>a</s><unk>"))


def test_tokens_that_a_user_defined_are_found_whole(trained, read):
    tokens, kinds, merges = byte_level(trained, ["<|end|>", "    "])
    kinds[-1] = TokenType.USER_DEFINED
    tokenizer = read("gpt2", tokens, kinds, arch="gptneox", token_merges=merges, eos_token_id=len(tokens) - 2)
    assert len(tokens) - 1 in tokenizer.encode("a    b")
    assert tokenizer.token_bytes()[-1] == b"    "


def test_ends_of_turns_are_known_by_their_spelling(trained, read):
    tokens, kinds, merges = byte_level(trained, ["<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|user|>"])
    n, fields = len(tokens), {"token_merges": merges, "tokenizer_pre": "gpt-2"}
    assert read("gpt2", tokens, kinds, eos_token_id=n - 4, **fields).ends == (n - 4, n - 2, n - 3)
    for kind in (TokenType.USER_DEFINED, TokenType.NORMAL):
        kinds[-2] = kind
        tokenizer = read("gpt2", tokens, kinds, eos_token_id=n - 3, **fields)
        assert tokenizer.ends == (n - 3, n - 2, n - 4)
        assert n - 2 not in tokenizer.encode("<|eot_id|>")
    tokens[-3:] = "<|return|>", "<|end|>", "<EOT>"
    assert read("gpt2", tokens, kinds, eos_token_id=n - 4, **fields).ends == (n - 4, n - 2, n - 3, n - 1)
    tokens[-1] = "<|call|>"
    assert read("gpt2", tokens, kinds, eos_token_id=n - 4, **fields).ends == (n - 4, n - 3, n - 1)


def test_thousands_of_special_tokens_take_no_time(trained, read):
    names = [f"<|{number}|>" for number in range(4000)]
    tokens, kinds, merges = byte_level(trained, ["<|end|>", *names])
    kinds[-1] = kinds[-3] = TokenType.USER_DEFINED
    n, before = len(tokens), time.process_time()
    tokenizer = read("gpt2", tokens, kinds, token_merges=merges, tokenizer_pre="gpt-2", eos_token_id=n - 4001)
    assert time.process_time() - before < 3
    assert tokenizer.encode(names[-1]) == [n - 1] and n - 2 not in tokenizer.encode(names[-2])


def test_a_tokenizer_json_beside_the_file_wins(trained, read, tmp_path):
    trained.save(tmp_path)
    tokenizer = read("rwkv", ["a"], [1])
    assert tokenizer.sha256 == trained.sha256


@pytest.mark.parametrize(
    ("model", "tokens", "fields", "message"),
    [
        ("rwkv", ["a"], {}, "tokenizer.ggml.model is 'rwkv'; bluejay reads"),
        ("gpt2", ["a"], {"tokenizer_pre": "poro"}, "tokenizer.ggml.pre is 'poro'; bluejay reads 'gpt-2'"),
        ("gpt2", ["a"], {}, "tokenizer.ggml.pre is None"),
        ("gpt2", ["a"], {"tokenizer_pre": "gpt-2", "token_merges": ["a b"]}, "are not a BPE"),
        ("gpt2", ["a"], {"tokenizer_pre": "gpt-2"}, r"no <|endoftext|> token"),
        ("gpt2", ["ab"], {"tokenizer_pre": "gpt-2"}, "it has no tokenizer.ggml.merges"),
        ("gpt2", ["a"], {"tokenizer_pre": "llama-bpe", "bos_token_id": 7}, "bos_token_id is 7"),
        ("llama", ["a"], {}, "it has 1 tokens, but tokenizer.ggml.scores has 0"),
        ("llama", ["a" * 1001], {"token_scores": [0.0]}, "it has a token of 1001 characters; bluejay reads"),
        ("llama", ["a", "b"], {}, "it has 2 tokens, but tokenizer.ggml.token_type has 1"),
    ],
)
def test_what_is_no_tokenizer_is_one_sentence(model, tokens, fields, message, read):
    with pytest.raises(ValueError) as raised:
        read(model, tokens, [TokenType.NORMAL], **fields)
    assert "model.gguf: " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("key", ["token_type", "merges", "scores", "pre", "add_bos_token", "eos_token_id", "tokens"])
@pytest.mark.parametrize("value", [1, -1, 1.5, "a", ["a"], np.array([1, 2]), np.array([0.5])], ids=repr)
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_fields_of_another_kind_are_one_sentence_or_harmless(model, key, value, tmp_path):
    sound = {"model": model, "tokens": ["a"], "pre": "gpt-2", "scores": [0.0], "merges": [], "token_type": [3]}
    fields = {f"tokenizer.ggml.{name}": field for name, field in (sound | {"eos_token_id": 0, key: value}).items()}
    try:
        gguf_tokenizer(tmp_path / "model.gguf", fields)
    except ValueError as error:
        assert "model.gguf: " in str(error)


@pytest.mark.parametrize("beside", [False, True], ids=["in the file", "tokenizer.json beside it"])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bos_token_id": 1, "unk_token_id": 0, "pad_token_id": 2}, ("<s>", "<unk>", "</s>")),
        ({"bos_token_id": 3, "pad_token_id": 0}, ("<pad>", "</s>", "<unk>")),
        ({"pad_token_id": 3}, ("</s>", "</s>", "<pad>")),
        ({"bos_token_id": 2**32 - 1, "pad_token_id": 2**32 - 1}, ("</s>", "</s>", None)),
    ],
)
def test_a_directory_made_of_a_gguf_file_names_the_tokens_that_it_names(beside, fields, named, trained, tmp_path):
    merges = byte_level(trained, [])[2]
    vocabulary = json.loads(trained.backend.to_str())["model"]["vocab"]
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    tokens = specials + sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [TokenType.CONTROL] * len(specials) + [TokenType.NORMAL] * len(vocabulary)
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    config.vocab_size, config.tie_word_embeddings = len(tokens), True

    def add_tokenizer(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
        for name, id in ({"eos_token_id": 2} | fields).items():
            getattr(writer, f"add_{name}")(id)

    write_gguf(tmp_path / "model.gguf", LlamaForCausalLM(config), more=add_tokenizer)
    if beside:
        gguf_tokenizer(tmp_path / "model.gguf", read_gguf(tmp_path / "model.gguf").fields).save(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
    convert(tmp_path / "model.gguf", tmp_path / "model", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token) == named
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    for ids in (model.config, model.generation_config):
        assert (ids.bos_token_id, ids.eos_token_id) == (tokenizer.bos_token_id, 2)
        assert ids.pad_token_id == tokenizer.pad_token_id
    assert set(tokenizer("a </s> b").input_ids) >= {2}
