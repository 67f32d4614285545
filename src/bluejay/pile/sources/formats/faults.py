"""Files that are one record, of which a broken part costs itself."""

from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.documents import read_until_damaged
from bluejay.pile.sources.io.open import decompressed


def record_with_faults(stream: BufferedIOBase, read: Callable[[bytes], tuple[Any, list[ValueError]]]) -> Iterator[Any]:
    """The record of a file, then an exception for each of its parts that is missing or broken: what `read` gives for
    the bytes up to a damage. Of a file for which it raises ValueError, that.

    Raises the exception of a damage, after all else.
    """
    raw, damage = read_until_damaged(decompressed(stream))
    try:
        record, faults = read(raw)
    except ValueError as error:
        yield error
    except RecursionError:
        yield ValueError("it is nested too deeply")
    else:
        yield record
        yield from faults
    if damage:
        raise damage
