"""Pulling a model: nothing is fetched twice, nothing that is not the hub's own is kept."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bluejay
from bluejay.gpt.formats.hub import pull
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.formats.locate import locate, title
from bluejay.infer.model import Model
from tests.gpt.hub_server import COMMIT, EXPIRED, OLD_COMMIT, Hub, serving
from tests.waiting import eventually


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch) -> Iterator[Hub]:
    """A hub in the place of the real one, with one model."""
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr("bluejay.download.time.sleep", lambda seconds: None)
        hub.add("owner/model", {"config.json": b"{}", "model.safetensors": weights(300_000)})
        yield hub


def weights(n_bytes: int) -> bytes:
    """Bytes of which no two places look alike."""
    return b"".join(i.to_bytes(4, "big") for i in range(n_bytes // 4))


def leftovers(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if "partial" in path.name]


def test_a_pulled_model_is_the_model(hub, tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "saved")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    others = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.safetensors.index.json", "run.py"]
    hub.add(
        "owner/model", saved | {"README.md": b"---\nlicense: mit\n---\n"} | dict.fromkeys(others, b"not to be read")
    )
    place = pull("owner/model")
    assert hub.fetched() == {*saved, "README.md"} == {path.name for path in place.iterdir()}
    loaded = bluejay.load("owner/model")
    assert isinstance(loaded, Model)
    state = tiny_model.gpt.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in loaded.gpt.state_dict().items())


def test_what_is_there_is_not_fetched_again(hub):
    first = pull("owner/model")
    assert hub.sent.pop("model.safetensors") == [(0, 300_000)]
    hub.sent.clear()
    assert pull("owner/model") == first
    assert not hub.sent


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (
            {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
            {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
        ),
        ({"model.safetensors", "model-00001-of-00001.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"pytorch_model.bin", "training_args.bin", "optimizer.bin"}, {"pytorch_model.bin"}),
        (
            {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "model.py"},
            {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"},
        ),
    ],
)
def test_weights_are_safetensors_where_there_are_any(hub, files, fetched):
    hub.add("owner/model", {name: name.encode() for name in {"config.json", *files}})
    pull("owner/model")
    assert hub.fetched() == fetched | {"config.json"}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "NOTICE"}, {"run.py"}),
        ({"m.gguf", "config.json", "USE_POLICY.md", "tokenizer.model", "tekken.json"}, {"trained_on.json"}),
        ({"config.json", "model.safetensors", "adapter_config.json", "adapter_model.bin"}, {"m.gguf"}),
    ],
)
def test_adapters_and_single_gguf_files_are_pulled_too(hub, files, left, tmp_path):
    hub.add("owner/other", {name: name.encode() for name in files | left})
    assert pull("owner/other") == locate("owner/other")
    assert hub.fetched() == files
    assert {path.name for path in pull("owner/other", tmp_path / "here").iterdir()} == files | {".pulled"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 120_000), max_size=4))
def test_a_broken_connection_costs_no_byte(hub, tmp_path_factory, cuts):
    """Each request asks for what is missing, and all answers together are the file, once."""
    hub.sent.clear()
    hub.cuts = list(cuts)
    place = pull("owner/model", tmp_path_factory.mktemp("pulled"))
    assert (place / "model.safetensors").read_bytes() == weights(300_000)
    answers = hub.sent["model.safetensors"]
    assert [start for start, _ in answers] == [sum(n for _, n in answers[:i]) for i in range(len(answers))]
    assert sum(n for _, n in answers) == 300_000
    hub.cuts.clear()


def test_a_killed_pull_goes_on_where_it_stopped(hub, cache):
    size = 8_000_000
    hub.add("owner/model", {"config.json": b"{}", "model.safetensors": weights(size)})
    hub.stall = threading.Event()
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, "-c", "from bluejay.gpt.formats.hub import pull; pull('owner/model')"]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    assert eventually(lambda: sum(path.stat().st_size for path in leftovers(cache)) >= size // 2)
    child.kill()
    child.communicate()
    assert child.returncode == -9
    hub.stall.set()
    hub.stall = None
    (partial,) = leftovers(cache)
    kept = partial.stat().st_size
    hub.sent.clear()
    with pytest.raises(FileNotFoundError, match="bluejay pull owner/model"):
        locate("owner/model")

    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert hub.sent["model.safetensors"] == [(kept, size - kept)]
    assert (locate("owner/model") / "model.safetensors").read_bytes() == weights(size)
    assert not leftovers(cache)


def test_a_server_without_ranges_sends_all_again(hub):
    hub.cuts, hub.ranges = [1000], False
    assert (pull("owner/model") / "model.safetensors").read_bytes() == weights(300_000)
    assert hub.sent["model.safetensors"] == [(0, 1000), (0, 300_000)]


def test_a_server_that_sends_nothing_is_given_up(hub, cache):
    hub.cuts = [1000, *[0] * 100]
    with pytest.raises(
        ConnectionError, match=r"no more bytes of model\.safetensors arrive: .*; what has arrived is kept"
    ):
        pull("owner/model")
    assert hub.sent["model.safetensors"] == [(0, 1000), *[(1000, 0)] * 4]
    hub.cuts.clear()
    pull("owner/model")
    assert hub.sent["model.safetensors"][-1] == (1000, 299_000)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"], ids=["sha1", "sha256"])
def test_a_byte_corrupted_on_the_way_is_found_and_fetched_again(hub, name, capsys):
    hub.corrupt = {name: 1}
    place = pull("owner/model")
    assert (place / name).read_bytes() == hub.repos["owner/model"][COMMIT][name]
    assert len(hub.sent[name]) == 2
    assert f"{name} is not the hub's: its hash differs" in capsys.readouterr().err


def test_a_file_corrupted_on_the_disk_is_found_and_fetched_again(hub, capsys):
    place = pull("owner/model")
    file = (place / "model.safetensors").resolve()
    data = bytearray(file.read_bytes())
    data[1234] ^= 1
    file.write_bytes(data)
    hub.sent.clear()
    pull("owner/model")
    assert hub.sent == {"model.safetensors": [(0, 300_000)]}
    assert file.read_bytes() == weights(300_000)
    assert "model.safetensors is not the hub's" in capsys.readouterr().err


def test_a_file_that_stays_corrupted_is_named_and_not_kept(hub, cache):
    hub.corrupt = {"model.safetensors": 100}
    with pytest.raises(
        ValueError, match=r"model\.safetensors came twice with another hash than the hub's own"
    ) as raised:
        pull("owner/model")
    assert "\n" not in str(raised.value)
    assert hub.sent["model.safetensors"] == [(0, 300_000)] * 2
    assert not [path for path in (cache / "models--owner--model").rglob("*") if path.is_file()]


def test_a_directory_of_ones_own_is_a_model_only_when_it_is_whole(hub, tmp_path):
    target = tmp_path / "mine"
    hub.add("owner/model", {"config.json": b'{"old": 1}', "model.safetensors": weights(40_000)}, OLD_COMMIT)
    assert pull("owner/model@old", target) == target
    assert {path.name for path in target.iterdir()} == {".pulled", "config.json", "model.safetensors"}
    hub.cuts = [5000, *[0] * 100]
    with pytest.raises(ConnectionError):
        pull("owner/model", target)
    assert not (target / "config.json").exists()
    hub.cuts.clear()
    pull("owner/model", target)
    (target / ".pulled").unlink()
    assert {path.name: path.read_bytes() for path in target.iterdir()} == hub.repos["owner/model"][COMMIT]


@pytest.mark.parametrize("pulled", [False, True])
def test_a_model_with_files_of_the_same_names_is_not_replaced(pulled, hub, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "config.json").write_bytes(b'{"mine": 1}')
    (target / "model.safetensors").write_bytes(b"mine")
    if pulled:
        (target / ".pulled").write_text("me/mine\n")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(ValueError, match=r"mine/.* is not that of owner/model; name a new folder"):
        pull("owner/model", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_model_that_another_tool_pulled_is_kept(hub, tmp_path):
    for name, data in hub.repos["owner/model"][COMMIT].items():
        (tmp_path / name).write_bytes(data)
    pull("owner/model", tmp_path)
    assert not hub.sent.get("model.safetensors")


OTHER = {"model.safetensors.index.json": b"{}", "model-00001-of-00001.safetensors": b"x"}


@pytest.mark.parametrize(
    ("left", "files"),
    [
        ("model.safetensors", OTHER),
        ("chat_template.jinja", {"model.safetensors": b"x"}),
        ("added_tokens.json", {"model.safetensors": b"x"}),
        ("trained_on.json", {"model.safetensors": b"x"}),
    ],
)
def test_a_directory_with_files_of_another_model_stays_as_it_is(left, files, hub, tmp_path):
    target = tmp_path / "mine"
    pull("owner/model", target)
    (target / left).touch()
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    hub.add("owner/other", {"config.json": b'{"other": 1}', **files})
    with pytest.raises(ValueError, match=f"mine has .*{left}.*name a new folder|trained here.*name a new folder"):
        pull("owner/other", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_revisions_lie_side_by_side(hub):
    hub.add("owner/model", {"config.json": b'{"old": 1}', "model.safetensors": weights(40_000)}, OLD_COMMIT)
    for name, commit in (("owner/model", COMMIT), ("owner/model@old", OLD_COMMIT), (f"owner/model@{COMMIT}", COMMIT)):
        assert pull(name) == locate(name)
        assert locate(name).name == commit
    with pytest.raises(ValueError, match="owner/model has no revision new"):
        pull("owner/model@new")


def test_other_tools_find_what_was_pulled(hub, cache):
    """The hub's own client takes our files for its own, with a network and without."""
    place = pull("owner/model")
    hub.sent.clear()
    assert huggingface_hub.hf_hub_download("owner/model", "model.safetensors") == str(place / "model.safetensors")
    assert huggingface_hub.snapshot_download("owner/model", local_files_only=True) == str(place)
    assert not hub.sent
    (repo,) = huggingface_hub.scan_cache_dir(cache).repos
    assert (repo.repo_id, repo.nb_files, repo.size_on_disk, repo.refs.keys()) == ("owner/model", 2, 300_002, {"main"})


