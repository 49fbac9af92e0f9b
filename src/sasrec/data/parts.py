"""Parts: which file an event came from, if training, validation and test events come from separate files.

The three files become one data set, in which each event remembers its part. data/split_by_file.py makes the split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.events import Events
from sasrec.events.ids import coded_frame
from sasrec.events.rejected import write_rejects

TRAIN, VALID, TEST = 0, 1, 2
PART_NAMES = ("training", "validation", "test")
PART = "part"  # column of events: TRAIN, VALID or TEST
_NUMERIC = {"s", "ms", "us", "ns"}


def joined(read: Mapping[int, Events], config: DataConfig, rejects_path: Path | None = None) -> Events:
    """Return the events of several files as one, in the order training, validation, test, with a column `part`.

    `read`: the events of each part. The rejects of all parts are written to `rejects_path`.

    Raises: DataError if the files do not belong together: some have times and others not, their times have
    different units, or a file shares no user with training. Remedy: as the message says.
    """
    first = read[TRAIN]
    for part, events in read.items():
        _check_times(PART_NAMES[part], first, events)
        if part != TRAIN:
            _check_users(PART_NAMES[part], first, events)
    rejects = pl.concat([events.rejects for events in read.values()])
    rows = sum(events.read for events in read.values())
    write_rejects(rejects, rejects_path)
    if rejects.height > config.max_rejects >= 0:
        raise DataError(
            f"{rejects.height} of {rows} rows of all files are bad. Fix these rows, or skip them with "
            f"max_rejects={rejects.height} (-1 skips any number of bad rows)."
        )
    frames = [events.frame.with_columns(pl.lit(part, pl.Int8).alias(PART)) for part, events in read.items()]
    coded, user_ids, item_ids = coded_frame(pl.concat(frames))
    counts = ", ".join(
        f"{PART_NAMES[part]} {events.coded.height:,} ({', '.join(events.sources)})"
        for part, events in read.items()
    )
    warnings = [f"events of each file: {counts}", *(text for events in read.values() for text in events.warnings)]
    return dataclasses.replace(
        first,
        coded=coded,
        user_ids=user_ids,
        item_ids=item_ids,
        rejects=rejects,
        read=rows,
        left_out=sum(events.left_out for events in read.values()),
        integer_users=all(events.integer_users for events in read.values()),
        integer_items=all(events.integer_items for events in read.values()),
        warnings=tuple(dict.fromkeys(warnings)),
        sources=tuple(source for events in read.values() for source in events.sources),
    )


def described(ordered: pl.DataFrame) -> tuple[dict[str, int], list[str]]:
    """Return the number of events of each part, and sentences on leaks and copies between the parts.

    `ordered`: user, item, part and, if the data has times, time; the events in the order of the data set.
    """
    parts, notes = pl.col(PART), []
    counts = {name: ordered.filter(parts == part).height for part, name in enumerate(PART_NAMES)}
    for part, earlier in ((VALID, "training file"), (TEST, "training or validation file")):
        name, events = PART_NAMES[part], counts[PART_NAMES[part]]
        if "time" in ordered.columns:
            latest = pl.col("time").filter(parts < part).max().over("user")
            leaks = ordered.filter((pl.col("time") < latest) & (parts == part))
            users = leaks["user"].n_unique()
            if users:
                notes.append(
                    f"leak: {leaks.height:,} of {events:,} {name} events ({users:,} user{'s' * (users > 1)}) are "
                    f"earlier than an event of the same user in the {earlier}. A model that has learned from the "
                    f"user's later events looks better than it is"
                )
        columns = [column for column in ("user", "item", "time") if column in ordered.columns]
        held_out, before = ordered.filter(parts == part), ordered.filter(parts < part)
        if copies := held_out.join(before, on=columns, how="semi").height:
            notes.append(
                f"{copies:,} of {events:,} {name} events are in the {earlier} too (same {_listed(columns)}). They "
                "are not targets, because the user has seen the item before"
            )
    return counts, notes


def _listed(columns: Sequence[str]) -> str:
    return f"{', '.join(columns[:-1])} and {columns[-1]}"


def _check_times(name: str, first: Events, other: Events) -> None:
    timed = ["time" in events.coded.columns for events in (first, other)]
    if timed[0] != timed[1]:
        with_times, without = ("training", name) if timed[0] else (name, "training")
        raise DataError(
            f"the {with_times} file has times and the {without} file has none. Add times to all files, or remove "
            "the time columns."
        )
    units = {first.time_unit, other.time_unit} & _NUMERIC
    if len(units) > 1:
        raise DataError(
            f"the times of the training file look like {first.time_unit}, and those of the {name} file like "
            f"{other.time_unit}. Write all files in one unit, and name this unit with `time_unit`."
        )


def _check_users(name: str, first: Events, other: Events) -> None:
    """Refuse a file without any user of training: its ids are written otherwise, and nothing could be measured."""
    for role in ("user", "item"):
        own, theirs = (events.user_ids if role == "user" else events.item_ids for events in (first, other))
        unknown = theirs.filter(~theirs.is_in(own.implode()))
        bare = unknown.str.replace(r"^(-?\d+)\.0+$", "$1")
        twofold = unknown.filter((bare != unknown) & bare.is_in(own.implode()))
        if len(twofold):
            raise DataError(
                f"the {role} {twofold[0]} of the {name} file ({', '.join(other.sources)}) is written without the "
                "fraction in the training file. Write the ids alike in all files."
            )
        if not theirs.is_in(own.implode()).any():
            raise DataError(
                f"no {role} of the {name} file ({', '.join(other.sources)}) occurs in the training file. An id is "
                f"{theirs.min()!r} there and {own.min()!r} here. Write the ids alike in all files."
            )
