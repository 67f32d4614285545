"""The documents that pushed a model: a document pushed it most towards itself; what is stored is whole and its own."""

import json
import shutil

import numpy as np
import pytest

from bluejay.cli import main
from bluejay.trace import Influence
from bluejay.trace.indexing import locked
from bluejay.trace.influence import gradient_files, learnt, read_documents
from bluejay.trace.influence.gradients import ProjectedGradients
from tests.trace.conftest import TEXTS


@pytest.fixture(scope="module")
def asked(project, tmp_path_factory):
    """The project with the gradients of its base computed, and the folder of a copy to change."""
    root = tmp_path_factory.mktemp("asked") / "project"
    shutil.copytree(project, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("BLUEJAY_CACHE", str(root / "cache"))
        Influence("runs/base/model")
    return root


@pytest.fixture
def place(asked, tmp_path, monkeypatch):
    """A copy of the project, which is the current folder."""
    shutil.copytree(asked, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def files(place):
    """The files of the gradients and their bytes."""
    return {path.name: path.read_bytes() for path in (place / "runs/base/influence/step-40").iterdir()}


def refused(capsys, *arguments) -> str:
    """The one line in which the command refuses."""
    with pytest.raises(SystemExit, match="2"):
        main(["trace", "influence", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_a_document_pushed_the_model_most_towards_itself(asked, monkeypatch):
    monkeypatch.chdir(asked)
    influence = Influence("runs/base/model")
    for number in (0, 7, 12, 27):
        first, *others = influence.rank(TEXTS[number], most=3)
        assert (first.document, first.source, first.licence) == (number, f"source {number}", "MIT")
        assert first.score > others[0].score and first.tokens > 0


def test_the_command_tells_them_beside_what_is_quoted(place, capsys):
    main(["trace", "influence", "runs/base", "the cat number 12 sat on the mat", "--documents", "3", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["step"] == 40 and len(told["documents"]) == 3
    assert {"id", "source", "licence", "component", "url", "split", "score", "share"} <= told["documents"][0].keys()
    assert "source 12" in {one["source"] for span in told["trace"]["spans"] for one in span["documents"]}
    main(["trace", "influence", "runs/base", "the cat number 12 sat on the mat"])
    text = capsys.readouterr().out
    assert "pushed the model of step 40" in text and "licence MIT" in text and "quoted" in text


def test_interrupted_and_continued_it_is_as_if_it_had_not_been(place, asked, monkeypatch):
    monkeypatch.setattr(gradient_files, "FILE_TOKENS", 1000)
    monkeypatch.setattr(read_documents, "SEQUENCES", 2)
    shutil.rmtree(place / "runs/base/influence")
    Influence("runs/base")
    whole = files(place)
    assert len(whole) > 5
    shutil.rmtree(place / "runs/base/influence")
    real, calls = ProjectedGradients.__call__, iter(range(1000))

    def stopped(self, batch, pieces):
        if next(calls) == 9:
            raise KeyboardInterrupt
        return real(self, batch, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(ProjectedGradients, "__call__", stopped)
        with pytest.raises(KeyboardInterrupt):
            Influence("runs/base")
    half = files(place)
    assert 0 < len(half) < len(whole) and gradient_files.WHOLE not in half
    Influence("runs/base")
    assert files(place) == whole


def test_gradients_of_another_state_of_the_run_are_made_anew(place):
    folder, before = place / "runs/base/influence/step-40", files(place)
    whole = folder / gradient_files.WHOLE
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b'"K": 16', b'"K": 17'))  # its checksum is wrong then
    whole.unlink()
    Influence("runs/base")
    assert files(place) == before


def test_a_file_of_gradients_that_is_gone_is_made_anew(place):
    folder, before = place / "runs/base/influence/step-40", files(place)
    next(path for path in folder.glob("*.gradients") if path.name != gradient_files.WHOLE).unlink()
    assert Influence("runs/base").rank("the cat", most=1) and files(place) == before


@pytest.mark.parametrize("at", [9, 200, -5000])
@pytest.mark.parametrize("name", ["whole", "0-0000000000"])
def test_a_damaged_file_is_refused_in_one_sentence(place, capsys, at, name):
    path = place / "runs/base/influence/step-40" / f"{name}.gradients"
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[at] ^= 1
    path.write_bytes(data.tobytes())
    assert "damaged" in (line := refused(capsys, "runs/base", "the cat")) and path.name in line


def test_a_model_that_is_too_large_is_refused_with_what_it_would_take(place, capsys, monkeypatch):
    shutil.rmtree(place / "runs/base/influence")
    monkeypatch.setattr(learnt, "LONGEST", 0.0)
    line = refused(capsys, "runs/base", "the cat")
    assert "MiB on the disk" in line and "of memory" in line and " s" in line and "quickstart's size" in line
    assert not (place / "runs/base/influence").exists()


def test_runs_without_gradients_of_documents_are_refused_in_one_sentence(place, capsys):
    assert "learnt from examples" in refused(capsys, "runs/tuned", "the cat")
    assert "the text is empty" in refused(capsys, "runs/base", "")
    shutil.rmtree(place / "data/c/index")
    assert "run bluejay index" in refused(capsys, "runs/base", "the cat")
    shutil.move(place / "runs/base/model", place / "alone")
    assert "no run is beside alone" in refused(capsys, "alone", "the cat")


def test_a_second_process_leaves_the_gradients_that_one_computes(asked, monkeypatch):
    monkeypatch.chdir(asked)
    influence = Influence("runs/base/model")
    unfinished = influence.directory / "0-0000000000.gradients.partial"
    unfinished.touch()
    with locked(influence.directory, "a test"), pytest.raises(ValueError, match="are being computed already; wait"):
        influence.compute()
    assert unfinished.exists()
    unfinished.unlink()
