"""A model to look into: it runs prompts, and keeps and changes the activations that are asked for."""

import operator
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.files import write_bytes
from bluejay.gpt.formats.layouts import open_model, read_model
from bluejay.gpt.model import GPT, Block
from bluejay.infer.model import Model
from bluejay.infer.prompts import check_readable, encode_prompts, is_id, read_prompts, shown
from bluejay.lens.hooks import Edit, Past, Visits, expand, hook_names, hooked
from bluejay.machine import free_memory
from bluejay.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, Tensor]):
    """The activations of one run, by TransformerLens's names, with the prompt's tokens and the model's logits."""

    tokens: Int[Tensor, "B T"]
    """The ids of the prompt's tokens, the one that begins a document included where the tokenizer has one."""
    logits: Float[Tensor, "B positions V"]
    """The logits of the token after each position, or after one alone."""
    found: dict[str, Tensor]
    """The activations that were asked for."""
    only: int | None = None
    """The position after which alone there are logits."""
    changed: bool = False
    """Whether it was run with `write` or `past`, so that another run on its tokens would be another one."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.found:
            raise KeyError(self.lacking(name))
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def after(self, position: int) -> Float[Tensor, " V"]:
        """The logits after a position of the first prompt."""
        assert self.only in (None, position)
        return self.logits[0, 0 if self.only is not None else position]

    def layers(self, name: str) -> Tensor:
        """An activation of all blocks in one tensor, the layer first: `layers("attn.hook_pattern")`. Raises ValueError
        if it was not read."""
        blocks = [(key.split(".", 2)[2], value) for key, value in self.found.items() if key.startswith("blocks.")]
        found = [value for key, value in blocks if key == name]
        if not found:
            raise ValueError(self.lacking(name))
        return torch.stack(found)

    def lacking(self, name: str) -> str:
        """The sentence about an activation that was not read."""
        some = [*list(self.found)[:3], *([f"{len(self.found) - 3} more"] if len(self.found) > 3 else [])]
        return f"this run has no {name}; it was read with {', '.join(some) or 'no names'}"

    def save(self, path: Path | str) -> None:
        """Write the tokens, the logits and all activations to a file of safetensors."""
        from safetensors.torch import save

        tensors = {"tokens": self.tokens, "logits": self.logits, **self.found}
        write_bytes(Path(path), save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}))


class Lens:
    """A model in float32 whose activations can be read and written, made by `Model.lens`.

    It has hooks of its own: the model's other users never see them. Weights in float32 are shared with the model,
    others are converted. One thread runs it at a time; others wait.
    """

    def __init__(self, model: Model) -> None:
        self.tokenizer: Tokenizer = model.tokenizer
        self.config = model.config
        self.name, self.path = model.name, model.path
        self.note = note_of(model)
        """How the numbers differ from those of the model where it generates; empty where they do not."""
        self.gpt = private_copy(float32_weights(model))
        self._lock = threading.RLock()
        self._texts: dict[int, str] = {}
        self._products: dict[int, tuple[int, Tensor]] = {}

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of all activations, in the order in which they are computed."""
        return hook_names(self.config)

    def __repr__(self) -> str:
        return f"<bluejay.Lens {self.name}: {self.config.n_layer} layers, {len(self.hooks):,} activations>"

    def tokens(self, prompts: Any) -> Int[Tensor, "B T"]:
        """The token ids of a prompt, which is a text or token ids, or of several that have equal lengths. Raises
        PromptError and its kinds, and ValueError for different lengths."""
        given, single = read_prompts(prompts)
        if not given:
            raise ValueError("there is no prompt")
        encoded = encode_prompts(self.tokenizer, given)
        check_readable(encoded, self.config.n_ctx, self.config.vocab_size, "the prompt" if single else "prompt {}")
        lengths = [len(ids) for ids in encoded]
        if len(set(lengths)) != 1:
            raise ValueError(f"the prompts have {' and '.join(map(str, lengths))} tokens; they must have equally many")
        return torch.tensor(encoded, device=self.gpt.embed.weight.device)

    def one(self, prompt: Any) -> Int[Tensor, "1 T"]:
        """The token ids of a single prompt. Raises ValueError for several, and as `tokens`."""
        require_one(len(read_prompts(prompt)[0]))
        return self.tokens(prompt)

    def tokens_of(self, prompt: Any) -> Int[Tensor, "1 T"]:
        """The token ids of a single prompt, or of a run of one. Raises as `one`."""
        if not isinstance(prompt, Activations):
            return self.one(prompt)
        require_one(len(prompt.tokens))
        return prompt.tokens

    @torch.no_grad()
    def run(
        self,
        prompts: Any,
        read: Iterable[str] = (),
        write: Mapping[str, Edit] | None = None,
        first_layer: int = 0,
        only: int | None = None,
        past: Past | None = None,
    ) -> Activations:
        """Run a prompt, or several of equal length, and keep the activations named by `read`. `write` gives functions
        that return, for an activation, the one that the model goes on with. In a name, * stands for anything.

        To save work, the layers before `first_layer` can be left out, where `write` gives its `hook_resid_pre` anyway,
        with `only` the logits are those after that position, (B 1 V), and with `past` the prompts are what follows the
        first tokens of another run.

        Raises ValueError for a name that the model does not have, and for what was written in another shape;
        PromptError and its kinds.
        """
        tokens = self.tokens(prompts)
        visits = Visits(self.config, read, write or {})
        n_past = 0 if past is None else past.n
        positions = torch.arange(n_past, n_past + tokens.shape[1], device=tokens.device).expand_as(tokens)
        with self._lock, hooked(self.gpt, visits, past) as attention, skipped(self.gpt.blocks[:first_layer]):
            hidden = self.gpt.hidden(tokens, positions=positions, cache=attention)
            at = None if only is None else self.position(only, tokens.shape[1])
            logits = self.gpt.logits(hidden if at is None else hidden[:, at : at + 1])
        found = {name: visits.found[name] for name in self.hooks if name in visits.found}
        return Activations(tokens, logits, found, at, bool(write) or past is not None)

    def read(self, prompt: Any, names: Iterable[str], only: int | None = None) -> Activations:
        """The activations named, of one prompt or of a run that has them already; with `only`, the logits after that
        position at least. Raises as `one`, and ValueError where a run lacks some and cannot be repeated."""
        tokens, wanted = self.tokens_of(prompt), expand(self.config, names)
        if isinstance(prompt, Activations):
            lacks = [name for name in wanted if name not in prompt]
            lacks += [] if prompt.only in (None, only) else ["logits after other positions"]
            if not lacks:
                return prompt
            if prompt.changed:
                message = f"this run was changed by write or past and lacks {lacks[0]}; read it in the same run"
                raise ValueError(message)
        return self.run(tokens, wanted, only=only)

    @contextmanager
    def writing(self, write: Mapping[str, Edit]) -> Generator[GPT]:
        """A context in which the model has changed activations for any caller. Other threads wait until it ends. Raises
        ValueError for scores and patterns of attention, and for a name that the model does not have."""
        with self._lock, hooked(self.gpt, Visits(self.config, (), write)) as attention:
            if attention is not None:
                raise ValueError("scores and patterns of attention can be written in a single run only")
            yield self.gpt

    @torch.no_grad()
    def head_products(self, layer: int) -> Float[Tensor, "N H H"]:
        """The products of the columns of each head's output matrix with each other. They are kept until the weight
        changes; all layers together are a small part of the weights (H / 12 D of them in GPT-J)."""
        block = self.gpt.blocks[layer]
        assert isinstance(block, Block)
        weight = block.attention.out.weight
        version, products = self._products.get(layer, (-1, weight))
        if version != weight._version:
            heads = weight.unflatten(1, (self.config.n_head, -1)).permute(1, 2, 0)  # (N H D)
            version, products = weight._version, heads @ heads.transpose(1, 2)
            self._products[layer] = version, products
        return products

    def layer(self, number: SupportsIndex) -> int:
        """A layer, counted from the end where it is negative. Raises ValueError if there is none."""
        number, n = integer(number, "a layer is an integer"), self.config.n_layer
        if not -n <= number < n:
            raise ValueError(f"there is no layer {number}; the layers of this model are 0 to {n - 1}")
        return number % n

    def head(self, number: SupportsIndex) -> int:
        """The number of a head. Raises ValueError if there is none."""
        number, last = integer(number, "a head is an integer"), self.config.n_head - 1
        if not 0 <= number <= last:
            raise ValueError(f"there is no head {number}; a layer of this model has the heads 0 to {last}")
        return number

    def neuron(self, number: SupportsIndex) -> int:
        """The number of a neuron. Raises ValueError if there is none."""
        number, last = integer(number, "a neuron is an integer"), self.config.d_hidden - 1
        if not 0 <= number <= last:
            raise ValueError(f"there is no neuron {number}; a layer of this model has the neurons 0 to {last}")
        return number

    def position(self, number: SupportsIndex, n_tokens: int) -> int:
        """A position in a prompt, counted from the end where it is negative. Raises ValueError if there is none."""
        return position_of(number, n_tokens)

    def token(self, token: Any) -> int:
        """The id of a token, which is an id or a text that is one token. Raises ValueError if there is none."""
        if not isinstance(token, str):
            number = integer(token, "a token is a text or an id")
            if not 0 <= number < self.config.vocab_size:
                raise ValueError(f"there is no token {number}; the model has {self.config.vocab_size:,}")
            return number
        ids = self.tokenizer.encode(token)
        if len(ids) != 1:
            pieces = ", ".join(repr(self.text(id)) for id in ids)
            raise ValueError(f"{token!r} is {len(ids)} tokens ({pieces}); name one token")
        return ids[0]

    def text(self, token: int) -> str:
        """The text of a token; an id without text is given in angle brackets."""
        if token not in self._texts:
            pieces = self.tokenizer.token_bytes()
            piece = pieces[token] if token < len(pieces) else b""
            self._texts[token] = piece.decode("utf-8", errors="replace") or f"<{token}>"
        return self._texts[token]

    def texts(self, tokens: Iterable[int]) -> list[str]:
        """The text of each token."""
        return [self.text(token) for token in tokens]


