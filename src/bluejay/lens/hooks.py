"""Every activation of a model by TransformerLens's name, to read and to write, while `bluejay.gpt.model` runs.

A name stands for a place at one of the model's modules, so torch's own hooks of modules reach it, and nothing is there
while nobody looks: the model has no code for it and is no slower. Only attention holds what torch's kernel does not
give out (rotated queries, scores, patterns). There `ExplicitAttention` computes the layer, as the model's cache.

Shapes are those of `bluejay.gpt.model`, in TransformerLens's order: (B T D) for the residual stream, (B T N H) for
queries and z, (B T K H) for keys and values, (B N T H) and (B K T H) in the norms of queries and keys, (B N T S) for
scores and patterns, (B T F) for neurons.
"""

import difflib
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import cache, lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT, MLP, Block, Norm

Edit = Callable[[Tensor], Tensor]
"""A new activation from the one that the model computed, of the same shape."""
CHANGED_AT_ONCE = 8
"""Prompts that are run at once where each is changed at another position. What they begin with alike is computed once
(`Past`), and the fewer they are, the more that is."""
NORM = ("hook_scale", "hook_normalized", "hook_out")
HEAD_NORMS = ("attn.q_norm", "attn.k_norm")
IN_ATTENTION = ("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern")
"""What `ExplicitAttention` computes, since torch's kernel does not give it out."""


@cache
def block_names(config: GPTConfig) -> tuple[str, ...]:
    """The names within one block, in the order in which they are computed."""
    attention = ["attn.hook_q", "attn.hook_k", "attn.hook_v"]
    if config.qk_norm:
        attention += [f"{norm}.{name}" for norm in HEAD_NORMS for name in NORM]
    attention += IN_ATTENTION if config.rotary != "none" else IN_ATTENTION[2:]
    attention += ["attn.hook_z", "attn.hook_result", "hook_attn_out"]
    middle = [] if config.parallel else ["hook_resid_mid"]
    second = [f"ln2.{name}" for name in NORM] if config.n_norm == 2 else []
    mlp = ["mlp.hook_pre", *(["mlp.hook_pre_linear"] if config.gated else []), "mlp.hook_post", "hook_mlp_out"]
    first = [f"ln1.{name}" for name in NORM]
    return ("hook_resid_pre", *first, *attention, *middle, *second, *mlp, "hook_resid_post")


@cache
def hook_names(config: GPTConfig) -> tuple[str, ...]:
    """The names of all activations of a model, in the order in which they are computed."""
    positions = ["hook_pos_embed"] if config.learned_positions else []
    blocks = [f"blocks.{layer}.{name}" for layer in range(config.n_layer) for name in block_names(config)]
    return ("hook_embed", *positions, *blocks, *(f"ln_final.{name}" for name in NORM))


def expand(config: GPTConfig, names: Iterable[str]) -> list[str]:
    """The activations that are meant by names, or by one, in which * stands for anything: `blocks.*.attn.hook_pattern`.

    Raises ValueError for a name that no activation of this model has; the message says the nearest.
    """
    names = [names] if isinstance(names, str) else names
    return list(dict.fromkeys(one for name in names for one in meant(config, name)))


@lru_cache(4096)
def meant(config: GPTConfig, name: str) -> tuple[str, ...]:
    """The activations that are meant by one name. Raises as `expand`."""
    known = hook_names(config)
    fitting = [one for one in known if fnmatchcase(one, name)] if "*" in name else [name] * (name in known)
    if not fitting:
        raise ValueError(f"there is no hook {name!r}{reason(config, name)}")
    return tuple(fitting)


def reason(config: GPTConfig, name: str) -> str:
    """Why a model has no hook of a name, or which name is nearest."""
    if (layer := re.match(r"blocks\.(\d+)\.", name)) and int(layer[1]) >= config.n_layer:
        return f"; the layers of this model are 0 to {config.n_layer - 1}"
    if name.endswith("hook_resid_mid") and config.parallel:
        return "; attention and MLP of this model are parallel, so there is no residual stream between them"
    nearest = difflib.get_close_matches(name, hook_names(config), 1, cutoff=0.0)
    return f"; the nearest is {nearest[0]!r}"


