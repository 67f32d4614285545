"""bluejay-nano: its release from the run that made it, and its figures beside those of simpler and larger models.

    python experiments/baselines.py recipes/train/nano.toml
    python experiments/nano.py release                   # runs/nano -> models/bluejay-nano
    python experiments/nano.py measure                   # what is not recorded, then docs/nano.md and the card

One line a model is appended to `experiments/results/nano.jsonl`.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import held_out_bits
from stats import bits_per_byte, difference
from study import CORPUS, RECIPE, RESULTS, ROOT, bluejay, hash_of_corpus, record, recorded

from bluejay.demo import RELEASED, packaged
from bluejay.files import write_text
from bluejay.gpt.formats.layouts import convert
from bluejay.infer.model import load
from bluejay.machine import processor
from bluejay.model_card import CORPORA, model_card, write_model_card
from bluejay.progress import say

STUDY, PAGE = "nano", ROOT / "docs" / "nano.md"
RUN = ROOT / "runs" / "nano"
NANO, QUICKSTART, LARGER = "bluejay-nano", "quickstart", "SmolLM2-135M-Instruct"
KEPT = (0.01, 0.03, 0.1, 0.3)
"""Shares of the run whose models are released in 4 bits, to show how it learnt."""
REMEMBERED = "bluejay-nano-over-training"
LICENCE = "apache-2.0"
WATTS = 15.0
"""An estimate for two cores of a server processor of 60 at 350 watts, and their memory."""


def release() -> None:
    """Write the released model from the finished run: weights in bfloat16, and the records of the run."""
    target = ROOT / RELEASED
    steps = json.loads((RUN / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    target.mkdir(parents=True)
    convert(RUN / "model", target / "model", torch.bfloat16)
    for share in KEPT:
        name = f"model-step-{round(share * steps)}"
        convert(RUN / name, target / name, quantize="q4")
    for name in ("recipe.toml", "metrics.jsonl", "result.json"):
        shutil.copyfile(RUN / name, target / name)
    records = target / CORPORA / Path(CORPUS).name
    records.mkdir(parents=True)
    for name in ("report.json", "recipe.toml"):
        shutil.copyfile(ROOT / CORPUS / name, records / name)


def card() -> str:
    """The card of the released model, from the records beside it."""
    os.chdir(ROOT)  # a card names its model by the path that it was given
    return model_card(RELEASED, licence=LICENCE, watts=WATTS)


def models() -> dict[str, Path | None]:
    """The models by name, and where they are."""
    return {NANO: ROOT / RELEASED, QUICKSTART: ROOT / "runs" / "quickstart", LARGER: packaged()}


def measure() -> None:
    """Measure the models that are there and not recorded yet."""
    for name, path in models().items():
        if (name, 0) in recorded(STUDY) or path is None or not path.exists():
            continue
        say(f"measuring {name}")
        began = time.monotonic()
        with load(path) as model:
            documents = held_out_bits(model, ROOT / CORPUS)
        line = {
            "run": name,
            "seed": 0,
            "corpus": hash_of_corpus(ROOT / CORPUS),
            "documents": documents,
            "minutes": round((time.monotonic() - began) / 60, 2),
            "processor": processor(),
            "date": date.today().isoformat(),
        }
        record(STUDY, line)


def remember() -> None:
    """Record what reading a passage did to its loss over the run, unless it is recorded."""
    if (REMEMBERED, 0) in recorded(STUDY):
        return
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        bluejay("trace", "report", str(RUN), "--suite", "none", "--samples", "2", "--output", folder)
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    line = {
        "run": REMEMBERED,
        "seed": 0,
        "corpus": hash_of_corpus(ROOT / CORPUS),
        "figures": report["findings"]["memorisation"]["figures"],
        "minutes": round((time.monotonic() - began) / 60, 2),
        "processor": processor(),
        "date": date.today().isoformat(),
    }
    record(STUDY, line)


def over_training() -> Iterator[str]:
    """A table of how much reading a passage lowered its loss, at the next checkpoint and at the end of the run."""
    if (line := recorded(STUDY).get((REMEMBERED, 0))) is None:
        return
    rows: dict[str, list[str]] = {}
    for name, figure in line["figures"].items():
        read, _, _ = name.rpartition(", at step ")
        cell = f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"
        rows.setdefault(read.removeprefix("read at steps "), []).append(cell)
    yield MEMORY
    yield "| read at steps | at the last of them | at the end of the run |"
    yield "| --- | --- | --- |"
    yield from (f"| {read} | {cells[0]} | {cells[-1]} |" for read, cells in rows.items())


def page() -> str:
    """The comparison, from the recorded lines alone."""
    lines = recorded(STUDY)
    ours, others = lines[NANO, 0], [lines[name, 0] for name in (QUICKSTART, LARGER) if (name, 0) in lines]
    rows = map(json.loads, (RESULTS / "baselines.jsonl").read_text(encoding="utf-8").splitlines())
    simple = [row for row in rows if row["recipe"] == RECIPE][-1]
    components = list(simple["bits_per_byte"])
    by_document = {kind: {"documents": of} for kind, of in simple["documents"].items()}
    by_document |= {line["run"]: line for line in others}
    compressors = [kind for kind in simple["bits_per_byte"][components[0]] if kind not in by_document]
    head = [NANO, *simple["documents"], *compressors, *(line["run"] for line in others)]
    numbers = [len(ours["documents"][name]) for name in components]
    text = [INTRODUCTION.format(least=min(numbers), most=max(numbers))]
    text += [f"| component | {' | '.join(head)} |", "|" + " --- |" * (len(head) + 1)]
    for name in components:
        figures = {NANO: bits_per_byte(ours, [name]), **simple["bits_per_byte"][name]}
        figures |= {kind: bits_per_byte(line, [name]) for kind, line in by_document.items()}
        best = min(figures.values())
        cells = (f"**{figures[kind]:.3f}**" if figures[kind] == best else f"{figures[kind]:.3f}" for kind in head)
        text.append(f"| {name} | {' | '.join(cells)} |")
    text.append(
        "\nThe lowest figure of a row is bold. The bits per byte of bluejay-nano, compared with each of the others:\n"
    )
    for kind, line in by_document.items():
        text.append(
            f"- {against(kind, [difference([ours], [line], [name]).by_document for name in components], components)}"
        )
    for kind in compressors:
        gaps = [bits_per_byte(ours, [name]) - simple["bits_per_byte"][name][kind] for name in components]
        told = against(kind, [(gap, gap) for gap in gaps], components)
        text.append(f"- {told} There is no interval, because it compresses a component in one piece.")
    text.append("")
    for line in others:
        gap = difference([ours], [line], components)
        sign, word = (-1, "fewer") if gap.value < 0 else (1, "more")
        needs = f"{abs(gap.value):.3f} bits per byte {word} than {line['run']}"
        low, high = sorted(sign * bound for bound in gap.by_document)
        text.append(f"Over all components it needs {needs} (95 % interval over documents: {low:.3f} to {high:.3f}).")
    text.append(f"The simpler models were counted on the {simple['tokens']:,} tokens that bluejay-nano read.")
    text += over_training()
    return "\n".join(text) + "\n"


def against(other: str, spans: Sequence[tuple[float, float]], components: Sequence[str]) -> str:
    """On which components the bits per byte are below those of another, on which above, and where neither is shown."""
    kinds = {
        "fewer": [high < 0 for _, high in spans],
        "more": [low > 0 for low, _ in spans],
        "no difference shown": [low <= 0 <= high for low, high in spans],
    }
    told: list[str] = []
    for words, which in kinds.items():
        names = [name for name, one in zip(components, which, strict=True) if one]
        if names or not told:
            where = "every component" if len(names) == len(components) else ", ".join(names) or "no component"
            told.append(f"{words} on {where}")
    return f"{other}: {'; '.join(told)}."


INTRODUCTION = """# bluejay-nano beside others

