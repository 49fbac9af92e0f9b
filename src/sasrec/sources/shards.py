"""Prepare a folder of Parquet shards, each with all events of its users: one at a time, or each rank its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.data.dataset import (
    Dataset,
    NoneLeftError,
    build,
    open_dataset,
    refuse_none_left,
    stored_name,
    typed_ids,
)
from sasrec.data.items import Items
from sasrec.errors import ConfigError, DataError
from sasrec.events.events import (
    Events,
    FirstParts,
    all_timed,
    read_inputs,
    refuse_another_part,
    refuse_bad_rows,
    where_note,
    with_content,
)
from sasrec.events.inputs import Input, inputs_of
from sasrec.events.report import merged_report
from sasrec.files import missing
from sasrec.runtime.ranks import from_main, joined, meet, rank, world

_SCRATCH = ".shards"  # in the folder of the data set, whose lock says that nobody else uses it


def prepare_shards(
    source: Any,
    config: DataConfig,
    output: str | Path | None,
    finished: Callable[[Dataset], Dataset],
    own_files: dict[str, Any],
) -> Dataset:
    """Read shards, merge them to a data set, write it to `output`, and return it.

    The result is that of reading the whole folder at once, but memory holds only one shard, the ids of all users,
    the times and the bad rows. Under torchrun each rank reads every world-th shard, all from one disk, and rank 0
    merges. `finished`: called with the merged data, to add titles. `own_files`: must have no file.

    Raises: ConfigError without `output`, with own files, or for filters that count events over shards. DataError
    if a user has events in two shards, which then were not split by user, or if shards are not Parquet files, or
    differ in their columns or units of time; and for bad rows, counted over all shards. Each message names the
    remedy.
    """
    _refuse(config, output, own_files)
    folder = Path(str(output))
    with joined("cpu"), inputs_of(source, config.query) as inputs:
        _refuse_no_parquet(inputs)
        shards, notes = with_content(inputs)
        with ExitStack() as held:
            if rank() == 0:
                held.enter_context(Dataset.writing(folder))
                held.enter_context(without_scratch(folder))
            scratch = Path(from_main("shards", lambda: _scratch(folder)))
            first: FirstParts = {}
            for number in range(rank(), len(shards), world()):
                _keep(read_inputs([shards[number]], config, first), config, scratch / str(number))
            (scratch / f"first-{rank()}.json").write_text(json.dumps(first))
            meet()
            if rank() == 0:
                _refuse_other_columns(scratch)
                merged = _merged(scratch, shards, config, folder / "rejects.csv", notes)
                finished(replace(merged, name=stored_name(_name(source)))).save(folder)
            meet()
        return open_dataset(folder, verify=False)


@contextmanager
def without_scratch(output: str | Path) -> Iterator[None]:
    """Before and after the block, remove the shards of a prepare from `output`; this process must hold the folder.

    A killed process leaves its shards.
    """
    shutil.rmtree(Path(output) / _SCRATCH, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(Path(output) / _SCRATCH, ignore_errors=True)


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


def _refuse_no_parquet(inputs: list[Input]) -> None:
    for each in inputs:
        if each.path is not None and not each.path.exists():
            raise DataError(f"{each.path} {missing(each.path)}. Name the folder of the shards.")
        if each.path is None or each.path.suffix.lower() not in (".parquet", ".pq"):
            raise DataError(
                f"shards must be Parquet files, and {each.name} is none. Write the shards as Parquet, or prepare "
                "without `shards`."
            )


def _scratch(output: Path) -> str:
    """Return a new folder in `output`, where shards wait for the merge."""
    (output / _SCRATCH).mkdir()
    return str(output / _SCRATCH)


def _keep(events: Events, config: DataConfig, folder: Path) -> None:
    """Write what is needed of a shard to a new folder: its rows in numbers, its rejects, and its data, if any."""
    folder.mkdir()
    rows = {
        "sources": events.sources,
        "rows_read": events.read,
        "rows_rejected": events.rejects.height,
        "kept": events.coded.height,
        "rows_left_out": events.left_out,
    }
    (folder / "rows.json").write_text(json.dumps(rows))
    events.rejects.write_parquet(folder / "rejects.parquet")
    count = where_note(events.left_out, events.coded.height)  # of this shard alone
    events = replace(events, warnings=tuple(note for note in events.warnings if note != count))
    with suppress(NoneLeftError):
        build(events, config).save(folder / "data")


def _refuse_other_columns(scratch: Path) -> None:
    """Raise DataError if the first shards of the ranks have different columns or roles."""
    parts: FirstParts = {}
    for number in range(world()):
        for folder, (name, columns, roles) in json.loads((scratch / f"first-{number}.json").read_text()).items():
            part = (name, tuple(columns), roles)
            refuse_another_part(parts.setdefault(folder, part), part, folder)


def _name(source: Any) -> str:
    first = source[0] if isinstance(source, list | tuple) else source
    return Path(str(first)).stem.lower() or "events"


def _counted(scratch: Path, count: int, config: DataConfig, rejects: Path) -> dict[str, Any]:
    """Return how many rows all shards have, and "sources". Raises: DataError for bad rows, or if none is left."""
    found = [json.loads((scratch / str(number) / "rows.json").read_text()) for number in range(count)]
    rows: dict[str, Any] = {name: sum(each[name] for each in found) for name in found[0] if name != "sources"}
    rows["sources"] = [name for each in found for name in each["sources"]]
    bad = pl.concat([pl.read_parquet(scratch / str(number) / "rejects.parquet") for number in range(count)])
    refuse_bad_rows(bad, rows["rows_read"], rows["kept"], tuple(rows["sources"]), config, rejects)
    if not any((scratch / str(number) / "data").exists() for number in range(count)):
        refuse_none_left(rows["kept"], config)
    return rows


def _merged(scratch: Path, inputs: list[Input], config: DataConfig, rejects: Path, notes: list[str]) -> Dataset:
    """Merge prepared shards. The arrays of the result are files in `scratch`."""
    rows = _counted(scratch, len(inputs), config, rejects)
    kept = rows.pop("kept")
    notes = [*notes, *([where_note(rows["rows_left_out"], kept)] if config.where else [])]
    filled = [number for number in range(len(inputs)) if (scratch / str(number) / "data").exists()]
    shards = [open_dataset(scratch / str(number) / "data", verify=False) for number in filled]
    names = [inputs[number].name for number in filled]
    timed = all_timed({shard.times is not None for shard in shards}, names)
    units = {str(shard.report["time_unit"]) for shard in shards}
    if len(units) > 1:
        raise DataError(f"shards differ in the unit of time: {', '.join(sorted(units))}. Name it as `time_unit`.")
    item_ids = pl.concat([shard.catalogue.ids.cast(pl.String) for shard in shards]).unique().sort()
    user_ids = pl.concat([shard.user_ids.cast(pl.String) for shard in shards])
    order = user_ids.arg_sort().to_numpy()
    _refuse_two_shards(user_ids, order, [shard.num_users for shard in shards], names)
    lengths = np.concatenate([np.diff(shard.offsets) for shard in shards])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    starts = np.empty(len(order), np.int64)  # of each user, in order of shards
    starts[order] = offsets[:-1]
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
    rows["rows_filtered"] = kept - int(offsets[-1])
    report = merged_report([shard.report for shard in shards], rows, lengths[order], users, len(item_ids), times)
    report["warnings"] = [*notes, *report["warnings"]]
    return Dataset(
        items=items,
        times=times,
        offsets=offsets,
        user_ids=typed_ids(users) if integer_users else users,
        catalogue=Items(typed_ids(item_ids) if integer_items else item_ids),
        report=report,
    )


def _refuse_two_shards(
    user_ids: pl.Series, order: npt.NDArray[np.int64], counts: list[int], names: list[str]
) -> None:
    """Raise DataError if a user occurs in two shards."""
    ordered = user_ids.gather(order)
    twice = np.flatnonzero((ordered[1:] == ordered[:-1]).to_numpy())
    if not len(twice):
        return
    ends = np.cumsum(counts)
    pair = [names[int(np.searchsorted(ends, order[place], side="right"))] for place in (twice[0], twice[0] + 1)]
    raise DataError(
        f"user {ordered[int(twice[0])]!r} has events in two shards, {pair[0]} and {pair[1]} ({len(twice):,} such "
        "users). The folder mixes shards of two splits, or they are not split by user. Write it again, with all "
        "events of a user in one file."
    )


def _array(path: Path, kind: type, length: int) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="w+", shape=(length,)) if length else np.zeros(0, kind)
