"""T8 and T14: a save that is cut short, by SIGKILL or by signals that can be heard, leaves nothing half done."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16, num_epochs=3)
CALLS = ("fsync", "rename", "mkdir", "rmdir", "unlink")  # what a save, and the pruning after it, asks of the disk


def in_a_child_killed_at(number: int, work: Any) -> bool:
    """Run `work` in a fork that kills itself before the number-th call of CALLS; whether it came to its end."""
    child = os.fork()
    if child == 0:
        left = [number]

        def counted(original: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            return call

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
            os._exit(0)
        finally:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), "an error, which is no kill"
    return status == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kills", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_saves_leave_a_whole_checkpoint_and_after_the_next_start_no_orphan(
    tmp_path: Path, kills: int
) -> None:
    checkpoints, chance = tmp_path / "checkpoints", random.Random(0)
    weights = {"table": torch.arange(1000.0), "layer": torch.ones(30, 30)}

    def save(step: int) -> None:
        state = {"step": step, "score": chance.random()}
        store.save(checkpoints, {name: tensor + step for name, tensor in weights.items()}, state, weights)
        store.prune(checkpoints, print)

    save(0)
    killed = step = 0
    while killed < kills:
        step += chance.randrange(2)  # a step that was saved before may be saved again, as after a validation
        before = store.newest(checkpoints, print).state["step"]
        killed += not in_a_child_killed_at(chance.randrange(1, 30), lambda step=step: save(step))
        found = store.newest(checkpoints, print)
        assert found.state["step"] in (before, step)
        assert torch.equal(found.weights["table"], weights["table"] + found.state["step"])
        assert store.best(checkpoints) in store.published(checkpoints)
        if chance.random() < 0.2:  # the next start
            store.prune(checkpoints, print)
            assert not [path for path in checkpoints.iterdir() if not path.name.startswith("step-")]
            assert len(store.published(checkpoints)) <= 3
    assert not (checkpoints / "quarantine").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("signals", [1, 2])
def test_signals_inside_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, signals: int
) -> None:
    """One lets the save come to its end; two quit at once, and the checkpoint before stays."""
    original, count = os.fsync, iter(range(10**6))
    times = []
    if signum != signal.SIGINT:  # nohup ignores SIGHUP, also for a suite that is started by it
        before = signal.signal(signum, signal.SIG_DFL)

    def fsync(descriptor: int) -> None:
        of_save = "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}")
        if of_save and next(count) == 7:  # inside the second save: each has five
            times.append(time.monotonic())
            for _ in range(signals):
                signal.raise_signal(signum)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt if signum == signal.SIGINT else SystemExit) as ended:
        sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL)
    if signum != signal.SIGINT:
        signal.signal(signum, before)
    assert time.monotonic() - times[0] < 10
    assert signum == signal.SIGINT or ended.value.code == 128 + signum
    published = store.published(tmp_path / "run/checkpoints")
    assert len(published) == 3 - signals
    assert store.newest(tmp_path / "run/checkpoints", print).path == published[-1], "all are whole"
    sasrec.resume(tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob(".*")), "orphans"


def test_a_signal_that_the_caller_ignores_or_handles_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nohup ignores SIGHUP, and a program can have a use of its own for SIGUSR1."""
    original, seen = os.fsync, []

    def fsync(descriptor: int) -> None:
        if not seen:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
        original(descriptor)

    previous = (
        signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1)),
    )
    try:
        monkeypatch.setattr(os, "fsync", fsync)
        assert sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL).metrics
    finally:
        for signum, handler in zip((signal.SIGHUP, signal.SIGUSR1), previous, strict=True):
            signal.signal(signum, handler)
    assert seen


def test_resuming_a_finished_run_deletes_what_a_killed_save_left(tmp_path: Path) -> None:
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL)
    left = tmp_path / "run/checkpoints/.step-00000007.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    sasrec.resume(tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
