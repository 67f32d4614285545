"""The command line: results on standard output, and a mistake is one line and exit code 2, with nothing left behind."""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bluejay import cli
from bluejay.gpt.formats.layouts import save_model
from tests.test_push import hub  # noqa: F401 - a fixture

ROOT = Path(__file__).parent.parent

CORPUS = """
name = "tiny"
output = "{path}/corpus"
[tokenizer]
train = {{ vocab_size = 300 }}
[[component]]
name = "Text"
licence = "CC0-1.0"
source = [{{ kind = "text", path = "{path}/text/*.txt" }}]
"""

TRAINING = """
name = "tiny"
output = "{path}/run"
[data]
train = [{{ shards = "{path}/corpus/tokens/train" }}]
valid = "{path}/corpus/tokens/valid"
sequence_length = 16
[model]
n_layer = 1
d_model = 32
n_head = 2
[train]
tokens = 640
batch_tokens = 64
[evaluate]
tokens = 64
"""


@pytest.fixture
def corpus_recipe(tmp_path) -> Path:
    """Sixty small texts and a recipe for them."""
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_text(f"Text number {i} says: " + "one two three. " * (i % 7 + 3))
    recipe = tmp_path / "corpus.toml"
    recipe.write_text(CORPUS.format(path=tmp_path))
    return recipe


@pytest.fixture
def training_recipe(tmp_path) -> Path:
    recipe = tmp_path / "train.toml"
    recipe.write_text(TRAINING.format(path=tmp_path))
    return recipe


@pytest.fixture
def model_directory(tiny_model, tmp_path) -> Path:
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "model")
    return tmp_path / "model"


def run(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments])


def mistake(capsys, *arguments: object) -> str:
    """The one line that a mistake ends in."""
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and not printed.out
    return lines[0]


