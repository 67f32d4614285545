"""The parser of the command line: its errors are one line that names what was probably meant."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from bluejay.fields import pair
from bluejay.progress import for_terminal
from bluejay.train.distributed.processes import reporting_once

TEXTS = ("prompt", "text")
"""The arguments of verbs that are texts, which may be several words."""
KINDS = {int: "a whole number", float: "a number", pair: "TOKEN=NUMBER"}
"""Types of options, and what a value of each is called."""
OTHER_NAMES = {
    **dict.fromkeys(("chat", "run", "complete", "infer", "predict", "repl"), "generate"),
    **dict.fromkeys(("finetune", "fine-tune", "fit"), "train"),
    **dict.fromkeys(("test", "bench", "benchmark"), "eval"),
    **dict.fromkeys(("download", "get", "fetch"), "pull"),
    **dict.fromkeys(("upload", "publish"), "push"),
    **dict.fromkeys(("quantize", "export"), "convert"),
    **dict.fromkeys(("show", "inspect"), "info"),
    **dict.fromkeys(("web", "ui", "start"), "serve"),
    **dict.fromkeys(("build", "tokenize", "prepare"), "pile"),
    "init": "new",
}
"""What other programs call a verb -> the verb."""
MOST_CHARACTERS = 2_000
"""A longer mistake quotes a value of a file that is far too long; its middle is left out."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that takes a text that stands after options."""

    words: Sequence[str] = ()
    """What is parsed, for errors."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Argparse takes an optional argument only beside the one before it: give it the one word that is left over.
        After `--`, it may begin with dashes."""
        self.words = args or ()
        found, rest = super().parse_known_args(args, namespace)
        words = [word for word in rest if word != "--"]
        left = [one for one in self._actions if one.nargs == "?" and not one.option_strings]
        missing = len(words) == 1 == len(left) and getattr(found, left[0].dest) is None
        if missing and ("--" in (args or ()) or not words[0].startswith("--")):
            setattr(found, left[0].dest, self._get_values(left[0], words))
            return found, []
        return found, rest

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Say what a value must be, where argparse would name a type of Python."""
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if action.type not in KINDS:
                raise
            told = f"it is {arg_string}; it must be {KINDS[action.type]}"
            raise argparse.ArgumentError(action, told) from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the choice that a misspelt one may stand for, where there is one."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            choices = [str(one) for one in action.choices or ()]
            known = [name for name in (OTHER_NAMES.get(value),) if name in choices]
            if not (near := known or difflib.get_close_matches(str(value), choices, 1)):
                raise
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; did you mean {near[0]}?") from error

    def error(self, message: str) -> NoReturn:
        """Report the mistake and exit with code 2."""
        fail(f"{message}{dashed_file(self.words)} (see {self.prog} --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit after a help text, whose reader may be gone."""
        sys.stdout.flush()
        super().exit(status, message)


def fail(message: object, mends_itself: bool = False) -> NoReturn:
    """Report a user's mistake in one line on standard error, which no terminal obeys, and exit with code 2."""
    line, half = " ".join(str(message).split()), MOST_CHARACTERS // 2
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:half]} … {line[-half:]}"
    with nullcontext() if mends_itself else reporting_once():
        print("error:", for_terminal(line), file=sys.stderr)
    sys.exit(2)


def refuse(words: list[str], parser: argparse.ArgumentParser) -> NoReturn:
    """Refuse words that a parser does not know: name the option that the first may be a misspelling of, if there is
    one, and where all of them are listed."""
    name, advice = words[0].partition("=")[0].replace("_", "-"), ""
    what = name.strip("-").rstrip("s")
    if name.startswith("-") and what in (one.dest.rstrip("s") for one in parser._actions if not one.option_strings):
        advice = f"; the {what} is given without {name}"
    elif name.startswith("-"):
        options = {option.strip("-"): option for option in parser._option_string_actions}
        near = difflib.get_close_matches(name.strip("-"), options, 1)
        advice = "".join(f"; did you mean {options[option]}?" for option in near)
    elif any(one.dest in TEXTS for one in parser._actions):
        advice = "; a text of several words stands between quotes"
    fail(f"unrecognized arguments: {' '.join(words)}{dashed_file(words) or advice} (see {parser.prog} --help)")


def dashed_file(words: Sequence[str]) -> str:
    """How to write the first of some words that names a file and was taken for an option; empty where none does."""
    here = next((word for word in words if word.startswith("-") and word != "--" and Path(word).exists()), None)
    return "" if here is None else f"; {here} begins like an option: write {shlex.quote(f'./{here}')}"


def require_verb_first(words: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse an option of a verb, or an unknown one, before the verb, for which argparse would only miss the verb."""
    verbs = verbs_of(parser)
    if not words or verbs is None:
        return
    if words[0] in verbs.choices:
        return require_verb_first(words[1:], verbs.choices[words[0]])
    name = words[0].partition("=")[0]
    if name.startswith("-") and not any(option.startswith(name) for option in parser._option_string_actions):
        if any(name in one._option_string_actions for one in all_parsers(parser)):
            verb = verbs.metavar
            fail(f"{name} stands before the {str(verb).lower()}; options follow it: {parser.prog} {verb} {name}")
        refuse(words[:1], parser)


def verbs_of(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[Any] | None":
    """The verbs of a parser; None where it is one of a verb."""
    return next((one for one in parser._actions if isinstance(one, argparse._SubParsersAction)), None)


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its verbs."""
    yield parser
    for verb in (verbs.choices if (verbs := verbs_of(parser)) else {}).values():
        yield from all_parsers(verb)


def require_recipe_first(words: list[str], overrides: list[str], options: argparse.Namespace) -> None:
    """Refuse a recipe's field before the recipe: argparse, which does not know it, took its value for the recipe."""
    field = next((word for word in overrides if word.startswith("--") and "=" not in word), None)
    if field is not None:
        recipe = next(getattr(options, one.dest) for one in options.parser._actions if not one.option_strings)
        if field in words[: [Path(word) for word in words].index(recipe)]:
            prog = options.parser.prog
            fail(f"{field} stands before the recipe; fields follow it: {prog} RECIPE {field} VALUE")
