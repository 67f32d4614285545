"""The watchdog ends what stands still and names who is stuck."""

import os
import signal
import time

import pytest
import torch.distributed as dist

from bluejay.train.distributed.watchdog import STUCK, Heartbeat, Watchdog, start_watchdog, verdict
from tests.waiting import PATIENCE


def heartbeat(rank: int, beat: int = 1, waiting: bool = True) -> Heartbeat:
    return Heartbeat(f"process {rank} on host", beat, "step 7", "step.py:30, gradient", waiting)


def test_who_is_silent_is_stuck_before_who_is_busy():
    before = {0: heartbeat(0), 1: heartbeat(1), 2: heartbeat(2)}
    after = {0: heartbeat(0, 2), 1: heartbeat(1, 1), 2: heartbeat(2, 2, waiting=False)}
    assert verdict(before, after, 3) == ([1], "no heartbeat from process 1 on host")
    assert verdict(before, after, 4)[0] == [1, 3]


def test_who_does_not_wait_while_the_others_do_is_stuck():
    before = {0: heartbeat(0), 1: heartbeat(1)}
    stuck, why = verdict(before, {0: heartbeat(0, 2), 1: heartbeat(1, 2, waiting=False)}, 2)
    assert stuck == [1]
    assert why == "process 1 on host is stuck in step 7, at step.py:30, gradient"
    assert verdict(before, {0: heartbeat(0, 2), 1: heartbeat(1, 2)}, 2)[0] == []
    assert verdict({0: heartbeat(0)}, {0: heartbeat(0, waiting=False)}, 1)[0] == [0]


def test_a_run_that_moves_is_left_alone():
    with start_watchdog(minutes=1.5 / 60) as watchdog:
        for number in range(25):
            watchdog.doing(f"step {number}")
            time.sleep(0.1)


def test_a_night_that_a_run_was_suspended_is_no_time_of_a_step(monkeypatch):
    now = 100.0
    monkeypatch.setattr("bluejay.train.distributed.watchdog.time.monotonic", lambda: now)
    watchdog = Watchdog(minutes=15)
    began = watchdog.clock()
    now += 8 * 3600
    assert 0 < watchdog.clock() - began <= watchdog.interval and watchdog.began == now
    ended = watchdog.clock()
    now += 7.0  # a slow step
    assert watchdog.clock() - ended == 7.0


def meet(behaviour: str) -> None:
    """Two processes that meet at barriers, until the second does not come."""
    rank = int(os.environ.get("RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        dist.init_process_group("gloo")
    with start_watchdog(minutes=3 / 60, rank=rank, size=size) as watchdog:
        for number in range(100):
            watchdog.doing(f"step {number}")
            if number == 3 and rank == size - 1:
                os.kill(os.getpid(), signal.SIGSTOP) if behaviour == "frozen" else time.sleep(60)
            if size > 1:
                dist.barrier()


@pytest.mark.parametrize(
    ("behaviour", "count"), [*(pytest.param("asleep", n, marks=pytest.mark.slow) for n in (1, 2)), ("frozen", 2)]
)
def test_the_stuck_process_is_named(processes, tmp_path, behaviour, count):
    first, *others = processes(meet, behaviour, count=count)
    first.join(PATIENCE)
    said = (tmp_path / "stderr-0").read_text()
    assert first.exitcode == STUCK, said
    if behaviour == "frozen":
        assert f"no heartbeat from process 1 on {os.uname().nodename}, pid {others[0].pid}" in said
    else:
        assert f"process {count - 1} on" in said and "is stuck in step 3, at " in said
