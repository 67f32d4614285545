"""Steering: a direction of the residual stream that is added while the model reads and writes, and what that costs.

The direction is the mean difference of two sets of texts at one layer (Turner et al. 2023, arXiv 2308.10248; Rimsky et
al. 2023, arXiv 2312.06681, section 3). A strength of 1 adds the whole difference at every position. Whatever it gains,
it makes ordinary text less likely, so `steering_cost` says by how many bits per byte.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.gpt.model import GPT
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import check_prompt, encode_prompts, most_tokens
from bluejay.infer.shared_engine import Resident
from bluejay.lens.activations import Lens, private_copy
from bluejay.lens.hooks import Edit
from bluejay.notebook import page, table, visible
from bluejay.progress import progress
from bluejay.tokenizer import well_formed


@dataclass(frozen=True)
class Steering:
    """A direction to add to the residual stream before a layer."""

    layer: int
    """The layer before which the direction is added."""
    vector: Float[Tensor, " D"]
    """The direction: the mean of the first texts minus that of the second."""

    def write(self, strength: float) -> dict[str, Edit]:
        """What `Lens.run` and `Lens.writing` take, for a strength that multiplies the direction."""
        return {f"blocks.{self.layer}.hook_resid_pre": lambda x: x + strength * self.vector}


@torch.no_grad()
def steering_vector(model: Lens, texts: Sequence[str], against: Sequence[str], layer: SupportsIndex) -> Steering:
    """The direction from the second set of texts to the first at a layer: the difference of their means over all
    positions but the first, at which models keep a vector that is far larger than all others. Raises ValueError for an
    empty set, a text of one token, and a layer that is not there."""
    layer = model.layer(layer)
    texts, against = ([side] if isinstance(side, str) else side for side in (texts, against))
    if not texts or not against:
        raise ValueError("a direction needs texts on both sides; one side is empty")
    means = [torch.stack([mean_residual(model, text, layer) for text in side]).mean(0) for side in (texts, against)]
    return Steering(layer, means[0] - means[1])


def mean_residual(model: Lens, text: str, layer: int) -> Float[Tensor, " D"]:
    """The mean of a text's residual stream before a layer, without the first position. Raises ValueError for a text of
    one token."""
    name = f"blocks.{layer}.hook_resid_pre"
    residual = model.run(text, [name])[name][0]
    if len(residual) < 2:
        raise ValueError(f"the text {text!r} has one token; a direction is measured after the first")
    return residual[1:].mean(0)


def steered_model(model: Lens, steering: Steering, strength: float) -> GPT:
    """A model that shares the lens's weights and always adds the direction, so that any backend of torch runs it."""
    gpt, shift = private_copy(model.gpt), strength * steering.vector
    gpt.blocks[steering.layer].register_forward_pre_hook(lambda _, inputs: (inputs[0] + shift, *inputs[1:]))
    return gpt


@dataclass(frozen=True)
class Steered:
    """What a model writes at each strength of a steering, and what that costs on texts."""

    layer: int
    """The layer before which the direction is added."""
    strengths: list[float]
    """The strengths of the steering, which multiply the direction."""
    bits_per_byte: list[float]
    """The bits per byte of the texts at each strength."""
    written: list[str]
    """The continuation of the prompt at each strength, without sampling."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return dict(vars(self))

    def text(self) -> str:
        """A line for each strength."""
        rows = zip(self.strengths, self.bits_per_byte, self.written, strict=True)
        return "\n".join(f"{strength:+6.2f}  {bits:.3f} bits per byte  {text!r}" for strength, bits, text in rows)

    def _repr_html_(self) -> str:
        rows = [
            (f"{strength:g}", f"{bits:.3f}", visible(text))
            for strength, bits, text in zip(self.strengths, self.bits_per_byte, self.written, strict=True)
        ]
        head = ("strength", "bits per byte", "what is written")
        return page(f"Steering before layer {self.layer}", table(head, rows))


def steer(
    model: Lens, steering: Steering, strengths: Sequence[float], prompt: str, texts: Sequence[str], max_tokens: int = 40
) -> Steered:
    """What a model writes after a prompt at several strengths, and the bits per byte of texts at each. Raises as
    `steering_cost` and `generate`."""
    require_text(texts)
    require_own(model, steering)
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    written = [generate(model, steering.write(strength), prompt, params) for strength in strengths]
    return Steered(steering.layer, list(strengths), steering_cost(model, steering, strengths, texts), written)


@torch.no_grad()
def steering_cost(model: Lens, steering: Steering, strengths: Sequence[float], texts: Sequence[str]) -> list[float]:
    """The bits per byte of texts at several strengths; 0 is the model as it is. Raises ValueError without text, and for
    a direction of another width or layer than the model has."""
    require_own(model, steering)
    found = []
    with progress("measuring steering", len(strengths), "strengths") as bar:
        for strength in strengths:
            found.append(bits_per_byte(model, texts, steering.write(strength)))
            bar.advance(1)
    return found


def bits_per_byte(model: Lens, texts: Sequence[str], write: Mapping[str, Edit]) -> float:
    """The bits per byte of texts. A text longer than the context is read in pieces, each as a document of its own.
    Raises ValueError without text."""
    require_text(texts)
    bits, n_bytes = 0.0, 0
    begin = model.tokenizer.begin or [model.tokenizer.eot]
    room = model.config.n_ctx - len(begin)
    for text in [texts] if isinstance(texts, str) else texts:
        ids = model.tokenizer.encode(text)
        n_bytes += len(well_formed(text).encode())
        for start in range(0, len(ids), room):
            piece = ids[start : start + room]
            tokens = torch.tensor([begin + piece], device=model.gpt.embed.weight.device)
            logprobs = model.run(tokens, write=write).logits[0, len(begin) - 1 : -1].log_softmax(-1)
            bits -= float(logprobs.gather(1, torch.tensor(piece, device=tokens.device)[:, None]).double().sum())
    return bits / math.log(2) / n_bytes


def require_own(model: Lens, steering: Steering) -> None:
    """Raise ValueError for a direction that cannot be of this model."""
    model.layer(steering.layer)
    if len(steering.vector) != model.config.d_model:
        raise ValueError(
            f"the direction has {len(steering.vector)} numbers, and the residual stream of {model.name} has "
            f"{model.config.d_model}; make one with this model"
        )


def require_text(texts: Sequence[str]) -> None:
    """Raise ValueError where there is nothing to measure."""
    if not any(texts):
        raise ValueError("there is no text to measure bits per byte on")


def generate(model: Lens, write: Mapping[str, Edit], prompt: str, sampling_params: SamplingParams | None = None) -> str:
    """Continue a prompt while activations are written, in torch. Raises ValueError for several samples, and PromptError
    and its kinds."""
    params = sampling_params or SamplingParams()
    if params.n != 1:
        raise ValueError(f"n is {params.n}; one text is written at a time")
    (ids,) = encode_prompts(model.tokenizer, [prompt])
    check_prompt(ids, params, model.config.n_ctx, min(model.tokenizer.vocab_size, model.config.vocab_size))
    with model.writing(write) as gpt:
        engine = Resident(partial(TorchBackend.for_tokens, gpt), model.tokenizer).engine(
            [most_tokens(ids, params, model.config.n_ctx)]
        )
        return "".join(chunk.text for _, chunk in engine.run([ids], [params]))
