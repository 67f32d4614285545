"""The content of a run's inputs is known wherever they lie."""

import json
import shutil

import numpy as np
import pytest

from bluejay.train.data import content
from bluejay.train.data.content import hash_of_arrays, hash_of_file, hash_of_model


@pytest.mark.parametrize("whole_bytes", [2**30, 1000])
def test_a_file_is_known_by_its_content_and_not_by_its_name(whole_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(content, "BLOCK_BYTES", 64)
    data = bytes(range(256)) * 20
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    first = hash_of_file(tmp_path / "a")
    assert hash_of_file(tmp_path / "b") == first
    for position in (0, 2500, len(data) - 1):
        (tmp_path / "b").write_bytes(data[:position] + b"?" + data[position + 1 :])
        assert hash_of_file(tmp_path / "b") != first
    (tmp_path / "b").write_bytes(data + b"\0")
    assert hash_of_file(tmp_path / "b") != first


def test_arrays_are_known_by_their_numbers_and_where_one_ends():
    one, two = np.arange(6, dtype=np.int32), np.arange(3, dtype=np.int32)
    assert hash_of_arrays(one[:3], two) == hash_of_arrays(two, two)
    assert len({hash_of_arrays(one), hash_of_arrays(two, one[3:]), hash_of_arrays(one.astype(np.int64))}) == 3


def test_a_model_is_known_by_its_weights_and_its_configuration_and_an_adapter_by_its_base_too(tiny_model, tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"low rank")
    before = hash_of_model(str(base)), hash_of_model(str(adapter))
    (base / "README.md").write_text("a card")
    (base / "tuned_lens.safetensors").write_bytes(b"looks at the model")
    shutil.copytree(base, tmp_path / "copy")
    assert before == (hash_of_model(str(tmp_path / "copy")), hash_of_model(str(adapter)))
    (base / "model.safetensors").write_bytes(b"Weights")
    after = hash_of_model(str(base)), hash_of_model(str(adapter))
    assert before[0] != after[0] and before[1] != after[1]
    (base / "config.json").write_text('{"n_head": 2}')
    assert hash_of_model(str(base)) != after[0]


def test_what_is_written_below_or_beside_a_model_is_no_part_of_it(tmp_path):
    """A run whose output is below its `init`, an adapter in the folder of its base, a tuned lens."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    before = hash_of_model(str(tmp_path))
    run = tmp_path / "runs" / "adapter"
    run.mkdir(parents=True)
    shutil.copy(tmp_path / "adapter_config.json", run)
    for path in (run / "adapter_model.safetensors", tmp_path / "tuned_lens.safetensors"):
        path.write_bytes(b"others")
    assert hash_of_model(str(tmp_path)) == before


def test_all_shards_of_a_checkpoint_of_mesh_transformer_jax_are_a_part_of_it(tmp_path):
    (tmp_path / "meta.json").write_text('{"checkpoints": [3]}')
    shard = tmp_path / "step_3" / "shard_0" / "0.npz"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"weights")
    before = hash_of_model(str(tmp_path)), hash_of_model(str(tmp_path / "step_3"))
    shard.write_bytes(b"Weights")
    after = hash_of_model(str(tmp_path)), hash_of_model(str(tmp_path / "step_3"))
    assert before[0] != after[0] and before[1] != after[1]
