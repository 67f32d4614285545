"""Ids equal those of tiktoken and tokenizers; text cannot forge a boundary; what is saved loads as the same."""

import base64
import hashlib
import json
import sysconfig
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bluejay.gpt.formats.gguf_tokenizer import TEKKEN_PATTERN
from bluejay.tokenizer import Tokenizer

ASSET = resources.files("bluejay").joinpath("assets", "r50k_base.tiktoken").read_bytes()


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """Some of the standard library, a megabyte of it."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    return [text for text in texts if len(text) < 60_000][::4]


@pytest.fixture(scope="module")
def gpt2_reference(tiktoken_of) -> tiktoken.Encoding:
    lines = (line.split() for line in ASSET.splitlines())
    return tiktoken_of({base64.b64decode(token): int(rank) for token, rank in lines})


@pytest.fixture(scope="module")
def trained(corpus: list[str]) -> Tokenizer:
    return Tokenizer.train(corpus, 2000)


@pytest.fixture(scope="module")
def trained_reference(trained: Tokenizer, tiktoken_of) -> tiktoken.Encoding:
    """tiktoken with the trained tokens, whose ids are its ranks."""
    return tiktoken_of({token: id for id, token in enumerate(trained.token_bytes()[:-1])})


def test_the_asset_is_the_published_file() -> None:
    assert hashlib.sha256(ASSET).hexdigest() == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def test_gpt2_gives_tiktokens_ids_on_a_corpus(corpus: list[str], gpt2_reference: tiktoken.Encoding) -> None:
    gpt2 = Tokenizer.load("gpt2")
    assert (gpt2.vocab_size, gpt2.eot) == (50257, 50256)
    ids = gpt2.encode_batch(corpus)
    assert ids == gpt2_reference.encode_ordinary_batch(corpus, num_threads=2)
    assert [gpt2.decode(document) for document in ids] == corpus


def test_a_trained_one_gives_tiktokens_and_tokenizers_ids(
    corpus: list[str], trained: Tokenizer, trained_reference: tiktoken.Encoding, tmp_path: Path
) -> None:
    ids = trained.encode_batch(corpus)
    assert ids == trained_reference.encode_ordinary_batch(corpus, num_threads=2)
    assert ids == [trained.encode(text) for text in corpus]
    trained.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert ids == [encoding.ids for encoding in library.encode_batch(corpus)]


# Surrogates among the characters: they have no UTF-8, and must neither crash nor differ.
any_text = st.text(st.characters(codec=None), max_size=60) | st.text(
    " \t\n'aAs1!\u00a0\u3000é中😀\ud83d\ude00", max_size=40
)


@given(any_text)
@settings(max_examples=300, deadline=None)
def test_any_text_gives_tiktokens_ids(
    gpt2_reference: tiktoken.Encoding, trained: Tokenizer, trained_reference: tiktoken.Encoding, text: str
) -> None:
    for ours, reference in ((Tokenizer.load("gpt2"), gpt2_reference), (trained, trained_reference)):
        ids = ours.encode(text)
        assert ids == reference.encode_ordinary(text)
        assert ours.decode(ids) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(st.lists(st.integers(0, 50255), max_size=20))
@settings(deadline=None)
def test_any_ids_decode_as_tiktokens(gpt2_reference: tiktoken.Encoding, ids: list[int]) -> None:
    gpt2 = Tokenizer.load("gpt2")
    assert gpt2.decode(ids) == gpt2_reference.decode(ids, errors="replace")
    assert b"".join(gpt2.token_bytes()[id] for id in ids) == gpt2_reference.decode_bytes(ids)


def test_text_cannot_forge_a_document_boundary(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    for tokenizer in (Tokenizer.load("gpt2"), trained, Tokenizer.load(tmp_path)):
        text = "one<|endoftext|>two"
        assert tokenizer.eot not in tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode([tokenizer.eot, tokenizer.vocab_size + 100]) == ""
        assert tokenizer.token_bytes()[tokenizer.eot] == b""


def test_the_trained_vocabulary_is_laid_out_as_gpt2s(trained: Tokenizer, gpt2_reference: tiktoken.Encoding) -> None:
    assert (trained.vocab_size, trained.eot) == (2000, 1999)
    assert trained.token_bytes()[:256] == [gpt2_reference.decode_single_token_bytes(id) for id in range(256)]


def test_training_again_gives_the_same(corpus: list[str], trained: Tokenizer) -> None:
    again = Tokenizer.train(iter(corpus), 2000)
    assert again.sha256 == trained.sha256
    assert again.token_bytes() == trained.token_bytes()
    assert Tokenizer.train(corpus[:10], 2000).sha256 != trained.sha256


def test_a_small_text_gives_a_small_vocabulary() -> None:
    tiny = Tokenizer.train(["aaaa"], 300)
    assert tiny.vocab_size < 300
    assert tiny.eot == tiny.vocab_size - 1
    with pytest.raises(ValueError, match="vocab_size 256 is too small"):
        Tokenizer.train(["aaaa"], 256)


@pytest.mark.parametrize("name", [pytest.param("gpt2", marks=pytest.mark.slow), "trained"])
def test_what_is_saved_loads_here_and_in_transformers(
    name: str, trained: Tokenizer, corpus: list[str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = trained if name == "trained" else Tokenizer.load("gpt2")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gptj", "vocab_size": tokenizer.vocab_size}))
    for path in (tmp_path, str(tmp_path), tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.encode(corpus[0]) == tokenizer.encode(corpus[0])
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = corpus[0] + " 's  naïve 😀 ."
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.eot
    assert theirs.decode(tokenizer.encode(text)) == text
    # Transformers 4 would give token_type_ids, too, which GPT-J embeds like tokens and Llama does not take.
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["model_input_names"] == list(theirs("a")) == ["input_ids", "attention_mask"]


def test_bytes_for_which_there_is_no_token_are_said(
    trained: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], show_progress=False)
    backend.train_from_iterator(["all that a reader needs"], trainer)  # without an initial alphabet
    for name, tokenizer in (("whole", trained), ("partly", Tokenizer(backend))):
        tokenizer.save(tmp_path / name)
        text = "A reader needs é"
        kept = Tokenizer.load(tmp_path / name)
        assert (kept.decode(kept.encode(text)) == text) == (not kept.missing_bytes()) == (name == "whole")
    assert "no token for 233 of the 243 bytes that texts consist of (!" in (said := capsys.readouterr().err)
    assert "whole" not in said


def test_what_a_tokenizer_loses_of_texts_is_said(
    trained: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, normalizer, splits, keeps in (
        ("whole", normalizers.NFC(), step, None),
        ("lower", normalizers.Lowercase(), step, "an  a\\n\\tb c "),
        ("words", None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), step]), "Anabc"),
    ):
        trained.save(tmp_path / name)
        file = tmp_path / name / "tokenizer.json"
        backend = tokenizers.Tokenizer.from_file(str(file))
        backend.normalizer, backend.pre_tokenizer = normalizer, splits
        backend.save(str(file))
        Tokenizer.load(file)
        said = capsys.readouterr().err
        assert said == "" if keeps is None else f"{file}: it changes texts" in said and f"it keeps '{keeps}'" in said


def test_what_is_no_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="not a byte-level BPE"):
        Tokenizer.load(tmp_path)
    endless = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    endless.decoder = decoders.ByteLevel()
    endless.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"no <\|endoftext\|> token"):
        Tokenizer.load(tmp_path)
    panic = json.loads(Tokenizer.train(["the the"], 259).backend.to_str())
    panic["model"]["continuing_subword_prefix"] = "##"  # tokenizers panics
    (tmp_path / "tokenizer.json").write_text(json.dumps(panic))
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    absurd = json.loads(endless.to_str())
    absurd["model"]["vocab"] = {"a": 0, "<|endoftext|>": 4_000_000_000}
    (tmp_path / "tokenizer.json").write_text(json.dumps(absurd))
    with pytest.raises(ValueError, match="an id 4000000000, but only 2 tokens"):
        Tokenizer.load(tmp_path)


def write_json(path: Path, **values) -> None:
    path.write_text(json.dumps(values))


@pytest.fixture(scope="module", params=["normalizer", "metaspace"])
def llama(request, pieces: sentencepiece.SentencePieceProcessor, tmp_path_factory) -> Path:
    """The directory that Hugging Face's converters make of it, in the way of Llama 2 or the newer one."""
    score = pieces.get_score
    vocabulary = {pieces.id_to_piece(id): id for id in range(pieces.get_piece_size())}
    made = sorted((token for token in vocabulary if len(token) > 1), key=lambda token: -score(vocabulary[token]))
    cuts = ((token[:cut], token[cut:]) for token in made for cut in range(1, len(token)))
    merges = [pair for pair in cuts if vocabulary.keys() >= set(pair)]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    if request.param == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    path = tmp_path_factory.mktemp("llama")
    backend.save(str(path / "tokenizer.json"))
    write_json(path / "config.json", model_type="llama", eos_token_id=2)
    return path


