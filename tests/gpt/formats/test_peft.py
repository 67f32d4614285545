"""Adapters that we write work in peft, and those that peft writes work here: the same logits, merged or not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bluejay.cli import main
from bluejay.gpt.formats.layouts import convert, load_model, open_model, write_model
from bluejay.gpt.formats.peft import LowRank, merged, write_adapter
from bluejay.gpt.formats.tensors import tokenizer_of
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer
from tests.gpt.random_models import NO_TOKENS, random_model

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

FIELDS = {
    "gptj": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "rotary_dim": 8},
    "llama": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
    },
    "gpt_neox": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48},
    "gpt2": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64},
}
FIELDS |= {
    "mistral": FIELDS["llama"] | {"head_dim": 24, "sliding_window": 7},
    "qwen2": FIELDS["llama"] | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen3": FIELDS["llama"] | {"head_dim": 24},
}
TOKENS = torch.arange(40)[None] * 5 % 259


@pytest.fixture(scope="module", params=FIELDS)
def base(request, byte_tokenizer, tmp_path_factory) -> Path:
    """A model that transformers wrote, with a tokenizer beside it."""
    path = tmp_path_factory.mktemp(request.param) / "base"
    random_model(request.param, FIELDS[request.param] | {"vocab_size": 259} | NO_TOKENS, seed=3).save_pretrained(path)
    byte_tokenizer.save(path)
    return path


def random_adapter(path: Path, kinds: tuple[str, ...]) -> dict[str, LowRank]:
    """A low-rank update for some matrices of every block of a model."""
    generator = torch.Generator().manual_seed(5)
    adapter = {}
    for name, shape in weight_shapes(open_model(path).config).items():
        if name.startswith("blocks") and name.endswith(tuple(f".{kind}.weight" for kind in kinds)):
            a, b = (torch.randn(size, generator=generator) / 8 for size in ((3, shape[1]), (shape[0], 3)))
            adapter[name] = LowRank(a, b, 1.5)
    return adapter


@torch.no_grad()
def theirs(model) -> torch.Tensor:
    return model.eval()(TOKENS).logits


@torch.no_grad()
def ours(path: Path) -> torch.Tensor:
    return load_model(path)(TOKENS)


@pytest.mark.parametrize("kinds", [("q", "k", "v", "out", "gate", "up", "down"), ("q", "v"), ("out",)], ids=str)
def test_peft_makes_of_our_adapter_what_we_make_of_it(base, kinds, byte_tokenizer, tmp_path):
    stored, adapter = open_model(base), random_adapter(base, kinds)
    write_adapter(adapter, stored.config, byte_tokenizer, str(base), tmp_path / "adapter")
    expected = theirs(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter"))
    assert (expected - ours(base)).abs().max() > 0.1
    torch.testing.assert_close(ours(tmp_path / "adapter"), expected, atol=1e-4, rtol=1e-4)
    write_model(merged(stored, adapter), tmp_path / "merged")
    torch.testing.assert_close(
        theirs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_that_peft_made_is_read(base, rslora, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if module.__class__.__name__ == "Linear"}
    targets = sorted(names - {"lm_head", "embed_out"}) or ["c_attn", "c_proj"]
    settings = LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_rslora=rslora, init_lora_weights=False)
    settings.fan_in_fan_out = targets == ["c_attn", "c_proj"]
    settings.alpha_pattern = {targets[0]: 20}
    model = get_peft_model(model, settings)
    model.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    torch.testing.assert_close(ours(tmp_path / "adapter"), theirs(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("base", ["gptj", "llama", "gpt_neox"], indirect=True)
@pytest.mark.parametrize("kind", ["head", "bias", "module"])
def test_weights_that_an_adapter_holds_whole_replace_those_of_the_base(base, kind, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    targets = ["query_key_value"] if model.config.model_type == "gpt_neox" else ["q_proj", "v_proj"]
    head = next(name for name, _ in model.named_modules() if name in ("lm_head", "embed_out"))
    settings = LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, bias="all" if kind == "bias" else "none")
    settings.target_modules = [*targets, head] if kind == "head" else targets
    settings.modules_to_save = [head] if kind == "module" else None
    model = get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=kind == "head")
    torch.testing.assert_close(ours(tmp_path / "adapter"), theirs(model), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True:UserWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True but the target module:UserWarning")
@pytest.mark.filterwarnings("ignore:You have requested .ensure_weight_tying., but no tied modules:UserWarning")
@pytest.mark.parametrize("base", ["gpt2"], indirect=True)
def test_an_embedding_that_was_trained_alone_leaves_the_tied_head_as_it_was(base, tmp_path):
    def saved(name: str, **given) -> torch.Tensor:
        settings = LoraConfig(r=4, init_lora_weights=False, fan_in_fan_out=True, **given)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
        with torch.no_grad():
            for name_of, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_" not in name_of:
                    parameter += 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(tmp_path / name, save_embedding_layers=name == "copied")
        return theirs(model)

    expected = saved("own", target_modules=["c_attn"], modules_to_save=["wte"])
    torch.testing.assert_close(ours(tmp_path / "own"), expected, atol=1e-4, rtol=1e-4)
    convert(tmp_path / "own", tmp_path / "whole")
    torch.testing.assert_close(ours(tmp_path / "whole"), expected, atol=1e-4, rtol=1e-4)
    expected = saved("copied", target_modules=["c_attn"])
    torch.testing.assert_close(ours(tmp_path / "copied"), expected, atol=1e-4, rtol=1e-4)
    assert open_model(tmp_path / "copied").config.tied
    for whole, targets in ((["lm_head"], []), (["lm_head", "wte"], []), (None, ["lm_head"])):
        expected = saved("head", target_modules=["c_attn", *targets], modules_to_save=whole)
        torch.testing.assert_close(ours(tmp_path / "head"), expected, atol=1e-4, rtol=1e-4)
    # peft follows ensure_weight_tying only for modules that are called embed_tokens or lm_head
    expected = saved("asked", target_modules=["c_attn"], modules_to_save=["wte"], ensure_weight_tying=True)
    torch.testing.assert_close(ours(tmp_path / "asked"), expected, atol=1e-4, rtol=1e-4)
    saved("both", target_modules=["c_attn"], modules_to_save=["lm_head"], ensure_weight_tying=True)
    assert open_model(tmp_path / "both").config.tied


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to .True.:UserWarning")
@pytest.mark.parametrize(("base", "rows"), [("gptj", 264), ("gpt2", 250), ("llama", 264)], indirect=["base"])
def test_an_adapter_of_more_tokens_or_fewer_than_its_base_is_read_whole(base, rows, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(rows)
    kind = "c_attn" if model.config.model_type == "gpt2" else "q_proj"
    settings = LoraConfig(r=4, init_lora_weights=False, target_modules=[kind], fan_in_fan_out=kind == "c_attn")
    model, path = get_peft_model(model, settings), tmp_path / "adapter"
    model.save_pretrained(path)
    tokens = TOKENS % rows
    with torch.no_grad():
        expected = model.eval()(tokens).logits
        convert(path, tmp_path / "whole")
        for place in (path, tmp_path / "whole"):
            torch.testing.assert_close(load_model(place)(tokens), expected, atol=1e-4, rtol=1e-4)
    if rows > 259:
        own = Tokenizer.load(base)
        own.backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        own.save(path)
        assert tokenizer_of(open_model(path), path).vocab_size == 261
    if not model.config.tie_word_embeddings:
        tensors = load_file(path / "adapter_model.safetensors")
        del tensors["base_model.model.lm_head.weight"]
        save_file(tensors, path / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=f"an embedding of {rows} rows, where the model has 259, and no head"):
            open_model(path)


@pytest.mark.parametrize("base", ["gpt2"], indirect=True)
def test_an_adapter_of_the_bare_decoder_is_read(base, adapter):
    expected, file = ours(adapter), adapter / "adapter_model.safetensors"
    save_file({name.replace(".transformer.", "."): tensor for name, tensor in load_file(file).items()}, file)
    assert torch.equal(ours(adapter), expected)


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_an_adapter_in_a_torch_file_is_read(base, adapter):
    expected = ours(adapter)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert torch.equal(ours(adapter), expected)
    (adapter / "adapter_model.bin").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"adapter_model\.bin is not a whole file of tensors"):
        open_model(adapter)


@pytest.fixture
def adapter(base, byte_tokenizer, tmp_path) -> Path:
    path, config = tmp_path / "adapter", open_model(base).config
    write_adapter(random_adapter(base, ("q",)), config, byte_tokenizer, str(base), path)
    return path


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_an_adapter_directory_speaks_and_converts_like_a_model(adapter, tmp_path, capsys):
    main(["convert", str(adapter), str(tmp_path / "whole")])
    capsys.readouterr()
    texts = []
    for path in (adapter, tmp_path / "whole"):
        main(["generate", str(path), "the", "--max-tokens", "8", "--temperature", "0"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    torch.testing.assert_close(ours(adapter), ours(tmp_path / "whole"))


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_a_tokenizer_beside_an_adapter_is_used_and_kept(base, adapter, tmp_path):
    own = Tokenizer.load(base)
    own.backend.add_special_tokens(["[PAD]"])
    own.chat_template = "{{ messages[0].content }}?"
    own.save(adapter)
    (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
    convert(adapter, tmp_path / "whole")
    for path in (adapter, tmp_path / "whole"):
        stored = open_model(path)
        tokenizer = tokenizer_of(stored, path)
        assert (tokenizer.chat_template, tokenizer.vocab_size, stored.licence) == (own.chat_template, 259, "mit")
        assert (stored.tokenizer().vocab_size, tokenizer.ends) == (260, Tokenizer.load(base).ends)
    (adapter / "generation_config.json").write_text('{"eos_token_id": [65, 258]}')
    assert open_model(adapter).tokenizer().ends == (65, 258)
    Tokenizer.train(["some other words here"] * 9, 300).save(adapter)
    with pytest.raises(ValueError, match=r"adapter: the tokenizer has .* tokens, the model 259 rows"):
        open_model(adapter).tokenizer()


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_an_adapter_without_a_tokenizer_says_where_a_text_ends_and_how_to_chat(base, adapter):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()
    theirs = Tokenizer.load(base)
    found = open_model(adapter).tokenizer()
    assert (found.ends, found.chat_template) == (theirs.ends, theirs.chat_template)
    (adapter / "generation_config.json").write_text('{"eos_token_id": [65, 258]}')
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    found = open_model(adapter).tokenizer()
    assert (found.ends, found.chat_template) == ((65, 258), "{{ messages[0].content }}!")
    assert found.encode("the") == theirs.encode("the")
    for name, says in (("added_tokens.json", "no tokenizer at"), ("tokenizer.model", "is not a tokenizer.model")):
        (adapter / name).write_text("{}")
        with pytest.raises((FileNotFoundError, ValueError), match=says):
            open_model(adapter).tokenizer()


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_an_adapter_in_the_folder_of_its_base_is_merged_and_a_circle_is_refused(base, adapter, tmp_path):
    expected, both = ours(adapter), tmp_path / "both"
    shutil.copytree(base, both)
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    file, values = both / "adapter_config.json", json.loads((adapter / "adapter_config.json").read_text())
    file.write_text(json.dumps(values | {"base_model_name_or_path": str(both)}))
    assert torch.equal(ours(both), expected)
    for path, other in ((adapter, tmp_path / "b"), (tmp_path / "b", adapter)):
        path.mkdir(exist_ok=True)
        (path / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": str(other)}))
    with pytest.raises(ValueError, match="leads back to itself"):
        open_model(adapter)


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("peft_type", "PREFIX_TUNING", "bluejay reads LORA"),
        ("base_model_name_or_path", "/nowhere/base", "is an adapter of /nowhere/base, which is not here"),
        ("base_model_name_or_path", "owner/llama-bnb-4bit", "as it is quantised, name the model that it was made of"),
        ("base_model_name_or_path", None, "does not name the model that it adapts"),
        ("r", "many", "bluejay reads LORA"),
        ("alora_invocation_tokens", [1], "only some tokens switch on"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'"),
        ("init_lora_weights", "olora", "init_lora_weights is 'olora'"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights is 'pissa_niter_4'"),
        ("use_dora", True, "use_dora is True, which bluejay does not compute; peft's merge"),
        ("layer_replication", [[0, 2], [1, 2]], "layer_replication is"),
        ("a_key_of_tomorrow", 2, "a_key_of_tomorrow is 2"),
        ("lora_alpha", float("nan"), "bluejay reads LORA"),
        ("lora_alpha", 10**400, "bluejay reads LORA"),
        ("alpha_pattern", {"(": 3}, r"alpha_pattern has '\(', which is not a regular expression"),
        ("alpha_pattern", {"q_proj": None}, "alpha_pattern is .*; it must map names of modules to numbers"),
        ("alpha_pattern", {"q_proj": "x"}, "alpha_pattern is .*; it must map names of modules to numbers"),
        ("alpha_pattern", ["x"], "alpha_pattern is .*; it must map names of modules to numbers"),
        ("modules_to_save", "wte", "modules_to_save is 'wte'; it must be a list of names of modules"),
        ("rank_pattern", {"q_proj": 0}, "rank_pattern is .*; a rank is a whole number of at least 1"),
        ("rank_pattern", {"q_proj": 2}, r"q_proj\.lora_A\.weight has the rank 3; adapter_config\.json makes it 2"),
        ("r", 2, r"q_proj\.lora_A\.weight has the rank 3; adapter_config\.json makes it 2"),
    ],
)
def test_what_is_no_such_adapter_is_refused_in_one_line(adapter, key, value, says):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        open_model(adapter)


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"h.0.attn.q_proj.lora_A.weight": torch.ones(3, 32, dtype=torch.int8)}, r"lora_A\.weight holds torch\.int8"),
        ({"h.0.attn.q_proj.lora_A.weight": torch.ones(0, 32)}, "does not fit"),
        ({"ln_f.weight": torch.ones(32, dtype=torch.int64)}, r"ln_f\.weight holds torch\.int64"),
        (
            {"h.0.attn.k_proj.weight": torch.ones(32, 32), "h.0.attn.k_proj.base_layer.weight": torch.zeros(32, 32)},
            r"has two tensors for transformer\.h\.0\.attn\.k_proj\.weight, which differ",
        ),
    ],
)
def test_tensors_of_no_such_adapter_are_named(adapter, more, says):
    file = adapter / "adapter_model.safetensors"
    own = {f"base_model.model.transformer.{name}": tensor for name, tensor in more.items()}
    save_file(load_file(file) | own, file)
    with pytest.raises(ValueError, match=says):
        open_model(adapter)


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_an_adapter_of_another_model_is_refused(adapter, byte_tokenizer, tmp_path):
    other = tmp_path / "other"
    random_model("gptj", FIELDS["gptj"] | {"vocab_size": 259, "n_embd": 48} | NO_TOKENS, 0).save_pretrained(other)
    byte_tokenizer.save(other)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(ValueError, match="does not fit"):
        open_model(adapter)
    shutil.rmtree(other)
    random_model("gpt2", FIELDS["gpt2"] | {"vocab_size": 259} | NO_TOKENS, 0).save_pretrained(other)
    with pytest.raises(ValueError, match="does not update a matrix of the model"):
        open_model(adapter)
