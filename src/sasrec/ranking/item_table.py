"""Read the tables of rules: columns of items, when items are available, and which items a user must not get."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.items import Items, shown
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount
from sasrec.events.formats import plausible
from sasrec.events.pieces import LINE
from sasrec.events.roles import role_of
from sasrec.events.times import as_text, parse
from sasrec.events.where import condition
from sasrec.files import missing, unicode_text
from sasrec.ranking.requests import numbers_of
from sasrec.untrusted import content_of, parquet_of, refuse_large

CATALOGUE = "the catalogue"  # the name of the table where no other is given
FROM, UNTIL = "from", "until"
_NUMBER = "\x1fnumber"
_SEPARATORS = ",;\t|"
_EVER = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
_MOST_SECONDS = 10**11  # the year 5138; a larger number is in milliseconds
_FIRST_SECONDS = plausible()[0] // 10**6  # a smaller number is a date, such as 20301231, or a year
_EARLY = "a number is in seconds since 1970, and this one would be before 1990"
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, eq=False)
class Availability:
    """When items are available, for the items that are not always available."""

    items: npt.NDArray[np.int64]
    """(L,) item numbers."""
    start: npt.NDArray[np.int64]
    """(L,) the first moment of each item, in microseconds since 1970 UTC."""
    end: npt.NDArray[np.int64]
    """(L,) the first moment at which each item is not available again."""

    def closed(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return (times, L), true where an item is not available at a time (microseconds)."""
        at = times[:, None]
        return (at < self.start) | (at >= self.end)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """A table with a row for some items of a catalogue, which other columns describe."""

    frame: pl.DataFrame
    """Has a column `item`."""
    name: str
    """Names the table in messages."""

    @staticmethod
    def read(source: Any, what: str, needed: Iterable[str] = ("item",)) -> ItemTable:
        """Return the table of a frame, or of a CSV or Parquet file. The cells of a CSV file are text.

        Raises: DataError if the file cannot be read, or a column of `needed` is missing. Remedy: as it says.
        """
        if isinstance(source, str | Path):
            table = ItemTable(_of_file(Path(source), next(iter(needed)), what), str(source))
        else:
            try:
                frame = source.collect() if isinstance(source, pl.LazyFrame) else pl.DataFrame(source)
            except (TypeError, ValueError, pl.exceptions.PolarsError):
                kind = type(source).__name__
                raise ConfigError(
                    f"{what} must be a frame or the path of a CSV or Parquet file, not a {kind}. Give one."
                ) from None
            table = ItemTable(frame, f"the frame of {what}")
        for name in needed:
            table = table._with(name)
        # Ids are those of the events, which have no blanks around them.
        texts = [name for name in needed if table.frame.schema[name] in (pl.String, pl.Categorical, pl.Enum)]
        clean = [pl.col(name).cast(pl.String).str.strip_chars() for name in texts]
        return ItemTable(table.frame.with_columns(clean), table.name)

    def _with(self, name: str) -> ItemTable:
        """Return the table with a column `name`: a copy of the one column that means the same, such as product_id.

        Raises: DataError if no column or several mean the same. Remedy: rename one.
        """
        columns = self.frame.columns
        if name in columns:
            return self
        alike = [column for column in columns if role_of(column) == name]
        if len(alike) != 1:
            which = f"several for it: {', '.join(alike)}" if alike else f"{', '.join(columns)}"
            raise DataError(
                f"{self.name} has no column {name!r}; its columns are: {which}. Rename the one with the ids to "
                f"{name}."
            )
        return ItemTable(self.frame.with_columns(pl.col(alike[0]).alias(name)), self.name)

    def numbers(self, items: Items) -> npt.NDArray[np.int64]:
        """Return the item number of each row, 0 if the id is unknown; warn of unknown ids with their count."""
        numbers = numbers_of(self.frame["item"], items)
        if unknown := int((numbers == 0).sum()):
            some = ", ".join(map(shown, self.frame["item"].filter(numbers == 0).head(3).to_list()))
            warnings.warn(
                f"{self.name}: {unknown:,} of {len(numbers):,} items are unknown and ignored, such as {some}",
                SasrecWarning,
                stacklevel=7,
            )
        return numbers

    def on(self, items: Items) -> ItemTable:
        """Return the table with one row for each item of the catalogue, in order of item number.

        A column is null where the table lacks the item. The columns title and group are those of the catalogue,
        unless the table has its own.

        Raises: DataError if an item has two rows. Remedy: keep one.
        """
        ids = self.frame["item"].drop_nulls()
        if len(twice := ids.filter(ids.is_duplicated())):
            raise DataError(
                f"{self.name} has the item {shown(twice[0])} in {int((ids == twice[0]).sum())} rows. Keep one row "
                "of each item."
            )
        own = {"title": items.titles, "group": items.groups}
        base = pl.DataFrame(
            {
                _NUMBER: np.arange(1, len(items) + 1),
                "item": items.ids,
                **{name: column for name, column in own.items() if column is not None and name not in self.frame},
            }
        )
        rows = self.frame.drop("item").with_columns(pl.Series(_NUMBER, self.numbers(items)))
        joined = base.join(rows, on=_NUMBER, how="left", maintain_order="left")
        return ItemTable(joined.drop(_NUMBER), self.name)

    def where(self, text: str) -> npt.NDArray[np.bool_]:
        """Return (rows,), true where the condition in SQL holds; nothing compares with null, as in SQL.

        Raises: ConfigError or DataError if the condition cannot be applied. Remedy: as the message says.
        """
        try:
            found = condition(text, self.frame.to_dict(), self.name)
        except (ConfigError, DataError) as error:
            # The command line would show the names of settings as options.
            words = str(error).replace("`where`", "the rule where").replace("where=", "where = ")
            texts = " Texts take single quotes, as in 'tea'." if "has no column" in words and '"' in text else ""
            no_table = "has no column" in words and self.name == CATALOGUE
            table = " Name the table that has this column as items = FILE." if no_table else ""
            raise type(error)(f"{words.rstrip('.')}.{texts}{table}") from None
        kept, rejects, _ = found.keep(self.frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(LINE)))
        if rejects.height:
            reason = rejects["reason"][0].replace("the condition `where`", "the rule where")
            raw = shown(rejects["raw"][0])
            warnings.warn(
                f"{self.name}: {amount(rejects.height, 'item', 'are')} not recommended, because {reason}, such as "
                f"{raw}",
                SasrecWarning,
                stacklevel=6,
            )
        fulfilled = np.zeros(self.frame.height, bool)
        fulfilled[kept[LINE].to_numpy()] = True
        return fulfilled

    def texts(self, name: str) -> pl.Series:
        """Return a column as text, null where it is empty. Raises: DataError for lists. Remedy: write texts."""
        column = self.frame[name]
        if column.dtype.is_nested():
            raise DataError(
                f"{self.name}: the column {name} is of type {column.dtype}. Write one text for each item."
            )
        text = column.cast(pl.String).str.strip_chars()
        return text.set((text == "").fill_null(False), None)

    def availability(self) -> Availability | None:
        """Return when items are available, from the columns `from` and `until`; None if the table has neither.

        Raises: DataError if a time cannot be read, or an item ends before it begins. Remedy: correct the row.
        """
        if not {FROM, UNTIL} & set(self.frame.columns):
            return None
        start, end = (self._moments(name, ever) for name, ever in zip((FROM, UNTIL), _EVER, strict=True))
        if len(wrong := np.flatnonzero(start > end)):
            row = self.frame.row(int(wrong[0]), named=True)
            raise DataError(
                f"{self.name}: the item {shown(row['item'])} is available from {row[FROM]} until {row[UNTIL]}, "
                "which is earlier. Correct this row."
            )
        limited = np.flatnonzero((start != _EVER[0]) | (end != _EVER[1]))
        return Availability(limited + 1, start[limited], end[limited])

    def _moments(self, name: str, ever: int) -> npt.NDArray[np.int64]:
        """Return a column of times in microseconds, (rows,); `ever` where it is empty or missing."""
        if name not in self.frame.columns:
            return np.full(self.frame.height, ever)
        found, reasons = microseconds(self.frame[name], self.name)
        if len(wrong := reasons.drop_nulls()):
            at = int(reasons.is_not_null().arg_max() or 0)
            row = self.frame.row(at, named=True)
            raise DataError(
                f"{self.name}: {name} of the item {shown(row['item'])} is {row[name]!r}, but {wrong[0]}. Write "
                "ISO dates or seconds since 1970: 2030-12-31 or 1924905600."
            )
        return found.fill_null(ever).to_numpy()


