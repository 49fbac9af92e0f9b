"""Rules on what may be recommended: the same for lists that are served and for metrics.

A file of rules is TOML, and every entry is optional:

allow = ["50", "181"]               # recommend only these items
deny = ["313"]                      # never recommend these items
per_group = 2                       # at most two items of a group (such as a genre) in a list
where = "price < 20 and stock > 0"  # a condition in SQL on columns of the item table
items = "items.csv"                 # the item table: item, any columns, and optionally from and until
bans = "bans.csv"                   # user, item: never recommend the item to the user; or [bans] with lists
now = 2026-05-04                    # the time of the requests; the default is the present moment

Paths are relative to the folder of the file.
"""

from __future__ import annotations

import hashlib
import json
import operator
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from sasrec.config.lines import wrong_entry
from sasrec.config.toml_file import tables_of
from sasrec.data.histories import Histories
from sasrec.data.items import Items, id_text, look_up, shown
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount
from sasrec.ranking.item_table import CATALOGUE, Availability, ItemTable, moment
from sasrec.ranking.requests import listed
from sasrec.ranking.selection import RowRules


def _id(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("an id must be a text or a whole number")
    return value


def _time(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float | date):  # a datetime is a date
        raise ValueError("it must be a date, a time or seconds since 1970")
    return value


_Ids = list[Annotated[Any, AfterValidator(_id)]]


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    allow: _Ids | None = None
    deny: _Ids = []
    bans: Annotated[
        Annotated[str, Tag("by file")] | Annotated[dict[str, _Ids], Tag("by user")],
        Discriminator(lambda bans: "by file" if isinstance(bans, str) else "by user"),
    ] = {}
    per_group: Annotated[int, Field(ge=1)] | None = None
    where: str = ""
    items: str | None = None
    now: Annotated[Any, AfterValidator(_time)] = None


@dataclass(frozen=True, eq=False)
class Rules:
    """Rules on what may be recommended, such as items in stock, or items that a user must not get.

    The arguments `allow` and `deny` of `recommend` apply in addition to the rules. The files or frames `items` and
    `bans` are read once, when the rules are first used. If `items` or `bans` change later, make new Rules. Unknown
    ids are ignored, with one warning.
    """

    allow: Iterable[object] | None = None
    """Ids of the items that may be recommended; None means all."""
    deny: Iterable[object] = ()
    """Ids of items that are never recommended."""
    bans: Any = None
    """Items that a user must not get: {user id: item ids}, or a frame, CSV or Parquet file (user, item)."""
    per_group: int | None = None
    """The most items of one group, such as a genre, in a list. The group of an item is in the catalogue
    (`Items.groups`), or else in the column group of `items`. Items without any group are not limited."""
    where: str = ""
    """A condition in SQL that items must meet, on the columns of `items` and on title and group of the catalogue,
    such as "price < 20 AND \\"group\\" = 'tea'". The columns of `items` are null for an item without a row.
    """
    items: Any = None
    """A table with a row for each item: a frame, CSV or Parquet file with the column `item` (ids, each once). The
    optional columns `from` and `until` limit when an item may be recommended: from the time `from` on, and before
    the time `until`. An empty value means no limit."""
    now: Any = None
    """The time that is compared with `from` and `until`: seconds since 1970, an ISO text or a datetime. None means
    the present moment; in evaluation, the time of each target."""
    name: str = "rules"
    """The name of the rules in messages and on the protocol card."""
    _known: WeakKeyDictionary[Items, ItemRules] = field(init=False, repr=False, default_factory=WeakKeyDictionary)
    # The table of items and the bans; rules that are narrowed share them.
    _read: WeakKeyDictionary[Items, Any] = field(init=False, repr=False, default_factory=WeakKeyDictionary)

    def __post_init__(self) -> None:
        """Check what needs no catalogue. Raises: ConfigError or DataError. Remedy: as the message says."""
        for name in ("allow", "deny"):
            if (ids := getattr(self, name)) is not None:
                object.__setattr__(self, name, listed(ids, f"{name} of the rules"))  # an iterator is read once
        if self.per_group is not None:
            try:
                least = operator.index(self.per_group) >= 1 and not isinstance(self.per_group, bool)
            except TypeError:
                least = False
            if not least:
                raise ConfigError(f"per_group must be a whole number from 1, not {self.per_group!r}. Use one.")
        if not isinstance(self.where, str):
            raise ConfigError(f'the rule where must be a text in SQL, not {self.where!r}. Write "price < 20".')
        if self.now is not None:
            moment(self.now)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs, such as a worker of Ray: all but what was read."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_known", "_read")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy. See `__getstate__`."""
        self.__dict__.update(state, _known=WeakKeyDictionary(), _read=WeakKeyDictionary())

    @staticmethod
    def load(path: str | Path) -> Rules:
        """Read rules from a TOML file (docs/how-to/rules.md).

        Raises: ConfigError if the file has an unknown entry, a wrong value or no rule at all. Remedy: correct the
        line that the message names, or add a rule.
        """
        path = Path(path)
        tables = tables_of(path, "rules")
        try:
            file = _File.model_validate(tables)
        except ValidationError as error:
            wrong = wrong_entry(path, path.read_text("utf-8"), error, _File.model_fields)
            raise ConfigError(f"{wrong}. Correct this line.") from None
        if not tables.keys() - {"now"}:
            raise ConfigError(f"{path} has no rule. Add one, such as per_group = 2.")
        near = path.parent
        try:
            return Rules(
                allow=file.allow,
                deny=file.deny,
                bans=near / file.bans if isinstance(file.bans, str) else file.bans,
                per_group=file.per_group,
                where=file.where,
                items=None if file.items is None else near / file.items,
                now=file.now,
                name=path.name,
            )
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def moment(self) -> int:
        """Return the time for which the rules hold, in microseconds since 1970 UTC: the attribute `now`, or else
        the present moment.
        """
        return moment(time.time() if self.now is None else self.now)

    def at_present(self) -> Rules:
        """Return the rules with a fixed `now`: if `now` is None, the result has the present moment instead.

        So all lists that are made with the result are for the same time.
        """
        return self if self.now is not None else replace(self, now=time.time())

    def narrowed(self, where: str, per_group: int | None) -> Rules:
        """Return the rules with a further condition and limit of groups, and with the tables that were read."""
        both = f"({self.where}) AND {where}" if self.where and where else self.where or where
        limits = [each for each in (self.per_group, per_group) if each is not None]
        narrow = replace(self, where=both, per_group=min(limits, default=None))
        object.__setattr__(narrow, "_read", self._read)
        return narrow

    def on(self, items: Items) -> ItemRules:
        """Return the rules for a catalogue, with item numbers instead of ids. The result is kept, so that later
        calls are fast.

        Raises: ConfigError or DataError if a rule cannot be used with this catalogue, for example because the
        column in `where` does not exist. Remedy: as the message says.
        """
        if (found := self._known.get(items)) is None:
            found = self._known[items] = _compiled(self, items)
        return found

    def described(self) -> dict[str, Any]:
        """Return the rules as the protocol card shows them: how many ids they name, and the names of files."""
        frame = "a frame"
        bans: Any = self.bans if isinstance(self.bans, str | Path) else frame
        described = {
            "name": self.name,
            "allow": None if self.allow is None else f"{len(list(self.allow)):,} items",
            "deny": f"{len(list(self.deny)):,} items" if self.deny else None,
            "bans": f"of {len(self.bans):,} users" if isinstance(self.bans, Mapping) and self.bans else None,
            "per_group": self.per_group,
            "where": self.where or None,
            "items": None if self.items is None else Path(self.items).name if _is_path(self.items) else frame,
            "now": None if self.now is None else str(self.now),
        }
        if self.bans is not None and not isinstance(self.bans, Mapping):
            described["bans"] = Path(bans).name if _is_path(bans) else frame
        return {name: value for name, value in described.items() if value is not None}


def _is_path(source: Any) -> bool:
    return isinstance(source, str | Path)


@dataclass(frozen=True, eq=False)
class ItemRules:
    """Rules in item numbers of a catalogue."""

    allowed_V: npt.NDArray[np.bool_]
    """(V,) true for items that may be recommended to some user at some time."""
    availability: Availability | None
    groups_V: npt.NDArray[np.int64] | None
    """(V,) group of each item, numbered from 1; 0 for none."""
    per_group: int
    bans: dict[str, npt.NDArray[np.int64]]
    """User id -> item numbers."""

    @cached_property
    def digest(self) -> str:
        """A hash of all rules, to compare processes."""
        state = hashlib.sha256(self.allowed_V.tobytes())
        if self.availability is not None:
            for array in (self.availability.items, self.availability.start, self.availability.end):
                state.update(array.tobytes())
        state.update(json.dumps([self.per_group, {k: v.tolist() for k, v in self.bans.items()}]).encode())
        return state.hexdigest()[:12]

    def allowed_at(self, microseconds: int | None) -> npt.NDArray[np.bool_]:
        """Return (V,), true for items that may be recommended at a time; at some time if it is None."""
        if self.availability is None or microseconds is None:
            return self.allowed_V
        allowed_V = self.allowed_V.copy()
        closed = self.availability.closed(np.array([microseconds]))[0]
        allowed_V[self.availability.items[closed]] = False
        return allowed_V

    def by_row(
        self, users: Sequence[object] | None, times: npt.NDArray[np.int64] | None, name: str
    ) -> RowRules | None:
        """Return the rules for rows of these users (None: unknown) and times (None: the same for all rows)."""
        banned = None
        if self.bans and users is not None:
            banned = self._banned(users, name)
        elif self.bans:
            warnings.warn(
                f"{name}: bans are not applied to histories without a user. Name the user of each history.",
                SasrecWarning,
                stacklevel=5,
            )
        limited = self.availability if times is not None else None
        if banned is None and limited is None and self.groups_V is None:
            return None
        return RowRules(banned, limited, times, self.groups_V, self.per_group)

    def warn_nobody(self, has_user: Callable[[object], bool], name: str) -> None:
        """Warn if bans name users, but none of those that `has_user` knows."""
        if self.bans and not any(map(has_user, self.bans)):
            warnings.warn(
                f"{name}: {self._banning()}, but none of them is in the data",
                SasrecWarning,
                stacklevel=3,
            )

    def _banning(self) -> str:
        return f"bans name {amount(len(self.bans), 'user')}, such as {shown(next(iter(self.bans)))}"

    def _banned(self, users: Sequence[object], name: str) -> Histories | None:
        place = dict(zip(self.bans, range(1, 1 + len(self.bans)), strict=True))
        lists = [np.zeros(0, np.int64), *self.bans.values()]
        found = [look_up(place, user) or 0 for user in users]
        if not any(found):
            if len(found) > 1:
                warnings.warn(
                    f"{name}: {self._banning()}, but none of these lists is for one of them",
                    SasrecWarning,
                    stacklevel=6,
                )
            return None
        ends = np.cumsum([len(lists[number]) for number in found])
        starts = np.concatenate([[0], ends[:-1]])
        return Histories(np.concatenate([lists[each] for each in found]).astype(np.int32), None, starts, ends)


def _compiled(rules: Rules, items: Items) -> ItemRules:
    allowed_V = np.ones(len(items) + 1, bool)
    if rules.allow is not None:
        allowed_V[:] = False
        allowed_V[_numbers(rules.allow, items, f"{rules.name}: allow")] = True
    allowed_V[_numbers(rules.deny, items, f"{rules.name}: deny")] = False
    allowed_V[0] = False
    table = availability = None
    if items not in rules._read:
        given = None if rules.items is None else ItemTable.read(rules.items, "items")
        rules._read[items] = given, _bans(rules, items)
    given, bans = rules._read[items]
    if given is not None:
        if rules.where and given.frame.is_empty():
            raise DataError(f"{given.name} has no rows, which the rule where needs. Add a row for each item.")
        table = given.on(items)
        availability = table.availability()
        grouped = rules.per_group is not None and "group" in given.frame.columns
        if availability is None and not rules.where and not grouped:
            raise ConfigError(
                f"{rules.name}: no rule reads the table {table.name}, which has no column from or until. "
                'Add a condition, such as where = "price < 20".'
            )
    if rules.where:
        if table is None:
            empty = pl.DataFrame({"item": pl.Series([], dtype=items.ids.dtype)})
            table = ItemTable(empty, CATALOGUE).on(items)
        allowed_V[1:] &= table.where(rules.where)
    groups_V = None if rules.per_group is None else _groups(rules, items, table)
    per_group = min(rules.per_group or 0, len(items))  # a larger number would overflow in comparisons
    return ItemRules(allowed_V, availability, groups_V, per_group, bans)


def _groups(rules: Rules, items: Items, table: ItemTable | None) -> npt.NDArray[np.int64]:
    """Return (V,) group of each item, numbered from 1; 0 for none. The catalogue's groups come before the table's.

    Raises: ConfigError if no item has a group. Remedy: give groups to either.
    """
    groups = pl.Series([None] * len(items), dtype=pl.String) if items.groups is None else items.groups
    groups = groups.cast(pl.String)
    if table is not None and "group" in table.frame.columns:
        groups = groups.zip_with(groups.is_not_null(), table.texts("group"))
    if not groups.count():
        raise ConfigError(
            f"{rules.name}: per_group needs groups, which the catalogue does not have. Prepare the data with "
            "`items` and `items_group` and train on it, or add a column group to the table `items` of the rules."
        )
    if without := groups.null_count():
        one = without == 1
        warnings.warn(
            f"{rules.name}: per_group does not limit {without:,} item{'' if one else 's'} without a group. The "
            "column group of the table `items` of the rules can name it",
            SasrecWarning,
            stacklevel=6,
        )
    numbers = groups.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    return np.concatenate([np.zeros(1, np.int64), numbers])


def _numbers(ids: Iterable[object], items: Items, where: str) -> npt.NDArray[np.int64]:
    """Return the numbers of the known ids; warn of the others with their count."""
    ids = list(ids)
    numbers, unknown = items.numbers(ids)
    if unknown:
        warnings.warn(
            f"{where}: {len(unknown):,} of {len(ids):,} items are unknown and ignored, such as "
            f"{', '.join(map(shown, unknown[:3]))}",
            SasrecWarning,
            stacklevel=6,
        )
    return numbers


def _bans(rules: Rules, items: Items) -> dict[str, npt.NDArray[np.int64]]:
    """Return user id -> item numbers. Raises: DataError if the table lacks a column. Remedy: rename one."""
    if rules.bans is None:
        return {}
    if isinstance(rules.bans, Mapping):
        rows = [
            (id_text(user), item)
            for user, ids in rules.bans.items()
            for item in listed(ids, f"bans of {shown(user)}")
        ]
        numbers = [items.number_of(item) or 0 for _, item in rows]
        if unknown := [item for (_, item), number in zip(rows, numbers, strict=True) if not number]:
            _numbers(unknown, items, f"{rules.name}: bans")
        frame = pl.DataFrame(
            {"user": [user for user, _ in rows], "number": numbers},
            schema={"user": pl.String, "number": pl.Int64},
        )
    else:
        table = ItemTable.read(rules.bans, "bans", ("item", "user"))
        user = table.frame["user"]
        if user.dtype.is_float():
            raise DataError(f"{table.name}: users are decimal numbers, not ids. Write them as text or integers.")
        numbers_E = table.numbers(items)
        frame = pl.DataFrame({"user": user.cast(pl.String), "number": numbers_E}).drop_nulls()
    found = frame.filter(pl.col("number") > 0).unique().group_by("user", maintain_order=True).agg("number")
    return {user: np.array(numbers) for user, numbers in found.iter_rows()}
