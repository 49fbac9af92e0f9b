"""Find lines of tables that are not events: names of columns, names of types, and rules of signs."""

from __future__ import annotations

import re

import polars as pl

from sasrec.events.ids import IdCodes
from sasrec.events.roles import KNOWN_NAMES, role_of

_RULE = r"^[-=:+|_*.~#]{2,}$"
_NAMES_OF_TYPES = (
    "string str char varchar nvarchar text token tokenseq object category number numeric int integer int32 int64 "
    "uint32 uint64 bigint float float64 double long bool boolean uuid"
)
_TYPES = _NAMES_OF_TYPES.split()


def furniture(rows: pl.DataFrame, codes: dict[str, IdCodes], named: set[tuple[str, str]]) -> pl.Series:
    """Return for each row why it belongs to the table and not to its content, or null.

    Such lines come from files that were joined, and from tables made for people. `rows`: columns user and item,
    places in `codes`. `named`: the names of the columns of users and items in the sources.
    """
    own = {"user": {_bare(user) for user, _ in named}, "item": {_bare(item) for _, item in named}}
    kinds = {role: _kinds(found.ids, own) for role, found in codes.items()}
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
                # An id that also occurs in other rows is an id.
                elsewhere = [
                    rows[role].filter(~hit & rows[role].is_in(place))
                    for role, place in zip(codes, places, strict=True)
                ]
                for role, ids in zip(codes, elsewhere, strict=True):
                    hit &= ~rows[role].is_in(ids.implode())
                shown = pl.select(pl.when(hit).then(pl.lit(reason)).otherwise(shown)).to_series()
    return shown


def _kinds(ids: pl.Series, own: dict[str, set[str]]) -> dict[str, list[int]]:
    """Return the places of ids that are names of a user or item column, types, or rules."""
    text = ids.str.strip_chars(" \t\"'")
    bare = text.str.replace_all(r"[\s_.-]|\(\d*\)", "").str.to_lowercase()
    names = sorted(own["user"] | own["item"])
    suspicious = bare.is_in([*KNOWN_NAMES, *_TYPES, *names]) | text.str.contains(_RULE)
    found: dict[str, list[int]] = {}
    for place in suspicious.arg_true():
        word = bare[place]
        if text[place] and re.fullmatch(_RULE, text[place]):
            kinds = {"rule"}
        else:
            kinds = {role for role, words in own.items() if word in words} or {
                "type" if word in _TYPES else str(role_of(word))
            }
        for kind in kinds:
            found.setdefault(kind, []).append(place)
    return found


def _bare(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).lower()
