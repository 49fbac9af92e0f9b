"""Explain text files that do not begin with the table: reports with lines above it, and dumps of databases."""

from __future__ import annotations

import re

import polars as pl

_SQL = re.compile(r"(?i)^\s*(insert\s+into|copy\s.+\sfrom\s+stdin|create\s+table)\b")
_SEPARATORS = ("\t", "::", ",", ";", "|")
_HEAD = 100  # lines in which to look


def what_precedes(lines: pl.Series, file: str) -> str:
    """Return a message with a remedy if the first lines are not rows of a table; "" if nothing shows it."""
    first = lines.head(_HEAD).to_list()
    if any(_SQL.match(line) for line in first):
        return (
            f"{file} is a dump in SQL. Load it into its database, and read that with `query`, or export it as CSV."
        )
    filled = {separator: [_filled(line, separator) for line in first] for separator in _SEPARATORS}
    if any(counts[0] > 1 for counts in filled.values()):
        return ""  # the first line has several fields, so it can be that of the names
    for separator, counts in filled.items():
        typical = _most_common(counts)
        if typical == 1:
            continue
        start = next(place for place, count in enumerate(counts) if count >= typical)
        widths = [line.count(separator) + 1 for line in first[start:]]
        if widths.count(widths[0]) > 0.9 * len(widths):
            count = "line is" if start == 1 else f"{start} lines are"
            return (
                f"{file}: the first {count} not part of the table ({first[0].strip()[:40]}): from then on, lines "
                f"have {widths[0]} fields. Remove what is above the table, and keep the line of the names."
            )
    return ""


def _filled(line: str, separator: str) -> int:
    """Return the number of fields that are not empty; 1 if all are."""
    return max(1, sum(bool(field.strip()) for field in line.split(separator)))


def _most_common(numbers: list[int]) -> int:
    return max(reversed(numbers), key=numbers.count)
