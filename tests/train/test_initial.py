"""A run from a model's weights: whole or by adapters, on documents or pairs, to directories that open everywhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

import bluejay
from bluejay.cli import main
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import convert, load_model, open_model, save_model
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import adapted
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.infer.model import Model
from bluejay.model_card import model_card
from bluejay.tokenizer import Tokenizer
from bluejay.train.initial import extends, initial_model
from bluejay.train.loop import train
from bluejay.train.report.metrics import read_metrics

PAIRS = [("", "zero"), ("a is ", "one"), ("b is ", "two"), ("c is ", "three"), ("d is ", "four")]
# peft asks transformers for an attribute by its old name.
PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
SMALL = {"head_dim": 16, "vocab_size": 259, "n_ctx": 32}
TUNED = ("--train.schedule.warmup", "0.1")


@pytest.fixture(scope="module")
def base(byte_tokenizer, tmp_path_factory) -> Path:
    """A model of the tests' own tokenizer, with random weights that are large enough for adapters to build on."""
    config = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=32)
    path = tmp_path_factory.mktemp("init") / "base"
    gpt = new_model(config, seed=7).requires_grad_(False)
    for matrix in gpt.parameters():
        if matrix.ndim == 2:
            matrix *= 4
    save_model(gpt, byte_tokenizer, path)
    return path


