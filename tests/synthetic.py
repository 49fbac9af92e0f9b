"""Data that the tests make for themselves: events whose next item can be learned from the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.items import Items


def small(**changes: Any) -> dict[str, Any]:
    """Settings of a model that trains in a second on the CPU, with these changes."""
    return {"maxlen": 12, "hidden_units": 16, "batch_size": 32, "lr": 1e-2, "device": "cpu"} | changes


def chain_frame(users: int = 60, items: int = 25, seed: int = 0, longest: int = 20) -> pl.DataFrame:
    """user, item, time as text and seconds: item k is mostly followed by item k + 1."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(random.integers(items))
        for step in range(int(random.integers(3, longest + 1))):
            rows.append((f"u{user:03d}", f"item-{item:02d}", 1_600_000_000 + 3600 * step + user))
            item = (item + 1) % items if random.random() < 0.9 else int(random.integers(items))
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def late_frame() -> pl.DataFrame:
    """Users begin at various times; some come after training, and so does an item."""
    frame = chain_frame(users=80).with_columns(
        time=pl.col("time") + pl.col("user").str.slice(1).cast(pl.Int64) * 1800
    )
    late = pl.col("time") > frame["time"].quantile(0.7)
    fresh = late & pl.col("item").is_in([f"item-{n:02d}" for n in range(7, 13)])
    return frame.with_columns(item=pl.when(fresh).then(pl.lit("late")).otherwise("item"))


def write_csv(path: Path, **options: int) -> Path:
    """`chain_frame` as a CSV file with ISO times."""
    frame = chain_frame(**options)
    iso = pl.from_epoch("time").dt.to_string("%Y-%m-%dT%H:%M:%SZ")
    frame.with_columns(iso.alias("time")).write_csv(path)
    return path


def dataset(lists: list[list[int]], num_items: int | None = None) -> Dataset:
    """A data set from lists of item numbers, without times; ids are the numbers as text."""
    count = num_items or max(max(row) for row in lists if row)
    return Dataset(
        items=np.asarray([item for row in lists for item in row], np.int32),
        times=None,
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64),
        user_ids=pl.Series([str(user) for user in range(len(lists))]),
        catalogue=Items(pl.Series([str(item) for item in range(1, count + 1)])),
    )


def random_lists(users: int, items: int, seed: int, longest: int = 30) -> list[list[int]]:
    """Histories of 1..longest random item numbers 1..items."""
    random = np.random.default_rng(seed)
    return [random.integers(1, items + 1, random.integers(1, longest + 1)).tolist() for _ in range(users)]
