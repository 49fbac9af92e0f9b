"""Parse the text of the setting `split`. Parsing needs no data, so malformed text fails before data is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from sasrec.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = (
    "Use leave-one-out, last-N (such as last-2), temporal:T for test from T, temporal:T1,T2 for validation from "
    "T1 and test from T2, or all to hold out nothing. Write T, T1 and T2 as ISO date (2015-01-31, "
    "2015-01-31T12:00Z), as a number since 1970 (1422662400), or as the fraction of events before (0.9)."
)
FILES = "files"
"""The value of `split` for data with own validation and test files."""
ALL = "all"
"""The value of `split` that trains on every event and holds out nothing."""
_NUMBER = r"[1-9][0-9]{1,18}(\.[0-9]+)?"
# Microseconds in a unit, and the largest number that is read as this unit. `time_unit='auto'` has the same limits.
_UNITS = ((10**6, 10**11), (10**3, 10**14), (1, 10**17))
_CALENDAR = {4: "%Y", 8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True)
class SplitRule:
    """A parsed setting `split`. Exactly one of the fields is set."""

    last: int = 0
    """The number of test targets per user, taken from the last events; validation takes as many before them."""
    boundaries: tuple[int | float, ...] = ()
    """The moment at which test begins, or the moments at which validation and test begin. An int is in
    microseconds since 1970 UTC; a float is the fraction of events before the moment."""
    files: bool = False
    """Whether the files that the events came from decide, as the data set has stored them."""
    all: bool = False
    """Whether every event is a training event."""


def split_rule(split: str) -> SplitRule:
    """Parse the setting `split`.

    Raises: ConfigError if the text is malformed. Remedy: use a form that the message lists.
    """
    if split == "leave-one-out":
        return SplitRule(last=1)
    if split == FILES:
        return SplitRule(files=True)
    if split == ALL:
        return SplitRule(all=True)
    if last := re.fullmatch(r"last-([1-9][0-9]{0,8})", split):
        return SplitRule(last=int(last[1]))
    kind, _, moments = split.partition(":")
    if kind != "temporal":
        raise ConfigError(f"unknown split {split!r}. {_FORMS}")
    boundaries = tuple(_moment(text.strip()) for text in moments.split(","))
    if len(boundaries) > 2:
        raise ConfigError(f"split {split!r} has more than two boundaries. {_FORMS}")
    # A date and a fraction can only be compared with the data, so splits.py checks that case.
    if any(type(a) is type(b) and a >= b for a, b in pairwise(boundaries)):
        raise ConfigError(
            f"split {split!r}: validation (the first) must begin before test (the second). Swap or change them."
        )
    return SplitRule(boundaries=boundaries)


def _moment(text: str) -> int | float:
    """Parse a boundary: a fraction (float), or a date or number as microseconds since 1970 UTC (int)."""
    if re.fullmatch(_NUMBER, text):
        return _number(text)
    try:
        fraction = float(text)
    except ValueError:
        pass
    else:
        if 0 < fraction < 1:
            return fraction
        raise ConfigError(f"split: {text} is not a fraction between 0 and 1. {_FORMS}")
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"split: {text!r} is neither an ISO date nor a fraction. {_FORMS}") from None
    # A date without a time zone counts as UTC.
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def _number(text: str) -> int:
    """Return a number since 1970, in seconds, ms, us or ns by its size, as microseconds.

    Raises: ConfigError if the number could also be a date such as 20240131. Remedy: write an ISO date.
    """
    number = Decimal(text)
    microseconds = int(number * next((unit for unit, limit in _UNITS if number < limit), Decimal("0.001")))
    try:
        date = datetime.strptime(text, _CALENDAR[len(text)])
    except (KeyError, ValueError):
        return microseconds
    if not 1900 <= date.year <= 2100:
        return microseconds
    since = (EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None)
    raise ConfigError(
        f"split: {text} is not a fraction between 0 and 1, and it could be a date or a number since 1970. "
        f"Write {date.isoformat()} for the date, or {since.isoformat()} for the number."
    )
