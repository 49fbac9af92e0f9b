"""Give items their titles and groups, from a file of unknown format, by their ids.

The ids of the data decide how the file is read: the separator, and whether the first line is a header.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.items import shown
from sasrec.errors import DataError
from sasrec.sources.tables import SAMPLE, Reading, Record, TableFile

_EXAMPLES = 3
# Words in names of columns that contain titles, the best first.
_TITLE_WORDS = ("title", "titles", "name", "names")


@dataclass(frozen=True)
class Wanted:
    """Columns of an items file, by name or by number from 0. None: the default (id and title) or none (group)."""

    id: str | None = None
    title: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class _Layout:
    """A reading of the file, with the places of its columns."""

    reading: Reading
    names: tuple[str, ...]
    """Names of the columns; without a header, their numbers from 0."""
    header: bool
    """Whether the first record is a header."""
    id: int
    title: int
    group: int | None

    def records(self) -> Iterator[tuple[int, Record | None]]:
        """Yield (line, fields) of each record after the header; no fields if their number differs from the first."""
        for line, fields in islice(self.reading.records(), int(self.header), None):
            yield line, fields if fields is not None and len(fields) == len(self.names) else None


def titled(data: Dataset, table: TableFile, wanted: Wanted, *, partial: bool = False) -> Dataset:
    """Return the data set with the titles, and the groups if wanted, of its items.

    Notes on how the file was read and on what it lacks are added to the warnings of the report.

    Raises: DataError if the file has no such column, or if it has fewer than half of the items (with `partial`, this
    is a note). Remedy: name the column of ids; the message shows ids of both.
    """
    ids = data.catalogue.ids.cast(pl.String).to_list()
    known = set(ids)
    layout = max(_layouts(table, wanted, known), key=lambda each: _fit(each, known))
    found: dict[str, tuple[str | None, str | None]] = {}
    notes = _Notes(table, layout)
    for line, fields in layout.records():
        if fields is None:
            notes.unsplit.append(line)
            continue
        item_id, group = fields[layout.id], None if layout.group is None else fields[layout.group]
        if item_id in known and item_id is not None:
            title = fields[layout.title]
            first = found.setdefault(item_id, (title, group))
            if first[0] is None or (first[1] is None and layout.group is not None):
                found[item_id] = (first[0] or title, first[1] or group)
            if first[0] and title and first[0] != title:
                notes.named_twice.setdefault(item_id, (first[0], title))
    if 2 * len(found) < len(ids) and not partial:
        raise DataError(_mismatch(table, layout, ids, len(found)))
    titles, groups = ([found.get(item_id, (None, None))[part] for item_id in ids] for part in (0, 1))
    catalogue = dataclasses.replace(
        data.catalogue,
        titles=pl.Series(titles, dtype=pl.String),
        groups=None if layout.group is None else pl.Series(groups, dtype=pl.String),
    )
    warnings = [*data.report.get("warnings", []), *notes.sentences(wanted, titles, groups)]
    return dataclasses.replace(data, catalogue=catalogue, report=data.report | {"warnings": warnings})


def _layouts(table: TableFile, wanted: Wanted, known: set[str]) -> list[_Layout]:
    """Return the layouts in which the file can be read. Raises: DataError if none has the wanted columns."""
    layouts, errors = [], []
    for reading in table.readings:
        first = next(iter(reading.sample()[:1]), None)
        if first is None or (reading.names is None and len(first) < 2):
            continue
        try:
            layouts.append(_layout(table, reading, first, wanted, known))
        except DataError as error:
            errors.append((len(first), error))
    if not layouts and errors:
        raise max(errors, key=lambda each: each[0])[1]
    if not layouts:
        raise DataError(f"the items file {table.path} has no row with two columns. Give ids and titles.")
    return layouts


def _layout(table: TableFile, reading: Reading, first: Record, wanted: Wanted, known: set[str]) -> _Layout:
    # Some public files name columns with a type, such as item_id:token.
    names = reading.names or tuple((field or "").split(":")[0] for field in first)
    asked = [name for name in (wanted.id, wanted.title, wanted.group) if name is not None]
    # Without names, the first line is a row if it begins with the id of an item.
    named = any(name in names for name in asked)
    header = reading.names is None and (named or first[0] not in known)
    if reading.names is None and not header:
        names = tuple(map(str, range(len(first))))

    def place(name: str) -> int:
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(names):
            return int(name)
        raise DataError(
            f"{table.path} has no column {name!r}; its columns are: {', '.join(names)}. "
            "Name one of these with `items_id`, `items_title` or `items_group`."
        )

    item_id = 0 if wanted.id is None else place(wanted.id)
    title = _title_column(names, item_id) if wanted.title is None else place(wanted.title)
    return _Layout(reading, names, header, item_id, title, None if wanted.group is None else place(wanted.group))


def _title_column(names: tuple[str, ...], item_id: int) -> int:
    """Return the first column that is named like a title; else the first that is not the id."""
    others = [place for place in range(len(names)) if place != item_id]
    for word in _TITLE_WORDS:
        for place in others:
            if word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", names[place]).lower()):
                return place
    return others[0] if others else item_id


def _fit(layout: _Layout, known: set[str]) -> tuple[int, float]:
    """Return how well a layout fits: how many records have the id of an item, and the share with all fields."""
    records = [fields for _, fields in islice(layout.records(), SAMPLE)]
    hits = len({fields[layout.id] for fields in records if fields is not None} & known)
    return hits, sum(fields is not None for fields in records) / max(1, len(records))


@dataclass
class _Notes:
    """What there is to say about an items file that was read."""

    table: TableFile
    layout: _Layout
    unsplit: list[int] = dataclasses.field(default_factory=list)
    """Lines without the right number of fields."""
    named_twice: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Items with two titles: the first, and the first other one."""

    def sentences(self, wanted: Wanted, titles: list[str | None], groups: list[str | None]) -> Iterable[str]:
        """Yield sentences on how the file was read, and on what it lacks."""
        file, layout = self.table.path.name, self.layout
        if self.table.guessed_encoding:
            special = next((title for title in titles if title and not title.isascii()), "")
            example = f", such as {special!r}" if special else ""
            yield f"{file} is not UTF-8; its titles are read as Windows-1252{example}"
        if layout.reading.names is None and not layout.header:
            yield f"{file} has no header, because its first line begins with the id of an item"
        elif wanted.title is None and len(layout.names) > 2:
            yield f"titles are the column {layout.names[layout.title]} of {file}"
        if self.unsplit:
            yield (
                f"{len(self.unsplit):,} lines of {file} are ignored, because their number of fields is not "
                f"{len(layout.names)} or their quotes do not match; the first is line {self.unsplit[0]}"
            )
        if self.named_twice:
            item_id, (first, other) = next(iter(self.named_twice.items()))
            yield (
                f"{len(self.named_twice):,} items have two titles in {file}, and keep the first; "
                f"{shown(item_id)} has {first!r} and {other!r}"
            )
        for kind, texts in (("title", titles), ("group", groups if layout.group is not None else [])):
            have = sum(text is not None for text in texts)
            if have < len(texts):
                yield f"{have:,} of {len(texts):,} items have a {kind} in {file}"


