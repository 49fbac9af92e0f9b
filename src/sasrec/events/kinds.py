"""Recognise columns that name kinds of events, such as views and purchases."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from sasrec.events.roles import Columns

_MOST_KINDS = 12
_KINDS = frozenset(
    {"view", "pageview", "page_view", "detail", "click", "clicks", "pv", "cart", "carts", "add", "add_to_cart"}
    | {"addtocart", "basket", "fav", "favorite", "like", "dislike", "purchase", "order", "orders", "buy"}
    | {
        "transaction",
        "checkout",
        "impression",
        "imp",
        "play",
        "skip",
        "remove_from_cart",
        "search",
        "rate",
        "review",
    }
)
_NAME = re.compile(r"(?i)^(event|action|behaviou?r|interaction)[_ ]?(type|kind|name)?$")


def mixed_kinds(sample: Mapping[str, pl.Series], columns: Columns) -> list[str]:
    """Return a note if a column names kinds of events that are read alike. `sample`: text of some rows."""
    for name, values in sample.items():
        counts = values.drop_nulls().value_counts(sort=True)
        if name in (columns.user, columns.item, columns.time) or not 1 < counts.height <= _MOST_KINDS:
            continue
        kinds = [str(kind) for kind in counts.to_series(0)]
        known = sum(kind.lower() in _KINDS for kind in kinds)
        if 2 * known >= len(kinds) or (_NAME.search(name) and not any(kind.isdecimal() for kind in kinds)):
            listed = ", ".join(f"{kind} ({count})" for kind, count in counts.head(4).iter_rows())
            return [
                f"{name} has several kinds of events, and all are read alike: {listed} in the first rows. To keep "
                f"one kind, set `where`, as in where=\"{name} = '{kinds[0]}'\""
            ]
    return []