def test_llamas_tokens_are_sentencepieces(llama: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = Tokenizer.load(llama)
    assert (tokenizer.begin, tokenizer.eot, tokenizer.vocab_size) == ([1], 2, 1000)
    table = tokenizer.token_bytes()
    assert table[:3] == [b"", b"", b""]
    assert table[3 : 3 + 256] == [bytes([byte]) for byte in range(256)]
    assert [table[id].decode() for id in range(259, 1000)] == [
        pieces.id_to_piece(id).replace("▁", " ") for id in range(259, 1000)
    ]

    drops_a_space = tokenizer.backend.pre_tokenizer is not None

    @given(st.text(" \t\nabcs19.é中😀", max_size=30).filter(lambda text: not (drops_a_space and text[:1] == " ")))
    @settings(deadline=None)
    def any_text_gives_their_ids(text):
        ids = tokenizer.encode(text)
        assert ids == pieces.encode(text)
        assert tokenizer.encode_prompt(text) == [1, *ids]
        assert tokenizer.decode([1, *ids]) == text == pieces.decode(ids)

    any_text_gives_their_ids()
    assert not {0, 1, 2} & set(tokenizer.encode("<s>a</s>"))
    assert tokenizer.decode(tokenizer.encode("<s>a</s>")) == "<s>a</s>"


def test_a_tokenizer_model_is_what_its_converters_make_of_it(llama, pieces, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces.serialized_model_proto())
    write_json(tmp_path / "config.json", model_type="llama", eos_token_id=2)
    theirs = Tokenizer.load(llama)
    if theirs.backend.pre_tokenizer is not None:
        write_json(tmp_path / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", legacy=False)
    read = Tokenizer.load(tmp_path)
    assert read.backend.to_str() == theirs.backend.to_str()
    assert (read.begin, read.ends) == ([1], (2,))
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", add_bos_token=False)
    assert Tokenizer.load(tmp_path).begin == []
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="XLNetTokenizer")
    with pytest.raises(ValueError, match="'XLNetTokenizer', which may split a text in another way than Llama"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (b"x", r"is not a tokenizer\.model of SentencePiece"),
        (b"\x12\x02\x18\x01", "is not a BPE that falls back on bytes"),  # of the kind unigram
        (b"\x12\x03\x98\x02\x00", "is not a BPE that falls back on bytes"),
        (b"\x1a\x02\x20\x01", "changes the characters of a text"),  # it takes away further spaces
        (b"\x1a\x03\x12\x01a", "changes the characters of a text"),  # it replaces characters
    ],
)
def test_a_tokenizer_model_of_another_kind_is_one_sentence(more: bytes, says: str, pieces, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces.serialized_model_proto() + more)
    with pytest.raises(ValueError, match=says):
        Tokenizer.load(tmp_path)


