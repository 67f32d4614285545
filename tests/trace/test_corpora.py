"""A model finds what it was trained on: its corpus, its examples, and those of the model it began from."""

import dataclasses
import shutil

import pytest

from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import PRESETS, sized
from bluejay.tokenizer import Tokenizer
from bluejay.trace.corpora import open_tracer
from bluejay.trace.indexing import index
from bluejay.trace.report.drawing import Reading
from bluejay.trace.tracing import TraceSettings
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.loop import train
from bluejay.train.recipe import Data, Mixture, Train, TrainRecipe
from bluejay.train.schedule import Schedule
from tests.trace.conftest import ANSWER, TEXTS, write_corpus

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
    (moved / "alone" / "trained_on.json").unlink()  # as a model that others made
    with pytest.raises(ValueError, match=r"no run is beside .*alone that says what it read"):
        open_tracer(str(moved / "alone"))
    alone = open_tracer(str(moved / "alone"), [project / "data" / "c"])
    [document] = alone.trace("number 7 sat on the mat 49", SETTINGS).spans[0].documents
    assert document.steps is None and any("have no steps" in note for note in alone.notes)


def test_a_corpus_that_was_built_anew_is_not_called_missing(moved, corpus, byte_tokenizer):
    model, built = str(moved / "runs" / "base" / "model"), moved / "data" / "c"
    shutil.rmtree(built)
    index(corpus(built, {"train": [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS[:5]]}))
    byte_tokenizer.save(built)
    with pytest.raises(ValueError, match=r"data/c is not as the run in .* read it; --corpus .*data/c traces in it"):
        open_tracer(model)
    tracer = open_tracer(model, [built])
    [document] = tracer.trace("number 3 sat on the mat 9", SETTINGS).spans[0].documents
    assert document.steps is None and tracer.notes[0].endswith("read it")


def test_a_corpus_elsewhere_is_found_by_its_name_or_in_the_cache(moved, monkeypatch):
    shutil.move(moved / "data" / "c", moved / "elsewhere")
    model, text = str(moved / "runs" / "base" / "model"), "number 7 sat on the mat 49"
    monkeypatch.setenv("BLUEJAY_CACHE", str(moved / "new cache"))
    named = open_tracer(model, [moved / "elsewhere"]).trace(text, SETTINGS).spans[0].documents[0]
    index(moved / "elsewhere")
    cached = open_tracer(model).trace(text, SETTINGS).spans[0].documents[0]
    assert named.steps and named.steps == cached.steps


def test_a_corpus_without_index_says_how_to_make_one(moved):
    corpus = (moved / "data" / "c").rename(moved / "my corpus")
    shutil.rmtree(corpus / "index")
    with pytest.raises(ValueError, match=r"my corpus has no index; run bluejay index '.*/my corpus'$"):
        open_tracer(str(moved / "runs" / "base" / "model"), [corpus])


@pytest.mark.parametrize("target", ["runs/base/model", "data/c"])
def test_a_corpus_of_another_tokenizer_is_refused(moved, corpus, target):
    index(corpus(moved / "other", {"train": [[1, 2, 3]]}))
    Tokenizer.train(["a dog a dog a dog"], 259).save(moved / "other")
    with pytest.raises(ValueError, match="was made with another tokenizer than the model or corpus that was named"):
        open_tracer(str(moved / target), [moved / "other"])


@pytest.fixture
def again(moved, monkeypatch):
    """A run that went on from the base with the base's own corpus."""
    monkeypatch.chdir(moved)
    data = Data((Mixture("data/c/tokens/train"),), sequence_length=64)
    settings = Train(tokens=64 * 4 * 3, batch_tokens=256, lr=1e-3, schedule=Schedule(warmup=0.4))
    train(TrainRecipe("again", data, settings, init="runs/base/model"))
    return moved / "runs" / "again"


