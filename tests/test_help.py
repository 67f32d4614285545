"""What the command line tells those who type: its help, completion in a shell, and commands to paste."""

import argparse
import importlib.util
import os
import subprocess
import sys

import pytest

from bluejay import cli
from bluejay.verbs.parser import all_parsers
from tests.test_cli import run


def test_help_answers_at_once():
    program = "import sys; from bluejay.cli import parser; parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "torch", "rich", "pyarrow", "tokenizers", "httpx", "jinja2"} & set(modules)


def test_help_names_only_fields_that_the_verb_takes(capsys):
    for words, takes_hardware in ((["plan"], True), (["pile", "plan"], False), (["pile", "build"], False)):
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
        assert ("--hardware" in capsys.readouterr().out) == takes_hardware


@pytest.mark.parametrize(("shell", "expected"), [("bash", "-F _shtab_bluejay bluejay"), ("zsh", "#compdef bluejay")])
def test_a_shell_completes_verbs_and_options(shell, expected, capsys):
    if importlib.util.find_spec("shtab") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("shtab is not installed")
    cli.main(["completion", shell])
    printed = capsys.readouterr().out
    assert expected in printed and "convert" in printed and "--quantize" in printed
    words = printed.replace("bluejay trace report", "")  # which a help text names
    assert "trace" in words and "trace report" not in words and "trace_report" not in words


def test_a_shell_completes_names_of_files_where_one_may_stand_and_else_what_may(tmp_path, capsys):
    pytest.importorskip("shtab")
    cli.main(["completion", "bash"])
    (tmp_path / "my novel.txt").touch()
    (tmp_path / "complete.sh").write_text(
        capsys.readouterr().out
        + """
        for line in "train my" "eval m --suite ol" "eval m --limit my" "recipes pile/qu"; do
            COMP_WORDS=(bluejay $line) COMPREPLY=()
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _shtab_bluejay bluejay "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            echo "${COMPREPLY[*]}"
        done"""
    )
    done = subprocess.run(["bash", "complete.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["my novel.txt", "olmes", "", "pile/quickstart"]


def test_the_commands_that_a_new_recipe_names_can_be_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a text.txt").write_text("One two three.")
    run("new", "my novel", "a text.txt")
    printed = capsys.readouterr().out
    assert "bluejay pile build 'my novel/pile.toml' && bluejay train 'my novel/train.toml'" in printed


@pytest.mark.parametrize(
    "words", [["train", "-notes.txt"], ["train", "-notes.txt", "--minutes", "1"], ["card", "run", "-notes.txt"]]
)
def test_a_file_whose_name_begins_like_an_option_is_told_how_to_write_it(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-notes.txt").write_text("text")
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "; -notes.txt begins like an option: write ./-notes.txt (see bluejay" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "-other.txt"])
    assert "begins like an option" not in capsys.readouterr().err


def test_options_that_may_be_repeated_say_so():
    actions = [action for one in all_parsers(cli.parser()) for action in one._actions]
    repeated = [action for action in actions if isinstance(action, argparse._AppendAction)]
    assert {"--stop", "--origin", "--suite"} <= {option for action in repeated for option in action.option_strings}
    assert [action.dest for action in repeated if "may be repeated" not in str(action.help)] == []


def test_a_missing_argument_is_named_alone(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare"])
    assert "required: run (see" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_help_says_where_a_shell_reads_its_completion(shell, capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "--help"])
    assert shell in " ".join(capsys.readouterr().out.split()).partition("traceback of an error ")[2]
