"""Prepare a folder of Parquet shards, each with all events of its users: one at a time, or each rank its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.data.dataset import Dataset, build, open_dataset, typed_ids
from sasrec.data.items import Items
from sasrec.errors import ConfigError, DataError
from sasrec.events.events import read_events
from sasrec.events.inputs import inputs_of
from sasrec.events.report import merged_report
from sasrec.runtime.ranks import from_main, joined, meet, rank, world


def prepare_shards(
    source: Any,
    config: DataConfig,
    output: str | Path | None,
    finished: Callable[[Dataset], Dataset],
    own_files: dict[str, Any],
) -> Dataset:
    """Read shards, merge them to a data set, write it to `output`, and return it.

    The result is that of reading the whole folder at once, but memory holds only one shard, the ids of all users
    and the times. Under torchrun each rank reads every world-th shard, all from one disk, and rank 0 merges.
    `finished`: called with the merged data, to add titles. `own_files`: must have no file.

    Raises: ConfigError without `output`, with own files, or for filters that count events over shards. DataError
    if a user has events in two shards, which then were not split by user, or if shards are not Parquet files, or
    differ in their units of time. Each message names the remedy.
    """
    _refuse(config, output, own_files)
    folder = Path(str(output))
    with joined("cpu"), inputs_of(source, config.query) as inputs:
        paths = [each.path for each in inputs if each.path is not None and each.path.suffix == ".parquet"]
        if len(paths) < len(inputs):
            raise DataError("shards must be Parquet files. Write them as Parquet, or prepare without `shards`.")
        with Dataset.writing(folder) if rank() == 0 else nullcontext():
            scratch = Path(from_main("shards", lambda: _scratch(folder)))
            try:
                for number in range(rank(), len(paths), world()):
                    rejects = folder / f"rejects-{paths[number].stem}.csv"
                    build(read_events(paths[number], config, rejects), config).save(scratch / str(number))
                meet()
                if rank() == 0:
                    merged = _merged([scratch / str(number) for number in range(len(paths))], paths, scratch)
                    finished(replace(merged, name=_name(source))).save(folder)
                meet()
            finally:
                if rank() == 0:
                    shutil.rmtree(scratch, ignore_errors=True)
        return open_dataset(folder, verify=False)


def _refuse(config: DataConfig, output: str | Path | None, own_files: dict[str, Any]) -> None:
    if output is None:
        raise ConfigError("`shards` needs `output`, the folder to write. Set it.")
    if given := [name for name, file in own_files.items() if file is not None]:
        raise ConfigError(f"`{given[0]}` is a file of its own, which `shards` does not read. Remove one.")
    for name in ("min_item_events", "k_core"):
        if getattr(config, name):
            raise ConfigError(
                f"`{name}` counts the events of an item in all shards, and each is read alone. Filter before the "
                "events are split, or prepare without `shards`."
            )


def _scratch(output: Path) -> str:
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=f".{output.name}-shards-", dir=output.absolute().parent)


def _name(source: Any) -> str:
    first = source[0] if isinstance(source, list | tuple) else source
    return Path(str(first)).stem.lower() or "events"


def _merged(folders: list[Path], paths: list[Path], scratch: Path) -> Dataset:
    """Merge prepared shards. The arrays of the result are files in `scratch`."""
    shards = [open_dataset(folder, verify=False) for folder in folders]
    units = {str(shard.report["time_unit"]) for shard in shards}
    if len(units) > 1:
        raise DataError(f"shards differ in the unit of time: {', '.join(sorted(units))}. Name it as `time_unit`.")
    item_ids = pl.concat([shard.catalogue.ids.cast(pl.String) for shard in shards]).unique().sort()
    user_ids = pl.concat([shard.user_ids.cast(pl.String) for shard in shards])
    order = user_ids.arg_sort().to_numpy()
    _refuse_two_shards(user_ids, order, [shard.num_users for shard in shards], paths)
    lengths = np.concatenate([np.diff(shard.offsets) for shard in shards])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    starts = np.empty(len(order), np.int64)  # of each user, in order of shards
    starts[order] = offsets[:-1]
    timed = shards[0].times is not None
    items = _array(scratch / "items", np.int32, int(offsets[-1]))
    times = _array(scratch / "times", np.int64, int(offsets[-1])) if timed else None
    first = 0
    for shard in shards:
        ids = shard.catalogue.ids.cast(pl.String)
        numbers = np.append(0, item_ids.search_sorted(ids).to_numpy() + 1).astype(np.int32)
        own = starts[first : first + shard.num_users]
        place = np.arange(shard.num_events) + np.repeat(own - shard.offsets[:-1], np.diff(shard.offsets))
        items[place] = numbers[shard.items]
        if times is not None and shard.times is not None:
            times[place] = shard.times
        first += shard.num_users
    integer_users = all(shard.user_ids.dtype.is_integer() for shard in shards)
    integer_items = all(shard.catalogue.ids.dtype.is_integer() for shard in shards)
    users = user_ids.gather(order)
    report = merged_report([shard.report for shard in shards], lengths[order], users, len(item_ids), times)
    return Dataset(
        items=items,
        times=times,
        offsets=offsets,
        user_ids=typed_ids(users) if integer_users else users,
        catalogue=Items(typed_ids(item_ids) if integer_items else item_ids),
        report=report,
    )


def _refuse_two_shards(
    user_ids: pl.Series, order: npt.NDArray[np.int64], counts: list[int], paths: list[Path]
) -> None:
    """Raise DataError if a user occurs in two shards."""
    ordered = user_ids.gather(order)
    twice = np.flatnonzero((ordered[1:] == ordered[:-1]).to_numpy())
    if not len(twice):
        return
    ends = np.cumsum(counts)
    pair = [
        paths[int(np.searchsorted(ends, order[place], side="right"))].name for place in (twice[0], twice[0] + 1)
    ]
    raise DataError(
        f"user {ordered[int(twice[0])]!r} has events in two shards, {pair[0]} and {pair[1]} ({len(twice):,} such "
        "users). The folder mixes shards of two splits, or they are not split by user. Write it again, with all "
        "events of a user in one file."
    )


def _array(path: Path, kind: type, length: int) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="w+", shape=(length,)) if length else np.zeros(0, kind)
