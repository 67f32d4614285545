"""Subtitles of OPUS, as text and split into words."""

import gzip
from collections.abc import Callable

from bluejay.pile.sources.formats.subtitles import Subtitles

FILM = """<?xml version="1.0" encoding="utf-8"?>
<document id="4567"><s id="1"><time id="T1S" value="00:00:01,000" />- Where are you?</s>
<s id="2"><w id="2.1">I</w> <w>'m</w> <w>here</w> <w>,</w> <w>don</w> <w>'t</w> <w>go</w> <w>(</w> <w>now</w>
<w>)</w> <w>!</w>
<time id="T1E" value="00:00:03,000" /></s><s id="3"> </s><meta><source><year>1994</year></source></meta></document>"""


def test_a_film(parsed: Callable) -> None:
    (document,), _ = parsed(
        Subtitles(path="x"), gzip.compress(FILM.encode()), "OpenSubtitles/xml/en/1994/111161/1.xml.gz"
    )
    assert document.text == "- Where are you?\nI'm here, don't go (now)!"
    assert document.meta == {"date": "1994", "language": "en"}
    assert document.url == "https://www.imdb.com/title/tt0111161/"
    (document,), _ = parsed(Subtitles(path="x"), FILM.encode(), "film.xml")
    assert document.meta == {"date": "1994"}
