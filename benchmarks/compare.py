"""Do two checkouts of Bluejay do the same, to the bit, and as fast?

    python benchmarks/compare.py OLD NEW            # corpora, weights and texts; exits with 1 where one differs
    python benchmarks/compare.py OLD NEW --speed    # seconds of each, taking turns

Each checkout needs its compiled engine beside its source (`pip install --editable .`). Everything is done by the
command line and the public API in processes that import from `CHECKOUT/src`, so anything inside may differ. Compared
are

- a corpus of generated texts (near-copies, repeated passages, several licences, filters, a test set), built with one
  and with two workers: every file by its bytes, Parquet files as tables, what has another name since 9c4d9b6 under the
  new one. Not compared are `README.md`, which is prose, and the checksums of all files;
- the weights after 100 steps on that corpus on one thread, with the native kernels and with torch alone;
- texts that the trained model writes for several seeds, greedily and sampled, from float32, q8 and q4 weights, by the
  native engine and by torch.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from checkout import Checkout

LICENCES = ("CC0-1.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0")
FUNCTION_WORDS = "the of and to a in that is was it for on with be as by at this from or which an"
SYLLABLES = "ba ro li ten mor sel ka du ing er on ve shi pra tu lo fen gar mi stel"

CORPUS = """
name = "compared"
output = "corpus"
jsonl = true
[tokenizer]
train = { vocab_size = 2048, sample = "50 MB" }
[split]
valid = 0.03
test = 0.02
[dedup]
near = {}
substring = { length = 200 }
[decontaminate]
against = ["texts/test.jsonl"]
[[component]]
name = "Pages"
licence = "from-metadata"
epochs = 1.5
clean = ["unicode", "personal-data"]
filters = ["length:100-", "gopher", "gopher-repetition", "c4"]
source = [
"""
PROSE = """
]
[[component]]
name = "Prose"
licence = "CC0-1.0"
source = [{ kind = "text", path = "texts/*.txt" }]
"""

TRAINING = """
name = "compared"
output = "run"
[data]
train = [{{ shards = "{corpus}/tokens/train" }}]
valid = "{corpus}/tokens/valid"
sequence_length = 128
[model]
preset = "gpt-j"
n_layer = 2
d_model = 128
n_head = 4
rotary_dim = 16
[train]
tokens = {tokens}
batch_tokens = 512
lr = 3e-3
schedule = {{ kind = "cosine", warmup = 0.05, final = 0.05 }}
[evaluate]
every_steps = {steps}
tokens = 2048
[checkpoint]
every_steps = {steps}
"""

WRITE = """
import json, sys, torch
import bluejay
torch.set_num_threads(1)
path, n_seeds, n_tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = bluejay.load(path)
texts = []
for temperature in (0.0, 1.0):
    for seed in range(n_seeds):
        params = bluejay.SamplingParams(max_tokens=n_tokens, temperature=temperature, seed=seed)
        texts += model.generate("the of and", params)
print(json.dumps(texts))
"""


@dataclass(frozen=True)
class Size:
    """How much is compared."""

    documents: int = 1200
    steps: int = 100
    seeds: int = 8
    tokens: int = 48
    workers: tuple[int, ...] = (1, 2)


SIZES = {"full": Size(), "tiny": Size(100, 3, 1, 4, (2,))}


def words(chance: random.Random, count: int) -> str:
    """Sentences of made-up words between real function words, which the filters take for prose."""
    real, syllables = FUNCTION_WORDS.split(), SYLLABLES.split()
    found, length = [], 0
    for number in range(count):
        word = chance.choice(real) if chance.random() < 0.4 else "".join(chance.choices(syllables, k=2))
        length += 1
        ends = (length > 8 and chance.random() < 0.2) or number == count - 1
        found.append(word + "." if ends else word)
        length = 0 if ends else length
    return "\n".join(" ".join(found[at : at + 60]) for at in range(0, count, 60))


def write_texts(folder: Path, n_documents: int, seed: int = 0) -> None:
    """A recipe and the files that it reads; the same for the same seed."""
    chance, syllables = random.Random(seed), SYLLABLES.split()
    texts = folder / "texts"
    texts.mkdir(parents=True)
    passage, written = words(chance, 80), []
    sources = []
    for file, licence in enumerate(LICENCES):
        with (texts / f"{file}.jsonl").open("w", encoding="utf-8") as out:
            for _ in range(n_documents // len(LICENCES)):
                kind = chance.random()
                text = words(chance, chance.randrange(60, 300))
                if kind < 0.1 and written:  # equal
                    text = chance.choice(written)
                elif kind < 0.25 and written:  # nearly equal
                    text = f"{chance.choice(written)}\n{words(chance, 8)}"
                elif kind < 0.3:
                    text = f"{text}\n{passage}\nMail {chance.choice(syllables)}@example.org or 192.0.2.7."
                elif kind < 0.35:  # no prose
                    text = f"{chance.choice(syllables)} " * chance.randrange(5, 200)
                elif kind < 0.4:
                    text = text.replace("a", "a\u0308").replace("\n", "\r\n")
                written.append(text)
                out.write(json.dumps({"text": text}) + "\n")
            out.write("this is not JSON\n")
        sources.append(f'  {{ kind = "jsonl", path = "texts/{file}.jsonl", licence = "{licence}" }},\n')
    tests = [{"text": " ".join(text.split()[20:50])} for text in written[:: len(written) // 5]]
    (texts / "test.jsonl").write_text("".join(json.dumps(test) + "\n" for test in tests), encoding="utf-8")
    for number in range(3):
        (texts / f"{number}.txt").write_text(words(chance, 400), encoding="utf-8")
    (folder / "corpus.toml").write_text(CORPUS + "".join(sources) + PROSE, encoding="utf-8")


NOT_COMPARED = ("README.md", "SHA256SUMS")
"""Prose, and the checksums of all other files."""
RENAMED = {"aside.parquet": "skipped.parquet", "set_aside": "skipped"}
"""Names in a corpus until commit 9c4d9b6 -> since then (CHANGELOG.md)."""


def files_of(directory: Path) -> dict[str, Path]:
    """All files by the name that they have today."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    names = [[RENAMED.get(part, part) for part in path.relative_to(directory).parts] for path in paths]
    return {"/".join(parts): path for parts, path in zip(names, paths, strict=True)}


