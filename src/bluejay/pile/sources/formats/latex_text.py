"""LaTeX to text in one pass, without executing macros: fast, and tolerant of unknown commands."""

import re
import unicodedata

TOKEN = re.compile(
    r"\\begin\s*\{(?P<begin>[^{}]*)\}|\\end\s*\{(?P<end>[^{}]*)\}"
    r"|(?P<math>\$\$.+?\$\$|\$(?:\\.|[^$\\\n]|\n(?![ \t]*\n))+\$|\\\[.+?\\\]|\\\(.+?\\\))"
    r"|\\(?:[vV]erb\*?|lstinline(?:\[[^\]\n]*\])?|mintinline(?:\[[^\]\n]*\])?\{\w*\}|url|(?:path|nolinkurl)(?=\{))"
    r"(?:(?P<bar>[^a-zA-Z\s*{\[])(?P<verb>[^\n]*?)(?P=bar)|\{(?P<braced>(?:[^{}\n]|\{[^{}\n]*\})*)\})"
    r"|\\(?P<command>[a-zA-Z@]+)\*?[ \t]*|\\(?P<symbol>.)|(?P<group>\{)|(?P<rest>[^\\${]+|[${\\])",
    re.DOTALL,
)
MATH = re.compile(r"(?:equation|align|gather|multline|eqnarray|displaymath|math|flalign|alignat|dmath|subequations)\*?")
EXCLUDED = re.compile(
    r"(?:tabular|tabularx|longtable|array|tikzpicture|pspicture|picture|thebibliography|filecontents|comment|CCSXML|"
    r"algorithmic|forest|tikzcd|keywords)\*?"
)
VERBATIM = re.compile(r"(?:verbatim|Verbatim|lstlisting|minted|alltt)\*?")
HEADINGS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4}
HEADINGS |= {"paragraph": 5, "subparagraph": 6}
IGNORED_WITH_ONE = """
label nocite includegraphics bibliography bibliographystyle vspace hspace vskip hskip input include usepackage
pagestyle thispagestyle index thanks date title author affiliation address email institute affil graphicspath epsfig
color pagenumbering bibitem phantom hphantom vphantom todo ccsdesc keywords orcid hypersetup
"""
CITED_IN_SENTENCE = {"citet", "citeauthor", "textcite"}
CITED = CITED_IN_SENTENCE | {"cite", "citep", "citealp", "citeyear", "parencite", "autocite", "footcite"}
REFERENCES = {"ref", "eqref", "autoref", "cref", "Cref", "pageref", "nameref"}
"""Citations and references print names or numbers that only TeX knows; their keys keep the sentence complete."""
IGNORED_WITH_TWO = """
setcounter setlength addtolength addtocounter newtheorem numberwithin rule markboth fontsize
"""
IGNORED = {
    **dict.fromkeys(IGNORED_WITH_ONE.split(), 1),
    **dict.fromkeys(IGNORED_WITH_TWO.split(), 2),
    **dict.fromkeys(("newenvironment", "renewenvironment", "addcontentsline"), 3),
}
"""Commands without output -> the largest number of arguments that they take."""
ENVIRONMENT_ARGUMENTS = {"minipage": 1, "multicols": 1, "wrapfigure": 2, "adjustbox": 1, "spacing": 1, "list": 2}
DEFINED = re.compile(r"\s*(?:\{\s*\\[a-zA-Z@]+\s*\}|\\[a-zA-Z@]+)[^{}\\]*")
DEFINING = {"newcommand", "renewcommand", "providecommand", "DeclareMathOperator", "def"}
SECOND_ARGUMENT = {"href", "textcolor", "colorbox", "parbox", "scalebox", "raisebox", "resizebox", "foreignlanguage"}
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
texteuro=€ textmu=µ
"""
PRINTED = {name: letter for name, _, letter in (pair.partition("=") for pair in LETTERS.split())}
BREAKS = {"newline": "\n", "item": "\n- ", "and": ", ", "quad": " ", "qquad": " ", "break": " "}
BREAKS |= dict.fromkeys(("par", "newpage", "clearpage", "smallskip", "medskip", "bigskip"), "\n\n")
SYMBOLS: dict[str, str] = {**dict.fromkeys(" \n,;:", " "), **dict.fromkeys("/-!@)]", "")}
QUOTES = (("``", "“"), ("''", "”"), ("---", "—"), ("--", "–"), ("~", " "))
DEFINITION = re.compile(r"\\(?:re)?newcommand\*?\s*\{?\\([a-zA-Z]+)\}?\s*(?=\{)|\\def\s*\\([a-zA-Z]+)\s*(?=\{)")
MAX_DEPTH = 60
"""Nesting of groups and macros above which the source is malformed."""
BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n)+")


def convert(source: str, macros: dict[str, str]) -> str:
    """The text of LaTeX source without comments. Raises ValueError: it is nested too deeply."""
    text = BLANK_LINES.sub("\n\n", printed_text(source, macros, MAX_DEPTH))
    lines = (re.sub(r"[ \t]+", " ", line).strip() if not line.startswith("    ") else line for line in text.split("\n"))
    return re.sub(r" +(?=[.,;:](?:\s|$))", "", "\n".join(lines)).strip()


def definitions(source: str) -> dict[str, str]:
    """The macros without arguments, mostly abbreviations, that a source defines: name -> body."""
    found = ((match[1] or match[2], group(source, match.end())[0]) for match in DEFINITION.finditer(source))
    return {name: body for name, body in found if f"\\{name}" not in body}


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
    spaces = re.compile(r"\s*(?:\[[^\[\]]*\]\s*)*")
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
        content = re.sub(r"^(?:\[[^\]]*\])?(?:\{[^}]*\})?", "", end[1])
        return "\n\n" + "\n".join(f"    {line}" for line in content.strip("\n").split("\n")) + "\n\n", end.end()
    if name == "abstract":
        return "\n\n## Abstract\n\n", at
    for _ in range(ENVIRONMENT_ARGUMENTS.get(name, 0)):
        at = argument(source, at)[1]
    options = re.compile(r"[ \t]*(?:\[[^\[\]]*\])?").match(source, at)
    return "\n\n" if name not in ("itemize", "enumerate", "description") else "\n", options.end() if options else at


def command(name: str, source: str, at: int, macros: dict[str, str], depth: int) -> tuple[str, int]:
    """The printed text of the command whose name ends at a position, and the position to continue at."""
    if name in ACCENTS and source[at : at + 1] not in ("", "\\"):
        return symbol(name, source, at)
    if name in PRINTED:
        return PRINTED[name], at + 2 * source.startswith("{}", at)
    if name in BREAKS:
        label = re.compile(r"\[([^\[\]]*)\]").match(source, at) if name == "item" else None
        return (f"\n- {printed_text(label[1], macros, depth - 1)} ", label.end()) if label else (BREAKS[name], at)
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
        return printed_text(macros[name], macros, depth - 1), at
    if name in DEFINING:
        defined = DEFINED.match(source, at)
        return "", argument(source, defined.end())[1] if defined else at
    for _ in range(IGNORED.get(name, name in SECOND_ARGUMENT)):
        at = argument(source, at)[1]
    options = re.compile(r"\[[^\[\]]*\](?=\s*\{)").match(source, at)
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