def test_a_corpus_that_was_read_twice_is_counted_once(again, moved):
    text = "so, cat number 7 sat at last"
    once, twice = open_tracer(str(moved / "data" / "c")), open_tracer(str(again))
    assert twice.n_tokens == once.n_tokens and twice.infinigram(twice.ids(text)) == once.infinigram(once.ids(text))
    assert twice.next_tokens(twice.ids(text)) == once.next_tokens(once.ids(text))
    [span], [found] = (tracer.trace(text, SETTINGS).spans[:1] for tracer in (once, twice))
    assert (found.count, found.n_documents) == (span.count, span.n_documents) == (3, 1)
    assert [document.near_copies for document in found.documents] == [[]]
    own, found = 0, open_tracer("runs/base")
    for number in range(28):  # the run's own steps, else those of its base
        text = f"number {number} sat on the mat {number * number} times"
        [last], [base] = (tracer.trace(text, SETTINGS).spans[0].documents for tracer in (twice, found))
        read = last.steps or last.steps_in_part
        own += max(read) <= 3
        assert max(read) <= 3 or (last.steps, last.steps_in_part) == (base.steps, base.steps_in_part)
    assert 0 < own < 28
    reading = Reading(str(again), [])
    assert min(reading.counts(reading.drawn_read(5, 40, seed=1), 40)) >= 1
    assert reading.tracer.n_tokens == found.searchers[0].tokens_in("train")


@pytest.mark.parametrize("target", ["data/c", "runs/base/model"])
def test_a_corpus_that_is_named_again_is_one_source(moved, monkeypatch, target):
    monkeypatch.chdir(moved)
    (moved / "link").symlink_to(moved / "data" / "c")
    tracer = open_tracer(target, [moved / "data" / "c", moved / "link", moved / "link"])
    assert len(tracer.sources) == 1 and tracer.notes == []


def test_the_tokenizer_of_a_gguf_file_is_the_files_own(moved, tmp_path, byte_tokenizer):
    small = sized(PRESETS["gpt2"], 1, 32, 2, vocab_size=259, n_ctx=64)
    save_model(new_model(small, 0), byte_tokenizer, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf")
    tracer = open_tracer(str(tmp_path / "model.gguf"), [moved / "data" / "c"])
    text = "number 7 sat on the mat 49"
    known = open_tracer(str(moved / "data" / "c")).trace(text)
    assert [span.count for span in tracer.trace(text).spans] == [span.count for span in known.spans] != []
    Tokenizer.train(["a dog a dog a dog"], 259).save(moved / "data" / "c")
    with pytest.raises(ValueError, match="was made with another tokenizer than the model"):
        open_tracer(str(tmp_path / "model.gguf"), [moved / "data" / "c"])


def test_a_model_that_was_copied_alone_names_its_corpus_and_the_steps(moved, tmp_path):
    model, text = moved / "runs" / "base" / "model", "number 7 sat on the mat 49"
    expected = open_tracer(str(model)).trace(text, SETTINGS).spans[0].documents[0]
    shutil.copytree(model, tmp_path / "far" / "copy")
    main(["convert", str(tmp_path / "far" / "copy"), str(tmp_path / "far" / "bfloat16"), "--dtype", "bfloat16"])
    for name in ("copy", "bfloat16"):
        alone = open_tracer(str(tmp_path / "far" / name), [moved / "data" / "c"])
        assert alone.trace(text, SETTINGS).spans[0].documents[0].steps == expected.steps != []
        with pytest.raises(ValueError, match=r"data/c/tokens/train, which the run in .* read, is not found"):
            open_tracer(str(tmp_path / "far" / name))


def test_a_fine_tuned_model_that_was_copied_alone_names_the_corpus_of_its_base(moved, tmp_path):
    shutil.copytree(moved / "runs" / "tuned" / "model", tmp_path / "far" / "tuned")
    alone = open_tracer(str(tmp_path / "far" / "tuned"), [moved / "data" / "c"])
    [document] = alone.trace("number 7 sat on the mat 49", SETTINGS).spans[0].documents
    assert document.steps and any("pairs.jsonl" in note for note in alone.notes)


@pytest.mark.parametrize("harm", ["{", '{"step": 3}', '{"step": "x", "recipe": {}}'], ids=["cut", "short", "wrong"])
def test_a_damaged_record_of_a_model_is_said_in_one_line(moved, tmp_path, capsys, harm):
    shutil.copytree(moved / "runs" / "base" / "model", tmp_path / "far" / "copy")
    (tmp_path / "far" / "copy" / "trained_on.json").write_text(harm)
    with pytest.raises(SystemExit, match="2"):
        main(["trace", str(tmp_path / "far" / "copy"), "the cat"])
    [line] = capsys.readouterr().err.splitlines()
    assert "trained_on.json" in line


@pytest.fixture
def in_pieces(tmp_path, byte_tokenizer, monkeypatch):
    """A run that read a set of three token shards of two corpora."""
    monkeypatch.chdir(tmp_path)
    ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS]
    pieces = {"a": {"part-0": ids[:9], "part-1": ids[9:20], "valid": ids[28:]}, "b": {"more": ids[20:28]}}
    for name, shards in pieces.items():
        index(write_corpus(tmp_path / name, shards))
        byte_tokenizer.save(tmp_path / name)
    data = Data((Mixture(("a/tokens/part-*", "b/tokens/more")),), valid="a/tokens/valid", sequence_length=64)
    settings = Train(tokens=64 * 4 * 8, batch_tokens=256, lr=1e-3)
    train(TrainRecipe("pieces", data, settings, {"n_layer": 1, "d_model": 16, "n_head": 1}))
    return tmp_path / "runs" / "pieces"


