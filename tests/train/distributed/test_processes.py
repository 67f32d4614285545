"""Runs of several processes are started by one command, and survive the loss of a process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bluejay.cli import main, parser
from bluejay.train.distributed.processes import check_hosts, environment_of, wants_launch
from bluejay.train.report.metrics import read_metrics
from tests.waiting import PATIENCE, eventually


def options(*arguments: str):
    return parser().parse_known_args(["train", "recipe.toml", *arguments])[0]


def test_one_process_is_the_command_itself_and_more_are_asked_for():
    assert not wants_launch(options(), by_text=False)
    assert wants_launch(options("--processes", "8"), by_text=False)
    assert wants_launch(options("--hosts", "2:4", "--meet", "node1:29400"), by_text=False)


@pytest.mark.parametrize(
    ("arguments", "by_text", "says"),
    [
        (["--processes", "0"], False, "--processes is 0; it must be at least 1"),
        (["--hosts", "4:2", "--meet", "a:1"], False, "--hosts is 4:2; it must be a number, or the least and the most"),
        (["--hosts", "two"], False, "--hosts is two"),
        (["--hosts", "2"], False, "several hosts need --meet HOST:PORT"),
        (["--meet", "node1:29400"], False, "--hosts says how many there are"),
        (["--processes", "2"], True, "several processes train by a recipe"),
        (["--processes", "2", "--export", "5"], False, "--export needs one"),
    ],
)
def test_what_cannot_be_is_said(arguments, by_text, says):
    with pytest.raises(ValueError, match=says):
        wants_launch(options(*arguments), by_text)


def test_a_run_that_could_not_go_on_without_some_hosts_is_refused_at_its_start(recipe_file, load_recipe):
    allowed = options("--processes", "8", "--hosts", "2:4", "--meet", "node1:29400")
    some, all_ = (load_recipe(recipe_file, "--train.batch_tokens", str(32 * rows)) for rows in (32, 96))
    check_hosts(allowed, all_)
    with pytest.raises(
        ValueError, match=r"--hosts is 2:4, and with 3 of them train\.batch_tokens is 32 sequences, .* 24"
    ):
        check_hosts(allowed, some)
    check_hosts(options("--processes", "8", "--hosts", "4", "--meet", "node1:29400"), some)
    fixed = load_recipe(recipe_file, "--train.batch_tokens", "3072", "--mesh.shard", "32")
    with pytest.raises(ValueError, match=r"with 2 of them the mesh .* needs 32 processes and there are 16"):
        check_hosts(allowed, fixed)


def test_variables_that_the_user_has_set_stay():
    found = environment_of(2, "eth0", {"OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "ib0"})
    assert found["OMP_NUM_THREADS"] == "7" and found["GLOO_SOCKET_IFNAME"] == "ib0"
    assert found["NCCL_SOCKET_IFNAME"] == "eth0"
    assert environment_of(10**6, None, {})["OMP_NUM_THREADS"] == "1"


def test_processes_are_started_with_the_options_of_the_command(monkeypatch, recipe_file):
    started: list[list[str]] = []
    monkeypatch.setattr("bluejay.verbs.train.launch", lambda _, command: started.append(command) or sys.exit())
    for flags in ([], ["--json"], ["--profile", "--json", "--verbose"]):
        with pytest.raises(SystemExit):
            main(["train", str(recipe_file), "--seed", "7", "--processes", "2", *flags])
        assert started.pop() == ["train", str(recipe_file), "--seed", "7", *flags]


def telling(recipe: str, told: str, flags: list[str]) -> None:
    """What a process prints goes to a file of its own."""
    with Path(f"{told}-{os.environ['RANK']}").open("w") as file, contextlib.redirect_stdout(file):
        main(["train", recipe, "--train.tokens", "256", *flags])


@pytest.mark.parametrize("flags", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_one_process_of_several_tells_the_result(flags, processes, recipe_file, tmp_path):
    for process in processes(telling, str(recipe_file), str(tmp_path / "told"), flags, count=2):
        process.join(PATIENCE)
        assert process.exitcode == 0, (tmp_path / "stderr-0").read_text() + (tmp_path / "stderr-1").read_text()
    first, second = ((tmp_path / f"told-{rank}").read_text() for rank in (0, 1))
    assert "held_out" in first if flags else "2 steps" in first
    assert second == ""


def in_folders(recipe: str, folders: list[str]) -> None:
    """Each process works in a folder of its own, as on hosts without a shared disk."""
    os.chdir(folders[int(os.environ["RANK"])])
    main(["train", recipe, "--output", "run"])


def test_hosts_without_a_shared_disk_are_told_so_at_the_start(processes, recipe_file, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    started = processes(in_folders, str(recipe_file), [str(folder) for folder in folders], count=2)
    for process in started:
        process.join(PATIENCE)
        assert process.exitcode == 2
    said = (tmp_path / "stderr-1").read_text()
    assert "do not all see the same" in said and f"{socket.gethostname()} does not" in said
    assert said.count("error:") == 1 and "Traceback" not in said
    assert not list(tmp_path.glob("*/run/shared-*"))


def on_hosts(recipe: str, folders: list[str], environment: dict[str, str]) -> None:
    """Each process is on a host of its own, with its own disk."""
    os.environ |= environment | {"LOCAL_RANK": "0"}
    in_folders(recipe, folders)


@pytest.mark.slow
def test_hosts_without_a_shared_disk_meet_in_object_storage(objects, processes, recipe_file, weights, tmp_path):
    """A run goes on whose first process is on the other host than before."""
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace("every_steps = 7", 'every_steps = 7\nstorage = "s3://bucket/run"'))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    for turn, names in enumerate((folders, folders[::-1])):
        if turn:
            objects.objects.pop("bucket/run/step-40/state.json")  # as if it had been killed before
        for process in processes(on_hosts, str(recipe_file), list(map(str, names)), objects.environment, count=2):
            process.join(PATIENCE)
            assert process.exitcode == 0, (tmp_path / "stderr-0").read_text() + (tmp_path / "stderr-1").read_text()
    assert "resuming after step 35" in (tmp_path / "stderr-0").read_text()
    assert weights(folders[0] / "run") == weights(folders[1] / "run")
    assert {name.split("/")[2] for name in objects.objects} == {f"step-{n}" for n in (7, 14, 21, 28, 35, 40)}


def started_together(recipe: Path, *flags: str) -> subprocess.Popen:
    """Two processes of one command."""
    command = [
        sys.executable,
        "-m",
        "bluejay",
        "train",
        str(recipe),
        "--processes",
        "2",
        "--mesh.replicate",
        "2",
        *flags,
    ]
    return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_mistake_that_all_processes_make_is_said_once_and_not_made_again(recipe_file, tmp_path):
    started = started_together(recipe_file, "--data.valid", str(tmp_path / "nowhere"))
    said = started.communicate(timeout=PATIENCE)[1]
    assert started.returncode == 2
    assert "nowhere" in said and said.count("error:") == 1 and "Traceback" not in said


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_in_one_sentence(recipe_file, tmp_path):
    started = started_together(recipe_file, "--train.tokens", "100000000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert eventually(lambda: metrics.exists() and metrics.stat().st_size > 0)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=PATIENCE)[1]
    assert started.returncode == 130
    assert said.count("run the same command to resume") == 1 and "Traceback" not in said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks(agent: subprocess.Popen) -> list[int]:
    """The processes that a torchrun has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.pid)], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


