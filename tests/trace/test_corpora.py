"""A model finds what it was trained on: its corpus, its examples, and those of the model it began from."""

import dataclasses
import shutil

import pytest

from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.tokenizer import Tokenizer
from bluejay.trace.corpora import open_tracer
from bluejay.trace.indexing import index
from bluejay.trace.tracing import TraceSettings
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.recipe import Mixture, TrainRecipe
from tests.trace.conftest import ANSWER

SETTINGS = TraceSettings(min_tokens=6)


def read_by(root):
    """What each step of the base's run read."""
    recipe = recipes.load(TrainRecipe, root / "runs" / "base" / "recipe.toml")
    shards = (Mixture(str(root / "data" / "c" / "tokens" / "train")),)
    data = dataclasses.replace(recipe.data, train=shards)
    sources = open_sources(data, Tokenizer.load(root / "data" / "c"))
    batches = Batches(sources, shards, recipe.batch_rows, recipe.seed, recipe.steps)
    for step in range(recipe.steps):
        batch = batches.batch(step)
        yield step + 1, [[*a, b[-1]] for a, b in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)]


def holds(row: list[int], ids: list[int]) -> bool:
    """Whether a sequence holds tokens one after another."""
    return any(row[at : at + len(ids)] == ids for at in range(len(row)))


def test_a_model_finds_its_corpus_with_licences_and_steps(moved):
    tracer = open_tracer(str(moved / "runs" / "base" / "model"))
    traced = tracer.trace("so, cat number 7 sat at last", SETTINGS)
    [span] = traced.spans[:1]
    assert "at number 7 sat" in span.text and span.count == 3 and span.n_documents == 1
    [document] = span.documents
    assert (document.licence, document.source, document.split) == ("MIT", "source 7", "train")
    assert document.url == "https://example.org/7" and document.occurrences == 3
    ids = tracer.tokenizer.encode(span.text)
    assert document.steps == [step for step, rows in read_by(moved) if any(holds(row, ids) for row in rows)] != []
    assert traced.text[span.start_char : span.end_char] == span.text
    assert traced.notes == []


def test_a_licence_that_is_not_known_is_unknown_and_held_out_text_is_not_read(moved):
    tracer = open_tracer(str(moved / "runs" / "base"))
    [document] = tracer.trace("number 3 sat on the mat 9 times, said", SETTINGS).spans[0].documents
    assert (document.licence, document.url) == ("unknown", "")
    [document] = tracer.trace("number 29 sat on the mat 841 times", SETTINGS).spans[0].documents
    assert (document.split, document.steps, document.steps_in_part) == ("valid", [], [])


def test_fine_tuning_examples_and_the_corpus_of_the_base_are_traced(moved):
    tracer = open_tracer(str(moved / "runs" / "tuned" / "model"))
    traced = tracer.trace(f"what? {ANSWER} 17 and number 7 sat on the mat 49", SETTINGS)
    found = {document.source: document for span in traced.spans for document in span.documents}
    answer, text = found["pairs.jsonl"], found["source 7"]
    assert answer.component == "examples" and answer.licence == "unknown" and "pairs.jsonl#" in answer.url
    assert len(answer.steps or ()) == 2 and text.component == "all" and text.steps


def test_examples_that_were_changed_since_are_not_traced(moved):
    (moved / "pairs.jsonl").write_text(
        '{"prompt": "a", "completion": " b"}\n' * 2 + '{"prompt": "c", "completion": "d"}'
    )
    tracer = open_tracer(str(moved / "runs" / "tuned"))
    assert any("was changed since" in note for note in tracer.notes)


def test_a_model_without_its_corpus_says_so_in_one_line(moved, project, capsys, monkeypatch):
    shutil.rmtree(moved / "data")
    monkeypatch.setenv("BLUEJAY_CACHE", str(moved / "nothing"))
    with pytest.raises(SystemExit, match="2"):
        main(["trace", str(moved / "runs" / "base" / "model"), "the cat"])
    [line] = capsys.readouterr().err.splitlines()
    assert "data/c/tokens/train" in line and "name its corpus with --corpus" in line
    shutil.move(moved / "runs" / "base" / "model", moved / "alone")
    with pytest.raises(ValueError, match=r"no run is beside .*alone that says what it read"):
        open_tracer(str(moved / "alone"))
    alone = open_tracer(str(moved / "alone"), [project / "data" / "c"])
    [document] = alone.trace("number 7 sat on the mat 49", SETTINGS).spans[0].documents
    assert document.steps is None and any("have no steps" in note for note in alone.notes)


def test_a_corpus_elsewhere_is_found_by_its_name_or_in_the_cache(moved, monkeypatch):
    shutil.move(moved / "data" / "c", moved / "elsewhere")
    model, text = str(moved / "runs" / "base" / "model"), "number 7 sat on the mat 49"
    monkeypatch.setenv("BLUEJAY_CACHE", str(moved / "new cache"))
    named = open_tracer(model, [moved / "elsewhere"]).trace(text, SETTINGS).spans[0].documents[0]
    index(moved / "elsewhere")
    cached = open_tracer(model).trace(text, SETTINGS).spans[0].documents[0]
    assert named.steps and named.steps == cached.steps


def test_a_corpus_without_index_says_how_to_make_one(moved):
    shutil.rmtree(moved / "data" / "c" / "index")
    with pytest.raises(ValueError, match=r"data/c has no index; run bluejay index .*data/c"):
        open_tracer(str(moved / "runs" / "base" / "model"))


def test_a_corpus_of_another_tokenizer_is_refused(moved, corpus):
    index(corpus(moved / "other", {"train": [[1, 2, 3]]}))
    Tokenizer.train(["a dog a dog a dog"], 259).save(moved / "other")
    with pytest.raises(ValueError, match="was made with another tokenizer than the model's"):
        open_tracer(str(moved / "runs" / "base" / "model"), [moved / "other"])
