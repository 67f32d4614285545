"""LaTeX to text in one pass, without executing macros: fast, and tolerant of unknown commands."""

import re
import unicodedata

from bluejay.pile.sources.formats.latex_quantities import QUANTITIES, quantity

TOKEN = re.compile(
    r"\\begin\s*\{(?P<begin>[^{}]*)\}|\\end\s*\{(?P<end>[^{}]*)\}"
    r"|(?P<math>\$\$.+?\$\$|\$(?:\\.|[^$\\\n]|\n(?![ \t]*\n))+\$|\\\[.+?\\\]|\\\(.+?\\\))"
    r"|\\(?:[vV]erb\*?|lstinline(?:\[[^\]\n]*\])?|mintinline(?:\[[^\]\n]*\])?\{\w*\}|url|(?:path|nolinkurl)(?=\{))"
    r"(?:(?P<bar>[^a-zA-Z\s*{\[])(?P<verb>[^\n]*?)(?P=bar)|\{(?P<braced>(?:[^{}\n]|\{[^{}\n]*\})*)\})"
    r"|\\(?P<command>[a-zA-Z@]*[a-zA-Z][a-zA-Z@]*)\*?[ \t]*|\\(?P<symbol>.)|(?P<group>\{)|(?P<rest>[^\\${]+|[${\\])",
    re.DOTALL,
)
MATH = re.compile(
    r"(?:equation|align|gather|multline|eqnarray|displaymath|math|flalign|alignat|dmath|subequations|IEEEeqnarray|empheq)\*?"
)
EXCLUDED = re.compile(
    r"(?:tabular|tabularx|longtable|array|tikzpicture|pspicture|picture|thebibliography|filecontents|comment|CCSXML|"
    r"algorithmic|forest|tikzcd|(?:IEEE)?keywords?|tabulary|supertabular|xtabular|tblr|longtblr|deluxetable|planotable|tabu|"
    r"longtabu|NiceTabular|tabbing|axis|circuitikz|fmffile|quantikz|prooftree)\*?"
)
VERBATIM = re.compile(r"(?:verbatim|Verbatim|lstlisting|minted|alltt)\*?")
HEADINGS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4}
HEADINGS |= {"paragraph": 5, "subparagraph": 6}
IGNORED_WITH_ONE = """
label nocite includegraphics bibliography bibliographystyle vspace hspace vskip hskip input include usepackage
pagestyle thispagestyle index thanks date title author affiliation address email institute affil graphicspath epsfig
color pagenumbering bibitem phantom hphantom vphantom todo ccsdesc keywords orcid hypersetup pacs theoremstyle
selectlanguage ead captionsetup setlist linespread setstretch preprint cortext received accepted titlerunning
authorrunning shorttitle shortauthors hyphenation addbibresource lstset tikzset pgfplotsset usetikzlibrary subjclass
enlargethispage pagerange tnoteref tnotetext corref altaffiliation correspondingauthor plotone epsscale icmlkeywords
icmltitlerunning printAffiliationsAndNotice typeout includecomment excludecomment includepdf includesvg lstinputlisting
verbatiminput fontfamily fontseries fontshape fontencoding CJKfamily
"""
NAMED_IN_SENTENCE = "citet citeauthor textcite Citet Citeauthor Textcite citealt Citealt onlinecite"
NAMED_IN_BRACKETS = """
cite citep citealp citeyear citeyearpar parencite autocite footcite Citep Parencite Autocite supercite smartcite
fullcite citenum shortcite
"""
NAMED_REFERENCES = "ref eqref autoref cref Cref pageref nameref Autoref vref Vref labelcref subref"
CITED_IN_SENTENCE = frozenset(NAMED_IN_SENTENCE.split())
CITED = CITED_IN_SENTENCE.union(NAMED_IN_BRACKETS.split())
REFERENCES = frozenset(NAMED_REFERENCES.split())
"""Citations and references print names or numbers that only TeX knows; their keys keep the sentence complete."""
IGNORED_WITH_TWO = """
setcounter setlength addtolength settowidth addtocounter newtheorem numberwithin rule markboth fontsize plottwo
icmlsetsymbol icmlauthor icmlaffiliation icmlcorrespondingauthor inputminted
"""
IGNORED = {
    **dict.fromkeys(IGNORED_WITH_ONE.split(), 1),
    **dict.fromkeys(IGNORED_WITH_TWO.split(), 2),
    **dict.fromkeys(("newenvironment", "renewenvironment", "addcontentsline", "definecolor", "newacronym"), 3),
}
"""Commands without output -> the largest number of arguments that they take."""
ENVIRONMENT_ARGUMENTS = {"minipage": 1, "multicols": 1, "wrapfigure": 2, "adjustbox": 1, "spacing": 1, "list": 2}
ENVIRONMENT_ARGUMENTS |= {"subfigure": 1, "subtable": 1, "wraptable": 2, "adjustwidth": 2, "otherlanguage": 1, "CJK": 2}
DEFINED = re.compile(r"\s*(?:\{\s*\\[a-zA-Z@]+\s*\}|\\[a-zA-Z@]+)[^{}\\]*")
DEFINING = {"newcommand", "renewcommand", "providecommand", "DeclareMathOperator", "def"}
LAST_OF_TWO = """
href textcolor colorbox parbox scalebox raisebox foreignlanguage rotatebox hyperlink hypertarget captionof
"""
LAST_OF_THREE = ("multicolumn", "multirow", "resizebox", "fcolorbox")
SKIPPED = {**dict.fromkeys(LAST_OF_TWO.split(), 1), **dict.fromkeys(LAST_OF_THREE, 2)}
"""Commands that print their last argument -> how many are before it."""
OPTION = r"\[(?:[^\[\]{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\]"
"""An optional argument, in which brackets stand in braces."""
BARE = re.compile(r"\s*\\[a-zA-Z@]+\s*(?=\{)")
"""The name of a length, as an argument without braces."""
LENGTHS = {
    "vskip",
    "hskip",
    "kern",
    "parindent",
    "parskip",
    "baselineskip",
    "hsize",
    "vsize",
    "textwidth",
    "textheight",
}
DIMENSION = r"[-+]?(?:\d+\.?\d*|\.\d+)\s*(?:true\s*)?(?:pt|cm|mm|in|em|ex|pc|bp|fil+)(?![a-zA-Z])"
LENGTH = re.compile(
    rf"\s*=?\s*(?:{DIMENSION}|[-+]?\d*\.?\d*\\(?:[a-z]+skip|[a-z]+width|parindent)(?![a-zA-Z]))"
    rf"(?:\s*(?:plus|minus)\s*{DIMENSION})*"
)
"""What plain TeX has behind the name of a length, and behind commands for space."""
ACCENTS = dict(
    zip(
        "'`^\"~=.uvHckdbr",
        "\u0301\u0300\u0302\u0308\u0303\u0304\u0307\u0306\u030c\u030b\u0327\u0328\u0323\u0331\u030a",
        strict=True,
    )
)
LETTERS = """
ss=ß o=ø O=Ø ae=æ AE=Æ oe=œ OE=Œ aa=å AA=Å l=ł L=Ł i=i j=j S=§ P=¶ dag=† ddag=‡ copyright=© pounds=£ dots=… ldots=…
textellipsis=… textendash=– textemdash=— LaTeX=LaTeX TeX=TeX textbackslash=\\ textasciitilde=~ textasciicircum=^
textregistered=® texttrademark=™ textdegree=° euro=€ textquoteright=’ textquoteleft=‘ textbullet=• slash=/
textless=< textgreater=> textbar=| textunderscore=_ textdollar=$ textpercent=% textasteriskcentered=* textquotesingle='
textquotedbl=" textquotedblleft=“ textquotedblright=” quotedblbase=„ quotesinglbase=‚ guillemotleft=« guillemotright=»
guilsinglleft=‹ guilsinglright=› textbraceleft={ textbraceright=} textperiodcentered=· textcopyright=© textsterling=£
texteuro=€ textmu=µ glqq=„ grqq=“ flqq=« frqq=» glq=‚ grq=‘ flq=‹ frq=› lq=‘ rq=’
"""
PRINTED = {name: letter for name, _, letter in (pair.partition("=") for pair in LETTERS.split())}
BREAKS = {"newline": "\n", "item": "\n- ", "and": ", ", "quad": " ", "qquad": " ", "break": " "}
BREAKS |= dict.fromkeys(("pagebreak", "nopagebreak", "nolinebreak", "thinspace", "enspace", "space", "hfill"), " ")
BREAKS["linebreak"] = "\n"
BREAKS |= dict.fromkeys(("par", "newpage", "clearpage", "smallskip", "medskip", "bigskip"), "\n\n")
SYMBOLS: dict[str, str] = {**dict.fromkeys(" \n,;:", " "), **dict.fromkeys("/-!@)]", "")}
QUOTES = (("``", "“"), ("''", "”"), ("---", "—"), ("--", "–"), ("~", " "))
DEFINITION = re.compile(
    r"\\(?:new|renew|provide)command\*?\s*\{?\s*\\([a-zA-Z]+)\s*\}?\s*(?=\{)|\\def\s*\\([a-zA-Z]+)\s*(?=\{)"
)
ENDS = re.compile(r"\\(?:(begin)|(end))\s*\{")
XSPACE = re.compile(r"\\xspace\s*\}*\s*\Z")
MAX_DEPTH = 60
"""Nesting of groups and macros above which the source is malformed."""
BLANK_LINES = re.compile(r"(?<![ \t])[ \t]*+\n(?:[ \t]*+\n)+")


