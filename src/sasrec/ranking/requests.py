"""Turn what callers give (ids, times, k) into item numbers and ticks, one history or many at a time."""

from __future__ import annotations

import inspect
import itertools
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.batches.ticks import personal_times
from sasrec.data.histories import Histories, exclusive_counts
from sasrec.data.items import Items, shown
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount

# int64 microseconds overflow from this many seconds on.
_MOST_SECONDS = 2**63 / 1e6
_NO_IDS = {pl.List: "lists", pl.Array: "lists", pl.Struct: "structs", pl.Binary: "bytes", pl.Object: "objects"}


class HistoryError(DataError):
    """The times of a given history are wrong. Remedy: correct them; the message names the row of the history."""

    row: int
    """Which history, from 0."""
    reason: str

    @staticmethod
    def at(row: int, reason: str, *, alone: bool = False) -> HistoryError:
        """Return the error of a row; the message names the row unless it is `alone`."""
        error = HistoryError(reason if alone else f"history {row} (from 0): {reason}")
        error.row, error.reason = row, reason  # not arguments of __init__, so that it can be pickled
        return error


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


def ordered(values: object, where: str) -> list[object]:
    """Return values in order as a list. Raises: DataError for a set, and as `listed`. Remedy: give a list."""
    if isinstance(values, set | frozenset):
        raise DataError(f"{where}: this is a set, which has no order. Give a list, oldest first.")
    return listed(values, where)


def users_of(users: object, histories: int) -> list[object]:
    """Return the user of each history. Raises: DataError for more or fewer users. Remedy: give one for each."""
    found = listed(users, "users")
    if len(found) != histories:
        given = f"{amount(len(found), 'user')}, but {amount(histories, 'history')}"
        raise DataError(f"{given}. Give a user for each.")
    return found


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
        if seconds.ndim != 1:
            raise TypeError
    except (TypeError, ValueError):
        raise DataError("times must be numbers. Give seconds since any moment.") from None

    def wrong(event: int, reason: str) -> DataError:
        row = int(np.searchsorted(offsets, event, side="right")) - 1
        return HistoryError.at(row, reason, alone=len(offsets) == 2)

    first = np.zeros(events, bool)
    first[offsets[:-1][offsets[:-1] < events]] = True
    falls = np.diff(seconds, prepend=seconds[:1]) < 0 if len(seconds) == events else np.ones(1, bool)
    if len(seconds) != events or not np.isfinite(seconds).all() or (falls & ~first).any():
        each = f"{events} finite numbers" if len(offsets) == 2 else "finite numbers"
        at = int(np.argmax(falls & ~first | ~np.isfinite(seconds))) if len(seconds) == events else 0
        raise wrong(at, f"times must be {each} in ascending order. Give one per item, in seconds.")
    if (most := np.abs(seconds).max(initial=0)) >= _MOST_SECONDS:
        reason = f"times must be in seconds, but {most:.3g} is too large. Convert the times to seconds."
        raise wrong(int(np.argmax(np.abs(seconds))), reason)
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
    numbers = _numbers_of_each(ids, items)
    if known_V is not None:
        numbers = np.where(known_V[numbers], numbers, 0)
    known = numbers > 0
    ticks = None
    if timed:
        flat, of_times = (None, offsets) if times is None else _flattened(times, "times")
        if len(offsets) != len(of_times):
            raise DataError("`times` must have a list for each history. Correct the lists.")
        if len(other := np.flatnonzero(np.diff(offsets) != np.diff(of_times))):
            row = int(other[0])
            sizes = f"{amount(np.diff(offsets)[row], 'item')}, but {amount(np.diff(of_times)[row], 'time')}"
            raise HistoryError.at(row, f"it has {sizes}. Give one time per item.")
        ticks = ticks_of(flat, offsets, known, regular=regular)
    ends = exclusive_counts(known)[offsets]
    rows = np.flatnonzero(np.diff(ends))
    unknown = [shown(ids[event]) for event in np.flatnonzero(~known)[:20].tolist()]
    return rows, Histories(numbers[known].astype(np.int32), ticks, ends[rows], ends[rows + 1]), unknown


