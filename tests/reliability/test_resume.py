"""A run that was interrupted ends as one that was not: weights, optimizer, metrics, to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from sasrec.errors import CheckpointError, ConfigError, TrainingError
from sasrec.evaluation import target_ranks
from sasrec.runtime import signals
from sasrec.training import trainer
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16)
KINDS: dict[str, dict[str, Any]] = {
    "ce": {"num_epochs": 5},
    "bce, everything": {
        "num_epochs": 6,
        "eval_every": 2,
        "patience": 2,
        "loss": "bce",
        "time": True,
        "mhc": True,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "schedule": "cosine",
        "warmup_steps": 5,
        "clip_norm": 0.5,
        "accumulate": 2,
        "l2_emb": 1e-5,
    },
}


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any], Any]:
    """Weights, optimizer and state of the newest checkpoint, and the metrics."""
    found = store.newest(run / "checkpoints", print)
    state = {key: value for key, value in found.state["training"].items() if key != "seconds"}
    return found.weights, found.optimizer, state, json.loads((run / "metrics.json").read_text())


def assert_same(run: Path, reference: Path) -> None:
    """To the bit."""
    for found, expected in zip(outcome(run)[:2], outcome(reference)[:2], strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert outcome(run)[2:] == outcome(reference)[2:]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Ctrl-C in the middle of those calls of the loss, counted over all sessions."""
    original, count = trainer.training_loss, iter(range(10**6))

    def loss(*arguments: Any) -> torch.Tensor:
        if next(count) in steps:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(trainer, "training_loss", loss)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_in_mid_epoch_and_between_epochs_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data, settings = sasrec.prepare(chain_frame()), SMALL | KINDS[kind]
    sasrec.train(data, tmp_path / "whole", **settings)
    interrupt_at(monkeypatch, {0, 3, 4, 9, 17})
    with pytest.raises(KeyboardInterrupt):
        sasrec.train(data, tmp_path / "cut", **settings)
    sessions = 1
    while True:
        sessions += 1
        try:
            sasrec.resume(tmp_path / "cut")
            break
        except KeyboardInterrupt:
            pass
    assert sessions >= 4
    assert_same(tmp_path / "cut", tmp_path / "whole")
    before = outcome(tmp_path / "cut")
    sasrec.resume(tmp_path / "cut")
    assert outcome(tmp_path / "cut")[3] == before[3], "a finished run is measured again, not trained on"


