"""The files beside a tokenizer say what transformers takes them to say."""

import json
import time
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from bluejay.chat_template import prompt_tokens
from bluejay.tokenizer import Tokenizer
from tests.test_chat_template import spaced_tokenizer


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(["the end of the cat in the hat, and then the end"] * 3, 300)


def write_json(path: Path, **values) -> None:
    path.write_text(json.dumps(values))


def test_a_directory_says_which_tokens_end_a_text(trained: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.add_special_tokens(["<|im_end|>", "<|eot_id|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    eot, im_end, eot_id = trained.eot, trained.eot + 1, trained.eot + 2
    assert Tokenizer.load(tmp_path).ends == (eot,)
    write_json(tmp_path / "tokenizer_config.json", eos_token="<|eot_id|>")
    assert Tokenizer.load(tmp_path).ends == (eot_id,)
    write_json(tmp_path / "config.json", eos_token_id=im_end)
    assert Tokenizer.load(tmp_path).ends == (im_end,)
    write_json(tmp_path / "generation_config.json", eos_token_id=[im_end, eot_id])
    chat = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (chat.eot, chat.ends) == (im_end, (im_end, eot_id))
    assert chat.token_bytes()[eot:] == [b"", b"", b""]
    text = "a<|im_end|>b<|endoftext|>"
    assert not {eot, im_end, eot_id} & set(chat.encode(text))
    assert chat.decode(chat.encode(text)) == text
    # An id without a token is no end of anything; that of an ordinary token is one, as in transformers.
    write_json(tmp_path / "generation_config.json", eos_token_id=[None, "a", -1, 2**40, 50256])
    write_json(tmp_path / "config.json", eos_token_id=50256)
    assert Tokenizer.load(tmp_path).ends == (eot_id,)
    write_json(tmp_path / "config.json", eos_token_id=[198, eot_id])
    assert (Tokenizer.load(tmp_path).ends, Tokenizer.load(tmp_path).eot) == ((198, eot_id), eot_id)
    for file in tmp_path.glob("*config.json"):  # as Notepad writes a file
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Tokenizer.load(tmp_path).ends == (198, eot_id)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
        Tokenizer.load(tmp_path)


def test_vocab_json_and_merges_txt_are_a_tokenizer(tmp_path: Path) -> None:
    gpt2 = Tokenizer.load("gpt2")
    model = json.loads(gpt2.backend.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"] | {"<|endoftext|>": gpt2.eot}))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.sha256 == gpt2.sha256
    assert loaded.encode("the naïve cat's 12 hats") == gpt2.encode("the naïve cat's 12 hats")
    (tmp_path / "merges.txt").write_text("x y z")
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt beside it are not a BPE"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "given", [{"add_bos_token": True}, {"add_prefix_space": True}, {"add_bos_token": True, "bos_token": "<s>"}]
)
def test_a_vocabulary_puts_in_front_of_a_text_what_transformers_does(
    given: dict, trained: Tokenizer, tmp_path: Path
) -> None:
    model = json.loads(trained.backend.to_str())["model"]
    vocabulary = model["vocab"] | {"<|endoftext|>": trained.eot, "<s>": trained.eot + 1}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", **given)
    expected = AutoTokenizer.from_pretrained(tmp_path)("the end").input_ids
    assert expected != trained.encode("the end")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_prompt("the end") == expected
    (tmp_path / "copy").mkdir()
    loaded.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").encode_prompt("the end") == expected
    assert AutoTokenizer.from_pretrained(tmp_path / "copy")("the end").input_ids == expected


def test_a_vocabulary_is_read_as_its_class_splits_a_text_or_not_at_all(trained: Tokenizer, tmp_path: Path) -> None:
    model = json.loads(trained.backend.to_str())["model"]
    write_json(tmp_path / "vocab.json", **model["vocab"] | {"<|endoftext|>": trained.eot})
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    for file in ("config.json", "tokenizer_config.json"):
        write_json(tmp_path / file, tokenizer_class="Qwen2Tokenizer")
        with pytest.raises(ValueError, match=r"class is 'Qwen2Tokenizer'.*transformers makes a tokenizer\.json"):
            Tokenizer.load(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="GPTNeoXTokenizer")
    assert Tokenizer.load(tmp_path).encode("nai\u0308ve") == trained.encode("na\u00efve")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", [["x"], {"content": ["x"]}, 5], ids=repr)
def test_a_name_that_is_no_text_is_one_sentence(token, file: str, trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    write_json(tmp_path / file, eos_token=token)
    with pytest.raises(ValueError, match=r"eos_token is .*; it must be the text of a token"):
        Tokenizer.load(tmp_path)


def test_a_file_that_is_not_there_itself_is_said(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*; a vocab\.txt is not read; name"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"tokenizer\.json is a pointer of Git LFS, .*`git lfs pull`"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("space", [None, False, True])
@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "GPTNeoXTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("own", [False, True])
def test_a_class_that_decides_on_the_space_in_front_is_followed(
    space: bool | None, kind: str, own: bool, trained: Tokenizer, tmp_path: Path
) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=own)
    backend.save(str(tmp_path / "tokenizer.json"))
    given = {} if space is None else {"add_prefix_space": space}
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class=kind, eos_token="<|endoftext|>", **given)
    ids = Tokenizer.load(tmp_path).encode("the end")
    if space is None:  # what tokenizer.json says counts
        assert ids == backend.encode("the end").ids
    else:
        assert ids == AutoTokenizer.from_pretrained(tmp_path)("the end").input_ids


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("own", ["first", "always", "never", "Llama 2's", None])
def test_llamas_class_decides_on_the_space_in_front(kind: str, given: bool, own: str | None, tmp_path: Path) -> None:
    tokenizer = spaced_tokenizer(own or "never")
    if own is None:
        tokenizer.backend.pre_tokenizer, tokenizer.backend.normalizer = None, normalizers.Replace(" ", "▁")
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class=kind, add_prefix_space=given, **names)
    write_json(tmp_path / "config.json", model_type="llama", eos_token_id=2)
    expected = AutoTokenizer.from_pretrained(tmp_path)("ab c").input_ids
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_prompt("ab c") == expected
    assert loaded.decode(expected) == "ab c"
    loaded.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode_prompt("ab c") == expected


@pytest.mark.parametrize("decoder", [False, True])
def test_tokens_in_files_beside_a_vocabulary_are_those_of_transformers(
    trained: Tokenizer, decoder: bool, tmp_path: Path
) -> None:
    model = json.loads(trained.backend.to_str())["model"]
    merges = ["#version: 0.2", *(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])]
    eot = trained.eot
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"] | {"<|endoftext|>": eot}))
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    added = {"<|im_start|>": eot + 1, "<|im_end|>": eot + 2}
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": {"content": "<|im_end|>"}}
    if decoder:
        settings["added_tokens_decoder"] = {
            str(id): {"content": token, "special": False} for token, id in added.items()
        }
    else:
        write_json(tmp_path / "added_tokens.json", **added)
    write_json(tmp_path / "tokenizer_config.json", **settings)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.ends) == (eot + 3, (eot + 2,))
    assert tokenizer.encode("a<|im_start|>b") == [64, eot + 1, 65]
    assert eot + 2 not in tokenizer.encode("<|im_end|>")
    write_json(tmp_path / "added_tokens.json", **{"<|far|>": eot + 9})
    with pytest.raises(ValueError, match=f"give '<|far|>' the id {eot + 9}".replace("|", r"\|")):
        Tokenizer.load(tmp_path)