Bits per byte of the first 40,000 held-out tokens of each component, {least} to {most} documents; lower is better.
bluejay-nano is compared with a unigram model, an interpolated Kneser-Ney 5-gram model, `xz -9e` and `zstd -19` with the
last 128 MiB of the training text as its dictionary, which get the text of a component in one piece, the model of the
quickstart, and SmolLM2-135M-Instruct in 4 bits, whose base model read 2 trillion tokens (its card). Each model is one
run of one seed. A difference is stated where its 95 % interval over documents, measured in pairs, does not hold zero.
`experiments/nano.py` makes this page from `experiments/results/`.

The corpus was built on 27 November 2026. The builder has since learnt to cut held-out text in another way, so the same
recipe now holds out some other documents.
"""
MEMORY = """
## What reading a passage did, over training

By how many nats a token the loss of passages of 100 tokens fell because they were read, as `bluejay trace report`
measures it on the checkpoints of the run: the fall since the last checkpoint before, less that of passages which were
never read (difference in differences, arXiv 2406.04327), with intervals of 95 % over passages.
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("release", "measure"))
    if parser.parse_args().do == "release":
        release()
    else:
        measure()
        remember()
        write_text(PAGE, page())
        os.chdir(ROOT)
        write_model_card(RELEASED, licence=LICENCE, watts=WATTS)
