"""What the last days are worth: the chosen run, the final fit and simple lists, on the week that comes next.

    OMP_NUM_THREADS=1 python benchmarks/production.py DATA.csv --json FILE [--repeats] [--epochs 60] [--until DAY]

The last seven days of DATA (user, item, time), or those before DAY, are held back. On the rest, a run is trained
under a temporal split, as one chooses settings, and blended with the baseline that is best on validation; then the
final fit trains on all of it. Each gives every user a list of 20. Measured on the held back days: the share of
their returning users who find an item of theirs in their list (a hit), with its 95 % interval over users, and the
difference from the best sellers of the last seven days before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import sasrec
from sasrec.evaluation.significance import paired_bootstrap
from sasrec.runs.blend import blend

K = 20
SETTINGS: dict[str, Any] = {
    "maxlen": 100,
    "hidden_units": 64,
    "windows": "random",
    "dropout_rate": 0.3,
    "batch_size": 64,
    "eval_every": 3,
    "patience": 3,
    "device": "cpu",
}


def events_of(path: Path) -> pl.DataFrame:
    """Read user, item and moment, as `prepare` does."""
    data = sasrec.prepare(path)
    assert data.times is not None
    users = data.user_ids.gather(np.repeat(np.arange(data.num_users), np.diff(data.offsets)))
    items = data.catalogue.ids.gather(data.items.astype(np.int64) - 1)
    moments = pl.Series(np.asarray(data.times)).cast(pl.Datetime("us"))
    return pl.DataFrame({"user": users, "item": items, "time": moments})


def best_sellers(before: pl.DataFrame, users: pl.Series, *, repeats: bool) -> pl.DataFrame:
    """The items with most events in the last seven days, without those of the user unless `repeats`."""
    recent = before.filter(pl.col("time") > before["time"].max() - timedelta(days=7))
    order = recent.group_by("item").len().sort("len", "item", descending=[True, False])["item"]
    lists = users.to_frame("user").join(order.to_frame("item"), how="cross")
    if not repeats:
        lists = lists.join(
            before.select("user", "item").unique(), on=["user", "item"], how="anti", maintain_order="left"
        )
    return lists.group_by("user", maintain_order=True).head(K)


def hits(lists: pl.DataFrame, truth: pl.DataFrame, users: pl.Series) -> np.ndarray:
    """(users,) 1 where a list of at most 20 has an item that the user takes."""
    found = lists.select("user", "item").join(truth, on=["user", "item"], how="semi")["user"].unique()
    return users.is_in(found.to_list()).to_numpy().astype(float)


def measured(path: Path, folder: Path, epochs: int, until: str | None, *, repeats: bool) -> dict[str, Any]:
    """Train, recommend, and measure."""
    events = events_of(path)
    if until is not None:
        events = events.filter(pl.col("time") < datetime.fromisoformat(until))
    cut = events["time"].max() - timedelta(days=7)
    before, after = events.filter(pl.col("time") <= cut), events.filter(pl.col("time") > cut)
    truth = after.select("user", "item").unique().join(before.select("user").unique(), on="user", how="semi")
    if not repeats:
        truth = truth.join(before.select("user", "item").unique(), on=["user", "item"], how="anti")
    users = truth["user"].unique().sort()
    began = time.monotonic()
    chosen = sasrec.train(
        before, folder / "run", split="temporal:0.9", repeats=repeats, num_epochs=epochs, **SETTINGS
    )
    middle = time.monotonic()
    blended = blend(folder / "run")
    final = sasrec.final_fit(folder / "run", folder / "final")
    seconds = {"chosen run": middle - began, "final fit": time.monotonic() - middle}
    lists = {
        "best sellers": best_sellers(before, users, repeats=repeats),
        "chosen run": chosen.recommend_all(K),
        "final fit": final.recommend_all(K),
    }
    if blended["wins"]:
        lists["final fit, blend"] = sasrec.load(f"{folder / 'final'}:blend").recommend_all(K)
    for name in ("item-to-item", "markov", *(("own-frequent", "own-recent") if repeats else ())):
        lists[name] = sasrec.load(f"{folder / 'final'}:{name}").recommend_all(K)
    found = {name: hits(each, truth, users) for name, each in lists.items()}
    numbers = np.arange(len(users))
    rows = {}
    for name, each in found.items():
        share, against = paired_bootstrap(each, numbers), paired_bootstrap(each - found["best sellers"], numbers)
        rows[name] = {
            "users with a hit": int(each.sum()),
            "share": [share.mean, share.low, share.high],
            "difference": [against.mean, against.low, against.high],
        }
    difference = paired_bootstrap(found["final fit"] - found["chosen run"], numbers)
    return {
        "data": path.name,
        "repeats": repeats,
        "users": len(users),
        "from": str(cut),
        "blend": {name: blended[name] for name in ("baseline", "weight", "wins")},
        "lists": rows,
        "final fit against chosen run": [difference.mean, difference.low, difference.high],
        "seconds": seconds,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--until", help="leave out what is from this day on, such as 2000-12-18")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(asked.data, Path(folder), asked.epochs, asked.until, repeats=asked.repeats)
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
