"""Read JSON Lines: one object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.lines import blocks_of_lines
from sasrec.events.pieces import REJECTS, ROWS, Piece
from sasrec.events.roles import Columns, choose

_JSON_SAMPLE = 1000  # number of objects searched for keys, which become the columns


def read_json_lines(path: Path, config: DataConfig) -> Iterator[Piece]:
    """Yield the blocks of a file. Raises: DataError if no line is an object. Remedy: write one object per line."""
    columns: Columns | None = None
    for lines, rejects, notes in blocks_of_lines(path):
        rows, bad = [], []
        integers = [True, True]
        if columns is None:
            sample = _json_sample(lines["text"])
            if not sample:
                raise DataError(f"{path.name}: no line is a non-empty JSON object. Write one object on each line.")
            columns, column_notes = choose(sample, config, path.name)
            notes = [*column_notes, *notes]
        for line, text in lines.iter_rows():
            record, reason = _json_object(text)
            column = ""
            if record is not None:
                column, reason = _json_fault(record, columns)
            if record is None or reason:
                bad.append((line, column, reason, text))
                continue
            ids = [record[columns.user], record[columns.item]]
            integers = [known and isinstance(value, int) for known, value in zip(integers, ids, strict=True)]
            time = None if columns.time is None else str(record[columns.time])
            rows.append((line, str(ids[0]), str(ids[1]), time))
        yield Piece(
            pl.DataFrame(rows, ROWS, orient="row"),
            pl.concat([rejects, pl.DataFrame(bad, REJECTS, orient="row")]).sort("line"),
            columns.time is not None,
            (integers[0], integers[1]),
            tuple(notes),
        )


def _json_sample(texts: pl.Series) -> dict[str, pl.Series]:
    """Return the values of each key in the first 1,000 objects, as text. The first object may lack a key."""
    objects = list(islice((record for record, _ in map(_json_object, texts) if record is not None), _JSON_SAMPLE))
    keys = dict.fromkeys(key for record in objects for key in record)
    return {
        key.encode(errors="backslashreplace").decode(): pl.Series(
            [
                str(value) if isinstance(value, str | int | float) and not _has_surrogate(value) else None
                for value in (record.get(key) for record in objects)
            ],
            dtype=pl.String,
        )
        for key in keys
    }  # fmt: skip


def _json_object(text: str) -> tuple[dict[str, Any] | None, str]:
    if not text.strip():
        return None, "the line is blank"
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return (record, "") if isinstance(record, dict) else (None, "not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the value {name} is not a JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        duplicate = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {duplicate!r} occurs twice")
    return record


def _json_fault(record: dict[str, Any], columns: Columns) -> tuple[str, str]:
    for name in (columns.user, columns.item):
        value = record.get(name)
        if name not in record:
            return name, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | str):
            return name, "the id is neither text nor an integer"
        if _has_surrogate(value):
            return name, "the id contains an invalid character (a lone surrogate)"
    if columns.time is not None:
        value = record.get(columns.time)
        if columns.time not in record:
            return columns.time, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return columns.time, "the time is neither a number nor text"
        if _has_surrogate(value):
            return columns.time, "the time contains an invalid character (a lone surrogate)"
    return "", ""


def _has_surrogate(value: object) -> bool:
    # JSON can escape half of a UTF-16 pair (D800), which UTF-8 cannot encode.
    return isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)
