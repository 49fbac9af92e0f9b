"""Split a run's data so that the events of another file are its test targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.parts import PART, TEST, TRAIN, VALID
from sasrec.data.splits import EvaluationSplit, Split, split_by_parts
from sasrec.errors import DataError

TRAINED_ON = "the run was trained on the event"
"""Why an event cannot be a test target: a key of `EvaluationSplit.targets_left_out`."""
_NOT_THERE = "no event in this file"
_Frame = pl.DataFrame


def with_test_file(data: Dataset, split: Split, file: Dataset) -> tuple[Dataset, Split]:
    """Return the run's data with the events of `file` added, and a split whose test targets are these events.

    `split`: the run's split of `data`; training events, candidates and baselines stay those of the run. A history
    has the user's events before the target, from the run's data and from the file. Three kinds of events are left
    out of the targets and counted: events of users and of items that the run's data does not have, and events that
    the run was trained on (same user, item and time). An event of the file that the run held out counts once.
    Without times, the events of the file follow those of the run's data.

    Raises: DataError if the run's data has times and the file has none. Remedy: add times to the file.
    """
    if data.times is not None and file.times is None:
        raise DataError(
            f"the run's data has times and the file {file.name!r} has none, so the events before a target are "
            "unknown. Add the times to the file, or name their column."
        )
    own = _frame(data, data.times is not None, np.arange(data.num_users), np.arange(data.num_items + 1))
    own = own.with_columns(pl.Series(PART, _own_parts(data, split)))
    users = file.user_ids.cast(pl.String).replace_strict(
        data.user_ids.cast(pl.String), pl.int_range(data.num_users, eager=True), default=-1
    )
    items = file.catalogue.ids.cast(pl.String).replace_strict(
        data.catalogue.ids.cast(pl.String), pl.int_range(1, data.num_items + 1, eager=True), default=0
    )
    added = _frame(file, data.times is not None, users.to_numpy(), np.append(0, items.to_numpy()))
    added, skipped, left_out = _usable(added, own)
    if data.times is not None:
        own = own.join(added, on=["user", "item", "time"], how="anti", maintain_order="left")
    added = added.with_columns(pl.lit(TEST, pl.Int8).alias(PART)).select(own.columns)
    order = ["user", "time"] if data.times is not None else ["user"]
    events = pl.concat([own, added]).sort(order, maintain_order=True)
    lengths = np.bincount(events["user"].to_numpy(), minlength=data.num_users)
    merged = replace(
        data,
        items=events["item"].to_numpy(),
        times=None if data.times is None else events["time"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        parts=events[PART].to_numpy(),
    )
    by_file = split_by_parts(merged, split.known_V, repeats=split.repeats)
    skipped |= {reason: users for reason, users in by_file.test.skipped.items() if reason != _NOT_THERE}
    test = replace(by_file.test, skipped=skipped, targets_left_out=left_out | by_file.test.targets_left_out)
    described = {"name": file.name, "data_hash": file.data_hash, **_leak(events)}
    valid = _without_rows(by_file.valid)
    return merged, replace(by_file, how=split.how, valid=valid, test=test, other_file=described)


def _frame(data: Dataset, timed: bool, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> _Frame:
    """Return the events as a frame user, item[, time]; `users` and `items` map the numbers of `data` to others."""
    columns = {
        "user": np.repeat(users, np.diff(data.offsets)),
        "item": items[data.items].astype(np.int32),
        **({"time": np.asarray(data.times)} if timed else {}),
    }
    return pl.DataFrame(columns)


def _own_parts(data: Dataset, split: Split) -> npt.NDArray[np.int8]:
    """Return (events,): TRAIN for the events that the run was trained on, VALID for the others."""
    if data.parts is not None and not split.training_part.everything:
        return np.where(data.parts == TRAIN, TRAIN, VALID).astype(np.int8)
    ends = split.training_part.ends(data.times, data.offsets)
    trained = np.arange(data.num_events) < np.repeat(ends, np.diff(data.offsets))
    return np.where(trained, TRAIN, VALID).astype(np.int8)


def _usable(added: _Frame, own: _Frame) -> tuple[_Frame, dict[str, int], dict[str, int]]:
    """Return the events of the file that can be targets; skipped users and left-out events, each by reason."""
    added = added.with_row_index("row")
    trained = own.filter(pl.col(PART) == TRAIN)
    users = added["user"].replace(-1, None).drop_nulls().n_unique()
    unknown = added.filter(pl.col("user") < 0)
    skipped: dict[str, int] = {_NOT_THERE: own["user"].n_unique() - users}
    left_out = {"the user is not in the run's data": unknown.height}
    kept = added.filter(pl.col("user") >= 0)
    steps = {"the item is not in the run's data": kept.filter(pl.col("item") > 0)}
    if "time" in added.columns:
        known = steps["the item is not in the run's data"]
        again = known.join(trained, on=["user", "item", "time"], how="anti", maintain_order="left")
        steps[TRAINED_ON] = again
    for reason, remaining in steps.items():
        left_out[reason] = kept.height - remaining.height
        skipped[reason] = kept["user"].n_unique() - remaining["user"].n_unique()
        kept = remaining
    return kept.drop("row"), skipped, left_out


def _leak(events: _Frame) -> dict[str, str]:
    """Return {"leak": a sentence} if events of the file precede an event that the run was trained on, else {}."""
    if "time" not in events.columns:
        return {}
    latest = pl.col("time").filter(pl.col(PART) == TRAIN).max().over("user")
    added = events.filter(pl.col(PART) == TEST).height
    early = events.filter((pl.col(PART) == TEST) & (pl.col("time") < latest)).height
    if not early:
        return {}
    return {
        "leak": f"{early:,} of {added:,} events of the file are earlier than an event of the same user that the "
        "run was trained on. A model that has learned from the user's later events looks better than it is"
    }


def _without_rows(part: EvaluationSplit) -> EvaluationSplit:
    histories = replace(part.histories, starts=part.histories.starts[:0], ends=part.histories.ends[:0])
    return replace(
        part,
        users=part.users[:0],
        events=part.events[:0],
        histories=histories,
        targets=part.targets[:0],
        skipped={},
        events_left_out=0,
        repeats_left_out=0,
        targets_left_out={},
    )
