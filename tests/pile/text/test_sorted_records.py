"""Sorted files of records are read by ranges of keys, and merged, as one table sorted at once would be."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from bluejay.pile.text import sorted_records as module
from bluejay.pile.text.sorted_records import (
    ConcatenatedArray,
    SortedRecords,
    concatenate,
    key_range,
    merge_sorted,
    sorted_records,
)


def keys_of(chance: np.random.Generator, n: int) -> np.ndarray:
    """Keys from the whole range, of which some are equal, and its first and last key."""
    few = chance.integers(0, 1 << 64, 20, np.uint64, endpoint=False)
    keys = np.where(chance.random(n) < 0.5, chance.choice(few, n), chance.integers(0, 1 << 64, n, np.uint64))
    keys[:2] = [0, (1 << 64) - 1][: len(keys)]
    return keys


@pytest.fixture
def parts(tmp_path: Path) -> tuple[np.ndarray, list[Path]]:
    """Keys, and files of the records of some of them each, of which one file is empty."""
    keys = keys_of(np.random.default_rng(3), 700)
    bounds, files = [0, 250, 250, 251, 700], []
    for number, (a, b) in enumerate(itertools.pairwise(bounds)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], sorted_records(keys[a:b], other=np.arange(a, b)))
    return keys, files


@pytest.mark.parametrize("n_buckets", [1, 3, 50])
def test_ranges_of_keys_are_those_of_one_table(parts: tuple[np.ndarray, list[Path]], n_buckets: int) -> None:
    keys, files = parts
    records = SortedRecords.open(files)
    found = np.concatenate([records.between(*key_range(bucket, n_buckets)) for bucket in range(n_buckets)])
    assert (found == sorted_records(keys, other=np.arange(len(keys)))).all()
    ranges = [records.repeated_between(*key_range(bucket, n_buckets)) for bucket in range(n_buckets)]
    of_key = dict(zip(*np.unique(keys, return_counts=True), strict=True))
    assert (np.concatenate(ranges) == found[[of_key[key] > 1 for key in found["key"]]]).all()


@pytest.mark.parametrize("at_once", [1 << 20, 10])
def test_merged_files_are_one_table(
    parts: tuple[np.ndarray, list[Path]], tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECORDS_AT_ONCE", at_once)
    keys, files = parts
    merge_sorted(files[:2], tmp_path / "first.npy")
    merge_sorted([tmp_path / "first.npy", *files[2:]], tmp_path / "all.npy")
    assert (np.load(tmp_path / "all.npy") == sorted_records(keys, other=np.arange(len(keys)))).all()
    bands = [np.stack([np.load(file), np.load(file)]) for file in files]
    for number, band in enumerate(bands):
        np.save(tmp_path / f"bands-{number}.npy", band)
    merge_sorted([tmp_path / f"bands-{number}.npy" for number in range(len(bands))], tmp_path / "bands.npy")
    assert (np.load(tmp_path / "bands.npy") == np.load(tmp_path / "all.npy")).all()


def test_empty_files_merge_to_an_empty_one(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", sorted_records(np.empty(0, np.uint64)))
    merge_sorted([tmp_path / "empty.npy"] * 2, tmp_path / "all.npy")
    assert len(np.load(tmp_path / "all.npy")) == 0


@pytest.mark.parametrize("shape", [(), (3,)])
def test_rows_of_several_files_are_those_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (50, *shape))
    files = [tmp_path / f"{n}.npy" for n in range(3)]
    for file, some in zip(files, np.split(values, [20, 20]), strict=True):
        np.save(file, some)
    rows = np.array([49, 0, 20, 19, 19, 3])
    assert (ConcatenatedArray.of(files)[rows] == values[rows]).all()
    assert (ConcatenatedArray.of(files)[rows[:0]] == values[rows[:0]]).all()
    concatenate(files, tmp_path / "all.npy")
    assert (np.load(tmp_path / "all.npy") == values).all()
