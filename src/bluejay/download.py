"""Downloads that resume where they stopped, and retry with growing pauses while the server is out of reach.

A request asks for the bytes of a file from some position on, over HTTP (`http`) or another transport. They are appended
to a partial file, which outlives the process, so that no byte is transferred twice.
"""

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bluejay.files import write_text
from bluejay.progress import Bar, say

if TYPE_CHECKING:
    from httpx2 import Response

MAX_EMPTY_REQUESTS = 4
"""Consecutive requests without a new byte that end a download. The pauses between them double, from one second."""
LONGEST_PAUSE, SAID_PAUSE = 300.0, 10.0
"""Seconds for which a server that asks for a pause is waited for, and from which on that is said."""
TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
"""HTTP status codes of failures that may be over a moment later."""
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Answer:
    """What a request for the rest of a file brings."""

    start: int
    """The position in the file of the first byte; 0 where the whole file is sent, whatever was asked for."""
    size: int
    """Bytes of the whole file; 0 if unknown."""
    chunks: Iterator[bytes]
    version: str
    """Identifies this version of the file, as a strong ETag does; empty if nothing does."""


Request = Callable[[int, str | None], AbstractContextManager[Answer]]
"""Requests the bytes from `start` on, if the file still has this `version` (None: there is only one version)."""


def download(request: Request, partial: Path, bar: Bar, name: str, size: int = 0, noted: Path | None = None) -> None:
    """Append to `partial` the bytes of a file that it lacks, in as many requests as that takes.

    `size` is that of the whole file, 0 if unknown; the path `noted` keeps the version that `partial` belongs to, for
    files that may change; `name` is for messages. Raises ConnectionError: nothing arrives any more, or the server asks
    for a pause of more than LONGEST_PAUSE; and whatever `request` raises that is not transient.
    """
    empty = 0
    with partial.open("ab") as out:
        while not size or out.tell() < size:
            start, problem, asked = out.tell(), "the connection was closed", 0.0
            version = None if noted is None else noted.read_text() if start and noted.exists() else ""
            try:
                with request(start, version) as answer:
                    if answer.start != start:
                        out.seek(answer.start)
                        out.truncate()
                        bar.advance(answer.start - start)
                    if noted is not None:
                        write_text(noted, answer.version)
                    bar.total = bar.total or answer.size
                    for chunk in answer.chunks:
                        out.write(chunk)
                        bar.advance(len(chunk), name)
                        if size and out.tell() > size:
                            return  # another file, which its hash will show
                    if out.tell() >= (size or answer.size):
                        return
            except Exception as error:  # transports share no class; what is not transient is raised
                if not is_transient(error):
                    raise
                problem, asked = str(error), pause_asked_by(error)
            empty = 0 if out.tell() > start else empty + 1
            if asked >= SAID_PAUSE:
                problem += f"; the server asks to wait for {asked:,.0f} s"
            if empty == MAX_EMPTY_REQUESTS or asked > LONGEST_PAUSE:
                raise ConnectionError(f"no more bytes of {name} arrive: {problem}")
            if asked >= SAID_PAUSE:
                say(f"{name}: {problem}")
            if empty:
                time.sleep(max(2 ** (empty - 1), asked))


@contextmanager
def http(
    stream: "Callable[[dict[str, str]], AbstractContextManager[Response]]",
    check: "Callable[[Response], object]",
    start: int,
    version: str | None,
) -> Generator[Answer]:
    """Request a file over HTTP (RFC 9110, sections 13.1.5 and 14).

    `stream` sends a GET request with the given headers; `check` raises an error for an error status.
    """
    for begin in (0 if version == "" else start, 0):
        headers = {"Accept-Encoding": "identity"}  # a range of a compressed file could not be decompressed
        headers |= {"Range": f"bytes={begin}-"} if begin else {}
        headers |= {"If-Range": version} if begin and version else {}
        with stream(headers) as response:
            if begin and response.status_code == RANGE_NOT_SATISFIABLE:
                continue  # nothing follows these bytes: they are the whole file, or the file has become shorter
            sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if begin and response.status_code == PARTIAL_CONTENT and (sent is None or int(sent[1]) != begin):
                continue  # other bytes than those asked for, or nobody knows which
            check(response)
            begin = begin if response.status_code == PARTIAL_CONTENT else 0
            tag, length = response.headers.get("ETag", ""), int(response.headers.get("Content-Length", -begin))
            if response.headers.get("Content-Encoding", "identity") != "identity":  # decompressed as it arrives
                tag, length = "", -begin
            yield Answer(begin, begin + length, response.iter_bytes(), "" if tag.startswith("W/") else tag)
            return


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later: the connection failed, or the server's status says so."""
    from httpx2 import TransportError

    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in TRANSIENT_STATUSES if status else isinstance(error, TransportError)


def pause_asked_by(error: Exception) -> float:
    """The seconds for which the server of a failed request asks to wait (RFC 9110, section 10.2.3); 0 without that."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    given = headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        until = parsedate_to_datetime(given)
    except ValueError:
        return 0.0
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())
