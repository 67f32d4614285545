"""Claim 1: code in the mix makes the better coder, and does the prose no harm.

    python experiments/parts.py                          # once: the shards of code, questions and prose
    python experiments/data_mix.py                       # the runs, then docs/claims/data-mix.md

The mixtures hold 0 to 50 % of code, at equal tokens in all, and at equal tokens of the same prose.
"""

from collections.abc import Sequence

from matplotlib import pyplot
from parts import PARTS, shard_of
from stats import SECOND_PERSON, Difference, Line, agreeing, bits_per_byte, by_seed, difference, noise_floor, spread
from study import LONGEST_DOCUMENT, Run, ending, main, recorded, save_picture, small

TOKENS = 3_670_016
"""7,168 sequences: whole blocks of 1,024 in every arm, so that at equal prose all arms read the very same prose."""
SIZE = "1.6M"
CODE, PROSE = PARTS["code"], PARTS["prose"]
SHARES: dict[int, dict[str, int]] = {
    0: {},
    7: {"code": 72},
    12: {"code": 75, "questions": 53},
    25: {"code": 256},
    50: {"code": 512},
}
"""Percent of code -> parts in 1,024; the rest is prose. 12 is GPT-J's mix as it was described, an eighth of all: 7 % of
Github and 5 % of questions and answers about code."""
SEEDS = {12: 5}
"""Seeds of a share; 3 of the others. Five equal runs are the noise floor."""
STUDY = "data_mix"


def mixture(share: int) -> list[tuple[str, float]]:
    """The weighted shards. Prose is the first, so that its order does not depend on the others."""
    return [(shard_of("prose"), prose(share)), *((shard_of(part), weight) for part, weight in SHARES[share].items())]


def prose(share: int) -> int:
    """The parts of prose in 1,024."""
    return 1024 - sum(SHARES[share].values())


EQUAL_TOKENS = [
    small(f"code-{share}", SIZE, TOKENS, mixture(share), seed, programs=True)
    for share in (12, 0, 7, 25, 50)
    for seed in range(SEEDS.get(share, 3))
]
EQUAL_PROSE = [
    small(f"equal-prose-{share}", SIZE, TOKENS * 1024 / prose(share), mixture(share), seed, programs=True)
    for share in (12, 50)  # at 0 % both are the same run
    for seed in range(3)
]
RUNS: list[Run] = [*EQUAL_TOKENS, *EQUAL_PROSE]


def runs_of(lines: Sequence[Line], name: str) -> list[Line]:
    """The recorded runs of a point, by seed."""
    return sorted((line for line in lines if line["run"] == name), key=lambda line: line["seed"])


def rate(run: Line, what: str) -> float:
    """The share of the programs that parse, or pass."""
    return run["programs"][what] / run["programs"]["written"]


def compared(runs: Sequence[Line], base: Sequence[Line]) -> list[str]:
    """The cells of a row: code, prose, programs that parse and that pass."""
    cells = [spread([bits_per_byte(run, CODE) for run in runs]), spread([bits_per_byte(run, PROSE) for run in runs])]
    cells += [str(difference(runs, base, parts)) if base and runs != base else "" for parts in (CODE, PROSE)]
    written, passed = (sum(run["programs"][what] for run in runs) for what in ("written", "passed"))
    most = f"{passed} of {written}" if passed else f"0 of {written}, at most {100 * 3 / written:.2f} %"
    return [*cells, spread([100 * rate(run, "parsed") for run in runs]), most]


def table(lines: Sequence[Line], names: dict[str, str], base: str) -> list[str]:
    """A row for each point that has runs."""
    head = (
        "mix", "seeds", "code, bits per byte", "prose, bits per byte", "code against none", "prose against none",
        "programs that parse, %", "programs that pass",
    )  # fmt: skip
    found = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name, title in names.items():
        if runs := runs_of(lines, name):
            cells = [title, str(len(runs)), *compared(runs, runs_of(lines, base))]
            found.append(f"| {' | '.join(cells)} |")
    return found


def answer(name: str, what: str, found: Difference, better: str, worse: str) -> str:
    """What may be said of a difference: where one interval alone excludes zero, the sentence says which."""
    intervals = {"document": found.by_document, "seed": found.by_seed}
    shown = {by: better if high < 0 else worse for by, (low, high) in intervals.items() if low > 0 or high < 0}
    verdict = "is not shown to differ, by document or by seed"
    if found.claimed:
        verdict = worse if found.claimed > 0 else better
    elif len(shown) == 1:
        [(one, verdict)] = shown.items()
        [other] = intervals.keys() - shown.keys()
        spans = {by: f"by {by} ({low:+.4f} to {high:+.4f})" for by, (low, high) in intervals.items()}
        verdict = f"{verdict} {spans[one]} but is not shown to differ {spans[other]}"
    return f"- {name}: {what} {verdict}; {100 * found.agreeing:.0f} % of the pairs of single runs agree in the sign."


