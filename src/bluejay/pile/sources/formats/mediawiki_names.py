"""Names with a meaning in wiki markup: the languages of Wikipedia, and templates that only format their arguments."""

import re
from calendar import month_name
from collections.abc import Mapping

LANGUAGE_CODES = """
aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg
bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr
chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi
fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi
hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg
kge ki kj kk kl km kn ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv
lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nds
nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms
pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn si
simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn
to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea
zgh zh zh-classical zh-min-nan zh-yue zu
"""
LANGUAGES = frozenset(LANGUAGE_CODES.split())
"""The prefixes of links to the same page in another language."""
FIRST = """
nowrap nobr nobreak nbr small big smaller larger em strong abbr sic math mvar smallcaps sc sub sup iast unicode script
gloss quote blockquote cquote noitalic ill interlanguage-link kbd code tt angle bracket typo bold italic underline
formatnum lc uc lcfirst ucfirst nihongo chem2 mono samp var tooltip linktext not-a-typo visible-anchor vanchor quotation
poem-quote poemquote zitat citation citation-bloc le link-en link-fr link-de link-ja 仮リンク 読み仮名 comment s
nobold midsize flag flagcountry flagu ipalink ipa-link railgauge rail-gauge track-gauge nastaliq nq
"""
SECOND = "lang langx font color colour fontcolor resize rtl-lang native-name"
LAST = "transl transliteration translit"
JOINED = {"chem": "", "unité": " ", "nombre": " ", "key press": "+", "keypress": "+", "key": "+", "date-": " "}
JOINED |= dict.fromkeys(("nuclide", "nuclide2", "simplenuclide", "simplenuclide2"), "-")
"""A template that shows all of its arguments -> what it puts between them."""
SHOWN: Mapping[str, int] = {
    **dict.fromkeys(FIRST.split(), 0),
    **dict.fromkeys(SECOND.split(), 1),
    **dict.fromkeys(LAST.split(), -1),
}
"""A template that only formats -> the number of the argument that it shows."""
FIXED = {"snd": " – ", "spnd": " – ", "spaced ndash": " – ", "ndash": "–", "mdash": "—", "snds": " – ", "nbsp": " "}
FIXED |= {
    "okina": "ʻ",
    "pi": "π",
    "spaces": " ",
    "'": "'",
    '"': '"',
    "'s": "'s",
    "dash": " – ",
    "en dash": "–",
    "em dash": "—",
    "=": "=",
    "av. j.-c.": "av. J.-C.",
    "av jc": "av. J.-C.",
    "ap jc": "apr. J.-C.",
    "·": " · ",
    "dot": " · ",
    "•": " • ",
    "mdashb": "—",
    "emdash": "—",
    "eqm": "⇌",
    "thinsp": " ",
    "' \"": "' \"",
    "\" '": "\" '",
    "-'": "'",
    '-"': '"',
}
"""A template without arguments -> the text that it shows; those for spaces may have their number as an argument."""
AROUND = {"vr": "⟨⟩", "angbr": "⟨⟩", "angbr ipa": "⟨⟩", "grapheme": "⟨⟩", "ipablink": "[]", "ipa blink": "[]"}
AROUND |= {"ipaslink": "//", "ipa slink": "//"}
"""A template that shows its argument within brackets -> these."""
ACCIDENTALS = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮", "n": "♮"}
BEFORE = {"us$": "US$", "usd": "US$", "£": "£", "gbp": "£", "€": "€", "euro": "€", "inr": "₹", "¥": "¥", "sqrt": "√"}
BEFORE |= {"n°": "n° ", "10^": "10^"}
BEFORE |= {
    name: f"{name.upper()} " for name in ("uss", "hms", "rms", "ss", "hmcs", "hmas", "usns", "uscgc", "sms", "mv")
}
"""A template that shows something before its argument: a sum of money, a power of ten, the name of a ship."""
ITSELF = re.compile(r"\d{1,2}(?:ers?|res?|es?)|[IVXL]+er? siècle")
"""The names of French templates that show themselves: 1er, XIXe siècle."""
CENTURY = re.compile(r"(-?)s(2?)-?")
"""The names of French templates of one or two centuries, with a dash in front of those before Christ."""
ROMAN = re.compile(r"[IVXL]+")
LANGUAGE_TEMPLATE = re.compile(r"(?:[Ll]ang-[A-Za-z-]+|[Ss]cript/[A-Za-z]+|[a-z]{2,3}S)")
"""The names of templates for words of one language, German ones as {{enS|word}}."""
NAMED = re.compile(r"\s*([\w -]+?)\s*=(.*)", re.DOTALL)
NUMBER = re.compile(r"[-−+]?[\d.,]*\d[\d.,/+]*(?:e[-+]?\d+)?")
DEGREES = "°′″"
BETWEEN = {"-": "–", "–": "–", "to": " to ", "and": " and ", "or": " or ", "x": " × ", "by": " by ", "&": " & "}
BETWEEN |= {"to(-)": " to ", "and(-)": " and ", "*": " × ", "×": " × ", "+/-": " ± ", "±": " ± ", "+": " + "}
"""What `convert` writes between two numbers."""
UNITS = {"sqmi": "sq mi", "sqft": "sq ft", "sqin": "sq in", "C": "°C", "F": "°F", "cuft": "cu ft", "cuin": "cu in"}
UNITS |= {"impgal": "imp gal", "USgal": "US gal", "km2": "km²", "m2": "m²", "cm2": "cm²", "m3": "m³", "km3": "km³"}
UNITS |= {"cm3": "cm³", "kph": "km/h", "deg": "°"}


