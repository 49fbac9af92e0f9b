"""Parse the text of the setting `split`. Parsing needs no data, so malformed text fails before data is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sasrec.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = (
    "Use leave-one-out, last-N (such as last-2), temporal:T for test from T, or temporal:T1,T2 for validation "
    "from T1 and test from T2. Write T, T1 and T2 as ISO date (2015-01-31, 2015-01-31T12:00Z) or as the fraction "
    "of events before (0.9)."
)


@dataclass(frozen=True)
class SplitRule:
    """A parsed setting `split`. Exactly one of the fields `last` and `boundaries` is set."""

    last: int = 0
    """The number of test targets per user, taken from the last events; validation takes as many before them."""
    boundaries: tuple[int | float, ...] = ()
    """The moment at which test begins, or the moments at which validation and test begin. An int is in
    microseconds since 1970 UTC; a float is the fraction of events before the moment."""


def split_rule(split: str) -> SplitRule:
    """Parse the setting `split`.

    Raises: ConfigError if the text is malformed. Remedy: use a form that the message lists.
    """
    if split == "leave-one-out":
        return SplitRule(last=1)
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
    """Parse a boundary: a fraction (float), or an ISO date as microseconds since 1970 UTC (int)."""
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
