"""Files and directories are complete or absent, whatever happens while they are written."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bluejay.files import (
    atomic_directory,
    atomic_file,
    cache_directory,
    parse_json,
    recover_directory,
    replaced_of,
    set_aside,
    unfinished_of,
    write_text,
)

ERRORS = [OSError, KeyboardInterrupt, RuntimeError]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_directory(path: Path, **files: str) -> None:
    with atomic_directory(path) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text)


@pytest.mark.parametrize("error", ERRORS)
def test_a_file_keeps_what_it_was_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "new" / "a"
    for before in ({}, {"new/a": "old"}):
        with pytest.raises(error), atomic_file(path) as temporary:
            temporary.write_text("half")
            raise error
        assert contents(tmp_path) == before
        write_text(path, "old")
    write_text(path, "näw")
    assert path.read_bytes() == "näw".encode()


@pytest.mark.parametrize("error", ERRORS)
def test_a_directory_keeps_what_it_was_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "new" / "model"
    for before in ({}, {"new/model/weights": "old"}):
        with pytest.raises(error), atomic_directory(path) as temporary:
            (temporary / "weights").write_text("half")
            raise error
        assert contents(tmp_path) == before
        write_directory(path, weights="old")


def test_a_link_stays_a_link_to_what_is_written(tmp_path: Path) -> None:
    for name in ("there", "not there yet"):
        link, target = tmp_path / f"link to {name}", tmp_path / "folder" / name
        link.symlink_to(target)
        for text in ("old", "new"):
            write_text(link, text)
            assert link.is_symlink() and target.read_text() == text and not target.is_symlink()


def test_a_user_without_a_home_has_a_cache(monkeypatch) -> None:
    for name in ("BLUEJAY_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    assert cache_directory().parent == Path(tempfile.gettempdir())
    monkeypatch.setenv("BLUEJAY_CACHE", "here")
    assert cache_directory() == Path("here")


def test_a_home_that_cannot_hold_the_cache_counts_as_none(monkeypatch, tmp_path) -> None:
    for name in ("BLUEJAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "bluejay"
    monkeypatch.setattr("bluejay.files.os.access", lambda path, mode: Path(path) != Path("/"))
    monkeypatch.setenv("HOME", "/")
    assert cache_directory().parent == Path(tempfile.gettempdir())


def test_the_home_in_the_name_of_a_cache_is_the_users(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BLUEJAY_CACHE", "~/x")
    assert cache_directory() == tmp_path / "x"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, file_size_limit) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match="too large"), file_size_limit(1000):
        write_text(tmp_path / "a", "new" * 1000)
    assert contents(tmp_path) == {"a": "old"}


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_directory(tmp_path / "model", a="1", b="1")
    write_directory(tmp_path / "model", b="2", c="2")
    assert contents(tmp_path) == {"model/b": "2", "model/c": "2"}


def test_a_backup_beside_a_directory_is_never_taken(tmp_path: Path) -> None:
    write_text(tmp_path / "model.old" / "weights", "the user's")
    recover_directory(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    for text in ("1", "2"):
        write_directory(tmp_path / "model", weights=text)
        assert contents(tmp_path) == {"model/weights": text, "model.old/weights": "the user's"}


def test_what_a_user_called_partial_is_no_temporary(tmp_path: Path) -> None:
    theirs = {"model.partial/weights": "the user's", "notes.partial": "the user's"}
    for name, text in theirs.items():
        write_text(tmp_path / name, text)
    write_directory(tmp_path / "model", weights="new")
    write_text(tmp_path / "notes", "new")
    assert contents(tmp_path) == theirs | {"model/weights": "new", "notes": "new"}


def test_a_second_writer_leaves_the_first_ones_half_alone(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "weights").write_text("first")
        with pytest.raises(OSError, match=r"another process is writing .*model; wait"):
            write_directory(tmp_path / "model", weights="second")
    assert contents(tmp_path) == {"model/weights": "first"}
    write_directory(tmp_path / "model", weights="second")
    assert contents(tmp_path) == {"model/weights": "second"}


def test_of_several_writers_of_a_file_the_last_to_end_stays(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "note") as temporary:
        temporary.write_text("first")
        write_text(tmp_path / "note", "second")
        assert (tmp_path / "note").read_text() == "second"
    assert contents(tmp_path) == {"note": "first"}


def test_writers_of_a_file_never_get_in_each_others_way(tmp_path: Path) -> None:
    def write(letter: str) -> set[int]:
        found = set()
        for _ in range(40):
            write_text(tmp_path / "note", letter * 2000)
            found.add(len(set((tmp_path / "note").read_text())))
        return found

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write, "abcd")) == [{1}] * 4
    assert contents(tmp_path).keys() == {"note"}


def test_a_link_to_a_directory_on_another_disk_stays_one(tmp_path: Path) -> None:
    link, target = tmp_path / "home" / "model", tmp_path / "large disk" / "model"
    link.parent.mkdir()
    link.symlink_to(target)  # there is nothing yet
    for text in ("1", "2", "3"):
        write_directory(link, weights=text)
        assert link.readlink() == target
        assert contents(target.parent) == {"model/weights": text}
        assert [path.name for path in link.parent.iterdir()] == ["model"]
    replaced_of(target).mkdir()
    target.rename(replaced_of(target) / "copy")
    recover_directory(link)
    assert contents(target.parent) == {"model/copy/weights": "3"}


@pytest.mark.parametrize("crash", ["before the renames", "between the renames", "before the old one is removed"])
def test_one_whole_directory_survives_a_crash_at_any_point(tmp_path: Path, crash: str) -> None:
    path = tmp_path / "model"
    old, partial = replaced_of(path), unfinished_of(path)
    write_directory(path, weights="old")
    if crash == "before the renames":
        partial.mkdir()
        (partial / "weights").write_text("half")
    elif crash == "between the renames":
        path.rename(old)
        partial.mkdir()
        (partial / "weights").write_text("whole")
    else:
        old.mkdir()
        (old / "weights").write_text("older")
    recover_directory(path)
    assert (path / "weights").read_text() == "old"
    write_directory(path, weights="new")
    assert contents(tmp_path) == {"model/weights": "new"}


def test_a_replacement_cut_between_its_renames_is_undone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "model", weights="old")
    rename = Path.rename

    def cut(self: Path, target: Path) -> Path:
        if self == unfinished_of(tmp_path / "model"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(KeyboardInterrupt):
        write_directory(tmp_path / "model", weights="new")
    assert contents(tmp_path) == {"model/weights": "old"}


def test_what_is_set_aside_gets_a_free_name(tmp_path: Path) -> None:
    for name in ("model.other", "model.other-2", "model.other-3"):
        write_directory(tmp_path / "model", a=name)
        assert set_aside(tmp_path / "model", "other") == tmp_path / name
        assert (tmp_path / name / "a").read_text() == name
    (tmp_path / "model.other-4").symlink_to("nowhere")
    (tmp_path / "model").touch()
    assert set_aside(tmp_path / "model", "other").name == "model.other-5"


def test_json_that_cannot_be_read_is_a_value_error() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[", "[" * 100_000 + "]" * 100_000, b"\xff"):
        with pytest.raises(ValueError):
            parse_json(text)
