"""Books without what is Project Gutenberg's."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.gutenberg import Gutenberg

HEADER = """The Project Gutenberg eBook of Moby Dick

This eBook is for the use of anyone anywhere.

Title: Moby Dick;
    or, The Whale

Author: Herman Melville

Release Date: July, 2001 [eBook #2701]

Language: English

Character set encoding: ISO-8859-1

"""
NEW = (
    HEADER + "*** START OF THE PROJECT GUTENBERG EBOOK MOBY DICK ***\n\n\nProduced by Some\nPeople\n\nCall me {0}.\n\n"
)
NEW += "*** END OF THE PROJECT GUTENBERG EBOOK MOBY DICK ***\n\nSection 1. General Terms of Use\n"
OLD = HEADER + "***START**THE SMALL PRINT!**\nWhy is this small print here?\n"
OLD += "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04\n"
OLD += "\nCall me {0}.\n\nEnd of The Project Gutenberg Etext of Moby Dick\n"


@pytest.mark.parametrize("form", [NEW, OLD, NEW.replace("\n", "\r\n")])
def test_a_book(parsed: Callable, form: str) -> None:
    (book,), aside = parsed(Gutenberg(path="x"), form.format("Ishmaël").encode("latin-1"))
    assert book.text == "Call me Ishmaël.\n"
    assert book.url == "https://www.gutenberg.org/ebooks/2701"
    assert book.licence == "LicenseRef-public-domain-US"
    assert book.meta == {
        "title": "Moby Dick; or, The Whale",
        "author": "Herman Melville",
        "language": "English",
        "date": "July, 2001",
    }
    assert not aside


def test_several_in_one_file(parsed: Callable) -> None:
    books, _ = parsed(Gutenberg(path="x"), (NEW.format("A") + OLD.format("B") + NEW.format("C")).encode())
    assert [book.text for book in books] == ["Call me A.\n", "Call me B.\n", "Call me C.\n"]


def test_copyright_and_files_without_header(parsed: Callable) -> None:
    stated = NEW.replace("This eBook is", "This is a COPYRIGHTED Project Gutenberg eBook. It is")
    assert parsed(Gutenberg(path="x"), stated.encode())[0][0].licence == "unknown"
    assert parsed(Gutenberg(path="x"), b"Call me.")[0][0].text == "Call me.\n"
    with pytest.raises(ValueError, match="starts a Project Gutenberg book"):
        parsed(Gutenberg(path="x"), b"The Project Gutenberg licence and no book")


@pytest.mark.parametrize(
    "end", ["Fin de Project Gutenberg's X, par Y\n\n", "Ende dieses Projekt Gutenberg Etextes X\n"]
)
def test_ends_in_other_languages_and_dates_of_today(parsed: Callable, end: str) -> None:
    today = NEW.format("A").replace("Release Date", "Release date").replace("*** END", f"\n{end}*** END")
    ((book,), _) = parsed(Gutenberg(path="x"), today.replace("OF THE PR", "OF THE COPYRIGHTED PR").encode())
    assert (book.text, book.meta["date"], book.licence) == ("Call me A.\n", "July, 2001", "unknown")