class Visits:
    """What is to be read and written in one run, and what was read."""

    def __init__(self, config: GPTConfig, read: Iterable[str], write: Mapping[str, Edit]) -> None:
        self.read = set(expand(config, read))
        self.write: dict[str, list[Edit]] = {}
        for name, edit in write.items():
            for one in expand(config, name):
                self.write.setdefault(one, []).append(edit)
        self.found: dict[str, Tensor] = {}

    def wants(self, *names: str) -> bool:
        """Whether any of these activations is read or written."""
        return any(name in self.read or name in self.write for name in names)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The activation with which the model goes on; what is read is what was written, by each edit in turn."""
        for edit in self.write.get(name, ()):
            new = edit(value)
            if not isinstance(new, Tensor) or new.shape != value.shape:
                shape = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise ValueError(f"what is written to {name} has the shape {shape}, not {tuple(value.shape)}")
            value = new.to(value.dtype)
        if name in self.read:
            self.found[name] = value.clone() if self.write else value  # an edit may change a tensor in its place
        return value


class Past:
    """The first `n` tokens of a run, which other texts begin with too: their keys and values need not be computed
    again. The run must have the activations `Past.names`."""

    def __init__(self, config: GPTConfig, run: Mapping[str, Tensor], n: int) -> None:
        self.keys, self.run, self.n = keys_name(config), run, n

    @staticmethod
    def names(config: GPTConfig) -> tuple[str, str]:
        """The activations that a run must have to be continued."""
        return f"blocks.*.{keys_name(config)}", "blocks.*.attn.hook_v"

    def __call__(self, layer: int) -> tuple[Float[Tensor, "B n K H"], Float[Tensor, "B n K H"]]:
        """The rotated keys and the values of a layer."""
        k, v = (self.run[f"blocks.{layer}.{name}"][:, : self.n] for name in (self.keys, "attn.hook_v"))
        return k, v


def keys_name(config: GPTConfig) -> str:
    """Which activation of a block the keys are that queries are multiplied by."""
    return "attn.hook_k" if config.rotary == "none" else "attn.hook_rot_k"


class ExplicitAttention:
    """Attention of all layers in plain arithmetic, with scores and patterns; satisfies `bluejay.gpt.model.Cache`."""

    def __init__(self, config: GPTConfig, visits: Visits, past: Past | None = None) -> None:
        self.config, self.visits, self.past = config, visits, past
        self._masks: dict[bool, Float[Tensor, "1 GT S"]] = {}

    def attend(
        self, layer: int, q: Float[Tensor, "B N T H"], k: Float[Tensor, "B K T H"], v: Float[Tensor, "B K T H"]
    ) -> Float[Tensor, "B N T H"]:
        """The attention of rotated queries to rotated keys, and to those of earlier tokens, if there are any."""
        rotated, visit = self.config.rotary != "none", partial(in_block, self.visits, layer)
        if rotated:
            q = visit("attn.hook_rot_q", q.transpose(1, 2)).transpose(1, 2)
            k = visit("attn.hook_rot_k", k.transpose(1, 2)).transpose(1, 2)
        if self.past is not None:
            earlier = (x.transpose(1, 2).expand(len(q), -1, -1, -1) for x in self.past(layer))
            k, v = (torch.cat((one, new), 2) for one, new in zip(earlier, (k, v), strict=True))
        scores_name, pattern_name = (f"blocks.{layer}.{name}" for name in IN_ATTENTION[2:])
        if not self.visits.wants(scores_name, pattern_name):
            mask = attended_tokens(self.config, layer, k.shape[2], q.device)[-q.shape[2] :]
            grouped = self.config.kv_heads != self.config.n_head
            return F.scaled_dot_product_attention(q, k, v, mask, scale=self.config.scale, enable_gqa=grouped)
        shape, n_keys = q.shape, k.shape[2]
        q, k, v = (x.reshape(k.shape[0] * k.shape[1], -1, x.shape[-1]) for x in (q, k, v))  # heads of a group as one
        scores = torch.baddbmm(self.mask(layer, q, shape[2], n_keys), q, k.transpose(1, 2), alpha=self.config.scale)
        scores = self.visits(scores_name, scores.view(*shape[:3], n_keys))
        pattern = self.visits(pattern_name, scores.softmax(-1))
        return (pattern.reshape(*q.shape[:2], n_keys) @ v).view(shape)

    def mask(self, layer: int, q: Float[Tensor, "BK GT H"], n_queries: int, n_keys: int) -> Float[Tensor, "1 GT S"]:
        """What is added to the scores of a layer for the G query heads that share keys, one after the other: 0 where a
        token attends, minus infinity elsewhere."""
        local = layer in self.config.local_layers
        if local not in self._masks:
            attended = attended_tokens(self.config, layer, n_keys, q.device)[-n_queries:]
            added = torch.zeros(attended.shape, device=q.device).masked_fill_(~attended, float("-inf"))
            self._masks[local] = added.repeat(q.shape[1] // n_queries, 1)[None]
        return self._masks[local]


def attended_tokens(config: GPTConfig, layer: int, n_tokens: int, device: torch.device) -> Bool[Tensor, "T S"]:
    """Which tokens each token of a layer attends to."""
    mask = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).tril()
    return mask.triu(1 - (config.window or 0)) if layer in config.local_layers else mask


def in_block(visits: Visits, layer: int, name: str, value: Tensor) -> Tensor:
    """A visit of a block's activation."""
    return visits(f"blocks.{layer}.{name}", value)


