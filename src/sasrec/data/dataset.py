"""Build, save and open data sets: the histories of all users as flat arrays of numbers.

A data set has three flat arrays: the item number of each event, the time of each event, and the offset at which
each user starts. The events of a user are in order of time; events with equal times keep the order of the file.
Users and items are numbered in the byte order of their ids, so the numbers do not depend on the order of the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import re
import shutil
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.data.items import Items, look_up, read_ids
from sasrec.data.manifest import (
    FILES,
    FORMAT,
    MANIFEST,
    Manifest,
    check_manifest,
    check_numbers,
    is_manifest,
    read_manifest,
    read_report,
)
from sasrec.data.parts import PART, described
from sasrec.errors import DataError, FolderError, SasrecWarning, amount
from sasrec.events.events import Events
from sasrec.events.report import describe, dominant, summary
from sasrec.files import TEMPORARY, file_digest, sync_folder, whole_file, write_synced, write_whole
from sasrec.locks import is_claimed, only_writer
from sasrec.untrusted import refuse_large

_ARRAYS = {"items": "<i4", "times": "<i8", "offsets": "<i8"}
_PARTS = "|i1"  # the type of parts.bin, which exists only for data with own validation or test files
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class NoneLeftError(DataError):
    """No event passes the filters, such as min_user_events or k_core."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The histories of all users: arrays of item numbers and times, and the ids of users and items."""

    items: npt.NDArray[np.int32]
    """(events,) item number of each event, user by user: from 1 to num_items. Padding, number 0, never occurs."""
    times: npt.NDArray[np.int64] | None
    """(events,) time of each event, in microseconds since 1970 UTC; None if the source has no times."""
    offsets: npt.NDArray[np.int64]
    """(users + 1,) where the events of each user start: user u owns items[offsets[u]:offsets[u + 1]]."""
    user_ids: pl.Series
    """(users,) id of each user, in order of user number: Int64 if the source had integers, else String."""
    catalogue: Items
    """The items, with ids and titles, in order of item number."""
    name: str = "events"
    """The name of the data in reports and on the protocol card, such as the name of its file."""
    report: dict[str, Any] = field(default_factory=dict)
    """Statistics of the data, such as the numbers of rows read and events; `sasrec prepare` prints this report."""
    parts: npt.NDArray[np.int8] | None = None
    """(events,) the file that each event came from: 0 training, 1 validation, 2 test (data/parts.py). None if the
    source was not divided into such files."""

    @property
    def num_users(self) -> int:
        """The number of users."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """The number of items in the catalogue, without padding."""
        return len(self.catalogue)

    @property
    def num_events(self) -> int:
        """The number of events of all users."""
        return len(self.items)

    @cached_property
    def data_hash(self) -> str:
        """The SHA-256 of arrays and ids; equal only for data sets with the same events in the same order."""
        digest = hashlib.sha256(b"sasrec data 1")
        for name, kind in _ARRAYS.items():
            array = getattr(self, name)
            digest.update(name.encode())
            digest.update(b"none" if array is None else _buffer(array, kind))
        for ids in (self.user_ids, self.catalogue.ids):
            digest.update("\n".join(ids.cast(pl.String)).encode())
        if self.parts is not None:  # without own files, the hash is that of earlier versions
            digest.update(b"parts")
            digest.update(_buffer(self.parts, _PARTS))
        return digest.hexdigest()

    def item_numbers_of(self, user: int) -> npt.NDArray[np.int32]:
        """Return the item numbers of user number `user`, (length,), oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def history(self, user_id: object) -> list[str | int]:
        """Return the item ids of a user, oldest first.

        Raises: DataError if the user id is not in the data set. Remedy: use an id from `user_ids`.
        """
        return [
            self.catalogue.id_of(number) for number in self.item_numbers_of(self.user_number(user_id)).tolist()
        ]

    def __repr__(self) -> str:
        size = ", ".join(map(amount, (self.num_users, self.num_items, self.num_events), ("user", "item", "event")))
        return f"Dataset({self.name}: {size}{'' if self.times is not None else ', no times'})"

    def _repr_html_(self) -> str:
        """Return the report of `sasrec prepare` as HTML, for notebooks."""
        return "".join(f"<div>{html.escape(line)}</div>" for line in summary(self.report) or [repr(self)])

    def user_number(self, user_id: object) -> int:
        """Return the user number of a user id.

        Raises: DataError if the id is not in the data set. Remedy: for a new user, pass item ids to
        `Recommender.recommend`.
        """
        number = look_up(self._user_numbers, user_id)
        if number is None:
            raise DataError(
                f"user {str(user_id)!r} is not in the data set. For a new user, give a history of item ids, or "
                "name a `fallback`."
            )
        return number

    def has_user(self, user_id: object) -> bool:
        """Return whether the data set has a user with this id."""
        return look_up(self._user_numbers, user_id) is not None

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self.user_ids.cast(pl.String))}

    def save(self, folder: str | Path) -> None:
        """Write the data set to a folder, for `open_dataset`. A data set that the folder already has is replaced.

        If the writing is interrupted, the old data set stays intact. Other files in the folder stay, too.

        Raises: FolderError if the folder has files and is not a data set, or if another process writes into it.
        Remedy: name another folder.
        """
        folder = Path(folder)
        manifest = folder / MANIFEST
        with Dataset.writing(folder):
            _warn_of_what_is_replaced(folder, self)
            earlier = [path for path in folder.glob("data-*") if _is_own(path)]
            number = 1 + max((int(path.name[5:]) for path in earlier), default=0)
            while (own := folder / f"data-{number}").exists():
                number += 1
            own.mkdir()
            try:
                self._write(own)
                files = {
                    path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
                    for path in own.iterdir()
                }
                content = {
                    "format": FORMAT,
                    "folder": own.name,
                    "name": stored_name(self.name),
                    "users": self.num_users,
                    "items": self.num_items,
                    "events": self.num_events,
                    "data_hash": self.data_hash,
                    "files": files,
                }
                sync_folder(own)
                check_manifest(content, manifest)  # before the old data set is replaced
                read_report(own / "report.json")
                write_whole(manifest, json.dumps(content, indent=2))
            except BaseException:
                shutil.rmtree(own, ignore_errors=True)
                raise
            for path in earlier:  # whoever has mapped their files keeps them
                shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def writing(folder: str | Path) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that locks a folder: in its `with` block, only this thread can save to it.
        Raises: The errors of `save`.
        """
        folder = Path(folder)
        if not is_manifest(folder / MANIFEST) and (not is_claimed(folder) or (folder / "config.toml").exists()):
            raise FolderError(f"{folder} is not empty and does not contain a data set. Name another folder.")
        return only_writer(folder, "writing a data set")

    def _write(self, folder: Path) -> None:
        for name, kind in {**_ARRAYS, "parts": _PARTS}.items():
            if getattr(self, name) is not None:
                write_synced(folder / f"{name}.bin", _buffer(getattr(self, name), kind))
        with whole_file(folder / "users.parquet") as stream:
            self.user_ids.rename("id").to_frame().write_parquet(stream)
        self.catalogue.save(folder / "items.parquet")
        write_synced(folder / "report.json", json.dumps(self.report, indent=2).encode())


class Replaced(SasrecWarning):
    """A new data set replaces another one in the same folder."""


def _warn_of_what_is_replaced(folder: Path, new: Dataset) -> None:
    """Warn if a folder has a data set that differs from the new one, because runs may use it."""
    try:
        old = open_dataset(folder, verify=False)
    except DataError:  # there is none, or nobody can use it
        return
    if old.data_hash != new.data_hash:
        warnings.warn(
            f"replacing the data set in {folder} (hash {old.data_hash[:12]}) by another; runs that were trained "
            "on it need it. To keep it, name another `output`",
            Replaced,
            stacklevel=3,
        )
    elif old.catalogue.titles is not None and new.catalogue.titles is None:
        warnings.warn(f"the titles that {folder} had are gone", SasrecWarning, stacklevel=3)


def _is_own(path: Path) -> bool:
    """Whether a folder is one that `save` made, also if it was interrupted; others are somebody else's."""
    if not re.fullmatch("data-[0-9]{1,9}", path.name) or not path.is_dir():
        return False
    return all(each.name in FILES or TEMPORARY.fullmatch(each.name) for each in path.iterdir())


