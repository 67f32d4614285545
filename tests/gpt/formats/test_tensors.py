"""Files of tensors hold one tensor for each weight, of a kind that weights have; what else they hold is named."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from bluejay.cli import main
from bluejay.gpt.formats.layouts import open_model
from tests.gpt.formats.test_what_files_say import directory, ours, set_tensors


@pytest.mark.parametrize(
    ("family", "first", "second"),
    [
        ("gpt_neox", "embed_out.weight", "lm_head.weight"),
        ("gpt2", "transformer.wte.weight", "wte.weight"),
        ("llama", "model.norm.weight", "norm.weight"),
    ],
)
def test_two_tensors_for_one_weight_must_be_equal(family, first, second, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", family, byte_tokenizer)
    expected, weight = ours(path), load_file(path / "model.safetensors")[first]
    set_tensors(path, **{second: weight.clone()})
    assert torch.equal(ours(path), expected)
    set_tensors(path, **{second: -2 * weight})
    with pytest.raises(ValueError, match=f"model.safetensors has both {first} and {second}, which differ"):
        open_model(path)


def test_a_tensor_in_two_shards_must_be_equal(byte_tokenizer, tmp_path):
    path, name = directory(tmp_path / "m", "gpt2", byte_tokenizer), "transformer.ln_f.weight"
    expected, file = ours(path), path / "model.safetensors"
    first, second = (path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    shutil.move(file, first)
    tensors = load_file(first)
    save_file({name: tensors[name]}, second)
    places = dict.fromkeys(tensors, first.name) | {name: second.name}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert torch.equal(ours(path), expected)
    save_file({name: 2 * tensors[name]}, second)
    with pytest.raises(ValueError, match=rf"{second} and {first} both have {name}, and differ in it"):
        open_model(path)


def test_a_head_of_another_type_that_equals_the_embedding_is_tied(byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    table = load_file(path / "model.safetensors")["transformer.wte.weight"].bfloat16()
    set_tensors(path, **{"transformer.wte.weight": table.float(), "lm_head.weight": table})
    assert open_model(path).config.tied
    assert "differs" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({1: torch.ones(2)}, "does not hold named tensors"),
        ({"a": torch.ones(2).to_sparse()}, "a is sparse; bluejay reads dense tensors"),
        ({"a": torch.ones(2, device="meta")}, "a is on the meta device, without numbers; bluejay reads dense tensors"),
    ],
    ids=["key", "sparse", "meta"],
)
def test_what_is_no_dense_tensor_of_a_name_is_one_sentence(values, says, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    (path / "model.safetensors").unlink()
    torch.save(values, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"pytorch_model\.bin.* {says}"):
        open_model(path)


def test_a_type_of_safetensors_that_torch_lacks_is_one_sentence(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    file = path / "model.safetensors"
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    begin, _ = header["transformer.wpe.weight"]["data_offsets"]
    moved = {name: entry for name, entry in header.items() if name != "transformer.wpe.weight"}
    n_bytes = torch.Size(header["transformer.wpe.weight"]["shape"]).numel() * 6 // 8
    moved["transformer.wpe.weight"] = header["transformer.wpe.weight"] | {
        "dtype": "F6_E2M3",
        "data_offsets": [len(data), len(data) + n_bytes],
    }
    length = header["transformer.wpe.weight"]["data_offsets"][1] - begin
    for name, entry in moved.items():
        if name != "__metadata__" and entry["data_offsets"][0] > begin:
            entry["data_offsets"] = [offset - length for offset in entry["data_offsets"]]
    data = data[:begin] + data[begin + length :] + bytes(n_bytes)
    text = json.dumps(moved).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(ValueError, match=r"model\.safetensors: transformer\.wpe\.weight: "):
        open_model(path)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"]
)
def test_json_that_is_nested_too_deeply_is_one_sentence(name, byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    (path / name).write_text('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(SystemExit) as stopped:
        main(["generate", str(path), "a", "--max-tokens", "1"])
    assert stopped.value.code == 2 and name in capsys.readouterr().err
