"""Read JSON Lines (one object on each line) and JSON arrays of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.explain import chosen
from sasrec.events.inputs import Input, refuse_wide
from sasrec.events.lines import BLANK, Block, blocks_of, lines_of
from sasrec.events.pieces import LINE, REJECTS, ColumnFacts, Piece
from sasrec.events.plan import Plan, histories_beside, plan_of
from sasrec.events.roles import Columns, choose, has_item
from sasrec.untrusted import free_memory

_DEEPEST = 50
_SAMPLE = 1000  # number of objects searched for keys, which become the columns
_SCALAR = str | int | float
_TYPED = ("$oid", "$date", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal", "$uuid")
_Record = tuple[int, dict[str, Any], str]
"""The line or place, the object, and its text (empty in an array)."""


def read_json(path: Path, config: DataConfig, each: Input, encoding: str, *, whole: bool) -> Iterator[Piece]:
    """Yield the records of a file. `whole`: it is one JSON array, so places in it replace line numbers.

    An object that holds the events of a user as a list, such as a session, gives one event for each element. So
    does an object whose item is a list.

    Raises: DataError if no line is an object. Remedy: write one object per line.
    """
    try:
        yield from _read(path, config, each, encoding, whole=whole)
    except RecursionError:
        raise DataError(
            f"{each.name} has an object that is nested too deeply. Write one flat object a line."
        ) from None


def _read(path: Path, config: DataConfig, each: Input, encoding: str, *, whole: bool) -> Iterator[Piece]:
    if whole:
        longest = free_memory() // 8  # its objects take several times as much as its text
        text = _joined(blocks_of(path, each.name, encoding, longest), each.name, longest)
        yield from _pieces([(_array(text, each.name), pl.DataFrame(schema=REJECTS), ())], config, each)
    else:
        yield from _pieces(_lines(path, each.name, encoding), config, each)


def _joined(blocks: Iterable[Block], name: str, most: int) -> bytes:
    """Return the text of blocks. Raises: DataError if it has more than `most` bytes. Remedy: JSON Lines."""
    texts: list[bytes] = []
    for block in blocks:
        texts.append(block.text)
        if sum(map(len, texts)) > most:
            raise DataError(
                f"{name} is JSON of more than {most:,} bytes in one piece. Write one object on each line."
            )
    return b"".join(texts)


_Part = tuple[list[_Record], pl.DataFrame, tuple[str, ...]]


def _lines(path: Path, name: str, encoding: str) -> Iterator[_Part]:
    """Yield the objects, rejects and notes of each block of lines."""
    blocks = blocks_of(path, name, encoding)
    for block in blocks:
        lines, rejects = lines_of(block)
        records: list[_Record] = []
        bad: list[tuple[int, str, str, str]] = []
        for line, text in lines.iter_rows():
            record, reason = _json_object(text)
            if record is None:
                bad.append((line, "", reason, text))
            else:
                records.append((line, record, text))
        if block.number == 1 and not records:
            text = _joined(chain([block], blocks), name, free_memory() // 8)
            records, bad = _one_object(text, name, bad[0][2] if bad else ""), []
        if block.number == 1 and len(records) == 1:
            _refuse_columns(records[0][1], name)
        yield records, pl.concat([rejects, pl.DataFrame(bad, REJECTS, orient="row")]), block.notes(name)


def _one_object(text: bytes, name: str, reason: str) -> list[_Record]:
    """Return the objects of a file that is one object on several lines. `reason`: why its first line is none."""
    try:
        found = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        python = " It may be a Python dict: read it with ast.literal_eval." if b"{'" in text[:1000] else ""
        raise DataError(
            f"{name}: no line is a non-empty JSON object ({reason or 'it is empty'}). Write one object on each "
            f"line.{python}"
        )
    return [(1, found, "")]


def _refuse_columns(record: dict[str, Any], name: str) -> None:
    """Raise DataError if the one object of a file has columns or histories. Remedy: write one for each event."""
    whole = [
        isinstance(each, list) or (isinstance(each, dict) and (key.isdecimal() or all(map(str.isdecimal, each))))
        for key, each in record.items()
    ]
    if record and all(whole) and _packed_key([record], DataConfig()) is None:
        raise DataError(
            f"{name} is one JSON object, whose values are columns, rows or histories. Write one object for each "
            "event or user, as pandas does with to_json(orient='records', lines=True)."
        )


def _array(text: bytes, name: str) -> list[_Record]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name} is not a valid JSON array: {_why(error)}. Correct it, or write JSON Lines."
        ) from None
    if not found or not all(isinstance(each, dict) for each in found):
        raise DataError(f"{name} is not a JSON array of objects. Write one object for each event.")
    return [(place, record, "") for place, record in enumerate(found, start=1)]


def _pieces(parts: Iterable[_Part], config: DataConfig, each: Input) -> Iterator[Piece]:
    plan: Plan | None = None
    packed: str | None = None
    kinds: dict[str, set[type]] = {"user": set(), "item": set()}
    for raw_records, rejects, notes in parts:
        records = [(line, _flat(record), text) for line, record, text in raw_records]
        if plan is None:
            packed = _packed_key([record for _, record, _ in records[:_SAMPLE]], config)
            sample = _json_sample(_unpacked(records[:_SAMPLE], packed), each.name)
            for name, value in each.constants.items():
                sample[name] = pl.Series([value] * _SAMPLE, dtype=pl.String)
            columns, column_notes, facts = _chosen(sample, config, each.name)
            lists = {
                key: value
                for _, record, _ in records[:_SAMPLE]
                for key, value in record.items()
                if isinstance(value, list) and key != packed
            }
            column_notes += histories_beside(columns, lists, config, each.name)
            found = [isinstance(record.get(columns.item), list) for _, record, _ in records[:_SAMPLE]]
            listed = 2 * sum(found) > len(found)  # otherwise a list is a bad row
            columns = replace(columns, lists=columns.lists and not listed)
            column_notes += [] if packed is None else [f"each element of {packed} is an event"]
            plan = plan_of(columns, column_notes, sample, config, each.name, each.constants)
            notes = (*plan.notes, *notes)
        rows, bad = [], []
        ids = {"user": plan.columns.user, "item": plan.columns.item}
        mixed_before = _mixed(kinds)
        for line, record, text in _unpacked(records, packed):
            for event in _events(record, plan) if listed else [record]:
                column, reason = _fault(event, plan)
                if reason:
                    bad.append((line, column, reason, text or json.dumps(record)))
                    continue
                for role, name in ids.items():
                    kinds[role].add(str if isinstance(event.get(name), str) else int)
                rows.append((line, *(_text(_integer(event, name, ids)) for name in plan.needed)))
        frame = pl.DataFrame(rows, {LINE: pl.Int64, **dict.fromkeys(plan.needed, pl.String)}, orient="row")
        chosen, unlike, left_out = plan.rows(frame)
        rejects = pl.concat([rejects, pl.DataFrame(bad, REJECTS, orient="row"), unlike]).sort("line")
        notes = (*notes, *(note for note in _mixed(kinds) if note not in mixed_before))
        yield Piece(
            chosen, rejects, plan.columns.time is not None,
            (kinds["user"] <= {int}, kinds["item"] <= {int}), left_out, tuple(notes), facts,
        )  # fmt: skip


def _mixed(kinds: dict[str, set[type]]) -> list[str]:
    """Return notes on ids that are numbers in some objects and text in others."""
    return [
        f"the {role} is a number in some objects and text in others; the number 1 and the text 1 are one {role}"
        for role, found in kinds.items()
        if {int, str} <= found
    ]


def _chosen(
    sample: dict[str, pl.Series], config: DataConfig, file: str
) -> tuple[Columns, list[str], tuple[ColumnFacts, ...]]:
    return chosen(lambda: choose(sample, config, file), sample, config)


def _packed_key(records: list[dict[str, Any]], config: DataConfig) -> str | None:
    """Return the key whose value is a list of objects, the events; None if the objects themselves are events.

    An object is an event if it has the item, by the name of a key or by the settings.
    """
    keys = {key for record in records for key in record}
    packed = [
        key
        for key in keys
        if all(isinstance(record.get(key) or [], list) for record in records)
        and any(record.get(key) and isinstance(record[key][0], dict) for record in records)
    ]
    if len(packed) != 1:
        return None
    outer = keys - set(packed)
    return None if has_item(outer, config) else packed[0]


def _unpacked(records: list[_Record], packed: str | None) -> Iterator[_Record]:
    for line, record, text in records:
        if packed is None:
            yield line, record, text
            continue
        outer = {key: value for key, value in record.items() if key != packed}
        for event in record.get(packed) or []:
            yield line, _flat({**outer, **(event if isinstance(event, dict) else {})}), text


def _flat(record: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return a record in which an object inside it, such as {"user": {"id": 1}}, is fields such as user.id.

    Raises: RecursionError for more than 50 objects inside each other.
    """
    if depth > _DEEPEST:
        raise RecursionError
    if not any(isinstance(value, dict) for value in record.values()):
        return record
    flat: dict[str, Any] = {}
    for key, value in record.items():
        inner = _flat(value, depth + 1) if isinstance(value, dict) else None
        flat |= {key: value} if inner is None else {f"{key}.{name}": each for name, each in inner.items()}
    return flat