def test_a_second_signal_in_the_middle_of_an_update_saves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "whole", num_epochs=4, **SMALL)
    original, count = torch.optim.Adam.step, iter(range(10**6))

    def step(self: torch.optim.Adam, *arguments: Any) -> None:
        original(self, *arguments)
        if next(count) == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(KeyboardInterrupt):
        sasrec.train(data, tmp_path / "cut", num_epochs=4, **SMALL)
    assert store.newest(tmp_path / "cut/checkpoints", print).state["step"] == 4
    sasrec.resume(tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_validation_that_was_cut_short_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    """Also when it is the last."""
    data = sasrec.prepare(chain_frame())
    settings = SMALL | {"num_epochs": 4, "eval_every": 2, "save_minutes": 1e-9 if signals == 2 else 0}
    sasrec.train(data, tmp_path / "whole", **settings)
    for validation in (0, 1):
        baselines = 4  # they are measured before training
        original, count = target_ranks.candidate_scores, iter(range(-baselines, 10**6))

        def scores(*arguments: Any, original=original, count=count, at=validation, **options: Any) -> Any:
            if next(count) == at:
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(target_ranks, "candidate_scores", scores)
            run = tmp_path / f"cut-{validation}"
            with pytest.raises(KeyboardInterrupt):
                sasrec.train(data, run, **settings)
        kept = store.newest(run / "checkpoints", print).state
        # A single signal ends the validation, and what it was to measure is saved; a second saves nothing.
        assert (kept["step"], kept["score"]) == (8 * validation + (8 if signals == 1 else 7), None)
        sasrec.resume(run)
        assert_same(run, tmp_path / "whole")
        assert store.best(run / "checkpoints").name == store.best(tmp_path / "whole/checkpoints").name


def test_when_time_is_over_within_an_epoch_training_validates_and_stops_there(tmp_path: Path) -> None:
    """And, given more time, goes on as if it had never stopped."""
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "whole", num_epochs=2, **SMALL)
    for step in (1, 2):
        go_on = sasrec.train if step == 1 else sasrec.resume
        arguments = [data, tmp_path / "run"] if step == 1 else [tmp_path / "run"]
        settings = SMALL | {"num_epochs": 2} if step == 1 else {}
        go_on(*arguments, max_minutes=1e-9, **settings)
        last = store.newest(tmp_path / "run/checkpoints", print).state
        assert (last["training"]["epoch"], last["training"]["epoch_step"]) == (0, 1), "time was over at once"
        assert last["score"] is not None
        assert last["training"]["best_epoch"] == 1
    sasrec.resume(tmp_path / "run", max_minutes=0.0)
    for found, expected in zip(outcome(tmp_path / "run")[:2], outcome(tmp_path / "whole")[:2], strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_finished_run_trains_on_when_its_limit_is_raised(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "whole", num_epochs=6, **SMALL)
    sasrec.train(data, tmp_path / "two", num_epochs=2, **SMALL)
    sasrec.resume(tmp_path / "two", num_epochs=6)
    assert_same(tmp_path / "two", tmp_path / "whole")


def test_a_resume_with_another_number_of_threads_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    kept = store.newest(tmp_path / "run/checkpoints", print).state["surroundings"]
    threads = torch.get_num_threads()
    assert kept["threads"] == threads
    assert kept["device"] == "CPU"
    assert kept["PyTorch"] == torch.__version__
    sasrec.resume(tmp_path / "run", num_epochs=2)
    assert "last digits" not in capsys.readouterr().err
    torch.set_num_threads(threads + 1)
    try:
        sasrec.resume(tmp_path / "run", num_epochs=3)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().err
    assert f"note: this run continues with threads {threads + 1} (before: {threads}), so the last digits" in said


def test_deterministic_changes_no_bit_on_the_cpu_and_stands_in_the_card(tmp_path: Path) -> None:
    settings = small(num_epochs=2, time=True)
    for name, wanted in (("plain", False), ("deterministic", True)):
        recommender = sasrec.train(chain_frame(), tmp_path / name, **settings, deterministic=wanted)
        assert recommender.metrics is not None
        on = {"device": "CPU", "deterministic": wanted}
        assert recommender.metrics["protocol"]["computed_on"] == on
        assert sasrec.evaluate(tmp_path / name)["protocol"]["computed_on"] == on
    weights = [store.newest(tmp_path / name / "checkpoints", print).weights for name in ("plain", "deterministic")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_refuses_what_would_not_be_the_same_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sasrec.train(sasrec.prepare(chain_frame()), run, num_epochs=1, **SMALL)
    with pytest.raises(CheckpointError, match="does not exist"):
        sasrec.resume(tmp_path / "elsewhere")
    for setting in ({"lr": 0.5}, {"maxlen": 13}, {"loss": "bce"}, {"seed": 3}, {"mhc": True}):
        (name,) = setting
        with pytest.raises(ConfigError, match=f"`{name}` was .* when this run began and is .* now"):
            sasrec.resume(run, **setting)
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "cosine", num_epochs=1, schedule="cosine", **SMALL)
    with pytest.raises(ConfigError, match=r"'nowhere.csv' is not a prepared folder"):
        sasrec.resume(run, dataset="nowhere.csv")
    with pytest.raises(ConfigError, match="`num_epochs` was 1"):
        sasrec.resume(tmp_path / "cosine", num_epochs=2)
    shutil.rmtree(run / "dataset")
    sasrec.prepare(chain_frame(users=61)).save(run / "dataset")
    with pytest.raises(CheckpointError, match="other data"):
        sasrec.resume(run)


def test_resume_passes_over_damaged_checkpoints_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "whole", num_epochs=4, **SMALL)
    sasrec.train(data, tmp_path / "run", num_epochs=3, **SMALL)
    older, newest = store.published(tmp_path / "run/checkpoints")[-2:]
    oldest = store.published(tmp_path / "run/checkpoints")[0]
    if oldest != older:
        (oldest / "state.json").write_text("{}")
    (newest / "optimizer.safetensors").write_bytes((newest / "optimizer.safetensors").read_bytes()[:-1])
    sasrec.resume(tmp_path / "run", num_epochs=4)
    assert "optimizer.safetensors has changed" in capsys.readouterr().err
    assert (tmp_path / "run/checkpoints/quarantine" / newest.name).exists()
    assert_same(tmp_path / "run", tmp_path / "whole")


