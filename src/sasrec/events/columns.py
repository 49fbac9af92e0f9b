"""Which column of a file is the user, the item and the time; ids of typed columns as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times

# Lower case, without blanks, hyphens and underscores.
_KNOWN = {
    "user": "user userid uid customer customerid visitor visitorid reviewerid member memberid session sessionid",
    "item": "item itemid iid movie movieid product productid asin parentasin sku article articleid track trackid "
    "song songid book bookid",
    "time": "time timestamp ts date datetime unixreviewtime reviewtime eventtime createdat unixtime",
}
_ROLES = {name: role for role, names in _KNOWN.items() for name in names.split()}


@dataclass(frozen=True)
class Columns:
    """Names of the three columns; `time` is None where there is none."""

    user: str
    item: str
    time: str | None


def is_known(name: str) -> bool:
    """Whether a field is a name that a header would have."""
    return _plain(name) in _ROLES


def choose(names: Sequence[str], config: DataConfig, file: str) -> tuple[Columns, list[str]]:
    """The columns that the settings name, the others by their names; and sentences on what was guessed.

    Raises: DataError, listing the columns of `file`, if one is missing, or two could be meant.
    """
    asked = {"user": config.user_column, "item": config.item_column, "time": config.time_column}
    chosen: dict[str, str | None] = {}
    listed = ", ".join(names)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: more than one column is named {', '.join(twice)}; its columns are: {listed}")
    for role, name in asked.items():
        if name is not None and list(asked.values()).count(name) > 1:
            raise DataError(f"{file}: column {name!r} is named for more than one role; its columns are: {listed}")
        if name is not None and name not in names:
            raise DataError(
                f"{file} has no column {name!r}, named as the {role} column; its columns are: {listed}"
            )
        # A column that was given another role by name is not a candidate.
        fits = [n for n in names if _ROLES.get(_plain(n)) == role and n not in asked.values()]
        if name is None and len(fits) > 1:
            raise DataError(f"{file}: more than one column could be the {role} ({', '.join(fits)}): {_say(role)}")
        if name is None and not fits and role != "time":
            raise DataError(f"{file}: no column looks like the {role}; its columns are: {listed}: {_say(role)}")
        chosen[role] = name or (fits[0] if fits else None)
    guessed = [f"{role} = {chosen[role]}" for role in asked if asked[role] is None and chosen[role]]
    notes = [f"columns found by their names: {', '.join(guessed)}"] if guessed else []
    return Columns(str(chosen["user"]), str(chosen["item"]), chosen["time"]), notes


def id_text(series: pl.Series, file: str) -> pl.Series:
    """A typed column of ids as texts. Raises: DataError for a type that is none of ids."""
    if series.dtype.is_float():
        # Whole floats are integers that met a missing value on the way here.
        return times.float_text(series.fill_nan(None))
    if series.dtype == pl.Object:
        return pl.Series([None if value is None else str(value) for value in series], dtype=pl.String)
    if series.dtype.is_integer() or series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    raise DataError(f"{file}: column {series.name!r} is of type {series.dtype}: ids must be text or integers")


def _say(role: str) -> str:
    return f"name it with {role}_column (`sasrec prepare`: --{role}; Python: {role}=)"


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
