"""The Python API in a notebook, executed as Jupyter executes it."""

import nbclient
import nbformat
import pytest

from bluejay.gpt.formats.layouts import save_model

CELLS = {
    "load": """
import bluejay, bluejay.progress
bluejay.progress.SECONDS_BEFORE_BAR = 0.0  # the bar of a job of any length
model = bluejay.load(PATH)
model""",
    "generate": "model.generate(['the cat', 'a', 'the'] * 20, max_tokens=8, temperature=0)[:2]",
    "stream": """
for chunk in model.stream("the cat", max_tokens=8, temperature=0):
    print(chunk.text, end="")""",
    "score": "[round(score.bits_per_byte, 3) for score in model.score(['the cat', 'a'])]",
    "quiet": "len(model.score(['the cat'] * 50, progress=False))",
    "pairs": "model.loglikelihood([('the', ' cat'), ('the', ' the')], progress=False)",
    "embed": "model.embed(['the cat', 'a'], progress=False).shape",
    "await": "await model.agenerate('the cat', max_tokens=8, temperature=0)",
    "gather": """
import asyncio
[text for [text] in await asyncio.gather(*(model.agenerate(p, max_tokens=4, temperature=0) for p in ('a', 'b')))]""",
    "astream": "[chunk.text async for chunk in model.astream('the cat', max_tokens=8, temperature=0)]",
    "completion": """
from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    found = [completion.text for completion in get_ipython().Completer.completions("bluejay.lo", 10)]
found""",
    "help": "model.generate.__doc__.split()[:3]",
    "mistake": "model.generate({'prompt': 'the cat'})",
    "close": """
with model:
    pass
model""",
}
"""Name -> the code of a cell."""


@pytest.fixture(scope="module")
def outputs(tiny_model, tmp_path_factory) -> dict[str, dict[str, str]]:
    """Name of a cell -> what it printed (stdout, stderr), returned (result) and raised (error)."""
    path = tmp_path_factory.mktemp("notebook") / "tiny"
    save_model(tiny_model.gpt, tiny_model.tokenizer, path)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(code.replace("PATH", repr(str(path)))) for code in CELLS.values()]
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True).execute()
    found: dict[str, dict[str, str]] = {}
    for name, cell in zip(CELLS, notebook.cells, strict=True):
        parts = found.setdefault(name, {"stdout": "", "stderr": "", "result": "", "error": ""})
        for output in cell.outputs:
            if output.output_type == "stream":
                parts[output.name] += output.text
            elif output.output_type == "error":
                parts["error"] += f"{output.ename}: {output.evalue}"
            else:
                parts["result"] += output.data["text/plain"]
    return found


def test_cells_return_what_a_script_gets(tiny_model, outputs):
    assert {name: cell["error"] for name, cell in outputs.items() if cell["error"]}.keys() == {"mistake"}
    expected = tiny_model.generate(["the cat", "a"], max_tokens=8, temperature=0)
    shown = {name: cell["result"] for name, cell in outputs.items()}
    assert eval(shown["generate"]) == expected and eval(shown["await"]) == expected[0]
    assert "".join(eval(shown["astream"])) == outputs["stream"]["stdout"] == expected[0][0]
    assert eval(shown["gather"]) == [
        tiny_model.generate(prompt, max_tokens=4, temperature=0)[0] for prompt in ("a", "b")
    ]
    assert eval(shown["score"]) == [round(score.bits_per_byte, 3) for score in tiny_model.score(["the cat", "a"])]
    assert shown["pairs"].count("LogLikelihood(logprob=") == 2 and shown["embed"] == "torch.Size([2, 64])"


def test_a_long_list_has_a_bar_that_ends_full_and_can_be_left_out(outputs):
    bar = outputs["generate"]["stderr"]
    assert "█" * 20 + " generating 100%" in bar and bar.endswith("\n")
    assert outputs["quiet"]["stderr"] == outputs["stream"]["stderr"] == outputs["await"]["stderr"] == ""


def test_a_notebook_can_be_found_out_about(outputs):
    assert outputs["load"]["result"].startswith("<bluejay.Model tiny: gptj, 132,739 parameters, context 64")
    assert "load" in outputs["completion"]["result"]
    assert outputs["help"]["result"] == "['The', 'n', 'completions']"
    assert outputs["mistake"]["error"].startswith("PromptError: the prompt is a mapping; give its text")
    assert outputs["close"]["result"].endswith("closed>")
