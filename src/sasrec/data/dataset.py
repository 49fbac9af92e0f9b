"""The data set: flat arrays of checked events, in memory or mapped from disk.

Three arrays contain all events: the item numbers of one user after another, the times of the events, and the
offset at which each user starts. The events of a user are in order of time; events of equal times keep the order
of the file. Users and items are numbered by the byte order of their ids, so the order of rows changes no number.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.data.items import Items
from sasrec.errors import DataError
from sasrec.events.events import Events
from sasrec.events.report import describe, summary
from sasrec.files import file_digest, write_whole

FORMAT = 1
_ARRAYS = {"items": "<i4", "times": "<i8", "offsets": "<i8"}
_HASHED = {"items.bin", "times.bin", "offsets.bin", "users.parquet", "items.parquet", "report.json"}
_WRITTEN = {*_HASHED, "manifest.json", "rejects.csv"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The histories of all users as item numbers, with the ids of users and items."""

    items: npt.NDArray[np.int32]
    """(events,) item numbers 1..num_items; 0 is padding and never occurs."""
    times: npt.NDArray[np.int64] | None
    """(events,) microseconds since 1970 UTC, or None where the source has no times."""
    offsets: npt.NDArray[np.int64]
    """(users + 1,) user u owns items[offsets[u]:offsets[u + 1]]."""
    user_ids: pl.Series
    """(users,) id of each user number: String, or Int64 where the source's column was of an integer type."""
    catalogue: Items
    """The items, in the order of their numbers."""
    name: str = "events"
    report: dict[str, Any] = field(default_factory=dict)
    """Counts of what was read and kept, as `sasrec prepare` prints them."""

    @property
    def num_users(self) -> int:
        """Number of users; each has at least one event."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """Number of items of the catalogue, padding not counted."""
        return len(self.catalogue)

    @property
    def num_events(self) -> int:
        """Number of events of all users."""
        return len(self.items)

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the arrays and ids; equal for data sets of the same events in the same order."""
        digest = hashlib.sha256(b"sasrec data 1")
        for name, kind in _ARRAYS.items():
            array = getattr(self, name)
            digest.update(name.encode() + (b"none" if array is None else np.asarray(array, kind).tobytes()))
        for ids in (self.user_ids, self.catalogue.ids):
            digest.update("\n".join(ids.cast(pl.String)).encode())
        return digest.hexdigest()

    def item_numbers_of(self, user: int) -> npt.NDArray[np.int32]:
        """(length,) item numbers of user number `user`, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def history(self, user_id: object) -> list[str | int]:
        """The item ids of a user, oldest first.

        Raises: DataError if the user id is not in the data.
        """
        return [
            self.catalogue.id_of(number) for number in self.item_numbers_of(self.user_number(user_id)).tolist()
        ]

    def __repr__(self) -> str:
        size = f"{self.num_users:,} users, {self.num_items:,} items, {self.num_events:,} events"
        return f"Dataset({self.name}: {size}{'' if self.times is not None else ', no times'})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the report of `sasrec prepare`."""
        return "".join(f"<div>{html.escape(line)}</div>" for line in summary(self.report) or [repr(self)])

    def user_number(self, user_id: object) -> int:
        """The number of a user id. Raises: DataError if the id is not in the data."""
        try:
            return self._user_numbers[str(user_id)]
        except KeyError:
            raise DataError(
                f"user {str(user_id)!r} is not in the data set. For a new user, give a history of item ids"
            ) from None

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self.user_ids.cast(pl.String))}

    def save(self, folder: str | Path) -> None:
        """Write the folder that `open_dataset` maps: arrays, ids, report and, last, a manifest of hashes.

        Raises: DataError if the folder contains other files; name another folder.
        """
        folder = Path(folder)
        manifest = folder / "manifest.json"
        # Files of an interrupted save may be replaced. Any other file belongs to somebody.
        present = {path.name for path in folder.iterdir()} if folder.exists() else set()
        unfinished = {
            name
            for name in present
            if name.endswith(".tmp") and any(name.startswith(f".{written}.") for written in _WRITTEN)
        }
        others = present - _WRITTEN - unfinished
        if others and not manifest.exists():
            raise DataError(f"{folder} contains other files. Name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for name in unfinished:
            (folder / name).unlink()
        manifest.unlink(missing_ok=True)  # without a manifest the folder does not count as a data set
        for name, kind in _ARRAYS.items():
            (folder / f"{name}.bin").unlink(missing_ok=True)
            if getattr(self, name) is not None:
                (folder / f"{name}.bin").write_bytes(np.asarray(getattr(self, name), kind).tobytes())
        self.user_ids.rename("id").to_frame().write_parquet(folder / "users.parquet")
        self.catalogue.save(folder / "items.parquet")
        (folder / "report.json").write_text(json.dumps(self.report, indent=2), encoding="utf-8")
        files = [folder / name for name in sorted(_HASHED) if (folder / name).exists()]
        content = {
            "format": FORMAT,
            "name": self.name,
            "users": self.num_users,
            "items": self.num_items,
            "events": self.num_events,
            "data_hash": self.data_hash,
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in files},
        }
        write_whole(manifest, json.dumps(content, indent=2))


