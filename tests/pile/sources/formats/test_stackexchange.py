"""Questions come out with the answers that The Pile's rule chooses."""

import io
import re
from collections.abc import Callable
from xml.sax.saxutils import quoteattr

import py7zr
import pytest

from bluejay.pile.sources.formats.stackexchange import StackExchange


def row(**values: object) -> str:
    return "  <row " + " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items()) + " />\n"


def dump(*rows: str) -> bytes:
    return ('\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "".join(rows) + "</posts>").encode()


def question(number: int, accepted: int | None = None, **more: object) -> str:
    extra = {"AcceptedAnswerId": accepted} if accepted else {}
    body = f'<p>Body {number}: <code>a &lt; b</code> Score="99"</p>'
    values = {"Id": number, "PostTypeId": 1, **extra, "Score": 5, "Title": f"Question {number}?", "Body": body}
    return row(**values, AnswerCount=9, CreationDate="2020-01-01T00:00:00", ContentLicense="CC BY-SA 4.0", **more)


def answer(number: int, parent: int, score: int, **more: object) -> str:
    values = {"Id": number, "PostTypeId": 2, "ParentId": parent, "Score": score, "Body": f"<p>Answer {number}</p>"}
    return row(**values, **{"ContentLicense": "CC BY-SA 4.0", **more})


POSTS = dump(
    answer(90, 1, 3),
    question(1, accepted=11, Tags="<unix><ls>", OwnerUserId=7),
    answer(11, 1, -2, OwnerUserId=8),
    answer(12, 1, 50, ContentLicense="CC BY-SA 3.0", OwnerDisplayName="gone"),
    answer(13, 1, 2),
    question(2),
    answer(21, 2, 2),
    question(3),
    *(answer(30 + score, 3, score) for score in range(3, 8)),
    row(Id=4, PostTypeId=5, Body="a tag's page"),
    question(6, accepted=61),
)


def texts(documents: list) -> list[str]:
    return [document.text.replace("\n\n", "|") for document in documents]


def test_the_best_answers(parsed: Callable) -> None:
    documents, aside = parsed(StackExchange(path="x"), POSTS, "askubuntu.com/Posts.xml")
    body = 'Body {0}: a < b Score="99"'
    assert texts(documents) == [
        f"Q:|Question 1?|{body.format(1)}|A:|Answer 12|A:|Answer 90|A:|Answer 11",
        f"Q:|Question 3?|{body.format(3)}|A:|Answer 37|A:|Answer 36|A:|Answer 35",
    ]
    assert not aside
    first = documents[0]
    assert first.url == "https://askubuntu.com/questions/1"
    assert first.licence == "CC-BY-SA-4.0 AND CC-BY-SA-3.0"
    assert first.source == "askubuntu.com"
    assert first.meta["tags"] == ["unix", "ls"]
    assert first.meta["authors"] == ["https://askubuntu.com/users/7", "gone", "https://askubuntu.com/users/8"]


def test_however_a_dump_is_written(parsed: Callable) -> None:
    whole = [document.text for document in parsed(StackExchange(path="x"), POSTS)[0]]
    bare = POSTS.replace(b"&gt;", b">")
    single = re.sub(rb"""(\w*Id|Title)="([^"']*)\"""", rb"\1 = '\2'", bare)
    assert b"Id = '1' PostTypeId = '1'" in single
    for data in (bare, single):
        documents, aside = parsed(StackExchange(path="x"), data)
        assert ([document.text for document in documents], aside) == (whole, [])


def test_a_choice_of_ones_own(parsed: Callable) -> None:
    documents, _ = parsed(StackExchange(path="x", score=2, answers=1), POSTS)
    assert [text.split("|A:|")[1:] for text in texts(documents)] == [["Answer 12"], ["Answer 21"], ["Answer 37"]]


def test_an_archive_of_a_site(parsed: Callable) -> None:
    packed = io.BytesIO()
    with py7zr.SevenZipFile(packed, "w") as archive:
        archive.writestr(b"<users />", "Users.xml")
        archive.writestr(POSTS, "Posts.xml")
    address = "https://archive.org/download/stackexchange/cooking.stackexchange.com.7z"
    documents, _ = parsed(StackExchange(path="x"), packed.getvalue(), address)
    assert [document.url for document in documents] == [
        f"https://cooking.stackexchange.com/questions/{number}" for number in (1, 3)
    ]


def test_broken_dumps(parsed: Callable) -> None:
    documents, aside = parsed(StackExchange(path="x"), POSTS[:-200])
    assert len(documents) == 2
    assert "the file ends within <row>" in aside[0].reason
    bad = POSTS.replace(b'Title="Question 3?"', b'Title="Question 3?" Title="twice"')
    documents, aside = parsed(StackExchange(path="x"), bad)
    assert (len(documents), len(aside)) == (1, 1)
    packed = io.BytesIO()
    with py7zr.SevenZipFile(packed, "w") as archive:
        archive.writestr(b"<users />", "Users.xml")
    with pytest.raises(ValueError, match=r"holds no Posts\.xml"):
        parsed(StackExchange(path="x"), packed.getvalue())
    with pytest.raises(ValueError, match="Bad7zFile"):
        parsed(StackExchange(path="x"), packed.getvalue()[:50])
