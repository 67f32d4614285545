"""A channel's day without what the server says."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.irc import Irc

LOG = """=== newbie [~n@host] has joined #ubuntu
[00:01] <newbie> how do i list files?
[00:02] <old_hand> newbie: ls -l <dir>
=== other is now known as another
[00:03]  * another waves
[00:04] -ChanServ- Welcome
--- Log closed
*** another sets mode
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_people_only(parsed: Callable, end: str) -> None:
    (document,), _ = parsed(
        Irc(path="x", licence="CC0-1.0"), LOG.replace("\n", end).encode(), "logs/2004/07/05/#ubuntu.txt"
    )
    assert document.text == "<newbie> how do i list files?\n<old_hand> newbie: ls -l <dir>\n* another waves"
    assert document.url == "https://irclogs.ubuntu.com/2004/07/05/%23ubuntu.txt"
    assert (document.licence, document.meta) == ("CC0-1.0", {"title": "#ubuntu", "date": "2004-07-05"})


def test_encodings_and_silence(parsed: Callable) -> None:
    (document,), _ = parsed(Irc(path="x"), b"[00:01] <a> caf\xe9\n[00:02] <b> ok\n")
    assert document.text == "<a> café\n<b> ok"
    assert parsed(Irc(path="x"), b"=== a has joined\n")[1][0].reason == "there is no text in it"


@pytest.mark.parametrize("start", ["00:01 <", "00:01:02 < ", "[2020-01-01 00:01:02] <", "2020-01-01T00:01:02+0000 <"])
def test_times_as_programs_write_them(parsed: Callable, start: str) -> None:
    ((document,), _) = parsed(Irc(path="x"), f"{start}ann> hi\n00:02 -!- joe has joined\n".encode())
    assert document.text == "<ann> hi"
