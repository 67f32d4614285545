"""Checkpoints in mesh-transformer-jax's layout, written here from its description, come back as the same model."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTJConfig, GPTJForCausalLM

from bluejay.gpt.formats.layouts import load_model, open_model
from bluejay.gpt.formats.mesh_transformer import open_mesh_transformer

PIECES = 16
VOID = np.dtype("V2")


def hugging_face(seed=0, dtype=torch.float32, **fields):
    """A random GPT-J of transformers in which no weight is 0 or 1, all exact in `dtype`."""
    torch.manual_seed(seed)
    given = {"vocab_size": 96, "n_embd": 32, "n_head": 2, "n_layer": 2, "rotary_dim": 8, "n_positions": 64} | fields
    model = GPTJForCausalLM(GPTJConfig(**given, bos_token_id=0, eos_token_id=0)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # Multiples of 1/64 below 2: sums of a few of them are exact in bfloat16, too.
            weight.copy_(torch.randint(-64, 64, weight.shape) / 64)
    return model.to(dtype)


def shares(value, n_shards):
    """A vector as a sum of one per shard, each with bits of its own."""
    parts = [torch.full_like(value, (-1) ** i * (i // 2 + 1) / 64) for i in range(n_shards - 1)]
    return [*parts, value - sum(parts)] if parts else [value]


def tree(model, n_shards):
    """The parameters of each shard, by the names that haiku gives them."""
    # All that the shards add must be subtracted here: the embedding's bias lies in every row of transformers' matrix.
    theirs = {name: weight.detach().float() for name, weight in model.state_dict().items()}
    width = model.config.n_embd
    bias = torch.arange(width) % 8 / 64
    top = "causal_transformer_shard/~/"
    shards = [{} for _ in range(n_shards)]

    def put(module, parameter, parts):
        for shard, part in zip(shards, parts, strict=True):
            shard.setdefault(top + module, {})[parameter] = part

    def norm(module, name):
        # Only shard 0's copy counts.
        for parameter, kind in (("scale", "weight"), ("offset", "bias")):
            put(module, parameter, [theirs[f"{name}.{kind}"] + i for i in range(n_shards)])

    def by_output(module, name):
        put(module, "w", theirs[f"{name}.weight"].T.chunk(n_shards, 1))

    def by_input(module, name):
        put(module, "w", theirs[f"{name}.weight"].T.chunk(n_shards, 0))

    put("embedding_shard/~/linear", "w", (theirs["transformer.wte.weight"] - bias).chunk(n_shards))
    put("embedding_shard/~/linear", "b", shares(bias, n_shards))
    for layer in range(model.config.n_layer):
        ours, hf = f"layer_{layer}/~/", f"transformer.h.{layer}."
        by_output(ours + "linear", hf + "attn.q_proj")
        by_output(ours + "linear_1", hf + "attn.v_proj")
        by_output(ours + "linear_2", hf + "attn.k_proj")
        by_input(ours + "linear_3", hf + "attn.out_proj")
        by_output(ours + "linear_4", hf + "mlp.fc_in")
        put(ours + "linear_4", "b", theirs[hf + "mlp.fc_in.bias"].chunk(n_shards))
        by_input(ours + "linear_5", hf + "mlp.fc_out")
        put(ours + "linear_5", "b", shares(theirs[hf + "mlp.fc_out.bias"], n_shards))
        norm(ours + "replicated_layer_norm", hf + "ln_1")
    by_output("projection_shard/~/linear", "lm_head")
    put("projection_shard/~/linear", "b", theirs["lm_head.bias"].chunk(n_shards))
    norm("projection_shard/~/replicated_layer_norm", "transformer.ln_f")
    return shards


def leaves(node):
    """The leaves of nested dictionaries and tuples in JAX's order: keys sorted."""
    if isinstance(node, dict):
        return [leaf for key in sorted(node) for leaf in leaves(node[key])]
    if isinstance(node, tuple):
        return [leaf for part in node for leaf in leaves(part)]
    return [node]


