"""How the loss of small GPT-Js depends on their size, their data, the learning rate, the optimizer and the vocabulary.

    python experiments/scaling.py --list
    python experiments/scaling.py                        # the runs, then docs/claims/scaling.md

It needs the corpus of `recipes/train/nano.toml` and, built in the same way with `vocab_size = 16384`,
`data/mini-pile-16k`.

The noise floor comes first: equal runs that differ in their seed alone. What differs by less is no finding. Compute is
6 N D floating-point operations for N weights of blocks and head and D tokens (Kaplan et al. 2020, section 2.1).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot
from stats import SECOND_PERSON, Line, bits_per_byte, deviation, difference, matrices, noise_floor, spread
from study import VOCABULARY, Run, TrainingRun, ending, main, recorded, save_picture, small, weights
from surface import Surface, drawn, fitted

STUDY = "scaling"
SMALL, MIDDLE, LARGE = 1e13, 3e13, 1e14
"""Compute of a run, in floating-point operations."""
SIZE = "3.3M"
"""The size at which all but the surface is studied."""
ENOUGH = 3
"""Rates of a sweep that must be recorded before the best is taken."""
MUON, ADAMW = "muon", "adamw"
DRAWS = 1000


@dataclass(frozen=True)
class AtBestRate(TrainingRun):
    """A training run at the learning rate that was the best of its optimizer in the sweep; rates that diverged have no
    line."""

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Train and measure; None before the sweep."""
        kind = self.overrides["train.optimizer.kind"]
        done, offset = recorded(study), seed - self.seed
        losses = {rate: line for rate in RATES if (line := done.get((f"rate-{kind}-{rate:g}", offset)))}
        if len(losses) < ENOUGH:
            return None
        best = min(losses, key=lambda rate: loss(losses[rate]))
        at_best = vars(self) | {"overrides": self.overrides | {"train.lr": best}}
        return TrainingRun(**at_best).carry_out(study, seed)


def run(name: str, size: str, compute: float, vocabulary: int = VOCABULARY, **changed: Any) -> TrainingRun:
    """A run of a size for so much compute."""
    tokens = compute / (6 * weights(size, vocabulary))
    corpus = f"data/mini-pile-{vocabulary // 1024}k"
    return small(name, size, tokens, vocabulary=vocabulary, corpus=corpus, **changed)


def at_best_rate(name: str, kind: str, seed: int) -> AtBestRate:
    """A run of the middle compute with an optimizer at its best rate."""
    return AtBestRate(**vars(run(name, SIZE, MIDDLE, seed=seed, **{"train.optimizer.kind": kind})))


RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)
BEYOND = 2.4e-2
"""A rate of Muon alone, added when the largest of `RATES` was its best; the optimizers are compared at one of those."""
COSINE = '{ kind = "cosine", warmup = 0.02, final = 0.0 }'
SIZES = {
    SMALL: ("1.1M", "1.6M", "3.3M", "5.2M"),
    MIDDLE: ("1.1M", "1.6M", "5.2M", "8.8M"),
    LARGE: ("1.1M", "1.6M", "3.3M", "5.2M", "8.8M"),
}
"""Compute -> the sizes of the surface; the noise floor is a point of it, too. 1.1M at the middle compute, and 1.1M and
1.6M at the largest, were added when the surface of the others put the best size below all of theirs."""
NOISE = [run("noise", SIZE, MIDDLE, seed=seed) for seed in range(5)]
SWEEP = [
    run(f"rate-{kind}-{rate:g}", SIZE, SMALL, **{"train.lr": rate, "train.optimizer.kind": kind})
    for kind, rates in ((MUON, [*RATES, BEYOND]), (ADAMW, RATES))
    for rate in rates
]
OPTIMIZERS = [at_best_rate(f"optimizer-{kind}", kind, seed) for kind in (MUON, ADAMW) for seed in range(3)]
SCHEDULES = [run("schedule-cosine", SIZE, MIDDLE, seed=seed, **{"train.schedule": COSINE}) for seed in range(3)]
VOCABULARIES = [run("vocabulary-16k", SIZE, MIDDLE, seed=seed, vocabulary=16_384) for seed in range(3)]
SURFACE = [run(f"surface-{size}-{compute:.0e}", size, compute) for compute, sizes in SIZES.items() for size in sizes]
RUNS: list[Run] = [*NOISE, *SWEEP, *SURFACE, *OPTIMIZERS, *SCHEDULES, *VOCABULARIES]


def loss(line: Line) -> float:
    """Bits per byte over all components."""
    return bits_per_byte(line, line["documents"])


