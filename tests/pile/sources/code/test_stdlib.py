"""The standard library of the Python that runs."""

from pathlib import Path

from bluejay.pile.documents import Document
from bluejay.pile.sources.code.stdlib import Stdlib


def test_the_standard_library_without_its_tests() -> None:
    source = Stdlib("stdlib")
    (unit,) = source.units()
    documents = [found for found in source.read(unit) if isinstance(found, Document)]
    names = [document.meta["path"] for document in documents]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert {"Lib/abc.py", "Lib/json/decoder.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages", "__pycache__"} & set(name.split("/"))]
    assert sum(len(document.text) for document in documents) > 5_000_000
    for document in documents:
        assert document.licence == "PSF-2.0"
        assert str(Path.home()) not in document.url + document.source