def stored(leaf, dtype):
    """A leaf as NumPy has it when the file is written: bfloat16 as two bytes of no type."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    leaf = leaf.to(dtype).contiguous()
    return leaf.view(torch.int16).numpy().view(VOID) if dtype == torch.bfloat16 else leaf.numpy()


def write(model, step_dir: Path, n_shards, dtype=torch.float32, adam=False, config=True, pieces=PIECES):
    """A checkpoint as `write_ckpt` leaves it."""
    for number, params in enumerate(tree(model, n_shards)):
        state = {"params": params, "step": np.array(383500)}
        if adam:
            moment = {module: {name: leaf * 0 - 7 for name, leaf in inner.items()} for module, inner in params.items()}
            state["opt_state"] = ((), (), (np.array(5), moment, moment), (), (), (np.array(5),))
        flat = [stored(leaf, dtype) for leaf in leaves(state)]
        shard = step_dir / f"shard_{number}"
        shard.mkdir(parents=True)
        size, more = divmod(len(flat), pieces)
        for i in range(pieces):
            first, last = i * size + min(i, more), (i + 1) * size + min(i + 1, more)
            with (shard / f"{i}.npz").open("wb") as file:
                np.savez(file, *flat[first:last])
    if config:
        (step_dir / "config.json").write_text(model.config.to_json_string())
    return step_dir


def theirs_of(ours: str) -> str:
    """transformers' name of a weight of ours."""
    parts = {"embed": "transformer.wte", "norm": "transformer.ln_f", "head": "lm_head", "blocks": "transformer.h"}
    inner = {".attention.out": ".attn.out_proj", ".mlp.up": ".mlp.fc_in", ".mlp.down": ".mlp.fc_out", ".norm": ".ln_1"}
    inner |= {f".attention.{x}": f".attn.{x}_proj" for x in "qkv"}
    top, dot, rest = ours.partition(".")
    if top == "blocks":
        for mine, other in inner.items():
            rest = ("." + rest).replace(mine + ".", other + ".")[1:]
    return parts[top] + dot + rest


def same(model, loaded):
    """Whether all weights are equal, bit for bit, and as many."""
    theirs = model.state_dict()
    ours = loaded.state_dict()
    return len(ours) == len(theirs) and all(torch.equal(theirs[theirs_of(name)], ours[name]) for name in ours)


