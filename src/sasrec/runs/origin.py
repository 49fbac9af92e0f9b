"""Where a run comes from, if `train` alone did not decide it: a final fit, or a refresh of another run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sasrec.checkpoint.store import Checkpoint
from sasrec.models import SequenceModel

CHOSEN_BY = "chosen_by"  # key in state.json and log.jsonl: the run that chose the settings of a final fit
REFRESHED_FROM = "refreshed_from"  # key in state.json and log.jsonl: the run whose weights a refresh began with


@dataclass(frozen=True, eq=False)
class Origin:
    """What a run takes from another run, and what its checkpoints record about it."""

    recorded: dict[str, Any] = field(default_factory=dict)
    """Entries of state.json and of the event "start" in log.jsonl."""
    weights: Callable[[SequenceModel], None] | None = None
    """Gives a new model its first weights; None if they are random. A resumed run does not need it."""
    begin: Callable[[], None] | None = None
    """Called when a new run begins, to copy files. A resumed run has them."""
    read: bool = False
    """Whether the data was read already, with the settings of the run."""


def origin_of(found: Checkpoint) -> Origin:
    """Return what a checkpoint records, to continue its training."""
    return Origin({name: found.state[name] for name in (CHOSEN_BY, REFRESHED_FROM) if found.state.get(name)})
