"""Whichever process of a torchrun is killed at whatever moment, the run resumes and gives the same result."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from sasrec.checkpoint import store
from tests.distributed.launch import finish, start
from tests.synthetic import chain_frame

# In each attempt one process is killed: while it starts (after some seconds), in a save (at the n-th fsync), or in a
# step (at the n-th loss). Every kill, and the first step of every attempt, is recorded with its time.
SCRIPT = """
import json, os, signal, sys, threading, time
events, run, notes, plan, epochs = sys.argv[1:]
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
who, moment, when = json.loads(plan)[attempt] if attempt < len(json.loads(plan)) else (-1, "", 0)

def note(what):
    with open(notes, "a") as stream:
        stream.write(json.dumps([attempt, what, time.time()]) + chr(10))

def kill():
    note(moment)
    os.kill(os.getpid(), signal.SIGKILL)

if who == rank and moment == "init":
    timer = threading.Timer(when, kill)
    timer.daemon = True
    timer.start()
import sasrec
from sasrec.training import trainer

losses, syncs, original_loss, original_fsync = iter(range(10**9)), iter(range(10**9)), trainer.training_loss, os.fsync

def loss(*arguments):
    number = next(losses)
    if number == 0 and rank == 0:
        note("first step")
    if who == rank and moment == "step" and number == when:
        kill()
    return original_loss(*arguments)

def fsync(descriptor):
    if who == rank and moment == "save" and next(syncs) == when:
        kill()
    original_fsync(descriptor)

trainer.training_loss, os.fsync = loss, fsync
settings = dict(maxlen=12, hidden_units=16, batch_size=16, lr=1e-2, device="cpu", num_epochs=int(epochs), save_minutes=1e-4)
sasrec.train(events, run, **settings)
"""


def run_through(folder: Path, plan: list[tuple[int, str, float]], epochs: int) -> tuple[Path, list[Any]]:
    """Train on two processes with these kills. Returns the run and its notes."""
    run, notes = folder / "run", folder / "notes"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    words = [
        str(folder / "script.py"),
        str(folder.parent / "events.csv"),
        str(run),
        str(notes),
        json.dumps(plan),
        str(epochs),
    ]
    status, said = finish(start(2, *words, restarts=len(plan)), seconds=60 + 60 * len(plan))
    assert status == 0, said
    return run, [json.loads(line) for line in notes.read_text().splitlines()]


def recovery_times(notes: list[Any]) -> list[float]:
    """Seconds from each kill to the first step after it, without kills that another kill followed."""
    return [
        later[2] - sooner[2]
        for sooner, later in itertools.pairwise(notes)
        if sooner[1] != "first step" and later[1] == "first step"
    ]


def kills_end_the_same(
    tmp_path: Path, plans: Iterable[list[tuple[int, str, float]]], until: int, epochs: int = 15
) -> tuple[int, list[float]]:
    """Repeat runs with kills until there were at least `until` kills. Returns their number and the recovery times."""
    chain_frame().write_csv(tmp_path / "events.csv")
    whole, _ = run_through(tmp_path / "whole", [], epochs)
    expected = store.newest(whole / "checkpoints", print)
    kills, times = 0, []
    for number, plan in enumerate(plans):
        run, notes = run_through(tmp_path / f"killed-{number}", plan, epochs)
        found = store.newest(run / "checkpoints", print)
        assert all(torch.equal(found.weights[name], expected.weights[name]) for name in expected.weights)
        assert all(torch.equal(found.optimizer[name], expected.optimizer[name]) for name in expected.optimizer)
        assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()
        assert not list((run / "checkpoints").glob(".*")), "orphans"
        kills += sum(note[1] != "first step" for note in notes)
        times += recovery_times(notes)
        if kills >= until:
            break
    return kills, times


@pytest.mark.slow
def test_killed_in_a_save_and_while_starting_the_run_goes_on(tmp_path: Path) -> None:
    kills, times = kills_end_the_same(tmp_path, [[(0, "save", 9), (1, "init", 0.5)]], until=2, epochs=3)
    assert kills == 2
    assert max(times) < 30


@pytest.mark.slow
def test_fifty_kills_of_any_rank_at_any_time_lose_nothing_and_hang_never(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    moments = {
        "init": lambda: (chance.randrange(2), "init", chance.uniform(0.0, 4.0)),
        "save": lambda: (0, "save", chance.randrange(25)),
        "step": lambda: (chance.randrange(2), "step", chance.randrange(8)),
    }
    plans = ([moments[chance.choice(list(moments))]() for _ in range(5)] for _ in range(25))
    kills, times = kills_end_the_same(tmp_path, plans, until=50)
    assert kills >= 50
    p95 = sorted(times)[int(0.95 * len(times))]
    with capsys.disabled():
        median, longest = statistics.median(times), max(times)
        sys.stderr.write(
            f"\n{kills} kills; to the next step: median {median:.1f} s, p95 {p95:.1f}, max {longest:.1f}\n"
        )
    assert p95 <= 10
