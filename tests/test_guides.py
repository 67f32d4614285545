"""Whoever follows a guide gets what it shows: every command in it is run, in order, as the Markdown has it.

In `docs/guides` a block of `sh` is a script of bash, one of `python` a program, one with `file=NAME` behind its
language a file that the reader writes, and a block of `text` what the block before it prints. Shown output stands for
all that is alike: numbers, sizes and what stands in single quotes may be others, "…" is anything that was left out, and
the rest must appear. The block of a server has no other command; the server runs until the next one, or the end, and is
stopped as by Ctrl-C.

The last table of a guide says what stands in for what in these tests. A row of two pieces of code is a replacement in
the commands and files; any other is one of `STAND_INS`. A row that nothing needs is an error, like a language without a
meaning.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bluejay.cli import parser
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.hub import parse
from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.gpt.init import new_model
from bluejay.tokenizer import Tokenizer
from tests.gpt.hub_server import COMMIT, Hub, serving
from tests.object_storage import object_server
from tests.prepared import commands
from tests.push_server import handler
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "guides"
GUIDES = sorted(path.stem for path in FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^## In the tests$.*?^\| --- \| --- \|\n(.*)", re.MULTILINE | re.DOTALL)
NUMBER = r"[+-]?\d(?:[\d,.]*\d)?(?:e[+-]?\d+)?(?: ?[kMGT]?B\b)?"
VARYING = re.compile(rf"""(\s*…\s*|'[^'\n]*'|{NUMBER}|\s+)""")
SKIPPED = "skipped"
SLOW = "run by `make test-slow`"


def text_of(guide: str) -> str:
    return (FOLDER / f"{guide}.md").read_text(encoding="utf-8")


def prose_of(guide: str) -> str:
    return BLOCK.sub("", text_of(guide))


@dataclass
class Place:
    """Where a guide is followed."""

    folder: Path
    environment: dict[str, str]
    hub: Hub
    replaced: dict[str, str] = field(default_factory=dict)
    """Text in commands and files -> what stands there instead."""
    port: str = ""
    server: subprocess.Popen[bytes] | None = None
    slow: list[str] = field(default_factory=list)
    """Text in blocks that only slow tests run."""
    at_end: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> "Place":
        self.at_end.callback(stop, self)
        return self

    def __exit__(self, *_: object) -> None:
        self.at_end.close()

    def instead(self, text: str) -> str:
        for before, after in self.replaced.items():
            text = text.replace(before, after)
        return text


def free_port(place: Place, port: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place.replaced[port] = place.port = str(free.getsockname()[1])


def shipped_model(place: Place, path: str) -> None:
    """The model of the checkout where it has one, because the commands are run elsewhere."""
    if (ROOT / path / "config.json").is_file():
        shutil.copytree(ROOT / path, place.folder / path)
    else:
        random_model(place, path)


def random_model(place: Place, path: str) -> None:
    tokenizer = Tokenizer.train(["the the the cat"], vocab_size=259)
    config = GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=tokenizer.vocab_size, n_ctx=256)
    save_model(new_model(config, seed=0), tokenizer, place.folder / path)


def gpt_j_on_the_hub(place: Place, name: str) -> None:
    """Weights in 16 bits, in the format and on the branch that the real ones are."""
    random_model(place, "hub")
    convert(place.folder / "hub", place.folder / "hub16", torch.float16)
    weights = io.BytesIO()
    torch.save(load_file(place.folder / "hub16" / "model.safetensors"), weights)
    files = {path.name: path.read_bytes() for path in (place.folder / "hub16").iterdir() if path.suffix == ".json"}
    repo, branch = parse(name)
    place.hub.branches[branch] = COMMIT
    place.hub.add(repo, files | {"pytorch_model.bin": weights.getvalue()})
    for folder in ("hub", "hub16"):
        shutil.rmtree(place.folder / folder)


def our_pages(place: Place, folder: str) -> None:
    texts = place.folder / folder
    texts.mkdir()
    for path in (ROOT / "docs").glob("*.md"):
        shutil.copy(path, texts)
    (texts / "again.md").write_text((texts / "lens.md").read_text("utf-8").replace("inside", "within"), "utf-8")
    (texts / "short.md").write_text("word\n")


