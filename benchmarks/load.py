"""How fast, and in how much memory, is a model of 1.8 billion weights loaded, compared with transformers?

The model has seven layers of GPT-J-6B in bfloat16, in shards, with random weights. Each load runs in its own process.
"ready" is the load itself; "first token" also multiplies by every weight once, so that mapped weights are really read.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from report import report, result

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import write_model
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer

LOAD = """
import json, sys, time, warnings
import torch
warnings.filterwarnings("ignore")
LIBRARY
def memory(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before, began = memory("VmRSS"), time.perf_counter()
model = MODEL
ready = time.perf_counter() - began
with torch.inference_mode():
    model(torch.tensor([[1]]))
print(json.dumps([ready, time.perf_counter() - began, memory("VmHWM") - before, memory("VmHWM")]))
"""
OURS = LOAD.replace("LIBRARY", "from pathlib import Path; from bluejay.gpt.formats.layouts import load_model").replace(
    "MODEL", "load_model(Path(sys.argv[1]))"
)
PEER = LOAD.replace(
    "LIBRARY", "import transformers; transformers.logging.set_verbosity_error(); transformers.GPTJForCausalLM"
).replace("MODEL", 'transformers.GPTJForCausalLM.from_pretrained(sys.argv[1], dtype="auto")')
ROUNDS = 5
SHARD_BYTES = 1_000_000_000


def write_random(directory: Path) -> int:
    """Write a model of GPT-J-6B's widths; return the size of its files."""
    config = GPTConfig(n_layer=7)
    generator = torch.Generator().manual_seed(0)
    shapes = weight_shapes(config)

    def random(name: str) -> torch.Tensor:
        return torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    tokenizer = Tokenizer.load("gpt2")
    write_model(StoredModel(config, random, torch.bfloat16, lambda: tokenizer, 0), directory, shard_bytes=SHARD_BYTES)
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def measured(script: str, directory: Path) -> list[float]:
    """Seconds until ready, seconds until the first token, bytes of memory added by the load, bytes of the process."""
    ran = subprocess.run([sys.executable, "-c", script, directory], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        size = write_random(directory)
        rounds = [(measured(OURS, directory), measured(PEER, directory)) for _ in range(ROUNDS + 1)][1:]
    ours, peer = ([statistics.median(run[which][i] for run in rounds) for i in range(4)] for which in (0, 1))
    report(
        "load",
        [
            result("load, ready, vs transformers", ours[0], peer[0], "s", 1.0, lower_is_better=True),
            result("load and first token, vs transformers", ours[1], peer[1], "s", 1.0, lower_is_better=True),
            result("memory of load and first token / files", ours[2] / size, peer[2] / size, "", 1.0, True),
            result("memory of the whole process / files", ours[3] / size, peer[3] / size, "", 1.0, True),
        ],
    )


if __name__ == "__main__":
    main()
