"""The comparison of two checkouts finds a difference, and none where there is none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compare(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import compare

    return compare


def run(old: Path, new: Path, *options: str) -> tuple[int, list[str]]:
    """The exit code and the lines of a comparison of tiny size."""
    command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(old), str(new), "--size", "tiny", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines() or [done.stderr]


def test_directories_differ_by_bytes_and_tables_by_their_rows(compare, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for side in (old, new):
        (side / "tokens").mkdir(parents=True)
        (side / "tokens" / "train.bin").write_bytes(b"12345")
        (side / "README.md").write_text(f"Prose of the {side.name} one.")
    table = pa.table({"text": ["a", "b"]})
    parquet.write_table(table, old / "documents.parquet")
    parquet.write_table(table, new / "documents.parquet", compression="zstd")
    assert compare.differences(old, new) == []
    parquet.write_table(pa.table({"text": ["a", "c"]}), new / "documents.parquet")
    (new / "tokens" / "train.bin").write_bytes(b"12346")
    (new / "more").touch()
    assert compare.differences(old, new) == [
        "only the new has more",
        "documents.parquet differs",
        "tokens/train.bin differs",
    ]


@pytest.mark.slow
def test_a_planted_difference_is_found(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    recipe = tmp_path / "src" / "bluejay" / "pile" / "recipe.py"
    text = recipe.read_text()
    assert "seed: int = 42" in text
    recipe.write_text(text.replace("seed: int = 42", "seed: int = 43"))
    code, lines = run(ROOT, tmp_path, "--until", "corpora")
    assert code == 1 and len(lines) == 1, lines
    assert lines[0].startswith("DIFFERENT: corpus") and " differs" in lines[0]


@pytest.mark.slow
def test_a_checkout_equals_itself():
    code, lines = run(ROOT, ROOT)
    assert code == 0 and len(lines) == 15 and all(line.startswith("equal: ") for line in lines), lines
