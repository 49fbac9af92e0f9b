"""Machines that do not share a folder: what differs between their copies is named, and never mixed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sasrec
from tests.distributed.launch import finish, start
from tests.synthetic import chain_frame, small

# Each rank works in a folder of its own.
GO = 'cd "$1$RANK" && shift && exec {python} -m sasrec "$@"'


def on_own_disks(disks: Path, *words: str) -> tuple[int, str]:
    import sys

    script = disks.parent / "go.sh"
    script.write_text(GO.format(python=sys.executable))
    return finish(start(2, "--no-python", "bash", str(script), str(disks), *words), seconds=100)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same data, with other seeds."""
    folder = tmp_path_factory.mktemp("runs")
    data = sasrec.prepare(chain_frame())
    for seed in (0, 1):
        sasrec.train(data, folder / f"seed-{seed}", **small(num_epochs=2, seed=seed))
    return folder


def disks(runs: Path, tmp_path: Path, first: int, second: int) -> Path:
    """The folders disk-0 and disk-1, each with a run; returns their common beginning."""
    for rank, seed in enumerate((first, second)):
        shutil.copytree(runs / f"seed-{seed}", tmp_path / f"disk-{rank}/run")
    return tmp_path / "disk-"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "run", "--device=cpu"], "rank 1 has --seed 1, checkpoint with hash "),
        pytest.param(
            ["recommend", "run", "--all", "--output=top.parquet", "--device=cpu"],
            "rank 1 has weights with hash ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_models_are_never_mixed(runs: Path, tmp_path: Path, words: list[str], named: str) -> None:
    both = disks(runs, tmp_path, 0, 1)
    before = (tmp_path / "disk-0/run/metrics.json").read_bytes()
    status, said = on_own_disks(both, *words)
    assert status != 0
    assert named in said, said
    assert (tmp_path / "disk-0/run/metrics.json").read_bytes() == before
    assert not (tmp_path / "disk-0/top.parquet").exists()


@pytest.mark.slow
def test_a_run_that_is_resumed_on_copies_publishes_no_mixed_figures(runs: Path, tmp_path: Path) -> None:
    both = disks(runs, tmp_path, 0, 0)
    before = (tmp_path / "disk-0/run/metrics.json").read_bytes()
    words = ["train", "--train_dir=run", "--resume", "--num_epochs=6", "--device=cpu"]
    status, said = on_own_disks(both, *words)
    assert status != 0
    assert "checkpoint with hash" in said, said
    assert (tmp_path / "disk-0/run/metrics.json").read_bytes() == before


@pytest.mark.slow
def test_a_file_of_test_events_that_differs_is_named(runs: Path, tmp_path: Path) -> None:
    both = disks(runs, tmp_path, 0, 0)
    for rank in range(2):
        frame = chain_frame()
        frame.tail(100 - 20 * rank).write_csv(tmp_path / f"disk-{rank}/test.csv")
    status, said = on_own_disks(both, "evaluate", "run", "--test=test.csv", "--device=cpu")
    assert status != 0
    assert "rank 1 has the test events " in said, said


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--dataset=events.csv", "--train_dir=run-$RANK", "--device=cpu"],
        pytest.param(["evaluate", "run-$RANK", "--device=cpu"], marks=pytest.mark.slow),
    ],
)
def test_other_folders_are_named_and_nobody_waits(runs: Path, tmp_path: Path, words: list[str]) -> None:
    for rank in range(2):
        folder = tmp_path / f"disk-{rank}"
        shutil.copytree(runs / "seed-0", folder / f"run-{rank}") if words[0] == "evaluate" else folder.mkdir()
        chain_frame().write_csv(folder / "events.csv")
    script = tmp_path / "go.sh"
    import sys

    script.write_text(f'cd "{tmp_path}/disk-$RANK" && exec {sys.executable} -m sasrec {" ".join(words)}')
    status, said = finish(start(2, "--no-python", "bash", str(script)), seconds=60)
    assert status != 0
    assert "rank 1 has the folder run-1, but rank 0 has the folder run-0" in said, said


@pytest.mark.slow
def test_processes_with_different_commands_do_not_wait_for_each_other(runs: Path, tmp_path: Path) -> None:
    both = disks(runs, tmp_path, 0, 0)
    import sys

    train = f"{sys.executable} -m sasrec train --train_dir=run --device=cpu"
    script = tmp_path / "go.sh"
    script.write_text(
        f'cd "{both}$RANK"; if [ $RANK = 0 ]; then exec {train} --resume --num_epochs=5; '
        f"else rm -r run; exec {train} --dataset=events.csv; fi"
    )
    chain_frame().write_csv(tmp_path / "disk-1/events.csv")
    status, said = finish(start(2, "--no-python", "bash", str(script)), seconds=60)
    assert status != 0
    assert "wait for each other" in said or "rank 1 has " in said, said
