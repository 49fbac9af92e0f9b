"""Find lines of tables that are not events: names of columns, names of types, and rules of signs."""

from __future__ import annotations

import polars as pl

from sasrec.events.ids import IdCodes
from sasrec.events.roles import KNOWN_NAMES, role_of

_RULE = r"^[-=:+|_]{3,}$"
_TYPES = [
    "string",
    "str",
    "varchar",
    "text",
    "token",
    "object",
    "category",
    "int",
    "integer",
    "bigint",
    "int64",
    "float",
]


def furniture(rows: pl.DataFrame, codes: dict[str, IdCodes]) -> pl.Series:
    """Return for each row why it belongs to the table and not to its content, or null.

    Such lines come from files that were joined, and from tables made for people. `rows`: columns user and item,
    places in `codes`.
    """
    kinds = {role: _kinds(found.ids) for role, found in codes.items()}
    shown = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    for reason, pairs in {
        "the header is repeated": (("user", "item"), ("item", "user")),
        "a line of signs": (("rule", "rule"),),
        "a line of types": (("type", "type"),),
    }.items():
        for kind, other in pairs:
            places = [kinds["user"].get(kind, []), kinds["item"].get(other, [])]
            if all(places):
                hit = rows["user"].is_in(places[0]) & rows["item"].is_in(places[1])
                shown = pl.select(pl.when(hit).then(pl.lit(reason)).otherwise(shown)).to_series()
    return shown


def _kinds(ids: pl.Series) -> dict[str, list[int]]:
    """Return the places of ids that are names of a user or item column, types, or rules."""
    text = ids.str.strip_chars(" \t\"'")
    bare = text.str.replace_all(r"[\s_.-]", "").str.to_lowercase()
    suspicious = bare.is_in(KNOWN_NAMES) | bare.is_in(_TYPES) | text.str.contains(_RULE)
    found: dict[str, list[int]] = {}
    for place in suspicious.arg_true():
        word = bare[place]
        kind = "rule" if not word or not word[0].isalpha() else "type" if word in _TYPES else role_of(word)
        found.setdefault(str(kind), []).append(place)
    return found
