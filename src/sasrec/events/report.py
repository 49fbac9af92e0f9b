"""The data report: statistics of a data set and warnings about suspicious values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.config.split_rule import EPOCH
from sasrec.errors import amount
from sasrec.events.events import Events

_MANY_USERS, _MUCH = 20, 0.03
_DECADES = 20 * 365_250 * 86_400_000  # 20 years in microseconds
_OFTEN = 0.2  # share of events that repeat an item of their user
# A suspicion with these words is left out where it does not concern the run.
REPEATS, BASKETS, SHORT = "repeats=True", "baskets=True", "leave-one-out cannot evaluate"


def describe(
    events: Events,
    numbered: pl.DataFrame,
    ordered: pl.DataFrame,
    lengths: npt.NDArray[np.int64],
    item_ids: pl.Series,
    config: DataConfig,
) -> dict[str, Any]:
    """Compute the statistics of a data set as a dictionary for JSON.

    `numbered` contains the events after filtering (user, item[, time]) in file order, `ordered` in
    order of user and time; `lengths` is the number of
    events of each user. Three entries are fractions of events:

    - `tied`: another event has the same user and time.
    - `repeated`: an earlier event has the same user and item.
    - `unsorted`: the time precedes the time of the user's previous row in the file.
    """
    report: dict[str, Any] = {
        "sources": list(events.sources),
        "rows_read": events.read,
        "rows_rejected": events.rejects.height,
        "rows_left_out": events.left_out,
        "rows_filtered": events.coded.height - numbered.height,
        "users": len(lengths),
        "items": len(item_ids),
        "events": numbered.height,
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_mean": float(lengths.mean()),
        "length_max": int(lengths.max()),
        "users_below_3_events": int((lengths < 3).sum()),
        "density": numbered.height / (len(lengths) * len(item_ids)),
        "repeated": _repeated(numbered, len(item_ids)),
        "duplicates": config.duplicates,
        "time_unit": events.time_unit,
    }
    odd_times: list[str] = []
    if "time" in numbered.columns:
        first, last = numbered.select(
            pl.col("time").min().cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S").alias("first"),
            pl.col("time").max().cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S").alias("last"),
        ).row(0)
        user, time = numbered["user"].to_numpy(), numbered["time"].to_numpy()
        report |= {
            "first_event": first,
            "last_event": last,
            "tied": _tied(ordered["user"].to_numpy(), ordered["time"].to_numpy()),
            "unsorted": _unsorted(user, time),
        }
        odd_times = far_times(numbered["time"])
    report["warnings"] = [*events.warnings, *odd_times, *_suspicions(report)]
    return report


def merged_report(
    reports: list[dict[str, Any]],
    rows: dict[str, Any],
    lengths: npt.NDArray[np.int64],
    user_ids: pl.Series,
    items: int,
    times: npt.NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Return the report of data that was prepared in parts, from those of the parts, as `describe` makes it.

    No user is in two parts. `rows`: the sources, and how many rows were read, rejected and filtered. `lengths`,
    `user_ids`: events and id of each user of the whole. A note of the parts is kept if all have it.
    """
    events = int(lengths.sum())
    report: dict[str, Any] = reports[0] | {
        **rows,
        "users": len(lengths),
        "items": items,
        "events": events,
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_mean": float(lengths.mean()),
        "length_max": int(lengths.max()),
        "users_below_3_events": int((lengths < 3).sum()),
        "density": events / (len(lengths) * items),
    }
    for share in ("repeated", "tied", "unsorted"):
        if share in report:
            report[share] = sum(each[share] * each["events"] for each in reports) / events
    odd: list[str] = []
    if times is not None:
        report["first_event"] = min(each["first_event"] for each in reports)
        report["last_event"] = max(each["last_event"] for each in reports)
        odd = far_times(pl.Series(times))
    of_parts = {sentence for each in reports for sentence in _suspicions(each)}
    common = [
        note
        for note in reports[0]["warnings"]
        if note not in of_parts and all(note in each["warnings"] for each in reports)
    ]
    report["warnings"] = [*dict.fromkeys([*common, *odd]), *_suspicions(report), *dominant(user_ids, lengths)]
    return report


