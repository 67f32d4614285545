"""What leads to a person: e-mail addresses, phone numbers and IP addresses become ones that belong to nobody.

A text is searched in Python only where Arrow's regular expressions, which are fast, find something like them.
"""

import ipaddress
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from bluejay.pile.text.text_batch import Texts

NOBODY = {"e-mail": "email@example.com", "phone": "555-0100", "IP": "192.0.2.1", "IPv6": "2001:db8::1"}
"""From what is set apart for examples: RFC 2606, the numbering plan of North America, RFC 5737 and RFC 3849."""

LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}(?![\w-])"
EMAIL = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z0-9_]{LOCAL}*(?:\.{LOCAL}+)*@{DOMAIN}")
"""As RFC 5322 writes it without quotes and comments, at a domain whose last label is letters."""
PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    r"\+[1-9]\d{0,2}[ -]?(?:\(\d{1,4}\)[ -]?)?\d{1,4}(?:[ -]?\d{2,4}){2,4}"
    r"|\+[1-9]\d{0,2}(?:\.\d{1,4}){3,5}"
    r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?[2-9]\d{2}[.-]|[2-9]\d{2}([.-])[2-9]\d{2}\1)\d{4}"
    r")(?![\w-]|\.\d)"
)
"""With a country's code after "+" (ITU E.123), or in the groups of North America. A mere run of digits is none."""
BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IP = re.compile(rf"(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)")
"""Those in use begin with 2 or 3 (RFC 4291, global unicast); `a::b` is more often source code."""
SCREENS = {
    "e-mail": r"[A-Za-z0-9_]@[A-Za-z0-9]",
    "phone": r"\+[1-9][ \d.(-]*\d|\d[.)-] ?[2-9]\d\d[.-]\d{4}",
    "IP": r"\d\.\d{1,3}\.\d{1,3}\.\d",
    "IPv6": r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]*:",
}
"""What a text must hold somewhere to be searched."""


def replace_personal(texts: Texts) -> tuple[Texts, dict[str, int]]:
    """The texts with all of these replaced, and how many of each kind there were.

    IP addresses are replaced where they are public: those of private networks lead to nobody.
    """
    counts = dict.fromkeys(("e-mail", "phone", "IP"), 0)
    for kind, pattern, meant in (
        ("e-mail", EMAIL, bool),
        ("IP", IP, is_public),
        ("IPv6", IPV6, is_public),
        ("phone", PHONE, is_phone),
    ):
        likely = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(SCREENS[kind]))
        changed = []
        for text in texts.filter(likely).to_pylist():
            text, count = replaced(text, pattern, NOBODY[kind], meant)
            counts[kind.removesuffix("v6")] += count
            changed.append(text)
        texts = pc.call_function("replace_with_mask", [texts, likely, pa.array(changed, texts.type)])
    return texts, counts


def replaced(text: str, pattern: re.Pattern[str], nobody: str, meant: Callable[[str], bool]) -> tuple[str, int]:
    """A text with what a pattern finds replaced, and how often that was."""
    count = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == nobody or not meant(match[0]):
            return match[0]
        count += 1
        return nobody

    return pattern.sub(replacement, text), count


def is_public(address: str) -> bool:
    """Whether this is an IP address that anyone can reach."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def is_phone(number: str) -> bool:
    """Whether a number has as many digits as phone numbers have (ITU E.164: at most 15)."""
    return 8 <= sum(map(str.isdigit, number)) <= 15
