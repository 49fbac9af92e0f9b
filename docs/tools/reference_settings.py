"""The tables of docs/reference/settings.md, from the fields of RunConfig and their rules."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from reference_text import code, field_texts, linked, table, wrapped

from sasrec.config.fields import KeepsWeights, MayChangeOnResume, OnlyWith, settings_with
from sasrec.config.rules import relations
from sasrec.config.settings import PARTS, RunConfig
from sasrec.errors import ConfigError

_MOST = 1_000_000_000  # the page says once that this is the most of a number without another limit
# Settings that break a rule between two settings, one for each rule.
_BREAKING: list[dict[str, Any]] = [
    {"columns": "user,item,time", "user_column": "customer"},
    {"time_format": "%d.%m.%Y", "time_unit": "s"},
    {"num_heads": 3},
    {"accumulate": 256},
    {"l2_emb_tables": "all"},
    {"mhc": True, "mhc_projection": "birkhoff", "mhc_expansion_rate": 5},
    {"gated": True, "mhc": True},
    {"gated": True, "norm": "post"},
    {"mhc": True, "norm": "post"},
    {"loss": "softmax", "share_negatives": True},
]


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    found = {f"settings {name}": _table_of(part) for name, part in zip(names, PARTS, strict=True)}
    marked = {"resume": MayChangeOnResume, "weights": KeepsWeights}
    for name, kind in marked.items():
        found[f"settings {name}"] = wrapped(", ".join(map(code, sorted(settings_with(PARTS, kind)))) + ".")
    return found | {"settings rules": _rules_between()}


def _table_of(part: type) -> str:
    texts, kinds = field_texts(part), get_type_hints(part)
    rows = [
        [
            code(field.name),
            _default(field.default),
            _values(kinds[field.name], field),
            _only_with(field),
            linked(texts[field.name]),
        ]
        for field in dataclasses.fields(part)
    ]
    head = ["setting", "default", "values", "only with", "meaning"]
    if not any(row[3] for row in rows):  # a section without such rules
        head, rows = [*head[:3], head[4]], [[*row[:3], row[4]] for row in rows]
    return table(head, rows)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return code(str(value).lower() if isinstance(value, bool) else value if value != "" else '""')


def _values(kind: Any, field: dataclasses.Field[Any]) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(code, get_args(kind)))
    if kind is bool:
        return "`true`, `false`"
    if kind not in (int, float):
        return "text"
    low, high = [each for each in field.metadata.get("rules", ()) if isinstance(each, Ge | Gt | Le | Lt)]
    least = f"from {low.ge:,}" if isinstance(low, Ge) else f"above {low.gt:,}"
    match high:
        case Le(limit):
            most = "" if limit == _MOST else f" to {limit:,}"
        case Lt(limit):
            most = f", below {'2^63' if limit == 2**63 else limit}"
    return f"{'whole number' if kind is int else 'number'} {least}{most}"


def _only_with(field: dataclasses.Field[Any]) -> str:
    """Return the values of other settings without which a setting has no effect, as options of Python."""
    rules = [each for each in field.metadata.get("rules", ()) if isinstance(each, OnlyWith)]
    found = []
    for rule in rules:
        values = ["true" if value is True else str(value) for value in rule.values]
        found.append(f"{code(rule.setting)}: {', '.join(map(code, values))}")
    return "; ".join(found)


def _rules_between() -> str:
    """Return a table of the rules between two settings, each with settings that break it, and the message."""
    assert len(_BREAKING) == len(relations(RunConfig())), "name settings that break the new rule in _BREAKING"
    rows = []
    for settings in _BREAKING:
        try:
            RunConfig().replace(**settings)
        except ConfigError as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            rows.append([code(shown), str(error)])
    assert len(rows) == len(_BREAKING), "settings of _BREAKING break no rule"
    return table(["settings", "message"], rows)