def test_a_set_of_many_shards_is_traced_in_each_with_its_steps(in_pieces):
    tracer = open_tracer(str(in_pieces))
    recipe = recipes.load(TrainRecipe, in_pieces / "recipe.toml")
    batches = Batches(open_sources(recipe.data, tracer.tokenizer), recipe.data.train, 4, recipe.seed, recipe.steps)
    rows = []
    for step in range(recipe.steps):
        batch = batches.batch(step)
        pairs = zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
        rows.append((step + 1, [[*a, b[-1]] for a, b in pairs]))
    found = {}
    for number in range(28):
        text = f"number {number} sat on the mat {number * number} times, said the {number}th"
        [document] = tracer.trace(text, TraceSettings(min_tokens=20)).spans[0].documents
        ids = tracer.tokenizer.encode(text)
        assert document.steps == [step for step, some in rows if any(holds(row, ids) for row in some)]
        found.setdefault(document.split, []).extend(document.steps)
    assert set(found) == {"part-0", "part-1", "more"} and all(found.values()) and tracer.notes == []


def test_a_changed_shard_among_many_is_not_traced(in_pieces, byte_tokenizer):
    corpus = in_pieces.parents[1] / "b"
    shutil.rmtree(corpus)
    index(write_corpus(corpus, {"more": [[*byte_tokenizer.encode("another text"), byte_tokenizer.eot]]}))
    byte_tokenizer.save(corpus)
    with pytest.raises(ValueError, match="a/tokens/part-0 and 2 more were changed since"):
        open_tracer(str(in_pieces))


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"], ["x", "y"], ["y", "x"]], ids="".join)
def test_shards_of_one_name_are_found_in_corpora_that_were_moved(tmp_path, byte_tokenizer, monkeypatch, order):
    monkeypatch.chdir(tmp_path)
    ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS]
    for name, documents in (("a", ids[:12]), ("b", ids[12:28])):
        index(write_corpus(tmp_path / name, {"train": documents, "valid": ids[28:]}))
        byte_tokenizer.save(tmp_path / name)
    data = Data((Mixture(("a/tokens/train", "b/tokens/train")),), valid="a/tokens/valid", sequence_length=64)
    settings = Train(tokens=64 * 4 * 2, batch_tokens=256, lr=1e-3)
    train(TrainRecipe("both", data, settings, {"n_layer": 1, "d_model": 16, "n_head": 1}))
    (tmp_path / "far").mkdir()
    for name in ("a", "b"):
        shutil.move(tmp_path / name, tmp_path / "far" / (name if name in order else {"a": "x", "b": "y"}[name]))
    corpora = [tmp_path / "far" / name for name in order]
    tracer = open_tracer("runs/both", corpora)
    if order == ["y", "x"]:  # with other names only their order says which is which
        assert "a/tokens/train and 1 more were changed since" in tracer.notes[0]
        return
    for number in (3, 20):
        [document] = tracer.trace(f"number {number} sat on the mat {number * number}", SETTINGS).spans[0].documents
        assert document.steps is not None and tracer.notes == []
