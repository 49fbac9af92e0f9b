"""Profile a column from a sample of its values: what the values can be, and how they repeat."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from sasrec.events.formats import plausible
from sasrec.events.times import ISO, calendar_form

_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_NUMBER = r"(?-u)^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_INTEGER = r"(?-u)^[+-]?\d+$"
_MONTH = "(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)"
_DATE = (
    r"(?i)^(?:[a-z]{2,9}[,.]? )?(?:\d{1,4}[/.\-年]\s?\d{1,2}[/.\-月]\s?\d{1,4}|\d{1,2}[.,]?[ -/]"
    + _MONTH
    + r"[a-zä]*[., -/]*\d{2,4}|"
    + _MONTH
    + r"[a-zä]*\.? \d{1,2}(?:,| \d\d:).*\d{4}$|\d{1,2} \d{1,2}, \d{4}$|\d{8}T\d{4,6})"
)
_CLOCK = r"(?i)^T?\d{1,2}[:h]\d\d(?::\d\d(?:[.,]\d+)?)?\s?(?:[ap]\.?m\.?|Z|[+-]\d\d:?\d\d)?$"
_STAND_INS = ["0", "-1", "9999999999", "9999999999999", "0001-01-01", "1970-01-01", "9999-12-31", "0000-00-00"]
DATES, OTHER_DATES, EXCEL = "dates", "dates in another format", "excel"
_ENOUGH = 100
_MOST_GRADES = 12
"""At most this many distinct numbers in a small range can be ratings, counts or flags, so cannot prove an id."""


@dataclass(frozen=True)
class Profile:
    """What a sample of a column looks like. Shares are fractions of the values that are not empty."""

    name: str
    rows: int
    distinct: int
    share_integer: float
    share_number: float
    time: str
    """How nearly all values can be read as times: "dates", "dates in another format", a form of calendar numbers
    such as "yyyymmdd", or "s since 1970" (also ms, us, ns); "" if they cannot. Values such as 0, which stand for
    a missing time, do not count."""
    few: bool
    """Whether the values are few distinct numbers or short words, such as ratings, flags or categories."""
    example: str

    @property
    def may_be_id(self) -> bool:
        """Whether the values can be ids: text or integers, no times and not a few grades."""
        fractions = self.share_number - self.share_integer
        return not self.time and not self.few and fractions < 0.05

    @property
    def looks_like(self) -> str:
        """A few words for a person."""
        if self.time:
            return self.time
        if self.few:
            return f"{self.distinct} distinct values, such as ratings or categories"
        if self.share_number - self.share_integer >= 0.05:
            return "numbers with fractions"
        return f"{'integers' if self.share_integer > 0.95 else 'text'}, {self.distinct:,} distinct"


def profile(name: str, values: pl.Series) -> Profile:
    """Profile the text values of a column; empty values are ignored."""
    text = values.cast(pl.String).str.strip_chars()
    text = text.filter((text != "").fill_null(False))
    rows = len(text)
    integer, number = _share(text, _INTEGER), _share(text, _NUMBER)
    distinct = text.n_unique()
    return Profile(
        name=name,
        rows=rows,
        distinct=distinct,
        share_integer=integer,
        share_number=number,
        time=time_kind(text, 0.95),
        few=_is_few(text, distinct, number),
        example=str(text[0]) if rows else "",
    )


def _share(text: pl.Series, pattern: str) -> float:
    return int(text.str.contains(pattern).sum()) / max(1, len(text))


def time_kind(values: pl.Series, least: float) -> str:
    """Return how more than the share `least` of the values can be read as times, as in Profile; or ""."""
    text = values.cast(pl.String).str.strip_chars()
    text = text.filter((text != "").fill_null(False) & ~text.is_in(_STAND_INS))
    if not len(text):
        return ""
    if _share(text, ISO) > least:
        return DATES
    if _share(text, _DATE) > least:
        return OTHER_DATES
    if _share(text, _NUMBER) <= least:
        return ""
    size = text.cast(pl.Float64, strict=False).drop_nulls()
    low, high = plausible()
    fitting = {unit: int((size * factor).is_between(low, high).sum()) for unit, factor in _UNITS.items()}
    for unit, count in fitting.items():
        if count > least * len(text):
            return f"{unit} since 1970"
    if sum(fitting.values()) > least * len(text):
        return "times since 1970 in several units"
    form = calendar_form(text, least)
    if form == EXCEL and _share(text, _INTEGER) < 0.5:
        return "Excel's days since 1900"
    return "" if form == EXCEL else form


def words(name: str) -> list[str]:
    """Return the words of a name such as invoice_date, TRANSACTION_DT or clickTime, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)]


def is_clock(values: pl.Series) -> bool:
    """Return whether most values are times of day without a date, such as 20:45."""
    text = values.drop_nulls().str.strip_chars()
    text = text.filter(text != "")
    return len(text) > 0 and _share(text, _CLOCK) > 0.5


def _is_few(text: pl.Series, distinct: int, number: float) -> bool:
    """Whether the values can only be grades or categories.

    Ids of a few users have digits or lie together, and in few rows nothing shows that a value is not an id.
    """
    runs = int((text != text.shift(1)).sum())
    if len(text) < _ENOUGH or distinct > _MOST_GRADES or 20 * distinct > len(text) or runs < 2 * distinct > 2:
        return False
    if number > 0.95:
        size = text.cast(pl.Float64, strict=False).drop_nulls().abs()
        return bool(size.max() <= 100)  # type: ignore[operator]
    return bool(text.str.len_chars().max() <= 20) and _share(text, r"\d") == 0  # type: ignore[operator]