def microseconds(column: pl.Series, name: str) -> tuple[pl.Series, pl.Series]:
    """Return times in microseconds since 1970 UTC, null where empty, and why a time cannot be read, else null.

    Dates are ISO 8601. Numbers are seconds, and not before 1990. A date without a time of day is its first moment,
    without a zone UTC.
    """
    column = column.fill_nan(None) if column.dtype.is_float() else column
    text = as_text(column, name)
    empty = (text.str.strip_chars() == "").fill_null(True)
    parsed = parse(text)
    many = pl.lit("a time must be in seconds, and this one looks like milliseconds")
    seconds = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal")
    fits = seconds.is_between(_FIRST_SECONDS, _MOST_SECONDS, closed="left")
    unfit = pl.when(seconds < _FIRST_SECONDS).then(pl.lit(_EARLY)).otherwise(many)
    found = parsed.select(
        time=pl.when(fits | seconds.is_null()).then(
            pl.coalesce(
                "iso",
                pl.when(fits).then("integer").cast(pl.Int64) * 10**6,
                (pl.when(fits).then("decimal") * 1e6).cast(pl.Int64),
            )
        ),
        reason=pl.when(~pl.lit(empty)).then(pl.when(fits.not_()).then(unfit).otherwise("time_reason")),
    )
    return found["time"], found["reason"]