def _events(record: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """Return the events of a record: one for each element of its item, and of its time, if these are lists."""
    items = record.get(plan.columns.item)
    if not isinstance(items, list):
        return [record]
    times = record.get(plan.columns.time) if plan.columns.time else None
    if not isinstance(times, list):
        return [{**record, plan.columns.item: item} for item in items]
    if len(times) != len(items):
        return [{**record, plan.columns.time or "": times}]
    pairs = zip(items, times, strict=True)
    return [{**record, plan.columns.item: item, plan.columns.time or "": time} for item, time in pairs]


def _json_sample(records: Iterable[_Record], name: str) -> dict[str, pl.Series]:
    """Return the values of each key in the first objects, as text. The first object may lack a key."""
    objects = list(islice((record for _, record, _ in records if record), _SAMPLE))
    if not objects:
        raise DataError(f"{name}: no line is a non-empty JSON object. Write one object on each line.")
    keys = dict.fromkeys(key for record in objects for key in record)
    refuse_wide(len(keys), name)
    return {
        key.encode(errors="backslashreplace").decode(): pl.Series(
            [_sampled(record.get(key)) for record in objects], dtype=pl.String
        )
        for key in keys
    }


def _sampled(value: Any) -> str | None:
    value = value[0] if isinstance(value, list) and value else value
    return _text(value) if isinstance(value, _SCALAR) and not _has_surrogate(value) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _json_object(text: str) -> tuple[dict[str, Any] | None, str]:
    if not text.strip():
        return None, BLANK
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {_why(error)}"
    return (record, "") if isinstance(record, dict) else (None, "not a JSON object")


def _why(error: Exception) -> str:
    """Return the reason of an error of the JSON parser, without the limits inside Python."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has very many digits" if "integer string conversion" in str(error) else str(error)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the value {name} is not a JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> Any:
    """Build an object. One that gives a type, as MongoDB writes {"$oid": "5f…"}, becomes its value."""
    record = dict(pairs)
    if len(pairs) == 1 and pairs[0][0] in _TYPED:
        return pairs[0][1]
    if len(record) < len(pairs):
        duplicate = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {duplicate!r} occurs twice")
    return record


def _fault(record: dict[str, Any], plan: Plan) -> tuple[str, str]:
    columns = plan.columns
    for name in (columns.user, columns.item):
        if name in plan.constants:
            continue
        value = record.get(name)
        if name not in record:
            return name, "the key is missing"
        if isinstance(value, bool) or not (isinstance(value, int | str) or _is_whole(value)):
            return name, "the id is missing" if value is None else "the id is neither text nor an integer"
        if _has_surrogate(value):
            return name, "the id contains an invalid character (a lone surrogate)"
    if columns.time is not None and columns.time not in plan.constants:
        value = record.get(columns.time)
        if columns.time not in record:
            return columns.time, "the key is missing"
        if isinstance(value, list):
            return columns.time, "the times are not as many as the items"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return columns.time, "the time is neither a number nor text"
        if _has_surrogate(value):
            return columns.time, "the time contains an invalid character (a lone surrogate)"
    return "", ""


def _is_whole(value: Any) -> bool:
    """Whether a number is an integer that a program such as pandas wrote as 1.0."""
    return isinstance(value, float) and value.is_integer() and abs(value) < 2**53


def _integer(event: dict[str, Any], name: str, ids: dict[str, str]) -> Any:
    """Return a value; an id such as 1.0 as an integer."""
    value: Any = event.get(name)
    return int(value) if name in ids.values() and _is_whole(value) else value


def _has_surrogate(value: object) -> bool:
    # JSON can escape half of a UTF-16 pair (D800), which UTF-8 cannot encode.
    return isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)