def _mismatch(table: TableFile, layout: _Layout, ids: list[str], matched: int) -> str:
    """Return the message on a file that has few of the items: examples from both, the reason, the remedy."""
    records = [fields for _, fields in islice(layout.records(), SAMPLE) if fields is not None]
    theirs = list(dict.fromkeys(value for fields in records if (value := fields[layout.id]) is not None))
    strangers = [item_id for item_id in theirs if item_id not in set(ids)] or theirs
    column = layout.names[layout.id]
    message = (
        f"{matched:,} of {len(ids):,} items have a row in {table.path}, which was read as {layout.reading.kind}: its "
        f"column {column} has {_examples(strangers)}, but the items of the data include {_examples(ids)}. "
    )
    if 2 * len(set(map(_stripped, theirs)) & set(map(_stripped, ids))) >= min(len(ids), len(set(theirs))):
        return message + (
            "They match only without zeros that a program changed: pandas reads the id 007 as 7, and writes 7 as 7.0 "
            "if another is missing. Read the ids as text there (pandas: dtype=str), and write both files again."
        )
    hits = {
        place: len({fields[place] for fields in records} & set(ids))
        for place in range(len(layout.names))
        if place != layout.id
    }
    best = max(hits, key=lambda place: hits[place], default=None)
    if best is not None and hits[best] > matched:
        name = layout.names[best]
        return message + f"Column {name} has {hits[best]:,} of them. Use items_id={name!r}."
    return message + (
        "Give the file that belongs to this data, or name its column of ids with `items_id`; its columns are: "
        f"{', '.join(layout.names)}."
    )


def _stripped(item_id: str) -> str:
    """Return an id as programs leave it that take it for a number: 007 and 7.0 are 7."""
    return re.sub(r"^0+(?=\d)|\.0+$", "", item_id)


def _examples(ids: list[str]) -> str:
    return ", ".join(map(shown, ids[:_EXAMPLES]))
