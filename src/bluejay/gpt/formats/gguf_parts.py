"""The names of GGUF files that llama.cpp's `gguf-split` divided: NAME-00001-of-00003.gguf and so on."""

import re
from pathlib import Path

PART = re.compile(r"(.+-)(\d{5})(-of-(\d{5})\.gguf)", re.IGNORECASE)


def part_names(name: str) -> list[str]:
    """The names of all parts of the model that a file of this name is a part of, in order; of another file its own."""
    match = PART.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[4]):
        return [name]
    return [f"{match[1]}{number:05}{match[3]}" for number in range(1, int(match[4]) + 1)]


def parts_of(path: Path) -> list[Path]:
    """The files from which the model in a GGUF file is read: the file, and those beside it that are parts of it."""
    places = (path.with_name(name) for name in part_names(path.name))
    return [place for place in places if place == path or place.is_file()]
