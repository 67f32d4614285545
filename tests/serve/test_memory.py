"""Programs that serve several models stay below their memory, and cut no stream, while models come and go."""

import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.infer.needs import MODEL
from bluejay.serve.api.offered import offer
from bluejay.serve.settings import ServeSettings
from tests.waiting import PATIENCE

NAMES = ("ada", "bob", "cyd", "dan")
ROUNDS, TOKENS = 6, 60


@pytest.fixture(scope="module")
def folders(byte_tokenizer, tmp_path_factory) -> list[str]:
    """Four models of 50 MB that never end a text."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        gpt = new_model(GPTConfig(n_layer=8, d_model=512, n_head=8, vocab_size=259, n_ctx=256), seed)
        gpt.head.bias.data[byte_tokenizer.eot] = -1e4
        save_model(gpt.to(torch.bfloat16).requires_grad_(False), byte_tokenizer, folder / name)
    return [str(folder / name) for name in NAMES]


def resident(pid: int) -> int:
    """Bytes that a process and its replicas occupy."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids = [pid, *(int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text())]
        status = [Path(f"/proc/{one}/status").read_text() for one in pids]
    except OSError:  # one has just ended
        return 0
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024 for text in status)


def without_models() -> int:
    """Bytes that a server takes before it has loaded a model."""
    code = "import bluejay.serve.replicas; from bluejay.machine import resident_memory; print(resident_memory())"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


def whole_stream(url: str, model: str) -> bool:
    """Whether a stream of a model came to its end."""
    body = {"model": model, "prompt": "the", "max_tokens": TOKENS, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=PATIENCE) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line and line != "data: [DONE]"]
    return len(events) == TOKENS and events[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_models_come_and_go_within_the_memory_and_no_stream_is_cut(folders, workers, tmp_path):
    need = offer(folders[:1], ServeSettings(), "cpu", False)[0].needs[MODEL]
    base = without_models()
    memory = (workers if workers == 1 else workers + 1) * (base + 20_000_000) + workers * int(3.2 * need)
    options = ["--memory", f"{memory // 1000} kB", "--workers", str(workers), "--port", "0"]
    options += ["--public", "--requests-per-minute", "10000", "--tokens-per-hour", "10000000"]
    main = "from bluejay.cli import main; main()"
    peak, stopped = [0], threading.Event()
    with (
        (tmp_path / "log").open("w") as output,
        subprocess.Popen(
            [sys.executable, "-c", main, "serve", *folders, *options], stdout=output, stderr=subprocess.PIPE, text=True
        ) as server,
    ):
        try:
            said = server.stderr.readline()
            while "http://" not in said:
                assert said, server.wait()
                said = server.stderr.readline()
            url = re.search(r"http://\S+", said)[0]
            threading.Thread(target=server.stderr.read, daemon=True).start()

            def watch() -> None:
                while not stopped.is_set():
                    peak[0] = max(peak[0], resident(server.pid))
                    time.sleep(0.02)

            watching = threading.Thread(target=watch)
            watching.start()
            with ThreadPoolExecutor(4) as pool:
                for first in range(ROUNDS):
                    names = [NAMES[(first + n) % 4] for n in range(4)]
                    streams = [pool.submit(whole_stream, url, name) for name in names]  # the last waits, or evicts one
                    assert [stream.result(PATIENCE) for stream in streams] == [True] * 4
            figures = httpx.get(f"{url}/metrics").text
            loads = sum(float(n) for n in re.findall(r"bluejay_model_loads_total\{.*?\} (\S+)", figures))
            assert loads > 4 * workers  # so some came back after they had gone
            stopped.set()
            watching.join()
            assert base < peak[0] <= memory, (base, peak[0], memory, need)
        finally:
            stopped.set()
            server.kill()
