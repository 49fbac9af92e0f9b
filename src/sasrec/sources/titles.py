"""Give items their titles and groups, from a file of unknown format, by their ids.

The ids of the data decide how the file is read: the separator, and whether the first line is a header.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.items import shown
from sasrec.errors import DataError, amount
from sasrec.events.roles import is_item_name
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
    named_id: bool
    """Whether the name of the column shows that it has the ids."""

    def records(self) -> Iterator[tuple[int, Record | None]]:
        """Yield (line, fields) of each record after the header; None if their number is not that of the first."""
        for line, fields in islice(self.reading.records(), int(self.header), None):
            yield line, fields if fields is not None and len(fields) == len(self.names) else None

    def ids(self) -> Iterator[str]:
        """Yield the id of each row that has one."""
        for _, fields in self.records():
            if fields is not None and (item_id := fields[self.id]) is not None:
                yield item_id


def titled(data: Dataset, table: TableFile, wanted: Wanted, *, partial: bool = False) -> Dataset:
    """Return the data set with the titles, and the groups if wanted, of its items.

    Notes on how the file was read and on what it lacks are added to the warnings of the report.

    With `partial`, the items without a row are only counted.

    Raises: DataError if the file has no such column, or has fewer than half of the items, or has more of them in
    another column than in the first. Remedy: name the column of ids; the message shows ids of both.
    """
    ids = data.catalogue.ids.cast(pl.String).to_list()
    known = set(ids)
    layout = max(_layouts(table, wanted, known), key=lambda each: _fit(each, known))
    titles, groups = _Texts("title", layout.title), _Texts("group", layout.group)
    matched, unsplit = set(), []
    for line, fields in layout.records():
        if fields is None:
            unsplit.append(line)
        elif (item_id := fields[layout.id]) is not None and item_id in known:
            matched.add(item_id)
            titles.add(item_id, fields)
            groups.add(item_id, fields)
    better = _better_column(layout, known, len(matched)) if len(matched) < len(ids) else None
    if not partial and wanted.id is None and not layout.named_id:
        _refuse_two_columns_of_ids(table, layout, known, len(matched))
    if not partial and (2 * len(matched) < len(ids) or (better is not None and wanted.id is None)):
        raise DataError(_mismatch(table, layout, ids, matched, unsplit, better))
    notes = [
        *_read_as(table, layout, wanted, titles, unsplit),
        *titles.notes(ids, table.path.name),
        *groups.notes(ids, table.path.name),
    ]
    if missing := known - matched:
        notes += _nearly_matched(layout, missing)
    catalogue = dataclasses.replace(data.catalogue, titles=titles.of(ids), groups=groups.of(ids))
    report = data.report | {"warnings": [*data.report.get("warnings", []), *notes]}
    return dataclasses.replace(data, catalogue=catalogue, report=report)


class _Texts:
    """The titles or groups of items, as they are read: the first of each item is kept."""

    def __init__(self, kind: str, place: int | None) -> None:
        """`place`: the place of the column; None if the texts are not wanted."""
        self.kind, self.place = kind, place
        self.by_id: dict[str, str] = {}
        self.others: dict[str, str] = {}
        """The first other text of each item that has two."""

    def add(self, item_id: str, fields: Record) -> None:
        """Read the text of an item from its row."""
        text = None if self.place is None else fields[self.place]
        if text is not None and text != self.by_id.setdefault(item_id, text):
            self.others.setdefault(item_id, text)

    def of(self, ids: list[str]) -> pl.Series | None:
        """Return the text of each item, null if it has none."""
        return None if self.place is None else pl.Series([self.by_id.get(each) for each in ids], dtype=pl.String)

    def notes(self, ids: list[str], file: str) -> Iterator[str]:
        """Yield sentences on items with two texts, and on items without."""
        if self.others:
            item_id, other = next(iter(self.others.items()))
            keep = "keeps" if len(self.others) == 1 else "keep"
            yield (
                f"{amount(len(self.others), 'item', 'have')} two {self.kind}s in {file} and {keep} the first; "
                f"{shown(item_id)} has {self.by_id[item_id]!r} and {other!r}"
            )
        if self.place is not None and len(self.by_id) < len(ids):
            yield f"{len(self.by_id):,} of {len(ids):,} items have a {self.kind} in {file}"


def _layouts(table: TableFile, wanted: Wanted, known: set[str]) -> list[_Layout]:
    """Return the layouts in which the file can be read. Raises: DataError if none has the wanted columns."""
    layouts, errors = [], []
    for reading in table.readings:
        first = reading.first()
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
    asked = [name for name in (wanted.id, wanted.title, wanted.group) if name is not None]
    # Some public files name columns with a type, such as item_id:token.
    names = reading.names or tuple((field or "").split(":")[0] for field in first)
    begin = (
        first[int(wanted.id)] if wanted.id and wanted.id.isdecimal() and int(wanted.id) < len(first) else first[0]
    )
    # The first line of a text is a header if a wanted column is named in it, or if it has no id of an item, and no
    # number where the ids are.
    named = any(name in names and not name.isdecimal() for name in asked)
    row = reading.names is None and not named and ((begin or "").isdecimal() or not known.isdisjoint(first))
    if row:
        names = tuple(map(str, range(len(first))))

    def place(name: str) -> int:
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(names):
            return int(name)
        listed = (
            f"its first line is an item, so its columns are numbered: {', '.join(names)}"
            if row
            else (f"its columns are: {', '.join(names)}")
        )
        raise DataError(
            f"{table.path} has no column {name!r}; {listed}. "
            "Name one of these with `items_id`, `items_title` or `items_group`."
        )

    named_ids = [number for number, name in enumerate(names) if is_item_name(name)]
    named_ids = named_ids or [number for number, name in enumerate(names) if name.lower() in ("id", "ids")]
    item_id = place(wanted.id) if wanted.id is not None else named_ids[0] if len(named_ids) == 1 else 0
    title = _title_column(names, item_id) if wanted.title is None else place(wanted.title)
    header = reading.names is None and not row
    group = None if wanted.group is None else place(wanted.group)
    return _Layout(reading, names, header, item_id, title, group, named_id=item_id in named_ids)


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


def _read_as(
    table: TableFile, layout: _Layout, wanted: Wanted, titles: _Texts, unsplit: list[int]
) -> Iterator[str]:
    """Yield sentences on how the file was read. `unsplit`: the lines without the right number of fields."""
    file = table.path.name
    if table.guessed_encoding:
        special = next((title for title in titles.by_id.values() if not title.isascii()), None)
        yield f"{file} is not UTF-8; it is read as Windows-1252" + (
            f", for example {special!r}" if special else ""
        )
    if layout.reading.names is None and not layout.header:
        yield f"{file} has no header, because its first line has an id"
    elif wanted.title is None and len(layout.names) > 2:
        yield f"titles are the column {layout.names[layout.title]} of {file}"
    if unsplit:
        yield _ignored(file, layout, unsplit)


def _ignored(file: str, layout: _Layout, unsplit: list[int]) -> str:
    verb = "is" if len(unsplit) == 1 else "are"
    return (
        f"{amount(len(unsplit), 'line')} of {file} {verb} ignored, because the number of fields is not "
        f"{len(layout.names)} or a quote is not closed; the first is line {unsplit[0]}"
    )


def _nearly_matched(layout: _Layout, missing: set[str]) -> Iterator[str]:
    """Yield a note if some of the missing ids are in the file with other zeros, such as 007 for 7."""
    theirs = {_stripped(item_id): item_id for item_id in layout.ids()}
    near = sorted(item_id for item_id in missing if _stripped(item_id) in theirs)
    if near:
        differ = "differs" if len(near) == 1 else "differ"
        pair = f"{shown(near[0])} and {shown(theirs[_stripped(near[0])])}"
        items = f"{amount(len(near), 'item')} without a row {differ}"
        yield f"{items} from an id of the file only in zeros, such as {pair}"


def _refuse_two_columns_of_ids(table: TableFile, layout: _Layout, known: set[str], matched: int) -> None:
    """Raise DataError if another column has as many ids of items, such as the rank beside the id. Remedy: name "
    "it."""
    other = _better_column(layout, known, matched - 1, but=layout.id)
    if other is not None and layout.header and other[0] != layout.names[layout.title]:
        raise DataError(
            f"the columns {layout.names[layout.id] or '0'} and {other[0]} of {table.path} may both have the ids. "
            f"Name the right one, for example items_id={other[0]!r}."
        )


