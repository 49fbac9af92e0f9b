"""Machines that pause, are lost and come back, or have more processes than cores."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from tests.distributed.launch import finish, free_port, start
from tests.synthetic import small, write_csv

# Rank 1 is paused in a step for some seconds, or is only slow in one.
PAUSED = """
import os, subprocess, sys, time
import sasrec
from sasrec.training import trainer
events, run, what, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
original, numbers = trainer.training_loss, iter(range(10**9))
def loss(*arguments):
    if next(numbers) == 9 and os.environ["RANK"] == "1":
        if what == "paused":
            subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), 19)
        else:
            time.sleep(seconds)
    return original(*arguments)
trainer.training_loss = loss
sasrec.train(events, run, maxlen=12, hidden_units=16, batch_size=16, lr=1e-2, device="cpu", num_epochs=6)
"""


def paused(folder: Path, what: str, seconds: float) -> tuple[int, str]:
    script, events = folder / "script.py", write_csv(folder / "events.csv")
    script.write_text(PAUSED)
    return finish(start(2, str(script), str(events), str(folder / what), what, str(seconds)))


@pytest.mark.slow
def test_a_rank_that_is_paused_or_slow_for_less_than_ten_minutes_costs_only_time(tmp_path: Path) -> None:
    """A paused process sends no heartbeat, so its pause must be shorter than 45 s; a slow one may take longer."""
    for what, seconds in (("slow", 0), ("paused", 20), ("longer", 55)):
        status, said = paused(tmp_path, what, seconds)
        assert status == 0, said
    whole, *others = [
        store.newest(tmp_path / what / "checkpoints", print) for what in ("slow", "paused", "longer")
    ]
    for other in others:
        assert all(torch.equal(other.weights[name], whole.weights[name]) for name in whole.weights)
        assert other.state["step"] == whole.state["step"]


@pytest.mark.slow
def test_a_rank_that_wakes_after_it_was_given_up_harms_nothing(tmp_path: Path) -> None:
    status, said = paused(tmp_path, "paused", 70)
    assert status != 0
    assert "rank 1 sent no heartbeat for 45 s" in said, said
    folder = tmp_path / "paused"
    assert not list(folder.glob("checkpoints/.*"))
    resumed = sasrec.resume(folder) if (folder / "checkpoints").exists() else None
    assert resumed is None or resumed.metrics is not None


@pytest.mark.slow
def test_a_machine_that_is_lost_and_comes_back_takes_the_run_up_again(tmp_path: Path) -> None:
    """Two torchrun agents stand in for two machines; the second one is killed with its process, then started anew."""
    events, port = write_csv(tmp_path / "events.csv"), free_port()
    settings = [f"--{key}={value}" for key, value in small(num_epochs=400, eval_every=20, patience=0).items()]
    ends = {}
    for what in ("whole", "lost"):
        words = ["-m", "sasrec", "train", f"--dataset={events}", f"--train_dir={tmp_path / what}", *settings]
        agents = [start(1, *words, nodes=2, port=port, restarts=3, name=what)]
        wait_until(lambda port=port: listens(port))  # the first is the host
        agents.append(start(1, *words, nodes=2, port=port, restarts=3, name=what))
        if what == "lost":
            wait_until(lambda: any(tmp_path.glob("lost/checkpoints/step-*")))
            frozen = agents[1]
            # A machine without power answers nothing, as frozen processes do. A worker has a session of its own.
            subprocess.run(["pkill", "-STOP", "-P", str(frozen.pid)], check=True)
            os.kill(frozen.pid, signal.SIGSTOP)
            # It comes back after the others have noticed.
            workers = ["pgrep", "-P", str(agents[0].pid), "-f", "sasrec train"]
            wait_until(lambda workers=workers: subprocess.run(workers, stdout=subprocess.DEVNULL).returncode == 1)
            agents[1] = start(1, *words, nodes=2, port=port, restarts=3, name=what)
        ended = [finish(agent) for agent in agents]
        if what == "lost":
            subprocess.run(["pkill", "-KILL", "-P", str(frozen.pid)], check=True)
            frozen.kill()
            frozen.communicate()
        for status, said in ended:
            assert status == 0, said
        ends[what] = store.newest(tmp_path / what / "checkpoints", print)
        port = free_port()
    log = [json.loads(line) for line in (tmp_path / "lost/log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in log].count("resume") == 1
    assert all(
        torch.equal(ends["lost"].weights[name], ends["whole"].weights[name]) for name in ends["whole"].weights
    )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(there: Callable[[], bool]) -> None:
    for _ in range(900):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("not within 90 s")


@pytest.mark.slow
def test_a_port_in_use_ends_with_a_sentence(tmp_path: Path) -> None:
    """Started without torchrun's own store, as other launchers do: rank 0 serves the store at MASTER_PORT."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, said = by_hand(tmp_path, taken.getsockname()[1], "0")
    assert status == 1
    assert "another program may use it. Choose another MASTER_PORT" in said, said
    assert len(said.splitlines()) == 1, said


def by_hand(tmp_path: Path, port: int, number: str) -> tuple[int, str]:
    """Start one rank of two as a launcher without torchrun does."""
    place = {"WORLD_SIZE": "2", "RANK": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["train", f"--dataset={write_csv(tmp_path / 'events.csv')}", f"--train_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "sasrec", *words, "--device=cpu"],
        env=os.environ | place | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_rank_whose_others_never_come_says_so(tmp_path: Path) -> None:
    for number, missing in (("0", "rank 1 did not connect within 45 s"), ("1", "could not connect")):
        status, said = by_hand(tmp_path, free_port(), number)
        assert status == 1
        assert missing in said, said
        assert len(said.splitlines()) == 1, said


@pytest.mark.slow
def test_four_ranks_on_two_cores_make_the_run_of_one(tmp_path: Path) -> None:
    events = write_csv(tmp_path / "events.csv")
    settings = [f"--{key}={value}" for key, value in small(num_epochs=4, dropout_rate=0.0).items()]
    metrics = []
    for ranks in (1, 4):
        run = tmp_path / f"run-{ranks}"
        words = ["-m", "sasrec", "train", f"--dataset={events}", f"--train_dir={run}", *settings]
        status, said = finish(start(ranks, *words))
        assert status == 0, said
        metrics.append(json.loads((run / "metrics.json").read_text())["test"]["full"]["ndcg@10"])
    assert metrics[0] == pytest.approx(metrics[1], abs=0.02)
