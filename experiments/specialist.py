"""Claim 2: a small specialist beats a large generalist.

    python experiments/parts.py                          # once: the shard of court opinions
    python experiments/specialist.py                     # the runs, then docs/claims/specialist.md

Models of 1 to 29 million weights read court opinions alone, or the whole mini-Pile, in which these are one token in
twenty-two; at equal tokens, and at equal compute.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import pyplot
from parts import PARTS, shard_of
from stats import SECOND_PERSON, Line, bits_per_byte, crossing, difference, matrices, noise_floor, spread
from study import CORPUS, SIZES, Run, ending, main, recorded, save_picture, small, weights

STUDY = "specialist"
TOKENS = 786_432
"""At equal tokens."""
CHOSEN = ("1.1M", "3.3M", "10M", "29M")
COMPUTE = 6 * weights("10M") * TOKENS
"""At equal compute, in floating-point operations."""
DOMAIN = PARTS["law"]
DATA = {"specialist": [(shard_of("law"), 1.0)], "generalist": [(f"{CORPUS}/tokens/train", 1.0)]}
SEEDS = 3
EQUAL = ("tokens", "compute")
AS_GOOD = "as good as a generalist of"


def runs() -> Sequence[Run]:
    """The noise floor first: five equal runs of the smallest specialist. The largest, which take longest, last."""
    tokens_of: dict[str, Callable[[str], float]] = {
        "tokens": lambda _: TOKENS,
        "compute": lambda size: COMPUTE / (6 * weights(size)),
    }
    listed = [
        (size, small(f"{kind}-{size}-equal-{equal}", size, tokens_of[equal](size), data, seed))
        for equal in tokens_of
        for size in CHOSEN
        if equal == "tokens" or size != "10M"  # where both are the same run
        for kind, data in DATA.items()
        for seed in range(5 if (equal, size, kind) == ("tokens", "1.1M", "specialist") else SEEDS)
    ]
    return [run for _, run in sorted(listed, key=lambda one: one[0] == CHOSEN[-1])]


RUNS = runs()


def runs_of(lines: Sequence[Line], kind: str, size: str, equal: str) -> list[Line]:
    """The recorded runs of a point."""
    name = f"{kind}-{size}-equal-{'tokens' if size == '10M' else equal}"
    return sorted((line for line in lines if line["run"] == name), key=lambda line: line["seed"])


def crossings(lines: Sequence[Line], specialist: str, equal: str) -> tuple[float | None, list[float | None]]:
    """The size, in weights, of the generalist that is as good as a specialist: from all runs, and from documents that
    are drawn again and means of seeds that vary as Student's t says."""
    of_small = runs_of(lines, "specialist", specialist, equal)
    sizes = [size for size in CHOSEN if runs_of(lines, "generalist", size, equal)]
    large = [runs_of(lines, "generalist", size, equal) for size in sizes]
    numbers = [float(weights(size)) for size in sizes]
    bits = [matrices(group, DOMAIN)[0] for group in (of_small, *large)]
    n_bytes = matrices(of_small, DOMAIN)[1]
    free = sum(len(group) - 1 for group in bits)
    of_runs = [group.sum(1) / n_bytes.sum() for group in bits]
    pooled = np.sqrt(sum(((values - values.mean()) ** 2).sum() for values in of_runs) / max(free, 1))

    def found(chosen: np.ndarray, moved: Sequence[float]) -> float | None:
        first, *others = [
            group[:, chosen].mean(0).sum() / n_bytes[chosen].sum() + pooled * by / np.sqrt(len(group))
            for group, by in zip(bits, moved, strict=True)
        ]
        return crossing(numbers, [other - first for other in others])

    random, every = np.random.default_rng(0), np.arange(len(n_bytes))
    moved = random.standard_t(max(free, 1), (1000, len(bits))).tolist()
    drawn = [found(random.choice(every, len(every)), by) for by in moved]
    return found(every, [0.0] * len(bits)), drawn


