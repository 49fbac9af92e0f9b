"""`sasrec reproduce`: recipes are trained over their seeds and checked against their bands."""

from __future__ import annotations

import json
import shutil
import signal
import statistics
from pathlib import Path

import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.config.recipe import read_recipe, recipe_names
from sasrec.errors import ConfigError, DataError, EvaluationError
from sasrec.runs import train as train_module
from sasrec.studies.reproduce import reproduce
from sasrec.training import trainer
from tests.synthetic import chain_frame

RECIPE = """
[model]
maxlen = 12
hidden_units = 16
[training]
batch_size = 16
lr = 1e-2
num_epochs = 2
device = "cpu"
[expected]
data_hash = "{hash}"
seeds = [0, 1]
"test.full.ndcg@10" = [{low}, {high}]
[[published]]
metric = "test.full.ndcg@10"
value = 0.25
source = "somebody, some year"
"""


@pytest.fixture
def events(tmp_path: Path) -> Path:
    chain_frame().write_csv(tmp_path / "events.csv")
    return tmp_path / "events.csv"


def written(folder: Path, events: Path, low: float = 0.0, high: float = 1.0) -> Path:
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(hash=sasrec.prepare(events).data_hash[:16], low=low, high=high))
    return path


def command(recipe: Path, events: Path, *more: str) -> list[str]:
    runs = recipe.parent / "runs"
    return ["reproduce", str(recipe), "--dataset", str(events), "--train_dir", str(runs), *more]


def interrupted_at_step(step: int, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> int:
    """Run a command that receives SIGINT at a step, and return its exit status."""
    calls, original = iter(range(10_000)), trainer.training_loss

    def loss(*arguments):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "training_loss", loss)
        return main(words)


