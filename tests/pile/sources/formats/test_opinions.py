"""Opinions as CourtListener gives them."""

import json
from collections.abc import Callable

from bluejay.pile.sources.formats.opinions import Opinions

BULK = {
    "id": 5,
    "absolute_url": "/opinion/5/roe-v-doe/",
    "plain_text": "  PLAIN\n\nText  ",
    "html": "<p>no</p>",
    "html_with_citations": '<p>Affirmed, <a href="/x">1 U.S. 1</a>.</p><p>So ordered.</p>',
    "date_filed": "1999-01-02",
    "case_name": "Roe v. Doe",
}


def test_the_best_form(parsed: Callable) -> None:
    plain = {**BULK, "html": "", "html_with_citations": None}
    none = {"id": 6, "plain_text": " "}
    data = "\n".join(map(json.dumps, [BULK, plain, none, {"id": 7, "plain_text": "Text."}]))
    documents, (aside,) = parsed(Opinions(path="x", licence="CC-PDM-1.0"), data.encode())
    assert [document.text for document in documents] == ["Affirmed, 1 U.S. 1.\n\nSo ordered.", "PLAIN\n\nText", "Text."]
    assert documents[0].url == "https://www.courtlistener.com/opinion/5/roe-v-doe/"
    assert documents[2].url == "https://www.courtlistener.com/api/rest/v4/opinions/7/"
    assert documents[0].meta == {"title": "Roe v. Doe", "date": "1999-01-02"}
    assert documents[0].licence == "CC-PDM-1.0"
    assert (aside.name, aside.reason) == ("file#2", "the opinion has no text")


def test_a_cluster_with_its_opinions(parsed: Callable) -> None:
    cluster = {"id": 1, "case_name": "A v. B", "date_filed": "2001-01-01", "absolute_url": "/opinion/1/a-v-b/"}
    opinions = [{"id": 2, "plain_text": "Majority."}, {"id": 3, "plain_text": "Dissent."}]
    documents, _ = parsed(Opinions(path="x"), json.dumps({**cluster, "sub_opinions": opinions}, indent=1).encode())
    assert [document.text for document in documents] == ["Majority.", "Dissent."]
    assert {document.meta["title"] for document in documents} == {"A v. B"}
    assert {document.url for document in documents} == {"https://www.courtlistener.com/opinion/1/a-v-b/"}
