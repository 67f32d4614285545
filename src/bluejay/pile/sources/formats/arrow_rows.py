"""Rows of Arrow's tables as dictionaries, also those with values that Python has nothing for."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from bluejay.pile.sources.io.decode import decode

UNFIT = (ValueError, OverflowError, LookupError)
"""What is raised for a value of a Parquet file that Python has nothing for: nanoseconds, the year 10,000, an unknown
time zone, text that is not UTF-8."""
ROWS_AT_ONCE, BYTES_AT_ONCE = 1024, 1 << 24
"""Rows that are in memory at once, and fewer where they are as large as this by what the file states."""


def rows_of(file: Any, group: int) -> Iterator[dict[str, Any]]:
    """The rows of a row group of a Parquet file, in order.

    Raises MemoryError: one of them alone takes too much memory; ArrowException, OSError or one of UNFIT: it is broken.
    """
    stated = file.metadata.row_group(group)
    at_once = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * stated.num_rows // max(1, stated.total_byte_size)))
    given = 0
    with suppress(MemoryError):  # what many rows share, the file states once
        for row in batched_rows(file, group, at_once):
            yield row
            given += 1
        return
    yield from islice(batched_rows(file, group, 1), given, None)


def batched_rows(file: Any, group: int, at_once: int) -> Iterator[dict[str, Any]]:
    """The rows of a row group, so many at once."""
    for batch in file.iter_batches(at_once, row_groups=[group], use_threads=False):
        yield from records_of(batch)


def records_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch of Arrow's; a column with a value that Python has nothing for is text in all of them."""
    try:
        return batch.to_pylist()
    except UNFIT:
        columns = map(values_of, batch.columns)
        return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def values_of(column: Any) -> list[Any]:
    """The values of a column; where Python has nothing for one, times as Arrow writes them, or as numbers where nobody
    knows their time zone."""
    import pyarrow as pa

    with suppress(*UNFIT):
        return column.to_pylist()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return [None if raw is None else decode(raw) for raw in column.cast(pa.large_binary()).to_pylist()]
    try:
        return column.cast(with_times_as(pa.string(), column.type)).to_pylist()
    except UNFIT:
        return column.cast(with_times_as(pa.int64(), column.type)).to_pylist()


def with_times_as(plain: Any, type: Any) -> Any:
    """A type of Arrow's with `plain` in place of points in time, and text in place of dates, times of day and spans,
    within lists, structures and maps, too."""
    import pyarrow as pa

    if pa.types.is_temporal(type):
        return plain if pa.types.is_timestamp(type) else pa.string()
    if pa.types.is_dictionary(type):
        return with_times_as(plain, type.value_type)
    if pa.types.is_struct(type):
        return pa.struct([field.with_type(with_times_as(plain, field.type)) for field in type])
    if pa.types.is_map(type):
        return pa.map_(with_times_as(plain, type.key_type), with_times_as(plain, type.item_type))
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return pa.large_list(with_times_as(plain, type.value_type))
    return type
