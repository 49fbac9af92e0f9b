"""Decide once per source how its columns become rows of events: roles, lists, a condition, constant columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.kinds import mixed_kinds
from sasrec.events.pieces import LINE
from sasrec.events.profile import words
from sasrec.events.roles import Columns
from sasrec.events.sequences import BRACKETED, SEVERAL, elements, list_form, shares_elements, split_lists
from sasrec.events.where import Condition, condition

_FEW = 1000  # lists that are tried
_OF_HISTORIES = frozenset(
    {"hist", "history", "prev", "previous", "past", "seq", "sequence", "prefix", "recent", "context"}
)
_OF_LISTS = _OF_HISTORIES | {"item", "id", "list", "token", "click", "clicked", "product"}


@dataclass(frozen=True, eq=False)
class Plan:
    """How the columns of a source become events."""

    columns: Columns
    condition: Condition
    constants: Mapping[str, str | None]
    """Columns with one value, which the names of the folders give."""
    item_form: str | None
    """How the texts of the item column write lists (`list_form`); None if each is one item."""
    time_form: str | None
    notes: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """The columns to read from the source."""
        roles = [self.columns.user, self.columns.item, self.columns.time]
        names = [name for name in (*roles, *self.condition.columns) if name is not None]
        return [name for name in dict.fromkeys(names) if name not in self.constants]

    def rows(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
        """Return rows and rejects (as in pieces.py), and how many rows the condition leaves out.

        `frame`: the text of the columns `needed`, and LINE.
        """
        constants = [pl.lit(value, pl.String).alias(name) for name, value in self.constants.items()]
        frame, unlike, left_out = self.condition.keep(frame.with_columns(constants))
        time = pl.lit(None, pl.String) if self.columns.time is None else pl.col(self.columns.time)
        rows = frame.select(
            pl.col(LINE).alias("line"), user=pl.col(self.columns.user), item=pl.col(self.columns.item), time=time
        )
        if self.item_form is None:
            return rows, unlike, left_out
        rows, unfit = split_lists(rows, self.item_form, self.time_form)
        return rows, pl.concat([unlike, unfit]), left_out


def plan_of(
    columns: Columns,
    notes: list[str],
    sample: Mapping[str, pl.Series],
    config: DataConfig,
    file: str,
    constants: Mapping[str, str | None],
    typed: Mapping[str, pl.Series] | None = None,
) -> Plan:
    """Complete the roles of the columns to a plan.

    `sample`: text of some rows of each column; `typed`: their values, if the columns have other types than text.

    Raises: ConfigError or DataError if the condition `where` does not fit. DataError if `columns` says that a
    column holds lists, and it does not. Remedy: correct the setting.
    """
    if not config.where:
        notes = [*notes, *mixed_kinds(sample, columns)]
    _refuse_marks(columns, sample, file)
    if not config.columns and config.item_column is None:
        _refuse_further(columns, list(sample), file)
    items = sample[columns.item]
    named_item = (config.columns and not columns.lists) or config.item_column is not None
    form = None if named_item else list_form(items, named=columns.lists)
    if form not in (None, BRACKETED) and not columns.lists and not _may_hold_lists(columns.item):
        _refuse_as_unclear(columns, items, file)
    if form == BRACKETED:
        _refuse_unreadable(columns.item, items, file)
    texts = {name: values for name, values in sample.items() if list_form(values, named=True)}
    examples = {name: values.drop_nulls()[0] for name, values in texts.items()}
    notes = [*notes, *histories_beside(columns, examples, config, file)]
    if form is None and not config.columns and not named_item:
        _refuse_unclear_lists(columns, sample, file)
    if columns.lists and form is None:
        raise DataError(
            f"{file}: columns={config.columns!r} says that {columns.item} holds lists of items, but its values, "
            f"such as {next(iter(items), '(none)')}, are not lists. Use the role item."
        )
    time_form = None
    if form is not None:
        time_form = None if columns.time is None else _form_of_times(items, sample[columns.time], form)
        shared = "" if columns.time is None or time_form else "; the items of a list share its time"
        example = next(iter(items.drop_nulls()), "")[:30]
        notes = [
            *notes,
            f"{columns.item} holds lists of items, such as {example}: each element is an event{shared}",
        ]
    kept = condition(config.where, typed or sample, file)
    return Plan(columns, kept, constants, form, time_form, tuple(notes))


def _refuse_unclear_lists(columns: Columns, sample: Mapping[str, pl.Series], file: str) -> None:
    """Raise DataError if items look like lists of words: no user has two rows, or the name or the words say so.

    Remedy: say what they are.
    """
    usable = (sample[columns.user].str.strip_chars() != "").fill_null(False)
    if len(usable) != len(sample[columns.item]):
        return  # one of them is of a type that cannot be text
    users, items = sample[columns.user].filter(usable), sample[columns.item].filter(usable)
    form = list_form(items, named=True)
    if form is None or (form == " " and not shares_elements(items, form)):
        return
    several = _may_hold_lists(columns.item) and not columns.item.isdecimal()
    one_row_each = len(users) > 1 and users.n_unique() == len(users)
    if not several and not one_row_each and not (form != " " and shares_elements(items, form)):
        return
    if form == "," and items.str.contains(", ", literal=True).any() and not items.str.contains(",.*,").any():
        return  # a name such as "Doe, John"
    _refuse_as_unclear(columns, items, file)


def _refuse_marks(columns: Columns, sample: Mapping[str, pl.Series], file: str) -> None:
    """Raise DataError if all ids stand between quotes, or all lines between brackets. Remedy: remove these."""
    for name in (columns.user, columns.item):
        filled = sample[name].drop_nulls().str.strip_chars()
        filled = filled.filter(filled != "")
        if len(filled) and filled.str.contains(r"""^(['"`]).*['"`]$""").all():
            raise DataError(
                f"{file}: the values of {name} are between quotes, such as {filled[0][:40]}. Write them without, "
                "or separate columns by commas, where double quotes do not belong to the value."
            )
    first = sample[columns.user].drop_nulls().str.strip_chars()
    if len(first) and first.str.contains(r"^[\[({][^\])}]*$").all():
        raise DataError(
            f"{file}: the lines begin with a bracket, such as {first[0][:40]}. Write JSON objects, or columns "
            "without brackets."
        )


def _refuse_further(columns: Columns, names: Sequence[str], file: str) -> None:
    """Raise DataError if more columns are named like the item, with a number. Remedy: say which has the items."""
    stem = re.escape(re.sub(r"[._ -]?\d+$", "", columns.item))
    further = [name for name in names if name != columns.item and re.fullmatch(rf"{stem}[._ -]?\d+", name)]
    if further and stem:
        raise DataError(
            f"{file}: {', '.join([columns.item, *further][:6])} may all have items of a row, and one column is "
            f"read. Write one row for each item, or name the only one with item_column={columns.item!r}."
        )


def histories_beside(columns: Columns, lists: Mapping[str, object], config: DataConfig, file: str) -> list[str]:
    """Return a note if a column has the history of a row beside its item and its time.

    `lists`: an example of each column that holds lists.

    Raises: DataError if the row may as well be a history and its next item. Remedy: say which of both are events.
    """
    if config.columns or config.item_column:
        return []
    own = {word.removesuffix("s") for word in words(columns.item)}
    found = [
        name
        for name in lists
        if name != columns.item
        and (
            _OF_HISTORIES & set(words(name))
            or ({word.removesuffix("s") for word in words(name)} <= own | _OF_LISTS and SEVERAL.search(name))
        )
    ]
    if not found:
        return []
    if columns.time and not any(
        {word.removesuffix("s") for word in words(name)} & (own | {"item"}) for name in found
    ):
        return [f"{found[0]} is not read, because each row has its own item and time"]
    one, several = (
        _as_pairs(columns, columns.item, "item"),
        _as_pairs(replace(columns, time=None), found[0], "items"),
    )
    raise DataError(
        f"{file}: {found[0]} has lists of items, such as {str(lists[found[0]])[:30]}, beside {columns.item}. For "
        f"one event a row, use columns={one!r}; for the lists, columns={several!r}."
    )


def _refuse_as_unclear(columns: Columns, items: pl.Series, file: str) -> NoReturn:
    several, one = _as_pairs(columns, columns.item, "items"), _as_pairs(columns, columns.item, "item")
    example = max(items.drop_nulls().head(_FEW), key=len)[:30]
    raise DataError(
        f"{file}: {columns.item}, such as {example}, may be a list of items. If it is, use columns={several!r}, "
        f"otherwise columns={one!r}."
    )


def _as_pairs(columns: Columns, item: str, role: str) -> str:
    """Return a value for the setting `columns` in which `item` has this role."""
    return f"{columns.user}:user,{item}:{role}" + (f",{columns.time}:time" if columns.time else "")


def _may_hold_lists(name: str) -> bool:
    """Whether the name of a column says that it holds several items, or is only a number."""
    return name.isdecimal() or (bool(SEVERAL.search(name)) and words(name)[-1:] not in (["business"], ["news"]))


def _refuse_unreadable(name: str, items: pl.Series, file: str) -> None:
    """Raise DataError if many lists in brackets cannot be read. Remedy: write them as JSON."""
    texts = items.drop_nulls().head(_FEW).to_list()
    unreadable = [text for text in texts if elements(text) is None]
    if 20 * len(unreadable) > len(texts):
        raise DataError(
            f"{file}: {name} holds lists that cannot be read, such as {unreadable[0][:40]}. Write the ids only, "
            "as in [12, 13]."
        )


def _form_of_times(items: pl.Series, times: pl.Series, form: str) -> str | None:
    """Return the form of lists of times: that of the items, if nearly all have as many elements; else None."""
    if form == BRACKETED:
        return list_form(times) if list_form(times) == BRACKETED else None
    counts = [texts.str.count_matches(form, literal=True) for texts in (items, times)]
    equal = (counts[0] == counts[1]) & (counts[0] > 0)
    return form if int(equal.sum()) > 0.9 * int((counts[0] > 0).sum()) else None