def formatted(markup: str) -> str:
    """The text of an innermost template or table, if it is a template that only formats; otherwise nothing."""
    if not markup.startswith("{{"):
        return ""
    name, *arguments = re.split(r"\|(?![^\[]*\]\])", markup[2:-2])
    function, colon, value = name.strip().partition(":")
    if colon and function.lower() in ("formatnum", "lc", "uc", "lcfirst", "ucfirst"):
        name, arguments = function, [value]
    name = " ".join(name.replace("_", " ").split())
    if ITSELF.fullmatch(name) and not arguments:
        return name
    in_language = LANGUAGE_TEMPLATE.fullmatch(name)
    name = name.lower() if name[:1].isalpha() else name
    if name in FIXED and (not arguments or FIXED[name].isspace()):
        return FIXED[name]
    values, named = [], {}
    for argument in arguments:
        if found := NAMED.fullmatch(argument):
            named[found[1]] = found[2].strip()
        else:
            values.append(argument.strip())
    values = [named.get(f"{number}", value) for number, value in enumerate(values, 1)] or [
        named[key] for key in ("1", "2", "3") if key in named
    ]
    if name in ("convert", "cvt"):
        return converted(values)
    if name == "val" and values:
        unit = named.get("u") or named.get("ul") or ""
        return f"{values[0]} {unit}".strip()
    if name in ("frac", "fraction", "sfrac") and values:
        return "/".join(values[-2:]) if len(values) < 3 else f"{values[0]} {values[1]}/{values[2]}"
    if name in BEFORE and values:
        return BEFORE[name] + values[0]
    if name in JOINED:
        return JOINED[name].join(values)
    if (found := CENTURY.fullmatch(name)) and values and ROMAN.fullmatch(values[0]):
        return centuries(values, 2 if found[2] else 1) + " av. J.-C." * bool(found[1])
    if name == "lien":
        return named.get("texte") or named.get("fr") or (values[0] if values else "")
    if name == "as of" and values:
        month = values[1] if len(values) > 1 else ""
        month = f"{month_name[int(month)]} " if month.isdecimal() and 0 < int(month) < len(month_name) else ""
        return f"{'as' if 'lc' in named else 'As'} of {month}{values[0]}"
    if name in ("circa", "c."):
        return f"c. {'–'.join(values)}" if values else "c."
    if name == "coord" and named.get("display") not in ("title", "t"):
        return coordinates(values)
    if name == "ipa" and len(values) == 1:  # with a language before it, it is how a name is pronounced
        return values[0]
    if name == "music" and values:
        return ACCIDENTALS.get(values[0], "")
    if name in AROUND and values:
        return AROUND[name][0] + values[0] + AROUND[name][1]
    if name in ("bibleverse", "bibleref", "bibleref2"):
        return " ".join([*filter(None, values)][:2])
    at = 0 if in_language else SHOWN.get(name.replace(" ", "-"))
    if at == 0 and not values and name != "citation":  # in English a reference, whose arguments all have names
        values = [named[key] for key in ("text", "quote") if key in named]
    text = values[at] if at is not None and at < len(values) else values[-1] if at is not None and values else ""
    cases = {"lc": str.lower, "uc": str.upper}
    return cases[name](text) if name in cases else text


def coordinates(values: list[str]) -> str:
    """A place on the Earth, as `coord` shows it; empty where it is not stated by degrees and letters.

    >>> coordinates(["13", "19", "N", "169", "9", "W", "type:event"])
    '13°19′N 169°9′W'
    """
    text, at = "", 0
    for value in values:
        if value in ("N", "S", "E", "W"):
            text, at = f"{text}{value} ", 0
        elif NUMBER.fullmatch(value) and at < len(DEGREES):
            text, at = f"{text}{value}{DEGREES[at]}", at + 1
        else:
            break
    return text.strip() if text.endswith(("E ", "W ")) else ""


def centuries(values: list[str], count: int) -> str:
    """What a French template shows for centuries and the letters behind their numbers.

    >>> centuries(["XVI", "e", "XVII", "e"], 2)
    'XVIe et XVIIe siècles'
    """
    pairs = zip(values[::2], [*values[1::2], ""], strict=False)
    numbers = [number + (letters or ("er" if number == "I" else "e")) for number, letters in pairs][:count]
    return f"{' et '.join(numbers)} siècle{'s' * (len(numbers) > 1)}"


def converted(values: list[str]) -> str:
    """The quantity that `convert` begins with: "93 m", "5 to 10 km", "6 ft 2 in"; the unit it converts to is left out.

    >>> converted(["5", "to", "10", "km", "mi"])
    '5 to 10 km'
    """
    if len(values) < 2:
        return " ".join(values)
    text, at = values[0], 1
    while at + 1 < len(values) and values[at] in BETWEEN:
        text += BETWEEN[values[at]] + values[at + 1]
        at += 2
    if at < len(values):
        text += f" {UNITS.get(values[at], values[at])}"
    if values[at : at + 1] in (["ft"], ["lb"], ["st"], ["mi"], ["yd"]) and at + 2 < len(values):
        number, unit = values[at + 1 : at + 3]
        if NUMBER.fullmatch(number) and unit in ("in", "oz", "lb", "yd", "ft"):
            text += f" {number} {unit}"
    return text