@pytest.fixture
def tekken(trained: Tokenizer) -> dict[str, Any]:
    """The contents of a `tekken.json`, which has more tokens than its models use."""
    tokens = [base64.b64encode(token).decode() for token in trained.token_bytes()[:-1]]
    vocabulary = [{"rank": rank, "token_bytes": token, "token_str": None} for rank, token in enumerate(tokens)]
    config = {"pattern": TEKKEN_PATTERN, "num_vocab_tokens": len(tokens), "version": "v3"}
    config |= {"default_vocab_size": 1524, "default_num_special_tokens": 24}
    return {"config": config, "vocab": vocabulary}


@pytest.mark.parametrize("listed", [False, True])
def test_a_tekken_json_is_what_mistral_encodes_by(listed: bool, tekken, corpus: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in tekken["vocab"][:1500]}
    if listed:
        names = "<unk>", "<s>", "</s>", "[INST]"
        tekken["special_tokens"] = [
            {"rank": id, "token_str": name, "is_control": True} for id, name in enumerate(names)
        ]
    write_json(tmp_path / "tekken.json", **tekken)
    reference = tiktoken.Encoding("tekken", pat_str=TEKKEN_PATTERN, mergeable_ranks=ranks, special_tokens={})
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.begin, tokenizer.ends, tokenizer.vocab_size) == ([1], (2,), 1524)
    texts = [*corpus[:3], "<s>don't [INST] CamelCase 12345 naïve 東京 😀\r\n  x</s>", ""]
    ids = [[24 + rank for rank in reference.encode_ordinary(text)] for text in texts]
    assert tokenizer.encode_batch(texts) == ids and list(map(tokenizer.decode, ids)) == texts
    assert tokenizer.backend.id_to_token(3) == "[INST]"
    assert tokenizer.backend.id_to_token(11) == ("<SPECIAL_11>" if listed else "<pad>")
    (tmp_path / "copy").mkdir()
    tokenizer.save(tmp_path / "copy")
    assert AutoTokenizer.from_pretrained(tmp_path / "copy")(texts[0]).input_ids == [1, *ids[0]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab": []}, "its tokens are not those that its config counts"),
        ({"special_tokens": [{"rank": 24, "token_str": "<unk>"}]}, "its tokens are not those that its config counts"),
        ({"special_tokens": [{"rank": 0, "token_str": "a"}]}, "it has a twice"),
        ({"config": {"default_vocab_size": 1524, "default_num_special_tokens": 24, "pattern": "("}}, "not a tekken"),
        ({"config": None}, r"is not a tekken\.json of Mistral"),
    ],
)
def test_a_damaged_tekken_json_is_one_sentence(changes: dict, says: str, tekken, tmp_path: Path) -> None:
    write_json(tmp_path / "tekken.json", **tekken | changes)
    with pytest.raises(ValueError, match=says):
        Tokenizer.load(tmp_path)


