"""`sasrec runs`: what runs there are, whatever their state."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError
from sasrec.studies.listing import list_runs
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    sasrec.train(chain_frame(), folder / "short", **small(num_epochs=1))
    sasrec.train(chain_frame(), folder / "study/long", **small(num_epochs=12, seed=3, time=True))
    sasrec.export(folder / "short", folder / "export")
    return folder


def test_runs_are_listed_best_first_with_what_differs_from_the_defaults(folder: Path) -> None:
    best, other = list_runs(folder)
    assert [best.path, other.path] == [folder / "study/long", folder / "short"]
    metrics = json.loads((folder / "study/long/metrics.json").read_text())
    assert best.value == metrics["test"]["full"]["ndcg@10"]
    assert best.baseline is not None
    assert best.baseline[1] == max(each["test"]["full"]["ndcg@10"] for each in metrics["baselines"].values())
    assert (best.state, best.seed) == ("measured", 3)
    assert best.settings.split() == [
        "maxlen=12",
        "hidden_units=16",
        "time",
        "batch_size=32",
        "lr=0.01",
        "num_epochs=12",
    ]
    assert {row.data.split()[1] for row in (best, other)} == {metrics["protocol"]["data_hash"][:12]}
    assert [row.value for row in list_runs(folder, metric="mrr", split="valid")] == sorted(
        (json.loads((row.path / "metrics.json").read_text())["valid"]["full"]["mrr"] for row in (best, other)),
        reverse=True,
    )


def test_runs_that_are_interrupted_damaged_or_being_trained_say_so(folder: Path, tmp_path: Path) -> None:
    for name in ("interrupted", "damaged", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text((folder / "short/config.toml").read_text())
        (tmp_path / name / "log.jsonl").write_text((folder / "short/log.jsonl").read_text().splitlines()[0] + "\n")
    (tmp_path / "damaged/metrics.json").write_text("{}")
    writer = {
        "doing": "training",
        "since": "2026-01-01T00:00:00",
        "process": os.getpid(),
        "host": os.uname().nodename,
    }
    (tmp_path / "training/.sasrec.writer").write_text(json.dumps(writer))
    rows = {row.path.name: row for row in list_runs(tmp_path)}
    assert {name: row.state for name, row in rows.items()} == {name: name for name in rows}
    assert "damaged; measure the run again" in rows["damaged"].note
    assert rows["training"].note.startswith("training on ")
    writer["process"] = 2**22 + 1  # above the largest number of a process
    (tmp_path / "training/.sasrec.writer").write_text(json.dumps(writer))
    assert {row.path.name: row.state for row in list_runs(tmp_path)}["training"] == "interrupted"


def test_the_command_prints_a_row_for_each_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.index("study/long") < said.index("short")
    assert "export" not in said


def test_an_unknown_folder_or_metric_is_refused_and_an_empty_one_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="unknown `metric` 'ndcg@7'"):
        list_runs(tmp_path, metric="ndcg@7")
    assert main(["runs", str(tmp_path)]) == 0
    assert "has no runs. Train one with sasrec train." in capsys.readouterr().out
