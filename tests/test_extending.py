"""Whoever follows the pages about sources and filters to the letter has a source and a filter that work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|diff) file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FORGET_EDITABLE_INSTALLATION = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildInplaceFinder"]
"""
"""Else an editable installation would be imported before the copy."""
RECIPE = """
name = "toy"
seed = 1
[tokenizer]
path = "gpt2"
[split]
valid = 0.0
test = 0.0
[[component]]
name = "Sayings"
source = [{ kind = "fortunes", path = "sayings/*", licence = "CC0-1.0" }]
filters = ["questions"]
"""


def apply(page: str, project: Path) -> None:
    """Make the changes that a page shows: new files, and lines added after a line that stands there once."""
    blocks = BLOCK.findall((ROOT / "docs" / "extending" / page).read_text(encoding="utf-8"))
    assert blocks
    for kind, name, body in blocks:
        path = project / name
        if kind == "python":
            assert not path.exists()
            path.write_text(body, encoding="utf-8")
            continue
        known, *added = body.splitlines()
        assert known.startswith(" ") and all(line.startswith("+") for line in added)
        before, after = f"\n{known[1:]}\n", "".join(f"{line[1:]}\n" for line in added)
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{known[1:]!r} does not stand once in {name}"
        path.write_text(text.replace(before, before + after), encoding="utf-8")


def test_a_source_and_a_filter_are_added_as_the_pages_say(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    apply("source.md", project)
    apply("filter.md", project)
    (tmp_path / "sayings").mkdir()
    sayings = ["Know thyself.", "Quis custodiet ipsos custodes?\n  -- Juvenal", "Nothing in excess."]
    (tmp_path / "sayings" / "old").write_text("\n%\n".join(sayings), encoding="utf-8")
    (tmp_path / "toy.toml").write_text(RECIPE, encoding="utf-8")
    (project / "src" / "sitecustomize.py").write_text(FORGET_EDITABLE_INSTALLATION, encoding="utf-8")
    build = "from bluejay.cli import main; main(['pile', 'build', 'toy.toml', '--json'])"
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])
    documents = tmp_path / "data" / "toy" / "documents"
    kept = pq.read_table(documents / "train.parquet").to_pylist()
    assert sorted((row["text"], row["licence"]) for row in kept) == [
        ("Know thyself.", "CC0-1.0"),
        ("Nothing in excess.", "CC0-1.0"),
    ]
    (dropped,) = pq.read_table(documents / "dropped.parquet").to_pylist()
    assert dropped["text"] == sayings[1] and dropped["reason"] == "questions: it asks"
