"""GPT-J-6B whole: its conversion to 4 bits, the wait for its first token, its memory, its speed with all 28 layers.

Weights are random: what is measured does not depend on them. Takes a quarter of an hour and 4 GB of disk; q8 and bf16
need 8 and 14 GB of memory, and are left out and named where there is less. `--layers 1` tries it all in two minutes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from decode import FORMATS, bytes_a_token, in_a_process
from report import report, result

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import weight_shapes
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.machine import free_memory
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer

ROUNDS = 5
SPARE = 2_000_000_000
"""Bytes of memory that a measurement leaves to others."""


def convert(config: GPTConfig, path: Path) -> None:
    """Write a quantised directory of random weights."""
    shapes = weight_shapes(config)

    def read(name: str) -> torch.Tensor:
        return torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0, 0.02)

    write_quantized(StoredModel(config, read, torch.bfloat16, lambda: Tokenizer.load("gpt2"), 0), path, "q4")


def seconds_and_memory(command: list[str]) -> tuple[float, float]:
    """Wall seconds of a program, and the most memory that it held, in GB."""
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, int(done.stdout) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--convert", type=Path, metavar="DIRECTORY", help="write the quantised model, only")
    options = parser.parse_args()
    config = GPTConfig(n_layer=options.layers)
    if options.convert:
        return convert(config, options.convert)
    layers = ["--layers", str(options.layers)]
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "gpt-j-6b"
        seconds, memory = seconds_and_memory([sys.executable, __file__, *layers, "--convert", str(model)])
        say(f"conversion to q4: {seconds:.0f} s")
        results.append(result("conversion to q4, most memory", memory, 8.0, "GB", 1.0, lower_is_better=True))
        size = (model / "model.safetensors").stat().st_size / 1e9
        bluejay = str(Path(sys.executable).with_name("bluejay"))
        generate = [bluejay, "generate", str(model), "In a shocking finding,", "--max-tokens", "1"]
        measured = [seconds_and_memory(generate) for _ in range(ROUNDS)]
        waits, held = (statistics.median(column) for column in zip(*measured, strict=True))
        results.append(result("command to first token, q4", waits, 5.0, "s", 1.0, lower_is_better=True))
        results.append(
            result("memory, q4, beside the file and 0.3 GB", held, size + 0.3, "GB", 1.0, lower_is_better=True)
        )
    for format in FORMATS:
        if bytes_a_token(config, format) + SPARE > free_memory():
            say(f"{format}: not enough free memory for {options.layers} layers")
            continue
        script = str(Path(__file__).with_name("decode.py"))
        speed = in_a_process([sys.executable, script, *layers, "--only", format])
        assert isinstance(speed, dict), speed
        say(f"{format}: " + ", ".join(f"{name} {figure:.1f}" for name, figure in speed.items()))
        results.append(
            result(
                f"{options.layers} layers, {format} reads memory",
                speed["read"] / 1e9,
                speed["probe"] / 1e9,
                "GB/s",
                0.9,
            )
        )
        results.append(
            result(
                f"{options.layers} layers, {format}, batch 8 against 1",
                speed["batch 8"],
                speed["batch 1"],
                "tokens/s",
                4.0,
            )
        )
    report("gpt_j", results)


if __name__ == "__main__":
    main()
