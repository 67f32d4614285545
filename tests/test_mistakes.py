"""What a command says of a user's mistake, and of what the environment brings with it."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from bluejay import cli, extras
from bluejay.mistakes import sentence, text_given
from bluejay.progress import say


def mistake(capsys, *arguments: str) -> str:
    """What a command says that ends with the code of a mistake."""
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments])
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "train --seed 7 my.toml",
            "--seed stands before the recipe; fields follow it: bluejay train RECIPE --seed VALUE",
        ),
        ("train --minutes 1 --init models/x chat.jsonl", "--init stands before the recipe"),
        ("pile build --workers 1 --seed -1 my.toml", "bluejay pile build RECIPE --seed VALUE"),
        ("train --minutes 1 ./my.toml --seed 7", "/my.toml; write it first"),
        ("train --seed=7 my.toml", "/my.toml; write it first"),
        ("generate m x --max_tokens 5", "--max_tokens 5; did you mean --max-tokens? (see bluejay generate --help)"),
        ("generate --model m x", "unrecognized arguments: --model; the model is given without --model (see bluejay"),
        ("eval --model m", "unrecognized arguments: --model; the model is given without --model (see bluejay eval"),
        ("train file.txt --minuts 1", "--minuts is neither an option nor a field of a recipe; did you mean --minutes?"),
        ("train file.txt --lr 1", "--lr is neither an option nor a field of a recipe; did you mean train.lr?"),
        ("train file.txt --train.lrr 1", "--train.lrr is neither an option nor a field of a recipe; did you mean lr?"),
        ("train model", "model is a model, and no text; bluejay train TEXT --init MODEL trains it further"),
        ("train quickstart", "there is no such file or folder; bluejay recipes lists the recipes that come with"),
        ("generate modle x", "no model at modle (did you mean model?)"),
        ("info runs/fabel/model", "no model at runs/fabel/model (did you mean runs/fable/model?)"),
        ("info runs/fabel", "if runs/fabel is on the hub (or did you mean runs/fable?)"),
        ("generate fable x", "no model at fable (did you mean runs/fable?)"),
        ("info jay", "no model at jay (did you mean models/jay?)"),
        ("info runs/other/model", "no model at runs/other/model; a model is a folder"),
        ("card data/c", "data/c is a corpus, and no run; bluejay pile card data/c writes its card"),
        ("pile card data --jsn", "--jsn; did you mean --json? (see bluejay pile card --help)"),
        ("generate m x --zzzz", "unrecognized arguments: --zzzz (see bluejay generate --help)"),
        ("generate m --json", "--json needs a prompt"),
        ("genrate m x", "invalid choice: 'genrate'; did you mean generate? (see bluejay --help)"),
        ("chat m x", "invalid choice: 'chat'; did you mean generate? (see bluejay --help)"),
        ("run m x", "invalid choice: 'run'; did you mean generate? (see bluejay --help)"),
        ("--model m generate", "unrecognized arguments: --model (see bluejay --help)"),
        ("pile biuld x.toml", "invalid choice: 'biuld'; did you mean build? (see bluejay pile --help)"),
        ("--verison", "unrecognized arguments: --verison; did you mean --version? (see bluejay --help)"),
        ("generate m class Car:", "Car:; a text of several words stands between quotes (see bluejay generate --help)"),
        ("--json info m", "--json stands before the verb; options follow it: bluejay VERB --json"),
        ("-v pile build x.toml", "-v stands before the verb; options follow it: bluejay VERB -v"),
        ("pile --json build x.toml", "--json stands before the step; options follow it: bluejay pile STEP --json"),
        ("generate m x --max-tokens 2k", "argument --max-tokens: it is 2k; it must be a whole number (see"),
        ("generate m x --top-p all", "argument --top-p: it is all; it must be a number (see"),
        ("generate m x --logit-bias 7", "argument --logit-bias: it is 7; it must be TOKEN=NUMBER (see"),
        ("card m --watts -3", "--watts is -3; it must be a number above 0"),
        ("card m --watts nan", "--watts is nan; it must be a number above 0"),
        ("runs m --picture runs.svg", "--picture is runs.svg; it must end in .png"),
        ("runs m --picture folder.png", "folder.png is a folder; name a file"),
        ("trace report m --output file.txt", "file.txt is a file; name a folder"),
        ("convert m out.bin", "out.bin is a name for a file of weights; name a folder, or a file that ends in .gguf"),
    ],
)
def test_a_misplaced_or_misspelt_option_is_named(command, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.txt").touch()
    for folder in ("model", "runs/fable/model", "models/jay", "data/c/tokens"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/c/tokens/train.idx").touch()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).touch()
    assert says in mistake(capsys, *command.split())


@pytest.mark.parametrize(
    "arguments", [["--max-tokens", "3", "--", "--x"], ["--", "--x"], ["--max-tokens=3", "--", "-5"]]
)
def test_a_prompt_after_two_dashes_may_begin_with_dashes(arguments):
    options, rest = cli.parser().parse_known_args(["generate", "m", *arguments])
    assert (options.prompt, rest) == (arguments[-1], [])


@pytest.mark.parametrize("words", [["help", "pile", "build"], ["pile", "build", "--help"]])
def test_help_of_a_verb_is_asked_for_by_word_or_option(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(words)
    assert capsys.readouterr().out.startswith("usage: bluejay pile build ")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as in en_US.UTF-8, and as in C and C.UTF-8
def test_a_text_that_is_not_utf_8_is_refused_whatever_the_locale(errors, monkeypatch):
    def piped(data: bytes) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=errors))
        return text_given("-")

    assert piped(b"\xef\xbb\xbfcaf\xc3\xa9\n") == "caf\xe9\n"
    for data in (b"caf\xe9", "caf\xe9".encode("utf-16")):
        with pytest.raises(ValueError, match="standard input is not UTF-8 text: "):
            piped(data)
    with pytest.raises(ValueError, match="the text is not UTF-8 text: invalid byte after 'caf'"):
        text_given(os.fsdecode(b"caf\xe9"))


def test_a_proxy_that_needs_another_package_is_one_sentence(tmp_path, monkeypatch, capsys):
    def without_socks(*_: object) -> None:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    monkeypatch.setattr("bluejay.gpt.formats.hub.pull", without_socks)
    said = mistake(capsys, "pull", "gpt2", "--directory", str(tmp_path))
    assert f"`{shlex.join([*extras.installer(), 'socksio'])}`" in said and said.count("\n") == 1


@pytest.mark.parametrize(("name", "kind"), [("SSL_CERT_FILE", "file"), ("SSL_CERT_DIR", "folder")])
def test_certificates_that_are_gone_are_named(name, kind, monkeypatch):
    monkeypatch.setenv(name, "/no/where.pem")
    said = sentence(FileNotFoundError(2, "No such file or directory"))
    assert said == f"{name} is /no/where.pem, where no {kind} is; correct or unset it"
    assert sentence(FileNotFoundError(2, "No such file or directory", "a.txt")) == "No such file or directory: a.txt"


@pytest.mark.parametrize("rank", ["", "1"])
def test_only_a_run_of_several_processes_leaves_its_result_to_the_first(rank, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(cli, "run_train", lambda *_: ("trained", {}))
    cli.main(["recipes"])
    assert "train/quickstart" in capsys.readouterr().out
    cli.main(["train", "my.toml"])
    assert capsys.readouterr().out == ("" if rank else "trained\n")


def test_what_a_locale_cannot_encode_is_a_question_mark(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="latin-1"))
    monkeypatch.setattr(cli, "run_card", lambda *_: ("résumé — done", {}))
    cli.main(["card", "run"])
    assert printed.getvalue().decode("latin-1") == "résumé ? done\n"


@pytest.mark.parametrize(("name", "said"), [("\x1b]0;title\a", "x1b]0;title"), ("a" * 100_000, "aaa … aaa")])
def test_a_mistake_that_quotes_a_file_is_short_and_no_terminal_obeys_it(name, said, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    line = mistake(capsys, "info", str(tmp_path))
    assert said in line and len(line) < 3000 and not set("\x1b\a") & set(line)


def test_what_is_said_of_a_file_is_obeyed_by_no_terminal(capsys):
    say("a name \x1b]0;title\a")
    assert capsys.readouterr().err == "a name \\x1b]0;title\\x07\n"


def test_a_full_disk_is_told_to_leave_nothing_of_ours_and_a_shells_output_is_not_ours():
    helps = "make room and run the same command again"
    ours = OSError(errno.ENOSPC, "No space left on device", "runs/a")
    assert sentence(ours) == f"No space left on device: runs/a; nothing half-written is left, so {helps}"
    assert sentence(OSError(errno.ENOSPC, "No space left on device")) == f"No space left on device; {helps}"


def test_a_second_ctrl_c_while_python_ends_shows_no_traceback():
    code = """
import atexit, os, signal, sys
from bluejay import cli
def press(*_): os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(press)
sys.argv, cli.parser = ["bluejay"], press
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
