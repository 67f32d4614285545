"""Count the records of each range of a large file, so that the ranges are read with the numbers they have in it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from bluejay.pile.sources.io.ranges import FileRange
from bluejay.pile.steps.read import Part


@dataclass(frozen=True)
class CountRecords:
    """Count the records that begin in a part, which is a range of a file. Writes nothing.

    Gives `records`, and `start`, the byte at which the range can be decompressed; None where nothing begins in it.
    """

    name: ClassVar[str] = "count"
    part: Part

    def key(self) -> list[Any]:
        """The source and its file."""
        return self.part.key()

    def run(self, out: Path) -> dict[str, Any]:
        source: Any = self.part.source
        (unit,), place = self.part.units, self.part.place
        assert place
        start = source.RECORDS.start_of(unit, place)
        if start is None:
            return {"records": 0, "start": None}
        return {"records": source.count_range(unit, replace(place, start=start)), "start": start}


def placed(parts: Sequence[Part], counts: Sequence[dict[str, Any]]) -> list[Part]:
    """The parts, of which those that are ranges of a file begin where they can be decompressed and have the number of
    records before them; `counts` are theirs. A range in which nothing begins is left out.

    A range goes up to the next one, so that what is between them, such as a damaged member, is not left out in silence.
    """
    found: list[Part] = []
    counted = iter(counts)
    for (*_, is_range), group in itertools.groupby(parts, file_of):
        if not is_range:
            found += group
            continue
        ranges = list(group)
        begun = [(part, taken) for part, taken in zip(ranges, counted, strict=False) if taken["start"] is not None]
        size = max(part.place.end for part in ranges if part.place)
        starts = [*(taken["start"] for _, taken in begun), size]
        before = itertools.accumulate((taken["records"] for _, taken in begun), initial=0)
        for (part, _), (start, end), first in zip(begun, itertools.pairwise(starts), before, strict=False):
            found.append(replace(part, place=FileRange(start, end, first)))
    return found


def file_of(part: Part) -> tuple[Any, ...]:
    """What is equal for all ranges of one file."""
    return id(part.source), part.units, part.place is not None
