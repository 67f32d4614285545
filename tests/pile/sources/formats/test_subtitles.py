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


ROLLING = """WEBVTT
Kind: captions

00:00:00.160 --> 00:00:02.470 align:start position:0%
 
hello<00:00:00.480><c> there</c>

00:00:02.470 --> 00:00:02.480 align:start position:0%
hello there
 

00:00:02.480 --> 00:00:04.150 align:start position:0%
hello there
this<00:00:02.720><c> is</c><00:00:03.040><c> it</c>

00:00:04.150 --> 00:00:04.160 align:start position:0%
this is it
 

00:00:04.160 --> 00:00:06.000 align:start position:0%
 
no
"""  # noqa: W293


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (ROLLING, ["hello there", "this is it", "no"]),
        ("1\n00:00:01,0 --> 00:00:02,0\nNo.\n\n2\n00:00:02,0 --> 00:00:03,0\nNo.\n\n" + "3" + SRT[1:], ["No.", "No."]),
        ("WEBVTT\n\na/1-0\n0:0:0.0 --> 0:0:3.540\n<v Ann>Good morning.</v>\n", ["Good morning."]),
        ("1\n00:00:01 --> 00:00:02\nOne.\n2\n00:00:02 --> 00:00:03\nTwo,\n3.\n", ["One.", "Two, 3."]),
    ],
    ids=["rolling", "said twice", "short times", "no empty lines"],
)
def test_each_subtitle_is_written_as_often_as_it_is_said(parsed: Callable, text: str, lines: list[str]) -> None:
    (document,), _ = parsed(Subtitles(path="x"), text.encode(), "film.vtt")
    assert document.text.split("\n")[: len(lines)] == lines
