"""A run learns what a plain loop over another implementation learns."""

import math

import torch
from transformers import GPTJForCausalLM

from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.loop import train
from bluejay.train.report.metrics import read_metrics

STEPS, PEAK = 100, 3e-3


def test_a_hundred_steps_follow_a_plain_loop_over_transformers(recipe_file, load_recipe, tmp_path):
    overrides = {
        "train.tokens": STEPS * 128,
        "train.lr": PEAK,
        "train.precision": "float32",
        "train.micro_batch_tokens": 64,  # theirs takes a batch whole
        "data.mask_documents": False,  # of which transformers knows nothing
        "evaluate.every_steps": STEPS,
        "checkpoint.every_steps": STEPS,
    }
    flags = [text for name, value in overrides.items() for text in (f"--{name}", str(value).lower())]
    recipe = load_recipe(recipe_file, *flags)
    train(recipe)
    ours = [row["loss"] for row in read_metrics(recipe.directory / "metrics.jsonl") if "loss" in row]

    tokenizer = Tokenizer.load(recipe.data.tokenizer_path)
    save_model(new_model(recipe.gpt_config(tokenizer.vocab_size), recipe.seed), tokenizer, tmp_path / "new")
    model = GPTJForCausalLM.from_pretrained(tmp_path / "new").train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    warmup = 0.01 * STEPS
    batches = Batches(open_sources(recipe.data, tokenizer), recipe.data.train, 4, recipe.seed, STEPS)
    for step in range(STEPS):
        batch = batches.batch(step)
        logits = model(batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2
        for group in optimizer.param_groups:
            group["lr"] = PEAK * ((step + 1) / (warmup + 1) if step < warmup else cosine)
        optimizer.step()
        optimizer.zero_grad()
        assert abs(loss.item() - ours[step]) < 1e-4, f"step {step}"
    assert ours[-1] < 0.5 < 5 < ours[0]  # the alphabet is learnt
