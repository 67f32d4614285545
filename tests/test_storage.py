"""Directories in object storage are complete or not there, and what cannot be used is one sentence."""

import os
from pathlib import Path

import pytest

from bluejay.storage import Storage, ensure_local, mirror
from tests.object_storage import ObjectServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with files of several sizes, one of them in a folder, and names that an address must quote."""
    folder = tmp_path / "folder"
    (folder / "in side").mkdir(parents=True)
    (folder / "large").write_bytes(os.urandom(20_000_000))
    (folder / "in side" / "100 % é").write_text("text")
    (folder / "empty").touch()
    (folder / "a marker").write_text("done")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_comes_back_as_it_was(objects: ObjectServer, folder: Path, tmp_path: Path) -> None:
    storage = Storage("s3://bucket/run")
    storage.check()
    assert not storage.files()
    storage.put_directory(folder, "step-1", "a marker")
    assert storage.files() == {f"step-1/{name}": len(data) for name, data in contents(folder).items()}
    storage.at("step-1").get("large", tmp_path / "large")
    storage.get_directory("step-1", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    (folder / "empty").unlink()
    storage.put_directory(folder, "step-1", "a marker")  # what it no longer holds goes
    assert "step-1/empty" not in storage.files()
    storage.delete_directory("step-1", "a marker")
    assert not objects.objects


def test_marks_of_folders_are_no_files(objects: ObjectServer, tmp_path: Path) -> None:
    """S3's console, s3fs and Hadoop make them."""
    marks = dict.fromkeys(("bucket/run/", "bucket/run/in side/"), b"")
    objects.objects |= {**marks, "bucket/run/in side/a": b"1", "bucket/run/empty": b""}
    assert Storage("s3://bucket/run").files() == {"in side/a": 1, "empty": 0}
    Storage("s3://bucket").get_directory("run", tmp_path / "run")
    assert contents(tmp_path / "run") == {"in side/a": b"1", "empty": b""}


def test_the_marker_is_written_last_and_removed_first(objects: ObjectServer, folder: Path) -> None:
    storage = Storage("s3://bucket/run")
    storage.put_directory(folder, "x", "a marker")
    objects.refuses = "large"
    with pytest.raises(PermissionError, match="s3://bucket/run/x/large cannot be written: the server answers 403"):
        storage.put_directory(folder, "x", "a marker")
    assert "x/large" in storage.files()
    assert not storage.exists("x/a marker")


@pytest.mark.parametrize(
    ("address", "refuses", "message"),
    [
        ("s3://missing/run", "", "s3://missing/run is not there: the server answers 404 Not Found, NoSuchBucket"),
        ("s3://bucket/run", "run", "s3://bucket/run cannot be used: the server answers 403 Forbidden, AccessDenied"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(objects: ObjectServer, address: str, refuses: str, message: str) -> None:
    objects.refuses = refuses
    with pytest.raises(OSError) as raised:
        Storage(address).check()
    assert raised.value.strerror == message


def test_a_server_that_is_away_is_named(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"^s3://bucket/x cannot be used: http://127.0.0.1:9 does not answer$"):
        Storage("s3://bucket/x").check()


@pytest.mark.parametrize("address", ["s3:/bucket/x", "s3://", "s3://Bucket/x", "gs://bucket/x", "s3://b/x", "bucket/x"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a bucket; write s3://BUCKET/FOLDER"):
        Storage(address)


def test_a_mirror_copies_what_it_lacks_once(objects: ObjectServer, folder: Path, tmp_path: Path) -> None:
    storage = Storage("s3://bucket/stages")
    storage.put_directory(folder, "read/1", "a marker")
    root = tmp_path / "mirror"
    assert ensure_local(root / "read/1") == root / "read/1"  # it mirrors nothing yet
    mirror(root, storage)
    (root / "own").mkdir()
    assert ensure_local(root / "own") == root / "own"
    copy = ensure_local(root / "read/1/in side/100 % é.txt".replace(".txt", ""))
    assert ensure_local(root / "read/1") == root / "copies/read/1"
    assert contents(root / "copies/read/1") == contents(folder)
    assert copy.parent.name == "in side"
    asked = len(objects.requests)
    assert ensure_local(root / "copies/read/1") == root / "copies/read/1"
    assert not [request for request in objects.requests[asked:] if "list-type" not in request]
