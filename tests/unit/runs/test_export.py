"""F5: what is exported gives the same scores, and holds nobody's events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.checkpoint import store
from sasrec.cli.main import main
from sasrec.errors import CheckpointError, ConfigError, DataError, EvaluationError
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16, num_epochs=2)


@pytest.mark.parametrize("kind", [pytest.param({}, marks=pytest.mark.slow), {"time": True, "mhc": True}])
def test_exported_and_loaded_in_another_process_it_gives_the_same_scores_to_the_bit(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    run = sasrec.train(chain_frame(), tmp_path / "run", **SMALL, **kind)
    sasrec.export(tmp_path / "run", tmp_path / "model")
    histories = [["item-03"], ["item-07", "item-01", "item-20"], ["item-24"] * 15]
    script = (
        "import json, sys, sasrec; model = sasrec.load(sys.argv[1], device='cpu');"
        "print(json.dumps([model.recommend(h, 20, assume_regular=True) for h in json.loads(sys.argv[2])]))"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "model"), json.dumps(histories)]
    there = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    here = [[list(pair) for pair in run.recommend(history, 20, assume_regular=True)] for history in histories]
    assert there == here


def test_what_is_exported_holds_no_user_and_no_event(tmp_path: Path) -> None:
    run = sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    sasrec.export(tmp_path / "run", tmp_path / "model")
    model = sasrec.load(tmp_path / "model")
    assert model.data is None
    assert model.items.ids.equals(run.data.catalogue.ids)
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert written == {"checkpoints", "config.toml", "counts.parquet", "items.parquet", "README.md"}
    assert pl.read_parquet(tmp_path / "model/items.parquet").columns == ["id"]
    assert store.load(best_of(tmp_path / "model")).optimizer == {}
    with pytest.raises(DataError, match="an export contains no users"):
        model.recommend_user(run.data.user_ids[0])
    with pytest.raises(EvaluationError, match=r"is an export, which has no events\. Evaluate the run"):
        sasrec.evaluate(tmp_path / "model")
    with pytest.raises(ConfigError, match="not empty"):
        sasrec.export(tmp_path / "run", tmp_path / "model")


def test_an_export_is_neither_measured_nor_trained_nor_names_its_data(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(), output=tmp_path / "data")
    run = sasrec.train(tmp_path / "data", tmp_path / "run", **SMALL)
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert run.metrics["test"] == sasrec.evaluate(tmp_path / "run")["test"]
    assert "<table" in run._repr_html_(), "a notebook shows the metrics after training"
    sasrec.export(tmp_path / "run", tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert not any(str(tmp_path).encode() in content for content in before.values())
    with pytest.raises(EvaluationError, match="is an export"):
        sasrec.evaluate(tmp_path / "model", dataset=tmp_path / "data")
    with pytest.raises(CheckpointError, match="is an export, which cannot be trained"):
        sasrec.resume(tmp_path / "model")
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()} == before
    with_users = sasrec.load(tmp_path / "model", dataset=tmp_path / "data")
    user = run.data.user_ids[0]
    assert with_users.recommend_user(user) == sasrec.load(tmp_path / "run").recommend_user(user)


def test_weights_of_another_run_are_a_start_and_can_be_measured(tmp_path: Path) -> None:
    """--state_dict_path and --inference_only."""
    frame = chain_frame()
    sasrec.train(frame, tmp_path / "first", **SMALL)
    first = sasrec.evaluate(tmp_path / "first")
    again = sasrec.train(frame, tmp_path / "second", start_from=tmp_path / "first", **SMALL | {"lr": 1e-12})
    loaded = sasrec.load(tmp_path / "first")
    for mine, other in zip(again.model.parameters(), loaded.model.parameters(), strict=True):
        assert np.allclose(mine.detach(), other.detach(), atol=1e-8), "hardly moved from where it started"
    sasrec.train(frame, tmp_path / "third", **SMALL | {"seed": 3})
    written = (tmp_path / "third/metrics.json").read_text()
    (best,) = {path for path in (tmp_path / "first/checkpoints").iterdir() if path == best_of(tmp_path / "first")}
    assert sasrec.evaluate(tmp_path / "third", checkpoint=best)["test"] == first["test"]
    assert (tmp_path / "third/metrics.json").read_text() == written, "metrics.json is of the run's own best"
    with pytest.raises(CheckpointError, match="of a model with another hidden_units"):
        sasrec.train(frame, tmp_path / "wide", start_from=best, **SMALL | {"hidden_units": 8})
    with pytest.raises(CheckpointError, match="of a model with another norm, num_heads"):
        sasrec.train(frame, tmp_path / "heads", start_from=best, **SMALL | {"num_heads": 1, "norm": "post"})
    with pytest.raises(CheckpointError, match="other data"):
        sasrec.train(chain_frame(users=61), tmp_path / "other", start_from=best, **SMALL)
    with pytest.raises(ConfigError, match="may have seen targets of split last-2"):
        sasrec.train(frame, tmp_path / "split", start_from=best, split="last-2", **SMALL)
    with pytest.raises(CheckpointError, match="can run code"):
        sasrec.train(frame, tmp_path / "pickle", start_from="weights.pth", **SMALL)


def best_of(run: Path) -> Path:
    return store.best(run / "checkpoints")


def test_the_flags_of_the_published_code_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: object, status: int = 0) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out + captured.err

    one, two, model = tmp_path / "one", tmp_path / "two", tmp_path / "model"
    chain_frame().write_csv(tmp_path / "events.csv")
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    train = ["train", "--dataset", tmp_path / "events.csv", *small, "--train_dir"]
    said(*train, one)
    shapes = said(*train, two, "--state_dict_path", one, "--show_shapes")
    assert "blocks.0.attention.query" in shapes
    assert ", 16) float32" in shapes
    trained = (one / "metrics.json").read_text()
    assert "  loss " not in said("train", "--train_dir", one, "--inference_only", "--device=cpu")
    assert (one / "metrics.json").read_text() == trained
    other = said("train", "--train_dir", one, "--inference_only", "--state_dict_path", best_of(two))
    assert (
        f"{json.loads((two / 'metrics.json').read_text())['test']['full']['ndcg@10']:.4f}".removeprefix("0")
        in other
    )
    wrong = said("train", "--train_dir", one, "--inference_only", "--maxlen=13", status=1)
    assert "maxlen would have no effect" in wrong
    assert "Remove --state_dict_path" in said(
        "train", "--train_dir", one, "--resume", "--state_dict_path", two, status=1
    )
    assert "Remove --from" in said(
        "train", "--train_dir", one, "--resume", "--from", tmp_path / "events.csv", status=1
    )
    said("export", one, "--output", model)
    recommend = [["recommend", run, "--history", "item-03,item-04", "--k=3"] for run in (one, model)]
    assert said(*recommend[0]) == said(*recommend[1])


def test_an_export_has_the_settings_of_its_weights_whatever_became_of_config_toml(tmp_path: Path) -> None:
    run = tmp_path / "run"
    recommender = sasrec.train(chain_frame(), run, **small(num_epochs=1, num_heads=2))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("num_heads = 2", "num_heads = 1"))
    history = ["item-01", "item-02"]
    exported = sasrec.load(sasrec.export(run, tmp_path / "export"), device="cpu")
    assert exported.recommend(history) == recommender.recommend(history)


def test_a_file_is_no_place_for_an_export(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    with pytest.raises(ConfigError, match=r"is a file or a folder that is not empty\. Name another folder"):
        sasrec.export(tmp_path / "run", tmp_path / "file")


def test_the_model_card_has_the_figures_and_names_no_path_and_no_user(tmp_path: Path) -> None:
    frame = chain_frame()
    frame.write_csv(tmp_path / "events.csv")
    run = sasrec.train(tmp_path / "events.csv", tmp_path / "run", **SMALL)
    sasrec.final_fit(tmp_path / "run", tmp_path / "final")
    for name in ("run", "final"):
        sasrec.export(tmp_path / name, tmp_path / f"{name}-model")
    card, final = ((tmp_path / f"{name}-model/README.md").read_text() for name in ("run", "final"))
    metrics = sasrec.evaluate(tmp_path / "run")
    assert card.startswith("# SASRec, 25 items\n")
    assert f"{run.data.num_events:,} events of 60 users with 25 items, from 2020-09-13" in card
    best = max(metrics["baselines"], key=lambda each: metrics["baselines"][each]["test"]["full"]["ndcg@10"])
    found = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("| NDCG@10")]
    (_, model, interval, baseline) = [each.strip() for each in found[0]]
    assert float(model) == pytest.approx(metrics["test"]["full"]["ndcg@10"], abs=5e-5)
    assert float(baseline) == pytest.approx(metrics["baselines"][best]["test"]["full"]["ndcg@10"], abs=5e-5)
    low, high = map(float, interval.split(" to "))
    assert 0 <= low < float(model) < high <= 1
    assert "Nothing was measured with these weights" in final
    assert "The run run chose the settings" in " ".join(final.split())
    assert f"NDCG@10 {metrics['test']['full']['ndcg@10']:.4f}" in " ".join(final.split())
    for folder in ("run-model", "final-model"):
        texts = [
            path for path in (tmp_path / folder).rglob("*") if path.suffix in (".md", ".toml", ".json", ".jsonl")
        ]
        for path in texts:
            assert str(tmp_path) not in path.read_text(), path
            assert "u001" not in path.read_text(), path
