"""Pushing: what is pulled or loaded from the hub is what was pushed, nothing is sent twice, and the hub is checked."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pyarrow.parquet
import pytest
import torch
from huggingface_hub import constants

import bluejay
from bluejay.cli import main
from bluejay.gpt.formats.hub import pull
from bluejay.gpt.formats.layouts import convert, open_model, save_model
from bluejay.gpt.formats.peft import LowRank, write_adapter
from bluejay.push import SPLITS, push
from tests.gpt.hub_server import COMMIT, Hub, serving
from tests.push_server import handler

# huggingface_hub sends blobs by an argument that its own HTTP client has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """An empty hub in the place of the real one."""
    with serving(handler) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # The chunked transfer of the real hub needs its own servers; the plain one has the same commits and hashes.
        monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield hub


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_what_is_pulled_is_what_was_pushed(hub, model, tmp_path, capsys):
    (model / "optimizer.pt").write_bytes(b"not a model")
    main(["push", str(model), "me/tiny"])
    assert hub.url in capsys.readouterr().out
    pulled = pull("me/tiny", tmp_path / "pulled")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (pulled / name).read_bytes() == (model / name).read_bytes()
    assert "optimizer.pt" not in hub.repos["me/tiny"][COMMIT]
    prompt = bluejay.SamplingParams(max_tokens=4, temperature=0.0)
    assert bluejay.load(pulled).generate("the", prompt) == bluejay.load(model).generate("the", prompt)


@pytest.mark.parametrize("name", ["run", "me/tiny"])
def test_what_names_a_model_for_other_commands_names_it_here(name, hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "run":
        model.rename((tmp_path / "run").mkdir() or tmp_path / "run" / "model")
        (tmp_path / "run" / "recipe.toml").touch()
    else:
        push(model, "me/tiny")
        pull("me/tiny")
    push(Path(name), "me/other")
    files = hub.repos["me/other"][COMMIT]
    assert "model.safetensors" in files and f"# {'run' if name == 'run' else 'tiny'}\n" in files["README.md"].decode()


def test_a_model_without_a_card_gets_one_and_another_keeps_its_own(hub, model):
    push(model, "me/tiny")
    card = hub.repos["me/tiny"][COMMIT]["README.md"].decode()
    parsed = huggingface_hub.ModelCard(card)
    assert (parsed.data.library_name, parsed.data.pipeline_tag) == ("transformers", "text-generation")
    assert "| family | gptj |" in card
    (model / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    push(model, "me/own", private=True)
    assert hub.repos["me/own"][COMMIT]["README.md"] == b"---\nlicense: mit\n---\nmine\n"


def test_a_card_that_was_written_on_the_hub_stays(hub, model):
    push(model, "me/tiny")
    hub.repos["me/tiny"][COMMIT]["README.md"] = b"mine\n"
    (model / "generation_config.json").write_text("{}")
    push(model, "me/tiny")
    files = hub.repos["me/tiny"][COMMIT]
    assert files["README.md"] == b"mine\n" and files["generation_config.json"] == b"{}"
    (model / "README.md").write_text("a card of the model\n")
    push(model, "me/tiny")
    assert hub.repos["me/tiny"][COMMIT]["README.md"] == b"a card of the model\n"


def test_what_the_hub_has_is_not_sent_again(hub, model):
    push(model, "me/tiny")
    hub.received.clear()
    hub.posted.clear()
    push(model, "me/tiny")
    assert not hub.received and not [path for path in hub.posted if "/commit/" in path]
    (model / "generation_config.json").write_text("{}")
    push(model, "me/tiny")
    assert not hub.received and hub.repos["me/tiny"][COMMIT]["generation_config.json"] == b"{}"


def test_an_interrupted_push_goes_on_with_the_file_that_it_stopped_at(hub, model, monkeypatch):
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 200_000 for i in (1, 2)}
    sent = [(model / name).write_bytes(content) for name, content in shards.items()]
    assert sum(sent) == 400_000
    hub.cuts = [200_000, *[1000] * 20]
    with pytest.raises(ConnectionError, match=r"me/tiny cannot be pushed to http.*; what has arrived is kept"):
        push(model, "me/tiny")
    assert hub.repos["me/tiny"][COMMIT] == {}  # nobody sees a part of it
    arrived = set(hub.stored)
    assert len(arrived) == 1
    hub.cuts.clear()
    hub.received.clear()
    push(model, "me/tiny")
    assert not arrived & {oid for oid, _ in hub.received}
    assert {name: hub.repos["me/tiny"][COMMIT][name] for name in shards} == shards


def test_another_content_on_the_hub_is_found(hub, model):
    hub.corrupt["config.json"] = 1
    with pytest.raises(ValueError, match=r"me/tiny holds another config\.json than was sent"):
        push(model, "me/tiny")
    push(model, "me/tiny")
    assert hub.repos["me/tiny"][COMMIT]["config.json"] == (model / "config.json").read_bytes()


@pytest.mark.parametrize("status", [401, 403])
def test_no_permission_is_one_sentence(hub, model, status, capsys):
    hub.refusal = (status, "")
    with pytest.raises(SystemExit) as stopped:
        main(["push", str(model), "other/tiny"])
    assert stopped.value.code == 2
    assert "does not let you write to other/tiny: log in with `hf auth login`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "me/", "me/ti ny"])
def test_a_name_that_is_none_is_one_sentence(name, model):
    with pytest.raises(ValueError, match="is not the name of a repository; it must be OWNER/NAME"):
        push(model, name)


def test_what_is_no_model_is_not_sent(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is not a model directory"):
        push(tmp_path / "empty", "me/empty")
    assert "me/empty" not in hub.repos


def test_a_gguf_file_is_sent_with_a_card(hub, byte_tokenizer, tmp_path):
    from bluejay.gpt.init import new_model
    from bluejay.gpt.presets import adapted

    sizes = {"n_layer": 1, "d_model": 32, "n_head": 2, "vocab_size": 260, "n_ctx": 64}
    save_model(new_model(adapted("gpt2", sizes, ""), seed=0), byte_tokenizer, tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "m.gguf", quantize="q8_0")
    push(tmp_path / "m.gguf", "me/small")
    assert hub.repos["me/small"][COMMIT].keys() == {"m.gguf", "README.md"}
    pull("me/small")
    prompt = bluejay.SamplingParams(max_tokens=4, temperature=0.0)
    assert bluejay.load("me/small").generate("the", prompt) == bluejay.load(tmp_path / "m.gguf").generate("the", prompt)


@pytest.mark.parametrize("on_hub", [True, False])
def test_an_adapter_is_sent_with_a_card_whose_commands_work(on_hub, hub, model, byte_tokenizer, tmp_path, capsys):
    push(model, "me/base")
    config = open_model(model).config
    update = LowRank(torch.ones(1, config.d_model), torch.ones(config.d_model, 1), 0.5)
    base = "me/base" if on_hub else str(model)
    write_adapter({"blocks.0.attention.q.weight": update}, config, byte_tokenizer, base, tmp_path / "adapter")
    (tmp_path / "adapter" / "NOTICE").write_text("made by me")
    (tmp_path / "adapter" / "trained_on.json").write_text("{}")
    pull("me/base")
    push(tmp_path / "adapter", "me/adapter")
    assert ("names its base by a place on this machine" in capsys.readouterr().err) == (not on_hub)
    card = hub.repos["me/adapter"][COMMIT]["README.md"].decode()
    assert huggingface_hub.ModelCard(card).data.library_name == "peft"
    assert huggingface_hub.ModelCard(card).data.base_model == ("me/base" if on_hub else None)
    assert ("bluejay pull me/base" in card) == on_hub
    pulled = pull("me/adapter")
    assert (pulled / "NOTICE").is_file() and not (pulled / "trained_on.json").exists()
    prompt = bluejay.SamplingParams(max_tokens=4, temperature=0.0)
    assert bluejay.load("me/adapter").generate("the", prompt) == bluejay.load(tmp_path / "adapter").generate(
        "the", prompt
    )


@pytest.fixture
def corpus(tmp_path, byte_tokenizer_folder) -> Path:
    """A corpus of some files of the standard library."""
    from bluejay.pile.build import build
    from bluejay.pile.recipe import PileRecipe
    from bluejay.recipe import check

    values = {
        "name": "small",
        "output": str(tmp_path / "corpus"),
        "tokenizer": {"path": byte_tokenizer_folder},
        "split": {"valid": 0.2, "test": 0.1},
        "component": [
            {
                "name": "Python",
                "licence": "PSF-2.0",
                "source": [{"kind": "tree", "path": sysconfig.get_path("stdlib") + "/json", "include": ["*.py"]}],
            }
        ],
    }
    build(check(PileRecipe, values, "test"))
    return tmp_path / "corpus"


def test_a_corpus_is_sent_with_a_card_that_datasets_reads(hub, corpus, capsys):
    push(corpus, "me/small")
    place = re.escape(f"{sysconfig.get_path('stdlib')}/json/")
    assert re.search(rf"such as {place}\w+\.py; these are sent", capsys.readouterr().err)
    files = hub.repos["me/small"][COMMIT]
    card = huggingface_hub.DatasetCard(files["README.md"].decode())
    (config,) = card.data.to_dict()["configs"]
    for part in config["data_files"]:
        folder, _, pattern = part["path"].rpartition("/")
        assert pattern == "*.parquet" and [name for name in files if name.startswith(f"{folder}/")]
    assert "train" in [part["split"] for part in config["data_files"]]
    assert not [name for name in files if "dropped" in name or "skipped" in name]
    for line in card.text.splitlines():
        if line.startswith("!["):
            assert line.partition("](")[2].rstrip(")") in files


LOAD = """
import json, sys, datasets
found = datasets.load_dataset(sys.argv[1])
print(json.dumps({split: part.to_list() for split, part in found.items()}))
"""


@pytest.mark.slow  # needs `datasets`, which the extra `harness` brings
def test_datasets_loads_a_pushed_corpus_from_the_hub(hub, corpus, tmp_path):
    """By its name alone, every column of the same documents in the same order."""
    if importlib.util.find_spec("datasets") is None:
        missing = "datasets is not installed: pip install -e '.[harness]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    push(corpus, "me/small")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", LOAD, "me/small"]
    loaded = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    assert loaded.keys() == {"train", "validation", "test"}
    for ours, theirs in SPLITS.items():
        table = pyarrow.parquet.read_table(corpus / "documents" / f"{ours}.parquet")
        assert loaded[theirs] == table.to_pylist() and table.num_rows
