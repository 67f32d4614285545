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

LETTERS = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
"""Latin letters, also those with marks, in a class of characters."""
LOCAL = rf"[{LETTERS}0-9!#$%&'*+/=?^_`{{|}}~-]"
DOMAIN = rf"(?:[{LETTERS}0-9](?:[{LETTERS}0-9-]*[{LETTERS}0-9])?\.)+[A-Za-z]{{2,}}(?![^\W_]|_\w|-[^\W_]|\.\w|[(\[])"
EMAIL = re.compile(rf"(?<![{LETTERS}0-9])(?=[^\s@]{{1,256}}@)[{LETTERS}0-9_]{LOCAL}*(?:\.{LOCAL}+)*@{DOMAIN}", re.ASCII)
"""An address of RFC 5322 without quotes and comments, with the Latin letters of RFC 6531, at what may be a domain: not
where more of a name or a bracket follows, as in source code that multiplies matrices (`q@k.transpose(0, 1)`). Its local
part has at most 256 characters, those of a whole path (RFC 5321, section 4.5.3.1.3): the search takes time in
proportion to the length of a text."""
COUNTRIES = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bv bw by bz ca cc cd cf
cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gb gd ge gf gg
gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp
kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne
nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sj sk
sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tp tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi
vn vu wf ws ye yt yu za zm zw
"""
GENERIC = """
aero app arpa art asia bank bio biz blog cat center church city cloud club codes coffee com community company
consulting coop design dev digital directory edu education email energy engineering events expert family farm finance
fund fyi gal games global gmbh gov group guru health help hotel house info ink institute int international jobs kim
land lat law legal life live london ltd marketing media mil mobi museum music name net network news nyc one online
org organic paris partners party photography photos plus post press pro pub report rocks sale school science scot
services shop site social software solutions space store studio style support swiss systems team tech technology tel
tips today tokyo tools top town training travel university ventures vip wales wang watch web wedding wiki win work
world wtf xxx xyz zone berlin wien hamburg koeln cologne brussels amsterdam moscow istanbul quebec bzh eus cymru
bitnet csnet example invalid local localdomain test uucp
"""
TOP_LEVEL_DOMAINS = frozenset((COUNTRIES + GENERIC).split())
"""Those of IANA's root zone that people have addresses in, and former and private ones."""
BLANK, HYPHEN = " \u00a0\u202f", "\u2010\u2011\u2013-"
"""Spaces and hyphens, also those at which no line is broken, in a class of characters."""
BETWEEN = f"[{BLANK}{HYPHEN}]"
PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    rf"\+[1-9]\d{{0,2}}{BETWEEN}?(?:\(\d{{1,4}}\){BETWEEN}?)?\d{{1,4}}(?:{BETWEEN}?\d{{2,4}}){{2,4}}"
    rf"|\+[1-9]\d{{0,2}}{BETWEEN}\d{{2,5}} ?/ ?\d{{2,4}}(?:{BETWEEN}?\d{{2,4}}){{1,3}}"
    r"|\+[1-9]\d{0,2}(?:\.\d{1,4}){3,5}"
    rf"|(?:1[.{BLANK}{HYPHEN}])?(?:\([2-9]\d{{2}}\)[{BLANK}]?[2-9]\d{{2}}[.{BLANK}{HYPHEN}]|"
    rf"[2-9]\d{{2}}([.{HYPHEN}])[2-9]\d{{2}}\1)\d{{4}}"
    r")(?!(?!x\d)[\w-]|\.\d)",
    re.ASCII,
)
"""A number with a country code after "+" (ITU E.123), or in North American groups, also before an extension such as
x123; never a mere run of digits. As in the other patterns, a letter beyond ASCII may stand beside it: Chinese and
Japanese have no spaces."""
BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IP = re.compile(rf"(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w|\.\d)", re.ASCII)
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)", re.ASCII)
"""A global unicast address, which begins with 2 or 3 (RFC 4291); `a::b` is more often source code."""
SCREENS = {
    "e-mail": rf"[{LETTERS}0-9_]@[{LETTERS}0-9]",
    "phone": rf"\+[1-9][ \d.(-]*\d|\d[.){HYPHEN}][{BLANK}]?[2-9]\d\d[.{BLANK}{HYPHEN}]\d{{4}}",
    "IP": r"\d\.\d{1,3}\.\d{1,3}\.\d",
    "IPv6": r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]*:",
}
"""A text is searched for a kind only where this pattern, in the syntax of Arrow (RE2), matches."""


def replace_personal(texts: Texts) -> tuple[Texts, dict[str, int]]:
    """Replace personal data in texts, and count the replacements by kind.

    Only public IP addresses are replaced: those of private networks identify nobody.
    """
    counts = dict.fromkeys(("e-mail", "phone", "IP"), 0)
    for kind, pattern, personal in (
        ("e-mail", EMAIL, address_in),
        ("IP", IP, whole_if(is_public)),
        ("IPv6", IPV6, whole_if(is_public)),
        ("phone", PHONE, whole_if(is_phone)),
    ):
        likely = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(SCREENS[kind]))
        changed = []
        for text in texts.filter(likely).to_pylist():
            text, count = replace_matches(text, pattern, NOBODY[kind], personal)
            counts[kind.removesuffix("v6")] += count
            changed.append(text)
        texts = pc.call_function("replace_with_mask", [texts, likely, pa.array(changed, texts.type)])
    return texts, counts


def replace_matches(
    text: str, pattern: re.Pattern[str], nobody: str, personal: Callable[[str], str]
) -> tuple[str, int]:
    """Replace what is `personal` of the matches of a pattern, with which they begin, and count those that hold any."""
    count = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal count
        found = personal(match[0])
        if found in ("", nobody):
            return match[0]
        count += 1
        return nobody + match[0].removeprefix(found)

    return pattern.sub(replacement, text), count


def whole_if(is_personal: Callable[[str], bool]) -> Callable[[str], str]:
    """Gives a whole match where it is personal, else nothing of it."""
    return lambda match: match if is_personal(match) else ""


def address_in(text: str) -> str:
    """The e-mail address that a match begins with; empty where it is none. A sentence may begin behind it without a
    space: `ann@example.net.Please`."""
    before, _, label = text.rpartition(".")
    return next((one for one in (text, before if label.istitle() else "") if is_address(one)), "")


def is_address(text: str) -> bool:
    """Whether the last label of what may be an e-mail address is a top-level domain, not the name of an attribute such
    as `mT`."""
    label = text.rpartition(".")[2]
    one_case = label.islower() or label.isupper() or label.istitle()
    return label.lower() in TOP_LEVEL_DOMAINS and (one_case or len(label) > 2)


def is_public(address: str) -> bool:
    """Whether this is a public IP address."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def is_phone(number: str) -> bool:
    """Whether the number of digits is that of a phone number (ITU E.164: at most 15)."""
    return 8 <= sum(map(str.isdigit, number)) <= 15
