"""PDF files made by reportlab come out as running text."""

import io
import re
from collections.abc import Callable

import pytest
from reportlab.lib.pagesizes import A6
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate

from bluejay.pile.sources.formats.pdf import Pdf, join_lines, without_running_titles


def paper(paragraphs: list[str], title: str = "A Paper") -> bytes:
    out = io.BytesIO()
    style = getSampleStyleSheet()["Normal"]

    def running_title(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.drawString(60, 400, f"Journal of X, page {document.page}")
        canvas.drawString(150, 20, f"{document.page}")

    story = [Paragraph(text, style) for text in paragraphs]
    SimpleDocTemplate(out, pagesize=A6, title=title, invariant=True).build(story, running_title, running_title)
    return out.getvalue()


def test_text_without_line_ends_and_running_titles(parsed: Callable) -> None:
    paragraphs = [
        f"Paragraph {number} of the café has " + "words that go on and on " * 30 + "until it ends."
        for number in range(6)
    ]
    (document,), _ = parsed(Pdf(path="x", licence="CC0-1.0"), paper(paragraphs))
    assert " ".join(document.text.split()) == " ".join(paragraphs)
    assert "Journal" not in document.text
    assert document.meta["title"] == "A Paper"
    assert document.meta["date"].startswith("20")
    assert document.licence == "CC0-1.0"


def test_lines() -> None:
    assert join_lines("a hyphen\ufffe\nated word\nand a well-\nknown. One\nTwo, three,\nFour") == (
        "a hyphenated word and a well-known. One\nTwo, three, Four"
    )
    assert join_lines("modi\x1ced \x1ductuation o\x1bers 1986\x151989 \x10no\x11\n\x10\nx\x00") == (
        "modified fluctuation offers 1986–1989 “no”\n\nx"
    )


def test_ligatures_and_private_codes_are_letters() -> None:
    assert join_lines("an eﬃcient ﬁnd") == "an efficient find"
    # what fonts with the glyphs oneoldstyle, Asmall, Eacutesmall and braceleftmid give
    assert join_lines("In \uf731\uf739\uf735\uf734, N\uf761t\uf7e9, \uf8f2") == "In 1954, Naté, ⎨"


@pytest.mark.parametrize(("font", "mark"), [("ABCDEF+Wingdings-Regular", "✓"), ("Unheard", "\uf0fc")])
def test_symbols_are_what_their_font_draws(parsed: Callable, font: str, mark: str) -> None:
    codes = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange 2 beginbfchar <61> <F0FC> <62> <F0B7> "
    codes += b"endbfchar endcmap"
    shown = b"BT /S 12 Tf 20 50 Td (a) Tj /T 12 Tf (done) Tj /S 12 Tf (b) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<</Font<</S 5 0 R/T 7 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(shown), shown),
        b"<</Type/Font/Subtype/TrueType/BaseFont/%s/ToUnicode 6 0 R>>" % font.encode(),
        b"<</Length %d>>stream\n%s\nendstream" % (len(codes), codes),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    file = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%s endobj\n" % found for found in enumerate(objects, 1))
    ((document,), _) = parsed(Pdf(path="x"), file + b"trailer<</Root 1 0 R>>")
    assert "".join(document.text.split()) == f"{mark}done•"


def test_of_numbers_at_the_edges_of_a_page_one_is_its_number() -> None:
    pages = [["A Title", "", f"{number}", "1984", "was a year.", "15", "17", f"{number}", ""] for number in range(6)]
    assert without_running_titles(pages) == [["1984", "was a year.", "15", "17"]] * 6
    assert without_running_titles([["12", "Anna", "13"], ["", "7"]]) == [["Anna"], []]


def test_left_and_right_pages_have_running_titles_of_their_own() -> None:
    pages = [["A Title", "Text a."]]
    for number in range(2, 10):
        head = [f"{number}", "Ann Author"] if number % 2 else ["A Journal", f"{number}"]
        pages.append([*head, f"Text {'abcdefghij'[number]}."])
    assert without_running_titles(pages) == [pages[0], *([page[2]] for page in pages[1:])]


def test_scans_and_rubbish_are_skipped(parsed: Callable) -> None:
    out = io.BytesIO()
    canvas = Canvas(out)
    canvas.rect(10, 10, 100, 100)
    canvas.save()
    assert parsed(Pdf(path="x"), out.getvalue())[1][0].reason == "there is no text in it"
    for data in (b"", b"%PDF-1.4", paper(["text"])[:300]):
        documents, (aside,) = parsed(Pdf(path="x"), data)
        assert not documents
        assert "not readable as PDF" in aside.reason


def test_an_encrypted_file_is_skipped(parsed: Callable) -> None:
    out = io.BytesIO()
    canvas = Canvas(out, encrypt="a password")
    canvas.drawString(10, 10, "A secret.")
    canvas.save()
    documents, (aside,) = parsed(Pdf(path="x"), out.getvalue())
    assert (documents, aside.reason) == ([], "encrypted: it needs a password")


def test_a_broken_page_costs_itself(parsed: Callable) -> None:
    data = paper([f"Paragraph {number} has " + "words " * 150 for number in range(3)])
    (second,) = re.search(rb"/Kids \[ \d+ 0 R (\d+) 0 R", data).groups()
    broken = data.replace(b" %s 0 R" % second, b" %s 0 R" % (b"9" * len(second)), 1)
    ((document,), (aside,)) = parsed(Pdf(path="x"), broken)
    assert "Paragraph 0" in document.text and "Paragraph 2" in document.text
    assert aside.reason.startswith("a page is broken: 2: ")
