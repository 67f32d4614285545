"""The notebooks of the repository: they are kept without outputs, and run from their first cell to their last."""

import html
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import nbclient
import nbformat
import pytest

from bluejay.gpt.formats.layouts import save_model
from bluejay.trace.indexing import index
from bluejay.train.loop import train
from bluejay.train.recipe import Data, Evaluate, Mixture, Train, TrainRecipe
from tests.trace.conftest import write_corpus

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KEPT = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""The metadata of a notebook."""
SIGNATURE = "def is_even(number: int) -> bool:"
"""What the code prompt and a document of the corpus begin with."""


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook of the repository."""
    return nbformat.read(path, as_version=4)


def plain(shown: str) -> str:
    """The text of a piece of HTML."""
    return html.unescape(re.sub("<[^>]+>", "", shown))


def code(name: str) -> str:
    """The code of a cell of the GPT-J notebook."""
    [found] = [cell.source for cell in read(ROOT / "notebooks" / "gpt-j.ipynb").cells if cell.id == name]
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, byte_tokenizer) -> dict[str, dict[str, str]]:
    """Id of a cell of the GPT-J notebook -> its texts and its HTML, with a model that read a small indexed corpus."""
    root = tmp_path_factory.mktemp("notebook")
    texts = [f"{SIGNATURE}\n    return number % {n + 2} == 0\n\n" * 9 for n in range(20)]
    known = [{"licence": "MIT", "source": f"file {n}", "url": f"https://example.org/{n}"} for n in range(20)]
    ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in texts]
    corpus = write_corpus(
        root / "corpus", {"train": ids[:17], "valid": ids[17:]}, rows={"train": known[:17], "valid": known[17:]}
    )
    byte_tokenizer.save(corpus)
    data = Data((Mixture(str(corpus / "tokens" / "train")),), sequence_length=512)
    model = {"n_layer": 1, "d_model": 16, "n_head": 1}
    notebook = read(ROOT / "notebooks" / "gpt-j.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("BLUEJAY_CACHE", str(root / "cache"))
        patch.setenv("MODEL", str(root / "runs" / "tiny" / "model"))
        index(corpus)
        train(
            TrainRecipe(
                "tiny", data, Train(tokens=512 * 8 * 4, batch_tokens=512 * 4), model, evaluate=Evaluate(tokens=512)
            )
        )
        place = {"metadata": {"path": str(ROOT / "notebooks")}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    found: dict[str, dict[str, str]] = {}
    for cell in notebook.cells:
        parts = found.setdefault(cell.id, {"text": "", "html": ""})
        for output in cell.get("outputs", []):
            parts["text"] += output.text if output.output_type == "stream" else output.data.get("text/plain", "")
            parts["html"] += output.get("data", {}).get("text/html", "")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata == KEPT and (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in notebook.cells:
        assert cell.metadata == {} and not cell.get("outputs") and cell.get("execution_count") is None, cell.id
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_links_of_a_notebook_lead_to_files(path):
    links = [link for cell in read(path).cells for link in re.findall(r"\]\(([^):]+)\)", cell.source)]
    assert len(links) > 5 and [link for link in links if not (path.parent / link).exists()] == []


def test_a_checkout_in_a_folder_with_a_space_is_installed():
    assert '%pip install --quiet "{CHECKOUT}"' in code("setup")


def test_prompts_are_continued_with_the_settings(outputs):
    assert outputs["code"]["text"].startswith(SIGNATURE) and outputs["news"]["text"].startswith("Jays that count")
    prompt = re.search(r'write\("""(.*?)"""\)', code("essay"), re.DOTALL)
    assert prompt and outputs["essay"]["text"].startswith(prompt[1])
    assert len(outputs["essay"]["text"]) > len(prompt[1])
    assert "\n" not in outputs["questions"]["text"].rpartition("Answer:")[2]


def test_what_gpt_j_needs_is_said_before_it_is_fetched(outputs):
    lines = {line.split()[0]: line for line in outputs["gpt-j"]["text"].splitlines()}
    assert "24.2 GB weights" in lines["float32"] and "3.33 GB" in lines["q4"] and lines.keys() >= {"bfloat16", "q8"}


def test_sliders_are_there_where_the_package_is(outputs):
    assert ("FloatSlider" in outputs["sliders"]["text"]) == (find_spec("ipywidgets") is not None)
    assert "{'top_p': 0.9, 'temperature': 0.8" in outputs["sliders"]["text"]


def test_without_sliders_the_settings_are_numbers_in_a_cell(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    names: dict = {}
    exec(code("sliders"), names)
    assert "change the numbers in this cell" in capsys.readouterr().out and names["settings"]["seed"] == 1


def test_probabilities_and_the_inside_are_shown_without_scripts(outputs):
    for name, words in {
        "probabilities": ("bits per byte", SIGNATURE),
        "layers": ("logit lens", "layer 0"),
        "attention": ("head 0.0",),
        "attribution": ("What made the logit of", "MLP"),
    }.items():
        assert all(word in plain(outputs[name]["html"]) for word in words), name
    assert not any("<script" in one["html"] for one in outputs.values())
    assert outputs["alternatives"]["text"].count("%") >= 6 * 3


def test_what_was_written_is_traced_to_documents(outputs):
    shown = outputs["trace"]["html"]
    assert "quoted" in shown and "<details><summary>" in shown and SIGNATURE in plain(shown)
    assert "MIT" in shown and '<a href="https://example.org/' in shown and re.search("read (at|in parts)", shown)


def test_without_a_corpus_the_trace_says_what_would_make_it(tiny_model, tmp_path, capsys):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "model")
    exec(code("trace"), {"CHECKOUT": str(tmp_path), "MODEL": str(tmp_path / "model"), "code": "text"})
    said = capsys.readouterr().out
    assert (
        "nothing that" in said and "bluejay pile build recipes/pile/mini-pile.toml" in said and "bluejay index" in said
    )
