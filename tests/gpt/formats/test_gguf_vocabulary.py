"""The tokenizer in a GGUF file that is written gives the same ids, ends and template; no other is written."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from bluejay.gpt.formats.gguf_file import read_gguf
from bluejay.gpt.formats.gguf_tokenizer import gguf_tokenizer, words_of
from bluejay.gpt.formats.gguf_vocabulary import vocabulary
from bluejay.tokenizer import Tokenizer
from tests.gpt.formats.test_gguf_tokenizer import TEXTS, any_text

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def again(tokenizer: Tokenizer, n_rows: int = 0, **generation: int) -> Tokenizer:
    """The tokenizer that its fields describe."""
    fields = vocabulary(tokenizer, n_rows or tokenizer.vocab_size, generation, "llama")
    return gguf_tokenizer(Path("no-folder/model.gguf"), fields)


def changed(tokenizer: Tokenizer, **parts: object) -> Tokenizer:
    """A copy with another pre-tokenizer, normalizer or post-processor."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    return Tokenizer(backend, tokenizer.ends)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS[::3], 1500)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2"])
def test_byte_level_ids_come_back(pre, trained):
    tokenizer = changed(trained, pre_tokenizer=words_of(pre))
    tokenizer.chat_template = TEMPLATE
    read = again(tokenizer)
    assert (read.sha256, read.ends, read.chat_template) == (tokenizer.sha256, tokenizer.ends, TEMPLATE)
    assert read.token_bytes() == tokenizer.token_bytes()

    @given(any_text)
    @settings(max_examples=100, deadline=None)
    def any_text_gives_its_ids(text):
        assert read.encode_prompt(text) == tokenizer.encode_prompt(text)

    any_text_gives_its_ids()


def test_added_tokens_begin_and_ends_come_back(trained):
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.add_special_tokens(["<|begin|>", "<|im_end|>"])
    backend.add_tokens([AddedToken("    ", normalized=False)])
    begin, turn = (backend.token_to_id(token) for token in ("<|begin|>", "<|im_end|>"))
    backend.post_processor = processors.TemplateProcessing(
        single=["<|begin|>", "$A"], special_tokens=[("<|begin|>", begin)]
    )
    tokenizer = Tokenizer(backend, [*trained.ends, turn])
    read = again(tokenizer)
    assert (read.begin, read.ends) == ([begin], (*trained.ends, turn))
    assert read.encode("a    b<|begin|>") == tokenizer.encode("a    b<|begin|>")
    assert read.token_bytes() == tokenizer.token_bytes()


def test_rows_that_pad_the_embedding_have_no_text(trained):
    read = again(trained, trained.vocab_size + 100)
    assert read.sha256 == trained.sha256
    assert read.decode([*trained.encode("a"), trained.vocab_size + 7]) == "a"
    assert trained.encode(f"[PAD{trained.vocab_size + 7}]") == read.encode(f"[PAD{trained.vocab_size + 7}]")


def test_named_tokens_are_in_the_fields(trained):
    fields = vocabulary(trained, trained.vocab_size, {"bos_token_id": 5, "pad_token_id": 6}, "llama")
    assert fields["tokenizer.ggml.bos_token_id"] == 5
    assert fields["tokenizer.ggml.padding_token_id"] == 6
    assert fields["tokenizer.ggml.eos_token_id"] == trained.eot
    assert not fields["tokenizer.ggml.add_bos_token"]


def test_sentencepiece_ids_come_back(pieces, tmp_path):
    kinds = {0: 2, 1: 3, 2: 3}
    ids = range(pieces.get_piece_size())
    fields = {
        "model": "llama",
        "tokens": [pieces.id_to_piece(id) for id in ids],
        "scores": [pieces.get_score(id) for id in ids],
        "token_type": [6 if pieces.is_byte(id) else kinds.get(id, 1) for id in ids],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    first = gguf_tokenizer(tmp_path / "a.gguf", {f"tokenizer.ggml.{name}": value for name, value in fields.items()})
    read = again(first)
    assert (read.begin, read.ends, read.token_bytes()) == ([1], (2,), first.token_bytes())

    @given(any_text | st.sampled_from([text[:300] for text in TEXTS]))
    @settings(max_examples=100, deadline=None)
    def any_text_gives_its_ids(text):
        assert read.encode_prompt(text) == first.encode_prompt(text)

    any_text_gives_its_ids()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)}, "splits a text into words in another way"),
        (
            {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(False)])},
            "way",
        ),
        ({"pre_tokenizer": words_of("llama-bpe")}, "splits a text into words in another way"),  # without ignore_merges
        ({"normalizer": normalizers.Lowercase()}, "gives ids that no tokenizer in a GGUF file gives"),
    ],
)
def test_another_way_to_split_words_is_one_sentence(parts, message, trained):
    with pytest.raises(ValueError, match=message):
        again(changed(trained, **parts))


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}], ids=str)
def test_what_an_added_token_does_to_the_text_beside_it_is_not_dropped(flags, trained, capfd):
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.add_tokens([AddedToken("<user>", normalized=False, **flags)])
    with pytest.raises(ValueError, match=r"gives ids that no tokenizer in a GGUF file gives for 'a.*<user>.*b'"):
        again(Tokenizer(backend, trained.ends))
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.add_special_tokens([AddedToken("<|user|>", normalized=False, **flags)])
    again(Tokenizer(backend, trained.ends))
    told = "keeps the whitespace beside these tokens, which they absorb here: <|user|>" in capfd.readouterr().err
    assert told == ("single_word" not in flags)


def test_tokens_of_spaces_as_gpt_neox_has_them_come_back(trained):
    backend = tokenizers.Tokenizer.from_str(changed(trained, normalizer=normalizers.NFC()).backend.to_str())
    backend.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer = Tokenizer(backend, trained.ends)
    assert again(tokenizer).encode("a\n       b  c") == tokenizer.encode("a\n       b  c")


def test_a_normalizer_that_llama_cpp_lacks_is_said(trained, capfd):
    assert again(changed(trained, normalizer=normalizers.NFC())).encode("abc") == trained.encode("abc")
    assert "without this tokenizer's normalisation of characters (NFC)" in capfd.readouterr().err


def test_the_tokenizer_of_smollm2_comes_back(request, tmp_path):
    first = read_gguf(request.getfixturevalue("smollm2_path")).fields
    tokenizer = gguf_tokenizer(tmp_path / "a.gguf", first)
    fields = vocabulary(tokenizer, len(first["tokenizer.ggml.tokens"]), {}, "llama")
    for key in ("model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "padding_token_id"):
        assert (
            list(map(str, fields[f"tokenizer.ggml.{key}"])) == list(map(str, first[f"tokenizer.ggml.{key}"]))
            if isinstance(fields[f"tokenizer.ggml.{key}"], list)
            else fields[f"tokenizer.ggml.{key}"] == first[f"tokenizer.ggml.{key}"]
        ), key
    assert fields["tokenizer.chat_template"] == first["tokenizer.chat_template"]