def test_we_find_what_other_tools_pulled(hub):
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(FileNotFoundError):
            locate("owner/model")
        huggingface_hub.hf_hub_download("owner/model", name)
    place = locate("owner/model")
    hub.sent.clear()
    assert pull("owner/model") == place == locate(place.parents[1])
    assert title(place, place) == title(place.parents[1], place) == "owner/model"
    assert not hub.sent


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("owner/absent", "has no model owner/absent; if it is a private one, log in"),
        ("owner/model@absent", "owner/model has no revision absent"),
        (
            "owner/empty",
            r"owner/empty has no config\.json with .* no single GGUF file; it has a\.gguf, b\.gguf; `hf .* a\.gguf --l",
        ),
        ("absent", "absent is not the name of a model on the hub: it must be OWNER/MODEL, or one of gpt-j-6b, "),
        ("../../etc", "is not the name of a model on the hub"),
        ("a/b@../../c", "is not the name of a model on the hub"),
        ("a/b/c", "is not the name of a model on the hub"),
    ],
)
def test_what_cannot_be_pulled_is_said(hub, name, sentence):
    hub.add("owner/empty", {"a.gguf": b"GGUF", "b.gguf": b"GGUF"})
    with pytest.raises(ValueError, match=sentence) as raised:
        pull(name)
    assert "\n" not in str(raised.value)