def convert(source: str, macros: dict[str, str]) -> str:
    """The text of LaTeX source without comments. Raises ValueError: it is nested too deeply."""
    text = BLANK_LINES.sub("\n\n", printed_text(source, macros, MAX_DEPTH))
    lines = (re.sub(r"[ \t]+", " ", line).strip() if not line.startswith("    ") else line for line in text.split("\n"))
    return re.sub(r"(?<! ) ++(?=[.,;:](?:\s|$))", "", "\n".join(lines)).strip()


def definitions(source: str) -> dict[str, str]:
    """The macros without arguments, mostly abbreviations, that a source defines: name -> body."""
    found = ((match[1] or match[2], group(source, match.end())[0]) for match in DEFINITION.finditer(source))
    return {name: body for name, body in found if not re.search(rf"\\{name}(?![a-zA-Z@])", body)}


def with_environments(source: str, macros: dict[str, str]) -> str:
    r"""The source in which macros are expanded that begin or end an environment, as \be and \ee of many papers do."""
    names = [name for name, body in macros.items() if is_half(body)]
    if not names:
        return source
    used = re.compile(
        rf"(?<!\\def)(?<!command)(?<!command\{{)(?<!command\*)(?<!command\*\{{)\\({'|'.join(names)})(?![a-zA-Z@])[ \t]*"
    )
    return used.sub(lambda found: macros[found[1]], source)