def _better_column(
    layout: _Layout, known: set[str], matched: int, but: int | None = None
) -> tuple[str, int] | None:
    """Return the column with most ids of items, and their number, if it has more than `matched`.

    `but`: the place of a column that does not count.
    """
    found: list[set[str]] = [set() for _ in layout.names]
    for _, fields in layout.records():
        for place, value in enumerate(fields or ()):
            if value is not None and value in known:
                found[place].add(value)
    best = max(range(len(found)), key=lambda place: -1 if place == but else len(found[place]))
    return (layout.names[best], len(found[best])) if len(found[best]) > matched else None


def _mismatch(
    table: TableFile,
    layout: _Layout,
    ids: list[str],
    matched: set[str],
    unsplit: list[int],
    better: tuple[str, int] | None,
) -> str:
    """Return the message on a file that lacks many items: examples from both, the reason, the remedy.

    `better`: the result of `_better_column`.
    """
    theirs = list(dict.fromkeys(layout.ids()))
    strangers = [item_id for item_id in theirs if item_id not in matched] or theirs
    lacking = [item_id for item_id in ids if item_id not in matched]
    message = (
        f"only {len(matched):,} of {len(ids):,} items have a row in {table.path}, read as {layout.reading.kind}: "
        f"its column {layout.names[layout.id]} has {_examples(strangers)}, but the data has {_examples(lacking)}. "
    )
    if unsplit:
        message += f"{_ignored(table.path.name, layout, unsplit)}. "
    if better is not None:
        keep = (
            f", or items_id={layout.names[layout.id]!r} if the first is right"
            if 2 * len(matched) >= len(ids)
            else ""
        )
        return message + f"Column {better[0]} has {better[1]:,} of them. Use items_id={better[0]!r}{keep}."
    stripped = set(map(_stripped, theirs))
    if 2 * sum(_stripped(item_id) in stripped for item_id in ids) >= len(ids):
        return message + (
            "They match only without zeros that a program changed: pandas reads the id 007 as 7, and writes 7 as "
            "7.0 if another id is missing. Read the ids as text there (pandas: dtype=str), and use that."
        )
    return message + (
        "Give the file that belongs to this data, or name its column of ids with `items_id`; its columns are: "
        f"{', '.join(layout.names)}."
    )


def _stripped(item_id: str) -> str:
    """Return an id as programs leave it that take it for a number: 007 and 7.0 are 7."""
    return re.sub(r"^0+(?=\d)|\.0+$", "", item_id)


def _examples(ids: list[str]) -> str:
    return ", ".join(map(shown, ids[:_EXAMPLES]))