def mean_bits(runs: Sequence[Line]) -> float:
    """The mean of some runs on court opinions."""
    return float(np.mean([bits_per_byte(run, DOMAIN) for run in runs]))


def crossed(lines: Sequence[Line], specialist: str, equal: str) -> str:
    """In words, how large a generalist has to be."""
    if len([1 for size in CHOSEN if runs_of(lines, "generalist", size, equal)]) < 2:
        return ""
    at, drawn = crossings(lines, specialist, equal)
    inside = [one for one in drawn if one is not None]
    if at is None or len(inside) < 0.95 * len(drawn):
        smallest = runs_of(lines, "generalist", CHOSEN[0], equal)
        if smallest and mean_bits(smallest) <= mean_bits(runs_of(lines, "specialist", specialist, equal)):
            return f"- A specialist of {specialist}, equal {equal}: the smallest generalist is as good already."
        largest = [size for size in CHOSEN if runs_of(lines, "generalist", size, equal)][-1]
        share = 100 * (1 - len(inside) / len(drawn))
        where = f"no generalist of up to {largest} weights is as good in {share:.0f} % of the draws"
        return f"- A specialist of {specialist}, equal {equal}: {where}."
    low, high = np.percentile(inside, [2.5, 97.5])
    return (
        f"- A specialist of {specialist}, equal {equal}: {AS_GOOD} {at / 1e6:.1f} million weights "
        f"({low / 1e6:.1f} to {high / 1e6:.1f})."
    )


def extremes(lines: Sequence[Line], equal: str) -> str:
    """The smallest specialist against the largest generalist, in words that both intervals allow."""
    [small, *_], [*_, large] = (
        [size for size in CHOSEN if runs_of(lines, kind, size, equal)] or [""] for kind in ("specialist", "generalist")
    )
    if not (small and large):
        return ""
    gap = difference(runs_of(lines, "specialist", small, equal), runs_of(lines, "generalist", large, equal), DOMAIN)
    verdict = {-1: "better", 1: "worse", 0: "not shown to be better or worse"}[gap.claimed]
    times = weights(large) / weights(small)
    return (
        f"- A specialist of {small} is {verdict} than a generalist of {large}, {times:.0f} times its size, equal "
        f"{equal}: {gap} bits per byte."
    )


def table(lines: Sequence[Line], equal: str) -> list[str]:
    """Bits per byte of court opinions by size, of both kinds, and their difference."""
    found = ["| weights | specialist | generalist | specialist against generalist |", "| --- | --- | --- | --- |"]
    for size in CHOSEN:
        pair = [runs_of(lines, kind, size, equal) for kind in DATA]
        if all(pair):
            cells = [spread([bits_per_byte(run, DOMAIN) for run in group]) for group in pair]
            found.append(f"| {size} | {' | '.join(cells)} | {difference(pair[0], pair[1], DOMAIN)} |")
    return found


def method(sizes: Sequence[str]) -> str:
    """What was done with models of these sizes, and which others are listed."""
    shapes = ", ".join(f"{n} x {d}" for n, d in (SIZES[size] for size in sizes))
    others = [size for size in CHOSEN if size not in sizes]
    left = f" Models of {', '.join(others)} are listed but were not run." if others else ""
    return METHOD.format(named=", ".join(sizes), shapes=shapes, tokens=TOKENS, compute=COMPUTE, left=left)


def legend(crossed: Sequence[str]) -> str:
    """What the figures are, as far as the page has them."""
    drawn = DRAWN if any("of the draws" in one for one in crossed) else ""
    return LEGEND + (INTERPOLATED if any(AS_GOOD in one for one in crossed) else drawn) + "\n"


