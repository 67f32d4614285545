"""Subtitles of OPUS, as text and split into words."""

import gzip
from collections.abc import Callable

import pytest

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


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Where are
you?</i>

2
00:00:03,000 --> 00:00:04,000 X1:100
{\\an8}- Here.
- And 5 &amp; 6.
"""
VTT = "WEBVTT\nKind: captions\n\nNOTE no\n\n00:01.000 --> 00:02.000\n<v Ann>Where are<00:01.500> you?\n\n"
VTT += "a\n00:03.000 --> 00:04.000 align:start\n- Here.\n- And 5 & 6.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [SRT, VTT, SRT.replace("\n", "\r\n"), SRT.rstrip()])
def test_files_of_players(parsed: Callable, text: str, encoding: str) -> None:
    (document,), aside = parsed(Subtitles(path="x"), text.encode(encoding), "film.srt")
    assert document.text == "Where are you?\n- Here.\n- And 5 & 6."
    assert not aside