def report_of(path: Path) -> object:
    """A corpus's report with the keys that it has today."""

    def renamed(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {RENAMED.get(key, key): value for key, value in pairs}

    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=renamed)


def same_file(old: Path, new: Path) -> bool:
    """Whether two files hold the same: Parquet the same table, reports the same figures, other files the same bytes."""
    if old.name == "report.json":
        return report_of(old) == report_of(new)
    if old.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(old).equals(parquet.read_table(new), check_metadata=False)
    return old.read_bytes() == new.read_bytes()


def differences(old: Path, new: Path) -> list[str]:
    """How two directories differ, file by file."""
    before, after = files_of(old), files_of(new)
    found = [f"only the old has {file}" for file in sorted(before.keys() - after.keys())]
    found += [f"only the new has {file}" for file in sorted(after.keys() - before.keys())]
    both = sorted(file for file in before.keys() & after.keys() if Path(file).name not in NOT_COMPARED)
    assert both, f"{old} and {new} have no file in common"
    return found + [f"{file} differs" for file in both if not same_file(before[file], after[file])]


Found = Iterator[tuple[str, list[str]]]
"""What was compared, and how it differs."""


def compare_corpora(old: Checkout, new: Checkout, size: Size) -> Found:
    """The corpora, with one and with two workers."""
    for side in (old, new):
        write_texts(side.folder, size.documents)
    for workers in size.workers:
        output = f"corpus-{workers}"
        for side in (old, new):
            side.run("pile", "build", "corpus.toml", "--workers", str(workers), "--output", output)
        n_files = sum(path.is_file() for path in (old.folder / output).rglob("*"))
        yield (
            f"corpus of {n_files} files, {workers} worker{'s'[: workers - 1]}",
            differences(old.folder / output, new.folder / output),
        )