def test_llamas_tokenizer_is_saved_whole(llama: Path, tmp_path: Path) -> None:
    assert not Tokenizer.load(llama).missing_bytes()
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.load(llama)
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.sha256, again.begin, again.ends) == (tokenizer.sha256, [1], (2,))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("naïve  text 😀")["input_ids"] == tokenizer.encode_prompt("naïve  text 😀")
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (1, 2, 0)


def test_merges_are_never_left_out_by_chance(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["dropout"] = 1.0
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    assert Tokenizer.load(tmp_path).encode("the end of the cat") == trained.encode("the end of the cat")


def test_a_prompt_is_never_empty(trained: Tokenizer) -> None:
    assert trained.begin == []
    assert trained.encode_prompt("") == [trained.eot]
    assert trained.encode_prompt("a") == trained.encode("a")


def test_tokens_that_a_file_adds_keep_their_bytes(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(Tokenizer.load("gpt2").backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_tokens(["    ", "naïve"])
    tokenizer = Tokenizer(backend)
    assert tokenizer.vocab_size == 50259
    assert tokenizer.token_bytes()[50257:] == [b"    ", "naïve".encode()]
    assert tokenizer.decode(tokenizer.encode("a    naïve b")) == "a    naïve b"
    assert 50258 in tokenizer.encode("a    naïve b")


def test_an_added_token_of_pieces_is_decoded_as_pieces_are(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.load(llama)
    tokenizer.backend.add_tokens([AddedToken("▁qq", normalized=False), AddedToken("a▁▁q", normalized=False)])
    tokenizer = Tokenizer(tokenizer.backend, tokenizer.ends)
    tokenizer.save(tmp_path)
    ids = [*tokenizer.encode("a"), 1000, 1001]
    assert tokenizer.decode(ids) == AutoTokenizer.from_pretrained(tmp_path).decode(ids) == "a qqa  q"
