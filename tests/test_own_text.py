"""One command makes a model of a text, and the text that it is measured on was not trained on."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import bluejay
from bluejay import own_text
from bluejay import recipe as recipes
from bluejay.cli import main
from bluejay.gpt.formats.layouts import save_model
from bluejay.machine import processor
from bluejay.own_text import corpus, sizes
from bluejay.pile.recipe import PileRecipe
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard, TokenWriter
from bluejay.train.checkpoint.owner import owned
from bluejay.train.data.held_out import HeldOutLoss
from bluejay.train.recipe import TrainRecipe
from bluejay.train.report.runs import read_run
from tests.pile.sources.formats.office.files import opendocument
from tests.pile.sources.io.test_open import forbid
from tests.pile.sources.test_folder import corpus_of, texts_of
from tests.pile.steps.test_hold_out import prose

MINUTES = "0.05"


@pytest.fixture(scope="module")
def book() -> str:
    return prose(200_000, 1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sizes, "SIZES", sizes.SIZES[:1])
    return tmp_path


def test_one_file_becomes_a_model_that_speaks(book, here, capsys):
    Path("my book.txt").write_text(book)
    main(["train", "my book.txt", "--minutes", MINUTES])
    said = capsys.readouterr()
    assert "kB of valid text was cut out of 1 training document;" in said.err
    assert "the time left is that of one of two parts; the first is about 60% of the run" in said.err
    assert "bits for each byte of the held-out text" in said.out and "xz -9" in said.out
    assert 'bluejay generate runs/my-book/model "..."' in said.out
    model = bluejay.load("runs/my-book/model")
    assert model.generate("1.", max_tokens=5)[0]
    recipe = recipes.load(TrainRecipe, Path("runs/my-book/train.toml"))
    assert recipe.train.schedule.kind == "wsd" and recipe.train.schedule.cooldown_step(recipe.steps) < recipe.steps
    # By content: no line of the held-out documents, and none of their shard, is in the training shard.
    tokenizer = Tokenizer.load("data/my-book")
    shards = [TokenShard(f"data/my-book/tokens/{split}").tokens.tolist() for split in ("train", "valid")]
    train, valid = ({line for line in tokenizer.decode(ids).splitlines() if len(line) > 20} for ids in shards)
    assert train and valid and not train & valid and train | valid <= {*book.splitlines(), *train, *valid}
    assert sum(map(len, valid)) > 50_000


def check_card(run: str, capsys) -> None:
    """The figures of a run's card are those of its records."""
    main(["card", run, "--watts", "36", "--licence", "mit"])
    card = Path(capsys.readouterr().out.strip()).read_text()
    result = json.loads(Path(run, "result.json").read_text())
    seconds = read_run(Path(run)).seconds
    assert f"about {seconds / 1e5:.3g} kWh at 36 W" in card and processor() in card and "license: mit" in card
    assert f"| all | {result['held_out']['bits_per_byte']:.3f} |" in card
    assert f"bluejay eval {run}" in card and f"bluejay trace report {run}" in card
    assert f"bluejay lens {run} --heads --output {run}/heads.json" in card
    assert card.count(Path(run, "recipe.toml").read_text()) == 1
    figures = {"acc": {"value": 0.25, "low": 0.1, "high": 0.4, "n": 40}}
    results = [{"task": "t", "model": "a", "metric": "acc", "chance": 0.5, "figures": figures}]
    report = {"command": "bluejay eval", "results": results, "not_run": {"u": "there is no network"}}
    Path("e").mkdir()
    Path("e/report.json").write_text(json.dumps(report))
    main(["card", run, "--evaluation", "e"])
    card = Path(capsys.readouterr().out.strip()).read_text()
    assert "| t | a | acc | 0.25 | 0.1 to 0.4 | 40 | 0.5 |" in card and "u was not run: there is no network" in card
    assert "license: mit" in card
    for wrong, says in (({"results": [{}]}, "is not a report"), ([], "is not a report")):
        Path("e/report.json").write_text(json.dumps(wrong))
        refused(["card", run, "--evaluation", "e"], says, capsys)
    results[0]["model"] = "b"
    Path("e/report.json").write_text(json.dumps(report))
    refused(["card", run, "--evaluation", "e"], "has figures of b, and none of a", capsys)
    refused(["card", run, "--memorisation", "e"], "is not a report", capsys)
    refused(["card", run, "--evaluation", "nowhere"], "nowhere", capsys)
    scores = {"induction": [[0.1, 0.2], [0.9, 0.3]], "previous_token": [[0.1, 0.7], [0.2, 0.3]]}
    heads = {"steps": ["step-9", "model"], "losses": [None, 2.0], "repeat_gain": [0.0, 1.5], "scores": [scores, scores]}
    for wrong in ({"induction": []}, {**heads, "steps": []}, []):
        Path(run, "heads.json").write_text(json.dumps(wrong))
        refused(["card", run], "is not what `bluejay lens", capsys)
    Path(run, "heads.json").write_text(json.dumps(heads))
    main(["card", run])
    assert "| model | 2.00 | 1.50 | 1.0, 0.90 | 0.1, 0.70 |" in Path(capsys.readouterr().out.strip()).read_text()


