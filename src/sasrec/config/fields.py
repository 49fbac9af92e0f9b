"""Metadata of settings: bounds, when a setting has an effect, and whether it influences the trained weights.

Each of these rules is stated once, beside the default of its setting, and one check enforces them all. The check
reads the defaults from the fields instead of repeating them, so it stays correct when a default changes. Rules
between several settings are in config/rules.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

Bound = Ge | Gt | Le | Lt


@dataclass(frozen=True)
class OnlyWith:
    """Marks a setting that has an effect only if another setting has one of these values."""

    setting: str
    values: tuple[Any, ...] = (True,)


@dataclass(frozen=True)
class KeepsWeights:
    """Marks a setting that changes what is shown or saved, but never the weights of the model."""


@dataclass(frozen=True)
class MayChangeOnResume:
    """Marks a setting that may get another value when a run is resumed."""


Rule = Bound | OnlyWith | KeepsWeights | MayChangeOnResume


def setting(default: Any, *rules: Rule) -> Any:
    """Return a dataclass field for a setting with this default; the field's metadata contains the rules."""
    return dataclasses.field(default=default, metadata={"rules": rules})


def settings_with(parts: list[Any], kind: type) -> frozenset[str]:
    """Return the names of the settings in `parts` (dataclasses of settings) that have a rule of class `kind`."""
    return frozenset(field.name for part in parts for field in dataclasses.fields(part) if _rules(field, kind))


def default_of(part: Any, name: str) -> Any:
    """Return the default of the setting `name` in `part`, a dataclass of settings."""
    return next(field.default for field in dataclasses.fields(part) if field.name == name)


def violations(parts: list[Any]) -> Iterator[str]:
    """Yield a message with the remedy for each setting that is out of bounds or would do nothing."""
    values = {field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)}
    for field in (field for part in parts for field in dataclasses.fields(part)):
        value = values[field.name]
        bounds = _rules(field, (Ge, Gt, Le, Lt))
        if not all(_holds(value, bound) for bound in bounds):  # NaN holds no bound
            yield f"`{field.name}` must be {_in_words(bounds)}, not {value}"
        if value == field.default:
            continue
        for rule in _rules(field, OnlyWith):
            if values[rule.setting] not in rule.values:
                yield _does_nothing(field.name, rule, values[rule.setting])
                break


def _rules(field: dataclasses.Field[Any], kind: Any) -> list[Any]:
    return [rule for rule in field.metadata.get("rules", ()) if isinstance(rule, kind)]


def _holds(value: Any, bound: Any) -> bool:
    match bound:
        case Ge(ge):
            return bool(value >= ge)
        case Gt(gt):
            return bool(value > gt)
        case Le(le):
            return bool(value <= le)
        case Lt(lt):
            return bool(value < lt)
    return True


def _in_words(bounds: list[Any]) -> str:
    """Return bounds as text, such as "at least 1 and at most 1,000"."""
    words = []
    for bound in bounds:
        match bound:
            case Ge(ge):
                words.append(f"at least {ge:,}")
            case Gt(gt):
                words.append(f"above {gt:,}")
            case Le(le):
                words.append(f"at most {le:,}")
            case Lt(lt):
                words.append(f"below {lt:,}")
    return " and ".join(words)


def _does_nothing(name: str, rule: OnlyWith, value: Any) -> str:
    *others, last = (f"{rule.setting}={value}" for value in rule.values)
    choices = f"{', '.join(others)} or {last}" if others else last
    if rule.values == (True,):
        return f"`{name}` does nothing without `{rule.setting}`; use {choices}"
    return f"`{name}` does nothing with {rule.setting}={value}; use {choices}"
