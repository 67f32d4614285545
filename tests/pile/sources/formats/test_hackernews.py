"""A story and its comments are one document, in whatever order the items lie."""

import json
import random
from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.hackernews import HackerNews

ITEMS = [
    {
        "id": 1,
        "type": "story",
        "by": "pg",
        "title": "Y &c",
        "url": "http://a.b",
        "score": 57,
        "time": 1160418111,
        "kids": [4, 2],
    },
    {
        "id": 2,
        "type": "comment",
        "by": "sama",
        "parent": 1,
        "text": "&quot;the <i>rising</i> star&quot;<p>Two.",
        "kids": [3],
    },
    {"id": 3, "type": "comment", "by": "pg", "parent": 2, "text": "yes"},
    {"id": 4, "type": "comment", "by": "x", "parent": 1, "text": "first"},
    {"id": 5, "type": "comment", "parent": 4, "deleted": True},
    {"id": 6, "type": "comment", "by": "z", "parent": 5, "text": "to a ghost"},
    {"id": 7, "type": "story", "by": "pg", "title": "Nobody cares"},
    {"id": 8, "type": "comment", "by": "q", "parent": 999, "text": "lost"},
    {"id": 11, "type": "comment", "parent": ["x"], "text": "no parent"},
    {"id": 9, "type": "story", "by": "spam", "title": "Dead", "dead": True},
    {"id": 10, "type": "comment", "by": "q", "parent": 9, "text": "on a dead one"},
]
THREAD = """Y &c - pg
http://a.b
======
x
first
~~~
z
to a ghost
------
sama
"the rising star"

Two.
~~~
pg
yes"""


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thread(parsed: Callable, seed: int) -> None:
    items = random.Random(seed).sample(ITEMS, len(ITEMS))
    lines = [*map(json.dumps, items), "{broken", "null"]
    (document,), aside = parsed(HackerNews(path="x"), "\n".join(lines).encode())
    assert document.text == THREAD
    assert document.url == "https://news.ycombinator.com/item?id=1"
    assert document.meta == {"title": "Y &c", "date": "2006-10-09T18:21:51+00:00", "score": 57}
    assert sorted(entry.reason.split(":")[0] for entry in aside) == [
        "an item needs a number (id) and the number of its parent",
        "not JSON",
        "not a JSON object",
        "the story is dead or deleted",
    ]


def test_whole_threads_as_algolia_gives_them(parsed: Callable) -> None:
    text = '<p>Why <a href="http:&#x2F;&#x2F;b.c&#x2F;d" rel="nofollow">http:&#x2F;&#x2F;b...</a>?</p>'
    reply = {"id": 2, "author": "b", "text": text, "children": []}
    story = {
        "id": 1,
        "author": "a",
        "title": "T",
        "points": 3,
        "created_at": "2020-01-01T00:00:00Z",
        "children": [reply],
    }
    (document,), _ = parsed(HackerNews(path="x"), json.dumps([story]).encode())
    assert document.text == "T - a\n======\nb\nWhy http://b.c/d?"
    assert document.meta == {"title": "T", "date": "2020-01-01T00:00:00Z", "score": 3}


def test_a_ring_of_comments_ends(parsed: Callable) -> None:
    ring = [
        {"id": 1, "type": "story", "title": "T"},
        {"id": 2, "parent": 3, "text": "x"},
        {"id": 3, "parent": 2, "text": "y"},
    ]
    assert parsed(HackerNews(path="x"), "\n".join(map(json.dumps, ring)).encode())[0] == []
