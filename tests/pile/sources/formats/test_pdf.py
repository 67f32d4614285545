"""PDF files made by reportlab come out as running text."""

import io
import re
import zlib
from collections.abc import Callable

import pytest
from reportlab.lib.pagesizes import A6
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate

from bluejay.pile.sources.formats.pdf import Pdf
from bluejay.pile.sources.formats.pdf_letters import ligatures


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


def drawn(content: bytes, fonts: bytes, *more: bytes) -> bytes:
    """A file of one page with this content; more objects have the numbers from 5 on."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<</Font<<%s>>>>>>" % fonts
    stream = b"<</Length %d>>stream\n%s\nendstream" % (len(content), content)
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, stream, *more]
    file = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%s endobj\n" % found for found in enumerate(objects, 1))
    return file + b"trailer<</Root 1 0 R>>"


HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


@pytest.mark.parametrize(("font", "mark"), [("ABCDEF+Wingdings-Regular", "✓"), ("Unheard", "\uf0fc")])
def test_symbols_are_what_their_font_draws(parsed: Callable, font: str, mark: str) -> None:
    codes = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange 2 beginbfchar <61> <F0FC> <62> <F0B7> "
    codes += b"endbfchar endcmap"
    shown = b"BT /S 12 Tf 20 50 Td (a) Tj /T 12 Tf (done) Tj /S 12 Tf (b) Tj ET"
    symbols = b"<</Type/Font/Subtype/TrueType/BaseFont/%s/ToUnicode 6 0 R>>" % font.encode()
    stream = b"<</Length %d>>stream\n%s\nendstream" % (len(codes), codes)
    ((document,), _) = parsed(Pdf(path="x"), drawn(shown, b"/S 5 0 R/T 7 0 R", symbols, stream, HELVETICA))
    assert "".join(document.text.split()) == f"{mark}done•"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        # the accent before its letter, as TeX draws it: back by the width of the letter
        (b"20 50 Td (Schr) Tj 26 0 Td (\\250) Tj -1.3 0 Td (odinger) Tj", "Schrödinger"),
        # over a capital, so high that it is in no line with it
        (b"20 50 Td (Und Ubung) Tj 31 3 Td (\\250) Tj", "Und Übung"),
        # no accent, as it is beside all letters
        (b"20 50 Td (2\\210n, `a') Tj", "2ˆn, `a'"),
    ],
    ids=["before its letter", "over a capital", "code"],
)
def test_an_accent_belongs_to_the_letter_over_which_it_is_drawn(parsed: Callable, content: bytes, text: str) -> None:
    ((document,), _) = parsed(Pdf(path="x"), drawn(b"BT /T 12 Tf %s ET" % content, b"/T 5 0 R", HELVETICA))
    assert document.text == text


def test_ligatures_are_the_letters_of_their_names(parsed: Callable) -> None:
    font = b"<</Type/Font/Subtype/Type1/BaseFont/ABCDEF+Body/Encoding 6 0 R>>"
    names = b"<</Type/Encoding/Differences[27/f_i/f_f_i 81/Q 97/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o]>>"
    shown = b"BT /T 12 Tf 20 50 Td (\\033nd o\\034ce) Tj ET"
    ((document,), _) = parsed(Pdf(path="x"), drawn(shown, b"/T 5 0 R", font, names))
    assert document.text == "find office"


def test_ligatures_are_found_in_packed_objects_and_one_name_for_two_is_none() -> None:
    fonts = [b"<</BaseFont/ABCDEF+Body/Encoding %d 0 R>>" % number for number in (7, 8)]
    names = [b"<</Differences[3/t_t/%s]>>" % name for name in (b"f_i", b"f_l")]
    places = b"5 0 6 50 7 100 8 150 "
    packed = zlib.compress(places + b"".join(content.ljust(50) for content in (*fonts, *names)))
    head = b"9 0 obj<</Type/ObjStm/N 4/First %d>>stream\n" % len(places)
    assert ligatures(head + packed + b"\nendstream endobj") == {("Body", "\x03"): "tt"}
    assert ligatures(head + b"secret\nendstream endobj") == {}


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