SCRIPT = """
import os, signal, sys, threading, time
import sasrec
from sasrec.checkpoint import store
run, moment = sys.argv[1], sys.argv[2]
if moment.startswith("save"):  # in the middle of writing or publishing a checkpoint
    number, left, original = int(moment[4:]), [], os.fsync
    def fsync(descriptor):
        left.append(1)
        if len(left) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        original(descriptor)
    os.fsync = fsync
elif moment != "never":
    threading.Timer(float(moment), os.kill, (os.getpid(), signal.SIGKILL)).start()
settings = dict(maxlen=12, hidden_units=16, batch_size=16, lr=1e-2, device="cpu", num_epochs=12, save_minutes=1e-4)
from sasrec.runs.folder import RunFolder
if RunFolder(run).can_resume():
    sasrec.resume(run)
else:
    sasrec.train(sys.argv[3], run, **settings)
"""


def kill_trials(tmp_path: Path, kills: int, saves: int, sessions: int) -> None:
    """T1: `kills` kills -9, `saves` of them inside a save, at most `sessions` in one run; then run to the end."""
    chain_frame().write_csv(tmp_path / "events.csv")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def session(run: Path, moment: str) -> int:
        command = [sys.executable, "-c", SCRIPT, str(run), moment, str(tmp_path / "events.csv")]
        return subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode

    began = time.monotonic()
    assert session(tmp_path / "whole", "never") == 0
    length = time.monotonic() - began
    chance = random.Random(0)
    done = trial = 0
    while done < kills:
        run, trial = tmp_path / f"run-{trial}", trial + 1
        for _ in range(sessions):
            inside = done < saves
            moment = f"save{chance.randrange(1, 40)}" if inside else str(chance.uniform(0.3, 1.0) * length)
            if session(run, moment) != -signal.SIGKILL:
                break  # it came to its end first
            done += 1
        assert session(run, "never") == 0
        assert_same(run, tmp_path / "whole")
        assert not list((run / "checkpoints").glob(".*")), "orphans"


def test_kill_9_at_any_time_and_inside_a_save_loses_nothing(tmp_path: Path) -> None:
    kill_trials(tmp_path, kills=2, saves=1, sessions=2)


@pytest.mark.slow
def test_fifty_kills_of_which_twenty_inside_a_save_lose_nothing(tmp_path: Path) -> None:
    kill_trials(tmp_path, kills=50, saves=20, sessions=5)


def test_sigterm_saves_and_exits_with_143_and_the_run_goes_on(tmp_path: Path) -> None:
    chain_frame().write_csv(tmp_path / "events.csv")
    arguments = [f"--{name}={value}" for name, value in SMALL.items()]
    train = [sys.executable, "-m", "sasrec", "train", f"--train_dir={tmp_path / 'run'}"]
    with subprocess.Popen(
        [*train, f"--dataset={tmp_path / 'events.csv'}", "--num_epochs=100000", "--patience=0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("epoch    3"):
                break
        first.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert "--resume" in first.stderr.read()
        assert first.wait(timeout=60) == 143
        assert time.monotonic() - began < 10
    steps = store.newest(tmp_path / "run/checkpoints", print).state["step"]
    assert subprocess.run([*train, "--resume", "--num_epochs=4"], capture_output=True).returncode == 0
    assert store.newest(tmp_path / "run/checkpoints", print).state["step"] >= steps


def test_a_checkpoint_that_was_being_replaced_is_found_again(tmp_path: Path) -> None:
    """A kill between the two renames of a save leaves it without its name; nothing else may begin there."""
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "run", num_epochs=1, **SMALL)
    (only,) = store.published(tmp_path / "run/checkpoints")
    only.rename(only.with_name(f".{only.name}.old"))
    with pytest.raises(ConfigError, match="already holds a run"):
        sasrec.train(data, tmp_path / "run", num_epochs=1, **SMALL)
    sasrec.resume(tmp_path / "run", num_epochs=2)
    assert store.newest(tmp_path / "run/checkpoints", print).state["step"] == 8


def test_a_signal_at_the_very_end_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt), signals.deferred_interrupt(second_quits=True):
        signal.raise_signal(signal.SIGINT)
    assert signals.pending() == 0


