"""Chat logs as on irclogs.ubuntu.com: one file per channel and day, `2004/07/05/#ubuntu.txt`."""

import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.decode import decode_text
from bluejay.pile.sources.io.records import RecordFiles

TIME = r"\[?(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:?\d\d)?\]?\s*"
MESSAGE = re.compile(rf"^(?:{TIME})?(?:< ?([^<>\s]+>\s?.*)|(\* ?[^\s*]\S* .*))$")
"""A message, or an action after an asterisk. Lines with `===`, `---`, `***` or `-!-` are the server's."""
DAY = re.compile(r"(\d{4})/(\d\d)/(\d\d)/([^/]+)\.(?:txt|html)$")


@dataclass(frozen=True, kw_only=True)
class Irc(RecordFiles):
    """Each day of a channel is one document: messages with their authors, without times and server messages."""

    kind: Literal["irc"] = "irc"

    def document(self, name: str, record: Any) -> Document:
        """The lines that people wrote."""
        lines = (MESSAGE.match(line.rstrip()) for line in decode_text(record).split("\n"))
        text = "\n".join((f"<{line[1]}" if line[1] else line[2]).strip() for line in lines if line)
        day = DAY.search(name)
        if not day:
            return Document(text, name, self.licence, name)
        year, month, date, channel = day.groups()
        channel = unquote(channel)
        url = f"https://irclogs.ubuntu.com/{year}/{month}/{date}/{quote(channel)}.txt"
        return Document(text, channel, self.licence, url, {"title": channel, "date": f"{year}-{month}-{date}"})
