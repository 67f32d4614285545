"""Probes: whether a label can be read from an activation by a linear function, beside a control task.

A probe that is good may have learnt the label itself. So the same probe is trained on a control task, in which every
kind of token has a random label (Hewitt & Liang 2019, arXiv 1909.03368): the difference of the two accuracies, the
selectivity, is how much of the accuracy is due to the activation.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.lens.activations import Lens
from bluejay.lens.hooks import expand
from bluejay.notebook import page, table

HELD_OUT = 0.25
"""The share of the examples on which probes are measured."""
DECAY = 1e-3
"""Factor of the squared length of the weights in the loss."""


@dataclass(frozen=True)
class Probe:
    """A logistic regression on standardised activations, and how good it is on examples that it was not trained on."""

    labels: list[Hashable]
    """The labels, in the order of the rows of `weight`."""
    weight: Float[Tensor, "labels D"]
    """What is multiplied with an activation, not standardised."""
    bias: Float[Tensor, " labels"]
    """What is added to the products."""
    accuracy: float
    """The share of held-out examples whose label it finds."""
    baseline: float
    """The share of the label that is most frequent."""
    control: float
    """The accuracy of such a probe on the control task."""

    @property
    def selectivity(self) -> float:
        """The accuracy beyond that on the control task."""
        return self.accuracy - self.control

    def __call__(self, features: Float[Tensor, "*batch D"] | np.ndarray) -> Float[Tensor, "*batch labels"]:
        """The log-probabilities of the labels."""
        return F.linear(torch.as_tensor(features).to(self.weight), self.weight, self.bias).log_softmax(-1)

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        figures = ("accuracy", "baseline", "control", "selectivity")
        return {"labels": [str(label) for label in self.labels], **{name: getattr(self, name) for name in figures}}

    def _repr_html_(self) -> str:
        names = ("accuracy", "baseline", "control", "selectivity")
        return page("A linear probe", table(names, [[f"{getattr(self, name):.3f}" for name in names]]))


def features(model: Lens, texts: Sequence[Any], name: str, position: SupportsIndex = -1) -> Float[Tensor, "n D"]:
    """An activation (B T D) at one position of each text, to train a probe on. Raises ValueError as `Lens.run`, for a
    position that is not there, for a name that stands for several activations or for one that has no row for each
    position alone, and without a text."""
    texts, names, rows = [texts] if isinstance(texts, str) else texts, expand(model.config, name), []
    if len(names) != 1:
        raise ValueError(f"{name} is {len(names)} activations; features are read from one")
    if names[0].endswith(("hook_attn_scores", "hook_pattern")):
        raise ValueError(f"{names[0]} has a row for each head and token; read one with a row for each token")
    if not len(texts):
        raise ValueError("there is no text to read features from")
    for text in texts:
        value = model.run(text, names)[names[0]][0]
        rows.append(value[model.position(position, len(value))].flatten())
    return torch.stack(rows)


def probe(
    features: Float[Tensor, "n D"] | np.ndarray | Sequence[Any],
    labels: Sequence[Hashable] | np.ndarray | Tensor,
    kinds: Sequence[Hashable] | np.ndarray | Tensor,
    seed: int = 0,
) -> Probe:
    """Train a probe of labels, and one of the control task, on three quarters of the examples.

    `kinds` say of each example what of it alone may decide the label, such as its token: the control task draws a label
    for each kind. Raises ValueError for unequal numbers, fewer than two labels, fewer than eight examples, and
    activations that are not finite, or not one row (D) for each example.
    """
    x = rows_of(features)
    n = len(x)
    labels, kinds = values_of(labels), values_of(kinds)
    if not n == len(labels) == len(kinds):
        raise ValueError(f"there are {n} activations, {len(labels)} labels and {len(kinds)} kinds; each needs one")
    names = sorted(set(labels), key=str)
    if len(names) < 2 or n < 8:
        raise ValueError(f"a probe needs two labels and eight examples; there are {len(names)} and {n}")
    generator = np.random.default_rng(seed)
    order, n_held_out = generator.permutation(n), max(1, round(n * HELD_OUT))
    held_out, training = order[:n_held_out], order[n_held_out:]
    targets = torch.tensor([names.index(label) for label in labels])
    drawn = {kind: int(generator.choice(targets.numpy())) for kind in dict.fromkeys(kinds)}  # as frequent as the labels
    control = torch.tensor([drawn[kind] for kind in kinds])
    if not x.isfinite().all():
        raise ValueError("the activations hold numbers that are not finite, from which nothing can be learnt")
    centre, scale = x[training].mean(0), x[training].std(0).clamp(min=1e-6)
    x = (x - centre) / scale
    weight, bias = fit(x[training], targets[training], len(names))
    control_weight, control_bias = fit(x[training], control[training], len(names))
    weight_of_raw = weight / scale
    counts = torch.bincount(targets[training], minlength=len(names))
    return Probe(
        labels=list(names),
        weight=weight_of_raw.float(),
        bias=(bias - weight_of_raw @ centre).float(),
        accuracy=accuracy(x[held_out], targets[held_out], weight, bias),
        baseline=float((targets[held_out] == counts.argmax()).double().mean()),
        control=accuracy(x[held_out], control[held_out], control_weight, control_bias),
    )


def rows_of(features: Float[Tensor, "n D"] | np.ndarray | Sequence[Any]) -> Float[Tensor, "n D"]:
    """The activations of examples as a matrix in float64, from that, or from a list of rows: lists, arrays or tensors.
    Raises ValueError where they are not one row for each example."""
    if isinstance(features, np.ndarray | Tensor):
        shapes = [tuple(features.shape[1:])]
    else:
        features = [torch.as_tensor(row).detach().cpu() for row in features]
        shapes = sorted({tuple(row.shape) for row in features})
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        found = " and ".join(map(str, shapes))
        raise ValueError(f"the activations of an example have the shape {found}; a probe takes a row of each, (D,)")
    if isinstance(features, list):
        features = torch.stack(features) if features else torch.empty(0, 1)
    return torch.as_tensor(features).detach().double().cpu()


def values_of(given: Sequence[Hashable] | np.ndarray | Tensor) -> list[Hashable]:
    """The values of a list, an array or a tensor. Tensor elements become Python numbers, because equal tensors have
    different hashes."""
    values = given.tolist() if isinstance(given, np.ndarray | Tensor) else given
    return [value.item() if isinstance(value, Tensor) else value for value in values]


def fit(
    x: Float[Tensor, "n D"], targets: Int[Tensor, " n"], n_labels: int
) -> tuple[Float[Tensor, "labels D"], Float[Tensor, " labels"]]:
    """The weights of a logistic regression, found by L-BFGS."""
    weight = torch.zeros(n_labels, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(n_labels, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), targets) + DECAY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyrefly: ignore
    return weight.detach(), bias.detach()


def accuracy(
    x: Float[Tensor, "n D"],
    targets: Int[Tensor, " n"],
    weight: Float[Tensor, "labels D"],
    bias: Float[Tensor, " labels"],
) -> float:
    """The share of examples whose label has the largest score."""
    return float((F.linear(x, weight, bias).argmax(-1) == targets).double().mean())
