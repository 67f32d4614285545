"""lm-evaluation-harness gets from our engine what it gets from its own `hf` adapter, request by request."""

import json
import os
from pathlib import Path

import pytest

from bluejay.gpt.formats.layouts import load_model, save_model
from bluejay.infer.model import load
from tests.gpt.random_models import random_model

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra `harness`")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PER_TOKEN = 1e-4
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

SIZES = {"vocab_size": 259, "bos_token_id": 258, "eos_token_id": 258}
FAMILIES = {
    "gptj": {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 96, "rotary_dim": 8},
    "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 96},
    "gpt_neo": {
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "num_heads": 4,
        "hidden_size": 64,
        "max_position_embeddings": 96,
        "window_size": 7,
    },
    "gpt_neox": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 64,
        "max_position_embeddings": 96,
        "intermediate_size": 128,
    },
    "llama": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 96,
    },
}
LONG = "who knew the answer? the dog, naïve, 日本. " * 12
PAIRS = [
    *(
        (f"the cat {words} and the", choice)
        for words in ("sat", "the ", "12 + 30 =")
        for choice in (" cat", " the the dog")
    ),
    ("", "the cat"),
    ("trailing spaces  ", "end"),
    (LONG, " and so on"),
    ("the", f" {LONG[:40]}"),
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


def instances(kind: str, arguments: list[tuple]) -> list:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def both(path: Path, max_length: int):
    from lm_eval.models.huggingface import HFLM

    from bluejay.evals.harness import BluejayLM

    theirs = HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=3, max_length=max_length)
    return BluejayLM(load(path), max_length=max_length), theirs


def check(ours, theirs, pairs: list[tuple[str, str]], texts: list[str], prompts: list[str]) -> None:
    encoded = [len(ours.tok_encode(text, add_special_tokens=False)) for _, text in pairs]
    found, wanted = (model.loglikelihood(instances("loglikelihood", pairs)) for model in (ours, theirs))
    for (one, greedy), (other, other_greedy), n in zip(found, wanted, encoded, strict=True):
        assert one == pytest.approx(other, abs=PER_TOKEN * (n + 1))
        assert greedy == other_greedy
    rolled = [(text,) for text in texts]
    found, wanted = (
        model.loglikelihood_rolling(instances("loglikelihood_rolling", rolled)) for model in (ours, theirs)
    )
    for one, other, text in zip(found, wanted, texts, strict=True):
        assert one == pytest.approx(other, abs=PER_TOKEN * len(ours.tok_encode(text)))
    asked = [(prompt, {"until": ["zz", "."], "max_gen_toks": 12}) for prompt in prompts]
    found, wanted = (model.generate_until(instances("generate_until", asked)) for model in (ours, theirs))
    assert found == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_every_request_gets_the_number_of_the_hf_adapter(family, byte_tokenizer, tmp_path):
    random_model(family, SIZES | FAMILIES[family], 3).save_pretrained(tmp_path / "theirs")
    stored = load_model(tmp_path / "theirs")
    save_model(stored, byte_tokenizer, tmp_path / "model")
    check(*both(tmp_path / "model", 64), PAIRS, [LONG, "the", "the cat sat"], ["the cat", "who knew", LONG])


def test_every_token_of_a_continuation_longer_than_the_context_is_scored(byte_tokenizer, tmp_path):
    """The hf adapter refuses it."""
    from bluejay.evals.harness import BluejayLM

    random_model("gptj", SIZES | FAMILIES["gptj"], 5).save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), byte_tokenizer, tmp_path / "model")
    ours = BluejayLM(load(tmp_path / "model"))
    pairs = [("the", f" {LONG}")]
    [(found, _)] = ours.loglikelihood(instances("loglikelihood", pairs))
    assert found == pytest.approx(ours.model.loglikelihood(pairs)[0].logprob, abs=1e-3)


def test_a_task_of_its_own_with_five_examples_gets_the_same_samples(byte_tokenizer, tmp_path):
    random_model("gptj", SIZES | FAMILIES["gptj"], 5).save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), byte_tokenizer, tmp_path / "model")
    rows = [{"question": f"{i} cats", "choices": ["sat", "ran away", f"ate {i}"], "gold": i % 3} for i in range(12)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(TASK.format(name="own", data=data))
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    samples = []
    for model in both(tmp_path / "model", 64):
        found = lm_eval.simple_evaluate(
            model, tasks=["own"], num_fewshot=5, task_manager=manager, log_samples=True, bootstrap_iters=0
        )
        samples.append([sample["filtered_resps"] for sample in found["samples"]["own"]])
    compared = 0
    for ours, theirs in zip(*samples, strict=True):
        for (one, greedy), (other, other_greedy) in zip(ours, theirs, strict=True):
            assert (float(one), greedy) == (pytest.approx(float(other), abs=1e-3), other_greedy)
            compared += 1
    assert compared == 36


def test_a_conversation_becomes_the_tokens_of_the_chat_template(tmp_path_factory):
    from bluejay.evals.harness import BluejayLM
    from tests.evals.smollm2 import file

    ours, asked = BluejayLM(load(file())), [{"role": "user", "content": "Hi"}]
    assert ours.tok_encode(ours.apply_chat_template(asked)) == ours.model.chat_prompt(asked)
    begun = [*asked, {"role": "assistant", "content": "Answer: ("}]
    assert ours.apply_chat_template(begun, add_generation_prompt=False).endswith("assistant\nAnswer: (")


def test_arguments_of_the_model_are_known_or_refused(byte_tokenizer, tmp_path):
    from bluejay.evals.harness import BluejayLM

    random_model("gptj", SIZES | FAMILIES["gptj"], 5).save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), byte_tokenizer, tmp_path / "model")
    path, own = str(tmp_path / "model"), {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    found = BluejayLM.create_from_arg_string(f"path={path},dtype=bfloat16,max_gen_toks=3,max_length=64", own)
    (text,) = found.generate_until(instances("generate_until", [("the cat", {"until": []})]))
    assert found.max_length == 64
    assert [text] == found.model.generate("the cat", max_tokens=3, temperature=0.0)
    for wrong, said in (
        ("max_lenght=5", "max_lenght is unknown"),
        ("revision=x", "revision"),
        ("dtype=f4", "dtype is f4"),
    ):
        with pytest.raises(ValueError, match=said):
            BluejayLM.create_from_arg_string(f"path={path},{wrong}", own)


def test_smollm2_gets_the_numbers_of_the_hf_adapter(tmp_path_factory):
    from tests.evals.smollm2 import float32_directory

    path = float32_directory(tmp_path_factory.mktemp("smollm2"))
    pairs = [
        ("The capital of France is", " Paris"),
        ("The capital of France is", " a city in Spain"),
        ("2 + 2 =", " 4"),
    ]
    check(*both(path, 256), pairs, ["The quick brown fox. " * 60], ["The capital of France is", "def add(a, b):\n"])
