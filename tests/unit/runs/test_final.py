"""The final fit: all events, with the settings and the epoch that another run has chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.checkpoint.restore import checkpoint_at
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.data.splits import split_events
from sasrec.errors import ConfigError, EvaluationError
from sasrec.runs.folder import RunFolder
from tests.synthetic import chain_frame, small, write_csv

SMALL = small(batch_size=16, num_epochs=6, patience=2)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint_at(run).weights


def epochs(run: Path) -> list[int]:
    return [event["epoch"] for event in RunFolder(run).events() if event["event"] == "epoch"]


def test_it_is_the_training_on_all_events_for_the_epochs_that_validation_chose(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    ending = RunFolder(tmp_path / "run").ending()
    assert ending is not None
    served = sasrec.final_fit(tmp_path / "run", tmp_path / "final")
    assert epochs(tmp_path / "final") == list(range(1, ending.best_epoch + 1))
    settings: dict[str, Any] = SMALL | {"num_epochs": ending.best_epoch, "split": "all"}
    sasrec.train(chain_frame(), tmp_path / "by-hand", **settings)
    by_hand = weights(tmp_path / "by-hand")
    assert all(torch.equal(by_hand[name], each) for name, each in weights(tmp_path / "final").items())
    assert served.metrics is None
    assert not RunFolder(tmp_path / "final").metrics_file.exists()
    chosen = checkpoint_at(tmp_path / "final").need("chosen_by")
    assert (chosen["run"], chosen["epoch"], chosen["split"]) == ("run", ending.best_epoch, "leave-one-out")
    assert chosen["metrics"]["test"] == RunFolder(tmp_path / "run").metrics()["test"]["full"]
    with pytest.raises(EvaluationError, match="was trained on all events"):
        sasrec.evaluate(tmp_path / "final")


def test_every_event_is_a_training_event_also_those_of_own_files(tmp_path: Path) -> None:
    frame = chain_frame()
    last = frame.group_by("user").tail(1)
    own = sasrec.prepare(frame.join(last, on=frame.columns, how="anti"), valid=last)
    for data in (sasrec.prepare(frame), own):
        split = split_events(data, "all")
        assert split.training.lengths.sum() == len(frame) == data.num_events
        assert not len(split.valid.targets)
        assert not len(split.test.targets)
        ends = split.training_part.ends(data.times, data.offsets, data.parts)
        np.testing.assert_array_equal(ends, data.offsets[1:])
        config = RunConfig().replace(**SMALL)
        assert TrainingBatches.of(split.training, data.num_items, config, split.known_V).plan(0)


def test_a_cosine_schedule_keeps_its_length_and_the_final_fit_stops_at_the_best_epoch(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL | {"schedule": "cosine", "num_epochs": 30})
    ending = RunFolder(tmp_path / "run").ending()
    assert ending is not None
    assert ending.best_epoch < 30
    sasrec.final_fit(tmp_path / "run", tmp_path / "final")
    assert epochs(tmp_path / "final")[-1] == ending.best_epoch
    training = RunFolder(tmp_path / "final").config().training
    assert (training.num_epochs, training.stop_epoch) == (30, ending.best_epoch)


def test_newer_events_can_be_given_and_later_ones_measure_it(tmp_path: Path) -> None:
    start = 1_700_000_000
    frame = chain_frame().with_columns(time=pl.int_range(pl.len()).over("user") * 1000 + start)
    old, new = frame.filter(pl.col("time") < start + 5000), frame.filter(pl.col("time") >= start + 5000)
    old.write_csv(tmp_path / "old.csv")
    sasrec.train(tmp_path / "old.csv", tmp_path / "run", time_column="time", **SMALL)
    between = pl.concat([old, new.group_by("user").head(1)])
    model = sasrec.final_fit(tmp_path / "run", tmp_path / "final", data=between)
    assert model.data is not None
    assert model.data.num_events == len(between)
    metrics = sasrec.evaluate(tmp_path / "final", test=new)
    assert metrics["protocol"]["test"]["targets"] > 0


def test_it_continues_after_an_interruption_and_still_names_the_run(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    sasrec.final_fit(tmp_path / "run", tmp_path / "final")
    whole = weights(tmp_path / "final")
    for newest in sorted((tmp_path / "final/checkpoints").iterdir())[1:]:
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
    sasrec.resume(tmp_path / "final")
    assert all(torch.equal(whole[name], each) for name, each in weights(tmp_path / "final").items())
    assert checkpoint_at(tmp_path / "final").need("chosen_by")["run"] == "run"


def test_a_run_that_chose_nothing_is_refused(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    sasrec.export(tmp_path / "run", tmp_path / "export")
    sasrec.final_fit(tmp_path / "run", tmp_path / "final")
    for run, words in (("export", "is an export"), ("final", "had no validation")):
        with pytest.raises(ConfigError, match=words):
            sasrec.final_fit(tmp_path / run, tmp_path / "other")
    log = tmp_path / "run/log.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"stopped"' not in line))
    with pytest.raises(ConfigError, match="has not ended"):
        sasrec.final_fit(tmp_path / "run", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_command_line_trains_it_after_a_run_or_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "events.csv")
    options = [f"--{name}={value}" for name, value in SMALL.items() if name != "device"] + ["--device=cpu"]
    words = ["train", "--dataset=events.csv", "--train_dir=run", "--then_final", *options]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "so this run was not measured; with the same settings, run reached NDCG@10" in said
    assert "next: sasrec recommend run-final" in said
    assert main(["train", "--final=run", "--train_dir=again"]) == 0
    by_option, after = weights(tmp_path / "again"), weights(tmp_path / "run-final")
    assert all(torch.equal(by_option[name], each) for name, each in after.items())
    capsys.readouterr()
    assert main(["train", "--final=run", "--train_dir=other", "--lr=0.1", "--then_final"]) == 1
    assert "--lr, --then_final would have no effect" in capsys.readouterr().err
    assert main(["train", "--final=nothing", "--train_dir=other"]) == 1
    assert "the run nothing does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--split=all"], ["--test=events.csv"]])
def test_then_final_without_validation_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("events.csv"))
    assert main(["train", "--dataset=events.csv", "--train_dir=run", "--then_final", *options]) == 1
    assert "as many epochs as validation chooses, and --" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_file_of_events_that_were_trained_on_is_called_not_newer(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", split="all", **small(num_epochs=1))
    with pytest.raises(EvaluationError, match=r"not newer than the data of the run. Use a file with later events"):
        sasrec.evaluate(tmp_path / "run", test=chain_frame())