def moment(value: Any) -> int:
    """Return the time of a request in microseconds: seconds since 1970, an ISO text, or a date of Python.

    Raises: ConfigError if it is not a time. Remedy: use one of these.
    """
    if type(value) in (int, float) and _FIRST_SECONDS <= value < _MOST_SECONDS:
        return int(value * 10**6)  # each request at the present moment comes here, so it is fast
    fitting = isinstance(value, str | int | float | date | datetime) and not isinstance(value, bool)
    try:
        time, reason = microseconds(pl.Series([value if fitting else None], strict=True), "now")
    except OverflowError:
        time, reason = pl.Series([None]), pl.Series(["it is too large"])
    if time[0] is None:
        raise ConfigError(
            f"now is {value!r}, but {reason[0] or 'it must be a time'}. Write an ISO date or seconds since 1970: "
            "2030-12-31 or 1924905600."
        )
    return int(time[0])


def _has(column: str, names: list[str]) -> bool:
    return column in names or (len(names) > 1 and column in map(role_of, names))


def _of_file(path: Path, column: str, what: str) -> pl.DataFrame:
    """Read a Parquet file, or a text file with a header, whose separator is the one that sets `column` apart."""
    remedy = f"Name a CSV or Parquet file as {what}."
    try:
        if not path.exists():
            raise DataError(f"{path} {missing(path)}. {remedy}")
        refuse_large(path)
        with path.open("rb") as stream:
            first = stream.readline(2**20)
        if first.startswith(b"PAR1"):
            return parquet_of(path)
        source: Path | bytes = path
        if first.startswith(_MARKS):
            source = unicode_text(content_of(path)).encode()
            first = source.partition(b"\n")[0]
        header = first.decode("utf-8-sig").strip()
        separator = next(
            (each for each in _SEPARATORS if _has(column, [name.strip('" ') for name in header.split(each)])), ","
        )
        frame = pl.read_csv(source, separator=separator, infer_schema=False, glob=False)
        return frame.rename({name: name.strip() for name in frame.columns}).with_columns(
            pl.all().str.strip_chars()
        )
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}. {remedy}") from None
    except (ValueError, pl.exceptions.PolarsError) as error:
        reason = (str(error) or "it is damaged").splitlines()[0]
        raise DataError(f"{path} cannot be read: {reason}. {remedy}") from None
