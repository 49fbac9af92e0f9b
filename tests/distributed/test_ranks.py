"""Training on one, two and three gloo processes gives the same weights, metrics and recommendations."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from sasrec.cli.main import main
from tests.distributed.launch import finish, free_port, start
from tests.synthetic import chain_frame

# The package itself, but with float64 as PyTorch's default type.
SCRIPT = """
import sys, json, os, signal, time
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
import sasrec
from sasrec.training import trainer
settings = json.loads(sys.argv[3])
at = settings.pop("at", None)
if at:
    step, who, what = at
    original, count = trainer.training_loss, iter(range(10**9))
    def loss(*arguments):
        loss = original(*arguments)
        if next(count) == step and os.environ["RANK"] == str(who):
            if what in ("nan", "inf"):
                return loss * float(what)
            open(sys.argv[2] + ".signalled", "w").close()
            os.kill(os.getpid(), getattr(signal, what))
        return loss
    trainer.training_loss = loss
if record := settings.pop("record", None):
    from sasrec.batches.batches import TrainingBatches
    made = TrainingBatches.batch
    def batch(self, epoch, step, *part):
        batch = made(self, epoch, step, *part)
        rows = [row[row > 0].tolist() for row in batch.items_BL if row.any()]
        with open(f"{record}-{os.environ['RANK']}", "a") as stream:
            stream.write(json.dumps([epoch, step, rows]) + chr(10))
        return batch
    TrainingBatches.batch = batch
from pathlib import Path
from sasrec.runs.folder import RunFolder
if RunFolder(Path(sys.argv[2])).can_resume():
    sasrec.resume(sys.argv[2])
else:
    sasrec.train(sys.argv[1], sys.argv[2], **settings)
