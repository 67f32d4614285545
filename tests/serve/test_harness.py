"""EleutherAI's lm-evaluation-harness, unmodified, gets the same numbers over HTTP as from transformers in process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bluejay.gpt.formats.layouts import save_model
from bluejay.infer.model import load

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

DATA = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
"""
TASKS = {
    "choices": """
task: choices
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "whole": """
task: whole
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
""",
    "writing": """
task: writing
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: ""
generation_kwargs: {until: ["zz"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
""",
}
QUESTIONS = [
    {"question": f"the cat {words} and the", "choices": [" cat", " the the dog, naïve", f" {words} 日本"]}
    for words in ("sat", "the the", "who knew the answer", "ate", "12 + 30 =", "said: “no”", "")
]


def responses(output: Path, tasks: Path, *arguments: str) -> dict[str, list]:
    """The model's results by task, in the order of the questions."""
    command = [sys.executable, "-m", "lm_eval", "run", *arguments, "--tasks", ",".join(TASKS)]
    command += ["--include_path", str(tasks), "--output_path", str(output), "--log_samples"]
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tasks / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for path in output.rglob("samples_*.jsonl"):
        samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        found[path.name.split("_")[1]] = [sample["resps"] for sample in samples]
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    data = path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, task in TASKS.items():
        (path / f"{name}.yaml").write_text(task + DATA.format(data=data))
    return path


def test_evaluation_over_http_equals_evaluation_in_process(model, running, tasks, tmp_path):
    path = tmp_path / "tiny"
    save_model(model.gpt, model.tokenizer, path)
    common = ["--batch_size", "4"]
    expected = responses(
        tmp_path / "hf",
        tasks,
        "--model",
        "hf",
        *common,
        "--model_args",
        f"pretrained={path},dtype=float32,max_length=1024",
        "--device",
        "cpu",
    )
    with running(load(path)) as server:
        arguments = f"model=tiny,base_url={server.url}/v1/completions,tokenizer={path},max_length=1024,num_concurrent=2"
        found = responses(tmp_path / "http", tasks, "--model", "local-completions", *common, "--model_args", arguments)
    assert expected.keys() == found.keys() == TASKS.keys()
    compared = 0
    for task in ("choices", "whole"):
        for ours, theirs in zip(found[task], expected[task], strict=True):
            for (one,), (other,) in zip(ours, theirs, strict=True):
                # A log-likelihood, and in "choices" whether the text is what greedy decoding would say.
                (one, *greedy), (other, *expected_greedy) = (x if isinstance(x, list) else [x] for x in (one, other))
                assert float(one) == pytest.approx(float(other), abs=1e-4)
                assert greedy == expected_greedy
                compared += 1
    assert compared == 4 * len(QUESTIONS)
    assert found["writing"] == expected["writing"]
