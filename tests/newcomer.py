"""What a newcomer does with an installed package, in a process without a network and with an empty home.

Usage: PYTHON newcomer.py ENGINE MINUTES [TOKENS], in a folder with nothing but an `input.txt`, where PYTHON has bluejay
installed and ENGINE, native or torch, is what it should run on. With TOKENS the demo's recipe is copied and shortened
to so many. Prints what each command printed; an assertion fails where one does not do what it should.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
WITHOUT = "torch does the work here"


def loopback_up() -> None:
    """Start the loopback device of a new network namespace, as `ip link set lo up` does."""
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def run(*command: str) -> tuple[str, str]:
    """What a command printed, on standard output and on standard error."""
    done = subprocess.run(command, capture_output=True, text=True)
    print(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}", flush=True)
    assert done.returncode == 0, done.returncode
    return done.stdout, done.stderr


def post(url: str, request: dict[str, Any]) -> Any:
    """What a server answers."""
    asked = urllib.request.Request(url, json.dumps(request).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def demo(port: int) -> str:
    """A completion of the model that `bluejay demo` made and serves."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([BIN / "bluejay", "demo", "--port", str(port)]) as process:
        try:
            while process.poll() is None:
                try:
                    return post(f"{url}/v1/completions", {"prompt": "import", "max_tokens": 8})["choices"][0]["text"]
                except OSError:
                    time.sleep(1)
            raise AssertionError(process.returncode)
        finally:
            process.terminate()


def main() -> None:
    engine, minutes, *tokens = sys.argv[1:]
    loopback_up()
    assert not list(Path.home().iterdir())
    bluejay = str(BIN / "bluejay")
    version, _ = run(bluejay, "--version")
    assert version == run(sys.executable, "-m", "bluejay", "--version")[0]
    recipes, _ = run(bluejay, "recipes")
    assert "train/quickstart" in recipes
    out, err = run(bluejay, "train", "input.txt", "--minutes", minutes)
    assert (err.count(WITHOUT) == 1) == (engine == "torch")
    generate = next(line for line in out.splitlines() if line.startswith("bluejay generate"))
    assert "xz -9" in out and "on which it was not trained" in out
    model = generate.split()[2]
    _, err = run(bluejay, "generate", model, "The", "--max-tokens", "8")
    assert (err.count(WITHOUT) == 1) == (engine == "torch")
    if tokens:
        run(bluejay, "recipes", "train/quickstart")
        recipe = Path("recipes/train/quickstart.toml")
        recipe.write_text(recipe.read_text().replace("tokens = 1_100_000", f"tokens = {tokens[0]}"))
    print(demo(8123))
    assert {path.name for path in Path().iterdir()} <= {"data", "input.txt", "recipes", "runs"}


if __name__ == "__main__":
    main()
