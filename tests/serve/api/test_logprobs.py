"""Tokens as strings, and the offsets of their text."""

import pytest

from bluejay.gpt.formats.gguf_tokenizer import gguf_tokenizer
from bluejay.infer.prompts import end_of
from bluejay.infer.sampling import Logprob
from bluejay.serve.api.logprobs import LogprobWriter, token_name
from bluejay.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def llama(pieces, tmp_path_factory) -> Tokenizer:
    """A tokenizer that begins every text with <s> and a space."""
    kinds = [
        2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1 for i in range(1000)
    ]
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in range(1000)],
        "tokenizer.ggml.scores": [pieces.get_score(i) for i in range(1000)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": pieces.bos_id(),
        "tokenizer.ggml.eos_token_id": pieces.eos_id(),
        "tokenizer.chat_template": "{{ messages }}",
    }
    return gguf_tokenizer(tmp_path_factory.mktemp("gguf") / "x.gguf", fields)


@pytest.mark.parametrize("text", ["import os", " two  spaces", "naïve 日本", "x"])
def test_offsets_cut_an_echo_at_its_tokens(llama, byte_tokenizer, text):
    for tokenizer in (llama, byte_tokenizer):
        tokens = tokenizer.encode_prompt(text)
        logprobs = [Logprob(token, -1.0, ((0, -0.5),)) for token in tokens[1:]]
        found = LogprobWriter(tokenizer).prompt(tokens, logprobs)
        ends = [*found["text_offset"][1:], len(text)]
        pieces = [text[begin:end] for begin, end in zip(found["text_offset"], ends, strict=True)]
        assert "".join(pieces) == text
        whole = [(name, piece) for name, piece in zip(found["tokens"], pieces, strict=True) if len(piece) > 1]
        assert all(piece == name.removeprefix(" " if name != piece else "") for name, piece in whole)
        assert found["token_logprobs"] == [None] + [-1.0] * len(logprobs)


def test_tokens_have_readable_names(llama, byte_tokenizer):
    assert token_name(byte_tokenizer, byte_tokenizer.eot) == "<|endoftext|>"
    assert token_name(byte_tokenizer, byte_tokenizer.encode("é")[0]) == r"bytes:\xc3"
    assert token_name(llama, llama.begin[0]) == "<s>"


def test_minus_infinity_is_written_as_a_number(byte_tokenizer):
    infinite = Logprob(65, float("-inf"), ((66, 0.0), (65, float("-inf"))))
    found = LogprobWriter(byte_tokenizer).write([infinite])
    assert found["token_logprobs"] == [-9999.0] and set(found["top_logprobs"][0].values()) == {0.0, -9999.0}


def test_a_gguf_file_carries_its_chat_template(llama):
    assert llama.chat_template == "{{ messages }}"


def test_the_end_of_a_long_prompt_follows_what_begins_every_text(llama, byte_tokenizer):
    ids = llama.encode_prompt("one two three four five six")
    assert ids[:1] == llama.begin and end_of(llama, ids, len(ids)) == ids
    assert end_of(llama, ids, 4) == llama.begin + ids[-3:] and end_of(llama, ids, 1) == ids[-1:]
    assert end_of(byte_tokenizer, [1, 2, 3], 2) == [2, 3]
