"""A split may leave nobody for validation, or for test: the other is measured all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError, EvaluationError
from sasrec.runs.folder import RunFolder, metric_of
from tests.synthetic import chain_frame, small, write_csv

SMALL = small(num_epochs=2)
BEGIN = 1_600_000_000
NEWCOMER = "new user: no event before this period"


def trained(folder: Path, begin: int, end: int) -> Path:
    """A run under temporal:T1,T2, `begin` and `end` in seconds; at each moment a new user comes."""
    newcomers = {"user": ["new", "newer"], "item": ["item-03", "item-04"], "time": [BEGIN + begin, BEGIN + end]}
    moments = [pl.from_epoch(pl.Series([BEGIN + at])).dt.to_string("%Y-%m-%dT%H:%M:%S")[0] for at in (begin, end)]
    data = sasrec.prepare(pl.concat([chain_frame(), pl.DataFrame(newcomers)]))
    sasrec.train(data, folder / "run", split=f"temporal:{','.join(moments)}", **SMALL)
    return folder / "run"


# `chain_frame` has events in the first minute of every hour, of 20.
CASES = {"valid": (8 * 3600 + 1800, 8 * 3600 + 1900), "test": (8 * 3600 + 1800, 30 * 3600)}


@pytest.mark.parametrize("missing", ["valid", "test"])
def test_the_part_that_has_targets_is_measured_and_printed(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, *CASES[missing])
    there = {"valid": "test", "test": "valid"}[missing]
    said = capsys.readouterr().err
    words = {"valid": "validation", "test": "test"}
    assert f"note: nobody has a {words[missing]} target (" in said
    assert f"only the {words[there]} metrics are measured" in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.keys() == {there, "baselines", "protocol"}
    assert all(each.keys() == {there} for each in metrics["baselines"].values())
    assert metrics["protocol"][missing]["targets"] == 0
    assert metrics["protocol"][missing]["skipped"][NEWCOMER] == 1
    assert metrics["protocol"][there]["targets"] > 10
    ranks = pl.read_parquet(run / "ranks.parquet")
    assert ranks["split"].unique().to_list() == [there]
    assert ranks.height == 5 * metrics["protocol"][there]["targets"]
    assert sasrec.evaluate(run) == metrics == RunFolder(run).metrics()
    with pytest.raises(EvaluationError, match=f"no user has a {missing} target"):
        metric_of(metrics, f"baselines.markov.{missing}.full.mrr")
    assert metric_of(metrics, f"{there}.full.mrr") == metrics[there]["full"]["mrr"]
    sides = [run, f"{run}:popularity"]
    assert sasrec.compare(sides, split=there).others
    with pytest.raises(EvaluationError, match=f"has no {missing} targets"):
        sasrec.compare(sides, split=missing)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--details"]) == 0
    captured = capsys.readouterr()
    assert f"{there}, full catalogue: " in captured.out
    assert f"{missing}, full catalogue: " not in captured.out
    assert f"{missing}: 0 targets of 0 users" in captured.out
    with_details = json.loads((run / "metrics.json").read_text())
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    again = ["train", "--dataset", str(run / "dataset"), "--train_dir", str(tmp_path / "again"), *flags]
    assert main([*again, "--split", RunConfig.load(run / "config.toml").evaluation.split]) == 0
    assert f"{there}, full catalogue: " in capsys.readouterr().out, "train prints it too"
    assert ("details" in with_details) == (there == "test") == ("coverage" in captured.out)
    assert ("no details are measured" in captured.err) == (there == "valid")


def test_an_export_says_why_it_cannot_be_measured(tmp_path: Path) -> None:
    sasrec.export(trained(tmp_path, *CASES["valid"]), tmp_path / "model")
    with pytest.raises(EvaluationError, match=r"is an export, which has no events\. Evaluate the run"):
        sasrec.evaluate(tmp_path / "model")


def test_a_run_whose_metrics_cannot_be_saved_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sasrec.train(write_csv(tmp_path / "events.csv"), tmp_path / "run", num_epochs=1, hidden_units=8, device="cpu")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match="cannot be written, so its metrics could not be saved"):
        sasrec.evaluate(tmp_path / "run", device="cpu")
    assert "test" in sasrec.evaluate(tmp_path / "run", device="cpu", checkpoint=tmp_path / "run")


def test_a_run_without_its_settings_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    sasrec.train(write_csv(tmp_path / "events.csv"), run, num_epochs=1, hidden_units=8, device="cpu")
    (run / "config.toml").unlink()
    assert main(["train", "--train_dir", str(run), "--resume"]) == 1
    assert "config.toml, the settings of the run, is missing. Restore it" in capsys.readouterr().err


def test_it_is_said_when_the_best_checkpoint_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    sasrec.train(chain_frame(), run, **small(num_epochs=4, dropout_rate=0.0))
    epochs = {each.name: json.loads((each / "state.json").read_text()) for each in (run / "checkpoints").iterdir()}
    best = max(epochs, key=lambda name: epochs[name]["score"])
    shutil.rmtree(run / "checkpoints" / best)
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    score = epochs[best]["score"]
    said = f"is missing (epoch {epochs[best]['epoch']}, validation NDCG@10 {score:.4f})"
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_moved_data_set_may_be_given_as_a_dataset(tmp_path: Path) -> None:
    data, run = sasrec.prepare(chain_frame(), output=tmp_path / "data"), tmp_path / "run"
    before = sasrec.train(tmp_path / "data", run, **small(num_epochs=1)).metrics
    shutil.rmtree(tmp_path / "data")
    assert sasrec.evaluate(run, device="cpu", dataset=data) == before


@pytest.mark.parametrize("path", ["", None, 5])
def test_a_run_is_named_by_a_path(path: Any) -> None:
    for use in (sasrec.load, sasrec.evaluate, sasrec.resume):
        with pytest.raises(ConfigError, match="a run is named by the path of its folder, not by"):
            use(path)