def _buffer(array: npt.NDArray[Any], kind: Any) -> memoryview:
    """The bytes of an array as this kind, without a copy if it has this kind."""
    return np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8).data


def build(events: Events, config: DataConfig, *, name: str = "events") -> Dataset:
    """Filter and sort checked events, and number their users and items.

    The filters run in this order: duplicates; minimum events, counted once for users and items before either is
    removed; then k-core, repeated until it removes nothing. A column `part` of the events (data/parts.py) becomes
    `Dataset.parts`.

    Raises: DataError if no event passes the filters. Remedy: lower the limits that the message names.
    """
    frame = _filtered(events.coded, config)
    if frame.is_empty():
        refuse_none_left(events.coded.height, config)
    has_times = "time" in frame.columns
    user_numbers, user_ids = _numbered(frame["user"], events.user_ids)
    item_numbers, item_ids = _numbered(frame["item"], events.item_ids)
    numbered = frame.select(
        user_numbers.cast(pl.Int64).alias("user"),
        (item_numbers + 1).cast(pl.Int32).alias("item"),
        *(name for name in ("time", PART) if name in frame.columns),
    )
    # The stable sort keeps events with equal times in the order of the file.
    ordered = numbered.sort(["user", "time"] if has_times else "user", maintain_order=True)
    lengths = np.bincount(ordered["user"].to_numpy(), minlength=len(user_ids))
    report = describe(events, numbered.drop(PART, strict=False), ordered, lengths, item_ids, config)
    report["warnings"] += dominant(user_ids, lengths)
    if PART in ordered.columns:
        report["parts"], notes = described(ordered)
        # The suspicion about short histories concerns leave-one-out, which own files replace.
        report["warnings"] = [note for note in report["warnings"] if "leave-one-out" not in note] + notes
    return Dataset(
        items=ordered["item"].to_numpy(),
        times=ordered["time"].to_numpy() if has_times else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_ids=typed_ids(user_ids) if events.integer_users else user_ids,
        catalogue=Items(typed_ids(item_ids) if events.integer_items else item_ids),
        name=stored_name(name),
        report=report,
        parts=ordered[PART].to_numpy() if PART in ordered.columns else None,
    )


