"""Books made by ebooklib come out in reading order."""

import io
import zipfile
from collections.abc import Callable

import pytest
from ebooklib import epub

from bluejay.pile.sources.formats.epub import Epub


@pytest.fixture
def book(tmp_path) -> bytes:
    made = epub.EpubBook()
    made.set_identifier("https://example.org/books/1")
    made.set_title("A Title")
    made.set_language("en")
    made.add_author("Ann Author")
    made.add_metadata("DC", "rights", "https://creativecommons.org/licenses/by/4.0/")
    chapters = []
    for number in (2, 1):
        chapter = epub.EpubHtml(title=f"Chapter {number}", file_name=f"text/c {number}.xhtml", lang="en")
        chapter.content = f"<h1>Chapter {number}</h1><p>Text of caf&#233; {number}.</p>"
        made.add_item(chapter)
        chapters.insert(0, chapter)
    made.toc = chapters
    made.add_item(epub.EpubNcx())
    made.add_item(epub.EpubNav())
    made.spine = ["nav", *chapters]
    epub.write_epub(str(tmp_path / "book.epub"), made)
    return (tmp_path / "book.epub").read_bytes()


def test_a_book(parsed: Callable, book: bytes) -> None:
    (document,), _ = parsed(Epub(path="x"), book)
    assert document.text == "Chapter 1\n\nText of café 1.\n\nChapter 2\n\nText of café 2."
    assert (document.url, document.licence) == ("https://example.org/books/1", "CC-BY-4.0")
    assert document.meta["title"] == "A Title"
    assert document.meta["authors"] == ["Ann Author"]
    assert document.meta["language"] == "en"


def test_what_is_no_book_is_skipped(parsed: Callable, book: bytes) -> None:
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    for data in (b"", b"PK\x03\x04", book[: len(book) // 2], empty.getvalue()):
        documents, (aside,) = parsed(Epub(path="x"), data)
        assert not documents
        assert "not an EPUB" in aside.reason
