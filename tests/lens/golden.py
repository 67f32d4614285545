"""Writes data/*.safetensors: what TransformerLens finds in the models of `tests.lens.families`.

Run it where transformer-lens 4.3 is installed: `python -m tests.lens.golden`. The tests only read the files.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from bluejay.gpt.formats.layouts import save_model
from bluejay.lens.hooks import hook_names
from bluejay.tokenizer import Tokenizer
from tests.lens.families import FAMILIES, TOKENS, random_gpt

DATA = Path(__file__).with_name("data")


def main() -> None:
    """Write the activations of every family by the names that TransformerLens has."""
    from transformer_lens.model_bridge import TransformerBridge

    for name, config in FAMILIES.items():
        with tempfile.TemporaryDirectory() as directory:
            save_model(random_gpt(name), Tokenizer.train(["the the the cat"], vocab_size=259), Path(directory))
            bridge = TransformerBridge.boot_transformers(directory, dtype=torch.float32)
            with torch.no_grad():
                logits, cache = bridge.run_with_cache(torch.tensor([TOKENS]))
        found = {one: cache[one] for one in hook_names(config) if one in cache}
        for layer in range(config.n_layer):
            scores, pattern = f"blocks.{layer}.attn.hook_attn_scores", f"blocks.{layer}.attn.hook_pattern"
            if torch.equal(found[scores], found[pattern]):  # for GPT-J and GPT-Neo it gives out the pattern twice
                del found[scores]
        tensors = {one: value.contiguous().clone() for one, value in found.items()}
        save_file({"logits": logits, **tensors}, DATA / f"{name}.safetensors")
        print(f"{name}: {len(found)} activations; without {sorted(set(hook_names(config)) - set(found))}")


if __name__ == "__main__":
    main()
