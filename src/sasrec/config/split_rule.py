"""The setting `split` as text -> what it asks for. No data is needed to refuse what is malformed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sasrec.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = (
    "use leave-one-out, last-N (last-2), temporal:WHEN, or temporal:T1,T2 for validation from T1 and test from "
    "T2; WHEN, T1 and T2 are ISO dates (2015-01-31, 2015-01-31T12:00Z) or the fraction of events before (0.9)"
)


@dataclass(frozen=True)
class SplitRule:
    """Either `last` or `boundaries`."""

    last: int = 0
    """Events of a user that are test targets; as many before them are validation targets."""
    boundaries: tuple[int | float, ...] = ()
    """Where test begins, or where validation and test begin: an int is in microseconds since 1970 UTC, a float the
    fraction of events before."""


def split_rule(split: str) -> SplitRule:
    """Read the setting. Raises: ConfigError with the forms that it can have."""
    if split == "leave-one-out":
        return SplitRule(last=1)
    if last := re.fullmatch(r"last-([1-9][0-9]{0,8})", split):
        return SplitRule(last=int(last[1]))
    kind, _, moments = split.partition(":")
    if kind != "temporal":
        raise ConfigError(f"{split!r} is not a split; {_FORMS}")
    boundaries = tuple(_moment(text.strip()) for text in moments.split(","))
    if len(boundaries) > 2:
        raise ConfigError(f"split {split!r} has more than two boundaries: {_FORMS}")
    if any(type(a) is type(b) and a >= b for a, b in pairwise(boundaries)):
        raise ConfigError(f"split {split!r}: validation (the first) must begin before test (the second)")
    return SplitRule(boundaries=boundaries)


def _moment(text: str) -> int | float:
    try:
        fraction = float(text)
    except ValueError:
        pass
    else:
        if 0 < fraction < 1:
            return fraction
        raise ConfigError(f"split: {text} is not a fraction between 0 and 1: {_FORMS}")
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"split: {text!r} is neither an ISO date nor a fraction: {_FORMS}") from None
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
