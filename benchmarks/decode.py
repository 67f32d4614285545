"""How close to the speed of memory is a decoding step, and how does it compare with other engines?

The model is GPT-J at 6B's widths, with 7 of its 28 layers and random weights. Each engine runs in its own process
(`peers/`, in the environment that `make bench-peers` creates), so that one model is in memory at a time. A probe that
only reads memory alternates with our steps, and ours is measured again before each peer, because the speed of memory
changes with the load of the machine. `--layers 28` measures the whole model if memory allows.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import report, result

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import weight_shapes
from bluejay.gpt.quantization.format import BLOCK, Format
from bluejay.gpt.quantization.packing import FORMATS, Packed, packed_memory
from bluejay.gpt.quantization.q4 import Q4
from bluejay.infer.backends import StepBatch
from bluejay.infer.backends.native import NativeBackend, NativeModel, available
from bluejay.machine import n_processors
from bluejay.native import native

PEERS = Path(__file__).parent / "peers"
PYTHON = Path(".venv-peers/bin/python")
N_TOKENS, PROBE_BYTES, ROUNDS = 16, 1 << 30, 5
MEASURED = ("q4", "q8", "bf16")


def random_model(config: GPTConfig, format: Format) -> NativeModel:
    """A model of random bytes, whose scales keep the sums small."""

    def matrix(name: str) -> Packed:
        shape = (shapes[name][0], shapes[name][1])
        data = packed_memory(format.data_shape(shape)).random_(0, 256)
        if format.scale_dtype is None:
            data.view(torch.bfloat16).normal_(0, 0.02)
            return Packed(format, shape, data, None)
        scales = torch.full((len(data) * BLOCK, data.shape[1] * (2 if isinstance(format, Q4) else 1)), 3e-4)
        return Packed(format, shape, data, format.encode_scales(scales))

    def read(name: str) -> torch.Tensor:
        return torch.full(shapes[name], 0.02, dtype=torch.bfloat16)

    shapes = weight_shapes(config)
    return NativeModel(config, matrix, read)


def bytes_a_token(config: GPTConfig, format: Format) -> int:
    """Bytes of weights and scales that one step reads."""
    looked_up = ("embed.weight", "position.weight")
    shapes = [shape for name, shape in weight_shapes(config).items() if len(shape) == 2 and name not in looked_up]
    n_bytes = sum(math.prod(format.data_shape(shape)) for shape in shapes)
    if format.scale_dtype is None:
        return n_bytes
    return n_bytes + sum(math.prod(format.scales_shape(shape)) * format.scale_dtype.itemsize for shape in shapes)


def seconds_of_steps(backend: NativeBackend, n_sequences: int, context: int = 32) -> float:
    """Median seconds of a step that adds one token to each sequence."""
    pages = np.arange(n_sequences * 4, dtype=np.int32).reshape(n_sequences, -1)
    starts = np.arange(n_sequences + 1, dtype=np.int32)
    wanted = np.arange(n_sequences, dtype=np.int32)
    seconds = []
    for i in range(N_TOKENS):
        tokens, lengths = np.full(n_sequences, 100 + i, np.int32), np.full(n_sequences, context + i, np.int32)
        began = time.perf_counter()
        backend.step(StepBatch(tokens, starts, lengths, pages, wanted))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def seconds_of_prefill(backend: NativeBackend, n_tokens: int) -> float:
    """Median seconds to process a prompt."""
    pages = np.arange(-(-n_tokens // backend.page_size), dtype=np.int32)[None]
    tokens = np.arange(n_tokens, dtype=np.int32)
    batch = StepBatch(tokens, np.array([0, n_tokens], np.int32), np.zeros(1, np.int32), pages, tokens[-1:])
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        backend.step(batch)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ours(config: GPTConfig, format: Format) -> dict[str, float]:
    """The speeds of one of our formats; probes of the memory alternate with the steps."""
    backend = NativeBackend(random_model(config, format), 64)
    memory = np.random.default_rng(0).integers(0, 256, PROBE_BYTES, np.uint8)
    isa, threads = available()[0], n_processors()
    steps, probes = [], []
    seconds_of_steps(backend, 1)
    for _ in range(ROUNDS):
        probes.append(PROBE_BYTES / native.read_seconds(memory, isa, threads))
        steps.append(seconds_of_steps(backend, 1))
    figures = {"probe": statistics.median(probes), "batch 1": 1 / statistics.median(steps)}
    figures["read"] = figures["batch 1"] * bytes_a_token(config, format)
    figures |= {f"batch {n}": n / seconds_of_steps(backend, n) for n in (4, 8)}
    return figures | {f"prefill {n}": n / seconds_of_prefill(backend, n) for n in (128, 512)}


def in_a_process(command: list[str]) -> dict[str, float] | str:
    """The figures in the last line that a program prints, or the last line of its errors."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed without a message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--only", choices=MEASURED, help="measure one of our formats and print its figures")
    options = parser.parse_args()
    config = GPTConfig(n_layer=options.layers)
    if options.only:
        return print(json.dumps(ours(config, FORMATS[options.only])))
    results: list[dict] = []

    def measured(format: str) -> dict[str, float]:
        figures = in_a_process([sys.executable, __file__, "--layers", str(options.layers), "--only", format])
        assert isinstance(figures, dict), figures
        print(format, {name: round(figure, 2) for name, figure in figures.items()}, file=sys.stderr)
        return figures

    for format in MEASURED:
        figures = measured(format)
        results.append(result(f"{format} reads memory", figures["read"] / 1e9, figures["probe"] / 1e9, "GB/s", 0.9))
        results.append(
            result(f"{format} batch 8 against batch 1", figures["batch 8"], figures["batch 1"], "tokens/s", 4.0)
        )
    with tempfile.TemporaryDirectory() as directory:
        for script, goals in GOALS.items():
            for variant, format, decode_goal, prefill_goal in goals:
                name = f"{script} {variant}"
                command = [str(PYTHON), str(PEERS / f"{script}.py"), variant, str(options.layers), directory]
                mine = measured(format) if PYTHON.exists() else {}
                peer = in_a_process(command) if mine else "no peers; `make bench-peers` installs them"
                print(name, peer, file=sys.stderr)
                if isinstance(peer, str):
                    results.append({"metric": f"against {name}", "absent": peer})
                    continue
                for metric in peer.keys() & mine.keys():
                    goal = prefill_goal if metric.startswith("prefill") else decode_goal
                    metric_name = f"{format} {metric} vs {name}"
                    results.append(result(metric_name, mine[metric], peer[metric], "tokens/s", goal))
    report("decode", results)


GOALS: dict[str, tuple[tuple[str, str, float, float], ...]] = {
    "llama_cpp_gguf": (("Q4_0", "q4", 1.05, 1.0), ("Q8_0", "q8", 1.15, 1.0)),
    "ctranslate2_int8": (("int8", "q8", 1.5, 1.2),),
    "openvino_ints": (("int8", "q8", 1.5, 1.2), ("int4", "q4", 1.5, 1.2)),
    "transformers_bf16": (("bf16", "bf16", 1.5, 1.2),),
}
"""Script -> for each of its variants: name, our format to compare with, the ratios to reach in decoding and prefill."""


if __name__ == "__main__":
    main()
