"""JSON of every shape gives its objects, and a broken line costs itself alone."""

import gzip
import io
import json

import pytest

from bluejay.pile.sources.formats.json_objects import json_objects

OBJECTS = [{"id": 1, "text": "a\u2028b"}, {"id": 2, "text": "é"}, {"id": 3}]


@pytest.mark.parametrize(
    "data",
    [
        "\n".join(map(json.dumps, OBJECTS)),
        "\n\n".join(json.dumps(entry, ensure_ascii=False) for entry in OBJECTS) + "\r\n",
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        json.dumps(OBJECTS).replace("}, ", "},\n").replace("]", "\n]"),
        json.dumps({"count": 3, "results": OBJECTS}, indent=1),
        json.dumps({"count": 3, "results": OBJECTS}),
    ],
)
def test_shapes(data: str) -> None:
    assert list(json_objects(io.BytesIO(data.encode()))) == OBJECTS
    assert list(json_objects(io.BytesIO(gzip.compress(data.encode())))) == OBJECTS
    assert list(json_objects(io.BytesIO(b"\xef\xbb\xbf" + data.encode()))) == OBJECTS


def test_one_object_over_many_lines() -> None:
    assert list(json_objects(io.BytesIO(json.dumps(OBJECTS[0], indent=4).encode()))) == OBJECTS[:1]


def test_broken_lines() -> None:
    found = list(json_objects(io.BytesIO(b'{"id": 1}\n{"id": \n{"id": 3}\n' + b"[" * 100_000 + b'\n{"id": "caf\xe9"}')))
    assert [entry["id"] if isinstance(entry, dict) else type(entry) for entry in found] == [
        1,
        ValueError,
        3,
        ValueError,
        "café",
    ]
    after = [entry.get("id") for entry in json_objects(io.BytesIO(b'{"id": \n{"id": 2}\n')) if isinstance(entry, dict)]
    assert after == [2]
    cut = gzip.compress(b'{"id": 1}\n' * 1000)[:-20]
    reader = json_objects(io.BytesIO(cut))
    with pytest.raises(EOFError):
        list(reader)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"no json", b"{", b"7"])
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(ValueError):
        if any(isinstance(entry, Exception) for entry in json_objects(io.BytesIO(data))):
            raise ValueError("told")
