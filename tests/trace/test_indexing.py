"""An index is whole or not there, is continued and added to, and says what is wrong with it in one sentence."""

import re
import shlex
import shutil
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from bluejay.cli import main
from bluejay.trace import Index, indexing
from bluejay.trace.indexing import index, needs_of

DOCUMENTS = [[number % 250, (number * 7) % 250, 258] for number in range(400)]


def files(directory) -> dict[str, int]:
    """The index shards and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (directory / "index").glob("*.suffixes")}


def test_an_index_that_is_up_to_date_is_kept(tmp_path, corpus, capsys):
    corpus(tmp_path, {"train": DOCUMENTS, "valid": DOCUMENTS[:3]})
    made = index(tmp_path, 500)
    assert made.shards == made.built == 4 and made.tokens == 1209 and made.documents == 403
    assert "indexing 1,209 tokens in 4 index shards" in capsys.readouterr().err
    before = files(tmp_path)
    assert index(tmp_path, 500).built == 0 and files(tmp_path) == before


def test_an_interrupted_call_is_continued(tmp_path, corpus, monkeypatch):
    corpus(tmp_path, {"train": DOCUMENTS})
    build_part, built = indexing.build_part, []

    def interrupted(directory, part):
        if len(built) == 2:
            raise KeyboardInterrupt
        built.append(part.first)
        build_part(directory, part)

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "build_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index(tmp_path, 300, workers=1)
    assert not list((tmp_path / "index").glob("*.partial"))
    before = files(tmp_path)
    with pytest.raises(OSError, match="half built"):
        Index(tmp_path)
    index(tmp_path, 300)
    after = files(tmp_path)
    assert len(after) == 4 and before.items() <= after.items()


@pytest.mark.parametrize("more", [1, 500])
def test_a_corpus_that_has_grown_keeps_what_is_indexed(tmp_path, corpus, more):
    corpus(tmp_path, {"train": DOCUMENTS})
    index(tmp_path, 500)
    before = files(tmp_path)
    corpus(tmp_path, {"train": DOCUMENTS + [[9, 8, 7, 258]] * more, "train-2": [[4, 4, 4]]})
    with pytest.raises(ValueError, match="half built: it does not hold all"):
        Index(tmp_path)
    assert index(tmp_path, 500).built >= 2
    assert before.items() <= files(tmp_path).items()
    assert Index(tmp_path).count([9, 8, 7]) == more and Index(tmp_path).count([4, 4]) == 2


def test_a_corpus_that_was_built_anew_is_indexed_anew(tmp_path, corpus):
    corpus(tmp_path, {"train": DOCUMENTS, "test": DOCUMENTS[:9]})
    index(tmp_path)
    shutil.rmtree(tmp_path / "tokens")
    corpus(tmp_path, {"train": DOCUMENTS[1:]})
    with pytest.raises(ValueError, match="the index of other tokens"):
        Index(tmp_path)
    assert index(tmp_path).built == 1
    assert Index(tmp_path).n_tokens == 1197


@pytest.mark.parametrize("limit", [3000, 12_000, 60_000])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, corpus, file_size_limit, capsys, limit):
    generator = np.random.default_rng(1)
    corpus(tmp_path, {"train": generator.integers(0, 250, (300, 100)).tolist()})
    with file_size_limit(limit), pytest.raises(SystemExit, match="2"):
        main(["index", str(tmp_path)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: File too large") and "make room and run the same command again" in error
    assert all(path.suffix == ".suffixes" or path.name == "lock" for path in (tmp_path / "index").glob("*"))
    main(["index", str(tmp_path)])
    assert Index(tmp_path).n_tokens == 30_000


DAMAGE = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "another file": lambda data: b"MMIDIDX" + data[7:],
    "a header of another length": lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
    "a bit of the header": lambda data: data[:40] + bytes([data[40] ^ 4]) + data[41:],
    "a bit of what is read at once": lambda data: data[:-4090] + bytes([data[-4090] ^ 64]) + data[-4089:],
    "zeros at the end": lambda data: data[:-4096] + bytes(4096),
    "a header without arrays": lambda data: with_header(data, data[16:4096].replace(b'"arrays"', b'"arrayz"')),
    "a number that cannot be": lambda data: with_header(data, re.sub(rb'("(bits|rows)": )\d', rb"\1-", data[16:4096])),
    "an array without its type": lambda data: with_header(data, data[16:4096].replace(b'": ["<u4",', b'": [      ')),
    "a bit of the first array": lambda data: data[:4100] + bytes([data[4100] ^ 4]) + data[4101:],
    "a header without a number": lambda data: with_header(data, re.sub(b'"(row|shar)[sd]"', rb'"\1!"', data[16:4096])),
}


def with_header(data: bytes, header: bytes) -> bytes:
    """The bytes of a file of an index with another header of equal length, and its checksum."""
    length = int.from_bytes(data[8:12], "little")
    return data[:12] + zlib.crc32(header[:length]).to_bytes(4, "little") + header + data[4096:]


@pytest.mark.parametrize("name", ["documents.rows", "train-0000000000.suffixes"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, corpus, capsys, name, kind):
    row = {"component": "x", "source": "s", "licence": "MIT", "url": "u" * 40}
    corpus(tmp_path, {"train": DOCUMENTS}, rows={"train": [row] * 400})
    index(tmp_path)
    path = tmp_path / "index" / name
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    advice = f"; run bluejay index {tmp_path}"
    with pytest.raises(ValueError, match=f"{re.escape(name)}.*{re.escape(advice)}$"):
        opened = Index(tmp_path)
        opened.longest(DOCUMENTS[0])
        opened.check()
    index(tmp_path)  # what is advised helps
    Index(tmp_path).check()


def test_every_flipped_bit_of_the_entries_is_noticed_when_it_is_read(tmp_path, corpus):
    generator = np.random.default_rng(2)
    documents = generator.integers(0, 250, (300, 100)).tolist()
    index(corpus(tmp_path, {"train": documents}))
    path = tmp_path / "index" / "train-0000000000.suffixes"
    whole = path.read_bytes()
    for place in (5000, 20_000, 50_000):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            opened = Index(tmp_path)
            for ids in documents:
                opened.longest(ids)


def test_tokens_that_were_changed_are_noticed(tmp_path, corpus):
    index(corpus(tmp_path, {"train": DOCUMENTS}))
    tokens = tmp_path / "tokens" / "train.bin"
    data = bytearray(tokens.read_bytes())
    data[: len(data) // 2] = data[len(data) // 2 :][: len(data) // 2]
    tokens.write_bytes(data)
    with pytest.raises(ValueError, match="the index of other tokens"):
        Index(tmp_path)


@pytest.mark.parametrize("suffix, place, said", [("bin", 5000, "is the index of other"), ("idx", -1, "is of other")])
def test_a_check_compares_the_tokens_too(tmp_path, corpus, suffix, place, said):
    tokens = np.random.default_rng(1).integers(0, 250, (300, 100)).tolist()
    index(corpus(tmp_path, {"train": tokens, "valid": tokens[:3]}))
    Index(tmp_path).check()
    path = tmp_path / "tokens" / f"train.{suffix}"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    opened = Index(tmp_path)  # which looks at a few places
    with pytest.raises(ValueError, match=rf"{said} tokens than .*train.*; run bluejay index"):
        opened.check()


def test_the_command_that_helps_is_one_that_a_shell_takes(tmp_path, corpus):
    folder = corpus(tmp_path / "my corpus (1)", {"train": DOCUMENTS})
    tokens = folder / "tokens" / "train.bin"

    def advised(call: Callable[[], object]) -> list[str]:
        with pytest.raises(ValueError, match="; run bluejay index") as caught:
            call()
        return shlex.split(str(caught.value).rpartition("; run ")[2])

    command = ["bluejay", "index", str(folder)]
    assert advised(lambda: Index(folder)) == command  # which has no index
    index(folder)
    opened, rows = Index(folder), folder / "index" / "documents.rows"
    whole = tokens.read_bytes()
    tokens.write_bytes(bytes(len(whole)))
    assert advised(lambda: Index(folder)) == command  # which is of other tokens
    assert advised(opened.check) == command
    tokens.write_bytes(whole)
    rows.unlink()
    assert advised(lambda: Index(folder)) == command  # which is half built


def test_a_check_compares_the_table_too(tmp_path, corpus):
    row = {"component": "x", "source": "s", "licence": "CC0-1.0", "url": "u"}
    for licence in ("CC0-1.0", "MIT"):
        corpus(tmp_path, {"train": DOCUMENTS}, rows={"train": [{**row, "licence": licence}] * 400})
        if licence == "MIT":
            with pytest.raises(ValueError, match=r"is of another table than .*documents\.parquet.*; run bluejay index"):
                Index(tmp_path).check()
        index(tmp_path)
        Index(tmp_path).check()
    assert Index(tmp_path).documents.read("train", [0])[0].licence == "MIT"


def test_one_call_at_a_time_indexes_a_corpus(tmp_path, corpus, monkeypatch, capsys):
    corpus(tmp_path, {"train": DOCUMENTS})
    build_part = indexing.build_part

    def beside(directory, part):
        with pytest.raises(SystemExit):
            main(["index", str(tmp_path)])
        assert f"error: {tmp_path} is being indexed already" in capsys.readouterr().err
        build_part(directory, part)

    monkeypatch.setattr(indexing, "build_part", beside)
    assert index(tmp_path, 300, workers=1).built == 4
    Index(tmp_path).check()


def test_a_table_of_another_build_is_refused(tmp_path, corpus):
    row = {"component": "x", "source": "s", "licence": "MIT", "url": "u"}
    corpus(tmp_path, {"train": DOCUMENTS}, rows={"train": [row] * 400})
    corpus(tmp_path, {"train": DOCUMENTS[1:]})
    with pytest.raises(ValueError, match="they are of different builds"):
        index(tmp_path)


def test_what_is_no_corpus_says_so(tmp_path, capsys):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "report.json").write_text("{}")  # and its token shards were removed
    for verb in (["index", str(tmp_path)], *(["trace", str(tmp_path / name), "x"] for name in ("none", "built"))):
        with pytest.raises(SystemExit, match="2"):
            main(verb)
        [sentence] = capsys.readouterr().err.splitlines()
    assert "built is not a corpus: there are no token shards in" in sentence


def test_a_corpus_without_documents_is_not_indexed(tmp_path, corpus):
    corpus(tmp_path, {"train": [], "valid": []})
    for asked in (index, needs_of):
        with pytest.raises(ValueError, match="has no documents, so there is nothing to index"):
            asked(tmp_path)


def test_tokens_without_their_index_are_not_left_out(tmp_path, corpus, capsys):
    index(corpus(tmp_path / "c", {"train": [[1, 2, 3]], "valid": [[4, 5]]}))
    (tmp_path / "c" / "tokens" / "train.idx").unlink()
    before = sorted((tmp_path / "c" / "index").iterdir())
    with pytest.raises(SystemExit, match="2"):
        main(["index", str(tmp_path / "c")])
    assert "train.bin has no train.idx beside it" in capsys.readouterr().err
    assert sorted((tmp_path / "c" / "index").iterdir()) == before


@pytest.mark.parametrize("harm", [b"", b"PAR1", b"PAR1 and no more PAR1"], ids=["empty", "cut", "wrong"])
def test_a_damaged_table_is_named(tmp_path, corpus, capsys, harm):
    corpus(tmp_path / "c", {"train": [[1, 2, 3]]}, rows={"train": [{}]})
    (tmp_path / "c" / "tokens" / "documents.parquet").write_bytes(harm)
    with pytest.raises(SystemExit, match="2"):
        main(["index", str(tmp_path / "c")])
    assert "documents.parquet is damaged, or no Parquet file" in capsys.readouterr().err


def test_too_little_memory_or_room_is_said_before_anything_is_written(tmp_path, corpus, monkeypatch):
    corpus(tmp_path, {"train": DOCUMENTS})
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "free_memory", lambda: 1000)
        with pytest.raises(ValueError, match=r"of memory, and .* are free; --shard-tokens makes smaller ones"):
            index(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(indexing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
        with pytest.raises(ValueError, match=r"on the disk, and .* are free"):
            index(tmp_path)
    assert not (tmp_path / "index").exists()
