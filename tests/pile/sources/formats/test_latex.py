"""Articles in LaTeX, as a file and as the archive of a paper."""

import gzip
import io
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.latex import Latex

MAIN = r"""\documentclass{article} % \begin{document}
\newcommand{\eg}{e.g.}\title{On \emph{B\"uttner}'s Method}\author{A}\date{May 2020}
\begin{document}\maketitle
\begin{abstract}We show that 5\% of $x \in \R$ is ``good''~\cite{foo}.\end{abstract}
\input{sections/intro}
\include{missing}
\end{document} no more
"""
INTRO = "\\section{Introduction}\\label{sec:i}\nText, \\eg{} one % no comment\n two.\n"


def archive(files: dict[str, str], mode: str = "w", encoding: str = "utf-8") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode(encoding))
            made.addfile(entry, io.BytesIO(text.encode(encoding)))
    return out.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_paper_of_several_files(parsed: Callable, mode: str) -> None:
    files = {"./sections/intro.tex": INTRO, "main.tex": MAIN, "fig.eps": "%!PS", "old.tex": "\\documentclass{x}"}
    (document,), _ = parsed(Latex(path="x"), archive(files, mode))
    assert document.text == (
        "# On Büttner's Method\n\n## Abstract\n\nWe show that 5% of $x \\in \\R$ is “good” [@foo].\n\n"
        "## Introduction\n\nText, e.g. one two."
    )
    assert document.meta == {"title": "On Büttner's Method", "date": "May 2020"}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"A \textbf{bold \emph{word}}, \unknown{kept} \foo.", "A bold word, kept."),
        (r"one \iffalse not % \fi" + "\n" + r"\iff \ifx a b x \else y \fi z \fi two", "one two"),
        (r"one \iffalse not \else but \fi two \iffalse\fi three", "one but two three"),
        (r"one \verb|\iffalse| \\iffalse two \fi \iffalsehood", "one \\iffalse\niffalse two"),
        (r"one \iffalse two \iffalse three", "one two three"),
        (r"one \if0 not \ifx a b x \else y \fi z \fi two \if 0 not \else but \fi", "one two but"),
        (r"one \if01 two\fi \if0\blind three\fi", "one 01 two0three"),
        (
            r"\begin{CJK*}{UTF8}{gbsn}文\end{CJK*} {\fontfamily{ptm}\selectfont a} \printbibliography[heading=none]",
            "文 a",
        ),
        (
            r"\begin{IEEEbiography}[{\includegraphics[width=1in]{a}}]{A. Author} wrote.\end{IEEEbiography}",
            "A. Author wrote.",
        ),
        (r"Line\\*next\\* [2pt] line\\", "Line\nnext\nline"),
        (
            r"a\textless b\textgreater{}c, 5\textpercent of \textdollar 3, \guillemotleft q\guillemotright",
            "a<b>c, 5%of $3, «q»",
        ),
        (r"\textquotedblleft a\textquotedblright{} \textbar{} \textunderscore{} \textasteriskcentered", "“a” | _ *"),
        (r"a\~{}b\^{}c \url{http://a.b/\~{}d\^{}e} \c{}f", "a~b^c http://a.b/~d^e f"),
        ("\\begin{minted}[opts]{python}\nx = {}\n\\end{minted}", "x = {}"),
        (r"\'Etude, na\"{\i}ve, \c{c}a, \v{S}, \o, \ss{}x, 3\,km", "Étude, naïve, ça, Š, ø, ßx, 3 km"),
        ("One--two---three ``q'' ~ a\\\\b", "One–two—three “q” a\nb"),
        (r"\begin{itemize}\item one \item[x] two\end{itemize}", "- one\n- x two"),
        (
            "\\begin{equation}\nE = mc^2 \\label{e}\n\\end{equation}",
            "$$\\begin{equation}\nE = mc^2 \\label{e}\n\\end{equation}$$",
        ),
        (r"\[ a < b \] and \(c\) and $\$5$", r"\[ a < b \] and \(c\) and $\$5$"),
        (r"\begin{figure}[ht]\includegraphics[width=1cm]{a}\caption{Cap \ref{x}.}\end{figure}", "Cap [x]."),
        (r"\begin{tabular}{ll} a & b \end{tabular}Text\footnote{A note.}", "Text (A note.)"),
        ("\\begin{verbatim}\nx % $y$\n  z\n\\end{verbatim}", "x % $y$\n      z"),
        (r"See \citet[p.~3]{a, b}, \ref{sec:x}, and~\citep{c,d}.", "See @a and @b, [sec:x], and [@c; @d]."),
        ("Costs $5 and\n\nthen $x$.", "Costs $5 and\n\nthen $x$."),
        (r"a \\[2pt] b \begin{minipage}[t]{0.5\textwidth}c\end{minipage}", "a\nb\n\nc"),
        (r"\href{http://a.b}{a link} \verb|a_b\c|", r"a link a_b\c"),
        ("\\section*{One}\nText\\subsection{Two}More", "## One\n\nText\n\n### Two\n\nMore"),
        ("\\newcommand{\\x}[1]{no}\\def\\y{yes}\\y, \\x{arg}", "yes, arg"),
        (r"e.g.\@ x\linebreak[4] y \vskip 1ex plus .5ex z \setlength\parskip{1pt} a\thinspace b", "e.g. x\ny z a b"),
        (
            r"\section{On \texorpdfstring{$x$}{x}} \enquote{q} \glqq r\grqq{} \rotatebox{90}{s}",
            "## On $x$\n\n“q” „r“ s",
        ),
        (r"\newcommand{\ie}{i.e.\xspace}\ie this, \ie, \onlinecite{a}, \citealt{b}", "i.e. this, i.e., @a, @b"),
        (r"\begin{abstract}A.\end{abstract}\begin{IEEEkeywords}k\end{IEEEkeywords}B", "## Abstract\n\nA.\n\nB"),
        (r"\begin{subfigure}[b]{0.3\textwidth}\caption{C}\end{subfigure}\pagerange{1--2}", "C"),
        (
            r"\begin{IEEEeqnarray}{rCl} a &=& b \end{IEEEeqnarray}",
            r"$$\begin{IEEEeqnarray}{rCl} a &=& b \end{IEEEeqnarray}$$",
        ),
        (r"\begin{deluxetable}{ll} \startdata 1 & 2 \enddata \end{deluxetable}Text", "Text"),
        (
            r"\SI{5}{\kilo\metre}, \SIrange{1}{5}{\m\per\s\squared}, \ang{30}, \unit[3]{km}, \SIlist{1;2}{\um}",
            "5 km, 1 to 5 m/s², 30°, 3 km, 1, 2 µm",
        ),
        (
            "\\def\\be{\\begin{equation}}\\newcommand{\\ee}{\\end{equation}}\\be \\frac{a}{b}\\ee",
            "$$\\begin{equation}\\frac{a}{b}\\end{equation}$$",
        ),
        ("{unclosed $math \\begin{equation} \\end{nothing}", "unclosed $math"),
    ],
)
def test_markup(parsed: Callable, source: str, text: str) -> None:
    (document,), _ = parsed(Latex(path="x"), source.encode())
    assert document.text == text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_empty_line_behind_a_comment_ends_a_paragraph(parsed: Callable, end: str) -> None:
    source = "One. %\\label{x}\n\nTwo. % note\n \t\nThree%\n  glued.\n% alone\nOn.%\n% and\n\n  Four. % end\n"
    (document,), _ = parsed(Latex(path="x"), source.replace("\n", end).encode())
    assert document.text.split("\n\n") == ["One.", "Two.", "Threeglued.\nOn.", "Four."]


