"""What a recipe names and what is not there is said before anything is read, by the plan and by the build."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bluejay.pile.build import build
from bluejay.pile.plan import plan, table
from bluejay.pile.recipe import PileRecipe
from bluejay.recipe import check

NEVER_READ = {"name": "First", "source": [{"kind": "mathematics", "documents": 10}]}


def recipe(folder: Path, second: dict[str, Any], **values: Any) -> PileRecipe:
    """A recipe whose first component is sound."""
    (folder / "one.txt").write_text("One document.")
    source = [{"kind": "text", "path": f"{folder}/one.txt"}]
    component = [NEVER_READ, {"name": "Second", "source": source, **second}]
    values = {"name": "n", "tokenizer": {"path": "gpt2"}, "output": f"{folder}/out", "component": component, **values}
    return check(PileRecipe, values, "the test")


@pytest.mark.parametrize(
    ("second", "values", "says"),
    [
        (
            {"filters": ["gophr"]},
            {},
            r"component Second: there is no filter .gophr.; did you mean gopher\?",
        ),
        ({"filters": ["c4", "Language:en"]}, {}, r"component Second: .* did you mean language\?"),
        ({"filters": ["gopher:3"]}, {}, "component Second: the filter 'gopher:3' was not understood; write gopher"),
        ({"filters": ["language:english"]}, {}, "names no known language: 'english'; write ISO 639 codes"),
        ({"filters": ["length:many"]}, {}, "was not understood; write length:"),
        ({"filters": ["quality:none.safetensors"]}, {}, r"none\.safetensors cannot be read"),
        (
            {"source": [{"kind": "html", "path": "https://a.org/a.html", "extract": "justext", "language": "english"}]},
            {},
            "component Second: justext knows no language 'english'; did you mean English?",
        ),
        (
            {
                "source": [
                    {
                        "kind": "archive",
                        "path": "https://a.org/a.zip",
                        "formats": [{"kind": "warc", "path": "*", "extract": "justext", "language": "Germn"}],
                    }
                ]
            },
            {},
            "justext knows no language 'Germn'; did you mean German?",
        ),
        ({}, {"tokenizer": {"path": "no/such/tokenizer.json"}}, r"tokenizer: no tokenizer at no/such/tokenizer\.json"),
        (
            {"filters": ["c5"]},
            {"tokenizer": {"path": "no.json"}},
            "no tokenizer .*; component Second: there is",
        ),
    ],
)
def test_filters_and_tokenizers_are_looked_up_first(
    tmp_path: Path, second: dict[str, Any], values: dict[str, Any], says: str
) -> None:
    for verb in (plan, build):
        with pytest.raises(ValueError, match=says):
            verb(recipe(tmp_path, second, **values))
    assert not (tmp_path / "out.stages").exists()


def test_parsers_are_looked_up_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    pdf = {"kind": "pdf", "path": "https://example.org/a.pdf"}
    archive = {"kind": "archive", "path": "https://example.org/a.zip", "formats": [pdf]}
    for sources in ([pdf], [archive], [pdf, archive]):
        for verb in (plan, build):
            with pytest.raises(ValueError, match=r"component Second: reading pdf needs pypdfium2: .*pip install"):
                verb(recipe(tmp_path, {"source": sources}))


def test_what_installs_missing_parsers_is_said_once_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pypdfium2", "lxml"):
        monkeypatch.setitem(sys.modules, module, None)
    sources = [{"kind": kind, "path": "https://example.org/a"} for kind in ("pdf", "patents", "pdf")]
    needs = "no filter .*; component Second: reading pdf needs pypdfium2; component Second: reading patents needs lxml"
    with pytest.raises(ValueError, match=f"{needs}: [^:]*pip install [^;]*$"):
        build(recipe(tmp_path, {"source": sources, "filters": ["no-such-filter"]}))


def test_what_the_export_needs_is_looked_up_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for verb in (plan, build):
        with pytest.raises(ValueError, match=r"jsonl = true needs zstandard: .*pip install"):
            verb(recipe(tmp_path, {}, jsonl=True))
    assert not (tmp_path / "out.stages").exists()
    plan(recipe(tmp_path, {}))


@pytest.mark.parametrize(
    ("second", "values", "says"),
    [
        ({"source": [{"kind": "text", "path": "no/*.txt"}]}, {}, r"component Second: no file matches no/\*\.txt"),
        ({"source": [{"kind": "tree", "path": "no/folder"}]}, {}, "component Second: no/folder is not a folder"),
        ({"source": [{"kind": "jsonl", "path": "no.jsonl"}]}, {}, r"component Second: no file matches no\.jsonl"),
        ({}, {"decontaminate": {"against": ["no.jsonl"]}}, r"decontaminate: no file matches no\.jsonl"),
    ],
)
def test_files_are_looked_up_first(tmp_path: Path, second: dict[str, Any], values: dict[str, Any], says: str) -> None:
    checked = recipe(tmp_path, second, **values)
    with pytest.raises(ValueError, match=says):
        build(checked)
    assert not (tmp_path / "out.stages").exists()
    assert says.rpartition(": ")[2].replace("\\", "") in table(plan(checked))


def test_what_need_not_be_there_is_no_mistake(tmp_path: Path) -> None:
    fine = [
        {"kind": "text", "path": "https://example.org/a.txt"},
        {"kind": "deb", "name": "no-such-package", "optional": True, "include": ["*"]},
    ]
    rows = plan(recipe(tmp_path, {"source": fine}))
    assert [row.note for row in rows] == ["", "", "2 can be built; 0 of 2 sizes are known"]


def test_a_recipe_of_which_nothing_is_available_is_refused(tmp_path: Path) -> None:
    component = [{"name": "A", "unavailable": "gone"}]
    values = {"name": "n", "tokenizer": {"path": "gpt2"}, "output": f"{tmp_path}/out", "component": component}
    with pytest.raises(ValueError, match="every component is unavailable, so there is no text"):
        build(check(PileRecipe, values, "the test"))
