"""The advice to install what is missing works where Bluejay came from."""

import importlib.machinery
import json
import runpy
import shlex
import sys
import tomllib
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import bluejay
from bluejay import extras, native, package_index

INTO = "install --python '/my env/bin/python'"
"""How uv is told the Python to install for."""


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            {"url": "file:///a%20b/bluejay", "dir_info": {"editable": True}},
            "install -e '/a b/bluejay[corpus,train]'",
        ),
        ({"url": "file:///a/bluejay", "dir_info": {}}, "install '/a/bluejay[corpus,train]'"),
        (
            {"url": "file:///a/bluejay-0.1.0.whl", "archive_info": {}},
            "install 'bluejay[corpus,train] @ file:///a/bluejay-0.1.0.whl'",
        ),
        (
            {"url": "https://example.org/bluejay", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "install 'bluejay[corpus,train] @ git+https://example.org/bluejay@c0ffee'",
        ),
        (None, "install 'bluejay[corpus,train]'"),
    ],
)
def test_extras_come_from_where_the_package_came_from(monkeypatch, origin, command):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(extras, "distribution", lambda name: Installed())
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    assert extras.install("corpus", "train") == f"'/my env/bin/python' -m pip {command}"
    monkeypatch.setattr("bluejay.extras.importlib.util.find_spec", lambda name: None)
    assert extras.install("corpus", "train") == f"uv pip {command.replace('install', INTO, 1)}"


@pytest.mark.parametrize(
    ("file", "why"),
    [(None, "was not compiled when bluejay was installed, most likely for want of a"), ("", "cannot be loaded (")],
)
def test_without_the_native_engine_its_absence_is_told_by_its_reason(monkeypatch, tmp_path, file, why):
    """Such as a file that was compiled against libraries that are not on this machine."""
    name = f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if file is not None:
        (tmp_path / name).write_text(file)
    monkeypatch.setattr(bluejay, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "bluejay._native", raising=False)
    found = runpy.run_path(native.__file__)
    assert found["native"] is None and found["absent"].startswith(why)


def test_an_engine_of_other_sources_than_those_of_the_checkout_is_not_used(monkeypatch, tmp_path):
    """As after `git pull` without `make`. An installed package has no sources to compare."""
    root = Path(__file__).parents[1]
    assert getattr(native.native, "sources", None) in (None, native.hash_of(root / "native"))  # as CMake computes it
    older = types.SimpleNamespace(sources="of another day")
    monkeypatch.setitem(sys.modules, "bluejay._native", older)
    found = runpy.run_path(native.__file__)
    assert found["native"] is None and found["absent"].startswith("was compiled from other sources than those in")
    (tmp_path / "native").mkdir()
    for name in ("module.cpp", "CMakeLists.txt"):
        (tmp_path / "native" / name).touch()
    for package, is_outdated in (("src/bluejay", True), ("site-packages/bluejay", False), ("a/src/bluejay", False)):
        assert native.is_outdated(older, tmp_path / package) == is_outdated


def test_the_engine_is_compiled_by_a_command_where_the_source_is_known(monkeypatch):
    origins = iter([{"url": "file:///a%20b/bluejay", "dir_info": {"editable": True}}, {}])
    monkeypatch.setattr(extras, "origin_of_bluejay", lambda: next(origins))
    monkeypatch.setattr(sys, "executable", "/bin/python")
    command = "/bin/python -m pip install --force-reinstall --no-deps -e '/a b/bluejay'"
    assert extras.compile_again() == f"`{command}`"
    assert extras.compile_again() == "installing bluejay again from its source"


def test_files_that_were_never_installed_have_advice_too(monkeypatch):
    def nowhere(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", nowhere)
    assert extras.install("corpus") == f"{shlex.quote(sys.executable)} -m pip install 'bluejay[corpus]'"


def test_the_package_index_is_read_by_an_extra_that_brings_its_reader_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypi_simple", None)
    with pytest.raises(ValueError, match=r"pypi-simple: .* -m pip install .*\[evals\]"):
        package_index.indexes()
    extras_of = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extras_of["evals"] == ["pypi-simple"] and "pypi-simple" in extras_of["corpus"]


def test_the_harness_without_its_package_says_what_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bluejay.evals.harness", run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and "harness]" in error and error.count("\n") == 1
