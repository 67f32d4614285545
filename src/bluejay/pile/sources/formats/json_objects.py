"""JSON files of any shape: one object, an array, a page of an API, an object a line."""

import json
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.lines import decode, lines


def json_objects(stream: BufferedIOBase) -> Iterator[Any]:
    """Each object; an exception in the place of a line that is not JSON, of a value that is no object.

    Raises ValueError: the file is not JSON; any of `open.BROKEN`, after all that is whole.
    """
    written = (line for line in lines(stream) if line.strip())
    first, second = next(written, b""), next(written, b"")
    if not first:
        raise ValueError("the file is empty")
    one, two = parsed(first), parsed(second)
    # The first line of an array or of an object over many lines opens it; a broken first line is some other text.
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
    """The JSON of a line, or the exception that says why it has none."""
    try:
        return required(json.loads(decode(line)))
    except (ValueError, RecursionError) as error:
        return ValueError(f"not JSON: {error}")


def required(value: Any) -> Any:
    """An object; an exception in the place of anything else."""
    return value if isinstance(value, dict) else ValueError("not a JSON object")
