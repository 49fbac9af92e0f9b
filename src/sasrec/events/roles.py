"""Decide which column is the user, the item and the time, from names and from evidence in the values.

A column gets a role only if one reading fits. Otherwise the data is refused with what each column looks like and
with the setting that names the roles. Names decide ids; for times, the values must agree with the name. Without
a header, only the content decides: the place of a column is not evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError, amount
from sasrec.events.evidence import by_custom, evidence
from sasrec.events.profile import Profile, profile
from sasrec.events.sequences import list_form, looks_like_lists
from sasrec.events.time_column import time_column, time_remedy

# Recognised names, normalised by `_normalised`: lower case, without blanks, hyphens and underscores.
_KNOWN = {
    "user": "user userid userno uid customer customerid customerno customernumber custid visitor visitorid "
    "reviewerid member memberid session sessionid clientid accountid playerid profileid buyerid kunde kundenid "
    "kundennummer kundennr",
    "item": "item itemid itemno iid movie movieid product productid productcode productno asin parentasin sku "
    "skuid skucode stockcode isbn article articleid articleno artikel artikelid artikelnummer artikelnr track "
    "trackid song songid book bookid aid video videoid game gameid app appid business businessid recipe recipeid "
    "news newsid job jobid poi poiid venue venueid items itemids itemlist itemsequence",
    "time": "time timestamp ts date datetime unixreviewtime reviewtime eventtime createdat unixtime",
}
_ROLES = {name: role for role, names in _KNOWN.items() for name in names.split()}
KNOWN_NAMES = frozenset(_ROLES)
NO_TIME = "none"
_DESCRIBED = 20  # columns that a message describes


@dataclass(frozen=True)
class Columns:
    """Names of the three columns; `time` is None if events are in order of the rows."""

    user: str
    item: str
    time: str | None
    lists: bool = False
    """Whether the caller says that the item column holds lists of items (the role `items`)."""


def is_known(name: str) -> bool:
    """Return whether a text is a recognised column name, such as "user_id" or "timestamp"."""
    return role_of(name) is not None


def is_item_name(name: str) -> bool:
    """Return whether a text is a recognised name of an item column, such as "item_id"."""
    return role_of(name) == "item"


def has_item(names: Iterable[str], config: DataConfig) -> bool:
    """Return whether one of the names is that of the item, by the settings or else as a usual name."""
    names = set(names)
    pairs = [pair.rpartition(":")[::2] for pair in config.columns.split(",") if ":" in pair]
    asked = [name for name, role in pairs if role in ("item", "items")] + [config.item_column]
    asked = [name for name in asked if name]
    return any(name in names for name in asked) if asked else any(map(is_item_name, names))


def choose(sample: Mapping[str, pl.Series], config: DataConfig, file: str) -> tuple[Columns, list[str]]:
    """Choose the column of each role in data whose columns have names.

    `sample`: some values of each column. Returns the columns, and notes on what was chosen and why.

    Raises: DataError if no column, or more than one, fits a role. Remedy: name the column.
    """
    if config.columns:
        return given(sample, config, file)
    names = list(sample)
    requested = {
        "user": _by_number(config.user_column, names),
        "item": _by_number(config.item_column, names),
        "time": _by_number(config.time_column, names),
    }
    _check_requested(requested, names, file)
    chosen: dict[str, str | None] = {}
    missing = []
    for role in ("user", "item"):
        # A column that the settings request for another role must not also be chosen by its name.
        matches = [name for name in names if role_of(name) == role and name not in requested.values()]
        if requested[role] is None and len(matches) > 1:
            raise DataError(
                f"{file}: more than one column could be the {role} ({', '.join(matches)}). Name one, for example "
                f"{role}_column={matches[0]!r}."
            )
        chosen[role] = requested[role] or next(iter(matches), None)
        missing += [role] if chosen[role] is None else []
    if missing:
        raise DataError(_unnamed(missing, chosen, requested["time"], sample, file))
    chosen["time"] = requested["time"]
    notes: list[str] = []
    if config.time_column is None:
        chosen["time"], notes = _time(str(chosen["user"]), str(chosen["item"]), sample, file)
    elif config.time_column == NO_TIME and NO_TIME not in names:
        chosen["time"] = None
    if guessed := {role: name for role, name in chosen.items() if requested[role] is None and name}:
        notes.insert(0, _guessed(guessed))
    return Columns(str(chosen["user"]), str(chosen["item"]), chosen["time"]), notes


def _guessed(roles: Mapping[str, str | None]) -> str:
    named = ", ".join(f"{role} = {name}" for role, name in roles.items())
    return f"columns recognised by their names and values: {named}"


def _time(user: str, item: str, sample: Mapping[str, pl.Series], file: str) -> tuple[str | None, list[str]]:
    """Choose the time among the columns that are neither user nor item; return it, and notes."""
    rest = {name: values for name, values in sample.items() if name not in (user, item)}
    known = [name for name in rest if role_of(name) == "time"]
    return time_column(rest, known, sample[item], file)


def _check_requested(requested: Mapping[str, str | None], names: Sequence[str], file: str) -> None:
    listed = ", ".join(names)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(
            f"{file}: more than one column is named {', '.join(twice)}. Rename one of the columns: {listed}"
        )
    for role, name in requested.items():
        if name is not None and list(requested.values()).count(name) > 1:
            raise DataError(
                f"{file}: column {name!r} is named for more than one role. Choose different columns from: {listed}"
            )
        if name is not None and name not in names and not (role == "time" and name == NO_TIME):
            raise DataError(
                f"{file} has no column {name!r} to use as the {role} column. Choose one of its columns: {listed}"
            )


def by_content(
    sample: Mapping[str, pl.Series], separator: str, config: DataConfig, file: str
) -> tuple[Columns, list[str]]:
    """Choose the roles in a file without a header, whose columns are numbered from 0.

    `sample`: some values of each column, by its number or, if the names of folders give it, its name.

    Raises: DataError if the content does not decide. Remedy: name the roles with the setting `columns`.
    """
    names = list(sample)
    requested = {"user": config.user_column, "item": config.item_column, "time": config.time_column}
    _check_requested(requested, names, file)
    if config.user_column and config.item_column:
        if config.time_column:
            chosen = None if config.time_column == NO_TIME else config.time_column
            return Columns(config.user_column, config.item_column, chosen), []
        rest = [name for name in names if name not in requested.values()]
        times_left = [name for name in rest if profile(name, sample[name]).time]
        if len(times_left) > 1:
            found_times = f"more than one column could be the time ({', '.join(times_left)})"
            raise DataError(f"{file}: {found_times}. {time_remedy(times_left)}")
        notes = [f"column {times_left[0]} is used as the time, because its values are times"] if times_left else []
        return Columns(config.user_column, config.item_column, times_left[0] if times_left else None), notes
    if config.user_column or config.item_column or config.time_column not in (None, NO_TIME):
        raise DataError(f"{file} has no header with known names. Name both user and item by their numbers from 0.")
    if (lists := _lists_by_content(sample)) is not None:
        return lists, []
    profiles = [profile(name, values) for name, values in sample.items()]
    times = [each.name for each in profiles if each.time and config.time_column != NO_TIME]
    ids = [each.name for each in profiles if each.may_be_id]
    found: set[tuple[str, str, str]] = set()
    if len(times) <= 1:
        time = times[0] if times else None
        # In `::` files, ratings that are too few to be recognised may look like ids.
        if ids == ["0", "1"] or (separator == "::" and ids[:2] == ["0", "1"]):
            why = by_custom(list(sample.values()), separator, time)
            found |= {("0", "1", why)} if why else set()
        found |= {
            (user, item, why)
            for user, item in ((ids, ids[::-1]) if len(ids) == 2 else ())
            for why in evidence(
                sample[user], sample[item], None if time is None else sample[time], alone=len(sample) == 2
            )
        }
        if len({(user, item) for user, item, _ in found}) == 1:
            user, item, why = min(found)
            roles = f"user = {user}, item = {item}" + ("" if time is None else f", time = {time}")
            note = f"the file has no header; columns by number from 0: {roles} ({why})"
            return Columns(user, item, time), [note]
    described = "; ".join(f"{each.name}: {each.looks_like} ({each.example})" for each in profiles)
    raise DataError(
        f"{file} has no header with known names, and the content does not show which column is which. Its columns "
        f"are {described}. {_if_lists(profiles)}Name them in order, for example columns={_suggested(profiles)!r}"
    )


def _lists_by_content(sample: Mapping[str, pl.Series]) -> Columns | None:
    """Return the roles where a column of distinct ids stands beside one of lists, and perhaps lists of times."""
    lists = [name for name, values in sample.items() if list_form(values)]
    users = [
        name
        for name, values in sample.items()
        if name not in lists and profile(name, values).may_be_id and values.n_unique() == len(values) > 1
    ]
    times = [name for name in lists if profile(name, _elements_of(sample[name])).time]
    items = [name for name in lists if name not in times]
    if len(users) == 1 and len(items) == 1 and len(times) <= 1:
        return Columns(users[0], items[0], times[0] if times else None)
    return None


def _elements_of(values: pl.Series) -> pl.Series:
    return values.str.extract_all(r"\d+").explode()


def given(sample: Mapping[str, pl.Series], config: DataConfig, file: str) -> tuple[Columns, list[str]]:
    """Read the setting `columns`: roles in order (user,item,-,time), or pairs such as session_id:user or 2:item.

    Pairs without a time say nothing about the other columns, so the time is looked for among them. Returns the
    columns, and notes on the time.

    Raises: DataError or ConfigError if it does not fit the columns. Remedy: correct `columns`.
    """
    names = list(sample)
    parts = [part.strip() for part in config.columns.split(",")]
    if any(":" in part for part in parts):
        pairs = [part.rpartition(":")[::2] for part in parts]
    else:
        if len(parts) != len(names):
            raise DataError(
                f"{file} has {amount(len(names), 'column')} ({', '.join(names)}), but columns={config.columns!r} "
                f"names {len(parts)}. Write one role for each column, and - for a column to ignore."
            )
        pairs = list(zip(names, parts, strict=True))
    roles: dict[str, str] = {}
    lists = False
    for name, role in pairs:
        if role in ("-", ""):
            continue
        column = _by_number(name, names) or ""
        if column not in names:
            order = f"Write the column before its role: {role}:{name}. " if role in names else ""
            raise DataError(
                f"{file} has no column {name!r}, which columns={config.columns!r} names. {order}Choose one of its "
                f"columns, or a number from 0: {', '.join(names)}"
            )
        lists |= role in ("items", "times")
        role = {"items": "item", "times": "time"}.get(role, role)
        if column in roles.values():
            raise DataError(
                f"columns={config.columns!r} gives the column {column!r} of {file} two roles. Choose different "
                "columns; where names are numbers, write the names."
            )
        if role not in ("user", "item", "time") or role in roles:
            raise DataError(
                f"columns={config.columns!r} gives the role {role!r}, which is unknown or given twice. Use user, "
                "item (items for lists) and time (times for lists) once each, and - for a column to ignore."
            )
        roles[role] = column
    if missing := [role for role in ("user", "item") if role not in roles]:
        raise DataError(f"columns={config.columns!r} names no {' and no '.join(missing)}. Add this role.")
    time, notes = roles.get("time"), list[str]()
    if config.time_column is not None:
        _check_requested({"time": _by_number(config.time_column, names)}, names, file)
        time = None if config.time_column == NO_TIME else _by_number(config.time_column, names)
    elif time is None and ":" in config.columns:
        time, notes = _time(roles["user"], roles["item"], sample, file)
        notes = [_guessed({"time": time}), *notes] if time else notes
    return Columns(roles["user"], roles["item"], time, lists), notes


def _if_lists(profiles: Sequence[Profile]) -> str:
    """Return another suggestion if each line can be a user with items."""
    distinct = len(profiles) > 2 and profiles[0].rows == profiles[0].distinct > 1
    lists = distinct and all(each.may_be_id for each in profiles)
    return "If each line is a user with the user's items, use columns='user,items'. Otherwise: " if lists else ""


def pair_name(name: str, names: Sequence[str]) -> str:
    """Return a column for the setting `columns`: its name, or its number if signs in the name would be misread."""
    return str(names.index(name)) if name in names and re.search(r"""[,'"\\\n]|^-|^\d+$""", name) else name


def _by_number(name: str | None, names: Sequence[str]) -> str | None:
    """Return the name of the column with this number from 0; else `name` itself."""
    if name is None or name in names or not name.isdecimal() or int(name) >= len(names):
        return name
    return names[int(name)]


def _suggested(profiles: Sequence[Profile]) -> str:
    """Return a value for the setting `columns`, in which the order of user and item is a guess to be checked."""
    ids = [each.name for each in profiles if each.may_be_id]
    if len(ids) < 2:  # what looks like ratings or times can be an id, too
        ids = [each.name for each in profiles if not each.time] or ids
    if len(ids) < 2:
        ids = [each.name for each in profiles]
    roles = dict(zip(ids, ("user", "item"), strict=False))
    times = (each.name for each in profiles if each.time and each.name not in roles)
    roles |= dict.fromkeys(list(times)[:1], "time")
    return ",".join(roles.get(each.name, "-") for each in profiles)


def _unnamed(
    missing: Sequence[str],
    chosen: Mapping[str, str | None],
    time: str | None,
    sample: Mapping[str, pl.Series],
    file: str,
) -> str:
    """Return a message on roles that no name shows, with a value of the setting `columns` that may fit.

    `time`: the column that the settings name, or None.
    """
    roles = {name: role for role, name in chosen.items() if name is not None}
    roles |= {} if time in (None, NO_TIME) else {str(time): "time"}
    profiles = [profile(name, values) for name, values in sample.items()]
    free = [each.name for each in profiles if each.name not in roles and each.may_be_id]
    roles |= dict(zip(free, missing, strict=False))
    if time is None:
        named = [each.name for each in profiles if each.name not in roles and each.time]
        roles |= dict.fromkeys(sorted(named, key=lambda name: role_of(name) != "time")[:1], "time")
    described = "; ".join(
        f"{each.name}: {each.looks_like} ({each.example[:40]})" for each in profiles[:_DESCRIBED]
    )
    more = f"; and {len(profiles) - _DESCRIBED} more" if len(profiles) > _DESCRIBED else ""
    found = {role: pair_name(name, list(sample)) for name, role in roles.items()}
    found |= {role: "NAME" for role in missing if role not in found}
    item = next((name for name, role in roles.items() if role == "item"), None)
    lists = item is not None and "item" in missing and looks_like_lists(item, sample[item])
    pairs = ",".join(
        f"{found[role]}:{'items' if role == 'item' and lists else role}"
        for role in ("user", "item", "time")
        if role in found
    )
    return (
        f"{file}: no column is named like the {' or the '.join(missing)}. Its columns are {described}{more}. Name "
        f"them, for example columns={pairs!r}."
    )


def role_of(name: str) -> str | None:
    """Return the role that a name says; of user.id as a whole, of properties.product_id its last part."""
    return _ROLES.get(_normalised(name)) or _ROLES.get(_normalised(name.rpartition(".")[2]))


def _normalised(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).lower()