def far_times(time: pl.Series, now: datetime | None = None) -> list[str]:
    """Return notes if some events are decades older than most others, or lie in the future.

    `time`: microseconds since 1970 UTC. Data that covers a century evenly gets no note. `now`: for tests.
    """
    notes = []
    tomorrow = _microseconds((now or datetime.now(UTC)) + timedelta(days=1))
    first, last = cast(int, time.min()), cast(int, time.max())
    if last - first > _DECADES:
        early = time < cast(float, time.quantile(0.25)) - _DECADES
        if count := int(early.sum()):
            notes.append(
                f"{amount(count, 'event', 'are')} at least 20 years older than three quarters of all (the "
                f"earliest is of {_date(first)}). Such times often stand for unknown ones; correct or remove such "
                "events"
            )
    if late := int((time > tomorrow).sum()):
        notes.append(
            f"{amount(late, 'event', 'lie')} in the future (the latest is of {_date(last)}). Check the times and "
            "their unit; splits go by time"
        )
    return notes


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _date(microseconds: int) -> str:
    return str(pl.Series([microseconds]).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d")[0])


def dominant(user_ids: pl.Series, lengths: npt.NDArray[np.int64]) -> list[str]:
    """Return a note if one of many users has more than a few per cent of all events. `lengths`: events of each."""
    most, share = int(lengths.argmax()), float(lengths.max() / lengths.sum())
    if len(lengths) < _MANY_USERS or share < _MUCH or lengths.max() < 10 * np.median(lengths):
        return []
    return [
        f"user {user_ids[most]!r} has {share:.0%} of all events. If this id stands for unknown users, add it to "
        "`missing`; if it is a robot, remove it"
    ]


def _repeated(numbered: pl.DataFrame, items: int) -> float:
    """Return the share of events with an earlier event of the same user and item."""
    pairs = numbered["user"].cast(pl.Int64) * (items + 1) + numbered["item"]
    return (len(pairs) - pairs.n_unique()) / len(pairs)


def _unsorted(user: npt.NDArray[np.int64], time: npt.NDArray[np.int64]) -> float:
    """Return the share of rows whose time is before that of the user's previous row. Rows are in file order."""
    if (np.diff(user) < 0).any():
        order = np.argsort(user, kind="stable")
        user, time = user[order], time[order]
    return float(((np.diff(time) < 0) & (np.diff(user) == 0)).sum() / len(user))


def _tied(user: npt.NDArray[np.int64], time: npt.NDArray[np.int64]) -> float:
    """Return the share of events with the same user and time as another event. Events are in order of both."""
    same = (np.diff(time) == 0) & (np.diff(user) == 0)
    tied = np.zeros(len(user), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return float(tied.sum() / len(user))


def summary(report: dict[str, Any]) -> list[str]:
    """Return the report as lines of text; each warning becomes a line that begins with "note:"."""
    if not report:
        return []
    lines = [
        f"{amount(report['rows_read'], 'row')} read from {', '.join(report['sources'])}: "
        f"{report['rows_rejected']:,} rejected, {report['rows_filtered']:,} filtered out",
        f"{', '.join(amount(report[f'{noun}s'], noun) for noun in ('user', 'item', 'event'))} "
        f"(density {report['density']:.2%}); {report['repeated']:.1%} of events repeat an item of the same user",
        f"events per user: minimum {report['length_min']}, median {report['length_median']:g}, "
        f"mean {report['length_mean']:.1f}, maximum {report['length_max']}",
    ]
    if report["time_unit"]:
        lines.append(
            f"events from {report['first_event']} to {report['last_event']} UTC (time unit: {report['time_unit']})"
        )
    return [*lines, *(f"note: {warning}" for warning in report["warnings"])]


def _suspicions(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each statistic that often indicates a mistake in the data."""
    suspicions = []
    if report.get("tied", 0.0) > 0.1:
        suspicions.append(
            f"{report['tied']:.0%} of events share their time with another event of the same user; "
            f"such events stay in the order of the file; if they are baskets, train with {BASKETS}"
        )
    if report.get("unsorted", 0.0) > 0:
        suspicions.append(
            f"{report['unsorted']:.1%} of rows were out of order in time; the events are now sorted by time"
        )
    if report["repeated"] >= _OFTEN:
        suspicions.append(
            f"{report['repeated']:.0%} of events repeat an item of the same user, and such items are neither "
            f"measured nor recommended; if lists may contain them, train with {REPEATS}"
        )
    if few := report["users_below_3_events"]:
        suspicions.append(
            f"{amount(few, 'user')} {'has' if few == 1 else 'have'} fewer than 3 events; "
            f"{SHORT} these users, and trains only on those with 2 events"
        )
    return suspicions
