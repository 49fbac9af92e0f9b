"""Files in any layout that people bring, made from a known history: the truth to compare a reading with."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import uuid
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

HISTORIES = dict[str, list[tuple[int | None, list[str]]]]
"""User -> times in order, each with its items in order of text; without times, one group an item."""

_START, _DAY = 1_500_000_000, 86_400
_IDS: dict[str, Callable[[int, random.Random], str]] = {
    "small": lambda n, _: str(n + 1),
    "from 0": lambda n, _: str(n),
    "thousands": lambda n, _: str(10_000 + 37 * n),
    "padded": lambda n, _: f"{n + 1:06d}",
    "word": lambda n, _: f"x{n}",
    "own word": lambda n, _: f"{n}",  # completed with u or i by `_ids`
    "uuid": lambda n, chance: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    "amazon": lambda n, _: f"{n:08d}",  # completed by `_ids`
    "huge": lambda n, _: str(2**63 + 977 * n),
    "ten digits": lambda n, _: str(1_400_000_000 + 7919 * n),  # as seconds
    "like dates": lambda n, _: f"2015{1 + n // 28:02d}{1 + n % 28:02d}",
    "eight digits": lambda n, _: str(20_000_000 + 911 * n),
    "hex": lambda n, chance: f"{chance.getrandbits(64):016x}",
    "mail": lambda n, _: f"person.{n}@example.org",
    "comma": lambda n, _: f"No, {n}",
    "letters": lambda n, _: "".join(chr(97 + n // 26**k % 26) for k in (2, 1, 0)),
}
_ID_KINDS = [kind for kind in _IDS if kind != "like dates"]
_NUMBERS = ("small", "from 0", "thousands", "padded", "huge", "ten digits", "eight digits")
_UNTIDY = {"comma"}  # ids that only formats with quotes can hold


def _iso(form: str) -> Callable[[int], str]:
    return lambda us: datetime.fromtimestamp(us // 10**6, UTC).strftime(form)


_HOUR, _MINUTE, _SECOND = 3_600_000_000, 60_000_000, 1_000_000
# The text of a time in microseconds, and what of it the text keeps.
_TIMES: dict[str, tuple[Callable[[int], str], int]] = {
    "s": (lambda us: str(us // 10**6), _SECOND),
    "s.": (lambda us: f"{us // 10**6}.{us % 10**6 // 10**5}", 100_000),
    "s.0": (lambda us: f"{us // 10**6}.0", _SECOND),
    "ms": (lambda us: str(us // 1000), 1000),
    "us": (str, 1),
    "ns": (lambda us: str(us * 1000), 1),
    "iso T": (_iso("%Y-%m-%dT%H:%M:%SZ"), _SECOND),
    "iso": (_iso("%Y-%m-%d %H:%M:%S"), _SECOND),
    "iso minute": (_iso("%Y-%m-%d %H:%M"), _MINUTE),
    "iso day": (_iso("%Y-%m-%d"), 24 * _HOUR),
    "zone": (_iso("%Y-%m-%dT%H:%M:%S+00:00"), _SECOND),
    "yyyymmdd": (_iso("%Y%m%d"), 24 * _HOUR),
    "yyyymmddhhmmss": (_iso("%Y%m%d%H%M%S"), _SECOND),
    "american": (_iso("%m/%d/%Y"), 24 * _HOUR),
    "american time": (_iso("%m/%d/%Y %H:%M:%S"), _SECOND),
    "german": (_iso("%d.%m.%Y %H:%M"), _MINUTE),
    "slashes": (_iso("%Y/%m/%d %H:%M:%S"), _SECOND),
    "rfc": (_iso("%a, %d %b %Y %H:%M:%S GMT"), _SECOND),
    "words": (_iso("%d %b %Y"), 24 * _HOUR),
    "basic": (_iso("%Y%m%dT%H%M%SZ"), _SECOND),
    "excel": (lambda us: f"{us // (3 * _HOUR) / 8 + 25_569:.3f}", 3 * _HOUR),
}
_KNOWN_NAMES = {
    "user": ["user", "user_id", "userId", "UserID", "uid", "customer_id", "visitorid", "session_id", "reviewerID"],
    "item": ["item", "item_id", "itemId", "movieId", "MovieID", "asin", "product_id", "ProductID", "article_id"],
    "time": ["time", "timestamp", "ts", "date", "event_time", "unixReviewTime", "Timestamp", "created_at"],
}
_OTHER_NAMES = {
    "user": ["Kunde", "usuario", "client", "用户", "who", "a", "NutzerID", "Kundennummer", "account"],
    "item": ["Artikel", "producto", "商品", "what", "b", "Buch", "SKU", "Titel", "Produkt"],
    "time": ["Datum", "fecha", "时间", "when", "c", "invoice_date", "eventdate", "t_dat", "seen", "Zeitpunkt"],
}
_NAMES = {
    "rating": ["rating", "Rating", "stars", "score"],
    "category": ["category", "genre", "cat"],
    "price": ["price", "amount"],
    "title": ["title", "name"],
    "row": ["", "Unnamed: 0", "index"],
}


@dataclass(frozen=True)
class Layout:
    """A file, or a folder, and what must be read from it."""

    path: Path
    truth: HISTORIES
    kind: str
    """The container, whether there is a header, and the separator."""
    clear: bool
    """Whether usual names and forms leave nothing to decide, so that a refusal would be wrong."""
    said: str
    """All choices, for the message of a failing test."""


def histories(rows: list[tuple[str, str, int | None]]) -> HISTORIES:
    """Return the histories of rows of user, item and time in microseconds, in order of the file."""
    found: HISTORIES = defaultdict(list)
    for user, item, time in sorted(rows, key=lambda row: row[2] or 0):
        groups = found[user]
        if time is not None and groups and groups[-1][0] == time:
            groups[-1][1].append(item)
        else:
            groups.append((time, [item]))
    return {user: [(time, sorted(items)) for time, items in groups] for user, groups in found.items()}


def layout(seed: int, folder: Path) -> Layout:
    """Write one file in a layout that the seed decides."""
    chance = random.Random(seed)
    records = _records(chance)
    choice = _Choice(chance, records)
    kept = choice.columns
    form, step = _TIMES[choice.time_form]
    rows = [(row["user"], row["item"], row["time"] // step * step if "time" in kept else None) for row in records]
    table = [{**row, "time": form(row["time"])} for row in records]
    fields = [[row[name] for name in kept] for row in table]
    path = choice.write(folder, fields)
    return Layout(path, histories(rows), choice.kind, choice.clear, repr(choice))


def _records(chance: random.Random) -> list[dict[str, Any]]:
    """Return events with keys user, item, time (microseconds), rating and category, in the order of the file."""
    tiny = chance.random() < 0.1
    users, items = (chance.randint(2, 6), chance.randint(4, 12)) if tiny else (chance.randint(30, 60), 0)
    items = items or chance.choice([15, 40, 100, 300])
    pace = chance.choice(["sessions", "sessions", "spread", "all at once", "news"])
    kinds = chance.choice(_ID_KINDS), chance.choice([*_ID_KINDS, "like dates"])
    names = [
        _ids(role, kind, count, chance) for role, kind, count in zip("ui", kinds, (users, items), strict=True)
    ]
    if chance.random() < 0.5:  # ids in no order
        for each in names:
            chance.shuffle(each)
    rated = chance.choice([range(1, 6), [x / 2 for x in range(1, 11)], range(1, 101), range(2)])
    records = []
    favourites = [1 / (n + 1) for n in range(items)]
    launches = [_START + chance.randrange(900 * _DAY) for _ in range(items)]
    skewed = chance.random() < 0.3
    for user in names[0]:
        moment = _START + chance.randrange(900 * _DAY)
        count = chance.randint(2, 4) if tiny else chance.randint(3, 25)
        for _ in range(min(60, int(count * chance.lognormvariate(0, 1)) + 2) if skewed else count):
            item = (
                chance.choices(range(items), favourites)[0] if chance.random() < 0.7 else chance.randrange(items)
            )
            if pace == "news":
                moment = launches[item] + int(chance.expovariate(1) * 3600)
            records.append(
                {
                    "user": user,
                    "item": names[1][item],
                    "time": moment * 10**6 + chance.choice([0, 500_000]),
                    "rating": str(chance.choice(rated)),
                    "category": f"{'abcdefg'[item % 7]}ooks",
                    "price": f"{3 + item * 37 % 500}.{item % 90 + 10}",
                    "title": f"The Story of {item}",
                    "row": "",
                }
            )
            gap = {"sessions": 60 if chance.random() < 0.8 else 20 * _DAY, "spread": 30 * _DAY}.get(pace, 0)
            moment += int(chance.expovariate(1) * gap) if gap else 0
            if pace == "all at once":
                moment = _START + chance.randrange(900 * _DAY)
    order = chance.choice(["user", "item", "time", "shuffled", "user only", "user id", "item id"])
    if order in ("shuffled", "user only"):
        chance.shuffle(records)
    if order.endswith(" id"):  # as by ORDER BY
        key = order.removesuffix(" id")
        records.sort(key=lambda row: (len(row[key]), row[key], row["time"]))
    elif order != "shuffled":
        key = "user" if order == "user only" else order
        places = {each: place for place, each in enumerate(dict.fromkeys(str(row[key]) for row in records))}
        if order in ("user", "item"):
            records.sort(key=lambda row: row["time"])
        records.sort(key=lambda row: row["time"] if key == "time" else places[str(row[key])])
    for place, row in enumerate(records):
        row["row"] = str(place)
    return records


def _ids(role: str, kind: str, count: int, chance: random.Random) -> list[str]:
    ids = list(dict.fromkeys(_IDS[kind](n, chance) for n in range(count)))
    if kind == "own word":
        return [f"{role}{each}" for each in ids]
    if kind == "amazon":
        return [("A1" if role == "u" else "B0") + each for each in ids]
    return ids


class _Choice:
    """The choices of one layout, beside those of the events."""

    def __init__(self, chance: random.Random, records: list[dict[str, Any]]) -> None:
        self.chance = chance
        self.container = chance.choices(
            ["text", "json lines", "json array", "parquet", "sequences", "lists"], [12, 1, 1, 1, 2, 1]
        )[0]
        self.time_form = chance.choice(["s", "s", "s", "ms", "iso T", "iso", *_TIMES])
        extra = [
            name for name in ("time", "rating", "category") if chance.random() < {"time": 0.75}.get(name, 0.4)
        ]
        self.columns = ["user", "item", *extra]
        if self.container in ("sequences", "lists"):
            self.columns = ["user", "item", *(["time"] if self.container == "lists" and "time" in extra else [])]
        chance.shuffle(self.columns)
        self.usual = chance.random() < 0.6
        self.names = {
            role: chance.choice(
                _NAMES.get(role)
                or (_KNOWN_NAMES[role] if self.usual or chance.random() < 0.4 else _OTHER_NAMES[role])
            )
            for role in self.columns
        }
        self.header = self.container not in ("text", "sequences") or chance.random() < 0.5
        self.separator = chance.choice([",", ",", ";", "\t", "\t", "|", "::", " "])
        values = [row[name] for row in records for name in ("user", "item")]
        if self.separator in ("::", " ") and any(" " in value for value in values):
            self.separator = ","
        if self.separator == " " and " " in _TIMES[self.time_form][0](0) and "time" in self.columns:
            self.separator = "\t"
        self.packing = chance.choices(["", "gzip", "zip", "parts"], [6, 1, 1, 1])[0]
        self.kind = f"{self.container}{' with header' if self.header else ' without header'}" + (
            f", {'comma' if self.separator == ',' else repr(self.separator)}" if self.container == "text" else ""
        )
        self.ids = records[0]["user"], records[0]["item"]
        steady = self.time_form in ("s", "ms", "iso T", "iso", "zone")
        self.clear = self.header and self.usual and self.container != "sequences" and steady
        self.clear &= self.names["user"] != self.names["item"]

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != "chance"}
        return f"{shown}"

    def write(self, folder: Path, fields: list[list[str]]) -> Path:
        """Write the rows, packed or in parts, and return the path."""
        write, ending = {
            "text": (self._text, {",": ".csv", "\t": ".tsv", "::": ".dat"}.get(self.separator, ".txt")),
            "json lines": (self._json_lines, ".jsonl"),
            "json array": (self._json_array, ".json"),
            "parquet": (self._parquet, ".parquet"),
            "sequences": (self._sequences, ".txt"),
            "lists": (self._lists, ".data"),
        }[self.container]
        if self.container == "text" and self.chance.random() < 0.2:
            ending = ".txt"
        if self.packing == "parts" and self.container not in ("sequences", "lists"):
            size = max(1, len(fields) // 3)
            target = folder / "parts"
            target.mkdir()
            for part, start in enumerate(range(0, len(fields), size)):
                (target / f"part-{part}{ending}").write_bytes(write(fields[start : start + size]))
            return target
        content = write(fields)
        path = folder / f"a{ending}"
        if self.packing == "gzip" and ending != ".parquet":
            path = folder / f"a{ending}.gz"
            content = gzip.compress(content, 1)
        if self.packing == "zip" and ending != ".parquet":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr(f"a{ending}", content)
            path, content = folder / "a.zip", packed.getvalue()
        path.write_bytes(content)
        return path

    def _text(self, fields: list[list[str]]) -> bytes:
        rows = [[self.names[name] for name in self.columns], *fields] if self.header else fields
        end = self.chance.choice(["\n", "\n", "\r\n"])
        if self.separator in ("::", " "):
            return "".join(self.separator.join(row) + end for row in rows).encode()
        stream = io.StringIO()
        csv.writer(stream, delimiter=self.separator, lineterminator=end).writerows(rows)
        return stream.getvalue().encode()

    def _objects(self, fields: list[list[str]]) -> list[dict[str, Any]]:
        """Return one object a row; numbers are numbers or text, the same for a column in all rows."""
        rows = [dict(zip([self.names[name] for name in self.columns], row, strict=True)) for row in fields]
        for name in rows[0]:
            values = [row[name] for row in rows]
            if len(name) % 2 and all(value.isdecimal() and str(int(value)) == value for value in values):
                rows = [{**row, name: int(row[name])} for row in rows]
        return rows

    def _json_lines(self, fields: list[list[str]]) -> bytes:
        return "".join(json.dumps(each) + "\n" for each in self._objects(fields)).encode()

    def _json_array(self, fields: list[list[str]]) -> bytes:
        return json.dumps(self._objects(fields), indent=len(fields) % 3 or None).encode()

    def _parquet(self, fields: list[list[str]]) -> bytes:
        stream = io.BytesIO()
        objects = self._objects(fields)
        columns = {name: [row[name] for row in objects] for name in objects[0]}
        series = [
            pl.Series(name, values, pl.UInt64 if isinstance(values[0], int) else pl.String)
            for name, values in columns.items()
        ]
        pl.DataFrame(series).write_parquet(stream)
        return stream.getvalue()

    def _lists(self, fields: list[list[str]]) -> bytes:
        """Return one row a user, with a list of items, and perhaps a list of times, as JSON Lines or Parquet."""
        rows: dict[str, dict[str, Any]] = {}
        user = self.columns.index("user")
        others = [(place, self.names[role]) for place, role in enumerate(self.columns) if role != "user"]
        for row in fields:
            new = {self.names["user"]: row[user], **{name: [] for _, name in others}}
            found = rows.setdefault(row[user], new)
            for place, name in others:
                found[name].append(row[place])
        if self.chance.random() < 0.5:
            return "".join(json.dumps(each) + "\n" for each in rows.values()).encode()
        stream = io.BytesIO()
        pl.DataFrame(list(rows.values())).write_parquet(stream)
        return stream.getvalue()

    def _sequences(self, fields: list[list[str]]) -> bytes:
        user, item = self.columns.index("user"), self.columns.index("item")
        lists: dict[str, list[str]] = defaultdict(list)
        for row in fields:
            lists[row[user]].append(row[item])
        outer, inner = self.chance.choice(
            [("\t", ","), (" ", " "), ("\t", " "), (",", " "), ("\t", "\t"), (";", "|")]
        )
        if any(" " in text for row in fields for text in row):
            outer, inner = "\t", ","
        rows = [[each, inner.join(items)] for each, items in lists.items()]
        names = [self.names["user"], self.names["item"]]
        if self.header and outer == inner:
            outer, inner = "\t", ","
            rows = [[each, ",".join(items)] for each, items in lists.items()]
        rows = [names, *rows] if self.header else rows
        return "".join(outer.join(row) + "\n" for row in rows).encode()