def test_files_that_include_one_another(parsed: Callable) -> None:
    files = {"main.tex": "\\documentclass{a}\\begin{document}X\\input{a}\\end{document}", "a.tex": "A\\input{main}"}
    (document,), _ = parsed(Latex(path="x"), archive(files))
    assert document.text.startswith("XA")


def test_what_cannot_be_read_is_told(parsed: Callable) -> None:
    with pytest.raises(ValueError, match="no file of the archive is a LaTeX document"):
        parsed(Latex(path="x"), archive({"a.tex": "x", "b.tex": "y"}))
    _, (aside,) = parsed(Latex(path="x"), ("{" * 500 + "x" + "}" * 500).encode())
    assert aside.reason == "the LaTeX nests too deep"
    _, (aside,) = parsed(Latex(path="x"), b"\\def\\a{\\b}\\def\\b{\\a} \\a")
    assert aside.reason == "the LaTeX nests too deep"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"See \href{http://a.b/c%20d}{the page} for more." + "\nThe rest.", "See the page for more.\nThe rest."),
        (r"At \url{http://a.b/~c%20d_e} and \url|f%g|." + "\nOn.", "At http://a.b/~c%20d_e and f%g.\nOn."),
        (r"\href[pdfnewwindow]{http://a.b/%7Ec}{It} is" + "\nhere.", "It is\nhere."),
        (r"Print \verb|%d|, \verb*+50%+ and go on." + "\nOn.", "Print %d, 50% and go on.\nOn."),
        (r"The \lstinline[language=C]!a % b! and \lstinline{x%y} are." + "\nOn.", "The a % b and x%y are.\nOn."),
        (r"In \path{/a/b%c} it is." + "\nOn.", "In /a/b%c it is.\nOn."),
        (r"A line\\% see \url{a" + "\nand 5\\% of it.", "A line\nand 5% of it."),
        ("\\begin{verbatim}\n\\verb % a\n\\end{verbatim}\nb % c\nd", "\\verb % a\n\nb d"),
    ],
)
def test_percent_signs_that_begin_no_comment(parsed: Callable, source: str, text: str) -> None:
    (document,), _ = parsed(Latex(path="x"), source.encode())
    assert document.text == text


