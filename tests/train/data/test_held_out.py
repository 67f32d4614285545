"""Held-out text is measured as a whole and by component, whatever the components' sizes."""

import json
import math
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bluejay.tokens import TokenWriter
from bluejay.train.data import packed_examples
from bluejay.train.data.batches import TrainBatch, check_files, open_sources
from bluejay.train.data.held_out import HeldOutText

TEXTS = [("Books", "a long, long story of the sea and of the ships on it. " * 12)] * 20 + [("Github", "x = 1\n" * 10)]
BITS = {"Books": 1.5, "Github": 0.5}
"""What a byte of each costs the model of this test."""


@pytest.fixture
def corpus(tmp_path, byte_tokenizer):
    rows = []
    with TokenWriter(tmp_path / "valid", byte_tokenizer.vocab_size) as shard:
        for component, text in TEXTS:
            offset, length = shard.add([*byte_tokenizer.encode(text), byte_tokenizer.eot])
            rows.append({"component": component, "shard": "valid", "offset": offset, "length": length})
    rows.append({"component": "OtherStage", "shard": "train", "offset": 0, "length": 7})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "documents.parquet")
    return tmp_path


@pytest.fixture
def nll(byte_tokenizer):
    """A model that pays for each byte what its kind of text costs; only Github has "x", "=", digits and line ends."""
    github = torch.tensor([token in byte_tokenizer.encode("x=1\n") for token in range(byte_tokenizer.vocab_size)])
    sizes = torch.tensor([float(len(piece)) for piece in byte_tokenizer.token_bytes()])

    def losses(batch: TrainBatch) -> torch.Tensor:
        bits = torch.where(github[batch.targets], BITS["Github"], BITS["Books"])
        return bits * math.log(2) * sizes[batch.targets]

    return losses


def test_each_component_has_its_own_figure_even_the_smallest_at_the_end_of_the_shards(corpus, byte_tokenizer, nll):
    held_out = HeldOutText(str(corpus / "valid"), 16, 400, byte_tokenizer).measure(nll)
    assert list(held_out.components) == ["Books", "Github"]
    assert held_out.components["Books"] == pytest.approx(1.5)
    # Spaces are in both kinds of text.
    assert 0.5 < held_out.components["Github"] < 0.9
    assert held_out.bits_per_byte == pytest.approx(1.5, abs=0.02)  # 99 % is Books


def test_the_whole_is_what_reading_all_of_the_shards_gives(corpus, byte_tokenizer, nll):
    every = HeldOutText(str(corpus / "valid"), 16, 10**6, byte_tokenizer).measure(nll)
    (corpus / "documents.parquet").unlink()
    plain = HeldOutText(str(corpus / "valid"), 16, 10**6, byte_tokenizer).measure(nll)
    assert plain.components == {}
    assert every.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-3)
    assert every.nats_per_token == pytest.approx(plain.nats_per_token, rel=1e-3)
    part = HeldOutText(str(corpus / "valid"), 16, 400, byte_tokenizer).measure(nll)
    assert part.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=0.02)


def test_no_more_tokens_are_read_than_wanted(corpus, byte_tokenizer):
    text = HeldOutText(str(corpus / "valid"), 16, 400, byte_tokenizer)
    assert text.batch.targets.numel() == 400
    assert text.batch.inputs.shape == (25, 16)
    assert torch.equal(text.batch.inputs.flatten()[1:], text.batch.targets.flatten()[:-1])


def test_a_table_of_another_build_is_refused(corpus, byte_tokenizer):
    table = pq.read_table(corpus / "documents.parquet")
    pq.write_table(table.slice(1), corpus / "documents.parquet")
    with pytest.raises(ValueError, match="different builds"):
        HeldOutText(str(corpus / "valid"), 16, 400, byte_tokenizer)


def test_too_little_text_is_one_sentence(corpus, byte_tokenizer):
    with pytest.raises(ValueError, match="too few tokens for one sequence of 100000"):
        HeldOutText(str(corpus / "valid"), 100_000, 400, byte_tokenizer)


def test_held_out_data_that_cannot_be_measured_are_one_sentence(tmp_path, byte_tokenizer):
    def shard(name: str, documents: list[list[int]], vocab_size: int) -> str:
        with TokenWriter(tmp_path / name, vocab_size) as writer:
            for ids in documents:
                writer.add(ids)
        return str(tmp_path / name)

    for name, documents, sentence in (
        ("big", [[1, 2, 3] * 9, [300]], "holds the token 300 and the vocabulary has 259; set data.tokenizer"),
        ("empty", [], "too few tokens for one sequence of 8, data.sequence_length"),
        ("ends", [[byte_tokenizer.eot]] * 40, "holds no text"),
    ):
        with pytest.raises(ValueError, match=sentence):
            HeldOutText(shard(name, documents, 400), 8, 400, byte_tokenizer)


def test_examples_that_are_trained_on_and_held_out_are_read_once(
    recipe_file, load_recipe, byte_tokenizer, tmp_path, monkeypatch
):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}"}) + "\n" for n in range(40)))
    recipe_file.write_text(recipe_file.read_text().replace("valid =", "chat_template ="))
    recipe_file.write_text(re.sub("(?m)^valid = .*$", "", recipe_file.read_text()))
    recipe = load_recipe(recipe_file, "--data.train", f'[{{shards = "{path}"}}]')
    apart = HeldOutText.of(recipe, byte_tokenizer)
    sources = open_sources(recipe.data, byte_tokenizer)
    monkeypatch.delattr(packed_examples, "encode_file")
    assert HeldOutText.of(recipe, byte_tokenizer, sources).content() == apart.content()


def test_what_cannot_be_a_set_is_said_with_what_would_be_one(recipe_file, load_recipe, tmp_path, capsys):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "data" / "train-00000-of-00001.parquet").touch()
    (saved := tmp_path / "saved").mkdir()
    (saved / "data-00000-of-00001.arrow").touch()
    shard = str(tmp_path / "tokens" / "train")
    for name, sentence in (
        (str(tmp_path), rf"is a folder; .* such as {shard}$"),
        (str(tmp_path / "hub"), r"is a folder; .* such as .*hub/data/train-00000-of-00001\.parquet$"),
        (".", r"^\. is a folder; name a token shard or a file of examples in it"),
        (str(saved), r"is a folder; load_from_disk\(.*saved'\)\.to_parquet\("),
        (shard + ".bin", rf"one of the two files of a token shard; name it {shard}$"),
        (str(tmp_path / "hub" / "*.parquet"), "a pattern names token shards, and each file of examples is a set"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            check_files(load_recipe(recipe_file, "--data.train", f'[{{shards = "{name}"}}]').data)
    check_files(load_recipe(recipe_file).data)
    assert f"{shard} is both trained on and data.valid" in capsys.readouterr().err
