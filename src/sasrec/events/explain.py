"""Say what each column of a source looks like, which role it has, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.pieces import ColumnFacts
from sasrec.events.profile import profile
from sasrec.events.roles import Columns, is_known, role_of


class RolesError(DataError):
    """It is not clear which column has the users, the items or the times."""

    def __init__(self, message: str, columns: tuple[ColumnFacts, ...]) -> None:
        super().__init__(message)
        self.columns = columns


def chosen(
    choose: Callable[[], tuple[Columns, list[str]]], sample: Mapping[str, pl.Series], config: DataConfig
) -> tuple[Columns, list[str], tuple[ColumnFacts, ...]]:
    """Return the roles that `choose` finds, its notes, and the facts about each column.

    Raises: RolesError, which has the facts, if `choose` raises DataError. Remedy: as its message says.
    """
    try:
        columns, notes = choose()
    except DataError as error:
        raise RolesError(str(error), _facts(sample, None, config)) from None
    return columns, notes, _facts(sample, columns, config)


def _facts(
    sample: Mapping[str, pl.Series], columns: Columns | None, config: DataConfig
) -> tuple[ColumnFacts, ...]:
    roles: dict[str | None, str] = {}
    if columns is None:  # what is refused as a whole may have some columns that are clear
        found = {name: role_of(name) for name in sample}
        roles = {name: role for name, role in found.items() if role and list(found.values()).count(role) == 1}
    else:
        roles = {columns.user: "user", columns.item: "item", columns.time: "time"}
    named = {"user": config.user_column, "item": config.item_column, "time": config.time_column}
    parts = {pair.rpartition(":")[2].strip().removesuffix("s") for pair in config.columns.split(",")}
    facts = []
    for name, values in sample.items():
        seen, role = profile(name, values), roles.get(name, "")
        why = (
            "named in the settings"
            if named.get(role) or role in parts or (config.columns and ":" not in config.columns)
            else "its name"
            if is_known(name)
            else "its values"
        )
        looks_like = f"{seen.looks_like} ({seen.example})" if seen.rows else "empty, or no single values"
        facts.append(ColumnFacts(name, looks_like.replace("\n", "\\n"), role, why if role else ""))
    return tuple(facts)