"""
SETTINGS: dict[str, Any] = {
    "maxlen": 12,
    "hidden_units": 16,
    "batch_size": 16,
    "lr": 1e-2,
    "dropout_rate": 0.0,
    "num_epochs": 15,
    "eval_every": 5,
    "device": "cpu",
    "l2_emb": 1e-4,
    "clip_norm": 1.0,
}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "events.csv"
    chain_frame().write_csv(path)
    return path


def train(tmp_path: Path, events: Path, ranks: int, **settings: Any) -> Path:
    """Train on so many ranks; on one rank in this process, as to start another takes longer than to train."""
    run = tmp_path / f"ranks-{ranks}"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if ranks == 1:
        with torch_of_the_script():
            sasrec.train(events, run, **(SETTINGS | settings))
        return run
    words = [str(script), str(events), str(run), json.dumps(SETTINGS | settings)]
    status, said = finish(start(ranks, *words))
    assert status == 0, said
    return run


@contextlib.contextmanager
def torch_of_the_script() -> Iterator[None]:
    """The type of numbers and the threads of SCRIPT."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("settings", "several"),
    [
        ({"loss": "bce", "num_negatives": 2, "accumulate": 2}, [3]),
        pytest.param({"loss": "bce", "num_negatives": 2, "accumulate": 2}, [2], marks=pytest.mark.slow),
        pytest.param({"loss": "ce", "time": True, "mhc": True}, [2, 3], marks=pytest.mark.slow),
        pytest.param(
            {"loss": "softmax", "negatives": "in_batch", "num_negatives": 20}, [2, 3], marks=pytest.mark.slow
        ),
    ],
)
def test_two_and_three_ranks_make_the_weights_and_metrics_of_one(
    tmp_path: Path, events: Path, settings: dict[str, Any], several: list[int]
) -> None:
    runs = {ranks: train(tmp_path, events, ranks, **settings) for ranks in (1, *several)}
    found = {ranks: store.newest(run / "checkpoints", print) for ranks, run in runs.items()}
    assert found[1].state["step"] >= 50
    metrics = {ranks: json.loads((run / "metrics.json").read_text()) for ranks, run in runs.items()}
    for ranks in several:
        for name, expected in found[1].weights.items():
            if not name.endswith(
                "key.bias"
            ):  # this bias has no effect; its gradient is rounding noise, which Adam amplifies
                assert (found[ranks].weights[name] - expected).abs().max() < 1e-10, name
        assert metrics[ranks] == metrics[1]
    log = [json.loads(line) for line in (runs[several[-1]] / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in log].count("start") == 1, "only rank 0 writes"
    assert log[0]["ranks"] == several[-1]


@pytest.mark.slow
def test_two_nodes_of_one_rank_each_do_the_work_of_one_process(tmp_path: Path, events: Path) -> None:
    """Two torchrun agents connect through one address, as on two machines with a shared folder."""
    one, two = train(tmp_path, events, 1, num_epochs=5), tmp_path / "two"
    words = [str(tmp_path / "script.py"), str(events), str(two), json.dumps(SETTINGS | {"num_epochs": 5})]
    port = free_port()
    agents = [start(1, *words, nodes=2, port=port) for _ in range(2)]
    for status, said in map(finish, agents):
        assert status == 0, said
    assert json.loads((two / "log.jsonl").read_text().splitlines()[0])["ranks"] == 2
    weights = [store.newest(run / "checkpoints", print).weights for run in (one, two)]
    for name, expected in weights[0].items():
        if not name.endswith("key.bias"):  # as above
            assert (weights[1][name] - expected).abs().max() < 1e-10, name
    assert (one / "metrics.json").read_text() == (two / "metrics.json").read_text()


@pytest.fixture(scope="module")
def trained_by_slurm(events: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run of docs/slurm.sbatch, its exit status and its output.

    One node with two processes. scontrol and srun are replaced by scripts of two lines.
    """
    folder = tmp_path_factory.mktemp("slurm")
    for name, line in (("scontrol", "echo 127.0.0.1"), ("srun", 'exec "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    example = Path(__file__).resolve().parents[2] / "docs/slurm.sbatch"
    run = folder / "run"
    settings = [f"--{key}={value}" for key, value in SETTINGS.items() if key not in ("num_epochs", "eval_every")]
    words = [f"--dataset={events}", f"--train_dir={run}", "--num_epochs=2", *settings]
    process = subprocess.Popen(
        ["bash", str(example), *words],
        env=os.environ | slurm | {"PATH": path, "PORT": str(free_port()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return run, *finish(process)


@pytest.mark.slow
def test_the_command_line_trains_evaluates_and_recommends_on_two_ranks_as_on_one(
    tmp_path: Path, trained_by_slurm: tuple[Path, int, str]
) -> None:
    run, status, said = trained_by_slurm
    assert status == 0, said
    assert said.count("test, full catalogue: ") == 1, "printed once"
    trained = json.loads((run / "metrics.json").read_text())
    evaluate = ["evaluate", str(run), "--device=cpu"]
    recommend = ["recommend", str(run), "--all", "--device=cpu", f"--output={tmp_path}/top-"]
    assert main(evaluate) == 0
    assert json.loads((run / "metrics.json").read_text()) == trained
    assert main([*recommend[:-1], f"{recommend[-1]}1.parquet"]) == 0
    (run / "metrics.json").unlink()
    script = tmp_path / "both.py"  # both commands in one start
    script.write_text(
        "import json, sys; from sasrec.cli.main import main\n"
        "sys.exit(any(main(words) for words in json.loads(sys.argv[1])))"
    )
    words = json.dumps([evaluate, [*recommend[:-1], f"{recommend[-1]}2.parquet"]])
    status, said = finish(start(2, str(script), words))
    assert status == 0, said
    assert json.loads((run / "metrics.json").read_text()) == trained
    assert pl.read_parquet(tmp_path / "top-1.parquet").equals(pl.read_parquet(tmp_path / "top-2.parquet"))


@pytest.mark.slow
def test_on_one_to_four_ranks_and_after_a_resume_each_step_has_the_same_users(
    tmp_path: Path, events: Path
) -> None:
    """Even after an interruption within an epoch, each user occurs once per epoch, at the same step."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    seen: dict[int, Any] = {}
    for ranks in (1, 2, 3, 4):
        run, record = tmp_path / f"run-{ranks}", tmp_path / f"record-{ranks}"
        for at in ([7, ranks - 1, "SIGTERM"], None):
            settings = SETTINGS | {"num_epochs": 4, "record": str(record), "at": at}
            status, said = finish(start(ranks, str(script), str(events), str(run), json.dumps(settings)))
            assert (status == 0) == (at is None), said
        steps: dict[tuple[int, int], list[list[int]]] = {}
        for path in tmp_path.glob(f"record-{ranks}-*"):
            for epoch, step, rows in map(json.loads, path.read_text().splitlines()):
                steps.setdefault((epoch, step), []).extend(rows)
        seen[ranks] = {key: sorted(rows) for key, rows in steps.items()}
        epochs = [
            sorted(row for key in seen[ranks] if key[0] == epoch for row in seen[ranks][key]) for epoch in range(4)
        ]
        assert len(epochs[0]) > 50
        assert epochs[0] == epochs[1] == epochs[2] == epochs[3]
    assert seen[1] == seen[2] == seen[3] == seen[4]


def start_interrupted(tmp_path: Path, events: Path, *at: object) -> subprocess.Popen[str]:
    """Train on two processes; at the given step, the given event happens to one of them."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    settings = json.dumps(SETTINGS | {"num_epochs": 10_000, "patience": 0, "at": at})
    return start(2, str(script), str(events), str(tmp_path / "run"), settings)


def interrupted(tmp_path: Path, events: Path, *at: object) -> tuple[int, str]:
    return finish(start_interrupted(tmp_path, events, *at))


@pytest.mark.parametrize(("who", "what"), [(1, "nan"), pytest.param(0, "inf", marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(
    tmp_path: Path, events: Path, who: int, what: str
) -> None:
    status, said = interrupted(tmp_path, events, 29, who, what)
    assert status != 0
    assert said.count(f"epoch 8, step 29 (lr 0.01): the loss is {what}") >= 1, said
    kept = store.newest(tmp_path / "run/checkpoints", print)
    assert kept.state["step"] == 20
    assert all(bool(tensor.isfinite().all()) for tensor in kept.weights.values())


@pytest.mark.slow
def test_what_one_rank_finds_wrong_ends_all_and_a_restart_takes_no_other_run_for_its_own(
    tmp_path: Path, events: Path
) -> None:
    run = train(tmp_path, events, 1, num_epochs=1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = ["-m", "sasrec", "train", "--dataset=nowhere.csv", f"--train_dir={run}", "--device=cpu"]
    status, said = finish(start(2, *words, restarts=1), seconds=60)
    assert status != 0
    assert "already holds a run" in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_file_that_does_not_exist_ends_all(tmp_path: Path) -> None:
    words = ["-m", "sasrec", "train", "--dataset=nowhere.csv", f"--train_dir={tmp_path / 'new'}", "--device=cpu"]
    status, said = finish(start(2, *words), seconds=60)
    assert status != 0
    assert "nowhere.csv does not exist" in said


SLOW_RANK_0 = """
import os, signal, sys, time
sys.argv[1:], what = sys.argv[1:4], sys.argv[4]
from sasrec.checkpoint import store
from sasrec.evaluation import target_ranks
from sasrec.ranking import candidates
from sasrec.training.trainer import Trainer
original_scores, original_ranks, original_fit = target_ranks.candidate_scores, candidates.own_chunks, Trainer.fit
def scores(*arguments, **options):
    time.sleep(6)
    return original_scores(*arguments, **options)
def own_chunks(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return original_ranks(*arguments)
def fit(self):  # from here on: the baselines are measured before
    if os.environ["RANK"] == "0":
        target_ranks.candidate_scores = scores
    else:
        candidates.own_chunks = own_chunks
    return original_fit(self)
if what == "slow":
    Trainer.fit = fit
if what == "frozen":
    original_save = store.save
    def save(*arguments):
        if arguments[2]["step"] == 8:
            os.kill(os.getpid(), signal.SIGSTOP)
        return original_save(*arguments)
    store.save = save
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["slow", "frozen"])
def test_a_long_chunk_loses_nothing_and_a_save_that_hangs_is_named(
    tmp_path: Path, events: Path, what: str
) -> None:
    """One process gets a signal while the other is in a long validation chunk; or rank 0 is frozen in a save."""
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SLOW_RANK_0 + SCRIPT)
    settings = json.dumps(SETTINGS | {"num_epochs": 100, "eval_every": 2 if what == "slow" else 1})
    began = time.monotonic()
    status, said = finish(start(2, str(script), str(events), str(run), settings, what))
    assert status != 0
    assert time.monotonic() - began < 100
    if what == "slow":
        assert store.newest(run / "checkpoints", print).state["step"] == 8
    else:
        assert "rank 0 sent no heartbeat for 45 s" in said, said


@pytest.mark.slow
def test_a_frozen_rank_is_named_within_a_minute(tmp_path: Path, events: Path) -> None:
    process = start_interrupted(tmp_path, events, 29, 1, "SIGSTOP")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "rank 1 sent no heartbeat for 45 s, at step 29; rank 0 is at step 29" in line:
            break
    else:
        raise AssertionError(said)
    # From the signal to the sentence. torchrun then waits 30 s for the frozen process before it kills it.
    assert time.time() - (tmp_path / "run.signalled").stat().st_mtime < 60
    status, _ = finish(process)
    assert status != 0


def test_a_rank_that_is_asked_to_stop_stops_all_after_the_same_step(tmp_path: Path, events: Path) -> None:
    status, said = interrupted(tmp_path, events, 37, 1, "SIGTERM")
    assert status != 0
    assert "exitcode  : 143" in said or "exitcode: 143" in said, said
    kept = store.newest(tmp_path / "run/checkpoints", print)
    assert kept.state["step"] == 38, "the step in which the signal came is the last"


def test_the_sbatch_example_runs_where_slurm_is_stood_in_for(trained_by_slurm: tuple[Path, int, str]) -> None:
    run, status, said = trained_by_slurm
    assert status == 0, said
    assert json.loads((run / "log.jsonl").read_text().splitlines()[0])["ranks"] == 2
