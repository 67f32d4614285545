"""What a reader of a document of Word sees is its text, in order; what he does not see is none."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.office import Office
from tests.pile.sources.formats.office.files import docx, p, relations, zipped

STYLES = (
    '<w:style w:styleId="T"><w:name w:val="Title"/></w:style>'
    '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="Mine"><w:name w:val="My heading"/><w:basedOn w:val="berschrift1"/></w:style>'
    '<w:style w:styleId="C"><w:name w:val="HTML Preformatted"/></w:style>'
    '<w:style w:styleId="Secret"><w:name w:val="x"/><w:rPr><w:vanish/></w:rPr></w:style>'
    '<w:style w:styleId="Ph"><w:name w:val="Placeholder Text"/></w:style>'
    '<w:style w:styleId="Loop"><w:name w:val="y"/><w:basedOn w:val="Loop"/></w:style>'
)
LEVEL = '<w:lvl w:ilvl="{}"><w:start w:val="1"/><w:numFmt w:val="{}"/><w:lvlText w:val="{}"/></w:lvl>'
NUMBERING = (
    f'<w:abstractNum w:abstractNumId="0">{LEVEL.format(0, "decimal", "%1.")}{LEVEL.format(1, "lowerLetter", "%1.%2)")}'
    f'</w:abstractNum><w:abstractNum w:abstractNumId="1">{LEVEL.format(0, "bullet", "o")}</w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="0"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>'
)


def style(name: str) -> str:
    return f'<w:pStyle w:val="{name}"/>'


def listed(number: int, level: int = 0) -> str:
    return f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'


def code(text: str) -> str:
    return f'<w:r><w:instrText xml:space="preserve">{text}</w:instrText></w:r>'


def mark(kind: str) -> str:
    return f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>'


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


@pytest.fixture
def text(parsed: Callable) -> Callable[..., str]:
    def read(body: str, **parts: str) -> str:
        ((document,), aside) = parsed(Office(path="x"), docx(body, **parts))
        assert not aside
        return document.text

    return read


def test_headings_paragraphs_and_lines_of_code(text: Callable) -> None:
    body = p("A title", style("T")) + p("One", style("berschrift1")) + p(" Text of café.  ") + p("")
    body += p("Two", style("Mine")) + p("Three", '<w:outlineLvl w:val="2"/>') + p("odd", style("Loop"))
    body += p("if x:", style("C")) + p("    y", style("C"))
    assert (
        text(body, styles=STYLES) == "# A title\n\n# One\n\nText of café.\n\n# Two\n\n### Three\n\nodd\n\nif x:\n    y"
    )


def test_lists_are_numbered_as_they_are_shown(text: Callable) -> None:
    body = p("a", listed(1)) + p("b", listed(1, 1)) + p("c", listed(1, 1)) + p("d", listed(1)) + p("e", listed(1, 1))
    body += p("f", listed(2)) + p("g", listed(3)) + p("no item", listed(0)) + p("h", listed(1))
    expected = "1. a\n  1.a) b\n  1.b) c\n2. d\n  2.a) e\n- f\n7. g\n\nno item\n\n8. h"
    assert text(body, numbering=NUMBERING) == expected
    assert text(p("a", listed(1, 1)) + p("b", listed(1)), numbering=NUMBERING) == "  1.a) a\n2. b"


def test_changes_are_accepted(text: Callable) -> None:
    body = f"<w:p>{run('It ')}<w:del><w:r><w:delText>was</w:delText></w:r></w:del><w:ins>{run('is')}</w:ins>"
    body += f"{run(' so.')}<w:moveFrom>{run('gone')}</w:moveFrom><w:moveTo>{run(' Here.')}</w:moveTo></w:p>"
    body += p("One ", "<w:rPr><w:del/></w:rPr>") + p("paragraph.")
    deleted = f"<w:tr><w:trPr><w:del/></w:trPr><w:tc>{p('old')}</w:tc></w:tr>"
    body += f"<w:tbl>{deleted}<w:tr><w:tc>{p('new')}</w:tc></w:tr></w:tbl>"
    assert text(body) == "It is so. Here.\n\nOne paragraph.\n\nnew"


def test_fields_show_their_result_and_not_their_code(text: Callable) -> None:
    link = f"{mark('begin')}{code('HYPERLINK x')}{mark('separate')}{run('a link')}{mark('end')}"
    inner = f"{mark('begin')}{code('IF ')}{link}{code(' = 1')}{mark('separate')}{run('so')}{mark('end')}"
    assert text(f"<w:p>{run('See ')}{link}{run(', ')}{inner}.</w:p>") == "See a link, so"
    assert text(f"<w:p>{mark('begin')}{code('DATE')}{run('x')}</w:p>{p('The rest.')}") == "The rest."


def test_tables_of_contents_are_left_out(text: Callable) -> None:
    entries = f"<w:p>{mark('begin')}{code('TOC')}{mark('separate')}{run('One 1')}</w:p>{p('Two 2')}"
    gallery = '<w:sdtPr><w:docPartObj><w:docPartGallery w:val="Table of Contents"/></w:docPartObj></w:sdtPr>'
    control = f"<w:sdt>{gallery}<w:sdtContent>{p('Three 3')}</w:sdtContent></w:sdt>"
    assert text(f"{entries}<w:p>{mark('end')}</w:p>{control}{p('The text.')}") == "The text."
    assert "The text." in text(f"{entries}{p('The text.')}"), "one that never ends hides nothing"


def test_hidden_text_and_prompts_are_left_out(text: Callable) -> None:
    secret = run("secret", "<w:vanish/>") + run("styled", '<w:rStyle w:val="Secret"/>')
    prompt = run("Click here", '<w:rStyle w:val="Ph"/>')
    shown = '<w:vanish w:val="0"/>'
    body = f"<w:p>{run('Seen')}{secret}{run(' twice.', shown)}"
    body += f"<w:sdt><w:sdtContent>{prompt}</w:sdtContent></w:sdt></w:p>"
    body += f"<w:p><w:pPr>{style('Secret')}</w:pPr>{run('no')}{run('Shown.', shown)}</w:p>"
    body += f"<w:sdt><w:sdtPr><w:text/></w:sdtPr><w:sdtContent>{p('Filled in.')}</w:sdtContent></w:sdt>"
    assert text(body, styles=STYLES) == "Seen twice.\n\nShown.\n\nFilled in."


def test_notes_stand_at_the_end(text: Callable) -> None:
    end, foot = '<w:r><w:endnoteReference w:id="1"/></w:r>', '<w:r><w:footnoteReference w:id="4"/></w:r>'
    body = f"<w:p>{run('A')}{end}{run(' b')}{foot}</w:p>"
    notes = f'<w:footnote w:id="0"><w:p/></w:footnote><w:footnote w:id="4">{p("Foot.")}</w:footnote>'
    assert text(body, footnotes=notes, endnotes=f'<w:endnote w:id="1">{p("End.")}</w:endnote>') == (
        "A[1] b[2]\n\n[1] End.\n\n[2] Foot."
    )


def test_text_boxes_are_read_once(text: Callable) -> None:
    box = f"<w:txbxContent>{p('In a box.')}</w:txbxContent>"
    choice = f"<mc:Choice><w:drawing><wps:txbx>{box}</wps:txbx></w:drawing></mc:Choice>"
    fallback = f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback>"
    for forms in (choice + fallback, "<mc:Choice><w:drawing/></mc:Choice>" + fallback):
        body = f"<w:p>{run('Be')}<w:r><mc:AlternateContent>{forms}</mc:AlternateContent></w:r>{run('fore.')}</w:p>"
        assert text(body + p("After.")) == "Before.\n\nIn a box.\n\nAfter."


def test_tables(text: Callable) -> None:
    long = "".join(f"<w:p>{run('A long paragraph. ' * 20)}</w:p>" for _ in range(2))
    rows = (("Name", "Size"), ("a", "1</w:t><w:br/><w:t>2"))
    inner = "".join(f"<w:tr>{''.join(f'<w:tc>{p(cell)}</w:tc>' for cell in cells)}</w:tr>" for cells in rows)
    layout = f"<w:tr><w:tc>{p('Left.')}</w:tc><w:tc>{long}</w:tc></w:tr>"
    read = text(f"{p('Before.')}<w:tbl>{inner}{layout}</w:tbl>").split("\n\n")
    assert read[:3] == ["Before.", "Name\tSize\na\t1 2", "Left."]
    assert read[3:] == [("A long paragraph. " * 20).strip()] * 2


def test_characters_that_are_elements(text: Callable) -> None:
    inner = "<w:t>a</w:t><w:tab/><w:t>b</w:t><w:noBreakHyphen/><w:t>c</w:t><w:br/>"
    inner += "<w:t>co</w:t><w:softHyphen/><w:t>\xadop</w:t>"
    symbol = '<w:r><w:sym w:font="Symbol" w:char="F061"/><w:sym w:font="Symbol" w:char="00B0"/>'
    symbol += '<w:sym w:font="Wingdings" w:char="F0E0"/></w:r>'
    private = run("\uf062", '<w:rFonts w:ascii="Symbol"/>')
    ruby = f"<w:r><w:ruby><w:rt>{run('kan')}</w:rt><w:rubyBase>{run('漢')}</w:rubyBase></w:ruby></w:r>"
    assert text(f"<w:p><w:r>{inner}</w:r>{symbol}{private}{ruby}</w:p>") == "a\tb-c\ncoopα°→β漢(kan)"


def test_a_large_initial_is_part_of_its_word(text: Callable) -> None:
    assert text(p("O", '<w:framePr w:dropCap="drop"/>') + p("nce upon a time.")) == "Once upon a time."


def test_formulas(text: Callable) -> None:
    def r(symbols: str) -> str:
        return f"<m:r><m:t>{symbols}</m:t></m:r>"

    power = f"<m:sSup><m:e>{r('x')}</m:e><m:sup>{r('2')}</m:sup></m:sSup>"
    root = f"<m:rad><m:radPr/><m:deg/><m:e>{r('a+b')}</m:e></m:rad>"
    fraction = f"<m:f><m:num>{r('a+b')}</m:num><m:den>{r('c')}</m:den></m:f>"
    limits = f"<m:sub>{r('i=1')}</m:sub><m:sup>{r('n')}</m:sup>"
    sum_ = f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>{limits}<m:e>{r("i")}</m:e></m:nary>'
    brackets = f"<m:d><m:dPr/><m:e>{r('y')}</m:e></m:d>"
    body = "".join(
        f"<w:p><m:oMath>{inner}</m:oMath></w:p>" for inner in (power + r("=") + fraction, root, sum_, brackets)
    )
    assert text(body) == "x^2=(a+b)/c\n\n√(a+b)\n\n∑_(i=1)^n i\n\n(y)"


def test_a_broken_part_costs_itself(parsed: Callable) -> None:
    body = f'{p("The text.", style("T"))}<w:altChunk r:id="nothing"/>'
    ((document,), aside) = parsed(Office(path="x"), docx(body, styles="<w:style>", footnotes="&"))
    assert document.text == "The text."
    reasons = [entry.reason for entry in aside]
    assert [reason.partition(": not well")[0] for reason in reasons] == [
        "a part is broken: word/styles.xml",
        "a part is broken: word/footnotes.xml",
        "a file within is left out: nothing",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", "<html><body><p>A page within.</p></body></html>"),
        ("page.mht", "MIME-Version: 1.0\nContent-Type: text/html\n\n<html><body><p>A page within.</p></body></html>"),
    ],
)
def test_a_page_within_is_read(parsed: Callable, name: str, content: str) -> None:
    body = '<w:altChunk xmlns:r="urn:r" r:id="c"/>'
    data = zipped(
        {
            "_rels/.rels": relations({"a": ("officeDocument", "word/document.xml")}),
            "word/document.xml": f'<w:document xmlns:w="urn:w"><w:body>{body}</w:body></w:document>',
            "word/_rels/document.xml.rels": relations({"c": ("aFChunk", f"/word/{name}")}),
            f"word/{name}": content,
        }
    )
    assert [document.text for document in parsed(Office(path="x"), data)[0]] == ["A page within."]
