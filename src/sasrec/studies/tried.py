"""What a search has tried, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tried:
    """One run of a search."""

    run: str
    """The name of the run in the study."""
    settings: dict[str, Any]
    """The settings that the search chose."""
    value: float | None
    """The metric of the search, on validation; None if the run has none yet."""
    state: str
    """"done", "pruned", "failed", "running" or "queued"."""


@dataclass(frozen=True)
class Searched:
    """A search, as far as it is."""

    tried: tuple[Tried, ...]
    """In the order in which the runs were chosen."""
    importance: dict[str, float] = field(default_factory=dict)
    """Setting -> its share of the variation of the metric; empty while too little was tried."""
