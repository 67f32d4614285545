"""Articles in JATS, as PubMed Central lays them out."""

from collections.abc import Callable

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
