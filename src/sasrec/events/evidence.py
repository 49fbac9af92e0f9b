"""Find evidence in the values for which of two columns of ids is the user and which the item."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sasrec.events.times import moments_of

_USER_WORDS = r"(?-u)(?i)^(u|usr|user|cust|customer|visitor|member|client|session)[-_ ]?\d+$"
_ITEM_WORDS = r"(?-u)(?i)^(i|itm|item|p|prod|product|m|movie|sku|article|track|song|video|book)[-_ ]?\d+$"
_ASIN, _REVIEWER = r"(?-u)^(B0[0-9A-Z]{8}|\d{9}[\dX])$", r"(?-u)^A[0-9A-Z]{8,}$"
_MANY = 500
"""From this many ids on, their counts show whether they are users or items."""
_GAP = 0.05
"""In five public data sets, the Gini coefficient of the popularity of items exceeds that of the activity of users
by 0.07 to 0.30."""


def evidence(user: pl.Series, item: pl.Series, time: pl.Series | None, *, alone: bool) -> list[str]:
    """Return reasons why the first column is the user and the second the item; `time`: text of the times.

    `alone`: the source has no other columns, so that numbers up to 100 cannot be ratings.
    """
    reasons = []
    if item.str.contains(_ASIN).all() and user.str.contains(_REVIEWER).all():
        reasons.append("ids as Amazon's")
    user_words = user.str.contains(_USER_WORDS).all() and not item.str.contains(_USER_WORDS).any()
    item_words = item.str.contains(_ITEM_WORDS).all() and not user.str.contains(_ITEM_WORDS).any()
    other = item if user_words else user
    if (user_words or item_words) and (alone or (user_words and item_words) or not _may_be_ratings(other)):
        reasons.append("the ids begin with letters that are usual for users or items")
    if not _is_grouped(user) or _is_grouped(item) or _gini(item) - _gini(user) <= _GAP:
        return reasons
    if user.n_unique() >= _MANY and _is_numbered(user):
        reasons.append("users are numbered 1, 2, 3, … in order of the rows, and few items are far more popular")
    if time is not None:
        moments = moments_of(time)
        if _in_order(user, moments) and _in_bursts(user, item, moments):
            reasons.append(
                "rows are grouped by user, in order of time, and the events of a user are close in time"
            )
    return reasons


def by_custom(columns: Sequence[pl.Series], separator: str, time: str | None) -> str:
    """Return why the first of the columns is the user and the second the item by the custom of a format, or "".

    The custom counts only if users are numbered 1, 2, 3, … in order of the rows, and nothing speaks against it.
    """
    user, item = columns[:2]
    if not _is_numbered(user) or (_is_grouped(item) and user.n_unique() > 1):
        return ""
    if user.n_unique() == 1 and (separator == "::" or len(columns) == 2):
        return "one item would not make histories, so the first column is the user"
    if separator == "::" and time is not None and _gini(user) < _gini(item):
        moments = moments_of(columns[int(time)])
        return "" if _in_bursts(item, user, moments) else "MovieLens files begin with user::item"
    return ""


def _may_be_ratings(values: pl.Series) -> bool:
    numbers = values.cast(pl.Float64, strict=False)
    return not numbers.null_count() and bool((numbers <= 100).all())


def _is_numbered(ids: pl.Series) -> bool:
    """Whether the ids are 1, 2, 3, … in order of the rows, and the rows of each id are together."""
    starts = ids.filter((ids != ids.shift(1)).fill_null(True))
    numbers = pl.int_range(1, len(starts) + 1, eager=True).cast(pl.String)
    return len(starts) > 0 and bool((starts == numbers).all())


def _is_grouped(ids: pl.Series) -> bool:
    """Whether the rows of each id are together, and some id has several rows."""
    distinct = ids.n_unique()
    return distinct < len(ids) and int((ids != ids.shift(1)).fill_null(True).sum()) == distinct


def _gini(ids: pl.Series) -> float:
    """Return how unequal the numbers of rows of the ids are, from 0 (all equal) to 1 (one has nearly all)."""
    counts = ids.rename("id").value_counts()["count"].sort().cast(pl.Float64)
    places = pl.int_range(1, len(counts) + 1, eager=True)
    return 2 * float((places * counts).sum()) / (len(counts) * float(counts.sum())) - (len(counts) + 1) / len(
        counts
    )


def _in_order(user: pl.Series, time: pl.Series) -> bool:
    """Whether times never fall within a user."""
    gaps = pl.DataFrame({"user": user, "time": time}).select(pl.col("time").diff().over("user"))["time"]
    return not bool((gaps < 0).any())


def _in_bursts(user: pl.Series, item: pl.Series, time: pl.Series) -> bool:
    """Whether a user's events are much closer in time than an item's, and than a thousandth of the whole time.

    A file grouped by item can be in order of time, too, but people act in sessions, and many people meet an item.
    News come in bursts as well, but a few of them are far more popular, so the counts of ids must agree.
    The margins were measured on MovieLens and Amazon ratings, sorted by user and by item.
    """
    rows = pl.DataFrame({"user": user, "item": item, "time": time}).sort("time")
    own, others = (rows.select(pl.col("time").diff().over(key))["time"].drop_nulls() for key in ("user", "item"))
    if not len(own) or not len(others):
        return False
    sizes = [(float(gaps.median() or 0), float(gaps.mean() or 0)) for gaps in (own, others)]  # type: ignore[arg-type]
    (typical, mean), (typical_other, mean_other) = sizes
    known = rows["time"].drop_nulls()
    whole = float(known[-1] - known[0])
    # Where most events of a user have the same time, as with days, nothing is known about sessions.
    close = 0 < typical * 1000 < whole and typical * 3.5 < typical_other
    return close and typical * mean_other * 1.8 < typical_other * mean
