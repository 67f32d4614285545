"""The classifier learns from examples; the Pareto rule keeps the expected share of texts."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bluejay.cli import main
from bluejay.pile.filters import chain, quality_train
from bluejay.pile.filters.quality import BUCKETS, Classifier, quality_reasons
from bluejay.pile.filters.quality_train import train, train_from_files
from bluejay.pile.text.text_batch import TextBatch


@pytest.fixture(scope="module")
def documents() -> tuple[list[str], list[str]]:
    """Prose and source code: paragraphs of speeches, and of Python and HTML files."""
    with gzip.open(Path(__file__).parent / "verdicts.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    pieces = [text[at : at + 600] for text in texts for at in range(0, len(text) - 300, 600)]
    code = [piece for piece in pieces if "<p>" in piece or "self" in piece or "\\x" in piece]
    return [piece for piece in pieces if " the " in piece and " of " in piece and piece not in code], code


def test_the_classifier_separates_unseen_prose_from_source_code(documents) -> None:
    good, bad = ([pa.array(texts[::2])] for texts in documents)
    classifier = train(good, bad, seed=0)
    prose, code = (classifier.scores(pa.array(texts[1::2])) for texts in documents)
    assert min(len(prose), len(code)) > 50
    assert (prose > 0.5).mean() > 0.95
    assert (code < 0.5).mean() > 0.95
    assert (train(good, bad, seed=0).weights == classifier.weights).all()
    alone = [classifier.scores(pa.array([text]))[0] for text in documents[0][1:40:2]]
    assert prose[:20].tolist() == alone  # bit for bit, whatever else is in the batch


def test_a_classifier_trained_on_files_filters(documents, tmp_path: Path) -> None:
    good, bad = documents
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good))
    for row, text in enumerate(bad):
        (tmp_path / f"bad{row}.txt").write_text(text)
    path = tmp_path / "model.safetensors"
    assert train_from_files([f"{tmp_path}/good.jsonl"], [f"{tmp_path}/bad*.txt"], path) > 0.9
    texts = pa.array(good + bad)
    reasons = chain([f"quality:{path}>9"], seed=1)(texts)[1]
    assert reasons == chain([f"quality:{path}"], seed=1)(texts)[1] != chain([f"quality:{path}"], seed=2)(texts)[1]
    kept = np.array([reason is None for reason in reasons.to_pylist()])
    assert kept[: len(good)].mean() > 0.5
    assert kept[len(good) :].mean() < 0.1
    with pytest.raises(ValueError, match="no words in the bad texts"):
        train_from_files([f"{tmp_path}/good.jsonl"], [f"{tmp_path}/empty.txt"], empty(tmp_path))


@pytest.mark.parametrize(("good", "bad", "accuracy"), [(9, 90, None), (90, 9, None), (30, 90, 0.5)])
def test_the_accuracy_is_that_of_both_kinds_of_texts(good, bad, accuracy, tmp_path: Path, capsys) -> None:
    """Of texts that are all alike, half are right, whatever their numbers; texts that are not held out say nothing."""
    for name, n in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "the same words"}\n' * n)
    command = ["pile", "quality", f"{tmp_path}/m.safetensors", "--good", f"{tmp_path}/good.jsonl"]
    main([*command, "--bad", f"{tmp_path}/bad.jsonl", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["right"] == accuracy
    assert ("its accuracy is not measured" if accuracy is None else "accuracy 50.0% on 3 good and 9 bad") in printed.err


def test_what_is_not_learnt_from_is_said(tmp_path: Path, capsys, monkeypatch) -> None:
    lines = ['{"text": "some words"}', "{", '{"body": "others"}'] * 20
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(quality_train, "MAX_TEXTS", 15)
    train_from_files([f"{tmp_path}/a.jsonl"], [f"{tmp_path}/a.jsonl"], tmp_path / "m.safetensors")
    said = capsys.readouterr().err
    assert "a.jsonl: only the first 15 texts are read" in said and "a.jsonl: 30 pieces skipped; the first: " in said
    with pytest.raises(SystemExit, match="2"):
        main(["pile", "quality", str(tmp_path), "--good", "none.jsonl", "--bad", "none.jsonl"])
    assert capsys.readouterr().err == f"error: {tmp_path} is a folder; name a file\n"


def test_texts_for_the_classifier_are_those_of_tables_and_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "one"}, {"text": "two"}]')
    (tmp_path / "b.tsv").write_text("id\ttext\n1\tthree\n")
    (tmp_path / "c.txt").write_text("four")
    assert list(quality_train.texts_of([f"{tmp_path}/*"])) == ["one", "two", "three", "four"]


def empty(folder: Path) -> Path:
    (folder / "empty.txt").write_text(" ")
    return folder / "none.safetensors"


@pytest.mark.parametrize("alpha", [3.0, 9.0])
def test_the_pareto_rule_keeps_as_many_as_numpy_draws(alpha: float) -> None:
    weights = np.zeros(BUCKETS + 1, np.float32)
    draws = np.random.RandomState(0).pareto(alpha, 200_000)
    for score in (0.1, 0.5, 0.9):
        weights[-1] = np.log(score / (1 - score))
        reasons = quality_reasons(
            TextBatch([f"text {number}" for number in range(5000)]), Classifier(weights), alpha, seed=3
        )
        kept = 1 - reasons.astype(bool).mean()
        assert abs(kept - (draws > 1 - score).mean()) < 0.025


def test_a_file_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("none")
    for name, says in (
        ("other.safetensors", "is not a classifier"),
        ("text", "cannot be read"),
        ("gone", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=says):
            Classifier.load(tmp_path / name)


def test_the_training_verb_starts_in_a_fresh_process() -> None:
    subprocess.run([sys.executable, "-c", "import bluejay.pile.filters.quality_train"], check=True)
