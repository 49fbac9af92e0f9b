"""Short ways to read sources in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sasrec


def histories(source: Any, **options: Any) -> dict[Any, list[Any]]:
    """The items of each user, in order."""
    data = sasrec.prepare(source, **options)
    return {user: data.history(user) for user in data.user_ids}


def notes(source: Any, **options: Any) -> list[str]:
    """What the report says about how the source was read."""
    found: list[str] = sasrec.prepare(source, **options).report["warnings"]
    return found


def made(folder: Path, name: str, text: str) -> Path:
    """Write a file; return its path."""
    (folder / name).write_text(text)
    return folder / name
