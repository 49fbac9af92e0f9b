"""The data report: what was read, what was kept, and what about it deserves a look."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.events.events import Events


def describe(
    events: Events,
    numbered: pl.DataFrame,
    lengths: npt.NDArray[np.int64],
    item_ids: pl.Series,
    config: DataConfig,
) -> dict[str, Any]:
    """Figures of a data set, ready for JSON.

    `numbered` holds the kept events (user, item[, time]) in file order; `lengths` the events of each user.
    Shares are fractions of events: `tied` has the same user and time as another one, `repeated` the same
    user and item as an earlier one, `unsorted` a time before that of the user's previous row in the file.
    """
    report: dict[str, Any] = {
        "sources": list(events.sources),
        "rows_read": events.read,
        "rows_rejected": events.rejects.height,
        "rows_filtered": events.frame.height - numbered.height,
        "users": len(lengths),
        "items": len(item_ids),
        "events": numbered.height,
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_mean": float(lengths.mean()),
        "length_max": int(lengths.max()),
        "users_below_3_events": int((lengths < 3).sum()),
        "density": numbered.height / (len(lengths) * len(item_ids)),
        "repeated": float(numbered.select((~pl.struct("user", "item").is_first_distinct()).mean()).item()),
        "duplicates": config.duplicates,
        "time_unit": events.time_unit,
    }
    if "time" in numbered.columns:
        first, last = numbered.select(
            pl.col("time").min().cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S").alias("first"),
            pl.col("time").max().cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S").alias("last"),
        ).row(0)
        back = pl.col("time") < pl.col("time").shift(1).over("user")
        report |= {
            "first_event": first,
            "last_event": last,
            "tied": float(numbered.select(pl.struct("user", "time").is_duplicated().mean()).item()),
            "unsorted": float(numbered.select(back.fill_null(False).mean()).item()),
        }
    report["warnings"] = [*events.warnings, *_doubts(report)]
    return report


def summary(report: dict[str, Any]) -> list[str]:
    """The report in a few sentences, the doubtful points as notes."""
    if not report:
        return []
    lines = [
        f"{report['rows_read']:,} rows read from {', '.join(report['sources'])}: "
        f"{report['rows_rejected']:,} rejected, {report['rows_filtered']:,} filtered out",
        f"{report['users']:,} users, {report['items']:,} items, {report['events']:,} events "
        f"(density {report['density']:.2%}); {report['repeated']:.1%} repeat a user's item",
        f"events of a user: {report['length_min']} at least, {report['length_median']:g} in the median, "
        f"{report['length_mean']:.1f} on average, {report['length_max']} at most",
    ]
    if report["time_unit"]:
        lines.append(f"times ({report['time_unit']}) from {report['first_event']} to {report['last_event']} UTC")
    return [*lines, *(f"note: {warning}" for warning in report["warnings"])]


def _doubts(report: dict[str, Any]) -> list[str]:
    """Sentences about figures that often mean a mistake."""
    doubts = []
    if report.get("tied", 0.0) > 0.1:
        doubts.append(f"{report['tied']:.0%} of events share their time with another of the same user: "
                      "their order is that of the file")  # fmt: skip
    if report.get("unsorted", 0.0) > 0:
        doubts.append(f"{report['unsorted']:.1%} of rows were out of order and have been sorted by time")
    if report["users_below_3_events"]:
        doubts.append(f"{report['users_below_3_events']} users have fewer than 3 events: "
                      "leave-one-out trains on them and cannot evaluate them")  # fmt: skip
    return doubts