def test_a_gated_model_says_what_to_do(hub):
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(ValueError, match=rf"model is gated: accept its terms at {hub.url}/owner/model, then log in"):
        pull("owner/model")


def test_a_token_that_the_hub_refuses_is_what_is_wrong(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", EXPIRED)
    with pytest.raises(ValueError, match=rf"^{hub.url} refuses the token of HF_TOKEN .*; renew it, or unset it"):
        pull("owner/model")


def test_a_file_in_the_place_of_the_directory_is_noticed_before_the_hub_is_asked(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; name a folder"):
        pull("owner/model", tmp_path / "file")


@pytest.mark.parametrize(
    "metadata", [{"size": None}, {"blobId": None, "lfs": None}, {"blobId": "../../x", "lfs": None}]
)
def test_a_file_that_cannot_be_checked_is_not_fetched(hub, metadata):
    hub.metadata = metadata
    with pytest.raises(ValueError, match=r"the hub gives no size and hash for model\.safetensors of owner/model"):
        pull("owner/model")
    assert not hub.sent


def test_without_a_network_it_says_so_in_one_line(cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"owner/model cannot be pulled from http://127\.0\.0\.1:9: ") as raised:
        pull("owner/model")
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="owner/model cannot be pulled while HF_HUB_OFFLINE is set"):
        pull("owner/model")


def test_too_small_a_disk_is_noticed_before_the_first_byte(hub):
    hub.metadata = {"size": 10**15}
    with pytest.raises(OSError, match=r"owner/model takes 2000000\.0 GB more, and .* has \d+\.\d GB left"):
        pull("owner/model")
    assert not hub.sent


def test_a_full_disk_keeps_what_has_come(hub, file_size_limit):
    with file_size_limit(100_000), pytest.raises(OSError, match="no space left for owner/model; make room") as raised:
        pull("owner/model")
    assert "\n" not in str(raised.value)
    pull("owner/model")
    assert hub.sent["model.safetensors"][-1] == (100_000, 200_000)


def test_two_pulls_of_one_model_do_not_write_one_file(hub, cache):
    hub.stall = threading.Event()
    first = threading.Thread(target=pull, args=("owner/model",))
    first.start()
    assert eventually(lambda: leftovers(cache))
    with pytest.raises(ValueError, match="owner/model is being pulled by another process"):
        pull("owner/model")
    hub.stall.set()
    first.join()
    assert (locate("owner/model") / "model.safetensors").read_bytes() == weights(300_000)


def test_a_path_is_itself_and_an_unknown_name_says_what_brings_it(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert locate("owner/model") == Path("owner/model")
    assert locate(tmp_path / "owner") == tmp_path / "owner"
    (tmp_path / "owner" / "recipe.toml").touch()  # now it is a training run
    assert locate("owner") == Path("owner/model")
    with pytest.raises(
        FileNotFoundError, match=r"`bluejay pull gpt-neo-1\.3b` gets it, if EleutherAI/gpt-neo-1\.3B is"
    ):
        locate("gpt-neo-1.3b")
    with pytest.raises(FileNotFoundError, match="`bluejay pull owner/other@v1` gets it, if owner/other is on the hub"):
        locate(Path("owner/other@v1"))
    for path in ("/absent/model", "runs/a/model", "absent"):
        with pytest.raises(
            FileNotFoundError, match=f"no model at {path}; .* or OWNER/MODEL on the hub; `bluejay train"
        ):
            locate(path)
