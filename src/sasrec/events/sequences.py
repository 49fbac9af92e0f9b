"""Lists of items: one row a user, or a basket, becomes one row an event."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from functools import partial

import polars as pl

from sasrec.events.pieces import LINE, REJECTS

_BRACKETS = r"(?s)^\s*[\[({].*[\])}]\s*$"
_NO_ELEMENT = re.compile(r"""[\[\]{}()'"\\:;|]|^\.*$|^\d+(\s+\d+)+$""")
_ROUNDED = re.compile(r"^[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?$")  # a number that is not an integer
_QUOTED_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_QUOTED = rf"[uU]?{_QUOTED_TEXT}"
_SEPARATORS = {",": r"\s*,\s*", "|": r"\s*\|\s*", ";": r"\s*;\s*", " ": r"\s+"}
BRACKETED = "[]"
SEVERAL = re.compile(r"(?i)(s|list|seq|sequence|history)$")
"""Names that say that a column holds several items."""
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
        whole = text.str.contains(f"^{element}({pattern}{element})*({pattern})?$").mean()
        longest = text.str.count_matches(f"{pattern}{element}").max()
        if whole > 0.95 and longest >= (1 if named else 2):  # type: ignore[operator]
            return separator
    return None


def looks_like_lists(name: str, values: pl.Series) -> bool:
    """Return whether a column that nothing names as the item may hold lists: its name, or shared elements, say "
    "so."""
    form = list_form(values, named=True)
    return form is not None and (bool(SEVERAL.search(name)) or form == BRACKETED or shares_elements(values, form))


def shares_elements(values: pl.Series, form: str) -> bool:
    """Return whether most elements of lists of several elements occur in other rows, too, as items do."""
    text = values.drop_nulls().str.strip_chars().str.strip_chars(f"{form} ").unique()
    rows = pl.DataFrame({"row": pl.int_range(len(text), eager=True)}).with_columns(
        element=text.str.replace_all(_SEPARATORS[form], "\x1f").str.split("\x1f")
    )
    several = rows.filter(pl.col("element").list.len() > 1).explode("element")["element"].unique()
    counts = rows.explode("element").unique().group_by("element").len()
    again = counts.filter((pl.col("len") > 1) & pl.col("element").is_in(several.implode())).height
    return len(several) > 0 and 2 * again > len(several)


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


def elements(text: str, *, fractions: bool = False) -> list[str] | None:
    """Return the elements of a list in brackets, as JSON, Python or NumPy write it; None if it cannot be read.

    Elements must be text or integers; an element in a list in a list, or of several parts, cannot be an id.
    `fractions`: an element may be a number with a fraction, as a time may.
    """
    try:
        # PostgreSQL writes arrays between braces; only an empty one is JSON, too.
        found = json.loads(text, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        found = _written(text.strip()[1:-1])
    found = [] if found == {} else found
    if not isinstance(found, list) or any(isinstance(each, bool) for each in found):
        return None
    read = [str(each) if isinstance(each, int) else each for each in found]
    read = [re.sub(r"^(-?\d+)\.0*$", r"\1", each) if isinstance(each, str) else each for each in read]
    if not all(isinstance(each, str) and (fractions or not _ROUNDED.match(each)) for each in read):
        return None
    return read


def _written(body: str) -> list[str] | None:
    """Return the elements between the brackets of a list as Python or NumPy write it, with commas or blanks."""
    if re.search(r"""['"]""", body):
        quoted = re.fullmatch(rf"\s*{_QUOTED}(?:(\s*,\s*|\s+){_QUOTED})*\s*,?\s*", body)
        if quoted is None:
            return None
        try:
            return [str(ast.literal_eval(each)) for each in re.findall(_QUOTED_TEXT, body)]
        except (ValueError, SyntaxError):
            return None
    parts = body.strip().removesuffix(",").split(",") if "," in body else body.split()
    found = [part.strip() for part in parts]
    if found == [""]:
        return []
    if any(_NO_ELEMENT.search(part) for part in found):
        return None
    return found


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
        read = partial(elements, fractions=name == "time")
        return text.map_elements(read, return_dtype=pl.List(pl.String)).alias(name)
    text = text.str.strip_chars(f"{form} ")
    return text.str.replace_all(_SEPARATORS[form], "\x1f").str.split("\x1f").alias(name)
