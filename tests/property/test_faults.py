"""Faulty files of five kinds, with random spellings: each is read right, refused with a remedy, or noted by name."""

from __future__ import annotations

import json
import random
import re
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.cli.lists import ids
from sasrec.errors import ConfigError, DataError
from tests.synthetic import chain_frame

SEED = 15
REMEDY = re.compile(
    r"(time_column|time_format|time_unit|max_rejects|columns=|encoding|items_id|_column|`missing`)"
    r"|\b(Write|Convert|Read|Save|Use|Give|Export|Join|Fix|Correct|Name|Put|Check|Choose|Add|Separate|iconv) "
)
DAY = 86_400


@dataclass
class Case:
    """A source, and what is right. `named`: texts, one of which a note must have if the result is another one."""

    said: str
    source: Any
    options: dict[str, Any]
    truth: dict[str, list[str]]
    times: dict[str, list[int]] | None = None
    """Seconds; None where the source has none or they are not compared."""
    named: list[str] = field(default_factory=list)
    rejected: int = 0
    """Bad rows that the options allow to skip."""
    sound: bool = False
    """Whether only one reading is possible, so that a refusal is a fault, too."""


@dataclass
class Row:
    user: str
    item: str
    second: int


def rows_of(rng: random.Random, *, start: int = 1_577_836_800, span: int = 600, days: bool = False) -> list[Row]:
    """Rows in random order; the events of a user are on different days. `days`: all at midnight."""
    rows = []
    for user in range(rng.randint(4, 9)):
        for day in rng.sample(range(span), rng.randint(4, 9)):
            second = start + day * DAY + (0 if days else rng.randrange(DAY))
            rows.append(Row(f"u{user}", f"item-{rng.randrange(12):02d}", second))
    rng.shuffle(rows)
    return rows


def histories(rows: list[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.second):
        found.setdefault(row.user, []).append(row.item)
    return found


def moments(rows: list[Row]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: row.second):
        found.setdefault(row.user, []).append(row.second)
    return found


def in_file_order(rows: list[Row]) -> dict[str, list[str]]:
    return histories([Row(row.user, row.item, place) for place, row in enumerate(rows)])


def written(
    rng: random.Random, columns: dict[str, list[Any]], path: Path, *, kinds: str = "csv tsv jsonl"
) -> Path:
    """Write columns of text or numbers in a random order and format."""
    names = rng.sample(list(columns), len(columns))
    kind = rng.choice(kinds.split())
    path = path.with_suffix("." + kind)
    rows = list(zip(*(columns[name] for name in names), strict=True))
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
    else:
        separator = {"csv": ",", "tsv": "\t"}[kind]

        def cell(value: Any) -> str:
            text = "" if value is None else str(value)
            return f'"{text}"' if separator in text or rng.random() < 0.02 else text

        lines = [separator.join(names), *(separator.join(map(cell, row)) for row in rows)]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def date(second: int, form: str) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(form)


def excel(second: int) -> float:
    return second / DAY + 25_569


def styled(rng: random.Random, words: list[str]) -> str:
    """Words as one name: snake, kebab, camel, Pascal, upper or joined."""
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    forms = ["_".join(words), "-".join(words), " ".join(words), camel, camel[0].upper() + camel[1:]]
    return rng.choice([*forms, "_".join(words).upper(), "".join(words), "_".join(words).title()])


FOREIGN = [
    "时间",
    "购买日期",
    "Datum",
    "Zeitpunkt",
    "Bestelldatum",
    "fecha",
    "fecha_compra",
    "horaEvento",
    "дата",
    "heure",
]
FOREIGN += [
    "tijdstip",
    "日付",
    "date_achat",
    "zeitstempel",
    "tarih",
    "seen",
    "moment",
    "viewed",
    "x",
    "Uhrzeit",
    "klockslag",
]
_FIRST = (
    "event click order invoice review visit purchase rating transaction created watched unix last local server"
)
_LAST = "time date ts timestamp dt datetime at day when epoch utc"
FIRST, LAST = _FIRST.split(), _LAST.split()


def time_name(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return rng.choice(FOREIGN)
    return styled(rng, [rng.choice(FIRST), rng.choice(LAST)] if rng.random() < 0.8 else [rng.choice(LAST)])


def extras(rng: random.Random, rows: list[Row]) -> dict[str, list[Any]]:
    """Columns that are no times, or only a part of one."""
    release = {row.item: rng.randrange(1_000_000_000, 1_500_000_000) for row in rows}
    every: dict[str, list[Any]] = {
        "duration": [rng.randint(1, 300) for _ in rows],
        "day": [int(date(row.second, "%d")) for row in rows],
        "watch_time": [rng.randint(1, 5000) for _ in rows],
        "playtime_ms": [rng.randint(1, 500_000) for _ in rows],
        "year": [rng.randint(1980, 2020) for _ in rows],
        "hourmin": [int(date(row.second, "%H%M")) for row in rows],
        "price": [round(rng.uniform(1, 90), 2) for _ in rows],
        "rating": [rng.randint(1, 5) for _ in rows],
        "counter": [101 + place % 31 for place in range(len(rows))],
        "stock": [rng.randint(40_000, 41_000) for _ in rows],
        "release_date": [date(release[row.item], "%Y-%m-%d") for row in rows],
        "position": list(range(len(rows), 0, -1)),
        "update_count": [rng.randint(1, 30) for _ in rows],
        "sentiment": [round(rng.random(), 3) for _ in rows],
    }
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(0, 4))}