def test_from_text_to_generated_text(corpus_recipe, training_recipe, tmp_path, capsys):
    run("pile", "build", corpus_recipe, "--json", "--split.valid", "0.2")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["directory"] == f"{tmp_path}/corpus"
    run("train", training_recipe, "--json")
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["steps"] == 10 and trained["held_out"]["bits_per_byte"] > 0
    run("generate", trained["model"], "Text number", "--max-tokens", 5, "--seed", 1)
    once = capsys.readouterr().out
    assert once.startswith("Text number")
    run("generate", trained["model"], "Text number", "--max-tokens", 5, "--seed", 1, "--json")
    assert "Text number" + json.loads(capsys.readouterr().out)["texts"][0] == once.removesuffix("\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pile", "build", "{corpus}", "--split.vallid", "0.1"], "unknown key split.vallid; did you mean valid?"),
        (["pile", "build", "{path}/none.toml"], "no recipe at"),
        (["pile", "build", "{path}"], "is a folder; a recipe is one TOML file"),
        (["pile", "build", "{corpus}", "--component", "[]"], "the recipe has no [[component]]"),
        (["train", "{training}"], "corpus"),
        (["train", "{training}", "--n_layer", "3"], "did you mean model.n_layer?"),
        (["train", "{training}", "--rotary_dim", "3"], "did you mean model.rotary_dim?"),
        (["train", "{path}/my.toml"], "no recipe at {path}/my.toml; write it first"),
        (["train", "{training}", "--train.lr"], "--train.lr needs a value"),
        (["train", "{training}", "--data", "3"], "data"),
        (["generate", "{path}/nothing", "x"], "no model at"),
        (["generate", "{path}/text", "x"], "has no config.json"),
        (["generate", "{model}", "x", "--top-p", "2"], "top_p is 2.0; it must be between 0 and 1"),
        (["generate", "{model}", "x", "--device", "gpu"], "device is gpu, and torch has none of that name here"),
        (["serve", "{model}", "--workers", "2", "--device", "cuda"], "workers is 2, and this machine has 0 GPUs"),
        (["generate", "{model}", "x" * 100], "the prompt has 100 tokens"),
        (["generate", "{model}", "x", "--temprature", "1"], "unrecognized arguments: --temprature 1"),
        (["generate", "{model}"], "there is no prompt, and no terminal to write one in"),
        (["serve", "{path}/nothing"], "no model at"),
        (["serve", "{model}", "--port", "99999"], "port"),
        (["serve", "{model}", "{model}"], "both called"),
        (["serve", "{model}", "{path}/nothing"], "no model at"),
        (["serve", "{model}", "--memory", "100 MB"], "alone needs"),
        (["serve", "{model}", "--memory", "much"], "memory is 'much'; write a number and a unit"),
        (["info", "gptj"], "OWNER/MODEL on the hub; `bluejay train RECIPE` makes one; a preset, such as gpt-j, can"),
        (["serv"], "invalid choice"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(
    arguments, sentence, corpus_recipe, training_recipe, model_directory, tmp_path, capsys
):
    names = {"path": tmp_path, "corpus": corpus_recipe, "training": training_recipe, "model": model_directory}
    before = sorted(tmp_path.rglob("*"))
    assert sentence.format(**names) in mistake(capsys, *[argument.format(**names) for argument in arguments])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_corpus_is_named_and_nothing_is_left(corpus_recipe, tmp_path, capsys):
    for text in (tmp_path / "text").iterdir():
        text.unlink()
    assert "text/*.txt" in mistake(capsys, "pile", "build", corpus_recipe)
    assert not (tmp_path / "corpus").exists()


def test_a_port_in_use_is_named(model_directory, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is in use" in mistake(capsys, "serve", model_directory, "--port", port)


def test_a_full_disk_while_building_or_training_is_one_line(
    corpus_recipe, training_recipe, tmp_path, capsys, file_size_limit
):
    with file_size_limit(2_000):
        line = mistake(capsys, "pile", "build", corpus_recipe)
    assert f"File too large: {tmp_path / 'corpus.stages'}/" in line and "make room and run the same" in line
    assert not (tmp_path / "corpus").exists()
    run("pile", "build", corpus_recipe, "--split.valid", "0.2")
    capsys.readouterr()
    with file_size_limit(20_000):
        assert f"File too large: {tmp_path / 'run' / 'checkpoints'}/" in mistake(capsys, "train", training_recipe)
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "run" / "model").exists()


def test_verbose_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        run("generate", tmp_path / "nothing", "x", "-v")


VERBS = {
    "pile build": ["none.toml"],
    "pile plan": ["none.toml"],
    "pile card": ["none"],
    "pile quality": ["none.safetensors", "--good", "none.jsonl", "--bad", "none.jsonl"],
    "train": ["none.toml"],
    "runs": ["none"],
    "card": ["none"],
    "compare": ["none"],
    "new": ["none", "none.txt"],
    "plan": ["none.toml"],
    "generate": ["./none", "a prompt"],
    "convert": ["./none", "target"],
    "eval": ["./none"],
    "info": ["./none"],
    "index": ["none"],
    "trace": ["./none", "x"],
    "trace report": ["./none"],
    "trace influence": ["./none", "x"],
    "lens": ["./none", "x"],
    "pull": ["no/such/name"],
    "serve": ["./none"],
    "demo": ["--host", "256.0.0.1"],
    "push": ["./none", "me/none"],
    "recipes": ["none"],
    "completion": ["none"],
}
"""Every verb, with arguments that name nothing: it has to load all of its modules to say so."""


def verbs_of(parser: argparse.ArgumentParser, before: str = "") -> list[str]:
    """The verbs of a parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    inner = [found for action in below for name in action.choices for found in [f"{before} {name}".strip()]]
    parsers = [choice for action in below for choice in action.choices.values()]
    return [verb for name, one in zip(inner, parsers, strict=True) for verb in verbs_of(one, name) or [name]]


def test_every_verb_is_tried():
    assert sorted(verbs_of(cli.parser())) == sorted(VERBS)


FORK_FOR_EACH = """
import json, os, sys
import fastapi, huggingface_hub, matplotlib.pyplot, numpy, pyarrow.parquet, rich.progress, torch, torch.distributed
import torch._dynamo
assert not any(name.split(".")[0] == "bluejay" for name in sys.modules)
for number, words in enumerate(json.load(sys.stdin)):
    if not (child := os.fork()):
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv[1:] = words
        try:
            from bluejay.cli import main
            status = main()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status or 0)  # without the second that it takes to let go of the libraries
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # or the next child would print it, too
"""
"""Processes that have imported large libraries, for speed, and nothing of ours."""


@pytest.fixture(scope="module")
def said_at_start(tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """Exit status, output and errors of every verb in a fresh process."""
    folder = tmp_path_factory.mktemp("verbs")
    words = json.dumps([[*verb.split(), *arguments] for verb, arguments in VERBS.items()])
    command = [sys.executable, "-c", FORK_FOR_EACH]
    ended = subprocess.run(command, cwd=folder, input=words, capture_output=True, text=True, check=True)
    said = [[(folder / f"{number}.{name}").read_text() for name in ("out", "err")] for number in range(len(VERBS))]
    return {verb: (int(code), *texts) for verb, code, texts in zip(VERBS, ended.stdout.split(), said, strict=True)}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_starts_in_a_fresh_process(verb, said_at_start):
    status, output, errors = said_at_start[verb]
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and "import" not in errors, errors
    assert len(errors.splitlines()) == 1


def test_a_module_that_is_run_is_the_command():
    for option, begins in (("--version", "bluejay "), ("--help", "usage: bluejay ")):
        run = subprocess.run([sys.executable, "-m", "bluejay", option], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "") and run.stdout.startswith(begins)


def test_the_guide_has_a_row_for_each_verb():
    table = (ROOT / "docs/guide.md").read_text(encoding="utf-8").partition("## The verbs")[2].partition("| --- |")[2]
    named = [verb for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for verb in re.findall("`(.*?)`", row)]
    assert sorted(named) == sorted(VERBS)


def test_a_stop_may_name_a_line_break(monkeypatch, tiny_model, capsys):
    monkeypatch.setattr("bluejay.infer.model.load", lambda *_, **__: tiny_model)
    asked = []
    monkeypatch.setattr(tiny_model, "stream", lambda _, params: asked.append(params.stop) or [])
    run("generate", "a-model", "x", "--stop", r"\n\n", "--stop", "END")
    run("generate", "a-model", "x")
    assert asked == [("\n\n", "END"), ()] and capsys.readouterr().out == "x\nx\n"


def test_the_quickstart_recipes_load():
    from bluejay.pile.recipe import PileRecipe
    from bluejay.recipe import load
    from bluejay.train.recipe import TrainRecipe

    corpus = load(PileRecipe, ROOT / "recipes/pile/quickstart.toml")
    training = load(TrainRecipe, ROOT / "recipes/train/quickstart.toml")
    assert training.data.valid == f"{corpus.directory}/tokens/valid"


def test_mistake_in_a_recipe_is_told_before_torch_is_imported(tmp_path):
    (tmp_path / "a.toml").write_text("name = ")
    code = f"""
