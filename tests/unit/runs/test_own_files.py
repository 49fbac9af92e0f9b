"""Runs with own validation and test files, runs measured on another file, and metrics at any cut-off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.checkpoint.restore import checkpoint_at
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.evaluation.metrics import metrics_from_ranks
from tests.synthetic import chain_frame, small

SMALL = small(num_epochs=2)
ARGUMENTS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """train.csv, valid.csv and test.csv, cut at two moments; all.csv has all events."""
    folder = tmp_path_factory.mktemp("files")
    frame = chain_frame(users=80).with_columns(
        time=pl.col("time") + pl.col("user").str.slice(1).cast(pl.Int64) * 900
    )
    first, second = (frame["time"].quantile(at) for at in (0.7, 0.85))
    time = pl.col("time")
    parts = {
        "train": time < first,
        "valid": (time >= first) & (time < second),
        "test": time >= second,
        "all": pl.lit(True),
    }
    for name, rows in parts.items():
        frame.filter(rows).write_csv(folder / f"{name}.csv")
    return {name: folder / f"{name}.csv" for name in parts}


@pytest.fixture(scope="module")
def run(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    sasrec.train(files["train"], folder, valid=files["valid"], test=files["test"], **SMALL)
    return folder


def without_code(metrics: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in metrics.items() if name != "protocol"}


def test_the_split_is_recorded_in_settings_card_and_checkpoint(run: Path) -> None:
    assert RunConfig.load(run / "config.toml").evaluation.split == "files"
    assert checkpoint_at(run).need("config")["evaluation"]["split"] == "files"
    protocol = json.loads((run / "metrics.json").read_text())["protocol"]
    assert protocol["split"].startswith("files: trained on the training file")
    assert protocol["valid"]["targets"] > 10
    assert protocol["test"]["targets"] > 10
    assert sasrec.open_dataset(run / "dataset").report["parts"]["training"] == protocol["training_events"]


def test_a_prepared_folder_the_command_line_and_frames_give_the_same_run(
    run: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    valid_test = ["--valid", str(files["valid"]), "--test", str(files["test"])]
    data = str(tmp_path / "data")
    assert main(["prepare", str(files["train"]), *valid_test, "--output", data]) == 0
    assert main(["train", "--dataset", data, "--train_dir", str(tmp_path / "a"), *ARGUMENTS]) == 0
    assert (
        main(
            ["train", "--train", str(files["train"]), *valid_test, "--train_dir", str(tmp_path / "b"), *ARGUMENTS]
        )
        == 0
    )
    assert "split files: " in capsys.readouterr().err
    frames = {name: pl.read_csv(path) for name, path in files.items()}
    sasrec.train(frames["train"], tmp_path / "c", valid=frames["valid"], test=frames["test"], **SMALL)
    expected = (run / "ranks.parquet").read_bytes()
    for name in "abc":
        assert RunConfig.load(tmp_path / name / "config.toml").evaluation.split == "files"
        assert (tmp_path / name / "ranks.parquet").read_bytes() == expected


def test_resumed_evaluated_compared_and_exported_as_any_run(
    run: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    again = tmp_path / "run"
    sasrec.train(files["train"], again, valid=files["valid"], test=files["test"], **SMALL | {"num_epochs": 1})
    sasrec.resume(again, num_epochs=2)
    assert (again / "ranks.parquet").read_bytes() == (run / "ranks.parquet").read_bytes()
    assert without_code(sasrec.evaluate(again)) == without_code(json.loads((run / "metrics.json").read_text()))
    assert sasrec.compare([f"{run}:popularity", again]).protocol["split"].startswith("files: ")
    recommender = sasrec.load(run)
    exported = sasrec.load(sasrec.export(run, tmp_path / "export"))
    history = recommender.data.history("u001")
    assert recommender.recommend_user("u001") == recommender.recommend(history) == exported.recommend(history)
    assert recommender.recommend_all(k=3)["user"].n_unique() == 80


def test_a_run_from_own_files_recommends_with_titles_by_user_and_by_history_and_so_does_its_export(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = pl.read_csv(files["all"])["item"].unique().sort()
    items = tmp_path / "items.txt"
    items.write_text("".join(f"{item}|Title of {item}\n" for item in ids), encoding="utf-16")
    data, run, export = (str(tmp_path / name) for name in ("data", "run", "export"))
    own_files = ["--valid", str(files["valid"]), "--test", str(files["test"])]
    assert main(["prepare", str(files["train"]), *own_files, "--items", str(items), "--output", data]) == 0
    assert main(["train", "--dataset", data, "--train_dir", run, *ARGUMENTS]) == 0
    assert main(["export", run, "--output", export]) == 0
    history = tmp_path / "history.txt"
    history.write_bytes(f'\ufeff{ids[0]}\r\n"{ids[1]}"\r\n'.encode())
    user = str(pl.read_csv(files["test"])["user"][0])
    for arguments in (
        [run, "--user", user],
        [run, "--history", f"@{history}"],
        [export, "--history", str(ids[0])],
    ):
        capsys.readouterr()
        assert main(["recommend", *arguments, "--k", "3"]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
        assert len(rows) == 3
        assert all(title == f"Title of {item}" for _, item, _, title in rows)


def test_a_model_with_time_learns_from_own_files(files: dict[str, Path], tmp_path: Path) -> None:
    settings = SMALL | {"time": True}
    recommender = sasrec.train(
        files["train"], tmp_path / "run", valid=files["valid"], test=files["test"], **settings
    )
    data = recommender.data
    assert (
        without_code(sasrec.evaluate(tmp_path / "run", test=files["test"]))["test"] == recommender.metrics["test"]
    )
    assert data is not None
    assert len(recommender.recommend_user("u001", k=3)) == 3


def test_without_a_validation_file_the_last_weights_are_kept(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--dataset",
        str(files["train"]),
        "--test",
        str(files["test"]),
        "--train_dir",
        str(tmp_path / "run"),
    ]
    assert main(["train", *arguments, *ARGUMENTS]) == 0
    printed = capsys.readouterr()
    assert "nobody has a validation target (there is no validation file: " in printed.err
    assert "test, full catalogue" in printed.out
    assert checkpoint_at(tmp_path / "run").state["epoch"] == 2


def test_contradictions_are_refused_before_any_data_is_read(
    run: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"split=temporal:0\.8 and own validation or test files both say"):
        sasrec.train("missing.csv", tmp_path / "run", test=files["test"], split="temporal:0.8")
    with pytest.raises(ConfigError, match="both say which events are held out"):
        sasrec.train(run / "dataset", tmp_path / "run", split="last-2", **SMALL)
    with pytest.raises(ConfigError, match="needs data with own validation or test files"):
        sasrec.train(files["all"], tmp_path / "run", split="files", **SMALL)
    test, train_dir = ["--test", str(files["test"])], ["--train_dir", str(run)]
    for arguments, message in (
        (["train", "--resume", *train_dir, *test], "--resume continues with the run's own data. Remove --test."),
        (["train", "--inference_only", *train_dir, *test], f"sasrec evaluate {run} --test FILE"),
        (["train", "--train", "a", "--dataset", "b", *train_dir], "--train and --dataset both set --dataset"),
    ):
        capsys.readouterr()
        assert main(arguments) == 1
        assert message in " ".join(capsys.readouterr().err.split())


def test_its_own_test_file_again_gives_the_figures_of_the_run_and_writes_nothing(
    run: Path, files: dict[str, Path]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    metrics = sasrec.evaluate(run, test=files["test"])
    own = json.loads((run / "metrics.json").read_text())
    assert metrics["test"] == own["test"]
    assert {name: each["test"] for name, each in metrics["baselines"].items()} == {
        name: each["test"] for name, each in own["baselines"].items()
    }
    assert "valid" not in metrics
    protocol = metrics["protocol"]
    assert protocol["data_hash"] == own["protocol"]["data_hash"]
    assert protocol["test_file"]["data_hash"] == sasrec.prepare(files["test"]).data_hash
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_is_measured_on_a_file_a_folder_or_a_frame(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, renamed = tmp_path / "run", tmp_path / "renamed.csv"
    sasrec.train(files["train"], run, **SMALL)
    metrics = sasrec.evaluate(run, test=files["test"], details=True)
    assert metrics["protocol"]["split"].startswith("other file: trained under leave-one-out; each event of test (")
    assert metrics["protocol"]["data_hash"] == sasrec.open_dataset(run / "dataset").data_hash
    frame = pl.read_csv(files["test"])
    assert sasrec.evaluate(run, test=frame)["test"] == metrics["test"]
    frame.rename({"user": "a", "item": "b", "time": "c"}).write_csv(renamed)
    sasrec.prepare(renamed, user="a", item="b", time="c", output=tmp_path / "data")
    assert sasrec.evaluate(run, test=tmp_path / "data")["test"] == metrics["test"]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--test", str(files["test"]), "--k", "3", "100"]) == 0
    printed = capsys.readouterr()
    assert "NDCG@3" in printed.out
    assert "split: other file: trained under leave-one-out; each event of test (" in printed.out
    assert "validation" not in printed.out + printed.err
    assert " rows read from test.csv: 0 rejected" in printed.err
    pl.DataFrame({"user": ["who"], "item": ["what"], "time": [1_600_000_000]}).write_csv(renamed)
    assert main(["evaluate", str(run), "--test", str(renamed)]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", str(run), "--dataset", str(renamed)]) == 1
    assert "To measure the run on the events of this file, name it as --test." in " ".join(
        capsys.readouterr().err.split()
    )
    assert "no event of the file renamed can be a test target (the user is not in the run's data: 1)" in message


def test_metrics_at_any_cut_off_come_from_the_stored_ranks(run: Path, tmp_path: Path) -> None:
    saved = (run / "metrics.json").read_bytes()
    ranks = pl.read_parquet(run / "ranks.parquet").filter(scorer="model", split="test")["full"].to_numpy()
    expected = metrics_from_ranks(ranks.astype(np.float64), (3, 100))
    found = sasrec.compare([f"{run}:popularity", run], metric="ndcg@3")
    assert found.others[0].side.metrics["ndcg@3"] == pytest.approx(expected["ndcg@3"], abs=1e-12)
    recall = sasrec.compare([f"{run}:popularity", run], metric="Recall@100").others[0].side.metrics
    assert recall["hr@100"] == pytest.approx(expected["hr@100"], abs=1e-12)
    metrics = sasrec.evaluate(run, k=[3, 100])
    assert {name: metrics["test"]["full"][name] for name in expected} == expected
    assert metrics["protocol"]["cutoffs"] == [1, 3, 5, 10, 20, 50, 100]
    for wrong in ([0], [1.5], [True]):
        with pytest.raises(ConfigError, match="`k` must have whole numbers of at least 1"):
            sasrec.evaluate(run, k=wrong)
    sasrec.evaluate(run)
    assert (run / "metrics.json").read_bytes() == saved
