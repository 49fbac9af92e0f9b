"""Recipes that say what they give, and are held to it."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest

import sasrec
from sasrec.cli import main
from sasrec.errors import ConfigError, DataError
from sasrec.reproduction import read_recipe, recipe_names, reproduce
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
    words = ["reproduce", str(recipe), "--dataset", str(events), "--train_dir", str(tmp_path / "runs")]
    capsys.readouterr()
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        f"{statistics.mean(values):.4f} {statistics.stdev(values):.4f} 0 to 1 0.2500 (somebody, some year)"
        in shown
    )
    assert (tmp_path / "runs/tiny-0/log.jsonl").read_text() == logs[0], "not trained again"
    assert (tmp_path / "runs/tiny-1/log.jsonl").read_text().count('"epoch"') == logs[1].count('"epoch"')


def test_a_mean_outside_its_band_is_an_error(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, events, low=0.9)
    words = [
        "reproduce",
        str(recipe),
        "--dataset",
        str(events),
        "--train_dir",
        str(tmp_path / "runs"),
        "--seeds",
        "0",
    ]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "one seed" in captured.out
    assert "and 0.9 to 1 was expected" in captured.err


def test_other_data_is_refused_before_training(tmp_path: Path, events: Path) -> None:
    recipe = written(tmp_path, events)
    chain_frame(users=61).write_csv(events)
    with pytest.raises(DataError, match="other events, or another order"):
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
    with pytest.raises(ConfigError, match="was trained with another lr"):
        reproduce(recipe, tmp_path / "runs", dataset=events, seeds=[0])


def test_recipes_that_say_nothing_or_nonsense_are_refused(tmp_path: Path, events: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe 'nothing'"):
        read_recipe("nothing")
    path = written(tmp_path, events)
    for text, message in (
        (path.read_text().replace("seeds = [0, 1]", "seeds = []"), "seeds"),
        (path.read_text().replace("[0.0, 1.0]", "0.5"), "ndcg@10"),
        (path.read_text().replace("test.full.ndcg@10", "test.full.ndcg@11"), "ndcg@11 is no metric"),
        (path.read_text().replace("[0.0, 1.0]", "[1.0, 0.0]"), "goes from 1.0 to 0.0"),
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