def of_point(name: str) -> list[Line]:
    """The recorded runs of a point, by seed."""
    return [line for (run, _), line in sorted(recorded(STUDY).items()) if run == name]


def in_common(one: Sequence[Line], other: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Runs with the documents alone that both sides have: another vocabulary cuts the held-out text elsewhere."""

    def first(line: Line, beside: Line) -> Line:
        documents = {
            name: [
                mine for mine, (_, n_bytes) in zip(found, beside["documents"][name], strict=False) if mine[1] == n_bytes
            ]
            for name, found in line["documents"].items()
        }
        return {**line, "documents": documents}

    return [first(line, other[0]) for line in one], [first(line, one[0]) for line in other]


def compared(title: str, name: str, base: str) -> Iterator[str]:
    """A row of a point against another."""
    one, other = of_point(name), of_point(base)
    if one and other:
        gap = difference(*in_common(one, other), list(one[0]["documents"]))
        verdict = {1: "worse", -1: "better", 0: "no difference found"}[gap.claimed]
        yield f"| {title} | {len(one)}, {len(other)} | {spread(list(map(loss, one)))} | {gap} | {verdict} |"


def points() -> tuple[list[float], list[float], list[Line]]:
    """Weights, tokens and lines of the runs of the surface."""
    names = {run.name: run for run in (*SURFACE, NOISE[0])}
    lines = [line for name in names for line in of_point(name)]
    sizes = {name: SIZE if name == "noise" else name.split("-")[1] for name in names}
    tokens = [float(line["overrides"]["train.tokens"]) for line in lines]
    return [float(weights(sizes[line["run"]])) for line in lines], tokens, lines


def measured(noise: float) -> Iterator[str]:
    """A table of the losses of the surface's runs, by compute and size, and which are lowest beyond the noise."""
    lowest: list[str] = []
    sizes = sorted({size for some in SIZES.values() for size in some}, key=weights)
    yield f"| operations | {' | '.join(sizes)} |\n|{' --- |' * (len(sizes) + 1)}"
    for compute in SIZES:
        found = {size: of_point(f"surface-{size}-{compute:.0e}") for size in sizes}
        if compute == MIDDLE:
            found[SIZE] = of_point("noise")
        mean = {size: float(np.mean(list(map(loss, found[size])))) for size in sizes if found[size]}
        cells = [f"{mean[size]:.4f}" if size in mean else "" for size in sizes]
        yield f"| {compute:.0e} | {' | '.join(cells)} |"
        equal = min(mean.values(), default=0.0) + 2 * math.sqrt(2) * noise  # two deviations of a difference of two runs
        lowest.append(f"{compute:.0e} {' and '.join(size for size, value in mean.items() if value <= equal)}")
    yield (
        f"\nBits per byte; one run each, but five of {SIZE} at {MIDDLE:.0e}, the noise floor. The lowest, and those "
        f"that differ from it by no more than noise: {', '.join(lowest)}.\n"
    )


def surfaces(noise: float) -> tuple[Surface, list[Surface]] | None:
    """The fitted surface, and those of the losses drawn again that have one; None where too few runs are recorded, or
    no surface fits them."""
    n, d, lines = points()
    if len({*zip(n, d, strict=True)}) < 6 or math.isnan(noise):
        return None
    bits, size = matrices(lines, lines[0]["documents"])
    whole = fitted(n, d, np.array([[loss(line) for line in lines]]))
    again = fitted(n, d, drawn(bits, size, noise, DRAWS))
    return (whole[0], again) if whole and again else None


def interval(values: Sequence[float], form: str) -> str:
    """The interval of 95 % of values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:{form}} to {high:{form}}"


def of_surface(noise: float) -> Iterator[str]:
    """What the surface says."""
    if (found := surfaces(noise)) is None:
        yield "No surface was fitted: too few runs are recorded, or their losses do not fall with weights and tokens.\n"
        return
    whole, again = found
    n, d, lines = points()
    miss = float(np.std([loss(line) - whole.loss(*at) for line, *at in zip(lines, n, d, strict=True)]))
    yield (
        f"L = {whole.floor:.3f} + {whole.a:.3f} N^-{whole.alpha:.2f} + {whole.b:.3f} D^-{whole.beta:.2f} bits per "
        f"byte, for N weights of blocks and head and D tokens, both in millions. It misses the losses of the "
        f"{len(lines)} runs that it was fitted to by {miss:.4f} (standard deviation), {miss / noise:.1f} times the "
        f"noise floor. Of {DRAWS} draws of the losses {len(again)} have a surface, which the intervals come from: they "
        "are of documents and seeds, and where the surface misses by more than the noise, too narrow.\n"
    )
    yield "| | fitted | 95 % interval |\n| --- | --- | --- |"
    for title, value in (("E", "floor"), ("alpha", "alpha"), ("beta", "beta")):
        yield f"| {title} | {getattr(whole, value):.2f} | {interval([getattr(one, value) for one in again], '.2f')} |"
    for compute in (*SIZES, 10 * LARGE):
        best = [one.best_weights(compute) / 1e6 for one in again]
        title = f"best size for {compute:.0e} operations, millions"
        yield f"| {title} | {whole.best_weights(compute) / 1e6:.1f} | {interval(best, '.1f')} |"
    yield ""


def page() -> str:
    """The page of the study, from the recorded runs alone."""
    if not recorded(STUDY):
        return "\n".join([INTRODUCTION, ending(STUDY, RUNS)])
    noise = list(map(loss, of_point("noise")))
    sd = deviation(noise)
    text = [INTRODUCTION, "## The noise floor, and what the design can find\n"]
    text.append(
        f"Of {SIZE}, in bits per byte: {spread(noise)}. {noise_floor(noise, 3)}, with a power of 80 % at the level of "
        "5 %.\n"
    )
    text += ["## Learning rate\n", f"| rate | {MUON} | {ADAMW} |", "| --- | --- | --- |"]
    for rate in (*RATES, BEYOND):
        cells = [[f"{loss(line):.4f}" for line in of_point(f"rate-{kind}-{rate:g}")] for kind in (MUON, ADAMW)]
        text.append(f"| {rate:g} | {' | '.join(' '.join(cell) for cell in cells)} |")
    text += ["\nOne run each: neighbours that differ by less than the noise floor are equal.\n", "## Choices\n"]
    text += ["| choice, against the other | seeds | bits per byte | difference | verdict |", "|" + " --- |" * 5]
    text += compared("Muon, against AdamW, each at its best rate", "optimizer-muon", "optimizer-adamw")
    text += compared("a cosine to zero, against WSD", "schedule-cosine", "noise")
    text += compared("16,384 tokens in the vocabulary, against 8,192", "vocabulary-16k", "noise")
    text += [
        f"\n{LEGEND}",
        SECOND_PERSON,
        "## How large\n",
        *measured(sd),
        *of_surface(sd),
        f"![Bits per byte over tokens, by size]({PICTURE})\n",
    ]
    return "\n".join([*text, ending(STUDY, RUNS), CHANGE]) + "\n"


def picture() -> None:
    """Bits per byte over tokens, every run a dot, with the surface as lines."""
    if not recorded(STUDY):
        return
    figure, axis = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    n, d, lines = points()
    found = surfaces(0.0)
    for number, size in enumerate(sorted(set(n))):
        some = [(tokens, loss(line)) for of, tokens, line in zip(n, d, lines, strict=True) if of == size]
        axis.semilogx(*zip(*some, strict=True), "o", mfc="none", color=f"C{number}", label=f"{size / 1e6:.1f} M")
        if found:
            along = np.geomspace(min(d), max(d), 50)
            axis.semilogx(along, [found[0].loss(size, tokens) for tokens in along], color=f"C{number}", lw=0.8)
    axis.set(xlabel="tokens", ylabel="bits per byte of held-out text")
    axis.legend(frameon=False, title="weights")
    save_picture(figure, PICTURE)


PICTURE = "scaling.png"
INTRODUCTION = """# What a small model should be

Before a model is trained for hours, runs of minutes say what it should be: how large for the computation there is, at
what learning rate, with which optimizer, schedule and vocabulary. All are GPT-Js that read the mini-Pile; a figure is
bits per byte of held-out documents of all components. `experiments/scaling.py` has every setting.
"""
LEGEND = """The figure is the mean of the seeds with their range; the difference has two intervals of 95 %, over the
documents and over the seeds. A verdict is given where neither holds zero.
"""
CHANGE = """## What would change it, and what was not tested

The surface stands on sizes within a factor of eight and data within one of fifty: far beyond them it is a guess, and
E is known least of all. The best rate was searched at one size and one length. Repeated data, depth against width,
and batches of other sizes were not tested. bluejay-nano (6.8M, 2.0e+15 operations, a rate of 6e-3) is larger than the
best size that the surface gives so far outside its runs: one of 1.1M would read 310 million tokens for as much
computation, and the mini-Pile has 237 million.
"""

if __name__ == "__main__":
    main(STUDY, RUNS, page, picture)
