"""The engines of docs/how-to/engines.md give the lists of `sasrec recommend --all`, with the code as the page shows it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import polars as pl
import pytest

import sasrec
from docs.tools.play import Stage, played

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "engines.md"
WRITTEN = {"duckdb": "top-duckdb.parquet", "ray": "top-ray/*.parquet", "pyspark": "top-spark/*.parquet"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_each_engine_gives_the_lists_of_recommend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in WRITTEN:
        pytest.importorskip(package)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    with contextlib.closing(Stage(tmp_path)) as stage:
        played(PAGE, stage)
        # The page ends with shards, whose data set is that of the whole log.
        of_spark = pl.read_parquet(tmp_path / "histories-spark" / "*.parquet").sort("user")
        assert of_spark.equals(pl.read_parquet(tmp_path / "histories.parquet").sort("user"))
        whole = sasrec.prepare(pl.read_parquet(tmp_path / "events.parquet"))
        assert sasrec.open_dataset(tmp_path / "data" / "shards").data_hash == whole.data_hash
        monkeypatch.chdir(tmp_path)
        expected = sasrec.load("runs/final").recommend_all(10).sort("user", "rank")
        for files in ("top.parquet", *WRITTEN.values()):
            found = pl.read_parquet(files).sort("user", "rank")
            assert found.select("user", "item", "rank").to_dict(as_series=False) == expected.select(
                "user", "item", "rank"
            ).to_dict(as_series=False), files
