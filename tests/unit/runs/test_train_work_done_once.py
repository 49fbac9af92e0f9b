"""One training opens, splits and hashes its data once; serving splits nothing."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data import dataset as dataset_module
from sasrec.runs import evaluate as evaluate_module
from sasrec.runs import folder as folder_module
from sasrec.runs import train as train_module
from sasrec.sources import resolve as resolve_module
from tests.synthetic import chain_frame, late_frame, small

SMALL = small(batch_size=16, num_epochs=2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often data sets were opened and split, and each file of them was hashed."""
    counts: Counter[str] = Counter()

    def counted(module: Any, name: str, label: Any) -> None:
        original = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[label(arguments)] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for module in (evaluate_module, folder_module, resolve_module):
        counted(module, "open_dataset", lambda _: "opened")
    for module in (evaluate_module, train_module):
        counted(module, "split_of", lambda _: "split")
    counted(dataset_module, "file_digest", lambda arguments: f"hashed {Path(arguments[0]).name}")
    return counts


FILES = ("items.bin", "times.bin", "offsets.bin", "users.parquet", "items.parquet", "report.json")


def test_training_on_a_dataset_opens_it_never_splits_it_once_and_hashes_each_file_once(
    calls: Counter[str], tmp_path: Path
) -> None:
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL)
    assert calls == {"split": 1} | {f"hashed {name}": 1 for name in FILES}


def test_training_on_a_prepared_folder_opens_it_once(calls: Counter[str], tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(), output=tmp_path / "data")
    calls.clear()
    sasrec.train(tmp_path / "data", tmp_path / "run", **SMALL)
    assert calls == {"opened": 1, "split": 1} | {f"hashed {name}": 1 for name in FILES}


def test_requests_split_nothing(calls: Counter[str], tmp_path: Path) -> None:
    sasrec.train(sasrec.prepare(late_frame()), tmp_path / "run", split="temporal:0.7", time=True, **SMALL)
    calls.clear()
    recommender = sasrec.load(tmp_path / "run", device="cpu")
    recommender.recommend(["item-01", "item-02"], assume_regular=True)
    recommender.recommend_user("u001")
    assert calls["opened"] == 1
    assert calls["split"] == 0


@pytest.mark.slow
def test_the_first_request_of_a_temporal_run_of_a_million_events_is_as_fast_as_later_ones(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    events = 1_000_000
    frame = pl.DataFrame(
        {
            "user": random.integers(0, 50_000, events),
            "item": random.integers(0, 20_000, events),
            "time": 1_600_000_000 + random.integers(0, 10**7, events),
        }
    )
    settings = SMALL | {"num_epochs": 1, "max_minutes": 0.01, "batch_size": 1024}
    sasrec.train(sasrec.prepare(frame), tmp_path / "run", split="temporal:0.9", **settings)
    ratios = []
    for _ in range(3):
        recommender = sasrec.load(tmp_path / "run", device="cpu")
        seconds = []
        for user in recommender.data.user_ids[:21]:
            began = time.perf_counter()
            recommender.recommend_user(user)
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / statistics.median(seconds[1:]))
    assert statistics.median(ratios) <= 3, ratios
