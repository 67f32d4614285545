"""TransformerLens 4.3 on a model's folder, for benchmarks/lens.py: `transformer_lens_peer.py FOLDER IDS...`.

It reads a line (`look`, `look everywhere`, `without`, `heads`), does what `bluejay.lens` does, and answers with the
seconds that it took and those of processors; the first line is that it is ready.
"""

import os
import sys
import time
import warnings
from functools import partial

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")
KEPT = ("hook_embed", "hook_pos_embed", "ln_final.hook_scale", "blocks.0.hook_resid_pre")
KEPT_IN_BLOCKS = ("hook_resid_post", "hook_mlp_out", "mlp.hook_post")
KEPT_OF_HEADS = ("attn.hook_z", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern")


def kept(name: str) -> bool:
    """Whether an activation is needed for a look."""
    return name in KEPT or name.split(".", 2)[-1] in (*KEPT_IN_BLOCKS, *KEPT_OF_HEADS, "hook_resid_pre")


@torch.no_grad()
def look(model, tokens: torch.Tensor, everywhere: bool = False) -> None:
    """The cache, the logit lens at the last or at all positions, value-weighted patterns, the attribution of the
    likeliest token."""
    logits, cache = model.run_with_cache(tokens, names_filter=kept)
    positions = None if everywhere else [-1]
    stream = cache.accumulated_resid(layer=-1, incl_mid=False, apply_ln=True, pos_slice=positions)[:, 0]
    final = logits[0, slice(None) if everywhere else slice(-1, None)].log_softmax(-1)
    said = final.argmax(-1)
    for place in stream:
        logprobs = (place @ model.W_U + model.b_U).log_softmax(-1)
        probability, ids = logprobs.max(-1)
        of_final = logprobs.gather(-1, said[:, None])
        rank = (logprobs > of_final).sum(-1)
        probabilities = logprobs.exp()
        entropy = -(probabilities * logprobs).sum(-1)
        kl = (final.exp() * (final - logprobs)).sum(-1)
        _ = ids.tolist(), probability.exp(), rank, entropy, kl
    heads = model.cfg.n_heads
    for layer in range(model.cfg.n_layers):
        v, pattern = cache[f"blocks.{layer}.attn.hook_v"][0], cache[f"blocks.{layer}.attn.hook_pattern"][0]
        out = model.blocks[layer].attn.W_O  # (N H D)
        lengths = (v.repeat_interleave(heads // v.shape[1], 1).transpose(0, 1) @ out).norm(dim=-1)
        _ = pattern * lengths[:, None]
    token = int(said[-1])
    mlps = cache.decompose_resid(layer=-1, mode="mlp", pos_slice=-1)
    heads_of_all = cache.stack_head_results(layer=-1, pos_slice=-1)
    for part in (mlps, heads_of_all):
        cache.logit_attrs(part, token, pos_slice=-1).tolist()
    direction = model.tokens_to_residual_directions(token)
    for layer in range(model.cfg.n_layers):  # neurons, without a vector of the stream for each
        _ = cache[f"blocks.{layer}.mlp.hook_post"][0, -1] * (model.blocks[layer].mlp.W_out @ direction)


@torch.no_grad()
def without(model, tokens: torch.Tensor) -> None:
    """The log-probability of the likeliest token without each token in turn."""
    own = torch.eye(tokens.shape[1], dtype=torch.bool)
    rows = tokens.repeat(tokens.shape[1], 1)[~own].view(tokens.shape[1], -1)
    for part in rows.split(32):
        model(part)[:, -1].log_softmax(-1)


@torch.no_grad()
def heads(model, tokens: torch.Tensor) -> None:
    """Patch each head in turn, a layer's heads as the rows of a batch."""
    corrupt = tokens.clone()
    corrupt[0, tokens.shape[1] // 2] = 5
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
    for name in names:

        def edit(z: torch.Tensor, hook: object, name: str = name) -> torch.Tensor:
            for row in range(len(z)):
                z[row, :, row] = cache[name][0, :, row]
            return z

        model.run_with_hooks(corrupt.expand(model.cfg.n_heads, -1), fwd_hooks=[(name, edit)])


def main() -> None:
    """Answer the lines of standard input."""
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = TransformerBridge.boot_transformers(sys.argv[1], dtype=torch.float32)
    tokens = torch.tensor([list(map(int, sys.argv[2:]))])
    work = {"look": look, "look everywhere": partial(look, everywhere=True), "without": without, "heads": heads}
    print("ready", flush=True)
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        work[line.strip()](model, tokens)
        print(time.perf_counter() - began, time.process_time() - used, flush=True)


if __name__ == "__main__":
    main()
