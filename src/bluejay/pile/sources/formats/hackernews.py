"""Discussions of Hacker News, in the form of its API (https://github.com/HackerNews/API) or of Algolia's."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.html import all_text
from bluejay.pile.sources.formats.json_objects import json_objects
from bluejay.pile.sources.io.open import BROKEN
from bluejay.pile.sources.io.records import RecordFiles

ITEM = "CREATE TABLE item (id INTEGER PRIMARY KEY, parent INTEGER, root INTEGER, source TEXT)"
"""The table of items; `root` is whether an item begins a discussion."""
ITEMS_AT_ONCE = 10_000
"""Items after which the time limit starts again."""
ROOTS = {"story", "poll", "job"}
"""The types of items that begin a discussion."""
SHORTENED = re.compile(r'<a\s[^<>]*?href="([^"<>]+)"[^<>]*>[^<>]*\.\.\.</a>')
"""A link whose text is the beginning of its address."""
UNFIT = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, TypeError, KeyError)
"""The exceptions of an item that the table cannot hold; a full disk raises another one."""


@dataclass(frozen=True, kw_only=True)
class HackerNews(RecordFiles):
    """Each story with its comments is one document, without dead and deleted ones. Bare stories are left out.

    Files hold items in any order, whose comments name their `parent`, or threads, whose items hold their `children`.
    """

    kind: Literal["hackernews"] = "hackernews"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Each story with its tree of comments. A temporary database on disk finds the comments of each story."""
        with closing(sqlite3.connect("")) as items:  # an unnamed temporary file, removed with this process
            items.execute(ITEM)
            broken = None
            try:
                for count, item in enumerate(json_objects(stream)):
                    if not isinstance(item, dict) or item.get("children"):
                        yield item
                    else:
                        try:
                            items.execute("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?)", row(item))
                        except UNFIT:
                            yield ValueError("an item needs a number (id) and the number of its parent")
                    if count % ITEMS_AT_ONCE == 0:
                        yield None
            except (ValueError, RecursionError, *BROKEN) as error:  # the items before the damage are complete
                broken = error
            items.execute("CREATE INDEX by_parent ON item (parent)")
            for (story,) in items.execute("SELECT source FROM item WHERE root ORDER BY id"):
                try:
                    thread = with_children(json.loads(story), items)
                except (TypeError, RecursionError) as error:
                    yield error
                else:
                    yield thread if thread["children"] else None
            if broken:
                raise broken

    def document(self, name: str, record: Any) -> Document:
        """The Pile's format: title and author, URL, ======, comments; ~~~ before a reply, ------ between threads."""
        if is_gone(record):
            raise ValueError("the story is dead or deleted")
        title, author = record.get("title") or "", record.get("by") or record.get("author") or ""
        head = [f"{title} - {author}", record.get("url") or "", text_of(record)]
        threads = ["\n~~~\n".join(comments(comment)) for comment in record["children"]]
        text = "\n".join(filter(None, head)) + "\n======\n" + "\n------\n".join(filter(None, threads))
        if not any(threads):
            raise ValueError("nobody's comment on the story is left")
        at = record.get("time")
        date = datetime.fromtimestamp(at, UTC).isoformat() if isinstance(at, int) else record.get("created_at", "")
        meta = {"title": title, "date": date, "score": record.get("score") or record.get("points") or 0}
        return Document(text, "Hacker News", self.licence, f"https://news.ycombinator.com/item?id={record['id']}", meta)


def row(item: dict[str, Any]) -> tuple[int, int | None, bool, str]:
    """An item as a row of the table."""
    is_root = item.get("type", "story" if "title" in item else "comment") in ROOTS
    return item["id"], item.get("parent"), is_root, json.dumps(item)


def with_children(item: dict[str, Any], items: sqlite3.Connection) -> dict[str, Any]:
    """An item with its tree of replies: first those that it names (`kids`), in that order, then the others."""
    order = {kid: place for place, kid in enumerate(item.get("kids") or [])}
    found = items.execute("SELECT id, source FROM item WHERE parent = ? AND NOT root ORDER BY id", (item["id"],))
    replies = sorted(found.fetchall(), key=lambda row: order.get(row[0], len(order)))
    return {**item, "children": [with_children(json.loads(source), items) for _, source in replies]}


def comments(comment: dict[str, Any]) -> Iterator[str]:
    """The author and text of a comment, then of all replies to it."""
    if not is_gone(comment) and (text := text_of(comment)):
        yield f"{comment.get('by') or comment.get('author') or ''}\n{text}"
    for reply in comment.get("children") or []:
        yield from comments(reply)


def text_of(item: dict[str, Any]) -> str:
    """The text of an item, with whole addresses."""
    return all_text(SHORTENED.sub(r"\1", item.get("text") or ""))


def is_gone(item: dict[str, Any]) -> bool:
    """Whether moderators or the author have removed the item."""
    return bool(item.get("dead") or item.get("deleted"))
