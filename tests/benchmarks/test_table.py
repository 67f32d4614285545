"""The pages of figures say what the recorded benchmarks say."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    """A copy of the files that the table is made from and written to."""
    for folder in ("benchmarks", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def run(project: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, str(project / "benchmarks" / "table.py"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True)


def test_the_pages_say_what_was_measured(project):
    done = run(project, "--check")
    assert done.returncode == 0, done.stderr


def test_a_figure_changed_by_hand_is_found(project):
    page = project / "README.md"
    page.write_text(page.read_text().replace("| llama.cpp Q4_0 | 1", "| llama.cpp Q4_0 | 2"))
    done = run(project, "--check")
    assert done.returncode == 1 and "README.md does not say" in done.stderr


def test_a_new_measurement_gets_a_column_of_its_processor_and_widens_the_range(project):
    metric = "q4 batch 1 vs llama_cpp_gguf Q4_0"
    row = {"metric": metric, "ours": 50.0, "peer": 2.0, "unit": "tokens/s", "ratio": 25.0, "goal": 1.05}
    line = {"benchmark": "decode", "date": "2026-01-01", "commit": "0000000", "machine": "Abacus, 2 cores"}
    given = "some words\n" + json.dumps(line | {"results": [row]}) + "\n"
    assert run(project, given=given).stdout == given
    assert run(project, "--check").returncode == 0
    assert re.search(r"\| llama\.cpp Q4_0 \| [\d.]+ to 25 \| Abacus", (project / "README.md").read_text())
    page = (project / "docs" / "benchmarks.md").read_text()
    assert "Abacus, 2 cores |" in page and f"| {metric} | Abacus, 2 cores | 50 | 2 | tokens/s |" in page


def test_repetitions_are_shown_by_their_median_and_range(project):
    for ratio in (3.0, 1.0, 2.0):
        row = {"metric": "m", "ours": ratio, "peer": 1.0, "unit": "s", "ratio": ratio, "goal": 1.0}
        line = {"benchmark": "b", "date": "2026-01-01", "commit": "0000000", "machine": "Abacus, 2 cores"}
        run(project, given=json.dumps(line | {"results": [row]}) + "\n")
    page = project / "docs" / "benchmarks.md"
    assert (
        "| 2.00 (1.00 to 3.00, 3 runs) |" in page.read_text() and "| m | Abacus, 2 cores | 2 | 1 |" in page.read_text()
    )
    run(project, given=json.dumps(line | {"commit": "1111111", "results": [row | {"ratio": 5.0}]}) + "\n")
    assert "| 5.00 |" in page.read_text()


@pytest.mark.parametrize(("ratio", "short"), [(0.994, True), (0.996, False), (1.5, False)])
def test_a_ratio_below_its_goal_is_among_what_falls_short(ratio, short, project):
    row = {"metric": "m", "ours": 1.0, "peer": 1.0, "unit": "s", "ratio": ratio, "goal": 1.0}
    line = {"benchmark": "b", "date": "2026-01-01", "commit": "0000000", "machine": "Abacus, 2 cores"}
    run(project, given=json.dumps(line | {"results": [row]}) + "\n")
    listed = f"| `b`: m | Abacus, 2 cores | {ratio:.2f} | 1 |" in (project / "docs" / "benchmarks.md").read_text()
    assert listed == short