def small_quickstart(place: Place, path: str) -> None:
    """A recipe in the guide's folder is found before the one of the package."""
    library = sysconfig.get_path("stdlib")
    recipe = (ROOT / path).read_text("utf-8").replace("8192", "512")
    for kind, folder in (("stdlib", "asyncio"), ("package-docs", "email")):
        tree = f'{{ kind = "tree", path = "{library}/{folder}", include = ["*.py"], licence = "PSF-2.0" }}'
        recipe = recipe.replace(f'{{ kind = "{kind}" }}', tree)
    (place.folder / path).parent.mkdir(parents=True)
    (place.folder / path).write_text(recipe, "utf-8")


def as_it_is(place: Place, name: str) -> None:
    """All guides have the hub."""


def only_if_slow(place: Place, name: str) -> None:
    place.slow.append(name)


def object_storage(place: Place, bucket: str) -> None:
    place.environment |= place.at_end.enter_context(object_server()).environment


def two_hosts(place: Place, name: str) -> None:
    """Slurm's commands, as far as a script of the guide needs them."""
    place.slow.append(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place.replaced["29400"] = str(free.getsockname()[1])
    programs = {
        "sbatch": 'SLURM_JOB_NODELIST=two bash "$@"',
        "scontrol": "printf '127.0.0.1\\n127.0.0.1\\n'",
        "srun": '"$@" & first=$!; "$@"; wait $first',
    }
    for program, body in programs.items():
        path = place.folder / ".slurm" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash -e\n{body}\n")
        path.chmod(0o755)
    place.environment["PATH"] = f"{place.folder / '.slurm'}:{place.environment['PATH']}"


STAND_INS: dict[str, Callable[[Place, str], None]] = {
    "one that is free, which `bluejay serve` is told by `--port`": free_port,
    "itself, or where the checkout lacks it a GPT-J of random weights": shipped_model,
    "a GPT-J of random weights": random_model,
    "the same with two layers of random weights, on a hub at the loopback address": gpt_j_on_the_hub,
    "a hub at the loopback address": as_it_is,
    "a server of S3 at the loopback address": object_storage,
    SLOW: only_if_slow,
    f"{SLOW}, with two hosts that are processes of this machine": two_hosts,
    "the same of two folders of the standard library, with a vocabulary of 512": small_quickstart,
    "Bluejay's own pages, one of them twice with other words, and a text of one word": our_pages,
}
"""What the tables say -> what puts it in the place of the name in the row's first piece of code."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Iterator[tuple[dict[str, str], Hub]]:
    """The environment of all commands, with an empty home, and the hub that they know."""
    home = tmp_path_factory.mktemp("home")
    with serving(handler) as hub:
        known = {name: value for name, value in os.environ.items() if name in ("LANG", "PYTHONPATH", "TMPDIR")}
        own = {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "110", "TERM": "dumb", "PYTHONUTF8": "1"}
        of_hub = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = known | own | of_hub | {"PATH": path}
        with commands(tmp_path_factory.mktemp("commands"), environment) as bin:
            yield environment | {"PATH": f"{bin}:{path}"}, hub


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_leads_where_it_says(guide, prepared, tmp_path):
    environment, hub = prepared
    with Place(tmp_path, dict(environment), hub) as place:
        follow(text_of(guide), place)


@pytest.mark.slow
@pytest.mark.parametrize("guide", [guide for guide in GUIDES if SLOW in text_of(guide)])
def test_so_does_the_whole_of_it(guide, prepared, tmp_path):
    environment, hub = prepared
    with Place(tmp_path, dict(environment), hub) as place:
        follow(text_of(guide), place, slowly=True)


@pytest.mark.parametrize(
    ("printed", "alike"),
    [
        ("loss 4.8, 12 kB of 'os'\n\nin  runs/a, 3 steps", True),
        ('loss 1e-05, 1.2 GB of " re"\nmore\nin runs/a, 1,075 steps', True),
        ("loss 4.8, 12 kB of 'os'\nin runs/b, 3 steps", False),
        ("loss none, 12 kB of 'os'\nin runs/a, 3 steps", False),
        ("loss 4.8, 12 kB of 'os'\nin runs/a", False),
    ],
)
def test_shown_output_stands_for_what_is_alike(printed, alike):
    assert bool(re.search(pattern("loss 0.5, 3 MB of 'a'\n…\nin runs/a, 7 steps"), printed)) == alike


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("```sh\nfalse\ntrue\n```\n", "ended with 1"),
        ("```sh\nbluejay info nothing | cat\n```\n", "ended with 2"),
        ("```sh\necho 3 cats\n```\n```text\n3 dogs\n```\n", "is not in"),
        ("```text\n3 dogs\n```\n", "nothing was run"),
        ("```console\n$ true\n```\n", "nobody knows"),
        ("", "nothing in the guide needs"),
    ],
)
def test_a_guide_that_is_wrong_is_noticed(block, says, prepared, tmp_path):
    table = "## In the tests\n\n| here | there |\n| --- | --- |\n| `cats` | `cats` |\n"
    page = block + ("```sh\ntrue cats\n```\n" if block else "") + table
    with Place(tmp_path, *prepared) as place, pytest.raises(AssertionError, match=says):
        follow(page, place)


def test_commands_in_sentences_are_understood():
    """Commands of a guide that stand in a line of text are not run, but their verbs and options are there."""
    found = [words for guide in GUIDES for words in re.findall("`bluejay ([^`]+)`", prose_of(guide)) if " " in words]
    assert found
    for words in found:
        options, overrides = parser().parse_known_args(shlex.split(words))
        assert options.takes_overrides or not overrides, words


def follow(page: str, place: Place, slowly: bool = False) -> None:
    """Do what a guide says. Raises AssertionError where something else comes of it."""
    text, table = page, TABLE.search(page)
    assert table, "a guide ends with a table under the heading In the tests"
    for row in table[1].splitlines():
        left, right = (cell.strip() for cell in row.strip("|").split(" | "))
        name = re.search("`([^`]+)`", left)
        assert name, f"the row has no piece of code on the left: {row}"
        if code := re.fullmatch("`([^`]+)`", right):
            place.replaced[name[1]] = code[1]
        else:
            STAND_INS[right](place, name[1])
        assert any(name[1] in body for _, _, body in BLOCK.findall(text)), f"nothing in the guide needs {name[1]}"
    output: str | None = None
    for number, (language, file, body) in enumerate(BLOCK.findall(text)):
        skipped = not slowly and any(name in body for name in place.slow)
        body = place.instead(body)
        if file:
            path = place.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
        elif language == "text":
            assert output is not None, "nothing was run that could have printed it"
            assert output == SKIPPED or re.search(pattern(body), output), f"{body}\nis not in\n{output}"
        elif skipped:
            output = SKIPPED
        elif language == "python":
            program = place.folder / f".block-{number}.py"
            program.write_text(body, encoding="utf-8")
            output = run(f"python {program}", place)
        elif body.startswith(("bluejay serve", "bluejay demo")):
            output = serve(body, place)
        else:
            assert language == "sh", f"nobody knows what to do with a block of {language!r}"
            output = run(body, place)


def pattern(shown: str) -> str:
    """What an output must match of which this much is shown."""

    def of(piece: str) -> str:
        if piece.strip() == "…":
            return r"[\s\S]*?"
        if piece[0] == "'" and len(piece) > 1:
            return r"""(?:'[^\n]*?'|"[^\n]*?")"""
        if piece.lstrip("+-")[:1].isdigit():
            return NUMBER
        return r"\s+" if piece.isspace() else re.escape(piece)

    return "".join(of(piece) for piece in VARYING.split(shown.strip()) if piece)


def run(script: str, place: Place) -> str:
    """What a script of bash prints. Raises AssertionError if a command in it fails."""
    print(f"$ {script}", flush=True)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=place.folder,
        env=place.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, flush=True)
    assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def serve(command: str, place: Place) -> str:
    """Start a server in place of the one before; what it prints until it answers."""
    stop(place)
    print(f"$ {command}", flush=True)
    command, log = f"{command.strip()} --port {place.port}", place.folder / "server.log"
    with log.open("wb") as file:
        place.server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=place.folder, env=place.environment, stdout=file, stderr=file
        )
    assert eventually(lambda: "http://" in log.read_text() or place.server.poll() is not None, PATIENCE)
    assert place.server.poll() is None, log.read_text()
    print(log.read_text(), flush=True)
    return log.read_text()


def stop(place: Place) -> None:
    """End the server, if there is one, as Ctrl-C does."""
    if place.server is not None:
        place.server.send_signal(signal.SIGINT)
        assert place.server.wait(PATIENCE) in (0, 130)
        place.server = None
