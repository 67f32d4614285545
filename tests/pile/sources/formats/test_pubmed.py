"""Abstracts in MEDLINE's layout."""

import gzip
from collections.abc import Callable

from bluejay.pile.sources.formats.pubmed import PubMed

ARTICLE = """<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="1">{number}</PMID>
<Article PubModel="Print">
<Journal><JournalIssue><PubDate><Year>2001</Year><Month>Nov</Month></PubDate></JournalIssue><Title>J. of X</Title>
</Journal>
<ArticleTitle>On H<sub>2</sub>O &lt; x.</ArticleTitle>{abstract}<Language>eng</Language></Article></MedlineCitation>
<PubmedData><ReferenceList><Reference><ArticleIdList><ArticleId IdType="pubmed">1</ArticleId></ArticleIdList>
</Reference>
</ReferenceList></PubmedData></PubmedArticle>"""
ABSTRACT = """<Abstract><AbstractText Label="AIM">To <i>see</i>.</AbstractText><AbstractText>Seen.</AbstractText>
<CopyrightInformation>(c) X</CopyrightInformation></Abstract>"""


def test_title_and_abstract(parsed: Callable) -> None:
    head = '<?xml version="1.0"?><!DOCTYPE PubmedArticleSet SYSTEM "pubmed.dtd"><PubmedArticleSet>'
    articles = [ARTICLE.format(number=8, abstract=ABSTRACT), ARTICLE.format(number=9, abstract="")]
    data = gzip.compress(f"{head}{''.join(articles)}</PubmedArticleSet>".encode())
    (document,), (aside,) = parsed(PubMed(path="x"), data)
    assert document.text == "On H2O < x.\n\nAIM: To see.\nSeen."
    assert document.url == "https://pubmed.ncbi.nlm.nih.gov/8/"
    expected = {
        "title": "On H2O < x.",
        "date": "2001-Nov",
        "journal": "J. of X",
        "language": "eng",
        "copyright": "(c) X",
    }
    assert document.meta == expected
    assert aside.reason == "the article has no abstract"
