"""A study whose workers are killed at any moment ends with every run trained once, with the results of a quiet one."""

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

import pytest

from sasrec.cli.main import main
from sasrec.studies.study import open_study, rows
from tests.synthetic import write_csv

STUDY = """\
dataset = "{data}"
{storage}train_dir = "{folder}"
seeds = [0, 1]
[settings]
maxlen = 8
hidden_units = 8
num_blocks = 1
batch_size = 16
num_epochs = {epochs}
save_minutes = 1e-4
device = "cpu"
[grid]
dropout_rate = [0.0, 0.5]
"""


TWELVE = """\
dataset = "{data}"
{storage}train_dir = "{folder}"
seeds = [0, 1, 2]
[settings]
maxlen = 20
hidden_units = 16
num_blocks = 1
batch_size = 64
num_epochs = 12
save_minutes = 1e-4
device = "cpu"
[grid]
dropout_rate = [0.0, 0.5]
lr = [1e-3, 3e-3]
"""
ML_100K = Path(__file__).resolve().parents[3] / "shared" / "data" / "ml-100k.tsv.gz"


def twelve(folder: Path, name: str, storage: str | None = None) -> Path:
    """Twelve runs, on MovieLens 100K where it is there."""
    data = ML_100K if ML_100K.exists() else folder / "events.csv"
    if not data.exists():
        write_csv(data)
    path = folder / f"{name}.toml"
    line = f'storage = "{storage}"\n' if storage else ""
    path.write_text(TWELVE.format(data=data, folder=folder / name, storage=line))
    return path


def study(folder: Path, name: str, epochs: int = 30, storage: str | None = None) -> Path:
    data = folder / "events.csv"
    if not data.exists():
        write_csv(data)
    path = folder / f"{name}.toml"
    line = f'storage = "{storage}"\n' if storage else ""
    path.write_text(STUDY.format(data=data, folder=folder / name, epochs=epochs, storage=line))
    return path


def started(path: Path, workers: int = 2) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sasrec", "study", "run", str(path), f"--workers={workers}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def results(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Run -> its metrics, and the weights of its last checkpoint."""
    found = {}
    for path in sorted(folder.glob("*/seed-*")):
        weights = sorted((path / "checkpoints").glob("step-*"))[-1] / "weights.safetensors"
        metrics = json.loads((path / "metrics.json").read_text())
        found[str(path.relative_to(folder))] = (json.dumps(metrics), weights.read_bytes())
    return found


def epochs_trained(folder: Path) -> dict[str, list[int]]:
    """Run -> the epochs that its log says were finished, in order."""
    return {
        str(path.parent.relative_to(folder)): [
            event["epoch"] for event in map(json.loads, path.read_text().splitlines()) if event["event"] == "epoch"
        ]
        for path in sorted(folder.glob("*/seed-*/log.jsonl"))
    }


def disturbed(folder: Path, name: str, chance: random.Random, storage: str | None) -> None:
    """Run a study; kill one worker, then all, at random moments; let a worker join late; run it to its end."""
    path = twelve(folder, name, storage)
    run = started(path)
    for whom in ("one", "all"):
        time.sleep(chance.uniform(4.0, 20.0))
        workers = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
        chosen = workers if whom == "all" else workers[:1]
        for worker in chosen:
            os.kill(int(worker), signal.SIGKILL)
    run.communicate(timeout=600)
    late = (
        subprocess.Popen(
            [sys.executable, "-m", "sasrec", "study", "work", str(folder / name)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if (folder / name / "study.json").exists()
        else None
    )
    again = started(path)
    said, _ = again.communicate(timeout=600)
    if late is not None:
        assert late.wait(timeout=60) == 0
    assert again.returncode == 0, said.decode()


def trials(tmp_path: Path, count: int, storage: str | None = None) -> None:
    quiet = started(twelve(tmp_path, "quiet"), workers=2)
    said, _ = quiet.communicate(timeout=600)
    assert quiet.returncode == 0, said.decode()
    expected = results(tmp_path / "quiet")
    assert len(expected) == 12
    chance = random.Random(0)
    for number in range(count):
        name = f"disturbed-{number}"
        disturbed(tmp_path, name, chance, storage)
        assert results(tmp_path / name) == expected
        plan, queue = open_study(tmp_path / name)
        assert [row.entry.state for row in rows(plan, queue)] == ["done"] * 12
        for run, epochs in epochs_trained(tmp_path / name).items():
            assert sorted(set(epochs)) == list(range(1, 13)), run
            # An epoch is trained again only if its checkpoint had not been saved when the worker was killed.
            assert len(epochs) <= 12 + 3, run
        shutil.rmtree(tmp_path / name)


@pytest.mark.slow
def test_twenty_studies_with_killed_workers_end_as_a_quiet_one(tmp_path: Path) -> None:
    trials(tmp_path, 20)


@pytest.mark.slow
def test_a_study_ends_prints_its_table_and_is_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study(tmp_path, "study", epochs=2)
    assert main(["study", "run", str(path), "--output", str(tmp_path / "table.tex")]) == 0
    said = capsys.readouterr().out
    assert said.count("done") == 4
    assert "dropout_rate-0.5 (2 seeds)" in said
    assert r"dropout\_rate-0.0 (2 seeds) & " in (tmp_path / "table.tex").read_text()
    runs = sorted(map(str, (tmp_path / "study").glob("*/seed-*")))
    assert main(["compare", *runs]) == 0
    assert f"{Path(runs[0]).parent} (2 seeds)" in capsys.readouterr().out.replace("\n", "")
    assert main(["study", "stop", str(path)]) == 0
    assert "all runs of the study have ended already" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*/checkpoints/*/*")}
    assert main(["study", "run", str(tmp_path / "study")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*/checkpoints/*/*")} == before


@pytest.mark.slow
def test_a_failed_run_has_its_reason_and_is_retried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study(tmp_path, "study", epochs=1)
    stranger = tmp_path / "study/dropout_rate-0.5/seed-1"
    plan, _ = open_study(path)
    stranger.mkdir(parents=True)
    (stranger / "notes.txt").write_text("mine")
    (stranger / "config.toml").write_text("not ours")
    assert main(["study", "run", str(path)]) == 1
    assert "dropout_rate-0.5/seed-1" in capsys.readouterr().err
    assert (stranger / "config.toml").read_text() == "not ours"
    for name in ("notes.txt", "config.toml", ".sasrec.lock"):
        (stranger / name).unlink(missing_ok=True)
    assert main(["study", "retry", str(path)]) == 0
    assert [row.entry.state for row in rows(*open_study(path))] == ["done"] * 4
    assert plan.folder == tmp_path / "study"


@pytest.mark.parametrize("how", ["stop", pytest.param("ctrl-c", marks=pytest.mark.slow)])
def test_stop_and_ctrl_c_save(tmp_path: Path, how: str) -> None:
    path = study(tmp_path, "study", epochs=4000)
    run = started(path, workers=1)
    log, deadline = tmp_path / "study/dropout_rate-0.0/seed-0/log.jsonl", time.monotonic() + 60
    while not (log.exists() and '"event": "epoch"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    if how == "stop":
        assert main(["study", "stop", str(path)]) == 0
    else:
        os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == (0 if how == "stop" else 130), said.decode()
    assert "Traceback" not in said.decode()
    first = rows(*open_study(path))[0]
    assert first.entry.state == "running"
    assert not first.writer
    assert 0 < first.epoch < 4000