@pytest.mark.parametrize("adam", [False, True], ids=["slim", "full"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("n_shards", [1, 2, 8])
def test_weights_come_back_bit_for_bit(tmp_path, n_shards, dtype, adam):
    model = hugging_face(dtype=dtype)
    step = write(model, tmp_path / "step_9", n_shards, dtype, adam)
    opened = open_mesh_transformer(step)
    assert (opened.dtype, opened.n_bytes > 0) == (dtype, True)
    assert same(model, load_model(step))


@settings(max_examples=12, deadline=None)
@given(
    n_shards=st.sampled_from([1, 2, 3, 8]),
    n_head=st.integers(1, 3),
    n_layer=st.sampled_from([1, 2, 11]),
    rotary_dim=st.sampled_from([2, 8]),
    wide=st.sampled_from([None, 48]),
    pieces=st.sampled_from([1, 5, 16]),
    adam=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_logits_are_those_of_transformers(tmp_path_factory, n_shards, pieces, adam, wide, n_head, seed, **fields):
    shape = {"n_embd": 24 * n_head, "n_head": n_head, "vocab_size": 24 * 3, "n_inner": wide}
    model = hugging_face(seed, **fields, **shape)
    step = write(model, tmp_path_factory.mktemp("m") / "step_1", n_shards, adam=adam, pieces=pieces)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.25)  # random integers make logits of hundreds
    tokens = torch.randint(0, 72, (2, 17), generator=torch.Generator().manual_seed(seed))
    loaded = load_model(step)
    with torch.no_grad():
        for weight in loaded.parameters():
            weight.mul_(0.25)
        assert torch.allclose(loaded(tokens), model(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("adam", [False, True], ids=["slim", "full"])
def test_sizes_are_read_off_the_shapes_and_the_rest_is_gpt_js(tmp_path, adam):
    model = hugging_face(n_embd=512, n_head=2, rotary_dim=64, vocab_size=80, n_layer=3, n_inner=96)
    config = open_model(write(model, tmp_path / "step_1", 8, torch.bfloat16, adam, config=False)).config
    assert (config.n_layer, config.d_model, config.d_hidden, config.vocab_size) == (3, 512, 96, 80)
    assert (config.n_head, config.n_rotary, config.n_ctx) == (2, 64, 2048)


def test_biases_of_shards_are_summed_in_float32(tmp_path):
    model = hugging_face()
    step = write(model, tmp_path / "step_1", 8, torch.bfloat16)
    exact = sum(shares(model.state_dict()["transformer.h.0.mlp.fc_out.bias"], 8))
    assert torch.equal(load_model(step).blocks[0].mlp.down.bias, exact.bfloat16())


def test_a_model_directory_opens_its_newest_checkpoint(tmp_path):
    old, new = hugging_face(1), hugging_face(2)
    write(old, tmp_path / "step_900", 2)
    write(new, tmp_path / "step_1000", 2)
    meta = {"step": 1000, "checkpoints": [900, 1000], "aux": {"1000": {"train_loader": {"used": [], "file_idx": 3}}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert same(new, load_model(tmp_path))
    assert same(old, load_model(tmp_path / "step_900"))
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"checkpoints": [900, 1100]}))
    with pytest.raises(FileNotFoundError, match="step_1100 is missing"):
        open_model(tmp_path)


def test_the_tokenizer_is_gpt2s(tmp_path):
    tokenizer = open_model(write(hugging_face(), tmp_path / "step_1", 1)).tokenizer()
    assert tokenizer.encode("Hello world") == [15496, 995]


def test_only_the_array_that_is_asked_for_is_read(tmp_path):
    """Damage in one weight, or anywhere in the optimizer's state, does not keep the others from being read."""
    model = hugging_face()
    step = write(model, tmp_path / "step_1", 2, adam=True, pieces=3)
    (step / "shard_1" / "0.npz").write_bytes(flipped(step / "shard_1" / "0.npz", at=700))
    assert same(model, load_model(step))


def flipped(file: Path, at: int) -> bytes:
    """The bytes of a file with one bit changed."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    return bytes(data)


def arrays(file: Path) -> list[np.ndarray]:
    with np.load(file, allow_pickle=True) as opened:
        return [opened[name] for name in opened]


def rewrite(file: Path, change) -> None:
    """Change the arrays of a piece."""
    held = arrays(file)
    change(held)
    with file.open("wb") as out:
        np.savez(out, *held)


def swap(i, j):
    def change(held):
        held[i], held[j] = held[j], held[i]

    return change


def replace(i, array):
    def change(held):
        held[i] = array(held[i])

    return change


class Bomb:
    """A pickle that would leave a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def config_of_gpt2(step: Path) -> None:
    values = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 96, "n_positions": 64}
    (step / "config.json").write_text(json.dumps(values))


def without_config(step: Path) -> None:
    (step / "config.json").unlink()


def other_shapes(step: Path) -> None:
    """A configuration that agrees with the arrays in all but the vocabulary."""
    values = json.loads((step / "config.json").read_text())
    (step / "config.json").write_text(json.dumps(values | {"vocab_size": 100}))


def with_header(step: Path, header: bytes) -> None:
    """Give an array another header, in a sound archive."""
    file = step / "shard_1/0.npz"
    with zipfile.ZipFile(file) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held["arr_1.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)


# One piece a shard: array 0 is the embedding's bias, 1 its matrix, 2 to 11 are layer 0, 12 to 21 layer 1, 26 the step.
@pytest.mark.parametrize(
    ("shard", "change", "sentence"),
    [
        (1, swap(2, 5), r"arr_2 should be layer_0/linear/w, [32, 8]; it is [8, 32]"),
        (0, swap(6, 7), r"arr_6 should be layer_0/linear_4/b, [32]; it is [32, 32]"),
        (2, swap(12, 21), r"arr_12 should be layer_1/linear/w, [32, 8]; it is [32]"),
        (3, replace(1, lambda a: a[1:]), r"arr_1 should be embedding_shard/linear/w, [24, 32]; it is [23, 32]"),
        (3, replace(1, lambda a: a.astype(np.float64)), "arr_1 should be embedding_shard/linear/w, in bfloat16,"),
        (3, replace(1, lambda a: a.astype(np.float16)), "the same in all shards; it is of type <f2"),
        (0, lambda held: held.pop(4), "shard_0 holds 26 arrays; with 2 layers they are 10 x 2 + 7"),
        (0, swap(26, 0), "arr_26 should be the step, a single number; it is [32]"),
    ],
)
def test_an_array_in_the_wrong_place_is_named(tmp_path, shard, change, sentence):
    step = write(hugging_face(), tmp_path / "step_1", 4, pieces=1)
    rewrite(step / f"shard_{shard}" / "0.npz", change)
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        open_mesh_transformer(step)
    assert f"shard_{shard}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda step: shutil.rmtree(step / "shard_1"), r"shard_1 is missing; there are shard_0, shard_2, shard_3"),
        (lambda step: (step / "shard_1/2.npz").unlink(), r"shard_1/2\.npz is missing; there are"),
        (lambda step: (step / "shard_1/4.npz").unlink(), r"shard_1/4\.npz is missing; others have it"),
        (lambda step: [(step / f"shard_{i}/4.npz").unlink() for i in range(4)], "holds 22 arrays; with 2 layers"),
        (lambda step: [shutil.rmtree(shard) for shard in step.glob("shard_*")], "is not a checkpoint of mesh-"),
        (lambda step: os.truncate(step / "shard_1/2.npz", 900), r"shard_1/2\.npz is not a whole npz"),
        (lambda step: (step / "shard_1/2.npz").write_bytes(b""), r"shard_1/2\.npz is not a whole npz"),
        (lambda step: (step / "config.json").write_text("[1"), r"config\.json: "),
        (config_of_gpt2, r"config\.json describes a model whose weights are not GPT-J's"),
        (other_shapes, r"arr_1 should be embedding_shard/linear/w, \[25, 32\]; it is \[24, 32\]"),
        (without_config, "the width 32 is not a multiple of 256, the width of GPT-J's heads"),
        (lambda step: with_header(step, b"{'descr': '<f4', (\n"), r"shard_1/0\.npz: arr_1 cannot be read"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path, break_it, sentence):
    step = write(hugging_face(), tmp_path / "step_1", 4, pieces=5)
    break_it(step)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as raised:
        open_mesh_transformer(step)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", [True, False])
def test_a_missing_last_shard_is_noticed(tmp_path, config):
    model = hugging_face(n_embd=512, n_layer=1, vocab_size=7 * 8)
    step = write(model, tmp_path / "step_1", 8, config=config)
    shutil.rmtree(step / "shard_7")
    sentence = (
        r"arr_1 should be .*\[8, 512\]; it is \[7, 512\]"
        if config
        else "has 7 shards, but each of them holds 1/8 of a model"
    )
    with pytest.raises(ValueError, match=sentence):
        open_mesh_transformer(step)


def test_a_width_of_zero_is_named(tmp_path):
    step = write(hugging_face(n_embd=512, n_layer=1, vocab_size=56), tmp_path / "step_1", 2, config=False, pieces=1)
    for place in (2, 3):
        rewrite(step / "shard_0" / "0.npz", replace(place, lambda a: a[:, :0]))
    with pytest.raises(ValueError, match=r"arr_2 should be a matrix, given its position; it is \[512, 0\]"):
        open_mesh_transformer(step)


def test_a_changed_bit_in_a_weight_is_found(tmp_path):
    step = write(hugging_face(), tmp_path / "step_1", 4, pieces=1)
    file = step / "shard_2" / "0.npz"
    file.write_bytes(flipped(file, at=4000))
    with pytest.raises(ValueError, match=r"shard_2/0\.npz: arr_2 cannot be read: Bad CRC"):
        load_model(step)


@pytest.mark.parametrize("place", [0, 3, 26])
def test_a_pickle_is_not_executed(tmp_path, place):
    step = write(hugging_face(), tmp_path / "step_1", 4, pieces=1)
    touched = tmp_path / "touched"
    rewrite(step / "shard_1" / "0.npz", replace(place, lambda a: np.array([Bomb(touched)], dtype=object)))
    with pytest.raises(ValueError, match=rf"shard_1/0\.npz: arr_{place} cannot be read: it holds Python objects"):
        open_mesh_transformer(step)
    assert not touched.exists()
    arrays(step / "shard_1" / "0.npz")
    assert touched.exists(), "the pickle is one that does what it says"


@pytest.mark.slow
def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    """Reading 42 MB of weights, one after the other, takes little more room than the largest, 2.4 MB, and its parts."""
    step = write(hugging_face(n_embd=384, n_layer=6, vocab_size=96), tmp_path / "step_1", 8)
    program = """
import resource, sys
from pathlib import Path
from bluejay.gpt.formats.mesh_transformer import open_mesh_transformer
stored = open_mesh_transformer(Path(sys.argv[1]))
stored.read("norm.bias")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = sum(stored.read(f"blocks.{i}.{name}").nbytes for i in range(6) for name in (
    "attention.q.weight", "attention.k.weight", "attention.v.weight", "attention.out.weight", "mlp.up.weight",
    "mlp.down.weight"))
print(read, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(step)], capture_output=True, text=True, check=True)
    read, grown = map(int, done.stdout.split())
    assert read > 40e6
    assert grown < 12e6
