"""A study is trained as its file says, whatever lies in its folder; what was lost is trained again."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sasrec.cli.main import main
from sasrec.errors import ConfigError, DataError
from sasrec.runs.folder import RunFolder
from sasrec.studies import study
from sasrec.studies.plan import kept_plan
from sasrec.studies.queue import Queue
from tests.synthetic import chain_frame, write_csv

STUDY = """\
dataset = "events.csv"
train_dir = "study"
seeds = [0, 1]
[settings]
hidden_units = 8
maxlen = 8
batch_size = 16
num_blocks = 1
num_epochs = 1
device = "cpu"
"""
SEARCH = "[search]\ntrials = 2\n[search.space]\nlr = {low = 1e-4, high = 1e-1, log = true}\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("events.csv"))
    Path("study.toml").write_text(STUDY)
    return Path("study.toml")


def states(path: Path) -> dict[str, str]:
    return {row.entry.run: row.entry.state for row in study.rows(*study.begun_study(path))}


def test_a_run_with_other_settings_is_not_taken_for_that_of_the_study(path: Path) -> None:
    path.write_text(STUDY.replace("[0, 1]", "[0]"))
    study.open_study(path)
    assert study.work("study") == 1
    # Somebody removes the plan, because the file may not change.
    Path("study/study.json").unlink()
    path.write_text(STUDY.replace("[0, 1]", "[0]").replace("num_epochs = 1", "num_epochs = 2"))
    study.open_study(path)
    assert study.work("study") == 0
    ((_, queue),) = [study.begun_study(path)]
    (entry,) = queue.entries()
    assert entry.state == "failed"
    assert entry.reason == (
        "study/default/seed-0 has a run with other settings (num_epochs=1). Remove this folder, then use "
        "`sasrec study retry`."
    )
    shutil.rmtree("study/default/seed-0")
    assert queue.retry() == ["default/seed-0"]
    assert study.work("study") == 1
    assert RunFolder("study/default/seed-0").config().training.num_epochs == 2


def test_settings_of_the_data_are_used_once(path: Path) -> None:
    chain_frame().rename({"user": "who"}).write_csv("events.csv")
    path.write_text(STUDY + 'user_column = "who"\n')
    study.open_study(path)
    assert study.work("study") == 2


def test_finished_runs_whose_folder_is_gone_are_trained_again(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(STUDY + "[grid]\nnum_blocks = [1, 2]\n")
    study.open_study(path)
    assert study.work("study") == 4
    shutil.rmtree("study/num_blocks-1/seed-1")
    with pytest.raises(
        ConfigError, match=r"results of study/num_blocks-1/seed-1 are gone.*study retry study.toml"
    ):
        study.compared(path)
    assert study.begun_study(path)[1].retry() == ["num_blocks-1/seed-1"]
    assert study.work("study") == 1
    found = study.compared(path, metric="mrr")
    assert found is not None
    assert found.metric == "mrr"


def test_one_cell_alone_is_not_compared_with_itself(path: Path) -> None:
    study.open_study(path)
    assert study.work("study") == 2
    assert study.compared(path) is None


def test_a_worker_of_a_stopped_study_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.open_study(path)
    study.stop(path)
    assert main(["study", "work", "study"]) == 0
    assert "the study was stopped. Continue it with `sasrec study run study`" in capsys.readouterr().err
    assert set(states(path).values()) == {"queued"}


def test_a_stop_is_only_forgotten_before_the_study_can_be_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.open_study(path)
    study.stop(path)  # of an earlier call

    def stopped(*_: Any) -> list[str]:  # while this one imports PyTorch
        assert not Path("study/stop").exists()
        study.stop(path)
        return []

    monkeypatch.setattr(study, "devices_here", stopped)
    study.run_study(path)
    assert set(states(path).values()) == {"queued"}


def test_a_stop_after_the_work_does_not_end_the_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(study, "_LOOK", 0.05)
    monkeypatch.setattr("os.kill", lambda _, number: asked.append(number) if number else None)
    study.open_study(path)
    assert study.work("study") == 2
    study.stop(path)
    time.sleep(0.5)
    assert asked == []


def test_two_that_begin_a_study_at_once_have_the_same_queue(path: Path) -> None:
    together = threading.Barrier(4)
    found: list[Any] = []

    def begin() -> None:
        together.wait()
        try:
            found.append(study.open_study(path)[0].id)
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [kept_plan(Path("study")).id] * 4


def test_a_search_that_lacks_points_is_not_finished(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(STUDY.replace("[0, 1]", "[0]") + SEARCH)
    plan, queue = study.open_study(path)
    with queue.claim() as entry:
        assert entry is not None
        queue.done(entry, 0.5, 1.0)
    # Between two points nothing is queued and nothing runs.
    assert queue.is_open()
    assert plan.runs == 3
    assert len(queue.entries()) == 1


def test_a_run_that_the_plan_does_not_have_does_not_keep_workers(path: Path) -> None:
    plan, before = study.open_study(path)
    for _ in plan.jobs:
        with before.claim() as entry:
            assert entry is not None
            before.done(entry, 0.5, 1.0)
    assert not before.is_open()
    Path("study/data").mkdir()
    Path("study/data/manifest.json").write_text("{}")
    path.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    _, after = study.open_study(path, add=True)
    assert after.is_open()
    assert not before.is_open()


def test_a_run_that_was_stopped_but_not_recorded_is_not_trained_further(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker is killed after it stopped a run that cannot win, and before it says so in the queue.
    path.write_text(STUDY.replace("[0, 1]", "[0]").replace("num_epochs = 1", "num_epochs = 3"))
    _, queue = study.open_study(path)
    monkeypatch.setattr(Queue, "cannot_win", lambda *_: True)
    with monkeypatch.context() as killed:
        killed.setattr(Queue, "pruned", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            study.work("study")
    log = Path("study/default/seed-0/log.jsonl")
    before = log.read_bytes()
    assert study.work("study") == 0
    assert [entry.state for entry in queue.entries()] == ["pruned"]
    assert log.read_bytes() == before


def test_damaged_data_is_prepared_again_where_the_message_says(path: Path) -> None:
    study.open_study(path)
    assert study.work("study") == 2
    next(Path("study/data").glob("data-*/offsets.bin")).write_bytes(b"")
    with pytest.raises(DataError, match=r"To do so, remove study/data, and run the study again\."):
        study.work("study")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda path: study.run_study(path, workers=0), "`workers` must be a whole number from 1, not 0"),
        (lambda path: study.run_study(path, workers=-1), "`workers` must be a whole number from 1, not -1"),
        (lambda path: study.run_study(path, workers="2"), "`workers` must be a whole number from 1, not '2'"),
        (lambda path: study.run_study(path, workers=True), "`workers` must be a whole number from 1, not True"),
        (lambda path: study.run_study(path, per_device=0), "`per_device` must be a whole number from 1, not 0"),
        (lambda path: study.work(path, per_device=0.5), "`per_device` must be a whole number from 1, not 0.5"),
        (
            lambda _: study.run_study(None),
            "a study is named by the path of its TOML file or of its folder, not by None",
        ),
        (lambda _: study.begun_study(["a"]), r"a study is named by .*, not by \['a'\]"),
        (lambda _: study.compared(""), "a study is named by .*, not by ''"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    path: Path, call: Callable[[Path], Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        call(path)
    assert not Path("study").exists()


def test_a_run_that_another_worker_has_just_taken_is_left_to_it(path: Path) -> None:
    """Between taking the lock and signing it there is a moment in which nobody knows whose lock it is."""
    _, queue = study.open_study(path)
    first, second = (entry.run for entry in queue.entries())
    taken = Path("study") / first
    taken.mkdir(parents=True)
    with FileLock(taken / ".sasrec.lock"), queue.claim() as entry:
        assert entry is not None
        assert entry.run == second
