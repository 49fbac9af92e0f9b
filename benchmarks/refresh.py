"""What refreshing a run each week is worth, against training it from scratch and against leaving it as it is.

    OMP_NUM_THREADS=1 python benchmarks/refresh.py DATA --first 2000-12-04 --weeks 8 --json FILE [--repeats]

A run is trained on the events up to a week before the first week. Before each week, three runs give a list of 20
to each user of the week, from the user's events before it: the first run ("left"), one refreshed from the run of
the week before ("refreshed"), and one trained from scratch on all events before the week ("scratch"). Measured are
NDCG@20 against all items that the user takes in the week, with the paired interval over users; the seconds of
processor time of training; and for items whose first event was in the week before, the share of their targets that
are in a list, and in a list of the most popular items.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import sasrec
from benchmarks.production import events_of
from sasrec.config.choices import REFRESH_EPOCHS
from sasrec.evaluation.significance import paired_bootstrap

K = 20
SETTINGS: dict[str, Any] = {
    "split": "all",
    "maxlen": 50,
    "hidden_units": 64,
    "windows": "random",
    "dropout_rate": 0.3,
    "loss": "ce",
    "batch_size": 64,
    "device": "cpu",
}


def timed(work: Callable[[], sasrec.Recommender]) -> tuple[sasrec.Recommender, float]:
    """Do the work; return its result, and its seconds of processor time, which other work does not change much."""
    began = time.process_time()
    return work(), time.process_time() - began


def lists_of(recommender: sasrec.Recommender, before: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """user, item, rank: the list of each user, from the events before the week."""
    histories = (
        before.filter(pl.col("user").is_in(users.to_list())).group_by("user", maintain_order=True).agg("item")
    )
    found = recommender.recommend_many(histories["item"], K)
    return found.select(histories["user"].gather(found["row"]).alias("user"), "item", "rank")


def popular(before: pl.DataFrame, users: pl.Series, *, repeats: bool) -> pl.DataFrame:
    """user, item, rank: the items with most events, without those of the user unless `repeats`."""
    order = before.group_by("item").len().sort("len", "item", descending=[True, False]).head(2_000)["item"]
    lists = users.to_frame("user").join(order.to_frame("item"), how="cross", maintain_order="left_right")
    if not repeats:
        own = before.select("user", "item").unique()
        lists = lists.join(own, on=["user", "item"], how="anti", maintain_order="left")
    lists = lists.group_by("user", maintain_order=True).head(K)
    return lists.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user"))


def ndcg(lists: pl.DataFrame, truth: pl.DataFrame, users: pl.Series) -> np.ndarray:
    """(users,) NDCG@20 against all items of `truth` (user, item)."""
    hits = lists.join(truth, on=["user", "item"], how="semi")
    gains = hits.group_by("user").agg(gain=(1 / (1 + pl.col("rank")).log(2)).sum())
    ideal = truth.group_by("user").agg(best=pl.len().clip(upper_bound=K))
    highest = np.concatenate([[0], np.cumsum(1 / np.log2(1 + np.arange(1, K + 1)))])
    frame = users.to_frame("user").join(gains, on="user", how="left", maintain_order="left")
    frame = frame.join(ideal, on="user", how="left", maintain_order="left")
    return frame["gain"].fill_null(0.0).to_numpy() / highest[frame["best"].to_numpy()]


def share_found(lists: pl.DataFrame, truth: pl.DataFrame, items: pl.Series) -> tuple[int, int]:
    """How many targets of these items are in a list, and how many there are."""
    wanted = truth.filter(pl.col("item").is_in(items.to_list()))
    return wanted.join(lists, on=["user", "item"], how="semi").height, wanted.height


def weeks_of(events: pl.DataFrame, asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Train, refresh and measure, week by week."""
    settings = SETTINGS | {"num_epochs": asked.epochs, "repeats": asked.repeats}
    begin = datetime.fromisoformat(asked.first)
    early = events.filter(pl.col("time") < begin - timedelta(days=7))
    left, seconds = timed(lambda: sasrec.train(early, folder / "left", **settings))
    print(f"first run: {seconds:.0f} s", flush=True)
    untouched, known, rows = _lists_of_folder(folder / "left"), folder / "left", []
    for number in range(asked.weeks):
        start = begin + timedelta(days=7 * number)
        before = events.filter(pl.col("time") < start)
        week = events.filter(pl.col("time").is_between(start, start + timedelta(days=7), closed="left"))
        truth = week.select("user", "item").unique().join(before.select("user").unique(), on="user", how="semi")
        if not asked.repeats:
            truth = truth.join(before.select("user", "item").unique(), on=["user", "item"], how="anti")
        users = truth["user"].unique().sort()
        scratch, of_scratch = timed(lambda: sasrec.train(before, folder / f"scratch-{number}", **settings))  # noqa: B023
        following = folder / f"refreshed-{number}"
        refreshed, of_refresh = timed(
            lambda: sasrec.refresh(known, before, following, epochs=asked.refresh_epochs, worse=1.0)  # noqa: B023
        )
        known = following
        made = {
            name: lists_of(each, before, users)
            for name, each in (("left", left), ("refreshed", refreshed), ("scratch", scratch))
        }
        rows.append(
            _measured(made, truth, users, before, start, repeats=asked.repeats)
            | {"seconds": {"refreshed": of_refresh, "scratch": of_scratch}}
        )
        print(json.dumps(rows[-1]), flush=True)
    assert _lists_of_folder(folder / "left").equals(untouched), "a refresh does not change the old folder"
    return rows


def _lists_of_folder(run: Path) -> pl.DataFrame:
    return sasrec.load(run, device="cpu").recommend_all(K)


def _measured(
    made: dict[str, pl.DataFrame],
    truth: pl.DataFrame,
    users: pl.Series,
    before: pl.DataFrame,
    start: datetime,
    *,
    repeats: bool,
) -> dict[str, Any]:
    values, numbers = {name: ndcg(each, truth, users) for name, each in made.items()}, np.arange(len(users))
    against = {
        f"refreshed - {other}": paired_bootstrap(values["refreshed"] - values[other], numbers)
        for other in ("scratch", "left")
    }
    first = before.group_by("item").agg(pl.col("time").min())
    young = first.filter(pl.col("time") >= start - timedelta(days=7))["item"]
    lists = made | {"popularity": popular(before, users, repeats=repeats)}
    return {
        "week": str(start.date()),
        "users": len(users),
        "ndcg@20": {name: float(each.mean()) for name, each in values.items()},
        "differences": {name: [each.mean, each.low, each.high] for name, each in against.items()},
        "young items": {name: share_found(each, truth, young) for name, each in lists.items()},
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--first", required=True, help="the first day of the first week, such as 2000-12-04")
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--refresh_epochs", type=int, default=REFRESH_EPOCHS)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    events = events_of(asked.data)
    with tempfile.TemporaryDirectory() as folder:
        rows = weeks_of(events, asked, Path(folder))
    found = {
        "data": asked.data.name,
        "epochs": asked.epochs,
        "refresh_epochs": asked.refresh_epochs,
        "weeks": rows,
    }
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
