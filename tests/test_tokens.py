"""Token shards have Megatron's and GPT-NeoX's layout, are complete or absent, and are refused when damaged."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluejay import tokens
from bluejay.tokens import DOCUMENTS_TABLE, TokenShard, TokenWriter, corpus_of


def read_megatron(prefix: Path) -> list[list[int]]:
    """An independent reader, from the description of the format alone."""
    index, tokens = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, n, m = struct.unpack("<QBQQ", index[9:34])
    assert version == 1
    letter, width = {8: ("H", 2), 4: ("i", 4)}[code]
    rest = index[34:]
    sizes = struct.unpack(f"<{n}i", rest[: 4 * n])
    pointers = struct.unpack(f"<{n}q", rest[4 * n : 12 * n])
    documents = struct.unpack(f"<{m}q", rest[12 * n :])
    assert documents == tuple(range(n + 1))
    return [
        list(struct.unpack(f"<{size}{letter}", tokens[at : at + size * width]))
        for size, at in zip(sizes, pointers, strict=True)
    ]


def write(prefix: Path, documents: list[list[int]], vocab_size: int = 50257) -> None:
    with TokenWriter(prefix, vocab_size) as shard:
        for ids in documents:
            shard.add(ids)


@given(
    st.lists(st.lists(st.integers(0, 50256), max_size=9), max_size=9), st.sampled_from([50257, 65499, 65500, 128_000])
)
def test_an_independent_reader_reads_what_we_write(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocab_size: int
) -> None:
    prefix = tmp_path_factory.mktemp("shard") / "train.v1"
    write(prefix, documents, vocab_size)
    assert read_megatron(prefix) == documents
    shard = TokenShard(prefix)
    assert len(shard) == len(documents)
    assert [ids.tolist() for ids in shard] == documents
    assert shard.tokens.tolist() == [token for ids in documents for token in ids]
    assert shard.sizes.tolist() == list(map(len, documents))
    assert shard.tokens.dtype == (np.uint16 if vocab_size < 65500 else np.int32)


def test_shards_of_other_writers_are_read(tmp_path: Path) -> None:
    """Three entries in two documents, int64 tokens."""
    (tmp_path / "theirs.bin").write_bytes(struct.pack("<6q", 5, 6, 7, 8, 9, 10))
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 5, 3, 3)
    index += struct.pack("<3i3q3q", 2, 1, 3, 0, 16, 24, 0, 2, 3)
    (tmp_path / "theirs.idx").write_bytes(index)
    shard = TokenShard(str(tmp_path / "theirs"))
    assert [ids.tolist() for ids in shard] == [[5, 6, 7], [8, 9, 10]]


def test_add_returns_offset_and_length(tmp_path: Path) -> None:
    with TokenWriter(tmp_path / "a", 100) as shard:
        assert shard.add([1, 2, 3]) == (0, 3)
        assert shard.add(np.array([4], dtype=np.uint16)) == (3, 1)
    assert TokenShard(tmp_path / "a").tokens[3:4].tolist() == [4]


def test_a_shard_that_fails_leaves_the_earlier_one_untouched(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2]])
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), TokenWriter(tmp_path / "a", 100) as shard:
            shard.add([3])
            raise error
    with (
        pytest.raises(ValueError, match="token 100 is outside the vocabulary of 100"),
        TokenWriter(tmp_path / "b", 100) as shard,
    ):
        shard.add([100])
    assert [ids.tolist() for ids in TokenShard(tmp_path / "a")] == [[1, 2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx"]


def test_a_missing_shard_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a relative name is not there where the command is run from another folder
    with pytest.raises(FileNotFoundError, match=rf"no token shard train.*{tmp_path}/train\.idx.*bluejay pile build"):
        TokenShard("train")
    write(tmp_path / "train", [[1]])
    (tmp_path / "train.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.bin"):
        TokenShard(tmp_path / "train")


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("a.idx", lambda data: b"TFRecord!" + data[9:], "does not begin with MMIDIDX"),
        ("a.idx", lambda data: data[:20], "does not begin with MMIDIDX|bytes where"),
        ("a.idx", lambda data: data[:-1], "bytes where its 2 entries need"),
        ("a.idx", lambda data: data[:17] + b"\x06" + data[18:], "token type 6"),
        ("a.idx", lambda data: data[:34] + struct.pack("<i", 1) + data[38:], "sizes and the positions"),
        ("a.idx", lambda data: data[:-8] + struct.pack("<q", 1), "do not cover"),
        ("a.bin", lambda data: data[:-2], "8 bytes where its index says 10"),
        ("a.bin", lambda data: data + b"\0\0", "12 bytes where its index says 10"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, file: str, damage, says: str) -> None:
    write(tmp_path / "a", [[1, 2, 3], [4, 5]])
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=says):
        TokenShard(tmp_path / "a")


def test_each_document_of_a_corpus_has_its_component(tmp_path: Path) -> None:
    prefix = tmp_path / "corpus/tokens/valid"
    assert corpus_of(prefix) == corpus_of(str(prefix)) == tmp_path / "corpus"
    write(prefix, [[1, 2], [3], [4]])
    names, component = TokenShard(prefix).components()
    assert (names, component.tolist()) == (["all"], [0, 0, 0])
    places = [("valid", 3, "Books"), ("valid", 2, "Github"), ("train", 0, "Mail"), ("valid", 0, "Books")]
    table = pa.table(dict(zip(("shard", "offset", "component"), zip(*places, strict=True), strict=True)))
    pq.write_table(table, prefix.with_name(DOCUMENTS_TABLE))
    names, component = TokenShard(prefix).components()
    assert [names[number] for number in component] == ["Books", "Github", "Books"]
    pq.write_table(table.slice(1), prefix.with_name(DOCUMENTS_TABLE))
    with pytest.raises(ValueError, match="different builds"):
        TokenShard(prefix).components()


def test_an_index_whose_entries_are_not_its_documents_is_read(tmp_path: Path) -> None:
    write(tmp_path / "shard", [[1, 2], [3], [4, 5, 6]])
    path = tmp_path / "shard.idx"
    data = bytearray(path.read_bytes())
    # As many documents as entries, but the first is empty and the last has two entries.
    data[-32:] = np.array([0, 0, 1, 3], "<i8").tobytes()
    path.write_bytes(data)
    shard = TokenShard(tmp_path / "shard")
    assert [shard[i].tolist() for i in range(3)] == [[], [1, 2], [3, 4, 5, 6]]
    assert shard.sizes.tolist() == [0, 2, 4] and shard.offsets.tolist() == [0, 0, 2, 6]


def test_the_check_of_a_large_index_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(tokens, "PIECE_BYTES", 8)
    checks = []
    check = tokens.TokenIndex.check
    monkeypatch.setattr(tokens.TokenIndex, "check", lambda self: checks.append(1) or check(self))
    write(tmp_path / "shard", [[1, 2], [3]] * 50)
    for _ in range(3):
        assert len(TokenShard(tmp_path / "shard")) == 100
    assert len(checks) == 1
    path, status = tmp_path / "shard.idx", (tmp_path / "shard.idx").stat()
    data = bytearray(path.read_bytes())
    data[34] = 9
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match="sizes and the positions"):
        TokenShard(tmp_path / "shard")


MEASURE = """
import re, sys, time
from pathlib import Path
from bluejay.tokens import TokenShard
began = time.perf_counter()
shard = TokenShard(sys.argv[1])
seconds = time.perf_counter() - began
[shard[i].sum() for i in (0, len(shard) // 2, len(shard) - 1)]
private = int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
print(len(shard), seconds, private)
"""


@pytest.mark.slow  # 2 GB on disk
def test_an_index_of_100_million_documents_takes_no_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    n = 10**8
    sizes = np.random.default_rng(0).integers(0, 2000, n, dtype="<i4")
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    with (tmp_path / "shard.idx").open("wb") as file:
        file.write(tokens.INDEX_HEADER.pack(tokens.MAGIC, 1, 8, n, n + 1))
        for part in (sizes, starts[:-1] * 2, np.arange(n + 1, dtype="<i8")):
            file.write(part.astype(part.dtype.newbyteorder("<")).data)
    with (tmp_path / "shard.bin").open("wb") as file:
        file.truncate(int(starts[-1]) * 2)  # zeros that take no room on the disk
    del sizes, starts
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "shard")]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    print(runs)
    gigabytes = (tmp_path / "shard.idx").stat().st_size / 1e9
    for run in runs:
        assert int(run[0]) == n and float(run[2]) < 300
    assert gigabytes / float(runs[0][1]) > 0.3  # 1 on a machine without other work
    assert max(float(run[1]) for run in runs[1:]) < 1