FORMS: dict[str, Callable[[int], Any]] = {
    "s": lambda t: t,
    "ms": lambda t: t * 1000,
    "us": lambda t: t * 10**6,
    "ns": lambda t: t * 10**9,
    "iso": lambda t: date(t, "%Y-%m-%dT%H:%M:%SZ"),
    "iso blank": lambda t: date(t, "%Y-%m-%d %H:%M:%S"),
    "text s": str,
    "yyyymmddhhmmss": lambda t: int(date(t, "%Y%m%d%H%M%S")),
    "us am": lambda t: date(t, "%m/%d/%Y %I:%M:%S %p"),
    "german": lambda t: date(t, "%d.%m.%Y %H:%M:%S"),
    "rfc": lambda t: date(t, "%a, %d %b %Y %H:%M:%S GMT"),
    "slash": lambda t: date(t, "%Y/%m/%d %H:%M:%S"),
    "basic": lambda t: date(t, "%Y%m%dT%H%M%S"),
    "us date": lambda t: date(t, "%m/%d/%Y"),
    "yyyymmdd": lambda t: int(date(t, "%Y%m%d")),
    "iso day": lambda t: date(t, "%Y-%m-%d"),
    "amazon": lambda t: date(t, "%m %d, %Y"),
}
DAYS_ONLY = ("us date", "yyyymmdd", "iso day", "amazon")


def names_of_times(rng: random.Random, path: Path) -> Case:
    """Kind 2: a time column under some name beside columns that are none; or only parts of a time."""
    form = rng.choice(list(FORMS))
    rows = rows_of(rng, days=form in DAYS_ONLY)
    columns: dict[str, list[Any]] = {"user_id": [row.user for row in rows], "item_id": [row.item for row in rows]}
    others = extras(rng, rows)
    if rng.random() < 0.2:  # no time, or a coarse part
        truth = histories(rows) if {"day", "hourmin"} & set(others) else in_file_order(rows)
        source = written(rng, columns | others, path)
        return Case(f"no time beside {list(others)}", source, {}, truth, named=list(others))
    if rng.random() < 0.1:  # date and time of day apart
        both = {
            "date": [date(r.second, "%Y-%m-%d") for r in rows],
            "time": [date(r.second, "%H:%M:%S") for r in rows],
        }
        source = written(rng, columns | both, path)
        return Case("date and time apart", source, {}, histories(rows), moments(rows), list(both))
    name = time_name(rng)
    columns |= others | {name: [FORMS[form](row.second) for row in rows]}
    sound = (
        not others and form in ("s", "ms", "iso") and name.lower() in ("event_time", "invoice_date", "click-ts")
    )
    source = written(rng, columns, path)
    return Case(
        f"{name}: {form} beside {list(others)}", source, {}, histories(rows), moments(rows), [name], sound=sound
    )


