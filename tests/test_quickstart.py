"""The quickstart itself, at its full size: minutes, so `make test-slow`."""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tokenizers
import torch
from pyarrow import parquet
from transformers import AutoModelForCausalLM

import bluejay
from bluejay.pile.build import build
from bluejay.pile.recipe import PileRecipe
from bluejay.recipe import load
from bluejay.tokenizer import Tokenizer
from bluejay.train.loop import train
from bluejay.train.recipe import TrainRecipe
from bluejay.train.report.comparison import compare
from tests.evals import smollm2
from tests.train.data.test_packed_examples import pairs_of

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("quickstart") / "corpus"
    build(load(PileRecipe, ROOT / "recipes/pile/quickstart.toml", ["--output", str(directory)]))
    return directory


@pytest.mark.parametrize("name", ["new", "gpt2"])
def test_ids_equal_tiktokens_and_tokenizers_on_every_document(corpus, name, tiktoken_of, tmp_path):
    ours = Tokenizer.load(corpus if name == "new" else "gpt2")
    ours.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    reference = tiktoken_of({token: id for id, token in enumerate(ours.token_bytes()) if id != ours.eot})
    for split in ("train", "valid", "test"):
        texts = parquet.read_table(corpus / "documents" / f"{split}.parquet")["text"].to_pylist()
        ids = ours.encode_batch(texts)
        assert ids == reference.encode_ordinary_batch(texts, num_threads=2)
        assert ids == [encoding.ids for encoding in library.encode_batch(texts)]


def test_the_model_is_the_same_to_the_bit_after_a_kill_and_an_interrupt_and_equals_transformers(corpus, tmp_path):
    """Sixty steps of the recipe on all cores."""

    def start(output: Path) -> subprocess.Popen:
        overrides = {
            "data.train": f'[{{ shards = "{corpus}/tokens/train" }}]',
            "data.valid": f"{corpus}/tokens/valid",
            "train.tokens": "61440",
            "checkpoint.every_steps": "10",
            "evaluate.every_steps": "30",
            "output": str(output),
        }
        program = "from bluejay.cli import main; main()"
        options = [word for key, value in overrides.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-c", program, "train", "recipes/train/quickstart.toml", *options]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    for rows, number, code in ((15, signal.SIGKILL, -signal.SIGKILL), (35, signal.SIGINT, 130)):
        process = start(tmp_path / "cut")
        metrics = tmp_path / "cut" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < rows:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait() == code
    assert start(tmp_path / "cut").wait() == 0
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]

    ours = bluejay.load(tmp_path / "whole" / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "model")
    tokens = torch.tensor([ours.tokenizer.encode(Path(__file__).read_text())[:512]])
    with torch.no_grad():
        assert (ours.gpt(tokens) - theirs(tokens).logits).abs().max() < 1e-4


def test_adapters_teach_camel_case_in_the_median_of_five_seeds(corpus, tmp_path):
    """The figure of docs/training.md: 98 to 100 of 100 by seed."""
    monkey = pytest.MonkeyPatch()
    monkey.chdir(ROOT)
    base = TrainRecipe, ROOT / "recipes/train/quickstart.toml"
    shards = f'[{{ shards = "{corpus}/tokens/train" }}]'
    data = ["--data.train", shards, "--data.valid", f"{corpus}/tokens/valid"]
    quickstart = train(load(*base, [*data, "--output", str(tmp_path / "quickstart")])).model
    held_out = pairs_of(ROOT / "recipes/train/camel-case-valid.jsonl")
    right = []
    for seed in (1, 2, 3, 4, 5):
        overrides = ["--init", str(quickstart), "--seed", str(seed), "--output", str(tmp_path / str(seed))]
        model = bluejay.load(train(load(TrainRecipe, ROOT / "recipes/train/camel-case.toml", overrides)).model)
        texts = model.generate([prompt for prompt, _ in held_out], max_tokens=12, temperature=0)
        answers = [text.split("\n")[0].strip() for [text] in texts]
        right.append(sum(answer == wanted.strip() for answer, (_, wanted) in zip(answers, held_out, strict=True)))
    monkey.undo()
    assert statistics.median(right) >= 95 and min(right) >= 85, right


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_conversations_teach_smollm2_a_manner(seed, tmp_path):
    """The figures of docs/training.md, on the 18 questions that no answer in the manner precedes."""
    overrides = ["--init", str(smollm2.file()), "--seed", seed, "--output", str(tmp_path / "chat")]
    with pytest.MonkeyPatch.context() as monkey:
        monkey.chdir(ROOT)
        train(load(TrainRecipe, ROOT / "recipes/train/chat.toml", overrides))
        before, after = compare(tmp_path / "chat", [], show=18, max_tokens=64).answers
    in_manner = re.compile(r"In short: .+\n\nFor example: .+")
    assert [text for text in before.texts if in_manner.match(text)] == []
    assert sum(in_manner.match(text) is not None for text in after.texts) >= 16
    assert after.held_out.nats_per_token < 0.75 * before.held_out.nats_per_token
