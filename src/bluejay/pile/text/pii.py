"""Replace e-mail addresses, phone numbers and IP addresses by ones that belong to nobody.

Arrow's regular expressions, which are fast, find the texts that may hold any; only those are searched in Python.
"""

import ipaddress
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from bluejay.pile.text.text_batch import Texts

NOBODY = {"e-mail": "email@example.com", "phone": "555-0100", "IP": "192.0.2.1", "IPv6": "2001:db8::1"}
"""Replacements, reserved for examples: by RFC 2606, the North American Numbering Plan, RFC 5737 and RFC 3849."""

LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}(?![\w-])"
EMAIL = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z0-9_]{LOCAL}*(?:\.{LOCAL}+)*@{DOMAIN}")
"""An address of RFC 5322 without quotes and comments, at a domain whose last label consists of letters."""
PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    r"\+[1-9]\d{0,2}[ -]?(?:\(\d{1,4}\)[ -]?)?\d{1,4}(?:[ -]?\d{2,4}){2,4}"
    r"|\+[1-9]\d{0,2}(?:\.\d{1,4}){3,5}"
    r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?[2-9]\d{2}[.-]|[2-9]\d{2}([.-])[2-9]\d{2}\1)\d{4}"
    r")(?![\w-]|\.\d)"
)
"""A number with a country code after "+" (ITU E.123), or in North American groups; never a mere run of digits."""
BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IP = re.compile(rf"(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)")
"""A global unicast address, which begins with 2 or 3 (RFC 4291); `a::b` is more often source code."""
SCREENS = {
    "e-mail": r"[A-Za-z0-9_]@[A-Za-z0-9]",
    "phone": r"\+[1-9][ \d.(-]*\d|\d[.)-] ?[2-9]\d\d[.-]\d{4}",
    "IP": r"\d\.\d{1,3}\.\d{1,3}\.\d",
    "IPv6": r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]*:",
}
"""A text is searched for a kind only where this pattern, in the syntax of Arrow (RE2), matches."""


def replace_personal(texts: Texts) -> tuple[Texts, dict[str, int]]:
    """Replace personal data in texts, and count the replacements by kind.

    Only public IP addresses are replaced: those of private networks identify nobody.
    """
    counts = dict.fromkeys(("e-mail", "phone", "IP"), 0)
    for kind, pattern, is_personal in (
        ("e-mail", EMAIL, bool),
        ("IP", IP, is_public),
        ("IPv6", IPV6, is_public),
        ("phone", PHONE, is_phone),
    ):
        likely = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(SCREENS[kind]))
        changed = []
        for text in texts.filter(likely).to_pylist():
            text, count = replace_matches(text, pattern, NOBODY[kind], is_personal)
            counts[kind.removesuffix("v6")] += count
            changed.append(text)
        texts = pc.call_function("replace_with_mask", [texts, likely, pa.array(changed, texts.type)])
    return texts, counts


def replace_matches(
    text: str, pattern: re.Pattern[str], nobody: str, is_personal: Callable[[str], bool]
) -> tuple[str, int]:
    """Replace the matches of a pattern that are personal, and count them."""
    count = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == nobody or not is_personal(match[0]):
            return match[0]
        count += 1
        return nobody

    return pattern.sub(replacement, text), count


def is_public(address: str) -> bool:
    """Whether this is a public IP address."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def is_phone(number: str) -> bool:
    """Whether the number of digits is that of a phone number (ITU E.164: at most 15)."""
    return 8 <= sum(map(str.isdigit, number)) <= 15