import sys
from bluejay.cli import main
for verb in (["train"], ["pile", "build"], ["pile", "plan"]):
    try:
        main([*verb, {str(tmp_path / "a.toml")!r}])
    except SystemExit as ended:
        assert ended.code == 2
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 3, done.stderr


@pytest.mark.parametrize("verb", ["generate", "--help"])
def test_pipe_that_nobody_reads_ends_a_verb_without_a_word(verb, model_directory):
    arguments = ["generate", str(model_directory), "x", "--max-tokens", "60"] if verb == "generate" else [verb]
    command = [sys.executable, "-c", f"from bluejay.cli import main; main({arguments})"]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # else Python writes at once, and has nothing left at its exit
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.slow  # corpora are built and models trained and measured
@pytest.mark.filterwarnings("ignore:Use 'content=")  # as in test_push.py
def test_no_verb_complains_that_nobody_reads_what_it_prints(
    corpus_recipe,
    training_recipe,
    tmp_path,
    hub,  # noqa: F811
    capsys,
    monkeypatch,
):
    """As after `| head -1`: every verb ends with 141, says nothing of it, and what it makes is there."""
    model, text, rows = tmp_path / "run/model", tmp_path / "text", tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Text", "completion": " number 1"}\n' * 3)
    (tmp_path / "own.toml").write_text('name = "own"\ndata = "own.jsonl"\nprompt = "{question}"\n')
    (tmp_path / "own.jsonl").write_text('{"question": "one two", "choices": [" three", " one"], "gold": 0}\n' * 2)
    (tmp_path / "good.jsonl").write_text('{"text": "A sentence of some words that stand in a good order."}\n' * 40)
    (tmp_path / "bad.jsonl").write_text('{"text": "click here click here subscribe now !!! $$$"}\n' * 40)
    monkeypatch.chdir(tmp_path)
    tuning = ["--init", model, "--output", tmp_path / "tuned", "--model", "{}", "--data.valid", rows]
    tuning += ["--train.schedule.warmup", 0.1, "--data.train", f'[{{ shards = "{rows}" }}]']
    every: dict[str, list[tuple[list[object], str]]] = {
        "pile plan": [([corpus_recipe], "")],
        "pile build": [([corpus_recipe, "--split.valid", "0.2", "--workers", 1], "corpus/tokens/train.bin")],
        "pile card": [([tmp_path / "corpus"], "")],
        "pile quality": [(["q.safetensors", "--good", "good.jsonl", "--bad", "bad.jsonl"], "q.safetensors")],
        "index": [([tmp_path / "corpus"], "")],
        "trace": [([tmp_path / "corpus", "says: one two three. one two"], "")],
        "new": [(["folder", text], "folder/pile.toml")],
        "plan": [([training_recipe, "--hardware", ROOT / "recipes/hardware/h100.toml", "--hardware.devices", 1], "")],
        "train": [
            ([training_recipe], "run/model/model.safetensors"),
            ([training_recipe, "--export", 10], ""),
            ([training_recipe, *tuning], "tuned/model/model.safetensors"),
        ],
        "lens": [([model, "the", "--output", "look.json"], "look.json")],
        "trace influence": [([tmp_path / "run", "one two"], "run/influence/step-10/whole.gradients")],
        "card": [([tmp_path / "run"], "run/model/README.md")],
        "runs": [([tmp_path], ""), (["--json", tmp_path], "")],
        "compare": [([tmp_path / "tuned", "--max-tokens", 2], "")],
        "generate": [([model, "x", "--max-tokens", 2, *more], "") for more in ([], ["-n", 2], ["--json"])],
        "convert": [([model, "half", "--dtype", "float16"], "half/config.json")],
        "eval": [([model, "--tasks", "own.toml", "--report", "report"], "report/report.html")],
        "info": [([model], ""), (["gpt2", "--json"], "")],
        "push": [([model, "me/tiny"], "")],
        "pull": [(["me/tiny", "--directory", "pulled"], "pulled/config.json")],
        "recipes": [([], ""), (["train/quickstart"], "recipes/train/quickstart.toml")],
        "completion": [([shell], "") for shell in ("bash", "zsh", "tcsh")],
    }
    not_here = {"serve", "demo", "trace report"}  # which print nothing, and which needs a larger corpus
    assert every.keys() == set(verbs_of(cli.parser())) - not_here
    everywhere = [([*verb.split(), *arguments], made) for verb, calls in every.items() for arguments, made in calls]
    everywhere += [([*verb.split(), "--help"], "") for verb in VERBS] + [(["--version"], ""), (["pile", "--help"], "")]
    complaints = []
    for arguments, made in everywhere:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as stdout, monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.setattr(sys, "stdout", stdout)
            run(*arguments)
        said = capsys.readouterr().err
        if left.value.code != 141 or "rror" in said or not (tmp_path / made).exists():
            complaints.append((arguments, left.value.code, said))
    assert not complaints


def test_a_closed_stream_needs_no_reader_and_gives_no_text(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    cli.main(["recipes"])
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["generate", "a-model", "-"])
    assert capsys.readouterr().err == "error: standard input is closed; give the text as an argument, or by a pipe\n"


def test_a_user_without_a_home_is_told_so(monkeypatch, capsys):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["eval", "a-model", "--tasks", "~/own.toml"])
    assert capsys.readouterr().err.startswith("error: this user has no home folder, which ~ stands for; set HOME")
