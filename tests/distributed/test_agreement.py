"""Processes that differ in data, settings or code do not train together, and each error reaches rank 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from tests.distributed.launch import finish, start
from tests.synthetic import chain_frame

# What rank 1 finds on its own disk is stood in for: other data, other code, or nothing at all.
SCRIPT = """
import json, os, sys
import sasrec
from sasrec.evaluation import card
from sasrec.runs import folder, train
data, run, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
mine = settings.pop("of_rank_1") if os.environ["RANK"] == "1" else {}
settings.pop("of_rank_1", None)
if place := mine.pop("place", None):
    opened = folder.open_dataset
    folder.open_dataset = lambda path: opened(place)
if code := mine.pop("code", None):
    card._SOURCE = code
what = sasrec.resume if settings.pop("resume", False) else sasrec.train
what(*[run] if what is sasrec.resume else [data, run], **settings | mine)
"""
SMALL: dict[str, Any] = {"maxlen": 8, "hidden_units": 16, "batch_size": 16, "num_epochs": 2, "device": "cpu"}


def trained(tmp_path: Path, **settings: Any) -> tuple[int, str]:
    """Train on two processes in tmp_path/run, on the data in tmp_path/data."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [str(tmp_path / "data"), str(tmp_path / "run"), json.dumps(settings)]
    return finish(start(2, str(script), *words), seconds=100)


def other_data(number: int) -> pl.DataFrame:
    """The events with one small change: a time, an item, or an event less."""
    frame = chain_frame()
    row = 7 * number % len(frame)
    changed = pl.int_range(pl.len()) == row
    if number % 3 == 0:
        return frame.filter(~changed)
    if number % 3 == 1:
        return frame.with_columns(pl.when(changed).then(pl.col("time") + 1).otherwise("time").alias("time"))
    return frame.with_columns(
        pl.when(changed).then(pl.lit(frame["item"][row - 3])).otherwise("item").alias("item")
    )


@pytest.mark.parametrize("number", [pytest.param(n, marks=[] if n == 1 else pytest.mark.slow) for n in range(20)])
def test_a_rank_with_other_data_is_named_before_the_first_step(tmp_path: Path, number: int) -> None:
    data, other = sasrec.prepare(chain_frame()), sasrec.prepare(other_data(number))
    data.save(tmp_path / "data")
    other.save(tmp_path / "other")
    assert data.data_hash != other.data_hash
    settings = SMALL | {"of_rank_1": {"place": str(tmp_path / "other")}}
    if number % 2:
        sasrec.train(tmp_path / "data", tmp_path / "run", **SMALL)
        settings = {"resume": True, "num_epochs": 4, "of_rank_1": {"dataset": str(tmp_path / "other")}}
    before = sorted(tmp_path.glob("run/checkpoints/*"))
    status, said = trained(tmp_path, **settings)
    assert status != 0
    first = "was trained on other data" if number % 2 else f"rank 1 has data with hash {other.data_hash[:12]}"
    assert said.count(first) >= 1, said
    assert other.data_hash[:12] in said
    assert sorted(tmp_path.glob("run/checkpoints/*")) == before


@pytest.mark.parametrize(
    ("of_rank_1", "named"),
    [
        ({"num_epochs": 3}, "rank 1 has `num_epochs` 3, but rank 0 has `num_epochs` 2"),
        pytest.param({"code": "0" * 64}, "rank 1 has code of sasrec 0.1.0+00000000", marks=pytest.mark.slow),
    ],
)
def test_a_rank_with_other_settings_or_code_is_named(
    tmp_path: Path, of_rank_1: dict[str, Any], named: str
) -> None:
    sasrec.prepare(chain_frame()).save(tmp_path / "data")
    status, said = trained(tmp_path, **SMALL, of_rank_1=of_rank_1)
    assert status != 0
    assert named in said, said
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_a_rank_without_the_data_says_so_through_rank_0(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame()).save(tmp_path / "data")
    status, said = trained(tmp_path, **SMALL, of_rank_1={"place": str(tmp_path / "nowhere")})
    assert status != 0
    of_rank_0 = [line for line in said.splitlines() if line.startswith("[rank0]")]
    assert any("rank 1 failed: " in line and "nowhere does not exist" in line for line in of_rank_0), said
