"""The catalogue: item ids and their numbers, titles and groups.

An item's number is its place in the catalogue, from 1; number 0 is padding. `extended` appends, so a model's table
keeps its rows when new items arrive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.errors import DataError
from sasrec.files import whole_file


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a catalogue, in the order of their numbers."""

    ids: pl.Series
    """(items,) the user's own id of item number i at index i - 1: String, or Int64 if the source had integers."""
    titles: pl.Series | None = None
    """(items,) a title of each item (null where unknown), or None without titles."""
    groups: pl.Series | None = None
    """(items,) the group of each item, such as a genre (null where unknown), or None without groups."""

    def __len__(self) -> int:
        """How many items there are, padding not counted."""
        return len(self.ids)

    def numbers(self, ids: Iterable[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The numbers of the known ids, in order, and the unknown ids as text."""
        known, unknown = [], []
        for item_id in map(str, ids):
            number = self._number_of.get(item_id)
            if number is None:
                unknown.append(item_id)
            else:
                known.append(number)
        return np.asarray(known, np.int64), unknown

    def id_of(self, number: int) -> str | int:
        """The user's own id of an item number from 1."""
        found: str | int = self.ids[number - 1]
        return found

    def title(self, item_id: object) -> str | None:
        """The title of an item id, or None if the id or its title is unknown."""
        number = self._number_of.get(str(item_id))
        return None if self.titles is None or number is None else self.titles[number - 1]

    def extended(self, other: Items) -> Items:
        """This catalogue with the new items of another one appended. Numbers of present items stay.

        Titles and groups of present items stay, too; those of new items come from `other`.

        Raises: DataError if one catalogue has integer ids and the other has text.
        """
        if self.ids.dtype != other.ids.dtype:
            raise DataError(
                f"item ids are {self.ids.dtype} in one catalogue and {other.ids.dtype} in the other; "
                "prepare both from columns of the same type"
            )
        new = ~other.ids.is_in(self.ids.to_list()) & other.ids.is_first_distinct()

        def joined(own: pl.Series | None, theirs: pl.Series | None) -> pl.Series | None:
            if own is None and theirs is None:
                return None
            before = pl.Series([None] * len(self)) if own is None else own
            after = pl.Series([None] * len(other)) if theirs is None else theirs
            return pl.concat([before.cast(pl.String), after.cast(pl.String).filter(new)])

        ids = pl.concat([self.ids, other.ids.filter(new)])
        return dataclasses.replace(
            self, ids=ids, titles=joined(self.titles, other.titles), groups=joined(self.groups, other.groups)
        )

    def save(self, path: Path) -> None:
        """Write a Parquet file with the columns id and, where known, title and group."""
        columns = {"id": self.ids, "title": self.titles, "group": self.groups}
        frame = pl.DataFrame({name: series for name, series in columns.items() if series is not None})
        with whole_file(path) as stream:
            frame.write_parquet(stream)

    @staticmethod
    def read(path: Path) -> Items:
        """The inverse of `save`. The caller checks the hash of the file."""
        frame = pl.read_parquet(path)
        titles, groups = (frame[name] if name in frame.columns else None for name in ("title", "group"))
        return Items(frame["id"], titles, groups)

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.ids.cast(pl.String), start=1)}