@pytest.mark.slow
def test_a_killed_process_of_four_on_two_hosts_comes_back(recipe_file, tmp_path, processes):
    steps, port = 300, free_port()
    run = ["train", str(recipe_file), "--train.tokens", str(128 * steps), "--train.precision", "float32"]
    run += ["--checkpoint.every_steps", "5"]
    start = ["--mesh.tensor", "2", "--hosts", "2", "--processes", "2", "--meet", f"127.0.0.1:{port}"]
    agents = []
    for host in (1, 2):
        with (tmp_path / f"host-{host}").open("w") as log:
            command = [sys.executable, "-m", "bluejay", *run, *start]
            agents.append(subprocess.Popen(command, stdout=log, stderr=log))
    metrics = tmp_path / "run" / "metrics.jsonl"

    def rows() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    log = tmp_path / "host-1"
    try:
        assert eventually(lambda: rows() > 20, 3 * PATIENCE), log.read_text()
        os.kill(ranks(agents[1])[0], signal.SIGKILL)
        killed = time.monotonic()
        assert eventually(lambda: "resuming after step" in log.read_text() + (tmp_path / "host-2").read_text())
        before = rows()
        assert eventually(lambda: rows() > before), log.read_text()
        print(f"it goes on {time.monotonic() - killed:.0f} s after the kill")
        for agent in agents:
            assert agent.wait(3 * PATIENCE) == 0, log.read_text()
    finally:
        for agent in agents:
            agent.kill()
    [alone] = processes(main, [*run, "--output", str(tmp_path / "alone")])
    alone.join(3 * PATIENCE)
    there, here = (
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("run", "alone")
    )
    assert len(there) == len(here) == steps
    assert there[-1] == pytest.approx(here[-1], rel=0.02)
