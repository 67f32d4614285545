"""Subtitles of films, in the XML of OPUS's OpenSubtitles: `LANGUAGE/YEAR/FILM/SUBTITLES.xml`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.opus import sentences
from bluejay.pile.sources.io.elements import element, elements, line_of
from bluejay.pile.sources.io.records import RecordFiles

PLACE = re.compile(r"(?:^|/)([a-z]{2,3}(?:_[A-Za-z]+)?)/(\d{1,4})/(\d+)/[^/]+$")


@dataclass(frozen=True, kw_only=True)
class Subtitles(RecordFiles):
    """The subtitles of a film in one language are one document, with one line per sentence and without times."""

    kind: Literal["subtitles"] = "subtitles"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each film."""
        for _, source in elements(stream, "document"):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """The sentences of a film; its path holds the language, the year and its number at IMDb."""
        film = element(record)
        place = PLACE.search(name)
        language, year, number = place.groups() if place else ("", "", "")
        meta = {
            "title": line_of(film.find(".//meta/source/title")) or line_of(film.find(".//meta/title")),
            "date": year or line_of(film.find(".//meta/source/year")),
            "language": language or line_of(film.find(".//meta/subtitle/language")),
        }
        url = f"https://www.imdb.com/title/tt{number.zfill(7)}/" if number else name
        return Document("\n".join(sentences(film)), name, self.licence, url, stated(meta))
