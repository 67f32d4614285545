"""What a reader of a document in OpenDocument sees is its text."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.office import Office
from tests.pile.sources.formats.office.files import OPEN, opendocument

NUMBERS = (
    '<text:list-style style:name="L">'
    '<text:list-level-style-number text:level="1" style:num-format="1" style:num-suffix="."/>'
    '<text:list-level-style-number text:level="2" style:num-format="a" style:num-suffix=")" text:display-levels="2"/>'
    '<text:list-level-style-bullet text:level="3" text:bullet-char="o"/></text:list-style>'
)


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def items(*contents: str, start: str = "") -> str:
    inner = "".join(f"<text:list-item>{content}</text:list-item>" for content in contents)
    return f'<text:list text:style-name="L"{start}>{inner}</text:list>'


@pytest.fixture
def text(parsed: Callable) -> Callable[..., str]:
    def read(body: str, **more: str) -> str:
        ((document,), aside) = parsed(Office(path="x"), opendocument(body, **more))
        assert not aside
        return document.text

    return read


def test_headings_and_white_space_as_it_is_shown(text: Callable) -> None:
    body = '<text:h text:outline-level="2">A \n heading</text:h>'
    body += p("  Text<text:span> of </text:span>\n  café<text:s text:c='3'/>x<text:tab/>y<text:line-break/>z\xad. ")
    body += p("def f():", "Preformatted_20_Text") + p("<text:s text:c='4'/>pass", "P1")
    styles = '<style:style style:name="P1" style:parent-style-name="Preformatted_20_Text"/>'
    expected = "## A heading\n\nText of café   x\ty\nz.\n\ndef f():\n    pass"
    assert text(body, styles=styles) == expected


def test_lists_are_numbered_as_they_are_shown(text: Callable) -> None:
    body = items(p("a") + items(p("b"), p("c") + items(p("d")))) + p("between")
    body += items(p("e"), start=' text:continue-numbering="true"') + items(p("f"))
    assert text(body, styles=NUMBERS) == ("1. a\n  1.a) b\n  1.b) c\n    - d\n\nbetween\n\n2. e\n1. f")


def test_lists_without_a_style(text: Callable) -> None:
    body = f"<text:list><text:list-item>{p('a')}{p('more')}</text:list-item></text:list>"
    assert text(body) == "- a\n\nmore"


def test_numbered_headings(text: Callable) -> None:
    styles = '<text:outline-style><text:outline-level-style text:level="1" style:num-format="1"/></text:outline-style>'
    body = '<text:h text:outline-level="1">One</text:h><text:h text:outline-level="2">Part</text:h>'
    assert text(body + body, styles=styles) == "# 1 One\n\n## Part\n\n# 2 One\n\n## Part"


def test_what_is_not_seen_is_left_out(text: Callable) -> None:
    styles = '<style:style style:name="T1"><style:text-properties text:display="none"/></style:style>'
    body = "<text:tracked-changes><text:changed-region><text:deletion>" + p("deleted") + "</text:deletion>"
    body += "</text:changed-region></text:tracked-changes>"
    body += f"<text:table-of-content><text:index-body>{p('One 1')}</text:index-body></text:table-of-content>"
    body += p("Seen<office:annotation><dc:creator>Me</dc:creator>" + p("comment") + "</office:annotation>.")
    body += p('<text:span text:style-name="T1">hidden</text:span><text:title>A field</text:title>')
    body += f'<text:section text:display="none">{p("section")}</text:section>'
    assert text(body, styles=styles) == "Seen.\n\nA field"


def test_notes_text_boxes_and_tables(text: Callable) -> None:
    note = f"<text:note-citation>9</text:note-citation><text:note-body>{p('Foot.')}</text:note-body>"
    note = f"<text:note>{note}</text:note>"
    box = f"<draw:frame><draw:text-box>{p('Box.')}</draw:text-box><svg:title>alt</svg:title></draw:frame>"
    cells = "".join(f"<table:table-cell>{p(cell)}</table:table-cell>" for cell in "xy")
    rows = f"<table:table-header-rows><table:table-row>{cells}</table:table-row></table:table-header-rows>"
    body = p(f"A{note} b{box}.") + f"<table:table>{rows}<table:table-row>{cells}</table:table-row></table:table>"
    assert text(body) == "A[1] b.\n\nBox.\n\nx\ty\nx\ty\n\n[1] Foot."


def test_formulas_are_parts_of_sentences(text: Callable) -> None:
    math = '<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>x</mi><mn>2</mn></msup></math>'
    body = p('Take <draw:frame><draw:object xlink:href="./Object 1"/></draw:frame>.')
    assert text(body, **{"Object 1_content": math}) == "Take x^2."


def test_slides(text: Callable) -> None:
    def frame(kind: str, inner: str) -> str:
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{inner}</draw:text-box></draw:frame>'

    notes = f"<presentation:notes>{frame('page', '')}{frame('notes', p('To be said.'))}</presentation:notes>"
    page = frame("title", p("One")) + frame("outline", items(p("point"))) + frame("footer", p("foot")) + notes
    body = f"<presentation:footer-decl>foot</presentation:footer-decl><draw:page>{page}</draw:page>"
    assert text(body, kind="presentation") == "## One\n\n- point\n\nTo be said."


def test_a_document_in_one_file(parsed: Callable) -> None:
    meta = "<office:meta><dc:title>A title</dc:title></office:meta>"
    body = f"<office:body><office:text>{p('Flat.')}</office:text></office:body>"
    flat = f'<?xml version="1.0" encoding="UTF-8"?>\n<office:document {OPEN}>{meta}{body}</office:document>'
    ((document,), _) = parsed(Office(path="x"), flat.encode())
    assert (document.text, document.meta) == ("Flat.", {"title": "A title"})


def test_metadata_and_licence(parsed: Callable) -> None:
    about = (
        "<dc:title>A title</dc:title><meta:initial-creator>Ann Author</meta:initial-creator><dc:creator>Ed</dc:creator>"
    )
    about += "<meta:creation-date>2020-02-03T04:05:06</meta:creation-date><dc:language>de-DE</dc:language>"
    about += '<meta:user-defined meta:name="License">https://creativecommons.org/licenses/by/4.0/</meta:user-defined>'
    ((document,), _) = parsed(Office(path="x"), opendocument(p("Text."), about=about))
    assert document.licence == "CC-BY-4.0"
    assert document.meta == {
        "title": "A title",
        "authors": ["Ann Author"],
        "date": "2020-02-03T04:05:06",
        "language": "de-DE",
    }


def test_an_encrypted_document_is_skipped(parsed: Callable) -> None:
    manifest = "<m:manifest xmlns:m='urn:m'><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>"
    documents, (aside,) = parsed(Office(path="x"), opendocument("", **{"META-INF_manifest": manifest}))
    assert (documents, aside.reason) == ([], "encrypted: it needs a password")