def integer(value: Any, rule: str) -> int:
    """An integer of Python, numpy or torch. Raises ValueError for anything else, with the rule that it breaks."""
    try:
        if is_id(value):
            return operator.index(value)
    except TypeError:  # a tensor or an array of another kind or size
        pass
    raise ValueError(f"{rule}, not {shown(value)}")


def position_of(number: SupportsIndex, n_tokens: int) -> int:
    """As `Lens.position`."""
    number = integer(number, "a position is an integer")
    if not -n_tokens <= number < n_tokens:
        raise ValueError(f"there is no position {number} in a prompt of {n_tokens} tokens")
    return number % n_tokens


def positions_of(number: SupportsIndex | None, n_tokens: int) -> slice:
    """One position in a prompt as a slice, or all of them. Raises as `Lens.position`."""
    if number is None:
        return slice(None)
    at = position_of(number, n_tokens)
    return slice(at, at + 1)


def require_one(n_prompts: int) -> None:
    """Raise ValueError unless there is a single prompt."""
    if n_prompts != 1:
        raise ValueError(f"one prompt is looked into at a time; there are {n_prompts}")


@contextmanager
def skipped(blocks: Iterable[nn.Module]) -> Generator[None]:
    """A context in which blocks return the residual stream as it is."""
    with ExitStack() as stack:
        for block in blocks:
            object.__setattr__(block, "forward", lambda x, *_: x)
            stack.callback(object.__delattr__, block, "forward")
        yield


