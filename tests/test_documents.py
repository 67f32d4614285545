"""The pages can be followed: links lead to files and headings, and commands have only options that there are."""

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from bluejay import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```\w*(?: file=\S+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (bluejay .*)$", re.MULTILINE)


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in headings(target)):
            dead.append(link)
    assert dead == []


def commands() -> list[tuple[str, str]]:
    """(page, command) of each command of ours in a block of code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *INDENTED.findall(text)]:
            line = line.strip().removeprefix(".venv/bin/").removeprefix("srun ")
            if line.startswith("bluejay "):
                found.append((str(page.relative_to(ROOT)), line))
    return found


def test_commands_in_blocks_of_code_can_be_parsed():
    parser, wrong, found = cli.parser(), [], commands()
    for page, command in found:
        lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = [*lexer][1:]
        end = next((at for at, word in enumerate(words) if re.fullmatch("[|&;<>]+", word)), len(words))
        words = words[:end]
        if " ".join(words[:2]) in cli.TWO_WORDS:
            words = [" ".join(words[:2]), *words[2:]]
        error = io.StringIO()
        try:
            with contextlib.redirect_stderr(error):
                options, overrides = parser.parse_known_args(words)
            if overrides and not options.takes_overrides:
                wrong.append(f"{page}: {command}: {overrides}")
        except SystemExit:
            wrong.append(f"{page}: {command}: {error.getvalue()}")
    assert len(found) > 50 and wrong == []
