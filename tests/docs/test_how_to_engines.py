"""The engines of the how-to give the lists of `recommend_all`, with the code as the page shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import sasrec
from tests.synthetic import chain_frame, small

PAGE = Path(__file__).parents[2] / "docs/how-to-engines.md"
NEEDS = {"duckdb": ["duckdb"], "polars": [], "ray": ["ray"], "spark": ["pyspark"]}
SHARDS = "shards"


def log_with_baskets() -> pl.DataFrame:
    """Events of three hours have one time, and rows are mixed, so that only a sort that keeps their order is right."""
    mixed = chain_frame().sample(fraction=1, shuffle=True, seed=0)
    return mixed.with_columns(pl.col("time") // 10_800 * 10_800)


def blocks() -> dict[str, str]:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(zip([*NEEDS, SHARDS], found, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", NEEDS)
def test_an_engine_gives_the_lists_of_recommend_all(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in NEEDS[engine]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    if engine == "spark":  # its workers are started with the Python of this variable
        monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    frame = log_with_baskets()
    frame.write_parquet("events.parquet")
    model = sasrec.train(frame, "runs/first", **small(num_epochs=3))
    if engine != "duckdb":
        histories = (
            frame.sort("user", "time", maintain_order=True).group_by("user", maintain_order=True).agg(items="item")
        )
        histories.write_parquet("histories.parquet")
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(blocks()[engine], f"{PAGE.name} {engine}", "exec"), names)
    written = Path(f"top-{engine}")
    files = f"{written}/*.parquet" if written.is_dir() else f"{written}.parquet"
    found = pl.read_parquet(files).sort("user", "rank")
    expected = model.recommend_all(10).sort("user", "rank")
    assert found["user"].to_list() == expected["user"].to_list()
    assert found["item"].to_list() == expected["item"].to_list()
    assert found["rank"].to_list() == expected["rank"].to_list()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_shards_that_spark_writes_give_the_data_set_of_the_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyspark")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    log_with_baskets().write_parquet("events.parquet")
    # A process of its own: the Java machine of an earlier test would have its folder.
    subprocess.run([sys.executable, "-c", blocks()[SHARDS]], check=True, timeout=280)
    assert len(list(Path("shards").glob("*.parquet"))) > 10
    merged = sasrec.prepare("shards", shards=True, output="data")
    assert merged.data_hash == sasrec.prepare("events.parquet").data_hash
