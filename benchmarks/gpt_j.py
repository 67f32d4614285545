"""The whole of GPT-J-6B: conversion to 4 bits, time to the first token, memory, and speed with all 28 layers.

Weights are random, which has no influence on the figures. The benchmark takes a quarter of an hour and 4 GB of disk. q8
and bf16 need 8 and 14 GB of memory and are skipped, with a message, if there is less. `--layers 1` takes two minutes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from decode import MEASURED, bytes_a_token, in_a_process
from report import report, result

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import weight_shapes
from bluejay.gpt.quantization.packing import FORMATS, QUANTISED
from bluejay.machine import free_memory
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer

ROUNDS = 5
SPARE = 2_000_000_000
"""Bytes of memory that a measurement leaves free."""


def convert(config: GPTConfig, path: Path) -> None:
    """Write a quantised directory of random weights."""
    shapes = weight_shapes(config)

    def read(name: str) -> torch.Tensor:
        return torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0, 0.02)

    write_quantized(StoredModel(config, read, torch.bfloat16, lambda: Tokenizer.load("gpt2"), 0), path, QUANTISED["q4"])


def seconds_and_memory(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds of a program, and its peak memory in GB."""
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, int(done.stdout) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--convert", type=Path, metavar="DIRECTORY", help="only write the quantised model")
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
        results.append(result("conversion to q4, peak memory", memory, 8.0, "GB", 1.0, lower_is_better=True))
        size = (model / "model.safetensors").stat().st_size / 1e9
        bluejay = str(Path(sys.executable).with_name("bluejay"))
        generate = [bluejay, "generate", str(model), "In a shocking finding,", "--max-tokens", "1"]
        measured = [seconds_and_memory(generate) for _ in range(ROUNDS)]
        waits, held = (statistics.median(column) for column in zip(*measured, strict=True))
        results.append(result("command to first token, q4", waits, 5.0, "s", 1.0, lower_is_better=True))
        results.append(
            result("memory, q4, beside the file and 0.3 GB", held, size + 0.3, "GB", 1.0, lower_is_better=True)
        )
    for format in MEASURED:
        if bytes_a_token(config, FORMATS[format]) + SPARE > free_memory():
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
