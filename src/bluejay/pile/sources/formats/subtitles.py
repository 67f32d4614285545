"""Subtitles of films: SRT, WebVTT, and the XML of OPUS's OpenSubtitles (`LANGUAGE/YEAR/FILM/SUBTITLES.xml`)."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, read_until_damaged, stated
from bluejay.pile.sources.formats.opus import sentences
from bluejay.pile.sources.io.decode import Encoding, decode_text, recoded, start_of
from bluejay.pile.sources.io.elements import element, elements, line_of
from bluejay.pile.sources.io.open import decompressed
from bluejay.pile.sources.io.records import RecordFiles

PLACE = re.compile(r"(?:^|/)([a-z]{2,3}(?:_[A-Za-z]+)?)/(\d{1,4})/(\d+)/[^/]+$")
ARROW = b"-->"
CUE = re.compile(
    r"^[ \t]*(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d+)?[ \t]*-->.*\n"
    r"(?:[ \t]+\n)?((?:(?!.*-->|\d+[ \t]*\n.*-->)[^\n]*\S[^\n]*(?:\n|\Z))*)",
    re.MULTILINE,
)
"""The times of a subtitle, and its lines up to an empty one or the next times, before which a number may stand. YouTube
begins some with a line of one space."""
NOT_SHOWN = re.compile(r"<[^<>\n]*>|\{\\[^{}\n]*\}")
"""How a subtitle is set, and where."""


@dataclass(frozen=True, kw_only=True)
class Subtitles(RecordFiles):
    """The subtitles of a film in one language are one document, with one line per sentence, or per subtitle where the
    file does not mark sentences, and without times."""

    kind: Literal["subtitles"] = "subtitles"
    encoding: Encoding | None = None
    """The encoding of files in SRT or WebVTT that do not begin as UTF-8."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The source of each film; the bytes of a file that is not XML."""
        content: Any = decompressed(stream)
        start = start_of(content).replace(b"\0", b"")
        if ARROW in start and not start.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n").startswith(b"<"):
            raw, damage = read_until_damaged(recoded(content, self.encoding))
            yield raw
            if damage:
                raise damage
            return
        for _, source in elements(content, "document"):
            yield source

    def document(self, name: str, record: Any) -> Document:
        """The sentences of a film; its path holds the language, the year and its number at IMDb."""
        if isinstance(record, bytes):
            return Document("\n".join(filter(None, subtitles(decode_text(record)))), name, self.licence, name)
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


def subtitles(text: str) -> Iterator[str]:
    """The subtitles of a file in SRT or WebVTT, each in a line; two people who speak in one have a line each.

    Where captions roll up, as those that YouTube makes do, most subtitles begin with the last line of the one before;
    each line is written once there.
    """
    cues = [lines_of(cue[1]) for cue in CUE.finditer(text.replace("\r\n", "\n"))]
    again = [repeated(before, cue) for before, cue in itertools.pairwise([[], *cues])]
    rolls_up = sum(map(bool, again)) > len(cues) / 3
    for cue, count in zip(cues, again, strict=True):
        for line in re.split(r"\n(?=[-–]\s*\S)", "\n".join(cue[count:] if rolls_up else cue)):
            yield " ".join(line.split())


def lines_of(cue: str) -> list[str]:
    """The lines of a subtitle that have text, without how they are set."""
    return [line.strip() for line in unescape(NOT_SHOWN.sub("", cue)).split("\n") if line.strip()]


def repeated(before: list[str], cue: list[str]) -> int:
    """How many lines at the start of a subtitle are the last ones of the one before."""
    return next((count for count in range(len(cue), 0, -1) if before[-count:] == cue[:count]), 0)
