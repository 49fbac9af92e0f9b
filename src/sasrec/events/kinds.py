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
_NAME = re.compile(r"(?i)^(event|action|behaviou?r|interaction)[_ ]?(type|kind|name|id|code)?$")
_FLAG = re.compile(r"(?i)^(label|(is|has)?[_ ]?(click(ed)?|buy|bought|purchased?|liked?|view(ed)?|order(ed)?))$")
_QUANTITY = re.compile(r"(?i)^(quantity|qty|amount|count|units|menge)$")


_OF_SQL = frozenset(
    {"order", "select", "user", "group", "where", "from", "case", "when", "end", "and", "or", "not"}
)


def _literal(kind: str) -> str:
    """Write a kind as SQL does."""
    escaped = kind.replace("'", "''")
    return kind if re.fullmatch(r"-?\d+|true|false", kind) else f"'{escaped}'"


def _column(name: str) -> str:
    """Write a column as SQL does: between double quotes, if it is not a plain word, or may be a word of SQL."""
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and name.lower() not in _OF_SQL
    return name if plain else f'"{name}"'


def mixed_kinds(sample: Mapping[str, pl.Series], columns: Columns) -> list[str]:
    """Return a note if a column names kinds of events that are read alike. `sample`: text of some rows."""
    for name, values in sample.items():
        if _QUANTITY.search(name) and (values.cast(pl.Float64, strict=False) < 0).any():
            return [
                f"{name} has negative numbers, as returned items have, and all rows are read alike. To leave "
                "these "
                f"out, set where={_column(name) + ' > 0'!r}"
            ]
        counts = values.drop_nulls().value_counts(sort=True)
        if name in (columns.user, columns.item, columns.time) or not 1 < counts.height <= _MOST_KINDS:
            continue
        kinds = [str(kind) for kind in counts.to_series(0)]
        known = sum(kind.lower() in _KINDS for kind in kinds)
        if 2 * known >= len(kinds) or _NAME.search(name) or (_FLAG.search(name) and counts.height == 2):
            listed = ", ".join(f"{kind} ({count})" for kind, count in counts.head(4).iter_rows())
            condition = f"{_column(name)} = {_literal(kinds[0])}"
            return [
                f"{name} has several kinds of events, and all are read alike: {listed} in the first rows. To keep "
                f"one kind, set where={condition!r}"
            ]
    return []