def page() -> str:
    """The page of the claim, from the recorded runs alone."""
    if not recorded(STUDY):
        return "\n".join([INTRODUCTION, METHOD, ending(STUDY, RUNS)])
    lines = list(recorded(STUDY).values())
    base, noise = runs_of(lines, "code-0"), runs_of(lines, "code-12")
    names = {f"code-{share}": f"{share} % code" for share in SHARES}
    equal_prose = {"code-0": "0 % code", **{f"equal-prose-{share}": f"{share} % code" for share in (12, 50)}}
    text = [INTRODUCTION, METHOD, "## The noise floor, and what the design can find\n"]
    floors = [noise_floor([bits_per_byte(run, parts) for run in noise], 3) for parts in (CODE, PROSE)]
    text.append(
        f"Runs of 12 % code that differ in their seed alone, in bits per byte. On code {floors[0]}. On prose "
        f"{floors[1]}. Both are found with a power of 80 % at the level of 5 %.\n"
    )
    text += ["## At equal tokens\n", *table(lines, names, "code-0"), ""]
    text += ["## At equal tokens of prose\n", *table(lines, equal_prose, "code-0"), ""]
    text += [
        LEGEND,
        SECOND_PERSON,
        f"![Bits per byte of code and of prose over the share of code]({PICTURE})\n",
        "## What it says\n",
    ]
    for name, title in {**names, **{n: f"{t}, equal prose" for n, t in equal_prose.items()}}.items():
        if name != "code-0" and base and (runs := runs_of(lines, name)):
            for what, parts in (("the loss on code", CODE), ("the loss on prose", PROSE)):
                text.append(answer(title, what, difference(runs, base, parts), "is lower", "is higher"))
            parse = [[100 * rate(run, "parsed") for run in some] for some in (runs, base)]
            low, high = by_seed(*parse)
            nothing = "no difference in how many parse was found"
            verdict = "more programs parse" if low > 0 else "fewer programs parse" if high < 0 else nothing
            signs = f"{100 * agreeing(*parse):.0f} % of the pairs agree in the sign"
            text.append(f"- {title}: {verdict} ({low:+.1f} to {high:+.1f} percentage points; {signs}).")
    text += ["", ending(STUDY, RUNS), CHANGE]
    return "\n".join(text) + "\n"


def picture() -> None:
    """Bits per byte over the share of code, every run a dot."""
    if not recorded(STUDY):
        return
    lines = list(recorded(STUDY).values())
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, (title, parts) in zip(axes, (("held-out code", CODE), ("held-out prose", PROSE)), strict=True):
        for prefix, mark, label in (("code", "o", "equal tokens"), ("equal-prose", "^", "equal prose")):
            points = [
                (share, bits_per_byte(run, parts)) for share in SHARES for run in runs_of(lines, f"{prefix}-{share}")
            ]
            if points:
                axis.plot(*zip(*points, strict=True), mark, mfc="none", label=label)
        axis.set(title=title, xlabel="code in the mix, %", ylabel="bits per byte")
        axis.legend(frameon=False)
    save_picture(figure, PICTURE)


PICTURE = "data-mix.png"
NAMED = ", ".join(PROSE)
INTRODUCTION = """# Code in the mix

**The claim.** Of GPT-J (Wang & Komatsuzaki, 2021) it was said that it writes better code than GPT-3 of its size
because about an eighth of its data is code and talk about code. No model without the code was trained to compare
with. Later work at larger sizes found that code helps with code, and harms prose little or not up to a half of the
mix (Muennighoff et al. 2023, arXiv 2305.16264; Aryabumi et al. 2024, arXiv 2408.10914).
"""
METHOD = f"""## Method

GPT-Js of {SIZE} weights of blocks and head read {TOKENS:,} tokens of the mini-Pile in mixtures of code and
prose; `experiments/data_mix.py` has every setting. *Code* is the component Github; *prose* is {NAMED}. The mixture
of 12 % has 7 % of code and 5 % of questions and technical documentation, the substitute here for Stack Exchange, as
GPT-J's was described. At equal tokens, code takes the place of prose. At equal prose, every model reads the same
prose, in the same order but for shuffling within pieces of half a million tokens, and the code comes on top.
Measured are the bits per byte of the first {LONGEST_DOCUMENT:,} tokens of held-out documents, and 10 programs for
each of the 15 problems that people put to GPT-J: how many parse with a statement in them, and how many pass.
"""
LEGEND = """A figure is the mean of its seeds with their range. A difference to the runs without code has two intervals
of 95 %: over the documents, and over the seeds. The bound where nothing passes is 3/n.
"""
CHANGE = """## What would change it, and what was not tested

A larger model, more tokens, or code of other languages and qualities could answer otherwise: at this size no model
writes programs that do much, so the loss on code stands for the coder. The published comparisons have a thousand
times the weights. Code in the last part of the training only, and the effect on reasoning in prose, were not
tested.
"""

if __name__ == "__main__":
    main(STUDY, RUNS, page, picture)
