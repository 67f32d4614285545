"""Runs are listed best first, with what their recipes do differently."""

import json

import pytest

from bluejay.cli import main
from bluejay.model_card import model_card
from bluejay.train.loop import train
from bluejay.train.report.runs import find_runs, read_run, table


@pytest.fixture
def runs(recipe_file, load_recipe, tmp_path):
    folder = tmp_path / "runs"
    short = ("--train.tokens", "1024", "--evaluate.every_steps", "4")
    train(load_recipe(recipe_file, *short, "--output", f"{folder}/slow", "--train.lr", "1e-4"))
    train(load_recipe(recipe_file, *short, "--output", f"{folder}/fast", "--seed", "7"))
    return folder


def test_the_best_run_stands_first_and_the_others_say_how_they_differ(runs, capsys):
    main(["runs", str(runs), "--picture", str(runs / "runs.png")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["run", "state"]
    assert first.split()[:3] == ["fast", "finished", "1,024"] and first.split()[-1] == "7"
    assert second.startswith("slow") and second.endswith("train.lr 0.0001")
    assert (runs / "runs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", ["recipe.toml", "model"])
def test_what_lies_in_a_run_is_named_with_the_run(given, tmp_path):
    (tmp_path / "run/model").mkdir(parents=True)
    for name in ("recipe.toml", "metrics.jsonl"):
        (tmp_path / "run" / name).touch()
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it .*; name one run, such as .*/run$"):
        read_run(tmp_path / "run" / given)


def test_an_unfinished_run_is_listed_as_far_as_it_came(runs):
    rows = (runs / "slow/metrics.jsonl").read_text().splitlines(keepends=True)
    (runs / "slow/metrics.jsonl").write_text("".join(rows[:3]) + '{"step": 4, "tok')
    (runs / "slow/model").rename(runs / "slow/other")
    slow = find_runs([runs / "slow"])[0]
    assert (slow.steps_done, slow.state, slow.held_out_loss) == (3, "38%", None) and slow.loss > 0 < slow.seconds
    assert table(find_runs([runs])).splitlines()[-1].startswith("slow")


def test_a_run_that_lost_its_metrics_is_listed_and_has_a_card(runs):
    (runs / "slow/metrics.jsonl").unlink()
    assert [run.state for run in find_runs([runs])] == ["finished", "metrics lost"]
    card = model_card(runs / "slow", watts=30.0)
    assert "It read 1,024 tokens" in card and "| steps | 8 of 128 tokens" in card
    assert "the metrics of the run are not whole" in card and "kWh" not in card


@pytest.mark.parametrize("broken", ["name = [", "", '[train]\ntokens = "1B"\nbatch_tokens = 128'])
def test_a_run_that_cannot_be_read_does_not_hide_the_others(broken, tmp_path, capsys):
    for name, recipe in (("broken", broken), ("whole", "[train]\ntokens = 256\nbatch_tokens = 128")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(recipe)
        (tmp_path / name / "metrics.jsonl").touch()
    assert [run.directory.name for run in find_runs([tmp_path])] == ["whole"]
    said = capsys.readouterr().err
    assert "broken/recipe.toml is not the recipe of a run" in said and "this run is left out" in said
    with pytest.raises(ValueError, match="is not the recipe of a run"):
        find_runs([tmp_path / "broken"])


def test_json_holds_the_numbers(runs, capsys):
    main(["runs", str(runs / "slow"), str(runs / "fast"), "--json"])
    fast, slow = json.loads(capsys.readouterr().out)["runs"]
    assert fast["held_out_bits_per_byte"] < slow["held_out_bits_per_byte"]
    assert slow["differences"] == {"train.lr": 0.0001} and fast["differences"] == {}


def test_a_folder_without_runs_is_said(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/recipe.toml").write_text('name = "c"')
    with pytest.raises(SystemExit) as stopped:
        main(["runs", str(tmp_path)])
    assert stopped.value.code == 2 and "bluejay train makes them" in capsys.readouterr().err
    (tmp_path / "corpus/metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="is not the recipe of a run"):
        find_runs([tmp_path])