def _flattened(lists: Any, what: str) -> tuple[pl.Series | list[Any], npt.NDArray[np.int64]]:
    """Return the values of all lists, and the offsets of the lists, (rows + 1,)."""
    if hasattr(lists, "__arrow_c_array__") or hasattr(lists, "__arrow_c_stream__"):
        lists = pl.Series(lists)
    if isinstance(lists, pl.Series):
        if not isinstance(lists.dtype, pl.List | pl.Array):
            raise DataError(f"{what} must be a column of lists, not of {lists.dtype}. Give a list for each row.")
        if (kind := _NO_IDS.get(lists.dtype.inner.base_type())) is not None:
            form = "numbers" if what == "times" else "ids, which are text or integers"
            raise DataError(f"{what} are lists of {kind}. Give lists of {form}.")
        lengths = lists.list.len() if isinstance(lists.dtype, pl.List) else lists.arr.len()
        offsets = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy())]).astype(np.int64)
        return lists.filter(lengths.fill_null(0) > 0).explode(), offsets
    rows = [ordered(row, what) for row in ordered(lists, what)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return list(itertools.chain.from_iterable(rows)), offsets


def _numbers_of_each(ids: pl.Series | list[Any], items: Items) -> npt.NDArray[np.int64]:
    """Return the item number of each id, (ids,); 0 if it is unknown, as for a call with one history."""
    if isinstance(ids, list) and {type(each) for each in ids} in ({str}, {int}, {float}):
        with suppress(TypeError, OverflowError):  # integers of more than 64 bits
            return numbers_of(pl.Series(values=ids), items)
    if isinstance(ids, pl.Series):
        return numbers_of(ids, items)
    return np.array([items.number_of(each) or 0 for each in ids], np.int64)


def numbers_of(ids: pl.Series, items: Items) -> npt.NDArray[np.int64]:
    """Return the item number of each id, (ids,); 0 if it is unknown. Finds what `look_up` finds."""
    if ids.dtype.is_float():
        distinct = ids.unique().drop_nulls()
        numbers = [items.number_of(each) or 0 for each in distinct.to_list()]
        return ids.replace_strict(distinct, numbers, default=0, return_dtype=pl.Int64).to_numpy()
    table = items.ids.cast(pl.String)
    places = pl.int_range(1, len(table) + 1, eager=True)

    def found(text: pl.Series) -> npt.NDArray[np.int64]:
        return text.replace_strict(table, places, default=0, return_dtype=pl.Int64).to_numpy()

    text = ids.cast(pl.String)
    of_ids = found(text)
    if ids.dtype.is_integer() or of_ids.all():
        return of_ids
    of_ids = of_ids.copy()  # Polars may lend read-only memory
    rest = np.flatnonzero(of_ids == 0)
    of_ids[rest] = found(text.gather(rest).str.strip_chars())
    return of_ids


def frame_of(table: Any, needed: Sequence[str]) -> pl.DataFrame:
    """Return a table of another library as a frame.

    Raises: DataError if it is not a table, or lacks one of the columns `needed`. Remedy: as the message says.
    """
    words = f"Give a pyarrow Table with the columns {', '.join(needed)}."
    if not (hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__")):
        raise DataError(f"a {type(table).__name__} is not a table. {words}")
    try:
        frame = pl.DataFrame(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"the table cannot be read: {(str(error) or 'unknown').splitlines()[0]}. {words}"
        ) from None
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(
            f"the table has no column {missing[0]!r}, only {', '.join(map(shown, frame.columns)) or 'none'}. Name "
            f"the columns {', '.join(needed)}."
        )
    return frame


def refuse_options(given: Iterable[str], call: Callable[..., Any], taken: Sequence[str]) -> None:
    """Raise ConfigError for options that `call` does not have, or that are `taken`. Remedy: use another."""
    known = [
        name
        for name, each in inspect.signature(call).parameters.items()
        if each.kind == each.KEYWORD_ONLY and name not in taken
    ]
    if wrong := [name for name in given if name not in known]:
        raise ConfigError(f"{wrong[0]!r} is not an option here. Use one of {', '.join(known)}.")


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
