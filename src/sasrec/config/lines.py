"""Where an entry stands in a TOML file that a user wrote, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

_EXPECTED = {
    "metric": "must be a metric such as valid.full.ndcg@10",
    "storage": "must be a URL such as postgresql://HOST/DATABASE",
    "cells": (
        "a name has at most 64 letters, digits, dots, hyphens and underscores, and begins with a letter or digit"
    ),
    "train_dir": "must be a path, without a null character",
}

# Parts of the place of an error that pydantic adds: they are not in the file.
_TAGS = ("[key]", "range", "values", "by file", "by user")


def wrong_entry(path: Path, text: str, error: ValidationError, known: Iterable[str] = ()) -> str:
    """Return the line and the name of the first entry that is wrong, and what is wrong with it.

    `known`: the entries of the file, which the message on an unknown one lists.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    entry = [part for part in first["loc"] if part not in _TAGS]
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch":
        reason = _EXPECTED[str(entry[0])]
    if first["type"] == "extra_forbidden" and len(entry) == 1 and known:
        reason = f"this entry is unknown. The entries are: {', '.join(known)}"
    return f"{line_of(path, text, *entry)}: {'.'.join(map(str, entry))[:100]}: {reason}"


def line_of(path: Path, text: str, *entry: Any) -> str:
    """Return "FILE, line N" for the line of the innermost part of an entry that is found; else FILE."""
    lines, at = text.splitlines(), -1
    for part in entry:
        pattern = re.compile(rf"""\s*(\[.*\b|[\w."']*\.)?["']?{re.escape(str(part))}\b""")
        found = (number for number in range(max(at, 0), len(lines)) if pattern.match(lines[number]))
        at = next(found, at) if isinstance(part, str) else at
    return f"{path}, line {at + 1}" if at >= 0 else str(path)
