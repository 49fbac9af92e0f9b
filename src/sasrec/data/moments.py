"""The moments at which validation and test begin under a temporal split."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from sasrec.config.split_rule import EPOCH
from sasrec.errors import DataError


def iso(microseconds: int) -> str:
    """Return a moment, in microseconds since 1970 UTC, as ISO 8601 text."""
    return (EPOCH + timedelta(microseconds=int(microseconds))).isoformat()


def boundaries_of(times: npt.NDArray[np.int64], wanted: tuple[int | float, ...], how: str) -> tuple[int, int]:
    """Return the moments at which validation and test begin, in microseconds.

    `wanted`: one or two moments, or fractions of the events. A fraction becomes the moment before which about this
    fraction of the events lies. With one value, validation gets about as many events as test. Events with equal
    times stay together.
    """
    ordered = np.sort(times)
    total = len(ordered)
    moments = [
        moment if isinstance(moment, int) else _with_before(ordered, moment * total, how) for moment in wanted
    ]
    test = moments[-1]
    at_test = int(np.searchsorted(ordered, test))
    valid = moments[0]
    if len(moments) == 1 and 0 < at_test < total:
        if 2 * at_test <= total:
            raise DataError(
                f"split {how}: only {at_test} of {total} events are before {iso(test)}, too few for validation "
                "(which gets as many events as test) and training. Use a later moment, or give both moments "
                "(temporal:T1,T2)."
            )
        # Test has total - at_test events; the same number before it leaves 2 * at_test - total for training.
        valid = _with_before(ordered[:at_test], 2 * at_test - total, how)
    at_valid = int(np.searchsorted(ordered, valid))
    if not 0 < at_valid < at_test < total:
        raise DataError(
            f"split {how} leaves a part without events: training has {at_valid}, validation {at_test - at_valid}, "
            f"test {total - at_test}. Validation begins at {iso(valid)} and test at {iso(test)}; the times run "
            f"from {iso(ordered[0])} to {iso(ordered[-1])}. "
            "Use other moments, or a fraction such as temporal:0.9."
        )
    return valid, test


def _with_before(ordered: npt.NDArray[np.int64], before: float, how: str) -> int:
    """Return the event time whose number of earlier events is nearest to `before`, and at least 1.

    If two times are equally near, return the earlier one. `ordered`: event times in ascending order. `before`: the
    wanted number of earlier events. `how`: the setting `split`, for the error message.

    Raises: DataError if all times are equal. Remedy: as the message says.
    """
    changes = np.flatnonzero(np.diff(ordered)) + 1  # a cut elsewhere would separate events with equal times
    if not len(changes):
        raise DataError(
            f"split {how}: the {len(ordered)} earliest events cannot be divided into an earlier and a later part, "
            "because they all have the same time. "
            "Use a later moment, give both moments (temporal:T1,T2), or use split=leave-one-out."
        )
    return int(ordered[changes[np.argmin(np.abs(changes - before))]])
