"""JSON files of any layout: one object, an array, a page of an API's results, an object per line."""

import io
import json
from collections.abc import Iterator
from io import BufferedIOBase
from itertools import chain
from typing import Any

from bluejay.pile.documents import MAX_DOCUMENT_BYTES, refuse_many_values, too_large
from bluejay.pile.sources.io.decode import decode, in_utf8
from bluejay.pile.sources.io.lines import lines
from bluejay.pile.sources.io.open import READ_BYTES
from bluejay.pile.sources.io.ranges import ChunkStream, opens_value


def json_objects(stream: BufferedIOBase) -> Iterator[Any]:
    """Each object; an exception in place of a line that is not JSON, and of a value that is not an object.

    Raises ValueError: the file is not JSON; any of `open.BROKEN`, after the objects before the damage.
    """
    written = (line for line in lines(stream) if line.strip())
    first, second = next(written, b""), next(written, b"")
    if not first:
        raise ValueError("the file is empty")
    one, two = parsed(first), parsed(second)
    if (isinstance(one, dict) and "results" not in one) or (isinstance(two, dict) and not opens_value(first)):
        yield one
        yield from [two] if second else []
        yield from map(parsed, written)
        return
    text = bytearray(first + second)
    for line in written:
        text += line
        if len(text) > MAX_DOCUMENT_BYTES:
            raise too_large()
    whole = json_value(bytes(text))
    if isinstance(whole, dict):
        whole = whole["results"] if isinstance(whole.get("results"), list) else [whole]
    yield from map(required, whole if isinstance(whole, list) else [whole])


def from_first_line(stream: BufferedIOBase) -> tuple[bytes, BufferedIOBase]:
    """The first line of a decompressed stream that is not blank, and a stream from that line on, as UTF-8."""
    content: Any = in_utf8(stream)
    written = iter(lambda: content.readline(MAX_DOCUMENT_BYTES), b"")
    first = next((line for line in written if line.strip()), b"")
    following = iter(lambda: content.read1(READ_BYTES), b"")
    return first, io.BufferedReader(ChunkStream(chain([first], following)), READ_BYTES)


def is_by_line(first: bytes) -> bool:
    """Whether the first line of a file is an object by itself, so that each further line is one, too."""
    return first.lstrip().startswith(b"{") and isinstance(parsed(first), dict)


def parsed(line: bytes) -> Any:
    """The JSON object of a line, or the exception that states why it has none."""
    try:
        return required(json_value(line))
    except ValueError as error:
        return ValueError(wrong_with(error))


def wrong_with(error: ValueError) -> str:
    """What an error of `json_value` says."""
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def json_value(raw: bytes) -> Any:
    """The value of JSON; an integer of more digits than Python converts is their text. Raises ValueError: not JSON, of
    too many values, or nested too deeply."""
    refuse_many_values(raw)
    text = decode(raw)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        return json.loads(text, parse_int=integer)


def integer(digits: str) -> int | str:
    """The integer of these digits, or they themselves where they are more than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


def required(value: Any) -> Any:
    """The value if it is an object, otherwise an exception."""
    return value if isinstance(value, dict) else ValueError("not a JSON object")
