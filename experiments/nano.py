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
from datetime import date
from pathlib import Path

import torch
from measure import held_out_bits
from stats import bits_per_byte, difference
from study import CORPUS, RECIPE, RESULTS, ROOT, hash_of_corpus, record, recorded

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
KEPT = (0.01, 0.1, 0.3)
"""Shares of the run whose models are released in 4 bits, to show how it learnt."""
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


def page() -> str:
    """The comparison, from the recorded lines alone."""
    lines = recorded(STUDY)
    ours, others = lines[NANO, 0], [lines[name, 0] for name in (QUICKSTART, LARGER) if (name, 0) in lines]
    rows = map(json.loads, (RESULTS / "baselines.jsonl").read_text(encoding="utf-8").splitlines())
    simple = [row for row in rows if row["recipe"] == RECIPE][-1]
    head = ["component", NANO, *next(iter(simple["bits_per_byte"].values())), *(line["run"] for line in others)]
    text, lost = [INTRODUCTION, f"| {' | '.join(head)} |", "|" + " --- |" * len(head)], []
    for component, figures in simple["bits_per_byte"].items():
        own = bits_per_byte(ours, [component])
        beside = {**figures, **{line["run"]: bits_per_byte(line, [component]) for line in others}}
        better = [name for name, value in beside.items() if value <= own and name != LARGER]
        lost += [f"{component} ({', '.join(better)})"] if better else []
        text.append(f"| {component} | **{own:.3f}** | {' | '.join(f'{beside[name]:.3f}' for name in head[2:])} |")
    but = f" except on {'; '.join(lost)}" if lost else " on every component"
    text.append(f"\nbluejay-nano is better than all of them but {LARGER}{but}.")
    for line in others:
        gap = difference([ours], [line], list(simple["bits_per_byte"]))
        sign, word = (-1, "fewer") if gap.value < 0 else (1, "more")
        needs = f"{abs(gap.value):.3f} bits per byte {word} than {line['run']}"
        low, high = sorted(sign * bound for bound in gap.by_document)
        text.append(f"Over all components it needs {needs} (95 % interval over documents: {low:.3f} to {high:.3f}).")
    text.append(f"The simpler models were counted on the {simple['tokens']:,} tokens that bluejay-nano read.")
    return "\n".join(text) + "\n"


INTRODUCTION = """# bluejay-nano beside others

Bits per byte of the first 40,000 held-out tokens of each component, 11 to 75 documents; lower is better. bluejay-nano
is compared with a unigram model, an interpolated Kneser-Ney 5-gram model, `xz -9e` and `zstd -19` with the last 128 MiB
of the training text as its dictionary, which get the text of a component in one piece, the model of the quickstart, and
SmolLM2-135M in 4 bits, which read 2 trillion tokens (its card). Each model is one run of one seed.
`experiments/nano.py` makes this page from `experiments/results/`.
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("release", "measure"))
    if parser.parse_args().do == "release":
        release()
    else:
        measure()
        write_text(PAGE, page())
        os.chdir(ROOT)
        write_model_card(RELEASED, licence=LICENCE, watts=WATTS)
