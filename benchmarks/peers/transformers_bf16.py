"""transformers in bfloat16."""

import sys

import torch
from timing import report
from transformers import GPTJConfig, GPTJForCausalLM


@torch.inference_mode()
def main() -> None:
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = GPTJForCausalLM(GPTJConfig(n_layer=int(sys.argv[2])))
    model = model.to_empty(device="cpu").eval()
    for weight in model.parameters():
        weight.copy_(torch.randint(-99, 99, weight.shape, dtype=torch.int8)).mul_(2e-4)
    for name, buffer in model.named_buffers():
        if "embed_positions" in name:
            buffer.copy_(torch.rand(buffer.shape))

    def decode(n: int) -> None:
        cache = None
        tokens = torch.arange(100, 104)[None]
        for i in range(n + 1):
            out = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, tokens = out.past_key_values, torch.tensor([[200 + i]])

    def prefill(n: int) -> None:
        model(torch.arange(n)[None], use_cache=True, logits_to_keep=1)

    report(decode, prefill)


if __name__ == "__main__":
    main()
