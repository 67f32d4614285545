"""A run's folder has one owner at a time, whoever it is; that of an owner that is gone is taken over."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from bluejay.train.checkpoint import owner
from bluejay.train.checkpoint.owner import Owner, launcher_advice, owned, read_owner
from tests.waiting import eventually


def own(directory: Path) -> None:
    """Own a folder until killed."""
    with owned(directory):
        signal.pause()


def test_a_second_owner_is_told_who_the_first_is(tmp_path, processes):
    [first] = processes(own, tmp_path / "run")
    assert eventually(lambda: read_owner(tmp_path / "run" / "owner.json") is not None)
    holder = f"process {first.pid} on {socket.gethostname()}"
    with pytest.raises(ValueError, match=f"run is in use by {holder}; wait for it, or give"), owned(tmp_path / "run"):
        pass
    assert read_owner(tmp_path / "run" / "owner.json") == Owner(socket.gethostname(), first.pid)
    first.kill()
    first.join()
    with owned(tmp_path / "run"):  # at once: the process is dead, and its name is left
        assert read_owner(tmp_path / "run" / "owner.json") == Owner(socket.gethostname(), os.getpid())
    assert not (tmp_path / "run" / "owner.json").exists()


@pytest.mark.parametrize("alive", [True, False])
def test_an_owner_on_another_host_is_known_by_its_beat(alive, tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.1)
    file, ended = tmp_path / "owner.json", threading.Event()
    file.write_text(json.dumps({"host": "elsewhere", "process": 7}))
    other = threading.Thread(target=owner.beat, args=(file, ended))
    if alive:
        other.start()
        with pytest.raises(ValueError, match="in use by process 7 on elsewhere"), owned(tmp_path):
            pass
        ended.set()
        other.join()
        assert read_owner(file) == Owner("elsewhere", 7)
    else:
        with owned(tmp_path):
            assert read_owner(file) == Owner(socket.gethostname(), os.getpid())


@pytest.mark.parametrize("text", ["", "{}", '{"host": "a"}', "[1]", '{"host": "a", "process": "x"}'])
def test_a_file_that_names_no_owner_stops_nobody(text, tmp_path):
    (tmp_path / "owner.json").write_text(text)
    with owned(tmp_path):
        pass


def test_launchers_that_make_no_run_of_several_processes_are_named():
    assert "srun started 4 processes" in str(launcher_advice({"SLURM_NTASKS": "4"}))
    assert "mpirun started 2 processes" in str(launcher_advice({"OMPI_COMM_WORLD_SIZE": "2"}))
    for fine in ({}, {"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": "4", "WORLD_SIZE": "8"}, {"SLURM_NTASKS": "2(x3)"}):
        assert launcher_advice(fine) is None