def is_half(body: str) -> bool:
    """Whether a macro begins or ends an environment or a formula, and does not do both."""
    found = ENDS.findall(body)
    begun = sum(bool(begin) - bool(end) for begin, end in found)
    return begun != 0 or body.strip() in ("\\[", "\\]", "$$")


def group(source: str, at: int) -> tuple[str, int]:
    """The content of the group in braces at a position, and its end; the rest of the source if it is not closed."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.DOTALL).finditer(source, at):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0 and found[0] == "}":
            return source[at + 1 : found.start()], found.end()
    return source[at + 1 :], len(source)


def argument(source: str, at: int) -> tuple[str, int]:
    """The next mandatory argument of a command, and its end; empty if there is none."""
    spaces = re.compile(rf"\s*(?:{OPTION}\s*)*")
    start = spaces.match(source, at)
    if start and source[start.end() : start.end() + 1] == "{":
        return group(source, start.end())
    return "", at


def printed_text(source: str, macros: dict[str, str], depth: int) -> str:
    """The printed text of a source; formulas stay in LaTeX."""
    if depth == 0:
        raise ValueError("the LaTeX nests too deep")
    parts: list[str] = []
    at = 0
    while token := TOKEN.match(source, at):
        at = token.end()
        kind = token.lastgroup
        if kind == "begin":
            text, at = environment(token["begin"].strip(), source, at)
            parts.append(text)
        elif kind == "end" and token["end"].strip() == "abstract":
            parts.append("\n\n")
        elif kind == "math":
            parts.append(token["math"])
        elif kind in ("verb", "braced"):
            parts.append(re.sub(r"\\([%#&_~^{}])(?:\{\})?", r"\1", token[kind]) if kind == "braced" else token[kind])
        elif kind == "command":
            text, at = command(token["command"], source, at, macros, depth)
            parts.append(text)
        elif kind == "symbol":
            text, at = symbol(token["symbol"], source, at)
            parts.append(text)
        elif kind == "group":
            inside, at = group(source, token.start())
            parts.append(printed_text(inside, macros, depth - 1))
        elif kind == "rest":
            parts.append(typeset(token["rest"]))
    return "".join(parts)


def typeset(text: str) -> str:
    """A text with quotation marks, dashes and spaces as they are printed."""
    for source, printed in QUOTES:
        text = text.replace(source, printed)
    return text.replace("}", "").replace("&", " ")


def environment(name: str, source: str, at: int) -> tuple[str, int]:
    """The printed text of the environment whose \\begin ends at a position, and the position to continue at."""
    whole = re.compile(rf"(.*?)\\end\s*\{{{re.escape(name)}\}}", re.DOTALL)
    if MATH.fullmatch(name):
        end = whole.match(source, at)
        return (f"\n$$\\begin{{{name}}}{end[1]}\\end{{{name}}}$$\n", end.end()) if end else ("", at)
    if EXCLUDED.fullmatch(name) and (end := whole.match(source, at)):
        return "", end.end()
    if VERBATIM.fullmatch(name) and (end := whole.match(source, at)):
        content = re.sub(rf"^(?:{OPTION})?(?:\{{[^}}]*\}})?", "", end[1])
        return "\n\n" + "\n".join(f"    {line}" for line in content.strip("\n").split("\n")) + "\n\n", end.end()
    if name == "abstract":
        return "\n\n## Abstract\n\n", at
    for _ in range(ENVIRONMENT_ARGUMENTS.get(name.rstrip("*"), 0)):
        at = argument(source, at)[1]
    options = re.compile(rf"[ \t]*(?:{OPTION})?").match(source, at)
    return "\n\n" if name not in ("itemize", "enumerate", "description") else "\n", options.end() if options else at


def command(name: str, source: str, at: int, macros: dict[str, str], depth: int) -> tuple[str, int]:
    """The printed text of the command whose name ends at a position, and the position to continue at."""
    if name in ACCENTS and source[at : at + 1] not in ("", "\\"):
        return symbol(name, source, at)
    if name in PRINTED:
        return PRINTED[name], at + 2 * source.startswith("{}", at)
    if name in BREAKS:
        label = re.compile(r"\[([^\[\]]*)\]").match(source, at) if name == "item" else None
        if label:
            return f"\n- {printed_text(label[1], macros, depth - 1)} ", label.end()
        degree = re.compile(r"\[\d\]").match(source, at) if name.endswith("break") else None
        return BREAKS[name], degree.end() if degree else at
    if name in HEADINGS or name == "caption":
        title, end = argument(source, at)
        mark = "#" * HEADINGS.get(name, 0)
        text = " ".join(printed_text(title, macros, depth - 1).split())
        return f"\n\n{mark} {text}\n\n".replace("\n ", "\n"), end
    if name == "footnote":
        note, end = argument(source, at)
        return f" ({printed_text(note, macros, depth - 1).strip()})", end
    if name in CITED or name in REFERENCES:
        keys, end = argument(source, at)
        named = [f"{'@' * (name in CITED)}{key.strip()}" for key in keys.split(",") if key.strip()]
        return " and ".join(named) if name in CITED_IN_SENTENCE else f"[{'; '.join(named)}]", end
    if name in macros:
        space = " " if source[at - 1] in " \t" and XSPACE.search(macros[name]) else ""
        return printed_text(macros[name], macros, depth - 1) + space, at
    if name in QUANTITIES:
        option = re.compile(r"\s*\[([^\[\]]*)\]").match(source, at)
        given = []
        for _ in range(QUANTITIES[name]):
            one, at = argument(source, at)
            given.append(one)
        text = quantity(name, given, option[1] if option else "") if any(given) else ""
        return printed_text(text, macros, depth - 1), at
    if name in ("enquote", "texorpdfstring"):
        text, end = argument(source, at)
        text = printed_text(text, macros, depth - 1)
        return (f"“{text}”", end) if name == "enquote" else (text, argument(source, end)[1])
    if name in LENGTHS and (length := LENGTH.match(source, at)):
        return "", length.end()
    if name in DEFINING:
        defined = DEFINED.match(source, at)
        return "", argument(source, defined.end())[1] if defined else at
    for _ in range(IGNORED.get(name, SKIPPED.get(name, 0))):
        bare = BARE.match(source, at) if name.endswith(("length", "width")) else None
        at = bare.end() if bare else argument(source, at)[1]
    options = re.compile(rf"(?=\[[^\[\]{{}}=]+=){OPTION}|{OPTION}(?=\s*\{{)").match(source, at)
    return "", options.end() if options else at


def symbol(mark: str, source: str, at: int) -> tuple[str, int]:
    """The printed text of a command of one character, and the position to continue at; accents take a letter,
    and are printed themselves where that is empty."""
    if mark == "\\":
        space = re.compile(r"\*?(?:[ \t]*\[[^\]\n]*\])?").match(source, at)
        assert space  # every part of the expression is optional
        return "\n", space.end()
    if mark not in ACCENTS:
        return SYMBOLS.get(mark, mark), at
    if empty := re.compile(r"\s*\{\s*\}").match(source, at):
        return "" if mark.isalpha() else mark, empty.end()
    letter = re.compile(r"\s*\{?\\?([^\W\d_])\s*\}?").match(source, at)
    return (unicodedata.normalize("NFC", letter[1] + ACCENTS[mark]), letter.end()) if letter else ("", at)
