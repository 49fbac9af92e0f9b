"""What a run shows against the best baseline: the same as `compare`."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.cli.sentences import verdict
from sasrec.evaluation.metrics import Metrics
from sasrec.runs.folder import RunFolder, best_baseline
from sasrec.studies.verdict import verdict_on
from tests.synthetic import chain_frame, small, write_csv

SMALL = small(hidden_units=8, num_epochs=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict") / "run"
    sasrec.train(chain_frame(), folder, **SMALL)
    return folder


def edited(run: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the run whose log says something else."""
    for name in ("metrics.json", "ranks.parquet", "config.toml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    log = (run / "log.jsonl").read_text()
    assert old in log
    (tmp_path / "log.jsonl").write_text(log.replace(old, new))
    return tmp_path


def test_the_verdict_is_that_of_compare(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdict_on(run)
    name, _ = best_baseline(RunFolder(run).metrics(), "test.full.ndcg@10")
    assert found.baseline == name
    assert found.comparison == sasrec.compare([f"{run}:{name}", run])
    said = " ".join(verdict(found))
    assert main(["compare", f"{run}:{name}", str(run)]) == 0
    compared = capsys.readouterr().out
    (against,) = found.comparison.others
    assert against.verdict == "worse"
    assert "The model is worse than the best baseline, markov: NDCG@10" in said
    assert f"{run} is worse than" in compared
    interval = re.search(r"95 % interval (\S+ to [-.\d]+\d)", said)
    assert interval
    assert interval[0] in compared


def test_after_a_worse_model_the_next_step_is_a_list_of_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "events.csv")
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    assert (
        main(["train", f"--dataset={tmp_path / 'events.csv'}", f"--train_dir={tmp_path / 'run'}", *options]) == 0
    )
    said = capsys.readouterr()
    assert "The model is worse than the best baseline, markov" in said.out
    assert f"next: sasrec recommend {tmp_path / 'run'}:markov --user u000" in said.err


def test_intervals_hold_the_means_and_stay_in_the_range_of_a_metric(run: Path) -> None:
    found = verdict_on(run).intervals
    means = RunFolder(run).metrics()["test"]["full"]
    for metric in ("ndcg@10", "hr@10"):
        assert found[metric].mean == pytest.approx(means[metric], abs=1e-12)
        assert 0 <= found[metric].low < means[metric] < found[metric].high <= 1


def test_a_run_that_a_limit_ended_at_its_best_validation_had_not_converged(run: Path, tmp_path: Path) -> None:
    assert verdict_on(run).cut_by == "num_epochs"
    assert list(verdict(verdict_on(run)))[-1] == (
        "Training had not converged: validation was still improving when num_epochs ended the run. "
        "Continue with --resume and a larger --num_epochs."
    )
    by_clock = edited(run, tmp_path, "all 3 epochs done", "2 minutes are over")
    assert verdict_on(by_clock).cut_by == "max_minutes"
    early = edited(run, tmp_path, "all 3 epochs done", "no better validation for 10 epochs")
    assert verdict_on(early).cut_by is None
    assert "converged" not in " ".join(verdict(verdict_on(early)))


def test_a_run_whose_best_validation_was_earlier_says_nothing_of_convergence(run: Path, tmp_path: Path) -> None:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [each for each in events if each["event"] == "validation"][-1]
    worse = edited(run, tmp_path, json.dumps(last), json.dumps(last | {"best": False}))
    assert verdict_on(worse).cut_by is None


@pytest.mark.parametrize("arguments", [["evaluate"], ["train", "--inference_only", "--train_dir"]])
def test_the_commands_end_with_the_verdict(
    arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, str(run)]) == 0
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[-3:] == list(verdict(verdict_on(run)))


def test_the_sampled_figures_are_a_line_and_on_request_a_table(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out
    sampled = RunFolder(run).metrics()["test"]["sampled"]
    figures = [f"{sampled[name]:.4f}".removeprefix("0") for name in ("ndcg@10", "hr@10")]
    assert f"sampled protocol (100 negatives): NDCG@10 {figures[0]}, HR@10 {figures[1]}; not comparable" in shown
    assert "test, sampled\n" not in shown
    assert main(["evaluate", str(run), "--sampled"]) == 0
    assert "test, sampled\n" in capsys.readouterr().out


def test_without_test_targets_or_users_there_is_no_verdict(run: Path, tmp_path: Path) -> None:
    frame = chain_frame()
    long = frame.group_by("user").len().filter(frame.group_by("user").len()["len"] >= 3)["user"].sort()[0]
    short = frame.filter(frame["user"] != long).group_by("user", maintain_order=True).head(2)
    alone = frame.filter(frame["user"] == long).vstack(short)
    sasrec.train(alone, tmp_path / "one", **SMALL)
    found = verdict_on(tmp_path / "one")
    assert (found.comparison, found.intervals) == (None, {})
    assert "one user on test" in " ".join(verdict(found))


def test_results_are_dictionaries_with_a_table(run: Path) -> None:
    metrics = sasrec.evaluate(run, device="cpu")
    assert isinstance(metrics, Metrics)
    assert metrics == RunFolder(run).metrics() == json.loads((run / "metrics.json").read_text())
    comparison = sasrec.compare([f"{run}:popularity", run])
    assert repr(comparison) == f"<Comparison on test: {comparison.others[0].sentence}>"
    assert "<table>" in comparison._repr_html_()
    sure = dataclasses.replace(comparison.others[0], adjusted_p=0.0002)
    assert "<td>&lt; 0.001</td>" in dataclasses.replace(comparison, others=(sure,))._repr_html_()