WHOLE = "\\documentclass{{a}}\\begin{{document}}Start. {}\\end{{document}}"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"p/main.tex": WHOLE.format(r"\input{intro}"), "p/intro.tex": "Intro."}, "Start. Intro."),
        (
            {"p/main.tex": WHOLE.format(r"\input{s/a.tex}"), "p/s/a.tex": r"A. \input{s/b}", "p/s/b.tex": "B."},
            "Start. A. B.",
        ),
        (
            {"p/main.tex": WHOLE.format(r"\include{s/a}"), "p/s/a.tex": r"A. \input{b}", "p/s/b.tex": "B."},
            "Start.\n\nA. B.",
        ),
        ({"main.tex": WHOLE.format(r"\subimport{s/}{a}"), "s/a.tex": "A."}, "Start. A."),
        (
            {"main.tex": WHOLE.format(r"\input{body.txt} \input ./end"), "body.txt": "Body.", "end.tex": "End."},
            "Start. Body. End.",
        ),
        ({"p/main.tex": WHOLE.format(r"\input{../shared/a}"), "shared/a.tex": "A."}, "Start. A."),
        ({"main.tex": WHOLE.format(r"\include{a}\include{b}"), "a.tex": "A.", "b.tex": "B."}, "Start.\n\nA.\n\nB."),
        (
            {"main.tex": WHOLE.format(r"\subfile{a} End."), "a.tex": WHOLE.format("Set by itself, too.")},
            "Start. Start. Set by itself, too. End.",
        ),
        (
            {"main.tex": WHOLE.format(r"\verb|\input{a}| is a command."), "a.tex": "A."},
            r"Start. \input{a} is a command.",
        ),
    ],
)
def test_files_are_included_as_tex_finds_them(parsed: Callable, files: dict[str, str], text: str) -> None:
    (document,), aside = parsed(Latex(path="x"), archive(files))
    assert document.text == text
    assert not aside


