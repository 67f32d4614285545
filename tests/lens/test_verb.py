"""`bluejay lens` on the command line."""

import json

import pytest
from safetensors.torch import load_file, save_file

from bluejay.cli import main
from bluejay.evals.evaluation_file import identity_at
from bluejay.gpt.formats.layouts import save_model
from bluejay.infer.model import load
from bluejay.native import native
from bluejay.trace.indexing import index
from tests.lens.families import random_gpt
from tests.trace.conftest import write_corpus


@pytest.fixture(scope="module")
def model(tmp_path_factory, byte_tokenizer):
    path = tmp_path_factory.mktemp("lens") / "small"
    save_model(random_gpt("gpt_neox"), byte_tokenizer, path)
    return path


def printed(capsys, *arguments: object) -> dict:
    """What the verb prints with --json."""
    main(["lens", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_activations_go_to_a_file(model, tmp_path, capsys):
    file, names = tmp_path / "found.safetensors", ["hook_embed", "blocks.*.attn.hook_pattern"]
    found = printed(capsys, model, "the cat", "--hooks", *names, "--output", file)
    read = load_file(file)
    assert set(found["shapes"]) == {"hook_embed", *(f"blocks.{i}.attn.hook_pattern" for i in range(2))}
    run = load(model).lens().run("the cat", names)
    assert all((read[name] == run[name]).all() for name in run)
    assert "blocks.1.hook_resid_post" in printed(capsys, model, "--names")["hooks"]


def test_a_look_in_the_terminal_and_as_a_page(model, tmp_path, capsys):
    main(["lens", str(model), "the cat", "--output", str(tmp_path / "look.html")])
    text = capsys.readouterr().out
    assert "what each layer would have said" in text and "what made the logit of" in text and "the sum" in text
    assert (tmp_path / "look.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    found = printed(capsys, model, "the cat", "--position", 1, "--output", tmp_path / "look.json")
    assert found["position"] == 1 and json.loads((tmp_path / "look.json").read_text()) == found


def test_a_model_that_holds_nan_is_not_explained_but_its_activations_are_written(tmp_path, byte_tokenizer, capsys):
    save_model(random_gpt("gpt_neox"), byte_tokenizer, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"][5] = float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors")
    for asked in (["the cat"], ["the cat", "--without"], ["--heads"]):
        with pytest.raises(SystemExit, match="2"):
            main(["lens", str(tmp_path / "broken"), *asked])
        assert "blocks.1.mlp.up.bias of broken holds numbers that are not finite" in capsys.readouterr().err
    printed(
        capsys, tmp_path / "broken", "x", "--hooks", "blocks.*.mlp.hook_pre", "--output", tmp_path / "a.safetensors"
    )
    assert load_file(tmp_path / "a.safetensors")["blocks.1.mlp.hook_pre"].isnan().any()


def test_a_corpus_is_not_taken_for_a_broken_model(tmp_path, capsys):
    write_corpus(tmp_path / "c", {"train": [[1, 2, 258]]})
    with pytest.raises(SystemExit, match="2"):
        main(["lens", str(tmp_path / "c"), "the cat"])
    assert "c is a corpus, and no model; name a model that was trained on it" in capsys.readouterr().err


def test_every_question_is_answered(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the cat\nthe the\n")
    (tmp_path / "b.txt").write_text("zebra\n")
    without = printed(capsys, model, "the cat", "--without")
    assert len(without["effect"]) > 2 and printed(capsys, model, "--without", "the cat") == without
    assert printed(capsys, model, "the cat", "--patch", "the mat", "--part", "mlp", "--target", "z", "--against", "q")
    heads = printed(capsys, model, "--heads")
    assert len(heads["induction"]) == 2 and heads["identity"] == identity_at(model)
    steered = printed(capsys, model, "the", "--steer", tmp_path / "a.txt", tmp_path / "b.txt", "--strengths", 0, 1)
    assert len(steered["written"]) == 2 and steered["layer"] == 1
    (tmp_path / "text.txt").write_text("the cat and the dog " * 60)
    tune = (model, "--tune", tmp_path / "text.txt", "--steps", 2)
    assert len(printed(capsys, *tune, "--output", tmp_path / "tuned.html")["tuned_kl"]) == 2
    assert "embedding" in (tmp_path / "tuned.html").read_text(encoding="utf-8")
    assert printed(capsys, model, "the cat", "--tuned")["layers"]["kind"] == "tuned"


@pytest.mark.skipif(not hasattr(native, "first_rows"), reason="built without the native part")
def test_a_card_of_a_model_with_a_short_context(model, tmp_path, byte_tokenizer, monkeypatch, capsys):
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    index(write_corpus(tmp_path / "c", {"train": [[*byte_tokenizer.encode("the cat " * 40), byte_tokenizer.eot]]}))
    byte_tokenizer.save(tmp_path / "c")
    card = printed(capsys, model, "--card", "neuron:1:2", "--corpus", tmp_path / "c", "--tokens", 200)
    assert card["tokens"] == 200 // 24 * 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no text to look at"),
        (["x", "--hooks", "hook_embd", "--output", "a.safetensors"], "the nearest is 'hook_embed'"),
        (["x", "--hooks", "blocks.9.hook_z", "--output", "a.safetensors"], "the layers of this model are 0 to 1"),
        (["x", "--hooks", "hook_embed"], "--hooks needs --output FILE.safetensors"),
        (["x", "--hooks", "hook_embed", "--output", "a.txt"], "it must end in .safetensors"),
        (["x", "--output", "a.safetensors"], "it must end in .json or .html"),
        (["the cat", "--patch", "the"], "activations are patched between prompts of equal length"),
        (["the cat", "--patch", "the cat"], "both prompts are followed by"),
        (["x", "--position", "5"], "there is no position 5"),
        (["x", "--target", "many tokens"], "name one token"),
        (["--card", "neuron:1"], "it must be neuron:LAYER:NUMBER or head:LAYER:NUMBER"),
        (["--card", "neuron:2:0"], "there is no layer 2"),
        (["--card", "head:1:9"], "there is no head 9"),
        (["--card", "neuron:1:9999"], "there is no neuron 9999"),
        (["--tune", "latin-1.txt"], "latin-1.txt is not UTF-8: invalid continuation byte at byte 3"),
        (["x", "--steer", "latin-1.txt", "latin-1.txt"], "latin-1.txt is not UTF-8"),
        (["x", "--steer", "text.txt", "text.txt", "--cost", "latin-1.txt"], "latin-1.txt is not UTF-8"),
        (["x", "--output", "folder.html"], "folder.html is a folder; name a file"),
        (["x", "--output", "text.txt/x.html"], "text.txt/x.html cannot be written; "),
        (["--card", "mlp:1:2"], "it must be neuron:LAYER:NUMBER or head:LAYER:NUMBER"),
        (["--card", "neuron:1:2"], "no run is beside"),
        (["--tune", "none.txt"], "none.txt"),
        (["--heads", "--steps", "0"], "--steps: it is 0; it must be a whole number of at least 1"),
        (["x", "--tuned"], "has no tuned lens; train one"),
        (
            ["x", "--patch", "y", "--position", "0"],
            "--position does not go with --patch; it goes with a look or --without",
        ),
        (["x", "--patch", "y", "--tuned"], "--tuned does not go with --patch; it goes with a look"),
        (["x", "--without", "--against", "y"], "--against does not go with --without; it goes with a look or --patch"),
        (["x", "--part", "mlp"], "--part does not go with a look; it goes with --patch"),
        (["x", "--heads"], "a text does not go with --heads"),
        (
            ["x", "--hooks", "hook_embed", "--output", "a.safetensors", "--layer", "0"],
            "--layer does not go with --hooks",
        ),
    ],
)
def test_a_users_mistake_is_one_line(model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin-1.txt").write_bytes("café au lait".encode("latin-1"))
    (tmp_path / "text.txt").write_text("the cat\n")
    (tmp_path / "folder.html").mkdir()
    (model / "tuned_lens.safetensors").unlink(missing_ok=True)
    with pytest.raises(SystemExit, match="2"):
        main(["lens", str(model), *arguments])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
