"""A search proposes points that can be trained, from what it has seen, and stops a run only behind the noise."""

from __future__ import annotations

import math
import re
import statistics
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest

from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.locks import only_writer
from sasrec.studies.plan import kept_plan, read_plan
from sasrec.studies.search import Search, cannot_win
from sasrec.studies.study import compared, open_study
from tests.synthetic import write_csv

SPACE: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "num_heads": [1, 2, 3],
    "num_blocks": {"low": 1, "high": 4},
}
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
[search]
trials = 2
confirm = 1
[search.space]
lr = {low = 1e-4, high = 1e-1, log = true}
num_heads = [1, 2, 3]
"""


def tried(search: Search, base: RunConfig, count: int) -> list[Any]:
    """Trials whose value is higher, the closer lr is to 1e-2, by its logarithm."""
    found: list[Any] = []
    for number in range(count):
        point, distributions = search.propose(base, found, number)
        value = -abs(math.log10(point["lr"]) + 2)
        found.append(optuna.trial.create_trial(params=point, distributions=distributions, value=value))
    return found


def test_points_lie_in_the_space_can_be_trained_and_come_again() -> None:
    search = Search.model_validate({"trials": 30, "space": SPACE})
    base = RunConfig().replace(hidden_units=8)  # 3 heads do not divide it
    trials = tried(search, base, 20)
    assert {trial.params["num_heads"] for trial in trials} == {1, 2}
    assert all(1e-4 <= trial.params["lr"] <= 1e-1 for trial in trials)
    assert {type(trial.params["num_blocks"]) for trial in trials} == {int}
    assert [trial.params for trial in tried(search, base, 20)] == [trial.params for trial in trials]


def test_no_point_is_tried_twice_and_none_is_the_settings_themselves() -> None:
    # Equal settings with the same seed give the same run, which cannot be compared with itself.
    space = {"num_blocks": {"low": 1, "high": 4}, "num_heads": [1, 2, 3]}
    base = RunConfig().replace(hidden_units=8, num_blocks=2, num_heads=1)
    search = Search.model_validate({"trials": 7, "space": space})
    found: list[Any] = []
    for number in range(7):
        point, distributions = search.propose(base, found, number)
        found.append(optuna.trial.create_trial(params=point, distributions=distributions, value=number / 10))
    points = {(trial.params["num_blocks"], trial.params["num_heads"]) for trial in found}
    assert points == {(blocks, heads) for blocks in (1, 2, 3, 4) for heads in (1, 2)} - {(2, 1)}
    with pytest.raises(ConfigError, match=r"none of 200 points of \[search.space\]"):
        search.propose(base, found, 7)


def test_tpe_comes_closer_to_the_best_than_chance() -> None:
    space = {"lr": SPACE["lr"]}
    guided = Search.model_validate({"trials": 30, "space": space})
    chance = Search.model_validate({"trials": 30, "space": space, "sampler": "random"})
    apart = [
        statistics.fmean(-trial.value for trial in tried(search, RunConfig(), 30)[10:])
        for search in (guided, chance)
    ]
    assert apart[0] < apart[1] / 2


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({1: 0.10, 2: 0.15}, True),
        ({1: 0.10, 2: 0.29}, False),  # within twice the noise, .02, of the median, .32
        ({1: 0.33, 2: 0.10}, False),  # its best score counts
        ({}, False),
    ],
)
def test_a_run_is_stopped_only_behind_twice_the_noise_between_seeds(own: dict[int, float], expected: bool) -> None:
    finished = [{1: 0.2, 2: 0.30 + 0.01 * number} for number in range(5)]
    by_seed = [{1: 0.20, 2: 0.30}, {1: 0.22, 2: 0.328}]
    assert cannot_win(own, finished, by_seed) is expected
    assert not cannot_win(own, finished[:4], by_seed)
    assert not cannot_win(own, finished, by_seed[:1])


def test_no_run_is_stopped_before_half_of_the_epochs_that_others_needed() -> None:
    finished = [{5: 0.2, 10: 0.25, 20: 0.3}] * 5
    by_seed = [{5: 0.20, 10: 0.25}, {5: 0.201, 10: 0.251}]
    assert not cannot_win({5: 0.01}, finished, by_seed)
    assert cannot_win({5: 0.01, 10: 0.02}, finished, by_seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_heads = [1, 2, 3]", "num_heads = [3, 5]"), "line 14: none of 200 points .* can be trained"),
        (("low = 1e-4", "low = 1"), "line 15: search.space.lr"),
        (("high = 1e-1, log", "high = 1e-5, log"), "line 15: .*low must be less than high"),
        (("low = 1e-4", "low = -1.0"), "line 15: .*with log it must be more than 0"),
        (("num_heads = [1, 2, 3]", "dropout_rate = {low = 0.0, high = 2.0}"), "line 16: `dropout_rate` must be"),
        (("num_heads = [1, 2, 3]", "num_head = [1, 2]"), "line 16: 'num_head' is not a setting"),
        (("num_heads = [1, 2, 3]", "seed = [1, 2]"), "line 16: `seed` is not a setting of a single run"),
        (("trials = 2", "trials = 0"), "line 12: search.trials"),
        (("trials = 2", "prune = true\ntrials = 2\n[x]"), "x: Extra inputs"),
        (("seeds = [0, 1]", 'metric = "test.full.ndcg@10"'), "line 3: .*would see the test targets"),
        (("confirm = 1", 'sampler = "cma"'), "line 13: search.sampler"),
        (("num_heads = [1, 2, 3]", "num_blocks = [1]"), r"line 16: search\.space\.num_blocks: .*at least 2 items"),
        (
            ("num_heads = [1, 2, 3]", "num_blocks = [2, 2]"),
            r"line 16: search\.space\.num_blocks: a value occurs twice",
        ),
        (("num_heads = [1, 2, 3]", 'norm = ["pre", "pst"]'), r"line 16: .*norm: Input should be .*found 'pst'"),
        (
            ("num_heads = [1, 2, 3]", "save_minutes = [1.0, 2.0]"),
            "line 16: save_minutes does not change the weights",
        ),
        (
            ("[search]", "[grid]\nlr = [0.1, 0.2]\n[search]"),
            r"line 17: lr has values in \[grid\] or \[cells\] too",
        ),
        (
            ("[search]", "[cells.a]\n[cells.a_trial-0]\nmaxlen = 9\n[search]"),
            "line 12: the name a_trial-0 is taken",
        ),
        (("lr = {low = 1e-4, high = 1e-1, log = true}\n", ""), "line 12: trials is 2, but .* only 1 point beside"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused_with_its_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = tmp_path / "search.toml"
    path.write_text(STUDY.replace(*change))
    with pytest.raises(ConfigError) as error:
        read_plan(path)
    assert re.search(message, str(error.value))


def test_prune_needs_two_seeds(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text(STUDY.replace("seeds = [0, 1]", "").replace("confirm = 1", "prune = true"))
    with pytest.raises(ConfigError, match=r"line 13: .*Name at least two seeds"):
        read_plan(path)


def test_a_search_trains_its_points_confirms_the_best_and_compares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("events.csv"))
    Path("search.toml").write_text(STUDY)
    plan, queue = open_study("search.toml")
    assert main(["study", "work", "study"]) == 0
    entries = queue.entries()
    assert len(entries) == plan.runs == 2 + 2 + 1
    assert {entry.state for entry in entries} == {"done"}
    (best,) = queue.best("default", 1)
    assert best.value == max(entry.value or 0 for entry in entries if entry.point and entry.run.endswith("0"))
    assert best.job is not None
    assert entries[-1].run == f"{best.job.cell}/seed-1"
    assert entries[-1].point == best.point
    found = compared("study")
    assert found is not None
    assert [side.side.name for side in found.others] == [f"{best.job.cell} (2 seeds)"]
    assert main(["study", "status", "study"]) == 0
    assert f"lr={best.point['lr']:.4g}" in capsys.readouterr().out  # type: ignore[index]
    # The study continues only as it began, or with more trials.
    Path("search.toml").write_text(STUDY.replace("high = 1e-1", "high = 2e-1"))
    assert main(["study", "run", "search.toml"]) == 1
    assert "has begun with another [search]: space was" in capsys.readouterr().err
    Path("search.toml").write_text(STUDY.replace("trials = 2", "trials = 3"))
    assert main(["study", "run", "search.toml"]) == 1
    read_plan("search.toml").keep(add=True)
    assert kept_plan(Path("study")).runs == 6


def test_the_other_seeds_of_the_best_point_are_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("events.csv"))
    Path("search.toml").write_text(STUDY.replace("confirm = 1", "confirm = 1\nprune = true"))
    monkeypatch.setattr("sasrec.studies.queue.cannot_win", lambda _, finished, __: len(finished) >= 2)
    _, queue = open_study("search.toml")
    assert main(["study", "work", "study"]) == 0
    assert [entry.state for entry in queue.entries()] == ["done"] * 5


@pytest.mark.slow
def test_a_study_ends_when_its_hours_are_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("events.csv"))
    Path("search.toml").write_text("hours = 1e-7\n" + STUDY)
    assert main(["study", "run", "search.toml"]) == 0
    said = capsys.readouterr()
    assert "hours of the study are spent; 4 runs are not trained" in said.err
    assert said.out.count("done") == 1


def test_a_run_that_another_process_holds_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("search.toml").write_text(
        STUDY.replace("seeds = [0, 1]", "seeds = [0]").replace("trials = 2", "trials = 1")
    )
    _, queue = open_study("search.toml")
    held, release = threading.Event(), threading.Event()

    def other() -> None:
        with (
            only_writer(Path("study/default/seed-0"), "training"),
            only_writer(Path("study/default_trial-0/seed-0"), "training"),
        ):
            held.set()
            release.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10)
    with queue.claim() as nothing:
        assert nothing is None
    assert [entry.state for entry in queue.entries()] == ["queued", "queued"]
    release.set()
    thread.join()
    with queue.claim() as entry:
        assert entry is not None
        assert entry.run == "default/seed-0"