STAND_INS = [
    "0",
    "-1",
    "9999999999",
    "",
    "0001-01-01",
    "1970-01-01",
    "NULL",
    "0000-00-00",
    "nan",
    "9999-12-31",
    "-",
]
OTHER_FORMATS = [
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%y.%m.%d",
    "%Y/%m/%d",
    "%y-%m-%d",
]
OTHER_FORMATS += [
    "%d-%m-%Y",
    "%d-%m-%y",
    "%m-%d-%Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%Y%m",
    "%y%m%d",
    "%d%m%Y",
    "%m%d%Y",
    "%Y-W%W-%w",
    "%j",
]
OTHER_FORMATS += [
    "%a %b %d %H:%M:%S %Y",
    "%d/%b/%Y:%H:%M:%S +0000",
    "%Y.%m.%d",
    "%m.%d.%Y",
    "%Y-%d-%m",
    "%I:%M %p %d.%m.%Y",
]


def odd_times(rng: random.Random, path: Path) -> Case:
    """Kind 3: counters, mixed units, stand-ins, calendar numbers, other formats, short floats."""
    name = rng.choice(
        ["time", "timestamp", "ts", "date", "Date", "event_day", "createdAt", "order_dt", time_name(rng)]
    )
    which = rng.randrange(9)
    rows = rows_of(rng, span=rng.choice([25, 300, 600]))
    options: dict[str, Any] = {}
    count = len(rows)
    bad = set(rng.sample(range(count), rng.choice([1, 2, max(1, count // 5), count // 2])))
    kept = [row for place, row in enumerate(rows) if place not in bad]
    truth, times, rejected, typed = histories(rows), moments(rows), 0, None
    if which == 0:
        low, high = rng.choice([(101, 131), (40_000, 41_000), (1, 500), (1980, 2020), (0, 5), (33_000, 59_000)])
        texts = [rng.randint(low, high) for _ in rows]
        if rng.random() < 0.5:  # counts down, so that neither order is that of the file
            texts = [high - place % (high - low + 1) for place in range(count)]
        said, truth, times = f"counter {low}-{high}", in_file_order(rows), {}
    elif which == 1:
        unit, other = rng.sample([1, 1000, 10**6], 2)
        texts = [row.second * (other if place in bad else unit) for place, row in enumerate(rows)]
        said = f"units {unit} and {other}"
        if rng.random() < 0.3 and len(bad) * 2 < count:
            options, truth, times, rejected = {"max_rejects": -1}, histories(kept), moments(kept), len(bad)
    elif which == 2:
        form = rng.choice(["s", "ms", "iso", "yyyymmdd", "german", "yyyymmddhhmmss"])
        stand_in = rng.choice(STAND_INS)
        texts = [stand_in if place in bad else str(FORMS[form](row.second)) for place, row in enumerate(rows)]
        said = f"{stand_in!r} among {form}"
        if rng.random() < 0.3 and len(bad) * 2 < count and form in ("s", "iso"):
            options, truth, times, rejected = {"max_rejects": -1}, histories(kept), moments(kept), len(bad)
    elif which == 3:
        form = rng.choice(
            ["mmdd", "mmdd text", "excel", "excel days", "yyyymmdd", "yyyymmddhhmm", "decimal comma"]
        )
        seconds = [row.second for row in rows]
        texts = {
            "mmdd": [int(date(t, "%m%d")) for t in seconds],
            "mmdd text": [date(t, "%m%d") for t in seconds],
            "excel": [round(excel(t), 5) for t in seconds],
            "excel days": [int(excel(t)) for t in seconds],
            "yyyymmdd": [int(date(t, "%Y%m%d")) for t in seconds],
            "yyyymmddhhmm": [int(date(t, "%Y%m%d%H%M")) for t in seconds],
            "decimal comma": [str(round(excel(t), 5)).replace(".", ",") for t in seconds],
        }[form]
        said, times = form, None
    elif which == 4:
        form = rng.choice(OTHER_FORMATS)
        texts, said, times = [date(row.second, form) for row in rows], form, None
    elif which == 5:
        scale = rng.choice(["s", "ms", "excel", "yyyymmdd"])
        exact = [excel(r.second) if scale == "excel" else FORMS[scale](r.second) for r in rows]
        typed = pl.Series(exact, dtype=pl.Float64, strict=False).cast(pl.Float32)
        texts, said, times = [], f"float32 {scale}", None
    elif which == 6:
        digits = rng.choice([2, 5, 9, 12])
        texts = [f"{row.second * rng.choice([1, 1]):.{digits}E}" for row in rows]
        said, times = f"scientific with {digits} digits", None
        if digits >= 9:
            times = moments(rows)
    elif which == 7:
        form = rng.choice([".NET ticks", "Cocoa", "minutes", "days", "WebKit", "FILETIME"])
        scaled = {
            ".NET ticks": lambda t: (t + 62_135_596_800) * 10**7, "Cocoa": lambda t: t - 978_307_200,
            "minutes": lambda t: t // 60, "days": lambda t: t // DAY,
            "WebKit": lambda t: (t + 11_644_473_600) * 10**6, "FILETIME": lambda t: (t + 11_644_473_600) * 10**7,
        }[form]  # fmt: skip
        texts, said = [scaled(row.second) for row in rows], form
        name = rng.choice(["time", name])
    else:
        form, other = rng.sample(["%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d"], 2)
        texts = [date(row.second, other if place in bad else form) for place, row in enumerate(rows)]
        said, times = f"{form} and {other}", None
    columns: dict[str, Any] = {"user": [row.user for row in rows], "item": [row.item for row in rows]}
    if typed is not None:
        source: Any = pl.DataFrame(columns).with_columns(typed.alias(name))
        source = rng.choice([source, source.to_pandas()])
    else:
        source = written(rng, columns | {name: texts}, path)
    # Where 1/2/2020 can be two days and the other rows decide, the note on the format is all there can be; so is
    # that on Excel's days where the name says date and the numbers repeat as dates do.
    named = [name, "check that this is right", *{0: ["Excel's days"], 8: ["read by the format"]}.get(which, [])]
    return Case(f"{name}: {said}, {len(bad)} odd", source, options, truth, times, named, rejected)


MISSING = ["NA", "N/A", "NULL", "\\N", "None", "nan", "", " ", '""', "<NA>", "#N/A"]


def missing_ids(rng: random.Random, path: Path) -> Case:
    """Kind 4: missing users and items, in any spelling and case."""
    rows = rows_of(rng)
    bad = set(rng.sample(range(len(rows)), rng.choice([1, 2, len(rows) // 5])))
    kept = [row for place, row in enumerate(rows) if place not in bad]
    role = rng.choice(["user", "item"])
    word = rng.choice(MISSING)
    word = rng.choice([word, word.lower(), word.upper(), word.title(), f" {word} "])
    way = rng.choice(["text", "text", "null", "NaN"])
    columns: dict[str, Any] = {"user": [row.user for row in rows], "item": [row.item for row in rows]}
    columns["time"] = [row.second for row in rows]
    if way == "NaN":  # a missing value turns integers into floats
        columns[role] = [float(re.sub(r"\D", "", text)) for text in columns[role]]
        for row in rows:
            setattr(row, role, str(int(re.sub(r"\D", "", getattr(row, role)))))
        columns[role] = [float("nan") if place in bad else each for place, each in enumerate(columns[role])]
        source: Any = pd.DataFrame(columns)
    elif way == "null":
        columns[role] = [None if place in bad else each for place, each in enumerate(columns[role])]
        source = rng.choice([pl.DataFrame(columns), pd.DataFrame(columns), written(rng, columns, path)])
    else:
        columns[role] = [word if place in bad else each for place, each in enumerate(columns[role])]
        source = written(rng, columns, path)
    if rng.random() < 0.5:
        options: dict[str, Any] = {"max_rejects": -1}
        return Case(f"{role} {word!r} as {way}", source, options, histories(kept), moments(kept), [word], len(bad))
    return Case(f"{role} {word!r} as {way}", source, {}, histories(rows), None, [word])


ID_FORMS = (
    "rounded|some rounded|comma rounded|short rounded|java|huge text|huge json|uint64|beyond 64 bits|uuid text|"
    "uuid objects|uuid bytes|bytes|raw bytes|decimal|decimal fraction|categories|floats|float text|float and integer|"
    "zeros|negative|float32|enum|bool|int8|invisible|mixed objects|currency"
)


def kinds_of_ids(rng: random.Random, path: Path) -> Case:
    """Kind 5: ids of every type; in = out."""
    rows = rows_of(rng)
    role = rng.choice(["user", "item"])
    old = sorted({getattr(row, role) for row in rows})
    form = rng.choice(ID_FORMS.split("|"))
    base = rng.randrange(10**11, 10**12)
    numbers = [base + rng.randrange(1000) * 1000 + place for place in range(len(old))]
    new: list[Any] = [str(number) for number in numbers]
    values = dict(zip(old, new, strict=True))
    said: dict[str, Any] = dict(values)
    name = {"user": "user_id", "item": "item_id"}[role]
    dtype: Any = pl.String
    if form in ("rounded", "some rounded", "comma rounded", "short rounded", "java"):
        places = {"rounded": 5, "some rounded": 5, "comma rounded": 5, "short rounded": 0, "java": 11}[form]
        for place, each in enumerate(old):
            text = f"{float(values[each]):.{places}E}"
            text = {"comma rounded": text.replace(".", ","), "java": text.replace("E+", "E")}.get(form, text)
            said[each] = text if form != "some rounded" or place % 4 == 0 else values[each]
    elif form in ("huge text", "huge json", "uint64", "beyond 64 bits"):
        top = 2**70 if form == "beyond 64 bits" else 2**64
        values = {each: str(top - 1 - place - rng.randrange(1000) * 100) for place, each in enumerate(old)}
        said = {each: text if form == "huge text" else int(text) for each, text in values.items()}
        dtype = pl.UInt64
    elif form.startswith("uuid"):
        made = {each: uuid.UUID(int=rng.getrandbits(128)) for each in old}
        values = {each: str(value) for each, value in made.items()}
        said = {"uuid text": dict(values), "uuid objects": made}.get(form, {k: v.bytes for k, v in made.items()})
    elif form == "bytes":
        width = rng.choice([8, 15, 16, 20])
        values = {each: f"id{place:0{width - 2}d}" for place, each in enumerate(old)}
        said = {each: text.encode() for each, text in values.items()}
    elif form == "raw bytes":
        said = {each: rng.getrandbits(64).to_bytes(8, "big") for each in old}
    elif form in ("decimal", "decimal fraction"):
        extra = ".50" if form == "decimal fraction" else ""
        values = {each: text + extra for each, text in values.items()}
        said = {each: Decimal(text) for each, text in values.items()}
        dtype = pl.Decimal(38, 2)
    elif form in ("floats", "float text", "float and integer", "float32"):
        values = {each: str(100_000_000 * (form == "float32") + place) for place, each in enumerate(old)}
        said = {each: float(text) for each, text in values.items()}
        dtype = pl.Float32 if form == "float32" else pl.Float64
        if form == "float text":
            values = said = {each: text + ".0" for each, text in values.items()}
    elif form in ("zeros", "negative", "currency"):
        pattern = {"zeros": "{:05d}", "negative": "-{}", "currency": "${},000"}[form]
        values = said = {each: pattern.format(place + 1) for place, each in enumerate(old)}
    elif form == "bool":
        values = {each: str(place % 2 == 0) for place, each in enumerate(old)}
        said, dtype = {each: text == "True" for each, text in values.items()}, pl.Boolean
    elif form == "int8":
        values = {each: str(place - 5) for place, each in enumerate(old)}
        said, dtype = {each: int(text) for each, text in values.items()}, pl.Int8
    elif form == "invisible":
        said[old[0]] = rng.choice(["\u200b", "\ufeff", "\u00a0", "\u2060"])
    cells = [said[getattr(row, role)] for row in rows]
    if form == "float and integer":
        cells = [str(cell) if rng.random() < 0.5 else str(int(cell)) for cell in cells]
    if form == "mixed objects":
        cells = [int(cell) if rng.random() < 0.5 else cell for cell in cells]
    for row in rows:
        setattr(row, role, values[getattr(row, role)])
    columns: dict[str, Any] = {"user_id": [row.user for row in rows], "item_id": [row.item for row in rows]}
    columns |= {name: cells, "time": [row.second for row in rows]}
    if form in ("categories", "enum"):
        frame = pl.DataFrame(columns)
        kind = pl.Categorical if form == "categories" else pl.Enum(sorted(set(cells)))
        source: Any = frame.with_columns(pl.col(name).cast(kind))
        source = rng.choice([source, source.to_pandas()])
    elif form in ("uuid objects", "mixed objects"):
        source = pd.DataFrame(columns)
    elif form in (
        "uuid bytes",
        "bytes",
        "raw bytes",
        "uint64",
        "decimal",
        "decimal fraction",
        "floats",
        "float32",
        "bool",
        "int8",
    ):
        binary = form in ("uuid bytes", "bytes", "raw bytes")
        source = pl.DataFrame(columns, schema_overrides={name: pl.Binary if binary else dtype})
        if rng.random() < 0.4:
            source.write_parquet(path.with_suffix(".parquet"))
            source = path.with_suffix(".parquet")
        elif rng.random() < 0.5:
            source = source.to_pandas()
    else:
        json_only = form in ("huge json", "beyond 64 bits")
        source = written(rng, columns, path, kinds="jsonl" if json_only else "csv tsv jsonl")
    return Case(
        f"{role} {form}", source, {}, histories(rows), moments(rows), [name, str(next(iter(said.values())))]
    )


def outcome(case: Case) -> tuple[str, str]:
    """Return right, refused or noted, or "" for a silent fault; and what happened."""
    try:
        data = sasrec.prepare(case.source, **case.options)
    except (DataError, ConfigError) as error:
        if not REMEDY.search(str(error)):
            return "", f"no remedy: {error}"
        return ("", f"sound, but refused: {error}") if case.sound else ("refused", str(error))
    found, times = {}, {}
    names = data.catalogue.ids.cast(pl.String).to_list()
    for place, user in enumerate(data.user_ids.cast(pl.String).to_list()):
        part = slice(int(data.offsets[place]), int(data.offsets[place + 1]))
        found[user] = [names[item - 1] for item in data.items[part].tolist()]
        if data.times is not None:
            times[user] = data.times[part].tolist()
    notes = data.report["warnings"]
    if found == case.truth and data.report["rows_rejected"] == case.rejected and same_times(case, times):
        return "right", str(notes)
    # What was chosen is not what was noted as odd.
    odd = [
        re.sub("^.* is used as the time, not |^columns recognised by their names and values.*", "", note)
        for note in notes
    ]
    if any(text and text in note for note in odd for text in case.named):
        return "noted", str(notes)
    return "", f"taken silently: {notes}\n{found}\nnot {case.truth}\n{times}"


def same_times(case: Case, times: dict[str, list[int]]) -> bool:
    if case.times is None or not times:
        return case.times != {} or not times
    return times == {user: [second * 10**6 for second in seconds] for user, seconds in case.times.items()}


ITEMS = ["004", "029", "-5", "3", "a, b", "it 1", 'say "hi"', "x;y", "café", "naïve", "日本", "item-12", "@home"]


def lists(rng: random.Random, path: Path) -> tuple[str, str, str]:
    """Kind 6: a list of ids in a file. Return what it is, the outcome, and what happened."""
    wanted = rng.sample(ITEMS, rng.randint(1, 5))
    way = rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"])
    end = rng.choice(["\n", "\r\n", "\r"])
    quote = rng.choice(["csv", "all", "single", "none"])
    joined = rng.random() < 0.2
    lines = []
    for each in wanted:
        plain = quote == "none" or (quote == "csv" and not re.search('[",]', each))
        doubled = each.replace('"', '""')
        text = each if plain else f"'{each}'" if quote == "single" else f'"{doubled}"'
        lines.append(rng.choice(["", " ", "\ufeff"]) * (rng.random() < 0.2) + text + " " * rng.randrange(2))
    between = rng.choice([",", ";", "\t", " "]) if joined else end
    text = between.join(lines) + end * rng.randrange(3)
    said = f"{wanted} in {way}, ends {end!r}, quotes {quote}, between {between!r}"
    try:
        path.write_bytes(text.encode(way))
    except UnicodeEncodeError:
        return said, "right", "cannot be written"
    known = set(ITEMS)
    try:
        found = ids("--deny", f"@{path}", known.__contains__)
    except ConfigError as error:
        return said, "refused" if REMEDY.search(str(error)) else "", str(error)
    unknown = [each for each in found if each not in known]
    if found == wanted:
        return said, "right", ""
    # The command names the ids that are unknown.
    return said, "noted" if unknown and set(found) - set(unknown) <= set(wanted) else "", f"{found}"


def titles(rng: random.Random, path: Path, data: pl.DataFrame) -> tuple[str, str, str]:
    """Kind 6: a file of titles with some fault."""
    items = sorted(set(data["item"]))
    words = ["Café", "The", "Naïve", "Ring", "ночь", "夜", "Night, Day", "One; Two", "A|B", 'Say "x"', "Ünder"]
    truth = {each: f"{rng.choice(words)} {place}" for place, each in enumerate(items)}
    share = rng.choice([0.1, 0.4, 0.6, 0.9, 1, 1, 1])
    given = {each: truth[each] for each in items if rng.random() < share} or truth
    separator = rng.choice([",", ";", "\t", "|", "::", " - "])
    way = rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1", "cp1251", "gbk"])
    rows = list(given.items())
    twice = rng.random() < 0.3
    if twice:
        rows += [(each, rng.choice([title, title + " again"])) for each, title in rows[: len(rows) // 3]]
    if rng.random() < 0.3:
        rng.shuffle(rows)

    def cell(text: str) -> str:
        doubled = text.replace('"', '""')
        return f'"{doubled}"' if quoted and re.search(f'["{re.escape(separator)}]', text) else text

    quoted = rng.random() < 0.7
    header = rng.choice([["item", "title"], ["id", "name"], ["movieId", "Title"], None])
    fields = [*([header] if header else []), *([cell(a), cell(b)] for a, b in rows)]
    text = "\n".join(map(separator.join, fields)) + "\n"
    said = f"{len(rows)} rows for {len(items)} items, {separator!r}, {way}, header {header}, quoted {quoted}, twice {twice}"
    path.write_bytes(text.encode(way, errors="replace"))
    # Bytes that lost letters, or are valid UTF-8 of another text, cannot be told from others.
    data_bytes = path.read_bytes()
    changed = data_bytes.decode(way) != text
    with suppress(UnicodeDecodeError):
        changed |= way in ("gbk", "cp1251", "cp1252", "latin-1") and data_bytes.decode() != text
    try:
        done = sasrec.prepare(data, items=path)
    except (DataError, ConfigError) as error:
        return said, "refused" if REMEDY.search(str(error)) else "", str(error)
    assert done.catalogue.titles is not None
    found = dict(zip(done.catalogue.ids.to_list(), done.catalogue.titles.to_list(), strict=True))
    if changed or found == truth:
        return said, "right", ""
    notes = " ".join(note for note in done.report["warnings"] if path.name in note)
    wrong = any(title is not None and title != truth[each] for each, title in found.items())
    missing = any(title is None for title in found.values())
    said_all = (not missing or "have a title in" in notes) and (
        not wrong or re.search("Windows-1252|two titles", notes)
    )
    return said, "noted" if said_all else "", f"{notes} {found}"


KINDS = {"names of times": names_of_times, "times": odd_times, "missing": missing_ids, "ids": kinds_of_ids}


def check(each: int, folder: Path) -> dict[str, Counter[str]]:
    """Make so many cases of each kind; fail with all faults, or return how each kind came out."""
    counts: dict[str, Counter[str]] = {}
    faults = []
    titled = chain_frame(users=12, items=14, seed=3)
    for kind in (*KINDS, "lists", "titles"):
        counts[kind] = Counter()
        for number in range(each // (1 + (kind in ("lists", "titles")))):
            rng = random.Random(f"{SEED} {kind} {number}")
            place = folder / f"{kind[:5].strip()}{number}"
            if kind in KINDS:
                case = KINDS[kind](rng, place)
                said = case.said
                try:
                    result, what = outcome(case)
                except Exception as error:
                    result, what = "", f"raw {type(error).__name__}: {error}"
            elif kind == "lists":
                said, result, what = lists(rng, place)
            else:
                said, result, what = titles(rng, place.with_suffix(".txt"), titled)
            counts[kind][result or "silent"] += 1
            if not result:
                faults.append(f"{kind} {number}: {said}\n    {what[:600]}")
    assert not faults, f"{counts}\n{len(faults)} faults:\n" + "\n".join(faults)
    return counts


def test_a_hundred_faulty_files_are_right_refused_or_noted(tmp_path: Path) -> None:
    counts = check(20, tmp_path)
    assert sum(count["right"] for count in counts.values()) >= 30, "refusing everything is no reading"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_faulty_files_are_right_refused_or_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = check(200, tmp_path)
    with capsys.disabled():
        for kind, count in counts.items():
            counted = f"{count['right']} right, {count['refused']} refused, {count['noted']} noted"
            sys.stdout.write(f"\n{kind}: {counted}")
