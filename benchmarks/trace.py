"""How fast and how small is the index of a corpus, and does it find what infini-gram finds?

    python benchmarks/trace.py [CORPUS] [--peer PYTHON]
    python benchmarks/trace.py [CORPUS] --page

The corpus (default: data/quickstart) is indexed anew in a temporary folder. Queries are 256 tokens, of eight pieces of
training text. The answer to one holds its spans with counts, and of each span up to ten documents with id, licence and
the steps of a run of two epochs. Cold means a fresh process, and the pages of the index and the tokens dropped; the
disk's own random reads are measured in the same run. PYTHON is of an environment with infini-gram 2.6.

With --page it measures instead how much slower an answer streams to the page in Chromium while the page shows its
sources. A model of GPT-2's size with random weights continues such a query, twice in each round, with the switch
Sources off and on, and with the same seed. The seconds are the browser's own, from the request to the last byte.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import CORPUS, report, result
from serve import free_port, served

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import write_model
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.trace import Index
from bluejay.trace.indexing import index
from bluejay.trace.reading import ReadRun, ShardSequences
from bluejay.trace.tracing import Placed, Source, Traced, Tracer, TraceSettings
from bluejay.train.checkpoint.state import State, write_marker
from bluejay.train.recipe import Data, Mixture, Train, TrainRecipe

THIS = Path(__file__)
BUILD = THIS.with_name("index_memory.py")
PEER = THIS.parent / "peers" / "infini_gram_peer.py"
QUERIES, PIECES, PIECE, MIN_TOKENS, MAX_COUNT = 200, 8, 32, 5, 10
COLD_RUNS, RANDOM_READS = 7, 400
SEQUENCE, BATCH = 1024, 64
ROUNDS, ANSWER = 9, 400
"""Rounds of an answer with and without sources, and its tokens."""
GOAL = 0.95
"""The speed with sources, of that without."""
SETTINGS = TraceSettings(min_tokens=MIN_TOKENS)


def queries(corpus: Path, count: int, seed: int = 0) -> list[list[int]]:
    """Texts of spliced training text."""
    tokens, generator = TokenShard(corpus / "tokens" / "train").tokens, np.random.default_rng(seed)
    starts = generator.integers(0, len(tokens) - PIECE, (count, PIECES))
    return [np.concatenate([tokens[at : at + PIECE] for at in row]).tolist() for row in starts]


def run_of_two_epochs(corpus: Path, folder: Path) -> None:
    """Write the record of a run that read the training shard twice."""
    n = len(TokenShard(corpus / "tokens" / "train").tokens)
    data = Data((Mixture(str(corpus / "tokens" / "train")),), sequence_length=SEQUENCE)
    recipe = TrainRecipe("benchmark", data, Train(tokens=2 * n, batch_tokens=BATCH * SEQUENCE, lr=1e-3))
    state = State(recipe.steps, dataclasses.asdict(recipe), "", "float32", 0.0)
    directory = folder / "checkpoints" / f"step-{recipe.steps}"
    directory.mkdir(parents=True)
    write_marker(directory, state, {})


def open_all(corpus: Path, run_folder: Path) -> Tracer:
    """The index, and the run."""
    opened, run = Index(corpus), ReadRun(run_folder)
    n = sum(len(shard.tokens) for shard in opened.shards if shard.shard == "train")
    run.sets[0] = ShardSequences(n, SEQUENCE)
    return Tracer([Source(opened, run, {"train": (Placed(0, 0),)})], opened.tokenizer)


def cold(corpus: Path, run_folder: Path, text: list[int]) -> dict[str, float]:
    """In this fresh process: seconds to open the index and to answer one query, and of random reads of the disk."""
    tracer = open_all(corpus, run_folder)  # so that Python's own modules are loaded, and the tokenizer
    _ = tracer.tokenizer.token_bytes(), tracer.trace(text[:8], SETTINGS)
    del tracer
    files = [*(corpus / "index").iterdir(), *(corpus / "tokens").glob("*.bin")]
    drop(files)
    began = time.perf_counter()
    opened = Index(corpus)
    seconds_open = time.perf_counter() - began
    other = open_all(corpus, run_folder)
    other.sources[0] = dataclasses.replace(other.sources[0], searcher=opened)
    other.tokenizer.token_bytes()
    drop(files)
    began = time.perf_counter()
    other.trace(text, SETTINGS)
    seconds = time.perf_counter() - began
    return {"open": seconds_open, "answer": seconds, "read": random_read(corpus / "tokens" / "train.bin")}


def drop(files: list[Path]) -> None:
    """Have the operating system forget the pages of files that nobody has mapped."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def random_read(file: Path) -> float:
    """Seconds of a read of 4,096 bytes at a random place, one after another."""
    drop([file])
    descriptor, size = os.open(file, os.O_RDONLY), file.stat().st_size
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    taken = []
    for place in random.Random(0).sample(range(size // 4096), min(RANDOM_READS, size // 4096)):
        began = time.perf_counter()
        os.pread(descriptor, 4096, 4096 * place)
        taken.append(time.perf_counter() - began)
    os.close(descriptor)
    return statistics.median(taken)


def spans_of(traced: Traced, at_most: int) -> list[list[int]]:
    """The spans of an answer in order, as the peer gives them."""
    return sorted([span.start, span.end, span.count] for span in traced.spans if span.count <= at_most)


def own_process(script: Path, *arguments: object) -> Any:
    """What a script prints last as JSON, in another process."""
    command = [sys.executable, str(script), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def against_peer(python: Path, corpus: Path, folder: Path, texts: list[list[int]], tracer: Tracer) -> dict[str, Any]:
    """The peer's figures, and how many of its answers are equal to ours."""
    (folder / "peer").mkdir()
    given = {"queries": texts, "min_tokens": MIN_TOKENS, "max_count": MAX_COUNT}
    (folder / "queries.json").write_text(json.dumps(given))

    def ask(*arguments: object) -> Any:
        command = [str(python), str(PEER), *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    # The peer indexes one shard, so ours is compared without the held-out ones.
    made = ask("build", corpus / "tokens" / "train", folder / "peer")
    answers = ask("query", folder / "peer", folder / "queries.json")
    train_only = Tracer(tracer.sources, tracer.tokenizer)
    held_out = [s for s in tracer.sources[0].searcher.shards if s.shard != "train"]
    train_only.sources[0].searcher.shards = [s for s in tracer.sources[0].searcher.shards if s.shard == "train"]
    ours = [spans_of(train_only.trace(text, SETTINGS), MAX_COUNT) for text in texts]
    train_only.sources[0].searcher.shards += held_out
    equal = sum(sorted(theirs) == mine for theirs, mine in zip(answers["spans"], ours, strict=True))
    return made | {"equal": equal, "spans": sum(map(len, ours)), "query": answers["seconds"]}


def write_random_model(corpus: Path, directory: Path) -> None:
    """A model of GPT-2's size with random weights and the tokenizer of a corpus."""
    tokenizer, generator = Tokenizer.load(corpus), torch.Generator().manual_seed(0)
    config = GPTConfig(n_layer=12, d_model=768, n_head=12, n_ctx=1024, vocab_size=tokenizer.vocab_size)
    shapes = weight_shapes(config)

    def random_weight(name: str) -> torch.Tensor:
        return torch.empty(shapes[name]).normal_(0, 0.02, generator=generator)

    write_model(StoredModel(config, random_weight, torch.float32, lambda: tokenizer, 0), directory)


def against_the_same_page(corpus: Path, run_folder: Path) -> tuple[list[tuple[float, float]], int]:
    """Seconds of an answer without and with sources in each round, and how often sources were asked for meanwhile."""
    from playwright.sync_api import Route, sync_playwright

    write_random_model(corpus, run_folder / "model")
    port, eot = free_port(), Tokenizer.load(corpus).eot
    texts = [Tokenizer.load(corpus).decode(ids) for ids in queries(corpus, ROUNDS + 1)]
    command = [sys.executable, "-m", "bluejay", "serve", str(run_folder / "model"), "--port", str(port)]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))))
    seconds, asked, entries = list[tuple[float, float]](), 0, "performance.getEntriesByType('resource')"
    with served([*command, "--corpus", str(corpus)], port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        writing, switch = page.locator("#text"), page.locator("#sources")
        wanted: dict[str, Any] = {"max_tokens": ANSWER, "logit_bias": {eot: -100}}

        def ask_as_wanted(route: Route) -> None:
            route.continue_(post_data={**(route.request.post_data_json or {}), **wanted})

        page.route("**/v1/completions", ask_as_wanted)
        for number, text in enumerate(texts):
            wanted["seed"] = number
            both, answers = [0.0, 0.0], ["", ""]
            for on in (False, True) if number % 2 else (True, False):
                if (switch.get_attribute("aria-pressed") == "true") != on:
                    switch.click()
                writing.fill(text)
                page.wait_for_timeout(2000)  # until the text itself is traced
                page.evaluate("performance.clearResourceTimings()")
                page.get_by_role("button", name="Run", exact=True).click()
                while not page.evaluate(f"{entries}.some(one => one.name.endsWith('v1/completions'))"):
                    page.wait_for_timeout(500)
                timed = page.evaluate(f"{entries}.map(one => [one.name, one.startTime, one.responseEnd])")
                [(begin, end)] = [(begin, end) for name, begin, end in timed if name.endswith("v1/completions")]
                both[on], answers[on] = (end - begin) / 1000, writing.input_value()
                within = [name for name, at, _ in timed if name.endswith("v1/trace") and begin < at < end]
                if not on and within:
                    raise RuntimeError("the page asked for sources while they were switched off")
                asked += len(within)
            if answers[0] != answers[1] or len(answers[0]) <= len(text):
                raise RuntimeError("the two answers of a round are not the same")
            if number:  # the first round opens the index
                seconds.append((both[0], both[1]))
            print(f"{both[0]:.2f} s without sources, {both[1]:.2f} s with them", file=sys.stderr)
        browser.close()
    return seconds, asked


def of_page(corpus: Path, run_folder: Path) -> None:
    """Measure the page, and print the line."""
    index(corpus)
    seconds, asked = against_the_same_page(corpus, run_folder)
    off, on = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratios = [on / off for off, on in seconds]
    row = result("an answer with sources, vs without", on, off, "s", GOAL, lower_is_better=True)
    figures = {"rounds": len(ratios), "sources asked for an answer": round(asked / (ROUNDS + 1), 1)}
    figures |= {"median of the ratios": round(statistics.median(ratios), 4)}
    figures |= {"least and most": [round(f(ratios), 3) for f in (min, max)]}
    print(figures, file=sys.stderr)
    report("trace", [row, {"metric": "figures", **figures}])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path, nargs="?", default=CORPUS)
    parser.add_argument("--peer", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--page", action="store_true", help="measure streaming to the page instead")
    options = parser.parse_args()
    if not (options.corpus / "tokens" / "train.idx").is_file():
        print(f"{options.corpus} is not here: bluejay pile build RECIPE makes it", file=sys.stderr)
        return report("trace", [])
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as name:
        folder = Path(name)
        corpus = folder / options.corpus.resolve().name
        corpus.mkdir()
        for path in options.corpus.resolve().iterdir():
            if path.name != "index":
                (corpus / path.name).symlink_to(path)
        run_of_two_epochs(corpus, folder / "run")
        if options.page:
            return of_page(corpus, folder / "run")
        built = own_process(BUILD, corpus)
        tokens = built["tokens"]
        tracer, texts = open_all(corpus, folder / "run"), queries(corpus, QUERIES)
        seconds, documents, traced = [], 0, tracer.trace(texts[0], SETTINGS)
        for text in queries(corpus, QUERIES, seed=1)[:20] + texts:
            began = time.perf_counter()
            traced = tracer.trace(text, SETTINGS)
            seconds.append(time.perf_counter() - began)
            documents += sum(len(span.documents) for span in traced.spans)
        seconds = seconds[20:]
        shown = [(d, s.end - s.start) for s in traced.spans for d in s.documents]
        began = time.perf_counter()
        for document, length in shown:
            tracer.snippet(document.corpus, document.split, document.position, length, 40)
        snippets = (time.perf_counter() - began) / max(1, len(shown))
        colds = [own_process(THIS, "--cold", corpus, folder / "run", json.dumps(text)) for text in texts[:COLD_RUNS]]
        median, p99 = statistics.median(seconds), float(np.percentile(seconds, 99))
        opened, answered = (statistics.median(one[key] for one in colds) for key in ("open", "answer"))
        figures: dict[str, Any] = {
            "tokens": tokens,
            "bytes a token beside the tokens": round(built["bytes"] / tokens, 3),
            "seconds to build": round(built["seconds"], 1),
            "bytes of memory a token, at most": round(built["peak"] / tokens, 2),
            "of it Python's own": round(built["empty"] / tokens, 2),
            "milliseconds of 256 tokens, median": round(1e3 * median, 2),
            "milliseconds of 256 tokens, 99th percentile": round(1e3 * p99, 2),
            "documents an answer": round(documents / len(seconds), 1),
            "milliseconds of a snippet": round(1e3 * snippets, 3),
            "milliseconds to open it cold": round(1e3 * opened, 1),
            "milliseconds of 256 tokens cold, median": round(1e3 * answered, 1),
            "milliseconds of them, least and most": [round(1e3 * f(c["answer"] for c in colds), 1) for f in (min, max)],
            "microseconds of a random read": round(1e6 * statistics.median(c["read"] for c in colds), 1),
        }
        for figure, value in figures.items():
            print(f"{figure}: {value}", file=sys.stderr)
        rows = []
        if options.peer.is_file():
            peer = against_peer(options.peer, corpus, folder, texts, tracer)
            print(f"equal answers: {peer['equal']} of {len(texts)}, {peer['spans']:,} spans", file=sys.stderr)
            theirs = statistics.median(peer["query"])
            size = peer["bytes"] / tokens - 2
            rows = [
                result(
                    "bytes a token beside the tokens",
                    figures["bytes a token beside the tokens"],
                    size,
                    "bytes",
                    1,
                    True,
                ),
                result("building", built["seconds"], peer["seconds"], "s", 1, True),
                result("256 tokens, median", 1e3 * median, 1e3 * theirs, "ms", 1, True),
                result("equal answers", peer["equal"], len(texts), "answers", 1),
            ]
        else:
            print(f"no infini-gram: --peer PYTHON names an environment with it, not {options.peer}", file=sys.stderr)
        report("trace", [*rows, {"metric": "figures", **figures}])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--cold", path, run, text]:
            print(json.dumps(cold(Path(path), Path(run), json.loads(text))))
        case _:
            main()