def test_what_is_not_found_is_counted(parsed: Callable) -> None:
    source = WHOLE.format(r"\input{a} \include{b/c} % \input{d}" + "\n\\input{\\jobname.bbl}")
    for data in (source.encode(), archive({"p/main.tex": source})):
        (document,), aside = parsed(Latex(path="x"), data)
        assert document.text == "Start."
        assert [entry.reason for entry in aside] == [f"an included file is missing: {path}" for path in ("a", "b/c")]


def test_only_files_in_the_folder_of_the_source_are_included(tmp_path: Path) -> None:
    """Whoever wrote a file may not choose others of the disk that it is on."""
    folder, secret = tmp_path / "paper [1]", tmp_path / "secret.tex"
    secret.write_text("a secret")
    (folder / "parts").mkdir(parents=True)
    (folder / "link.tex").symlink_to(secret)
    (folder / "shared.tex").write_text("Shared.")
    names = ("../shared", "../../secret", str(secret), "../link", "no\0name", "long" * 99)
    stated = " ".join(f"\\input{{{name}}}" for name in names)
    (folder / "parts/main.tex").write_text(WHOLE.format(stated))
    for path, text in ((folder / "**/*.tex", "Start. Shared."), (folder / "parts/main.tex", "Start.")):
        source = Latex(path=str(path))
        found = [one for unit in source.units() if unit.endswith("main.tex") for one in source.read(unit)]
        assert [" ".join(one.text.split()) for one in found if isinstance(one, Document)] == [text]
        reasons = [one.reason for one in found if isinstance(one, Skipped)]
        assert len(reasons) == len(names) - ("Shared" in text)
        assert all(reason.startswith("an included file is not in the folder of the source, or") for reason in reasons)
    beside = Latex(path=str(folder / "**/*.tex"))
    assert [Path(unit).name for unit in beside.units()] == ["link.tex", "main.tex"]  # shared.tex is a part of it


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_that_is_cut_behind_the_paper_gives_the_paper(parsed: Callable, pack: Callable) -> None:
    noise = random.Random(0).randbytes(30_000).hex()
    whole = pack(archive({"main.tex": WHOLE.format("Body."), "figure.eps": noise}))
    ((document,), (aside,)) = parsed(Latex(path="x"), whole[: len(whole) // 2])
    assert document.text == "Start. Body."
    assert aside.reason.startswith("nothing more can be read after record 0: ")


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("cp1251", "cp1251", "Съешь ещё булок."),
        ("latin2", "iso8859-2", "Zażółć gęślą jaźń."),
        ("utf8", "utf-8", "Größe"),
    ],
)
@pytest.mark.parametrize("in_archive", [False, True])
def test_a_paper_is_in_the_encoding_that_it_declares(
    parsed: Callable, declared: str, encoding: str, text: str, in_archive: bool
) -> None:
    head = f"\\documentclass{{article}}\n% \\usepackage[latin1]{{inputenc}}\n\\usepackage[{declared}]{{inputenc}}\n"
    body = "\\begin{document}%s\\end{document}" % ("\\input{a}" if in_archive else text)
    files = {"main.tex": head + body, "a.tex": text}
    packed = archive(files, encoding=encoding) if in_archive else files["main.tex"].encode(encoding)
    (document,), _ = parsed(Latex(path="x"), packed)
    assert document.text == text


def test_a_paper_in_postscript_is_refused(parsed: Callable) -> None:
    with pytest.raises(ValueError, match="PostScript"):
        parsed(Latex(path="x"), b"%!PS-Adobe-3.0\n/Times findfont (Hello) show\n")


def test_spaces_take_time_in_proportion_to_their_length(parsed: Callable) -> None:
    began = time.process_time()
    ((document,), _) = parsed(
        Latex(path="x"), b"a" + b" " * 100_000 + b"b\n\\begin{verbatim}\n" + b" " * 100_000 + b"c\n\\end{verbatim}"
    )
    assert document.text.split() == ["a", "b", "c"]
    assert time.process_time() - began < 5  # looked at from each space on, they take half a minute
