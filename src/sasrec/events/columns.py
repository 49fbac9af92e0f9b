"""Choose the user, item and time columns of a file; convert id columns to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times

# Recognised column names, normalised by `_normalised`: lower case, without blanks, hyphens and underscores.
_KNOWN = {
    "user": "user userid uid customer customerid visitor visitorid reviewerid member memberid session sessionid",
    "item": "item itemid iid movie movieid product productid asin parentasin sku article articleid track trackid "
    "song songid book bookid",
    "time": "time timestamp ts date datetime unixreviewtime reviewtime eventtime createdat unixtime",
}
_ROLES = {name: role for role, names in _KNOWN.items() for name in names.split()}


@dataclass(frozen=True)
class Columns:
    """Names of the three columns; `time` is None if the file has no time column."""

    user: str
    item: str
    time: str | None


def is_known(name: str) -> bool:
    """Return whether a text is a recognised column name, such as "user_id" or "timestamp"."""
    return _normalised(name) in _ROLES


def choose(names: Sequence[str], config: DataConfig, file: str) -> tuple[Columns, list[str]]:
    """Choose the column of each role: the setting if given, else the only recognised column name.

    Returns the columns and a note that lists the columns chosen by name.

    Raises: DataError if a column is missing or ambiguous. The message lists all columns; remedy: name the column.
    """
    requested = {"user": config.user_column, "item": config.item_column, "time": config.time_column}
    chosen: dict[str, str | None] = {}
    listed = ", ".join(names)
    duplicates = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if duplicates:
        raise DataError(
            f"{file}: more than one column is named {', '.join(duplicates)}. Rename one of the columns: {listed}"
        )
    for role, name in requested.items():
        if name is not None and list(requested.values()).count(name) > 1:
            raise DataError(
                f"{file}: column {name!r} is named for more than one role. Choose different columns from: {listed}"
            )
        if name is not None and name not in names:
            raise DataError(
                f"{file} has no column {name!r} to use as the {role} column. Choose one of its columns: {listed}"
            )
        # A column that the settings request for another role must not also be chosen by its name.
        matches = [n for n in names if _ROLES.get(_normalised(n)) == role and n not in requested.values()]
        if name is None and len(matches) > 1:
            raise DataError(
                f"{file}: more than one column could be the {role} ({', '.join(matches)}). {_remedy(role)}"
            )
        if name is None and not matches and role != "time":
            raise DataError(f"{file}: no column looks like the {role}; its columns are: {listed}. {_remedy(role)}")
        chosen[role] = name or (matches[0] if matches else None)
    guessed = [f"{role} = {chosen[role]}" for role in requested if requested[role] is None and chosen[role]]
    notes = [f"columns recognised by their names: {', '.join(guessed)}"] if guessed else []
    return Columns(str(chosen["user"]), str(chosen["item"]), chosen["time"]), notes


def id_text(series: pl.Series, file: str) -> pl.Series:
    """Convert an id column of any type to text.

    Raises: DataError for a type that cannot be an id. Remedy: convert the ids to text or integers.
    """
    if series.dtype.is_float():
        # pandas turns integers into floats when a value is missing, so write 3.0 as "3" again.
        return times.float_text(series.fill_nan(None))
    if series.dtype == pl.Object:
        return pl.Series([None if value is None else str(value) for value in series], dtype=pl.String)
    if series.dtype.is_integer() or series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    raise DataError(
        f"{file}: column {series.name!r} is of type {series.dtype}. Convert it; ids must be text or integers."
    )


def _remedy(role: str) -> str:
    return f"Name it with `{role}_column` (in `prepare`: `{role}`)."


def _normalised(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