def compare_weights(old: Checkout, new: Checkout, size: Size) -> Found:
    """The weights and losses of a run on the old checkout's corpus."""
    corpus = old.folder / f"corpus-{size.workers[0]}"
    recipe = TRAINING.format(corpus=corpus, tokens=512 * size.steps, steps=max(1, size.steps // 2))
    for isa in ("", "torch"):
        output = f"run-{isa or 'native'}"
        for side in (old, new):
            (side.folder / "train.toml").write_text(recipe, encoding="utf-8")
            side.run("train", "train.toml", "--output", output, isa=isa)
        found = differences(old.folder / output / "model", new.folder / output / "model")
        losses = [
            [row["loss"] for row in map(json.loads, (side.folder / output / "metrics.jsonl").open()) if "loss" in row]
            for side in (old, new)
        ]
        found += [] if losses[0] == losses[1] and losses[0] else ["losses differ"]
        yield f"weights after {size.steps} steps, {isa or 'native'}", found


def compare_texts(old: Checkout, new: Checkout, size: Size) -> Found:
    """What the old checkout's model writes, and its quantised files."""
    model = old.folder / "run-native" / "model"
    calibration = old.folder / "texts" / "0.txt"
    for name, options in {
        "float32": ("--dtype", "float32"),
        "q8": ("--quantize", "q8"),
        "q4": ("--quantize", "q4"),
        "q4-calibrated": ("--quantize", "q4", "--calibrate", calibration),
    }.items():
        for side in (old, new):
            side.run("convert", model, name, *options)
        yield f"weights converted to {name}", differences(old.folder / name, new.folder / name)
        for isa in ("", "torch"):
            arguments = (old.folder / name, str(size.seeds), str(size.tokens))
            processes = [side.start(*arguments, program=WRITE, isa=isa) for side in (old, new)]
            texts = [process.communicate() for process in processes]
            for process, (_, error) in zip(processes, texts, strict=True):
                if process.returncode:
                    raise RuntimeError(error[-2000:])
            wrote = [json.loads(out.splitlines()[-1]) for out, _ in texts]
            n_different = sum(one != other for one, other in zip(*wrote, strict=True))
            found = [f"{n_different} of {len(wrote[0])} texts differ"] if n_different else []
            yield f"{len(wrote[0])} texts from {name}, {isa or 'native'}", found


COMPARISONS: dict[str, Callable[[Checkout, Checkout, Size], Found]] = {
    "corpora": compare_corpora,
    "weights": compare_weights,
    "texts": compare_texts,
}
"""Each needs what those before it have made."""


def compare(old: Checkout, new: Checkout, size: Size, until: str) -> bool:
    """Print a line for each comparison up to the kind `until`; whether there was no difference."""
    equal = True
    kinds = list(COMPARISONS)
    for kind in kinds[: kinds.index(until) + 1]:
        for what, found in COMPARISONS[kind](old, new, size):
            print(f"{'DIFFERENT' if found else 'equal'}: {what}{''.join(f'; {one}' for one in found[:5])}", flush=True)
            equal = equal and not found
    return equal


def seconds(side: Checkout, *arguments: str | Path, threads: int = 2) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    side.run(*arguments, threads=threads)
    return time.perf_counter() - began


def decode_speed(side: Checkout, layers: int) -> float:
    """Seconds of a token decoded from q4 weights, as the checkout's own benchmark measures it."""
    command = [sys.executable, "benchmarks/decode.py", "--only", "q4", "--layers", str(layers)]
    done = subprocess.run(command, cwd=side.root, env=side.environment, capture_output=True, text=True, check=True)
    return 1 / json.loads(done.stdout.splitlines()[-1])["batch 1"]


def train_speed(side: Checkout, turn: int) -> float:
    """Median seconds of a training step."""
    side.run("train", "train.toml", "--output", f"speed-{turn}", threads=2)
    rows = map(json.loads, (side.folder / f"speed-{turn}" / "metrics.jsonl").open())
    return 512 / statistics.median(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)


def measure(old: Checkout, new: Checkout, turns: int, megabytes: int, layers: int) -> None:
    """Print the ratios of seconds, new to old: the median over the turns, and the range.

    The corpus is built without near-copies and passages, which is mostly tokenizing; then with them, for which what has
    been read and cleaned is used again.
    """
    write_texts(old.folder, megabytes * 1000)
    write_texts(old.folder / "small", 1200)
    shutil.copytree(old.folder, new.folder, dirs_exist_ok=True)
    for side in (old, new):
        small = replace(side, folder=side.folder / "small")
        small.run("pile", "build", "corpus.toml")
        recipe = TRAINING.format(corpus=small.folder / "corpus", tokens=512 * 60, steps=60)
        (side.folder / "train.toml").write_text(recipe, encoding="utf-8")
    plain = ("--tokenizer", '{ path = "gpt2" }', "--dedup", "{}", "--jsonl", "false")

    def build(side: Checkout, turn: int, *options: str) -> float:
        return seconds(side, "pile", "build", "corpus.toml", "--output", f"speed-{turn}-corpus", *options)

    for what, one in {
        "decoding a token, q4": lambda side, turn: decode_speed(side, layers),
        "training step": train_speed,
        f"tokenizing {megabytes} MB": lambda side, turn: build(side, turn, *plain),
        f"de-duplicating {megabytes} MB": lambda side, turn: build(side, turn, *plain[:2], "--jsonl", "false"),
    }.items():
        ratios, taken = [], {"old": [], "new": []}
        for turn in range(turns):
            for side in (old, new) if turn % 2 else (new, old):
                taken[side.name].append(one(side, turn))
            ratios.append(taken["new"][-1] / taken["old"][-1])
        medians = " and ".join(f"{name} {statistics.median(times):.4g} s" for name, times in taken.items())
        span = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{what}: new/old {statistics.median(ratios):.3f} ({span}); {medians}", flush=True)


def main() -> None:
    """Compare, and exit with 1 where something differs."""
    parser = argparse.ArgumentParser(description="Compare two checkouts of Bluejay.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--speed", action="store_true", help="measure how long each takes, instead")
    parser.add_argument("--size", choices=SIZES, default="full", help="how much is compared (default: %(default)s)")
    parser.add_argument("--until", choices=COMPARISONS, default="texts", help="what is compared last (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="with --speed (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=100, help="text with --speed (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="decoded with --speed (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def checkout(name: str, root: Path) -> Checkout:
            (Path(folder) / name).mkdir()
            return Checkout(name, root.resolve(), Path(folder) / name)

        old, new = checkout("old", options.old), checkout("new", options.new)
        if options.speed:
            measure(old, new, options.turns, options.megabytes, options.layers)
        elif not compare(old, new, SIZES[options.size], options.until):
            sys.exit(1)


if __name__ == "__main__":
    main()
