"""JSON files of any layout: one object, an array, a page of an API's results, an object per line."""

import json
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.decode import decode
from bluejay.pile.sources.io.lines import lines


def json_objects(stream: BufferedIOBase) -> Iterator[Any]:
    """Each object; an exception in place of a line that is not JSON, and of a value that is not an object.

    Raises ValueError: the file is not JSON; any of `open.BROKEN`, after the objects before the damage.
    """
    written = (line for line in lines(stream) if line.strip())
    first, second = next(written, b""), next(written, b"")
    if not first:
        raise ValueError("the file is empty")
    one, two = parsed(first), parsed(second)
    # An array, or an object over several lines, begins with a line that opens it; no malformed first line does.
    if (isinstance(one, dict) and "results" not in one) or (isinstance(two, dict) and first.strip() not in b"[{"):
        yield one
        yield from [two] if second else []
        yield from map(parsed, written)
        return
    whole = json.loads(decode(first + second + b"".join(written)))
    if isinstance(whole, dict):
        whole = whole["results"] if isinstance(whole.get("results"), list) else [whole]
    yield from map(required, whole if isinstance(whole, list) else [whole])


def parsed(line: bytes) -> Any:
    """The JSON object of a line, or the exception that states why it has none."""
    try:
        return required(json.loads(decode(line)))
    except (ValueError, RecursionError) as error:
        return ValueError(f"not JSON: {error}")


def required(value: Any) -> Any:
    """The value if it is an object, otherwise an exception."""
    return value if isinstance(value, dict) else ValueError("not a JSON object")
