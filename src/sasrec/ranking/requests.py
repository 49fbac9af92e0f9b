"""Turn what callers give (ids, times, k) into item numbers and ticks, one history or many at a time."""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.batches.ticks import personal_times
from sasrec.data.histories import Histories, exclusive_counts
from sasrec.data.items import Items, shown
from sasrec.errors import ConfigError, DataError, SasrecWarning

# int64 microseconds overflow from this many seconds on.
_MOST_SECONDS = 2**63 / 1e6


def count(k: object) -> int:
    """Return `k` as an int. Raises: ConfigError if it is not a whole number from 1. Remedy: use one."""
    try:
        number = operator.index(cast(SupportsIndex, k))
    except TypeError:
        raise ConfigError(f"`k` must be a whole number, not {k!r}. Use a number such as 10.") from None
    if number < 1:
        raise ConfigError(f"`k` must be at least 1, not {number}. Use a larger k.")
    return number


def listed(item_ids: object, where: str) -> list[object]:
    """Return item ids as a list. Raises: DataError for a text, one id, a table. Remedy: use a list or a column."""
    if hasattr(item_ids, "columns") or getattr(item_ids, "ndim", 1) > 1:
        raise DataError(
            f"{where}: give a list of item ids, not a {type(item_ids).__name__}. Use one of its columns."
        )
    if isinstance(item_ids, str | bytes) or not isinstance(item_ids, Iterable):
        raise DataError(f"{where}: give a list of item ids, not {item_ids!r}. Use [{item_ids!r}] for one item.")
    return list(item_ids)


def warn_unknown(unknown: Sequence[str], where: str, stacklevel: int = 5) -> None:
    """Give one warning that lists the unknown ids, without repeats and at most ten."""
    if unknown:
        names = list(dict.fromkeys(unknown))
        some = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        warnings.warn(f"{where}: unknown items are ignored: {some}", SasrecWarning, stacklevel=stacklevel)


def ticks_of(
    times: object, offsets: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], *, regular: bool
) -> npt.NDArray[np.int64]:
    """Return the ticks (batches/ticks.py) of the known events of histories, (known events,).

    `times`: seconds, one an event, ascending within a history; None with `regular`, which means equal intervals.
    History r has the events offsets[r]:offsets[r + 1]. `known`: (events,) false for events that are left out. The
    unit of a history is its smallest gap.

    Raises: DataError if times are missing or invalid. Remedy: give ascending times in seconds, or regular ones.
    """
    events = int(offsets[-1])
    if times is None and not regular:
        raise DataError("this model needs the times of the history. Give `times`, or set assume_regular=True.")
    try:
        seconds = np.arange(events, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    except (TypeError, ValueError):
        raise DataError("times must be numbers. Give seconds since any moment.") from None
    first = np.zeros(events, bool)
    first[offsets[:-1][offsets[:-1] < events]] = True
    falls = np.diff(seconds, prepend=seconds[:1]) < 0 if len(seconds) == events else np.ones(1, bool)
    if len(seconds) != events or not np.isfinite(seconds).all() or (falls & ~first).any():
        each = f"{events} finite numbers" if len(offsets) == 2 else "finite numbers, one list a history,"
        raise DataError(f"times must be {each} in ascending order. Give one per item, in seconds.")
    if (most := np.abs(seconds).max(initial=0)) >= _MOST_SECONDS:
        raise DataError(f"times must be in seconds, but {most:.3g} is too large. Convert the times to seconds.")
    # Unknown items are removed from the history, so their times must be removed, too.
    kept = exclusive_counts(known)[offsets]
    return personal_times((seconds[known] * 1e6).astype(np.int64), kept, kept[1:])


def many(
    histories: Any,
    times: Any,
    items: Items,
    known_V: npt.NDArray[np.bool_] | None,
    *,
    timed: bool,
    regular: bool,
) -> tuple[npt.NDArray[np.int64], Histories, list[str]]:
    """Return the rows with a known item, (R,), their histories without unknown items, and some unknown ids.

    `histories`: lists of ids, or a Polars Series or Arrow array of lists. `times`: alike, seconds; only read if
    `timed`. `known_V`: (V,) true for known items; None if all are known.

    Raises: DataError if `histories` has no lists, or times are missing or invalid. Remedy: as the message says.
    """
    ids, offsets = _flattened(histories, "histories")
    numbers = numbers_of(ids, items)
    if known_V is not None:
        numbers = np.where(known_V[numbers], numbers, 0)
    known = numbers > 0
    ticks = None
    if timed:
        flat, of_times = (None, offsets) if times is None else _flattened(times, "times")
        if not np.array_equal(offsets, of_times):
            raise DataError(
                "`times` must have a list for each history, as long as the history. Correct the lists."
            )
        ticks = ticks_of(flat, offsets, known, regular=regular)
    ends = exclusive_counts(known)[offsets]
    rows = np.flatnonzero(np.diff(ends))
    unknown = [shown(each) for each in ids.filter(pl.Series(~known)).head(20).to_list()]
    return rows, Histories(numbers[known].astype(np.int32), ticks, ends[rows], ends[rows + 1]), unknown


def _flattened(lists: Any, what: str) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """Return the values of lists as one Series, and the offsets of the lists, (rows + 1,)."""
    if hasattr(lists, "__arrow_c_array__") or hasattr(lists, "__arrow_c_stream__"):
        lists = pl.Series(lists)
    if isinstance(lists, pl.Series):
        if not isinstance(lists.dtype, pl.List | pl.Array):
            raise DataError(f"{what} must be a column of lists, not of {lists.dtype}. Give a list for each row.")
        lengths = lists.list.len() if isinstance(lists.dtype, pl.List) else lists.arr.len()
        offsets = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy())]).astype(np.int64)
        return lists.filter(lengths.fill_null(0) > 0).explode(), offsets
    rows = [listed(row, what) for row in listed(lists, what)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    values = list(itertools.chain.from_iterable(rows))
    if len({type(value) for value in values}) > 1 or not isinstance(values[0] if values else 0, str | int | float):
        return pl.Series(values=[str(value) for value in values], dtype=pl.String), offsets
    return pl.Series(values=values), offsets


def numbers_of(ids: pl.Series, items: Items) -> npt.NDArray[np.int64]:
    """Return the item number of each id, (ids,); 0 if it is unknown. 1.0 finds the id 1, as in `look_up`."""
    if ids.dtype.is_float():
        distinct = ids.unique().drop_nulls()
        numbers = [items.number_of(each) or 0 for each in distinct.to_list()]
        return ids.replace_strict(distinct, numbers, default=0, return_dtype=pl.Int64).to_numpy()
    table = items.ids.cast(pl.String)
    found = ids.cast(pl.String).replace_strict(
        table, pl.int_range(1, len(table) + 1, eager=True), default=0, return_dtype=pl.Int64
    )
    return found.to_numpy()


def as_arrow(frame: pl.DataFrame) -> Any:
    """Return a frame as a pyarrow Table with plain strings, because not every engine knows the other two kinds."""
    import pyarrow

    table = frame.to_arrow()
    texts = (pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    plain = [
        field.with_type(pyarrow.string()) if any(kind(field.type) for kind in texts) else field
        for field in table.schema
    ]
    return table.cast(pyarrow.schema(plain))
