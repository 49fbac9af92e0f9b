"""Lists of items: one row a user, or a basket, becomes one row an event."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from sasrec.events.pieces import LINE, REJECTS

_BRACKETS = r"^\s*[\[(].*[\])]\s*$"
_NO_ELEMENT = re.compile(r"""[\[\]{}()'"\\:]|^\.*$""")
_SEPARATORS = {",": r",\s*", "|": r"\|", ";": r";\s*", " ": r"\s+"}
BRACKETED = "[]"
_MANY = 7  # fields of equal lines that are rather items than columns


def list_form(values: pl.Series, *, named: bool = False) -> str | None:
    """Return how a column of text writes lists: BRACKETED, or the separator; None if it holds no lists.

    A list has brackets, or consists of integers, and some have three or more. `named`: the caller says that the
    values are lists, so their elements may be text.
    """
    text = values.str.strip_chars()
    text = text.filter((text != "").fill_null(False))
    if not len(text):
        return None
    if text.str.contains(_BRACKETS).mean() > 0.95:  # type: ignore[operator]
        return BRACKETED
    element = r"[^,|;\s]+" if named else r"-?\d+"
    for separator, pattern in _SEPARATORS.items():
        whole = text.str.contains(f"^{element}({pattern}{element})*$").mean()
        longest = text.str.count_matches(pattern).max()
        if whole > 0.95 and longest >= (1 if named else 2):  # type: ignore[operator]
            return separator
    return None


def split_lists(rows: pl.DataFrame, item_form: str, time_form: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split the texts of `item`, and of `time` if `time_form` is given, and return rows of events, and rejects.

    `rows`: as ROWS in pieces.py.
    """
    lists = [_elements("item", item_form)] + ([] if time_form is None else [_elements("time", time_form)])
    split = rows.with_columns(lists)
    unreadable = split["item"].is_null() & (rows["item"].str.strip_chars() != "").fill_null(False)
    bad = rows.filter(unreadable).select(
        "line", pl.lit("item").alias("column"), pl.lit("the list cannot be read").alias("reason"), raw="item"
    )
    events, rejects = exploded(split.filter(~unreadable).rename({"line": LINE}), "item", "time")
    return events.rename({LINE: "line"}), pl.concat([bad, rejects])


def elements(text: str) -> list[str] | None:
    """Return the elements of a list in brackets, as JSON, Python or NumPy write it; None if it cannot be read.

    Elements must be text or integers; an element in a list in a list, or of several parts, cannot be an id.
    """
    found: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if found is None:
        body = text.strip()[1:-1]
        found = [part.strip() for part in body.split(",")] if "," in body else body.split()
        if any(_NO_ELEMENT.search(part) for part in found):
            return None
        found = [part.removesuffix(".") for part in found]
    if not isinstance(found, list | tuple):
        return None
    whole = [int(each) if isinstance(each, float) and each.is_integer() else each for each in found]
    if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in whole):
        return None
    return [str(each) for each in whole]


def exploded(frame: pl.DataFrame, item: str, time: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return one row for each element of the lists in the column `item`, and rejects for rows that do not fit.

    If `time` has lists too, they must be as long; otherwise all elements of a row share its time. A row with an
    empty list gives no event. Returns the frame as it is if `item` holds no lists.
    """
    none = pl.DataFrame(schema=REJECTS)
    if not isinstance(frame.schema[item], pl.List | pl.Array):
        return frame, none
    kind = frame.schema[item]
    assert isinstance(kind, pl.List | pl.Array)
    frame = frame.with_columns(pl.col(item).cast(pl.List(kind.inner)))
    both = time is not None and isinstance(frame.schema[time], pl.List | pl.Array)
    if not both:
        return frame.filter(pl.col(item).list.len().fill_null(1) > 0).explode(item), none
    lengths = [pl.col(name).list.len() for name in (item, str(time))]
    fits = frame.select((lengths[0] == lengths[1]).fill_null(False)).to_series()
    reason = pl.format("{} items but {} times", *(each.fill_null(0) for each in lengths))
    rejects = frame.filter(~fits).select(
        pl.col(LINE).alias("line"), pl.lit("").alias("column"), reason.alias("reason"), raw=pl.lit("")
    )
    frame = frame.filter(fits & (frame[item].list.len() > 0))
    return frame.explode([item, str(time)]), rejects


def is_one_line_a_user(rows: Sequence[Sequence[str]]) -> bool:
    """Whether lines without a header are a user followed by the items: `1 13 14 2`, of equal or various lengths.

    The first fields must be distinct, and the others integers that occur in several places, as items do.
    """
    if len(rows) < 2 or len({row[0] for row in rows}) < len(rows) or min(map(len, rows)) < 2:
        return False
    various = len({len(row) for row in rows}) > 1
    if not various and (len(rows[0]) < _MANY or sum(len(set(row)) < len(row) for row in rows) > len(rows) / 10):
        return False  # user, item, rating, time; or a matrix of ratings, which repeat in a row
    places: dict[str, set[int]] = {}
    for row in rows:
        for place, text in enumerate(row[1:]):
            if not text.isdecimal() or len(text) > 8:  # a longer number can be a time
                return False
            places.setdefault(text, set()).add(place)
    return 2 * sum(len(found) > 1 for found in places.values()) > len(places)


def _elements(name: str, form: str) -> pl.Expr:
    text = pl.col(name).str.strip_chars()
    if form == BRACKETED:
        return text.map_elements(elements, return_dtype=pl.List(pl.String)).alias(name)
    return text.str.replace_all(_SEPARATORS[form], "\x1f").str.split("\x1f").alias(name)