def page() -> str:
    """The page of the claim, from the recorded runs alone."""
    if not recorded(STUDY):
        return "\n".join([INTRODUCTION, method(CHOSEN), ending(STUDY, RUNS)])
    lines = list(recorded(STUDY).values())
    sizes = [size for size in CHOSEN if any(runs_of(lines, kind, size, equal) for kind in DATA for equal in EQUAL)]
    noise = [bits_per_byte(run, DOMAIN) for run in runs_of(lines, "specialist", "1.1M", "tokens")]
    text = [INTRODUCTION, method(sizes), "## The noise floor, and what the design can find\n"]
    text.append(
        f"Of the smallest specialist, in bits per byte: {noise_floor(noise, SEEDS)}, with a power of 80 % at the level "
        "of 5 %.\n"
    )
    for equal in EQUAL:
        text += [f"## At equal {equal}\n", *table(lines, equal), ""]
    found = {
        equal: [crossed(lines, size, equal) for size in CHOSEN[:-1] if runs_of(lines, "specialist", size, equal)]
        for equal in EQUAL
    }
    text += [
        legend([one for some in found.values() for one in some]),
        SECOND_PERSON,
        f"![Bits per byte of court opinions over the size of the model]({PICTURE})\n",
        "## What it says\n",
    ]
    for equal in EQUAL:
        text += [one for one in (extremes(lines, equal), *found[equal]) if one]
    text += ["", ending(STUDY, RUNS), CHANGE]
    return "\n".join(text) + "\n"


def picture() -> None:
    """Bits per byte over the size, every run a dot."""
    if not recorded(STUDY):
        return
    lines = list(recorded(STUDY).values())
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, equal in zip(axes, EQUAL, strict=True):
        for kind, mark in zip(DATA, "o^", strict=True):
            points = [
                (weights(size), bits_per_byte(run, DOMAIN))
                for size in CHOSEN
                for run in runs_of(lines, kind, size, equal)
            ]
            if points:
                axis.semilogx(*zip(*points, strict=True), mark, mfc="none", label=kind)
        axis.set(title=f"equal {equal}", xlabel="weights of blocks and head", ylabel="bits per byte of court opinions")
        axis.set_xticks([weights(size) for size in CHOSEN], CHOSEN)
        axis.minorticks_off()
        axis.legend(frameon=False)
    save_picture(figure, PICTURE)


PICTURE = "specialist.png"
INTRODUCTION = """# A small specialist against a large generalist

**The claim.** A model thirty times smaller can win at what it was made for: GPT-J was better at code than models of
its size, and specialists such as phi-1 (Gunasekar et al. 2023, arXiv 2306.11644) and BioMedLM (Bolton et al. 2024,
arXiv 2403.18421) beat larger generalists in their field, while a good generalist beat the biomedical models of its
own size in others' tests.
"""
METHOD = """## Method

GPT-Js of {named} weights of blocks and head ({shapes} layers and width) read court opinions alone (the component
FreeLaw), or the whole mini-Pile, of which these are 4.5 % of the tokens. At equal tokens each reads {tokens:,}; at
equal compute each takes the {compute:.2g} floating-point operations (6 N D) that the model of 10M takes for them.
The measure is bits per byte of held-out opinions. Settings are in `experiments/specialist.py`.{left}
"""
LEGEND = """A figure is the mean of its seeds with their range. A difference has two intervals of 95 %: over the
documents, and over the seeds."""
INTERPOLATED = """ The size of the generalist that is as good as a specialist is interpolated in its
logarithm; its interval comes from 1,000 draws of the documents, and of the seeds' means by Student's t."""
DRAWN = " A draw is of the documents, and of the seeds' means by Student's t; there are 1,000."
CHANGE = """## What would change it, and what was not tested

The generalist saw a twenty-second part of the specialist's text of the field. At equal compute the smaller models
are the better ones of both kinds: with so little of it, more tokens help more than more weights do. With enough tokens
the specialist's text runs out and is repeated, and the generalist goes on learning: at some length the losses must come
closer.
Fields that gain more from other text than court opinions do, and tests of reasoning in a field, were not tested.
All sizes had a learning rate of 3e-3, which was not searched for any of them. Losses say what a model expects, not what
it can do.
"""

if __name__ == "__main__":
    main(STUDY, RUNS, page, picture)