def stored_name(name: str) -> str:
    """Return a name as a manifest may have it: "events" for one with blanks, capitals and the like."""
    return name if _NAME.fullmatch(name) else "events"


def refuse_none_left(count: int, config: DataConfig) -> NoReturn:
    """Raise NoneLeftError for filters that remove all `count` events; name those that are set."""
    limits = {name: getattr(config, name) for name in ("min_user_events", "min_item_events", "k_core")}
    given = " and ".join(f"{name}={value}" for name, value in limits.items() if value)
    raise NoneLeftError(f"{given} leaves none of the {count:,} events. Lower the limit.")


def _numbered(codes: pl.Series, ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the numbers from 0 of the ids that occur, in the order of `ids`, and these ids."""
    occurs = np.zeros(len(ids), bool)
    occurs[codes.to_numpy()] = True
    numbers = np.cumsum(occurs, dtype=np.int64) - 1
    return pl.Series(numbers[codes.to_numpy()]), ids.filter(pl.Series(occurs))


def typed_ids(ids: pl.Series) -> pl.Series:
    """Return the text of integers as Int64, or as UInt64 or text where they are larger."""
    for kind in (pl.Int64, pl.UInt64):
        integers = ids.cast(kind, strict=False)
        if not integers.null_count():
            return integers
    return ids


def open_dataset(folder: str | Path, *, verify: bool = True) -> Dataset:
    """Open a folder that `prepare` or `Dataset.save` wrote. The arrays stay on disk (memory-mapped), not in
    memory.

    `verify`: whether to compare each file with its hash in manifest.json of the folder. False opens in less time.

    Raises: DataError if a file is missing, damaged or of another format version. Remedy: run `sasrec prepare`
    again.
    """
    folder = Path(folder)
    while True:
        manifest = read_manifest(folder)
        try:
            return _opened(folder, manifest, verify=verify)
        except (DataError, OSError) as error:
            if read_manifest(folder) != manifest:
                continue  # somebody has just replaced the data set
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder} cannot be read: {error}. Check the disk and the permissions.") from None


def _opened(folder: Path, manifest: Manifest, *, verify: bool) -> Dataset:
    """Open the data set that a manifest describes."""
    files, own = {str(name): file for name, file in manifest.files.items()}, folder / manifest.folder
    lengths = dict.fromkeys(("items", "times", "parts"), manifest.events) | {"offsets": manifest.users + 1}
    kinds = {name: kind for name, kind in {**_ARRAYS, "parts": _PARTS}.items() if f"{name}.bin" in files}
    for name, kind in kinds.items():
        if lengths[name] * np.dtype(kind).itemsize != files[f"{name}.bin"].bytes:
            raise DataError(
                f"{own / name}.bin has not as many numbers as its manifest says. Prepare the data set again."
            )
    for file, expected in files.items():
        path = own / file
        if not path.is_file() or path.stat().st_size != expected.bytes:
            raise DataError(f"{path} is missing or has the wrong size. Prepare the data set again.")
        if path.suffix != ".bin":
            refuse_large(path)
        if verify and file_digest(path) != expected.sha256:
            raise DataError(f"{path} has changed since it was written. Prepare the data set again.")
    arrays = {
        name: np.memmap(own / f"{name}.bin", dtype=kind, mode="r", shape=(lengths[name],))
        if lengths[name]  # np.memmap refuses an empty file
        else np.zeros(0, kind)
        for name, kind in kinds.items()
    }
    check_numbers(arrays, manifest.items, own)
    data = Dataset(
        items=arrays["items"],
        times=arrays.get("times"),
        offsets=arrays["offsets"],
        user_ids=read_ids(own / "users.parquet", manifest.users),
        catalogue=Items.read(own / "items.parquet", manifest.items),
        name=manifest.name,
        report=read_report(own / "report.json"),
        parts=arrays.get("parts"),
    )
    if verify and data.data_hash != manifest.data_hash:
        raise DataError(f"the files of {own} do not belong together. Prepare the data set again.")
    return data


def _filtered(frame: pl.DataFrame, config: DataConfig) -> pl.DataFrame:
    """Apply the filters of `build`, in the order given there."""
    if config.duplicates == "drop_exact":
        frame = frame.unique([name for name in frame.columns if name != PART], keep="first", maintain_order=True)
    elif config.duplicates != "keep":
        # "first" and "last" mean in order of time. The stable sort keeps equal times in the order of the file.
        if "time" in frame.columns:
            frame = frame.sort("time", maintain_order=True)
        frame = frame.unique(["user", "item"], keep=config.duplicates, maintain_order=True)
    # Both counts are taken before either filter removes events, so the two do not interact.
    enough = [
        pl.len().over("user") >= config.min_user_events,
        pl.len().over("item") >= config.min_item_events,
    ]
    frame = frame.filter(enough)
    # Removing a user can bring an item below the limit, and the reverse, so repeat until nothing changes.
    while config.k_core > 1:
        smaller = frame.filter([pl.len().over(column) >= config.k_core for column in ("user", "item")])
        if smaller.height == frame.height:
            break
        frame = smaller
    return frame
