"""What a command says of a user's mistake, and of what the environment brings with it."""

import io
import sys

import pytest

from bluejay import cli
from bluejay.mistakes import sentence


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
        ("train --minutes 1 ./my.toml --seed 7", "no recipe at my.toml"),
        ("train --seed=7 my.toml", "no recipe at my.toml"),
        ("generate m x --max_tokens 5", "--max_tokens 5; did you mean --max-tokens? (see bluejay generate --help)"),
        ("pile card data --jsn", "--jsn; did you mean --json? (see bluejay pile card --help)"),
        ("generate m x --zzzz", "unrecognized arguments: --zzzz (see bluejay generate --help)"),
        ("generate m --json", "--json needs a prompt"),
    ],
)
def test_a_misplaced_or_misspelt_option_is_named(command, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert says in mistake(capsys, *command.split())


def test_a_proxy_that_needs_another_package_is_one_sentence(tmp_path, monkeypatch, capsys):
    def without_socks(*_: object) -> None:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    monkeypatch.setattr("bluejay.gpt.formats.hub.pull", without_socks)
    said = mistake(capsys, "pull", "gpt2", "--directory", str(tmp_path))
    assert "python -m pip install socksio" in said and said.count("\n") == 1


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