def test_under_torchrun_a_repeated_signal_still_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun passes on what the process was sent already."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    original, count = trainer.training_loss, iter(range(10**6))

    def loss(*arguments: Any) -> torch.Tensor:
        if next(count) == 5:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(trainer, "training_loss", loss)
    with pytest.raises(SystemExit):
        sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", num_epochs=3, **SMALL)
    assert store.newest(tmp_path / "run/checkpoints", print).state["step"] == 6


def test_a_restart_goes_on_though_an_earlier_try_in_the_folder_came_to_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, log = sasrec.prepare(chain_frame()), tmp_path / "run/log.jsonl"
    with pytest.raises(TrainingError):
        sasrec.train(data, tmp_path / "run", temperature=1e-38, **SMALL)
    log.write_text(log.read_text() + '{"event": "sta')  # and a line cut short
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this")
    sasrec.train(data, tmp_path / "run", num_epochs=1, **SMALL)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    sasrec.train(data, tmp_path / "run", num_epochs=1, **SMALL)
    assert '"resume"' in log.read_text()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    with pytest.raises(ConfigError, match="already holds a run"):
        sasrec.train(data, tmp_path / "run", num_epochs=1, **SMALL)


def test_the_loss_of_an_epoch_survives_a_validation_before_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "whole", num_epochs=1, **SMALL)
    interrupt_at(monkeypatch, {1})
    with pytest.raises(KeyboardInterrupt):
        sasrec.train(data, tmp_path / "cut", num_epochs=1, **SMALL)
    sasrec.resume(tmp_path / "cut", max_minutes=1e-9)
    sasrec.resume(tmp_path / "cut", max_minutes=0.0)
    assert outcome(tmp_path / "cut")[2]["loss"] == outcome(tmp_path / "whole")[2]["loss"]


def test_save_minutes_also_acts_where_an_epoch_is_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, original = [], store.save

    def save(folder: Path, weights: Any, state: Any, optimizer: Any) -> Path:
        saved.append(state["step"])
        return original(folder, weights, state, optimizer)

    monkeypatch.setattr(store, "save", save)
    settings = SMALL | {"batch_size": 1000, "eval_every": 3, "save_minutes": 1e-9}
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", num_epochs=3, **settings)
    assert saved == [1, 2, 3]


def test_prepared_data_may_move_between_sessions(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(), output=tmp_path / "here")
    sasrec.train(tmp_path / "here", tmp_path / "run", num_epochs=1, **SMALL)
    shutil.move(tmp_path / "here", tmp_path / "there")
    sasrec.resume(tmp_path / "run", num_epochs=2, dataset=str(tmp_path / "there"))
    assert len(sasrec.load(tmp_path / "run").recommend(["item-03"])) == 10


def test_the_data_of_a_run_is_found_again_wherever_it_came_from(tmp_path: Path) -> None:
    """A file named in config.toml is not read again: the run has its own copy."""
    path = tmp_path / "events.csv"
    chain_frame().write_csv(path)
    sasrec.train(path, tmp_path / "run", num_epochs=1, **SMALL)
    pl.DataFrame({"user": ["a"], "item": ["b"]}).write_csv(path)
    sasrec.resume(tmp_path / "run", num_epochs=2)
    assert sasrec.RunConfig.load(tmp_path / "run/config.toml").data.dataset == str(path)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert len(sasrec.load(tmp_path / "moved").recommend(["item-03"])) == 10


def test_copies_beside_the_checkpoints_are_none(tmp_path: Path) -> None:
    """They sort after ours, so they once counted as the newest, and every new checkpoint was deleted."""
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=2))
    kept = tmp_path / "run/checkpoints"
    for name in ("step-keep1", "step-keep2"):
        shutil.copytree(sorted(kept.glob("step-0*"))[-1], kept / name)
    sasrec.resume(tmp_path / "run", num_epochs=5)
    assert store.newest(kept, print).state["epoch"] == 5
    assert {path.name for path in kept.glob("step-keep*")} == {"step-keep1", "step-keep2"}
    assert not (kept / "quarantine").exists()
