"""A wheel, with the engine and without, does in a fresh environment of each Python what a newcomer does.

These tests need a network to install torch, which takes some gigabytes where the index's carries CUDA, and the backend
that builds packages.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
BACKEND = ["scikit-build-core>=1.1"]
STRAY = ("src/bluejay/notes.txt", "src/bluejay/infer/.engine.py.swp", "native/a.o", "recipes/train/run.log", "data/x")
TAGS = {"3.11": "cp311-cp311", "3.12": "cp312-abi3", "3.13": "cp312-abi3"}
WITHOUT_ENGINE = "py3-none-any"
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The files of the checkout that git has, and nothing that was built."""
    folder = tmp_path_factory.mktemp("sources")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=TAGS)
def environment(request, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The version and the interpreter of a fresh environment with torch."""
    python = f"python{request.param}"
    if subprocess.run(["sh", "-c", f"{python} -c 'import venv'"], capture_output=True).returncode:
        pytest.skip(f"{python} is not installed")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("this user may make no network namespace")
    folder = tmp_path_factory.mktemp(python)
    subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", TORCH], check=True)
    yield request.param, folder / "bin/python"
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_an_installed_wheel_trains_and_serves(environment, engine, sources, tmp_path):
    version, python = environment
    changed = os.environ | (NO_COMPILER if engine == "torch" else {})
    pip = [python, "-m", "pip"]
    command = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", sources]
    subprocess.run(command, check=True, env=changed)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert (TAGS[version] if engine == "native" else WITHOUT_ENGINE) in wheel.name
    subprocess.run([*pip, "install", "--quiet", wheel], check=True)
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--force-reinstall", wheel], check=True)
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    (tmp_path / "work/input.txt").write_text(text[:1_000_000], encoding="utf-8")
    command = ["unshare", "--net", python, ROOT / "tests/newcomer.py", engine, "0.5", "60_000"]
    alone = {"HOME": str(tmp_path / "home"), "PATH": os.defpath}
    subprocess.run(command, check=True, cwd=tmp_path / "work", env=alone)


@pytest.mark.slow
def test_an_sdist_is_what_git_has_and_no_more(sources, tmp_path):
    shutil.copytree(sources, tmp_path / "sources")
    for name in STRAY:
        (tmp_path / "sources" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "sources" / name).write_text("stray")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *BACKEND], check=True)
    code = "from scikit_build_core.build import build_sdist; build_sdist('../dist')"
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path / "sources")
    (file,) = (tmp_path / "dist").iterdir()
    with tarfile.open(file) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    parts = ("src", "native", "recipes", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
    assert found == {str(path.relative_to(sources)) for part in parts for path in files_of(sources / part)}


def files_of(path: Path) -> list[Path]:
    """The file of a path, or those below it."""
    return [path] if path.is_file() else [below for below in path.rglob("*") if below.is_file()]
