"""Adapters learn what peft's learn, on bases of any precision, and leave the base alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, GPTJConfig, LlamaConfig

from bluejay.gpt.formats.layouts import load_model, open_model
from bluejay.gpt.formats.peft import write_adapter
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.train.lora import adapters, load_with_adapters
from bluejay.train.loss import head_loss
from bluejay.train.recipe import LoRA

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

COMMON = {"vocab_size": 259, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "gptj": GPTJConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64, rotary_dim=8, **COMMON),
    "llama": LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=32,
        intermediate_size=48,
        **COMMON,
    ),
}
PEFT_TARGETS = {
    "gptj": ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
CPU = torch.device("cpu")
TOKENS = torch.arange(82).view(2, 41) * 5 % 259


@pytest.fixture(scope="module", params=CONFIGS)
def base(request, byte_tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lora") / request.param
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(CONFIGS[request.param]).save_pretrained(path)
    byte_tokenizer.save(path)
    return path


def loss_of(model) -> torch.Tensor:
    hidden, targets = model.hidden(TOKENS[:, :-1]), TOKENS[:, 1:]
    return head_loss(hidden, *model.unembedding, targets, 1 / targets.numel())


def test_twenty_steps_lose_what_pefts_twenty_steps_lose(base, byte_tokenizer, tmp_path):
    settings = LoRA(rank=4, alpha=6.0)
    stored = open_model(base)
    ours = load_with_adapters(stored, settings, seed=1, device=CPU, dtype=torch.float32)
    names = adapters(dict(ours.named_parameters()), settings)
    write_adapter(names, ours.config, byte_tokenizer, str(base), tmp_path / "drawn")
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "drawn", is_trainable=True
    )
    optimizers = [
        torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
        for model in (ours, theirs)
    ]
    curves = [[], []]
    for _ in range(20):
        losses = loss_of(ours), theirs(TOKENS, labels=TOKENS).loss
        for loss, curve, optimizer in zip(losses, curves, optimizers, strict=True):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            curve.append(loss.item())
    assert curves[0][-1] < curves[0][0] - 0.3
    torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curves[1]), atol=0, rtol=1e-4)


def test_it_begins_as_the_base_and_draws_as_peft_does(base):
    model = load_with_adapters(open_model(base), LoRA(rank=8), seed=1, device=CPU, dtype=torch.float32)
    torch.testing.assert_close(model(TOKENS), load_model(base)(TOKENS))
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=8, target_modules=PEFT_TARGETS[base.name], task_type="CAUSAL_LM"),
    )
    ours = dict(model.named_parameters())
    shapes = sorted(tuple(weight.shape) for weight in theirs.parameters() if weight.requires_grad)
    assert sorted(tuple(weight.shape) for weight in ours.values()) == shapes
    spread = [weight.std().item() * weight.shape[1] ** 0.5 for name, weight in ours.items() if name.endswith(".a")]
    expected = [
        weight.std().item() * weight.shape[1] ** 0.5 for name, weight in theirs.named_parameters() if "lora_A" in name
    ]
    assert sum(spread) / len(spread) == pytest.approx(sum(expected) / len(expected), rel=0.05)


@pytest.mark.parametrize("format", ["q8", "q4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_over_a_packed_base_it_learns_what_it_learns_over_the_same_numbers_unpacked(base, format, dtype, tmp_path):
    write_quantized(open_model(base), tmp_path / "packed", QUANTISED[format])
    packed = open_model(tmp_path / "packed")
    settings = LoRA(rank=4)
    model = load_with_adapters(packed, settings, seed=1, device=CPU, dtype=dtype)
    assert sum(isinstance(module, PackedLinear) for module in model.modules()) == len(list(model.parameters())) // 2
    plain = load_with_adapters(dataclasses.replace(packed, packed=None), settings, seed=1, device=CPU, dtype=dtype)
    for each in (model, plain):
        loss_of(each).backward()
    for (name, ours), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, expected.grad)


def test_nothing_of_the_base_is_a_parameter_or_changes(base):
    stored = open_model(base)
    model = load_with_adapters(stored, LoRA(rank=2, targets=("q", "v")), seed=1, device=CPU, dtype=torch.float32)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name, _ in model.named_parameters()} == {"q", "v"}
    before = {name: value.clone() for name, value in model.named_buffers()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(weight.grad is not None for weight in model.parameters())


def test_adapters_trained_on_a_gpu_can_be_added_to_weights_in_main_memory():
    with FakeTensorMode():  # which knows devices without having them
        weights = {"q.a": torch.ones(2, 4, device="cuda"), "q.b": torch.ones(3, 2, device="cuda")}
        update = adapters(weights, LoRA(rank=2))["q.weight"]
        assert torch.addmm(torch.zeros(3, 4), update.b, update.a).device == CPU


@pytest.mark.parametrize("base", ["gptj"], indirect=True)
def test_a_target_that_the_model_lacks_is_named(base):
    with pytest.raises(ValueError, match=r"lora\.targets has gate; the matrices of the model's blocks are q"):
        load_with_adapters(open_model(base), LoRA(targets=("gate",)), 0, CPU, torch.float32)
