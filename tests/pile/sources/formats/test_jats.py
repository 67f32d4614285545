"""Articles in JATS, as PubMed Central lays them out."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.jats import Jats

ARTICLE = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96)//EN" "JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"
 article-type="research-article"
 xml:lang="en"><front><journal-meta><journal-title-group><journal-title>J. X</journal-title></journal-title-group>
</journal-meta>
<article-meta><article-id pub-id-type="pmc">PMC123</article-id><article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>Foo</italic><xref ref-type="fn">*</xref></article-title></title-group>
<pub-date><day>3</day><month>4</month><year>2019</year></pub-date><pub-date><year>2020</year></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open.</license-p>
</license></permissions>
<abstract><title>Abstract</title><p>We &lt;show&gt; &ndash; it.</p></abstract></article-meta></front>
<body><sec><label>1</label><title>Intro</title><p>First<xref ref-type="bibr">[1]</xref>.</p><sec><title>Sub</title>
<p>Second
 line.</p><list><list-item><p>one</p></list-item><list-item><p>two</p></list-item></list></sec></sec>
<sec><title>Results</title><fig><label>Fig 1</label><caption><title>Cap.</title><p>About it.</p></caption></fig>
<table-wrap><table><tr><td>no cell</td></tr></table></table-wrap><p>Third.</p></sec></body>
<back><ack><p>Thanks.</p></ack><ref-list><ref><mixed-citation>no reference</mixed-citation></ref></ref-list></back>
</article>"""


def test_an_article(parsed: Callable) -> None:
    (document,), _ = parsed(Jats(path="x"), ARTICLE.encode())
    blocks = document.text.split("\n\n")
    assert blocks[:3] == ["# On Foo*", "## Abstract", "We <show> – it."]
    assert blocks[3:8] == ["## Intro", "First[1].", "### Sub", "Second line.", "- one\n- two"]
    assert blocks[8] == "## Results"
    assert set(blocks[9:]) == {"## Cap.", "About it.", "Third.", "Thanks."} or "Third." in blocks
    assert "no cell" not in document.text and "no reference" not in document.text
    assert (document.url, document.licence) == ("https://doi.org/10.1/x", "CC-BY-4.0")
    assert document.meta["date"] == "2019-04-03"
    assert document.meta["journal"] == "J. X"


def test_one_without_text_is_skipped(parsed: Callable) -> None:
    _, (aside,) = parsed(Jats(path="x"), b"<article><front><article-meta/></front></article>")
    assert aside.reason == "the article has neither abstract nor body"


SHORT = "<{0}article {1}><{0}front><{0}article-meta/></{0}front><{0}body><{0}p>Its text.</{0}p></{0}body></{0}article>"


@pytest.mark.parametrize(
    "source",
    [
        SHORT.format("", 'xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/"'),
        SHORT.format("j:", 'xmlns:j="https://jats.nlm.nih.gov/ns/archiving/1.3/"'),
        "<OAI xmlns:j='u' xmlns:xlink='v'><metadata>" + SHORT.format("j:", "xlink:href='a'") + "</metadata></OAI>",
        "<OAI xmlns='u'><metadata>" + SHORT.format("", "xml:lang='en'") + "</metadata></OAI>",
    ],
)
def test_articles_in_namespaces(parsed: Callable, source: str) -> None:
    ((document,), aside) = parsed(Jats(path="x"), source.encode())
    assert (document.text, aside) == ("Its text.", [])


LIST = "<list list-type='order'><list-item><p>wash</p></list-item><list-item><p>dry</p></list-item></list>"
QUOTE = "<disp-quote><p>To be.</p><attrib>Hamlet</attrib></disp-quote>"
FORMULA = (
    "<disp-formula><label>(1)</label><alternatives><tex-math>$$a = b$$</tex-math>"
    "<mml:math><mml:mi>a</mml:mi></mml:math></alternatives></disp-formula>"
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f"<p>The steps are:{LIST}and no more.</p>", "The steps are:\n\n- wash\n- dry\n\nand no more."),
        (f"<p>He says {QUOTE} there.</p>", "He says\n\nTo be.\n\nHamlet\n\nthere."),
        (f"<p>As {FORMULA} says, <italic>b</italic>.</p>", "As\n\n$$a = b$$\n\nsays, b."),
        ("<p>Run<code>a = 1\n  b</code>now.</p>", "Run\n\na = 1\n  b\n\nnow."),
        (
            "<p>One<fig><caption><p>A picture.</p></caption></fig> line &amp;<fn><p>no</p></fn> all.</p>",
            "One line & all.\n\nA picture.",
        ),
        ("<def-list><def-item><term>Rye</term><def><p>a grain</p></def></def-item></def-list>", "Rye: a grain"),
        ("<verse-group><verse-line>Two</verse-line><verse-line>lines</verse-line></verse-group>", "Two\nlines"),
        ("<p><bold>All</bold> <italic>of it</italic>.</p>", "All of it."),
        (
            "<p>A<break/>b <inline-formula><tex-math>\\documentclass{a}\\begin{document}$$x$$\\end{document}</tex-math>"
            "</inline-formula></p>",
            "A b $$x$$",
        ),
        (
            "<p><mml:math><mml:msup><mml:mn>10</mml:mn><mml:mrow><mml:mo>−</mml:mo><mml:mn>3</mml:mn></mml:mrow></mml:msup>"
            "<mml:mfrac><mml:mrow><mml:mi>a</mml:mi><mml:mo>+</mml:mo><mml:mi>b</mml:mi></mml:mrow><mml:mi>c</mml:mi>"
            "</mml:mfrac></mml:math>.</p>",
            "10^−3(a+b)/c.",
        ),
        (
            "<list><list-item><p>a - b</p><list><list-item><p>c</p></list-item></list></list-item></list>",
            "- a - b\n  - c",
        ),
        ("<sec><title>A <italic>title</italic></title><p/><p>End.</p></sec>", "## A title\n\nEnd."),
    ],
)
def test_blocks_within_paragraphs(parsed: Callable, body: str, text: str) -> None:
    ((document,), _) = parsed(Jats(path="x"), f"<article xmlns:mml='m'><body>{body}</body></article>".encode())
    assert document.text == text


def test_all_parts_of_an_article(parsed: Callable) -> None:
    article = """<article><front><article-meta><license><p>http://creativecommons.org/licenses/by/2.0</p></license>
    <title-group><article-title>On X</article-title><subtitle>A trial</subtitle></title-group>
    <pub-date><year>2020</year></pub-date><pub-date><year>2020</year><month>3</month></pub-date>
    <abstract><p>Short.</p></abstract><abstract abstract-type="summary"><title>Summary</title><p>For all.</p></abstract>
    </article-meta></front><body><p>Body.</p></body><back><sec><title>Data</title><p>Here.</p></sec>
    <ack><title>Thanks</title><p>You.</p></ack></back><floats-group><fig><caption><p>A picture.</p></caption></fig>
    </floats-group></article>"""
    ((document,), _) = parsed(Jats(path="x"), article.encode())
    assert document.text.split("\n\n") == [
        *("# On X: A trial", "## Abstract", "Short.", "## Summary", "For all.", "Body."),
        *("## Data", "Here.", "## Thanks", "You.", "A picture."),
    ]
    assert (document.licence, document.meta["date"]) == ("CC-BY-2.0", "2020-03")