def note_of(model: Model) -> str:
    """The sentence of `Lens.note`."""
    if model.is_native:
        engine = "the native engine"
    elif (dtype := model.gpt.embed.weight.dtype) != torch.float32:
        engine = f"torch in {str(dtype).removeprefix('torch.')}"
    else:
        return ""
    return f"these are the numbers of torch in float32; {engine}, which generates and serves, rounds differently"


def float32_weights(model: Model) -> GPT:
    """The weights of a model in float32. Raises ValueError where memory is too short, with the bytes that they need."""
    if isinstance(model.weights, GPT) and model.weights.embed.weight.dtype == torch.float32:
        return model.weights
    name, needed = model.name, 4 * model.config.n_parameters
    device = model.weights.embed.weight.device if isinstance(model.weights, GPT) else torch.device("cpu")
    if device.type == "cpu" and needed > (free := free_memory()):
        raise ValueError(
            f"looking into {name} needs its weights in float32, {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free"
        )
    if isinstance(model.weights, GPT):
        weights = {name: tensor.float() for name, tensor in model.weights.state_dict().items()}
        return with_weights(model.weights, weights)
    if model.path is None:
        raise ValueError(f"the weights of {model.name} are packed, and their file is not known; load it from a path")
    return read_model(open_model(model.path), device, torch.float32)


def private_copy(gpt: GPT) -> GPT:
    """The model with modules of its own that share the weights."""
    return with_weights(gpt, gpt.state_dict())


def with_weights(gpt: GPT, weights: Mapping[str, Tensor]) -> GPT:
    """A model of the same shape with these weights."""
    with torch.device("meta"):
        made = GPT(gpt.config)
    made.load_state_dict(weights, assign=True)
    return made.requires_grad_(False).eval()