@contextmanager
def hooked(gpt: GPT, visits: Visits, past: Past | None = None) -> Generator[ExplicitAttention | None]:
    """A context in which the model's modules call `visits`; yields the cache that the model is to be called with, where
    what it reads follows other tokens, if there are any."""
    with ExitStack() as stack:

        def before(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
            """Replace the first argument of a module by what `function` makes of it."""
            hook = module.register_forward_pre_hook(lambda _, inputs: (function(inputs[0]), *inputs[1:]))
            stack.callback(hook.remove)

        def after(module: nn.Module | None, *names: str, function: Callable[[Tensor], Tensor] | None = None) -> None:
            """Replace the result of a module by what `function`, or a visit, makes of it."""
            if module is not None and visits.wants(*names):
                apply = function or partial(visits, names[0])
                stack.callback(module.register_forward_hook(lambda _, __, result: apply(result)).remove)

        def norm(module: Norm | None, prefix: str) -> None:
            """The hooks of a norm."""
            names = [f"{prefix}.{name}" for name in NORM]
            if module is not None and visits.wants(*names):
                hook = module.register_forward_hook(partial(visit_norm, visits, names))
                stack.callback(hook.remove)

        after(gpt.embed, "hook_embed")
        after(gpt.position, "hook_pos_embed")
        for layer, block in enumerate(gpt.blocks):
            assert isinstance(block, Block)
            at = f"blocks.{layer}."

            def wants(name: str, at: str = at) -> bool:
                return visits.wants(at + name)

            visit = partial(in_block, visits, layer)
            heads = partial(visit_heads, visit, gpt.config.d_head)
            if wants("hook_resid_pre"):
                before(block, partial(visit, "hook_resid_pre"))
            norm(block.norm, at + "ln1")
            for name, matrix in zip("qkv", (block.attention.q, block.attention.k, block.attention.v), strict=True):
                after(matrix, f"{at}attn.hook_{name}", function=partial(heads, f"attn.hook_{name}"))
            for name, module in zip(HEAD_NORMS, (block.attention.q_norm, block.attention.k_norm), strict=True):
                norm(module, at + name)
            if wants("attn.hook_z"):
                before(block.attention.out, partial(heads, "attn.hook_z"))
            if wants("attn.hook_result"):
                hook = block.attention.out.register_forward_hook(partial(visit_result, visits, at, gpt.config.d_head))
                stack.callback(hook.remove)
            after(block.attention, at + "hook_attn_out")
            if not gpt.config.parallel and wants("hook_resid_mid"):
                assert block.mlp_norm is not None
                before(block.mlp_norm, partial(visit_in_place, partial(visit, "hook_resid_mid")))
            norm(block.mlp_norm, at + "ln2")
            mlp: MLP = block.mlp
            after(mlp.up if mlp.gate is None else mlp.gate, at + "mlp.hook_pre")
            after(None if mlp.gate is None else mlp.up, at + "mlp.hook_pre_linear")
            if wants("mlp.hook_post"):
                before(mlp.down, partial(visit, "mlp.hook_post"))
            after(mlp, at + "hook_mlp_out")
            after(block, at + "hook_resid_post")
        norm(gpt.norm, "ln_final")
        explicit = visits.wants(*(f"blocks.{i}.{name}" for i in range(gpt.config.n_layer) for name in IN_ATTENTION))
        yield ExplicitAttention(gpt.config, visits, past) if explicit or past is not None else None


def visit_heads(visit: Callable[[str, Tensor], Tensor], width: int, name: str, x: Tensor) -> Tensor:
    """A visit of heads that lie side by side."""
    return visit(name, x.unflatten(-1, (-1, width))).flatten(-2)


def visit_in_place(visit: Edit, x: Tensor) -> Tensor:
    """A visit of the residual stream between attention and MLP, to which the block adds the MLP's result later: what is
    written must be in the same tensor."""
    new = visit(x)
    return x if new is x else x.copy_(new)


def visit_result(visits: Visits, at: str, width: int, module: nn.Linear, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    """A visit of what each head adds to the residual stream, (B T N D)."""
    z, name = inputs[0].unflatten(-1, (-1, width)), f"{at}attn.hook_result"
    result = visits(name, torch.einsum("btnh,dnh->btnd", z, module.weight.unflatten(1, (-1, width))))
    if name not in visits.write:
        return out
    total = result.sum(2)
    return total if module.bias is None else total + module.bias


def visit_norm(visits: Visits, names: list[str], module: Norm, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    """A visit of a norm's scale (B T 1), of what it divides by that, and of its result. The model's kernel does all at
    once, so it is done here in steps where the first two are wanted."""
    (x,), (scale_name, normalized_name, out_name) = inputs, names
    visit = visits if x.ndim == 3 else partial(visit_heads_first, visits)
    if visits.wants(scale_name, normalized_name):
        centred = x if module.bias is None else x - x.mean(-1, keepdim=True)
        scale = visit(scale_name, (centred.square().mean(-1, keepdim=True) + module.eps).sqrt())
        normalized = visit(normalized_name, centred / scale)
        if visits.write.keys() & {scale_name, normalized_name}:
            out = normalized * module.weight if module.bias is None else normalized * module.weight + module.bias
    return visit(out_name, out)


def visit_heads_first(visits: Visits, name: str, x: Float[Tensor, "B T N H"]) -> Float[Tensor, "B T N H"]:
    """A visit of heads as (B N T H)."""
    return visits(name, x.transpose(1, 2)).transpose(1, 2)