def build(
    events: Events,
    config: DataConfig,
    *,
    name: str = "events",
    titles: dict[str, str] | None = None,
    groups: dict[str, str] | None = None,
) -> Dataset:
    """Filter, sort and number checked events.

    Filters run in this order: duplicates are removed; then users and items with too few events, in one pass; then
    the k-core filter runs until nothing changes.

    Raises: DataError if the filters leave no event; lower their minimums.
    """
    frame = _filtered(events.frame, config)
    if frame.is_empty():
        raise DataError(
            f"the filters (min_user_events={config.min_user_events}, min_item_events={config.min_item_events}, "
            f"k_core={config.k_core}) drop all {events.frame.height} events. Lower these minimums"
        )
    has_times = "time" in frame.columns
    user_ids = frame["user"].unique().sort()
    item_ids = frame["item"].unique().sort()
    numbered = frame.select(
        pl.col("user").replace_strict(user_ids, pl.int_range(len(user_ids), eager=True), return_dtype=pl.Int64),
        pl.col("item").replace_strict(
            item_ids, pl.int_range(1, len(item_ids) + 1, eager=True), return_dtype=pl.Int32
        ),
        *(["time"] if has_times else []),
    )
    ordered = numbered.sort(["user", "time"] if has_times else "user", maintain_order=True)
    lengths = np.bincount(ordered["user"].to_numpy(), minlength=len(user_ids))
    return Dataset(
        items=ordered["item"].to_numpy(),
        times=ordered["time"].to_numpy() if has_times else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_ids=user_ids.cast(pl.Int64) if events.integer_users else user_ids,
        catalogue=Items(
            item_ids.cast(pl.Int64) if events.integer_items else item_ids,
            None if titles is None else pl.Series([titles.get(i) for i in item_ids], dtype=pl.String),
            None if groups is None else pl.Series([groups.get(i) for i in item_ids], dtype=pl.String),
        ),
        name=name if _NAME.fullmatch(name) else "events",
        report=describe(events, numbered, lengths, item_ids, config),
    )


def open_dataset(folder: str | Path, *, verify: bool = True) -> Dataset:
    """Map a folder that `Dataset.save` wrote.

    Raises: DataError if the folder is missing or has another format version, or, with `verify`, if a file does not
    match its hash in the manifest.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version, files, users = manifest["format"], manifest["files"], manifest["users"]
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not a data set (it has no manifest.json). Make one with `sasrec prepare`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / 'manifest.json'} is damaged. Prepare the data set again") from None
    if version != FORMAT:
        raise DataError(f"{folder} has format {version}, and this version reads {FORMAT}. Prepare it again")
    if files.keys() - _HASHED:  # a name could lead out of the folder
        raise DataError(f"{folder / 'manifest.json'} names files that a data set does not have. Prepare it again")
    for file, expected in files.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise DataError(f"{path} is missing or cut. Prepare the data set again")
        if verify and file_digest(path) != expected["sha256"]:
            raise DataError(f"{path} has changed since it was written. Prepare the data set again")
    lengths = {"items": manifest["events"], "times": manifest["events"], "offsets": users + 1}
    arrays = {
        name: np.memmap(folder / f"{name}.bin", dtype=kind, mode="r", shape=(lengths[name],))
        if lengths[name]
        else np.zeros(0, kind)
        for name, kind in _ARRAYS.items()
        if f"{name}.bin" in files
    }
    return Dataset(
        items=arrays["items"],
        times=arrays.get("times"),
        offsets=arrays["offsets"],
        user_ids=pl.read_parquet(folder / "users.parquet")["id"],
        catalogue=Items.read(folder / "items.parquet"),
        name=manifest["name"],
        report=json.loads((folder / "report.json").read_text(encoding="utf-8")),
    )


def _filtered(frame: pl.DataFrame, config: DataConfig) -> pl.DataFrame:
    if config.duplicates == "drop_exact":
        frame = frame.unique(maintain_order=True)
    elif config.duplicates != "keep":
        # First and last refer to time. The stable sort keeps equal times in file order.
        if "time" in frame.columns:
            frame = frame.sort("time", maintain_order=True)
        frame = frame.unique(["user", "item"], keep=config.duplicates, maintain_order=True)
    enough = [
        pl.len().over("user") >= config.min_user_events,
        pl.len().over("item") >= config.min_item_events,
    ]
    frame = frame.filter(enough)
    while config.k_core > 1:
        smaller = frame.filter([pl.len().over(column) >= config.k_core for column in ("user", "item")])
        if smaller.height == frame.height:
            break
        frame = smaller
    return frame
