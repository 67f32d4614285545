"""A GGUF file in several parts is one model, whichever part is named; a part that is missing or of another is named."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter

from bluejay.gpt.formats.gguf import open_gguf
from bluejay.gpt.formats.gguf_parts import part_names
from bluejay.gpt.formats.hub import wanted
from bluejay.gpt.formats.layouts import convert, load_model, open_model
from bluejay.push import model
from bluejay.train.data.content import hash_of_model
from tests.gpt.formats.test_gguf import FIELDS, NO_TOKENS, write_gguf
from tests.gpt.random_models import random_model

NAMES = [f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A model as the package of llama.cpp writes it in three parts."""
    (tmp_path / "parts").mkdir()
    write_gguf(tmp_path / "parts" / "m.gguf", random_model("qwen2", FIELDS["qwen2"] | NO_TOKENS, 0), split=10)
    found = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in found] == NAMES
    return found


def rewritten(path: Path, **fields: int) -> None:
    """An empty part with other fields in place of one."""
    writer = GGUFWriter(path, "qwen2")
    for name, value in fields.items():
        writer.add_uint16(f"split.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_every_part_and_its_folder_are_the_whole_model(parts, tmp_path):
    write_gguf(tmp_path / "whole.gguf", random_model("qwen2", FIELDS["qwen2"] | NO_TOKENS, 0))
    whole = load_model(tmp_path / "whole.gguf")
    for path in (*parts, parts[0].parent):
        again = load_model(path)
        assert again.config == whole.config
        assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in whole.state_dict().items())
    assert open_model(parts[1]).n_bytes == sum(path.stat().st_size for path in parts)


def test_all_parts_are_sent(parts):
    assert model(parts[1], "m").files.keys() == {*NAMES, "README.md"}


def test_a_part_is_not_overwritten_by_its_own_model(parts, byte_tokenizer):
    byte_tokenizer.save(parts[0].parent)
    for source in (parts[0], parts[0].parent):
        with pytest.raises(ValueError, match="name a new place"):
            convert(source, parts[2], overwrite=True)


def test_the_hash_of_a_model_counts_all_parts(parts):
    before = hash_of_model(str(parts[0]))
    assert hash_of_model(str(parts[1])) == before
    parts[2].write_bytes(parts[2].read_bytes() + b"0")
    assert hash_of_model(str(parts[0])) != before


def test_all_parts_of_the_only_model_are_pulled():
    assert wanted(NAMES[::-1]) == NAMES[::-1]
    assert wanted(["README.md", *NAMES[:2]]) == wanted([*NAMES, "other.gguf"]) == []


def test_a_missing_part_is_named(parts):
    parts[1].unlink()
    for path in (parts[0], parts[2], parts[0].parent):
        with pytest.raises(FileNotFoundError, match=r"m-00002-of-00003\.gguf is missing; m-0000.-.* is one of 3 parts"):
            open_model(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"m-00002-of-00003\.gguf does not say that it is part 2 of 3"),
        ({"no": 0, "count": 3}, r"m-00002-of-00003\.gguf does not say that it is part 2 of 3"),
        ({"no": 1, "count": 4}, r"m-00002-of-00003\.gguf does not say that it is part 2 of 3"),
        ({"no": 1, "count": 3}, r"is a part of a model of 26 tensors; all parts together have 16"),
    ],
)
def test_a_part_of_another_model_is_named(parts, fields, message):
    rewritten(parts[1], **fields)
    with pytest.raises(ValueError, match=message):
        open_gguf(parts[0])


def test_a_tensor_in_two_parts_is_named(parts):
    data = parts[2].read_bytes()
    parts[1].write_bytes(data.replace(b"split.no\x02\0\0\0\x02", b"split.no\x02\0\0\0\x01"))
    with pytest.raises(ValueError, match=r"m-00003-of-00003\.gguf has .*, which another part has, too"):
        open_gguf(parts[0])


def test_names_of_parts():
    assert part_names("a/Model-00002-of-00003.GGUF") == [f"a/Model-0000{number}-of-00003.GGUF" for number in (1, 2, 3)]
    for name in ("model.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-1-of-3.gguf"):
        assert part_names(name) == [name]