def test_it_trains_every_seed_and_a_second_call_only_reads(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events)
    outcome = reproduce(recipe, tmp_path / "runs", dataset=events)
    values = outcome.values("test.full.ndcg@10")
    found = [json.loads((tmp_path / f"runs/tiny-{seed}/metrics.json").read_text()) for seed in (0, 1)]
    assert values == [each["test"]["full"]["ndcg@10"] for each in found]
    assert values[0] != values[1]
    logs = [(tmp_path / f"runs/tiny-{seed}/log.jsonl").read_text() for seed in (0, 1)]
    shutil.rmtree(tmp_path / "runs/tiny-1")
    capsys.readouterr()
    assert main(command(recipe, events)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    counted = {name: each["test"]["full"]["ndcg@10"] for name, each in found[0]["baselines"].items()}
    best = max(counted, key=lambda name: counted[name])
    means = f"{statistics.mean(values):.4f} {statistics.stdev(values):.4f}"
    assert f"test.full.ndcg@10 {means} 0 to 1 {best} {counted[best]:.4f}" in shown
    assert "published: test.full.ndcg@10 0.2500 (somebody, some year)" in shown
    assert "2 seeds, " in shown
    assert shown.endswith("all bands hold")
    assert "the mean over" not in shown
    assert (tmp_path / "runs/tiny-0/log.jsonl").read_text() == logs[0], "not trained again"
    assert (tmp_path / "runs/tiny-1/log.jsonl").read_text().count('"epoch"') == logs[1].count('"epoch"')


def test_a_mean_outside_its_band_is_an_error(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events, low=0.9)
    assert main(command(recipe, events, "--seeds", "0")) == 1
    captured = capsys.readouterr()
    assert "one seed" in captured.out
    assert "The bands are for the mean over 2 seeds; this is the mean over 1" in captured.out
    assert "hold" not in captured.out
    assert "outside the expected 0.9 to 1" in captured.err
    assert "max_minutes" not in captured.err


def test_a_band_missed_by_a_run_that_the_clock_ended_says_so(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events, low=0.9)
    recipe.write_text(recipe.read_text().replace("num_epochs = 2", "num_epochs = 9999\nmax_minutes = 0.001"))
    assert main(command(recipe, events, "--seeds", "0")) == 1
    assert (
        "max_minutes stopped 1 of 1 runs, and a slower machine trains less in that time" in capsys.readouterr().err
    )
    recipe.write_text(recipe.read_text().replace("[0.9, 1.0]", "[0.0, 1.0]"))
    assert main(command(recipe, events, "--seeds", "0")) == 0


def test_a_recipe_without_bands_shows_what_it_gave_and_says_that_nothing_was_checked(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events)
    recipe.write_text(recipe.read_text().replace('"test.full.ndcg@10" = [0.0, 1.0]', "").split("[[published]]")[0])
    assert main(command(recipe, events, "--seeds", "0")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    value = json.loads((tmp_path / "runs/tiny-0/metrics.json").read_text())["test"]["full"]["hr@10"]
    assert f"test.full.hr@10 {value:.4f} one seed" in shown
    assert shown.endswith("The recipe states no band: nothing was checked.")
    assert "hold" not in shown


def test_interrupted_it_says_that_the_same_command_goes_on_and_that_does(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events)
    whole = reproduce(recipe, tmp_path / "whole", dataset=events).metrics
    assert interrupted_at_step(3, monkeypatch, command(recipe, events)) == 130
    assert "interrupted; run the same command again to continue" in capsys.readouterr().err
    # Measured before its end, a run has a metrics.json as one has that ended.
    sasrec.evaluate(tmp_path / "runs/tiny-0", device="cpu")
    outcome = reproduce(recipe, tmp_path / "runs", dataset=events)
    assert outcome.metrics == whole
    assert [each.reason for each in outcome.endings] == ["all 2 epochs done"] * 2


def test_figures_of_before_the_end_are_not_taken_for_those_of_the_end(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is interrupted, measured, resumed, and interrupted again after training but before measuring."""
    recipe = written(tmp_path, events)
    whole = reproduce(recipe, tmp_path / "whole", dataset=events, seeds=[0]).metrics
    assert interrupted_at_step(3, monkeypatch, command(recipe, events, "--seeds", "0")) == 130
    sasrec.evaluate(tmp_path / "runs/tiny-0", device="cpu")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "_measured", interrupted)
        assert main(command(recipe, events, "--seeds", "0")) == 130
    assert reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics == whole


def test_an_unfinished_run_of_other_data_or_settings_is_refused_before_anything_is_trained(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(tmp_path, events)
    assert interrupted_at_step(3, monkeypatch, command(recipe, events, "--seeds", "1")) == 130
    log = (tmp_path / "runs/tiny-1/log.jsonl").read_text()
    recipe.write_text(recipe.read_text().replace("num_epochs = 2", "num_epochs = 3"))
    with pytest.raises(ConfigError, match="tiny-1 was trained with different settings: num_epochs"):
        reproduce(recipe, tmp_path / "runs", dataset=events)
    chain_frame(users=61).write_csv(events)
    recipe = written(tmp_path, events)
    with pytest.raises(DataError, match="tiny-1 was trained on data with the hash"):
        reproduce(recipe, tmp_path / "runs", dataset=events)
    assert (tmp_path / "runs/tiny-1/log.jsonl").read_text() == log
    assert not (tmp_path / "runs/tiny-0").exists()


def test_an_ended_run_of_other_data_is_refused(tmp_path: Path, events: Path) -> None:
    reproduce(written(tmp_path, events), tmp_path / "runs", dataset=events, seeds=[0])
    chain_frame(users=61).write_csv(events)
    with pytest.raises(DataError, match="tiny-0 was trained on data with the hash"):
        reproduce(written(tmp_path, events), tmp_path / "runs", dataset=events, seeds=[0])


@pytest.mark.parametrize("log", [None, "", "7\n[]\nnull\n{}\n", '{"event": "stopped"}\n', "\xff{\n"])
def test_a_run_whose_log_is_missing_or_odd_is_taken_up_again(
    tmp_path: Path, events: Path, log: str | None
) -> None:
    recipe = written(tmp_path, events)
    whole = reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics
    path = tmp_path / "runs/tiny-0/log.jsonl"
    path.unlink() if log is None else path.write_text(log, encoding="latin-1")
    assert reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics == whole
    assert '"resume"' in path.read_text(encoding="latin-1")


def test_a_run_that_was_killed_before_it_was_measured_is_measured(tmp_path: Path, events: Path) -> None:
    recipe = written(tmp_path, events)
    whole = reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics
    (tmp_path / "runs/tiny-0/metrics.json").unlink()
    assert reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics == whole


@pytest.mark.parametrize("content", ["{}", "[]", '{"protocol": 3}'])
def test_an_odd_metrics_file_is_named(tmp_path: Path, events: Path, content: str) -> None:
    recipe = written(tmp_path, events)
    reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0])
    (tmp_path / "runs/tiny-0/metrics.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"metrics\.json"):
        reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0])


@pytest.mark.parametrize("seeds", [[0, 0], []])
def test_a_seed_counts_once(tmp_path: Path, events: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="at least one seed, and each only once"):
        reproduce(written(tmp_path, events), tmp_path / "runs", dataset=events, seeds=seeds)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["recipes/ml-100k", "./ml-100k", "/elsewhere/ml-100k", "ml-100k.tom"])
def test_a_name_is_a_name_and_a_file_ends_in_toml(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown recipe '{name}'.*ml-100k, .*a file ends in .toml"):
        read_recipe(name)
    assert read_recipe("ml-100k").name == "ml-100k"


def test_other_data_is_refused_before_training(tmp_path: Path, events: Path) -> None:
    recipe = written(tmp_path, events)
    chain_frame(users=61).write_csv(events)
    with pytest.raises(DataError, match="expects data with the hash"):
        reproduce(recipe, tmp_path / "runs", dataset=events)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(DataError, match="no data set was named"):
        reproduce(recipe, tmp_path / "runs")


def test_a_folder_with_another_run_or_an_unfinished_one_is_not_taken_for_the_recipe(
    tmp_path: Path, events: Path
) -> None:
    recipe = written(tmp_path, events)
    whole = reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics
    log = tmp_path / "runs/tiny-0/log.jsonl"
    log.write_text(log.read_text().replace('"event": "stopped"', '"event": "epoch"') + '{"time": "20')
    assert reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0]).metrics == whole
    assert '"event": "resume"' in log.read_text()
    recipe.write_text(recipe.read_text().replace("lr = 1e-2", "lr = 2e-2"))
    with pytest.raises(ConfigError, match="was trained with different settings: lr"):
        reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0])


def test_recipes_that_say_nothing_or_nonsense_are_refused(tmp_path: Path, events: Path) -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'nothing'"):
        read_recipe("nothing")
    path = written(tmp_path, events)
    for text, message in (
        (path.read_text().replace("seeds = [0, 1]", "seeds = []"), "seeds"),
        (path.read_text().replace("seeds = [0, 1]", "seeds = [0, 0]"), "a seed occurs twice"),
        (path.read_text().replace("seeds = [0, 1]", ""), "expected.seeds: is missing"),
        (path.read_text().split("[expected]")[0], r"tiny.toml has no table \[expected\]"),
        ("expected = 3\n" + path.read_text().split("[expected]")[0], "expected: Input should be"),
        (
            path.read_text().replace('metric = "test.full.ndcg@10"', 'metric = "test.ful.ndcg@10"'),
            "is not a metric",
        ),
        ("published = 3\n" + path.read_text().split("[[published]]")[0], "published: Input should be"),
        (path.read_text().replace("[0.0, 1.0]", "0.5"), "ndcg@10"),
        (path.read_text().replace("test.full.ndcg@10", "test.full.ndcg@11"), "ndcg@11 is not a metric"),
        (path.read_text().replace("[0.0, 1.0]", "[1.0, 0.0]"), "runs from 1.0 to 0.0"),
        (path.read_text().replace('source = "somebody, some year"', "page = 3"), "source"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_recipe(path)
        written(tmp_path, events)


def test_the_recipes_that_come_with_the_package_say_what_they_give() -> None:
    assert recipe_names()
    for name in recipe_names():
        recipe = read_recipe(name)
        assert {"test.full.ndcg@10", "test.full.hr@10"} <= recipe.expected.bands.keys()
        assert all(low < high for low, high in recipe.expected.bands.values())