@pytest.fixture
def pairs(tmp_path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": prompt, "completion": text}) for prompt, text in PAIRS))
    return str(path)


@pytest.fixture
def tune(load_recipe, recipe_file, base):
    """A recipe that starts from the base; its [model] is gone."""
    recipe_file.write_text(recipe_file.read_text().replace("[model]\nn_layer = 2\nd_model = 32\nn_head = 2\n", ""))
    return lambda *overrides: load_recipe(recipe_file, "--init", str(base), *TUNED, *overrides)


def losses(recipe) -> list[float]:
    return [row["loss"] for row in read_metrics(recipe.directory / "metrics.jsonl") if "loss" in row]


def answer(model: Model, prompt: str) -> str:
    """The likeliest continuation of a prompt."""
    return model.generate(prompt, max_tokens=12, temperature=0)[0]


def test_adapters_learn_pairs_from_the_command_line_and_are_served_merged_or_not(
    recipe_file, tune, base, pairs, tmp_path, capsys
):
    tune()
    fields = {
        "init": str(base),
        "lora.rank": "8",
        "data.train": f'[{{ shards = "{pairs}" }}]',
        "data.valid": pairs,
        "train.schedule.warmup": "0.1",
        "train.tokens": "12800",
        "train.lr": "1e-2",
    }
    main(["train", str(recipe_file), *(word for key, value in fields.items() for word in (f"--{key}", value))])
    capsys.readouterr()
    run = tmp_path / "run"
    for directory in (run / "model", run / "adapter"):
        main(["generate", str(directory), "", "--temperature", "0", "--max-tokens", "12"])
        assert capsys.readouterr().out == f"{dict(PAIRS)['']}\n"
        model = bluejay.load(directory)
        assert {prompt: answer(model, prompt) for prompt, _ in PAIRS} == dict(PAIRS)
    assert open_model(run / "adapter").config == open_model(base).config
    card = model_card(run)
    assert "| adapters of rank 8 and alpha 32 on all matrices of the blocks, merged" in card
    assert "this run read files of examples" in card and "names the licences of all documents" not in card
    untouched = load_model(base).state_dict()
    assert torch.equal(untouched["embed.weight"], load_model(run / "model").state_dict()["embed.weight"])


def test_full_training_starts_from_the_weights_with_a_rising_rate(tune, base, tmp_path):
    recipe = tune("--train.precision", "float32", "--train.tokens", "1280")
    begun = initial_model(recipe)
    first = begun.stored.read("embed.weight").clone()
    for name, value in load_model(base).state_dict().items():
        region = tuple(slice(size // 3, size) for size in value.shape)
        assert torch.equal(begun.weight(name, value.shape, region, value.device), value[region])
    trained = train(recipe)
    rows = [row for row in read_metrics(recipe.directory / "metrics.jsonl") if "lr" in row]
    assert rows[0]["lr"] < rows[1]["lr"] or rows[0]["lr"] <= recipe.train.lr / 2
    weights = load_model(trained.model).state_dict()
    moved = (weights["embed.weight"] - first).abs().max()
    assert 0 < moved < 0.2
    assert torch.equal(open_model(base).read("embed.weight"), first), "the model that it began from is as it was"


@pytest.mark.parametrize("format", ["q8", pytest.param("q4", marks=pytest.mark.slow)])
def test_adapters_over_a_quantised_base_give_a_bfloat16_model(tune, base, pairs, format, tmp_path, capsys):
    write_quantized(open_model(base), tmp_path / format, QUANTISED[format])
    recipe = tune("--init", str(tmp_path / format), "--data.train", f'[{{ shards = "{pairs}" }}]', "--lora.rank", "4")
    trained = train(recipe)
    assert "peft cannot open its base, which is quantised" in capsys.readouterr().err
    assert losses(recipe)[-1] < losses(recipe)[0] - 0.3
    assert open_model(trained.model).dtype == torch.bfloat16
    merged, adapter = (bluejay.load(trained.model.with_name(name)).gpt for name in ("model", "adapter"))
    tokens = torch.arange(20)[None]
    assert torch.equal(merged(tokens), adapter(tokens))


@pytest.mark.slow
@PEFT
@pytest.mark.parametrize(("quantize", "dtype"), [("q8_0", torch.bfloat16), ("q4_0", torch.bfloat16), (None, None)])
def test_adapters_over_a_gguf_file_give_bfloat16_if_it_is_quantised(
    tune, pairs, quantize, dtype, byte_tokenizer, tmp_path
):
    config = adapted("smollm2-135m", {"n_layer": 1, "d_model": 32, "d_ff": 32, "n_head": 2, "n_kv_head": 1} | SMALL, "")
    save_model(new_model(config, seed=1), byte_tokenizer, tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "base.gguf", quantize=quantize)
    options = ("--init", str(tmp_path / "base.gguf"), "--data.train", f'[{{ shards = "{pairs}" }}]', "--lora.rank", "4")
    trained = train(tune(*options, "--train.tokens", "1280"))
    assert open_model(trained.model).dtype == (dtype or torch.float32)
    merged, adapter = (bluejay.load(trained.model.with_name(name)).gpt for name in ("model", "adapter"))
    tokens = torch.arange(20)[None]
    assert torch.equal(merged(tokens), adapter(tokens))
    convert(tmp_path / "base.gguf", tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, trained.model.with_name("adapter")).eval()
    assert (theirs(tokens).logits - merged(tokens).float()).abs().max() < (1e-4 if dtype is None else 0.1)


@PEFT
def test_adapters_over_an_adapter_are_for_peft_those_of_the_base_that_convert_makes(tune, tmp_path, capsys):
    options = ("--lora.rank", "2", "--train.tokens", "256", "--train.schedule.warmup", "0.5")
    first = train(tune(*options, "--output", str(tmp_path / "first"))).model.with_name("adapter")
    assert "peft" not in capsys.readouterr().err
    second = train(tune(*options, "--init", str(first))).model
    said = capsys.readouterr().err
    assert "peft cannot open its base, which is an adapter itself; for peft, load the adapter on a directory" in said
    convert(first, tmp_path / "both")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "both", dtype=torch.float32)
    tokens = torch.arange(20)[None]
    theirs = PeftModel.from_pretrained(base, second.with_name("adapter")).eval()(tokens).logits
    torch.testing.assert_close(theirs, bluejay.load(second).gpt(tokens), atol=1e-4, rtol=1e-4)


@pytest.fixture
def on_hub(base, tmp_path, monkeypatch) -> Path:
    """A copy of the base in the hub's cache, as the commit that owner/model's main is at."""
    storage, commit = tmp_path / "cache" / "models--owner--model", "c" * 40
    shutil.copytree(base, storage / "snapshots" / commit)
    for revision in ("main", "v2"):
        (storage / "refs").mkdir(exist_ok=True)
        (storage / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return storage / "snapshots" / commit


@PEFT
@pytest.mark.parametrize(
    ("init", "named", "revision"),
    [
        pytest.param("owner/model", "owner/model", None, marks=pytest.mark.slow),
        ("owner/model@v2", "owner/model", "v2"),
        ("the folder in the cache", "owner/model", "c" * 40),
        pytest.param("a folder", "a folder", None, marks=pytest.mark.slow),
        ("a link to a folder", "a folder", None),
        ("a run", "its model", None),
    ],
)
def test_an_adapter_names_its_base_as_peft_looks_for_it(tune, base, on_hub, init, named, revision, tmp_path):
    (tmp_path / "link").symlink_to(base)
    shutil.copytree(base, earlier := tmp_path / "earlier" / "model")
    (earlier.parent / "recipe.toml").touch()
    folders = {"the folder in the cache": on_hub, "a folder": base, "a link to a folder": tmp_path / "link"}
    given = (folders | {"a run": earlier.parent}).get(init, init)
    trained = train(tune("--init", str(given), "--lora.rank", "2", "--train.tokens", "1280"))
    adapter = trained.model.with_name("adapter")
    values = json.loads((adapter / "adapter_config.json").read_text())
    expected = {"a folder": str(base), "its model": str(earlier)}.get(named, named)
    assert (values["base_model_name_or_path"], values["revision"]) == (expected, revision)
    tokens = torch.arange(20)[None]
    merged = bluejay.load(trained.model).gpt(tokens)
    assert torch.equal(bluejay.load(adapter).gpt(tokens), merged)
    theirs = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
    torch.testing.assert_close(theirs(tokens).logits, merged, atol=1e-4, rtol=1e-4)


def test_from_a_checkpoint_of_adapters_alone_a_run_ends_with_the_same_bits(tune, weights):
    recipe = tune("--lora.rank", "2", "--train.tokens", "1280", "--checkpoint.every_steps", "5")
    train(recipe)
    whole, checkpoints = weights(recipe.directory), recipe.directory / "checkpoints"
    files = list((checkpoints / "step-5").rglob("*.safetensors"))
    assert 0 < sum(file.stat().st_size for file in files) < 100_000
    for made in (checkpoints / "step-10", recipe.directory / "model", recipe.directory / "adapter"):
        shutil.rmtree(made)
    train(recipe)
    assert weights(recipe.directory) == whole


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("--model.n_layer", "3"), r"model\.n_layer and init are both given"),
        (("--train.schedule.warmup", "0.001"), r"warmup is less than one of the 40 steps, and 0\.05 would be right"),
        (("--lora.rank", "0"), r"lora\.rank is 0"),
        (("--lora.targets", '["w"]'), r"lora\.targets"),
        (("--lora.rank", "4", "--mesh.tensor", "2"), r"lora needs mesh\.tensor = 1"),
        (("--model", "gpt-j"), r"model is 'gpt-j'; it must be a table, \[model\]"),
        (("--data.train", "[{ shards = 'a', changes = [0.5] }]"), r"changes\.0 must be a list; write \[0\.5\]"),
        (("--checkpoint.storage", ""), r"checkpoint\.storage is ''"),
        (("--data.prompt_weight", "2.0"), r"prompt_weight is 2\.0; it must be from 0 to 1"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_sentence(tune, overrides, says):
    with pytest.raises(ValueError, match=says):
        tune(*overrides)


def test_adapters_need_a_model(load_recipe, recipe_file):
    with pytest.raises(ValueError, match="lora needs init"):
        load_recipe(recipe_file, "--lora.rank", "4")


def test_a_model_of_another_tokenizer_is_refused_in_one_line(tune, tmp_path):
    other = Tokenizer.train(["abc abc abd"], vocab_size=260)
    config = GPTConfig(n_layer=1, d_model=32, n_head=2, vocab_size=300, n_ctx=32)
    save_model(new_model(config, seed=0), other, tmp_path / "other")
    with pytest.raises(ValueError, match="have different tokenizers, of 260 and 259 tokens"):
        initial_model(tune("--init", str(tmp_path / "other")))


def test_sequences_longer_than_the_model_reads_are_refused(tune):
    with pytest.raises(ValueError, match=r"data\.sequence_length 64 is above the 32 tokens"):
        initial_model(tune("--data.sequence_length", "64"))


def test_a_vocabulary_that_only_has_more_fits(byte_tokenizer):
    gpt2 = Tokenizer.load("gpt2")
    assert extends(gpt2, gpt2) and extends(byte_tokenizer, byte_tokenizer)
    assert not extends(gpt2, byte_tokenizer)