def refused(arguments: list[str], says: str, capsys) -> None:
    """The command ends with one sentence."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1 and says in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["corpus"], "is not the recipe of a run"),
        (["empty"], "empty is not the folder of a run: it holds no recipe.toml"),
        (["nothing"], "nothing is not the folder of a run"),
        (["corpus", "--watts", "x"], "--watts"),
    ],
)
def test_a_card_of_no_run_is_refused_in_one_sentence(arguments, says, here, capsys):
    Path("empty").mkdir()
    Path("corpus").mkdir()
    Path("corpus/recipe.toml").write_text('name = "c"\n')
    refused(["card", *arguments], says, capsys)


@pytest.mark.slow
def test_a_machine_that_needs_all_the_minutes_for_the_text_trains_all_the_same(book, here, capsys):
    Path("a.txt").write_text(book)
    main(["train", "a.txt", "--minutes", "0.0001"])
    said = capsys.readouterr()
    assert said.err.count("preparing the text took") == 1 and "training takes" in said.err
    assert "xz -9" in said.out and bluejay.load("runs/a/model").generate("1.", max_tokens=2)
    assert recipes.load(TrainRecipe, Path("runs/a/train.toml")).steps >= sizes.LEAST_STEPS / 2


def test_the_same_command_again_goes_on_and_other_text_is_refused(book, here, capsys):
    Path("a.txt").write_text(book)
    main(["train", "a.txt", "--minutes", MINUTES, "--json"])
    first = json.loads(capsys.readouterr().out)
    before = Path("runs/a/model/model.safetensors").read_bytes()
    main(["train", "a.txt", "--minutes", MINUTES, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again["trained"] == first["trained"] and Path("runs/a/model/model.safetensors").read_bytes() == before
    Path("runs/a/model/tuned_lens.safetensors").write_bytes(b"a lens")
    check_card("runs/a", capsys)
    main(["train", "a.txt", "--minutes", MINUTES, "--json"])
    assert "renamed" not in capsys.readouterr().err and Path("runs/a/model/README.md").is_file()
    Path("runs/a").rename("runs/moved")
    main(["train", "a.txt", "--minutes", MINUTES, "--json", "--name", "moved"])
    assert json.loads(capsys.readouterr().out)["trained"]["model"] == "runs/moved/model"
    assert not Path("runs/a").exists()
    Path("runs/moved").rename("runs/a")
    Path("b.txt").write_text(prose(200_000, 2))
    with pytest.raises(SystemExit):
        main(["train", "b.txt", "--minutes", MINUTES, "--name", "a"])
    assert "runs/a holds a run of another text" in capsys.readouterr().err
    shutil.copytree("data/a", "data/c")
    refused(["train", "data/c", "--name", "a"], "runs/a holds a run of another text", capsys)
    Path("runs/a/train.toml").unlink()
    tokens = Path("data/a/tokens/train.bin").read_bytes()
    for text in ("a.txt", "data/a"):
        refused(["train", text], "runs/a holds a run already; give this one a --name", capsys)
    force = ["train", "b.txt", "--minutes", "0.0001", "--name", "a", "--force"]
    with owned(Path("runs/a")):
        refused(force, "runs/a is in use by", capsys)
    assert Path("runs/a/model/model.safetensors").read_bytes() == before
    assert Path("data/a/tokens/train.bin").read_bytes() == tokens
    main(force)
    assert Path("runs/a/model/model.safetensors").read_bytes() != before
    assert Path("data/a/tokens/train.bin").read_bytes() != tokens
    capsys.readouterr()
    main([*force[:-1], "--json"])
    said = capsys.readouterr()
    assert "continues with runs/a/train.toml" in said.err and json.loads(said.out)["trained"]["model"] == "runs/a/model"


def test_too_little_memory_for_a_trial_is_one_sentence(here, monkeypatch):
    def no_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(sizes, "Run", no_memory)
    recipe = sizes.training_recipe(Path("none"), "a", None, 2, 64, 1_000_000)
    with pytest.raises(ValueError, match="the device has too little memory"):
        sizes.speed_of(recipe, 1.0)


def test_a_folder_that_cannot_be_read_is_said_before_anything_is_written(here, monkeypatch):
    for name in ("notes/a/b.txt", "notes/.c/d.txt"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text("text")
    forbid(monkeypatch, here / "notes/.c")
    assert corpus.corpus_recipe_of(Path("notes"), Path("runs/notes"), "notes", None)
    forbid(monkeypatch, here / "notes/a")
    with pytest.raises(ValueError, match="notes/a cannot be read: Permission denied"):
        corpus.corpus_recipe_of(Path("notes"), Path("runs/notes"), "notes", None)


def test_a_text_that_is_none_or_too_little_is_said_and_leaves_no_run(here, byte_tokenizer, capsys):
    Path("a.txt").write_bytes(os.urandom(3000))
    refused(["train", "a.txt"], "component a has no documents", capsys)
    assert not Path("runs").exists()
    with TokenWriter(Path("tokens/train"), byte_tokenizer.vocab_size) as writer:
        writer.add([1] * 300)
    with pytest.raises(ValueError, match="the text gives 300 tokens, too few to train on; give more text, and --force"):
        sizes.sized(Path(), Path("runs/b"), "b", None, 60.0)


def test_hidden_files_are_no_part_of_a_text(here, byte_tokenizer_folder):
    folder = here / ".notes"
    for name in ("a.txt", "deep/b.txt", ".env", ".venv/lib/c.py", "deep/.ipynb_checkpoints/d.txt", "deep/.e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")
    assert sorted(texts_of(folder, byte_tokenizer_folder)) == ["text of a.txt", "text of deep/b.txt"]


def test_a_run_knows_its_folder_again_whatever_else_is_left_out_of_it(here):
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("text")
    path = corpus.write_corpus_recipe(Path("notes"), Path("runs/notes"), None, False)
    values = recipes.plain(recipes.load(PileRecipe, path))
    values["component"][0]["source"][0] |= {"exclude": [], "max_bytes": 10**9}  # as they once were
    recipes.save(recipes.check(PileRecipe, values, "test"), path)
    before = path.read_bytes()
    assert corpus.write_corpus_recipe(Path("notes"), Path("runs/notes"), None, False).read_bytes() == before


@pytest.mark.slow
def test_a_run_within_the_folder_of_its_text_does_not_read_itself(book, here, byte_tokenizer_folder, capsys):
    Path("a.txt").write_text(book)
    Path("b.png").write_bytes(bytes(10))
    main(["train", ".", "--name", "me [1]", "--minutes", "0.0001"])
    assert "left out: 1; data/me-1/documents/skipped.parquet lists them\n  1, b.png: binary" in capsys.readouterr().err
    model = Path("runs/me [1]/model/model.safetensors").read_bytes()
    Path("data/me-1.partial").mkdir()
    Path("data/me-1.partial/left.json").write_text("{}")  # by a build that was killed
    main(["train", ".", "--name", "me [1]", "--minutes", "0.0001"])
    assert "is built from this recipe already" in capsys.readouterr().err
    assert Path("runs/me [1]/model/model.safetensors").read_bytes() == model
    for split in ("train", "valid"):
        urls = pq.read_table(f"data/me-1/documents/{split}.parquet")["url"].to_pylist()
        assert {url.partition("#")[0] for url in urls} == {str(here / "a.txt")}


def test_what_was_left_out_of_a_text_is_said(here, byte_tokenizer_folder, capsys, monkeypatch):
    Path("notes").mkdir()
    table, binary = opendocument("", kind="spreadsheet"), bytes(10)
    for name, content in {"a.txt": b"text", "b.png": binary, "c.png": binary, "d.txt": b" ", "e.ods": table}.items():
        Path("notes", name).write_bytes(content)
    built = corpus_of(Path("notes"), byte_tokenizer_folder)
    capsys.readouterr()
    corpus.say_skipped(built)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "files or records that were left out: 4; data/notes/documents/skipped.parquet lists them"
    assert said[1] == "  2 such as b.png: binary"
    assert sorted(said[2:]) == ["  1, d.txt: empty", "  1, e.ods: a spreadsheet; save it as CSV"]
    monkeypatch.setattr(corpus, "MOST_REASONS", 1)
    corpus.say_skipped(built)
    assert capsys.readouterr().err.splitlines()[1:] == ["  2 such as b.png: binary", "  2 for other reasons"]


def test_a_table_without_texts_is_told_how_it_is_learnt(here, capsys):
    Path("my chats.jsonl").write_text('{"messages": []}\n' * 9)
    says = "has no field text: it has messages; `bluejay new FOLDER 'my chats.jsonl'` writes a recipe, in whose source"
    refused(["train", "my chats.jsonl"], says, capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "."], "holds .json files, and what finds them would take those that are written to"),
        (["train", "data/notes"], "data/notes is where the results would be written; choose another name"),
        (["new", "mine", "."], "start the command in a folder outside the text's"),
    ],
)
def test_what_would_read_its_own_files_is_refused_before_any_is_written(arguments, says, here, capsys):
    Path("data/notes").mkdir(parents=True)
    Path("data/notes/a.json").write_text('{"text": "a"}')
    refused(arguments, says, capsys)
    assert sorted(here.rglob("*")) == [here / "data", here / "data/notes", here / "data/notes/a.json"]


def test_new_without_a_text_waits_for_one_in_its_folder(book, here, capsys):
    main(["new", "mine"])
    said = capsys.readouterr().out
    assert said.startswith("put text files into mine/text, edit mine/pile.toml and mine/train.toml, then: ")
    Path("mine/text/book.txt").write_text(book)
    main(["pile", "build", "mine/pile.toml"])
    assert recipes.load(TrainRecipe, Path("mine/train.toml")).data.held_out == "data/mine/tokens/valid"
    assert len(TokenShard("data/mine/tokens/train").tokens) > 10_000


def test_the_name_and_the_folder_of_a_run_may_be_numbers(here, monkeypatch):
    asked = []
    monkeypatch.setattr(corpus, "write_corpus_recipe", lambda *given: asked.append(given) or Path("none.toml"))
    Path("a.txt").write_text("text")
    for option in ("--name", "--output"):
        with pytest.raises(FileNotFoundError, match=r"none\.toml"):
            own_text.train_text(Path("a.txt"), 1.0, False, [option, "2024"], 0.0)
    assert [directory for _, directory, *_ in asked] == [Path("runs/2024"), Path("2024")]


def test_new_writes_two_recipes_that_load(book, here, capsys, file_size_limit):
    Path("text.txt").write_text(book)
    with file_size_limit(800), pytest.raises(OSError, match="File too large"):
        own_text.new(Path("mine"), Path("text.txt"))
    main(["new", "mine", "text.txt"])
    assert "bluejay pile build mine/pile.toml && bluejay train mine/train.toml" in capsys.readouterr().out
    recipes.load(PileRecipe, Path("mine/pile.toml"))
    assert recipes.load(TrainRecipe, Path("mine/train.toml")).data.held_out == "data/mine/tokens/valid"
    with pytest.raises(ValueError, match=r"mine/pile\.toml is there already"):
        own_text.new(Path("mine"), Path("text.txt"))


@pytest.mark.parametrize("tokens_per_second", [1, 30, 300, 100_000])
def test_a_model_is_trained_further_however_slow_the_machine_is(tokens_per_second, book, here, tiny_model, monkeypatch):
    """The learning rate rises first, if only for a step: in the recipe of the first part and in that of the whole."""
    Path("book.txt").write_text(book)
    save_model(tiny_model.gpt, tiny_model.tokenizer, here / "base")
    recipe = corpus.write_corpus_recipe(Path("book.txt"), Path("runs/book"), "base", False)
    built = corpus.build(recipes.load(PileRecipe, recipe)).directory
    monkeypatch.setattr(sizes, "speed_of", lambda recipe, seconds: tokens_per_second)
    first = sizes.sized(built, Path("runs/book"), "book", "base", 60.0)
    trained = sizes.Trained(Path("model"), first.steps, 60.0, HeldOutLoss(1.0, 1.0, {}))
    for part in (first, sizes.with_cooldown(first, trained, built, 20.0)):
        assert 1 <= part.train.schedule.warmup * part.steps <= max(2, 0.04 * part.steps)
        recipes.save(part, Path("part.toml"))
        assert recipes.load(TrainRecipe, Path("part.toml")) == part


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "none.txt"], "no recipe at none.txt, and no text: there is no such file or folder"),
        (["new", "small.txt"], "small.txt is a file; name a folder first: bluejay new FOLDER small.txt"),
        (["new", "small.txt", "a b"], "name a folder first: bluejay new FOLDER 'a b'"),
        (["card", "small.txt"], "small.txt is not the folder of a run: it is a file; name one run"),
        (["train", "small.txt", "--output", "small.txt"], "small.txt is a file; name a folder"),
        (["recipes", "train/quickstart", "--to", "small.txt"], "small.txt is a file; name a folder"),
        (["new", "mine", "none.txt"], "there is no such file or folder"),
        (["train", "empty"], "empty holds no files"),
        (["train", "small.txt", "--train.tokens", "8192"], "--train.tokens needs a run of a known length"),
        (["train", "small.txt", "--train.schedule.warmup", "0.8"], "follows from --minutes"),
        (["train", "small.txt", "--data.train", "[{shards='x', changes=[[0.5, 2]]}]"], "--data.train needs"),
        (["train", "small.txt", "--checkpoint.at", "[0.5]"], "--checkpoint.at needs a run of a known length"),
        (["train", "small.txt", "--checkpoint", "{at = [0.5]}"], "--checkpoint needs a run of a known length"),
        (["train", "small.txt", "--export", "5"], "--export and --profile are for a recipe"),
        (["train", "small.txt", "--profile"], "a run on a text has one in RUN/train.toml"),
        (["train", "recipes/train/quickstart.toml", "--minutes", "5"], "--minutes and --force are for a text"),
        (["train", "recipes/train/quickstart.toml", "--force"], "train.tokens is the length of a recipe's run"),
        (["train", "recipes/train/quickstart.toml", "--export", "5", "--profile"], "give one of the two"),
        (["train", "run"], "run is the folder of a run; bluejay train run/recipe.toml --output run goes on with it"),
        (["card", "run"], "run is not a finished run; bluejay train run/recipe.toml --output run goes on with it"),
        (["train", "small.txt", "--minutes", "-1"], "minutes is -1.0; it must be a number above 0"),
        (["train", "small.txt", "--minutes", "inf"], "minutes is inf; it must be a number above 0"),
        (["train", "small.txt", "--minutes", "nan"], "minutes is nan; it must be a number above 0"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, says, here, capsys):
    (here / "empty").mkdir()
    (here / "small.txt").write_text("x")
    (here / "run").mkdir()
    (here / "run/recipe.toml").write_text("train = { tokens = 8, batch_tokens = 8 }\n")
    (here / "run/checkpoints").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 elsewhere")
def test_a_name_that_no_recipe_can_hold_is_one_sentence(here, capsys):
    name = os.fsdecode(b"caf\xe9.txt")
    Path(name).write_text("text")
    refused(["train", name], "is not UTF-8, which a recipe cannot hold; rename the file\n", capsys)
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0.5, 1.5])
def test_a_run_takes_about_the_minutes_that_it_was_given(minutes, here, monkeypatch):
    """Other work may make the machine slower or faster meanwhile. What that did to the first part, the second makes up
    for, unless no time is left; the second counts with the seconds that it takes at the speed of the first."""
    monkeypatch.undo()
    monkeypatch.chdir(here)
    Path("text.txt").write_text(prose(1_000_000, 3))
    train, ends = own_text.train, []

    def train_and_note(recipe, **options):
        trained = train(recipe, **options)
        ends.append((time.monotonic() - began, trained.steps * recipe.train.batch_tokens, trained.seconds))
        return trained

    monkeypatch.setattr(own_text, "train", train_and_note)
    began = time.monotonic()
    own_text.train_text(Path("text.txt"), minutes, False, [], began)
    (first_end, first_tokens, first_seconds), (_, tokens, seconds) = ends
    expected = time.monotonic() - began - seconds + first_seconds * tokens / first_tokens
    assert 0.8 * 60 * minutes < expected < 1.2 * max(60 * minutes, first_end)
