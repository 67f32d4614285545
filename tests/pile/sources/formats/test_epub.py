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


def changed(book: bytes, **files: str) -> bytes:
    """A book in which some files have another content."""
    out = io.BytesIO()
    names = {name.replace("_", "/").replace("~", " "): content for name, content in files.items()}
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w") as new:
        for name in {**dict.fromkeys(old.namelist()), **names}:
            new.writestr(name, names[name] if name in names else old.read(name))
    return out.getvalue()


CHAPTER = '<html xmlns="http://www.w3.org/1999/xhtml"><head>{}</head><body><p>The{} caf&eacute;.</p></body></html>'


@pytest.mark.parametrize(
    "page",
    [
        CHAPTER.format("<title/>", ""),
        CHAPTER.format('<script src="a.js"/><style/>', "<a id='x'/>"),
        '<?xml version="1.0"?><!DOCTYPE html PUBLIC "a" "b">' + CHAPTER.format("<title/>", "<i/>"),
        CHAPTER.format("<title></title>", "<br>"),
        CHAPTER.format("<title/>", "<br>"),
        CHAPTER.format("<title id='a' /><script src=\"a>b\"/><style/>", "<br>"),
        CHAPTER.format("<title/>", "").replace("<", "<h:").replace("<h:/", "</h:").replace("xmlns=", "xmlns:h="),
    ],
)
def test_chapters_are_xml(parsed: Callable, book: bytes, page: str) -> None:
    ((document,), _) = parsed(Epub(path="x"), changed(book, **{"EPUB_text_c~1.xhtml": page}))
    assert " ".join(document.text.split()) == "The café. Chapter 2 Text of café 2."


@pytest.mark.parametrize(("path", "is_lost"), [("EPUB/text/c%201.xhtml", True), ("EPUB/fonts/a.otf", False)])
def test_an_encrypted_book_is_skipped(parsed: Callable, book: bytes, path: str, is_lost: bool) -> None:
    encryption = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><e:EncryptedData xmlns:e='
        f'"http://www.w3.org/2001/04/xmlenc#"><e:CipherData><e:CipherReference URI="{path}"/></e:CipherData>'
        "</e:EncryptedData></encryption>"
    )
    documents, aside = parsed(Epub(path="x"), changed(book, **{"META-INF_encryption.xml": encryption}))
    assert (len(documents), [entry.reason for entry in aside]) == (
        (0, ["encrypted: EPUB/text/c 1.xhtml"]) if is_lost else (1, [])
    )


def test_a_missing_chapter_is_counted(parsed: Callable, book: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if not name.endswith("c 1.xhtml"):
                new.writestr(name, old.read(name))
    ((document,), aside) = parsed(Epub(path="x"), out.getvalue())
    assert "Chapter 2" in document.text
    assert [entry.reason for entry in aside] == ["a chapter is missing: EPUB/text/c 1.xhtml"]


@pytest.mark.parametrize("content", ["\x01" * 90, None])
def test_a_broken_chapter_costs_itself(parsed: Callable, book: bytes, content: str | None) -> None:
    if content is None:
        stored = changed(book, **{"EPUB_text_c~1.xhtml": "<p>The first</p>"})
        data = stored.replace(b"The first", b"The f1rst")  # which its checksum tells
    else:
        data = changed(book, **{"EPUB_text_c~1.xhtml": content})
    ((document,), (aside,)) = parsed(Epub(path="x"), data)
    assert document.text == "Chapter 2\n\nText of café 2."
    assert aside.reason.startswith("a chapter is broken: EPUB/text/c 1.xhtml: ")


def test_a_chapter_that_is_too_large_costs_itself(parsed: Callable, book: bytes, monkeypatch) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, b" " * 1_000_000 if name.endswith("c 1.xhtml") else old.read(name))
    monkeypatch.setattr("bluejay.pile.documents.MAX_DOCUMENT_BYTES", 100_000)
    ((document,), (aside,)) = parsed(Epub(path="x"), out.getvalue())
    assert document.text == "Chapter 2\n\nText of café 2."
    assert aside.reason.startswith("a chapter is broken: EPUB/text/c 1.xhtml: larger than")


def test_chapters_are_named_with_places_in_them(parsed: Callable, book: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(book)) as old:
        package = old.read("EPUB/content.opf").decode()
    package = package.replace("c 1.xhtml", "c%201.xhtml#start")
    assert "#start" in package
    documents, aside = parsed(Epub(path="x"), changed(book, **{"EPUB_content.opf": package}))
    assert ([d.text for d in documents], aside) == ([d.text for d in parsed(Epub(path="x"), book)[0]], [])
