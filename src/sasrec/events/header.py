"""Tell the separator of text files, and whether their first line has the names of the columns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.events.profile import profile
from sasrec.events.roles import NO_TIME, is_known, role_of
from sasrec.events.sequences import list_form

_FIRST = ("\t", "::")  # signs that text hardly has
_OTHERS = (",", ";", "|")
_LOOKED_AT = 1000  # lines
_CONSISTENT = 0.9


def separator_of(lines: pl.Series, usual: str | None) -> str:
    """Return the separator: a sign of the first line that as many lines as possible have equally often.

    `usual`: the one of the ending of the file, which decides where nothing else does; None for no usual one.
    """
    lines = lines.head(_LOOKED_AT).str.replace_all(r'"[^"]*"', "x")  # what is between quotes does not count
    first = lines[0]
    for separator in _FIRST:
        if separator in first:
            return separator
    others = [sign for sign in _OTHERS if sign in first]
    if usual in others:
        others.sort(key=lambda sign: sign != usual)
    counts = {sign: lines.str.count_matches(sign, literal=True) for sign in others}
    equal = {sign: float((found == first.count(sign)).mean() or 0) for sign, found in counts.items()}
    consistent = [sign for sign in others if equal[sign] >= _CONSISTENT]
    if not consistent:
        return next(iter(others), " ")
    return max(consistent, key=first.count)  # the first of these, if several are equal


def header_of(names: Sequence[str], columns: Sequence[pl.Series], config: DataConfig) -> str:
    """Return how the first line shows that it contains names: "names", or "words" if less clearly; "" if not.

    `columns`: the values of each column below the first line. Names that are given, those of a user and an item,
    and numbered names such as V1, V2 decide. A date, a missing value, a number above numbers, a text that occurs
    again, or looks like those below it, as k1 above k2, is a value. Else a known name is one, and perhaps a word
    above numbers, times, or texts that all have digits.
    """
    requested = {config.user_column, config.item_column, config.time_column} - {NO_TIME}
    requested |= {pair.rpartition(":")[0] for pair in config.columns.split(",")}
    # A number is never the name of a column here: it is the place of a column in a file without a header.
    if any(name and name in names and not name.isdecimal() for name in requested):
        return "names"
    known = [name for name in names if is_known(name)]
    if {"user", "item"} <= {role_of(name) for name in known} or _are_numbered(names, columns):
        return "names"
    if any(re.search(r"[a-zA-Z](_?id|_?ID|Id|_at|At)$", name) for name in known):
        return "names"
    pairs = list(zip(names, columns, strict=True))
    missing = {word.strip().lower() for word in config.missing.split(",")}
    if any(_is_value(name, values) or name.lower() in missing for name, values in pairs):
        return ""
    again = [bool((values == name).any()) for name, values in pairs if name]
    if (any(again) and not all(again)) or any(_looks_like(name, values) for name, values in pairs):
        return ""
    if known:
        return "names"
    unlike = any(_is_unlike(name, values) for name, values in pairs)
    return (
        "words"
        if unlike or any(_has_digits(values) and not re.search(r"\d", name) for name, values in pairs if name)
        else ""
    )


def is_unclear(names: Sequence[str], columns: Sequence[pl.Series]) -> bool:
    """Whether a first line that is read as values may as well be names: numbers of columns, or words."""
    if any(profile("", pl.Series([name])).time for name in names):
        return False
    if [name for name in names if name] == [str(place) for place in range(sum(map(bool, names)))]:
        return True
    words = [name for name in names if name and not _is_number(name)]
    again = any(bool((values == name).any()) for name, values in zip(names, columns, strict=True) if name)
    alike = all(_looks_like(name, values) for name, values in zip(names, columns, strict=True) if name in words)
    return bool(words) and not again and not alike


def _are_numbered(names: Sequence[str], columns: Sequence[pl.Series]) -> bool:
    """Whether names are V1, V2 … of R, column_1 … of Polars, or 0, 1 … of pandas above texts."""
    found = [
        re.fullmatch(r"(V|X|_c|column_|Column|col|col_|field_|Unnamed: )?(\d+)", name) for name in names if name
    ]
    if len(found) < 2 or not all(found):
        return False
    kinds = {match[1] for match in found if match}
    numbers = [int(match[2]) for match in found if match]
    counted = len(kinds) == 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] < 2
    above = [values for name, values in zip(names, columns, strict=True) if name]
    return counted and (kinds != {None} or not any(profile("", values).share_number > 0.5 for values in above))


def _is_value(name: str, values: pl.Series) -> bool:
    """Whether a text is a date, or a number above numbers."""
    if _is_number(name):
        below = profile("", values)
        return below.share_number > 0.5 or not below.rows
    return bool(profile("", pl.Series([name])).time)


def _looks_like(name: str, values: pl.Series) -> bool:
    """Whether a text with digits has the form of most values: k1 and k20 are letters and a number."""
    form = _form(name)
    if "9" not in form or form == "9" or not len(values):
        return False
    forms = values.head(_LOOKED_AT).str.replace_all(r"\d+", "9").str.replace_all(r"\p{L}+", "a")
    return 2 * int((forms == form).sum()) > len(forms)


def _form(text: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", text))


def _is_unlike(name: str, values: pl.Series) -> bool:
    """Whether a text, itself not a number, stands above numbers, lists or times, as a name does."""
    rest = profile("", values)
    return rest.rows > 0 and (bool(rest.time) or rest.share_number > 0.95 or list_form(values) is not None)


def _has_digits(values: pl.Series) -> bool:
    filled = values.filter(values != "")
    return len(filled) > 0 and bool(filled.str.contains(r"\d").all())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
