"""Tell the separator of text files, and whether their first line has the names of the columns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.events.profile import profile
from sasrec.events.roles import is_known, role_of
from sasrec.events.sequences import list_form

_FIRST = ("\t", "::")  # signs that text hardly has
_OTHERS = (",", ";", "|")
_LOOKED_AT = 1000  # lines
_CONSISTENT = 0.9


def separator_of(lines: pl.Series, usual: str | None) -> str:
    """Return the separator: a sign of the first line that as many lines as possible have equally often.

    `usual`: the one of the ending of the file, which decides where nothing else does; None for no usual one.
    """
    first = lines[0]
    for separator in _FIRST:
        if separator in first:
            return separator
    others = [sign for sign in _OTHERS if sign in first]
    if usual in others:
        others.sort(key=lambda sign: sign != usual)
    plain = lines.head(_LOOKED_AT).filter(~lines.head(_LOOKED_AT).str.contains('"', literal=True))
    counts = {sign: plain.str.count_matches(sign, literal=True) for sign in others}
    equal = {sign: float((found == first.count(sign)).mean() or 0) for sign, found in counts.items()}
    consistent = [sign for sign in others if equal[sign] >= _CONSISTENT]
    if '"' in first or not consistent:
        return next(iter(others), " ")
    return max(consistent, key=first.count)  # the first of these, if several are equal


def is_header(names: Sequence[str], columns: Sequence[pl.Series], config: DataConfig) -> bool:
    """Whether the first line contains names. `columns`: the values of each column below the first line.

    Names that are given, or those of a user and an item, decide. A number or a date is a value, and so is a text
    that occurs again, or looks like those below it, as k1 above k2. Else a known name is a name, and a word above
    numbers, times, or texts that all have digits.
    """
    requested = {config.user_column, config.item_column, config.time_column}
    requested |= {pair.rpartition(":")[0] for pair in config.columns.split(",")}
    # A number is never the name of a column here: it is the place of a column in a file without a header.
    if any(name and name in names and not name.isdecimal() for name in requested):
        return True
    if {"user", "item"} <= {role_of(name) for name in names}:
        return True
    if any(_is_number(name) or profile("", pl.Series([name])).time for name in names):
        return False
    pairs = list(zip(names, columns, strict=True))
    again = [bool((values == name).any()) for name, values in pairs if name]
    if (any(again) and not all(again)) or any(_looks_like(name, values) for name, values in pairs):
        return False
    if any(map(is_known, names)) or any(_is_unlike(name, values) for name, values in pairs):
        return True
    return any(_has_digits(values) and not re.search(r"\d", name) for name, values in pairs if name)


def is_unclear(names: Sequence[str], columns: Sequence[pl.Series]) -> bool:
    """Whether a first line that is read as values may as well be names: words above other words."""
    words = [name for name in names if name and not _is_number(name) and not re.search(r"\d", name)]
    again = any(bool((values == name).any()) for name, values in zip(names, columns, strict=True))
    return len(words) == len(names) and not again


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
