"""The catalogue: item ids with their numbers, titles and groups.

Items are numbered from 1 in the order of the catalogue; number 0 is padding. `Items.extended` appends new items,
so the rows of a trained embedding table stay valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.errors import DataError, amount
from sasrec.files import whole_file
from sasrec.untrusted import parquet_of

_AGAIN = "Prepare the data set, or export the run, again."


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a catalogue, with ids, titles and groups, in order of item number."""

    ids: pl.Series
    """(items,) the id of item number i is at index i - 1: Int64 if the source had integers, else String."""
    titles: pl.Series | None = None
    """(items,) title of each item, null where unknown; None if no titles were given."""
    groups: pl.Series | None = None
    """(items,) group of each item, such as a genre, null where unknown; None if no groups were given."""

    def __len__(self) -> int:
        """The number of items, without padding."""
        return len(self.ids)

    def numbers(self, ids: Iterable[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return the item numbers of the known `ids`, in the given order, and the unknown `ids` as text."""
        known, unknown = [], []
        for item_id in ids:
            number = self.number_of(item_id)
            if number is None:
                unknown.append(str(item_id))
            else:
                known.append(number)
        return np.asarray(known, np.int64), unknown

    def number_of(self, item_id: object) -> int | None:
        """Return the item number of an id, or None if the item is unknown. A float such as 1.0 is the id 1 too."""
        return look_up(self._number_of, item_id)

    def numbers_or_zero(self, ids: Sequence[object]) -> npt.NDArray[np.int64]:
        """Return the item number of each id, and 0 for those that are unknown."""
        numbers = self._number_of
        return np.array([numbers.get(each) or look_up(numbers, each) or 0 for each in ids], np.int64)  # type: ignore[call-overload]

    def id_of(self, number: int) -> str | int:
        """Return the id of an item number (1 or more)."""
        item_id: str | int = self.ids[number - 1]
        return item_id

    def title(self, item_id: object) -> str | None:
        """Return the title of an item id, or None if the item is unknown or has no title."""
        number = self.number_of(item_id)
        return None if self.titles is None or number is None else self.titles[number - 1]

    def extended(self, other: Items) -> Items:
        """Return this catalogue with the new items of `other` appended.

        Items of this catalogue keep their number, title and group. New items, and items without a title or group,
        take those of `other`.

        Raises: DataError if one has integer ids and the other text. Remedy: prepare both from columns of one type.
        """
        if self.ids.dtype != other.ids.dtype:
            raise DataError(
                f"item ids are {self.ids.dtype} in one catalogue but {other.ids.dtype} in the other. "
                "Prepare both from columns of the same type."
            )
        new = ~other.ids.is_in(self.ids.to_list()) & other.ids.is_first_distinct()
        ids = pl.concat([self.ids, other.ids.filter(new)])

        # A catalogue without texts contributes nulls, so the column keeps one value per item.
        def joined(own: pl.Series | None) -> pl.Series | None:
            if own is None:
                return None
            return pl.concat([own.cast(pl.String), pl.Series([None] * int(new.sum()), dtype=pl.String)])

        return dataclasses.replace(self, ids=ids, titles=joined(self.titles), groups=joined(self.groups)).filled(
            other
        )

    def filled(self, other: Items) -> Items:
        """Return this catalogue, in which items without a title or group take those that `other` has for them."""
        first = other.ids.is_first_distinct()
        ids = other.ids.filter(first).cast(pl.String)

        def texts(own: pl.Series | None, theirs: pl.Series | None) -> pl.Series | None:
            if theirs is None:
                return own
            values = theirs.cast(pl.String).filter(first)
            found = self.ids.cast(pl.String).replace_strict(ids, values, default=None, return_dtype=pl.String)
            return found if own is None else own.cast(pl.String).zip_with(own.is_not_null(), found)

        return dataclasses.replace(
            self, titles=texts(self.titles, other.titles), groups=texts(self.groups, other.groups)
        )

    def save(self, path: Path) -> None:
        """Write a Parquet file with the column id, and the columns title and group if the catalogue has them."""
        columns = {"id": self.ids, "title": self.titles, "group": self.groups}
        frame = pl.DataFrame({name: series for name, series in columns.items() if series is not None})
        with whole_file(path) as stream:
            frame.write_parquet(stream)

    @staticmethod
    def read(path: Path, count: int | None = None) -> Items:
        """Read a file that `save` wrote, with `count` items if known. The caller must check its hash first.

        Raises: DataError if the file is damaged. Remedy: prepare the data set, or export the run, again.
        """
        frame = _table(path, count)
        texts = [frame[name] if name in frame.columns else None for name in ("title", "group")]
        for text in texts:
            if text is not None and text.dtype not in (pl.String, pl.Null):
                raise DataError(f"{path} is damaged: its column {text.name} is of type {text.dtype}. {_AGAIN}")
        return Items(_ids(frame, path), *texts)

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.ids.cast(pl.String), start=1)}


def read_ids(path: Path, count: int) -> pl.Series:
    """Read the column `id` of a file of `count` ids. Raises: DataError, as `Items.read`."""
    return _ids(_table(path, count), path)


def _table(path: Path, count: int | None) -> pl.DataFrame:
    try:
        frame = parquet_of(path)
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}. {_AGAIN}") from None
    if count is not None and frame.height != count:
        raise DataError(f"{path} has {amount(frame.height, 'row')}, and not {count:,}. {_AGAIN}")
    return frame


def _ids(frame: pl.DataFrame, path: Path) -> pl.Series:
    if "id" not in frame.columns or frame.schema["id"] not in (pl.String, pl.Int64, pl.UInt64):
        raise DataError(f"{path} is damaged: it has no column `id` of text or integers. {_AGAIN}")
    if frame["id"].null_count():
        raise DataError(f"{path} is damaged: an id is missing. {_AGAIN}")
    return frame["id"]


def look_up(numbers: dict[str, int], any_id: object) -> int | None:
    """Return the number of an id of any type (text, integer, float, a NumPy scalar), or None if it is unknown.

    See `id_text` for other ways to write an id.
    """
    number = numbers.get(str(any_id))
    return numbers.get(id_text(any_id)) if number is None else number


def id_text(any_id: object) -> str:
    """Return an id as the data has it: text without the blanks around it, which the readers of events strip.

    pandas turns integers into floats when a value is missing, so 1.0 also stands for the id 1. A float too large
    to hold every integer does not, because it can stand for another id.
    """
    if isinstance(any_id, float | np.floating) and float(any_id).is_integer():
        exact = 2 ** (np.finfo(type(any_id)).nmant + 1)
        return str(int(any_id)) if abs(any_id) < exact else str(any_id)
    return str(any_id).strip()


def shown(any_id: object) -> str:
    """Return an id for messages: quoted, with escapes, if it has blanks, commas or invisible characters."""
    text = str(any_id)
    plain = text.isprintable() and not any(letter.isspace() or letter in ",'\"" for letter in text)
    return text if plain and text else repr(text)
