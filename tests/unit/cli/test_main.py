"""The command line, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import DataError
from tests.synthetic import chain_frame, write_csv

SMALL = ["--maxlen=12", "--hidden_units=16", "--batch_size=32", "--lr=1e-2", "--device=cpu", "--num_epochs=2"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    write_csv(tmp_path / "events.csv")
    assert (
        run(capsys, "train", "--dataset", tmp_path / "events.csv", "--train_dir", tmp_path / "run", *SMALL)[0] == 0
    )
    return tmp_path / "run"


def test_from_a_csv_with_text_ids_and_iso_times_to_items_in_two_commands(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "recommend", trained, "--history", "item-03,item-04", "--k", "3")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["rank", "item", "score"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert all(line.split()[1].startswith("item-") for line in lines[1:])


def test_training_prints_metrics_with_protocol_and_popularity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "events.csv")
    arguments = ["train", "--dataset", tmp_path / "events.csv", "--train-dir", tmp_path / "run", *SMALL]
    status, out, err = run(capsys, *arguments)
    assert status == 0
    assert "test, full catalogue: " in out
    assert "\npopularity " in out
    assert "split: leave-one-out" in out
    assert "ties count half" in out
    assert "sampled protocol (100 negatives): NDCG@10" in out
    assert "\ntest, sampled" not in out
    assert "the best baseline, " in out.rstrip().splitlines()[-3], "the verdict comes last"
    assert "validation NDCG@10" in err
    again, _, err = run(capsys, *arguments)
    assert again == 1
    assert "already holds a run" in err


def test_evaluate_repeats_what_training_measured(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((trained / "metrics.json").read_text())
    (trained / "metrics.json").unlink()
    assert run(capsys, "evaluate", trained)[0] == 0
    assert json.loads((trained / "metrics.json").read_text()) == before


def test_prepare_writes_a_data_set_with_titles_and_prints_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain_frame().rename({"user": "who", "item": "what", "time": "when"}).write_csv(
        tmp_path / "events.tsv", separator="\t"
    )
    titles = [f"item-{number:02d},The {number}th\n" for number in range(1, 20)]
    (tmp_path / "items.csv").write_text("id,name\n" + "".join(titles))
    columns = ["--user", "who", "--item", "what", "--time", "when", "--items", tmp_path / "items.csv"]
    data = tmp_path / "data"
    status, out, err = run(capsys, "prepare", tmp_path / "events.tsv", "--output", data, *columns)
    assert status == 0
    assert "events" in out
    assert "density" in out
    assert "note: 19 of 25 items have a title in items.csv" in out
    assert "from 2020-09-13" in out
    assert "sasrec train --dataset" in err
    assert run(capsys, "train", "--dataset", data, "--train_dir", tmp_path / "run", *SMALL)[0] == 0
    asked = ["--user", "u001", "--allow", "item-05"]
    _, out, err = run(capsys, "recommend", tmp_path / "run", *asked, "--include_seen")
    assert "The 5th" in out
    assert "train it with --no_skip_own_items" in err
    assert run(capsys, "similar", tmp_path / "run", "item-05")[2].startswith("like The 5th:")
    assert run(capsys, "similar", f"{tmp_path / 'run'}:markov", "item-05")[2].startswith("error: Markov is")
    repeats = ["--train_dir", tmp_path / "repeats", "--no_skip_own_items"]
    assert run(capsys, "train", "--dataset", data, *repeats, *SMALL)[0] == 0
    _, _, err = run(capsys, "recommend", tmp_path / "repeats", *asked, "--include_seen")
    assert "note" not in err


def test_bad_rows_are_refused_with_their_lines_and_tolerated_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "events.csv")
    path.write_text(path.read_text() + "u1,item-01\n")
    last = len(path.read_text().splitlines())
    status, _, err = run(capsys, "prepare", path, "--output", tmp_path / "data")
    assert status == 1
    assert f"events.csv:{last}: too few fields: 2 instead of 3" in err
    assert "--max_rejects" in err
    assert (tmp_path / "data/rejects.csv").exists()
    assert run(capsys, "prepare", path, "--output", tmp_path / "data", "--max_rejects", 1)[0] == 0
    assert pl.read_csv(tmp_path / "data/rejects.csv")["line"].to_list() == [last]


@pytest.mark.parametrize("kind", ["file", "two files", "prepared"])
def test_the_list_of_rejects_of_a_failed_attempt_does_not_outlive_a_reading_without_any(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_csv(tmp_path / "good.csv")
    bad = tmp_path / "bad.csv"
    bad.write_text(good.read_text() + "u1,item-01\n")
    ways = {
        "train": ["--dataset", bad, "--train_dir", tmp_path / "RUN"],
        "prepare": [bad, "--output", tmp_path / "D"],
    }
    for command, words in ways.items():
        assert run(capsys, command, *words)[0] == 1
    assert {path.parent.name for path in tmp_path.glob("*/rejects.csv")} == {"RUN", "D"}
    own = ["--test", good] if kind == "two files" else []
    assert run(capsys, "prepare", good, *own, "--output", tmp_path / "D")[0] == 0
    assert not (tmp_path / "D/rejects.csv").exists()
    source = [tmp_path / "D"] if kind == "prepared" else [good, *own]
    assert run(capsys, "train", "--dataset", *source, "--train_dir", tmp_path / "RUN", *SMALL)[0] == 0
    assert not (tmp_path / "RUN/rejects.csv").exists()


def test_what_training_prints_counts_one_as_english_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "events.csv", longest=4)
    path.write_text(path.read_text() + "short,item-01,2020-09-13T12:00:00Z\n")
    _, out, err = run(
        capsys, "train", "--dataset", path, "--train_dir", tmp_path / "run", *SMALL, "--num_epochs=1"
    )
    assert "test skips: 1 user (fewer than 3 events)" in out
    assert "training stopped after 1 epoch: the only epoch done" in err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_all_users_go_to_a_file(
    ending: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"top.{ending}"
    assert run(capsys, "recommend", trained, "--all", "--output", output, "--k", 2)[0] == 0
    frame = pl.read_csv(output) if ending == "csv" else pl.read_parquet(output)
    assert frame.columns == ["user", "item", "score", "rank"]
    assert frame["user"].n_unique() == 60


def test_allow_and_deny_lists_come_from_files_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "allowed.txt").write_text("item-10\nitem-11\n\n")
    asked = ["recommend", trained, "--history", "item-03,ghost", "--allow", f"@{tmp_path / 'allowed.txt'}"]
    status, out, err = run(capsys, *asked, "--deny", "item-10")
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["item-11"]
    assert "ghost" in err
    assert run(capsys, *asked, "--deny", "@nowhere.txt")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of"),
        (["--history", "item-01", "--all"], "exactly one of"),
        (["--history", "item-01", "--output", "top.csv"], "--output is only for --all"),
        (["--all", "--output", "nowhere/top.csv"], "the folder nowhere does not exist"),
        (["--all"], "--all needs --output. Add --output FILE.parquet"),
        (["--all", "--output", "top.xlsx"], "the file of --output must end in .parquet or .csv"),
        (["--user", "stranger"], "'stranger'"),
        (["--user", "u001", "--times", "1,2"], "are only for --history"),
        (["--all", "--output", "top.csv", "--assume_regular"], "are only for --history"),
        (["--history", "item-01", "--device", "meta"], "device 'meta' cannot compute"),
    ],
)
def test_a_wrong_question_gets_an_answer(
    arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "recommend", trained, *arguments)
    assert status == 1
    assert message in err


def test_the_command_and_options_of_the_published_code_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain_frame().select("user", "item").write_csv(tmp_path / "events.csv")
    command = f"train --dataset={tmp_path / 'events.csv'} --train_dir={tmp_path / 'run'} --no_time --no_mhc"
    flags = (
        "--maxlen=10 --hidden_units=8 --num_blocks=1 --num_heads=2 --dropout_rate=0.1 --l2_emb=0.0 "
        "--batch_size=16 --lr=0.001 --num_epochs=1 --device=cpu --norm_first"
    )
    assert run(capsys, *command.split(), *flags.split())[0] == 0
    assert 'norm = "pre"' in (tmp_path / "run/config.toml").read_text()
    assert "num_blocks = 1" in (tmp_path / "run/config.toml").read_text()
    hyphens = command.replace("_", "-").replace(str(tmp_path / "run").replace("_", "-"), str(tmp_path / "run2"))
    hyphens = hyphens.replace(str(tmp_path).replace("_", "-"), str(tmp_path))
    assert (
        run(capsys, *hyphens.split(), *flags.replace("_", "-").replace("norm-first", "no-norm-first").split())[0]
        == 0
    )
    assert 'norm = "post"' in (tmp_path / "run2/config.toml").read_text()


@pytest.mark.parametrize("residual", ["--no_mhc", "--mhc"])
def test_a_model_with_time_trains_evaluates_and_recommends_by_the_same_commands(
    residual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, trained = write_csv(tmp_path / "events.csv"), tmp_path / "run"
    train = ["train", "--dataset", events, "--train_dir", trained, *SMALL, "--time", "--time_span", "50", residual]
    assert run(capsys, *train)[0] == 0
    before = json.loads((trained / "metrics.json").read_text())
    assert run(capsys, "evaluate", trained)[0] == 0
    assert json.loads((trained / "metrics.json").read_text()) == before
    assert run(capsys, "recommend", trained, "--user", "u001")[0] == 0
    assert run(capsys, "recommend", trained, "--all", "--output", tmp_path / "top.csv")[0] == 0
    asked = ["recommend", trained, "--history", "item-03,item-04", "--k", 3]
    status, _, err = run(capsys, *asked)
    assert status == 1
    assert "--assume_regular" in err
    assert run(capsys, *asked, "--assume_regular")[0] == 0
    assert run(capsys, *asked, "--times", "10,20")[0] == 0
    for wrong in ("10", "20,10", "ten,20", "10,nan"):
        status, _, err = run(capsys, *asked, "--times", wrong)
        assert status == 1
        assert "times must be" in err
    status, _, err = run(capsys, *asked, "--times", "1600000000000000,1600000001000000")
    assert (status, "must be in seconds, but 1.6e+15 is too large" in err) == (1, True)
    with pytest.raises(DataError, match="times must be numbers"):
        sasrec.load(trained, device="cpu").recommend(["item-03", "item-04"], times=["2020-09-13", "2020-09-14"])


def test_what_takes_more_memory_than_there_is_gets_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write_csv(tmp_path / "events.csv")
    asked = [
        "train",
        "--dataset",
        events,
        "--train_dir",
        tmp_path / "run",
        *SMALL,
        "--maxlen",
        10**6,
        "--hidden_units",
        10**6,
    ]
    status, _, err = run(capsys, *asked)
    assert (status, "out of memory: in training, lower --batch_size" in err) == (1, True)


def test_data_without_times_and_a_model_with_time_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain_frame().select("user", "item").write_csv(tmp_path / "events.csv")
    status, _, err = run(
        capsys, "train", "--dataset", tmp_path / "events.csv", "--train_dir", tmp_path / "run", "--time"
    )
    assert status == 1
    assert "--no_time" in err


def test_a_recipe_on_the_command_line_is_overridden_by_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "events.csv")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[data]\ndataset = "{tmp_path / "events.csv"}"\n[model]\nmaxlen = 9\nhidden_units = 8\n'
        "[training]\nnum_epochs = 1\n"
    )
    assert run(capsys, "train", "--recipe", recipe, "--train_dir", tmp_path / "run", "--maxlen", 7)[0] == 0
    written = (tmp_path / "run/config.toml").read_text()
    assert "maxlen = 7" in written
    assert "hidden_units = 8" in written
    status, _, err = run(capsys, "train", "--recipe=nowhere.toml", "--train_dir", tmp_path / "x")
    assert status == 1
    assert "nowhere.toml" in err


def test_no_data_set_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "train", "--train_dir", tmp_path / "run")
    assert status == 1
    assert "--dataset" in err


def test_the_public_data_sets_are_listed_with_their_terms(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "datasets")
    assert status == 0
    for name in ("ml-100k", "ml-1m", "ml-20m", "amazon-beauty", "amazon-games", "steam"):
        assert name in out
    assert "redistribution" in out


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "compare", "recommend"])
def test_help_teaches_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Example: sasrec" in " ".join(shown.replace("│", " ").split())


def test_the_help_of_study_shows_its_file_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    file = capsys.readouterr().out.partition("A study is a TOML file:\n\n")[2].partition("\n\n")[0]
    assert tomllib.loads(file) == {
        "dataset": "ml-100k",
        "seeds": [0, 1],
        "settings": {"num_epochs": 20},
        "grid": {"mhc": [False, True], "num_blocks": [2, 4]},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "a.toml", "--watch"], "--watch is only for `sasrec study status`, not for run. Remove it."),
        (
            ["status", "a.toml", "--output", "a.tex"],
            "--output is only for `sasrec study run`, not for status. Remove it.",
        ),
    ],
)
def test_an_option_that_an_action_of_study_does_not_use_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "study", *arguments)
    assert status == 1
    assert message in " ".join(err.split())


@pytest.mark.parametrize("command", ["plot", "report"])
def test_plot_and_report_without_a_run_ask_for_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, command)[0] == 1
    assert run(capsys, command)[2] == "error: no run was named. Name at least one run or study, such as runs/a.\n"


def test_a_misspelt_flag_exits_with_2_and_names_the_near_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--train_dir", str(tmp_path), "--maxlne", "5"]) == 2
    assert "unknown option --maxlne of train; did you mean --maxlen?" in capsys.readouterr().err


def test_ctrl_c_in_a_terminal_saves_and_exits_with_130(tmp_path: Path) -> None:
    write_csv(tmp_path / "events.csv")
    command = [sys.executable, "-m", "sasrec", "train", "--dataset", str(tmp_path / "events.csv")]
    command += ["--train_dir", str(tmp_path / "run"), *SMALL[:-1], "--num_epochs", "100000", "--patience", "0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "continue with: sasrec train --train_dir" in said
    assert "Traceback" not in said
    assert main(["evaluate", str(tmp_path / "run")]) == 0


def test_long_ids_and_ids_with_commas_come_out_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = chain_frame().with_columns(pl.format("{}, {}", "item", pl.lit("x" * 90)).alias("item"))
    frame.write_csv(tmp_path / "events.csv")
    trained = tmp_path / "run"
    assert run(capsys, "train", "--dataset", tmp_path / "events.csv", "--train_dir", trained, *SMALL)[0] == 0
    (tmp_path / "history.txt").write_text("item-03, " + "x" * 90 + "\n")
    status, out, err = run(capsys, "recommend", trained, "--history", f"@{tmp_path / 'history.txt'}", "--k", 2)
    assert status == 0
    assert "unknown" not in err
    assert all(line.split("\t")[1].endswith("x" * 90) for line in out.splitlines()[1:])


def test_multi_gpu_says_how_several_devices_are_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset", "ml-1m", "--train_dir", "x", "--multi_gpu"]) == 1
    assert "torchrun --nproc_per_node=N" in capsys.readouterr().err