MARK = {"content": "<|turn|>", "special": True}


@pytest.mark.parametrize(
    "beside",
    [
        {"bos_token": "<|turn|>"},
        {"image_token": MARK | {"__type": "AddedToken"}},
        {"additional_special_tokens": ["<|turn|>"]},
        {"extra_special_tokens": ["<|turn|>"]},
        {"extra_special_tokens": {"image_token": "<|turn|>"}},
        {"added_tokens_decoder": {"260": MARK}},
    ],
    ids=str,
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_token_that_a_file_beside_calls_special_is_one(
    plain: bool, beside: dict, trained: Tokenizer, tmp_path: Path
) -> None:
    values = json.loads(trained.backend.to_str())
    mark = trained.eot + 1
    if plain:
        values["model"]["vocab"] |= {"<|endoftext|>": trained.eot, "<|turn|>": mark}
    backend = tokenizers.Tokenizer.from_str(json.dumps(values))
    backend.add_tokens(["<|turn|>"][plain:])
    backend.save(str(tmp_path / "tokenizer.json"))
    beside = json.loads(json.dumps(beside).replace('"260"', f'"{mark}"'))
    template = "<|turn|>{{ messages[0].content }}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "chat_template": template}
    write_json(tmp_path / "tokenizer_config.json", **settings | beside)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    expected = reference.apply_chat_template([{"role": "user", "content": "the end"}], return_dict=False)
    tokenizer = Tokenizer.load(tmp_path)
    assert prompt_tokens(tokenizer, [{"role": "user", "content": "the end"}]) == expected
    assert expected[0] == mark
    assert prompt_tokens(tokenizer, [{"role": "user", "content": "<|turn|>"}]).count(mark) == 1
    assert tokenizer.decode(tokenizer.encode("a<|turn|>b")) == "a<|turn|>b"
    assert mark not in tokenizer.encode("a<|turn|>b") and tokenizer.token_bytes()[mark] == b""


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
def test_a_list_of_special_tokens_is_saved_for_every_version_of_transformers(
    key: str, trained: Tokenizer, tmp_path: Path
) -> None:
    trained.save(tmp_path)
    write_json(tmp_path / "added_tokens.json", **{"<|turn|>": trained.eot + 1})
    write_json(tmp_path / "special_tokens_map.json", **{key: [MARK]})
    (tmp_path / "copy").mkdir()
    Tokenizer.load(tmp_path).save(tmp_path / "copy")
    saved = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    # Version 4 fails where extra_special_tokens is a list, or where a token in a list is an object.
    assert saved["additional_special_tokens"] == ["<|turn|>"] and "extra_special_tokens" not in saved
    assert AutoTokenizer.from_pretrained(tmp_path / "copy").all_special_ids == [trained.eot, trained.eot + 1]


@pytest.mark.parametrize("space", [False, True])
def test_a_token_that_texts_are_made_of_stays_ordinary(space: bool, trained: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "tokenizer_config.json", pad_token="!", additional_special_tokens=["end"])
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the end!")) == "the end!"


@pytest.mark.parametrize(
    "value", ["<|turn|>", [5], [["<|turn|>"]], {"image_token": 5}, [{"content": "x", "lstrip": "y"}]], ids=str
)
def test_a_list_of_special_tokens_that_is_none_is_one_sentence(value, trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", extra_special_tokens=value)
    with pytest.raises(ValueError, match=r"extra_special_tokens of the files beside|not say which tokens are special"):
        Tokenizer.load(tmp_path)


def test_an_end_that_its_file_does_not_call_special_is_one(trained: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.add_tokens(["<|im_end|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "special_tokens_map.json", eos_token={"content": "<|im_end|>", "lstrip": False})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.ends == (trained.eot + 1,)
    assert trained.eot + 1 not in tokenizer.encode("a<|im_end|>")
    write_json(tmp_path / "config.json", eos_token_id=trained.eot)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.ends == (trained.eot,)
    (tmp_path / "copy").mkdir()
    tokenizer.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").ends == (trained.eot,)


@pytest.mark.parametrize("spelled_out", [False, True])
def test_thousands_of_added_tokens_take_no_time(spelled_out: bool, trained: Tokenizer, tmp_path: Path) -> None:
    names = [f"<|{number}|>" for number in range(4000)]
    model = json.loads(trained.backend.to_str())["model"]
    if spelled_out:
        write_json(tmp_path / "vocab.json", **model["vocab"] | {"<|endoftext|>": trained.eot})
        merges = ["#version: 0.2", *(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])]
        (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    else:
        backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
        backend.add_tokens([AddedToken(name, normalized=False) for name in names])
        backend.save(str(tmp_path / "tokenizer.json"))
    decoder = {
        str(id): {"content": name, "special": id % 2 == 0} for id, name in enumerate(names, start=trained.eot + 1)
    }
    write_json(tmp_path / "tokenizer_config.json", added_tokens_decoder=decoder)
    before = time.process_time()
    tokenizer = Tokenizer.load(tmp_path)
    assert time.process_time() - before < 2
    even, odd = (next(id for id in (trained.eot + 1, trained.eot + 2) if id % 2 == rest) for rest in (0, 1))
    assert tokenizer.vocab_size == trained.eot + 4001
    assert odd in tokenizer.encode(decoder[str(odd)]["content"])
    assert even not in tokenizer.encode(decoder[str(even)]["content"])


@pytest.mark.parametrize("alone", [False, True])
def test_of_several_chat_templates_the_default_is_used_and_the_others_are_named(
    alone: bool, trained: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.save(tmp_path)
    if alone:
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
        (tmp_path / "chat_template.jinja").write_text("plain")
    else:
        named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
        write_json(tmp_path / "tokenizer_config.json", chat_template=named)
    assert Tokenizer.load(tmp_path).chat_template == "plain"
    assert "left out: tool_use" in capsys.readouterr().err


@pytest.mark.parametrize(
    "template", [5, {"default": ["plain"]}, [{"name": ["default"]}], ["plain"], [{"name": "default", "template": 5}]]
)
def test_a_chat_template_that_is_no_text_is_one_sentence(template, trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", chat_template=template)
    with pytest.raises(ValueError, match=r"chat.template.* is .*; (it must be a text|each template must have)"):
        Tokenizer.load(tmp_path)
