"""Finds where a function ends, in languages that indent their blocks and in those with braces.

`serve/page/on_demand/function_end.js` has the same rules; one list of examples tests both."""

import re

OPENER = re.compile(r"^([ \t]*)(?:async[ \t]+def|def|class)\b[^{\n]*$", re.MULTILINE)
BRACES = re.compile(
    r"//.*|/\*(?s:.*?)(?:\*/|\Z)|^#.*"  # comments
    r'|"(?:\\.|[^"\\\n])*"?' + r"|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?|([{}])",
    re.MULTILINE,
)


def function_end(prompt: str, added: str) -> int | None:
    """The number of characters of `added` that belong to the function that the prompt begins, or else to the first
    function that `added` begins; None until that function has ended."""
    text, length = prompt + added, len(prompt)
    openers = list(OPENER.finditer(text))
    if not openers:
        end = end_of_braces(text, length)
        return None if end is None else end - length
    begun = next((one for one in reversed(openers) if one.start() < length), None)
    new = next((one for one in openers if one.start() >= length), None)
    for opener in (begun, new):
        if opener is not None:
            end = end_of_block(text, opener)
            if end is None or end > length:
                return None if end is None else end - length
    return None


def end_of_block(text: str, opener: re.Match) -> int | None:
    """The end of an indented block: the last line before one that is indented no further than the block's first
    line. None until that line has come."""
    at = end = opener.start()
    quoted = False  # inside a triple-quoted string
    for line in text[at:].split("\n"):
        words = line.lstrip(" \t")
        outside = len(line) - len(words) <= len(opener[1]) and re.match(r"[^\s)\]}]", words)
        if at > opener.start() and not quoted and outside:
            return end
        if len(re.findall('"""|' + "'''", line)) % 2:
            quoted = not quoted
        if words.strip():
            end = at + len(line)
        at += len(line) + 1
    return None


def end_of_braces(text: str, length: int) -> int | None:
    """The end of a block in braces: the innermost block open after `length` characters, or the first one opened later.
    None until its last brace has come."""
    depth, target = 0, None
    for found in BRACES.finditer(text):
        if found.start() >= length and target is None:
            target = max(0, depth - 1)
        if found[1]:
            depth += 1 if found[1] == "{" else -1
        if found[1] == "}" and target is not None and depth <= target:
            return found.end()
    return None
