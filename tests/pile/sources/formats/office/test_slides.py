"""Slides come in the order in which they are shown, with what their authors say to them."""

from collections.abc import Callable

from bluejay.pile.sources.formats.office import Office
from tests.pile.sources.formats.office.files import pptx, shape


def paragraph(text: str, properties: str) -> str:
    return f"<a:p><a:pPr {properties}</a:pPr><a:r><a:t>{text}</a:t></a:r></a:p>"


def test_slides_in_order_with_titles_lists_and_notes(parsed: Callable) -> None:
    number = '<a:p><a:fld type="slidenum"><a:t>1</a:t></a:fld></a:p>'
    slides = {
        "slide2": shape("ctrTitle", "A Talk") + shape("subTitle", "by its author") + shape("sldNum", "7"),
        "slide1": shape("title", "One")
        + shape("", "first", paragraph("second", 'lvl="1">'), paragraph("none", "><a:buNone/>"))
        + shape("body", "caption", number),
    }
    notes = {"slide1": shape("sldImg", "picture") + shape("body", "To be said.") + shape("hdr", "header")}
    ((document,), aside) = parsed(Office(path="x"), pptx(slides, notes))
    assert not aside
    assert document.text == (
        "# A Talk\n\nby its author\n\n## One\n\n- first\n  - second\n\nnone\n\ncaption\n\nTo be said."
    )


def test_numbered_items(parsed: Callable) -> None:
    numbered = '><a:buAutoNum type="{}"/>'
    letter, digit = numbered.format('alphaLcParenR" startAt="²'), 'lvl="1"' + numbered.format("arabicPeriod")
    texts = [("a", letter), ("b", digit), ("c", digit), ("d", letter), ("e", digit)]
    ((document,), _) = parsed(Office(path="x"), pptx({"s": shape("body", *(paragraph(*text) for text in texts))}, {}))
    assert document.text == "a) a\n  1. b\n  2. c\nb) d\n  1. e"


def test_groups_and_tables(parsed: Callable) -> None:
    cells = "".join(f"<a:tc><a:txBody><a:p><a:r><a:t>{c}</a:t></a:r></a:p></a:txBody></a:tc>" for c in "ab")
    table = f"<p:graphicFrame><a:graphic><a:tbl><a:tr>{cells}</a:tr></a:tbl></a:graphic></p:graphicFrame>"
    group = f"<p:grpSp><p:grpSp>{shape('body', 'deep')}</p:grpSp></p:grpSp>"
    ((document,), _) = parsed(Office(path="x"), pptx({"s": group + table}, {}))
    assert document.text == "deep\n\na\tb"


def test_a_broken_slide_costs_itself(parsed: Callable) -> None:
    ((document,), (aside,)) = parsed(Office(path="x"), pptx({"a": "?broken", "b": shape("title", "Whole")}, {}))
    assert document.text == "## Whole"
    assert aside.reason.startswith("a part is broken: ppt/slides/a.xml: not well-formed XML")
