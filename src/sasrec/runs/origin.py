"""Where a run comes from, if `train` alone did not decide it: a final fit, or a refresh of another run."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec.checkpoint.store import Checkpoint
from sasrec.data.splits import Split
from sasrec.errors import CheckpointError
from sasrec.models import SequenceModel

CHOSEN_BY = "chosen_by"  # key in state.json and log.jsonl: the run that chose the settings of a final fit
REFRESHED_FROM = "refreshed_from"  # key in state.json and log.jsonl: the run whose weights a refresh began with
TRAINED_USERS = "trained_users"  # key in state.json: the users that a refresh trains on, one bit each, in base 64


@dataclass(frozen=True, eq=False)
class Origin:
    """What a run takes from another run, and what its checkpoints record about it."""

    recorded: dict[str, Any] = field(default_factory=dict)
    """Entries of state.json and of the event "start" in log.jsonl."""
    users: npt.NDArray[np.bool_] | None = None
    """(users,) true for the users to train on; None for all."""
    weights: Callable[[SequenceModel], None] | None = None
    """Gives a new model its first weights; None if they are random. A resumed run does not need it."""
    read: bool = False
    """Whether the data was read already, with the settings of the run."""

    def state(self) -> dict[str, Any]:
        """Return the entries of state.json."""
        packed = (
            {} if self.users is None else {TRAINED_USERS: b64encode(np.packbits(self.users).tobytes()).decode()}
        )
        return {**self.recorded, **packed}

    def only_users(self, split: Split) -> Split:
        """Return the split with the training events of these users only; all else stays."""
        if self.users is None:
            return split
        training = split.training
        return replace(
            split, training=replace(training, ends=np.where(self.users, training.ends, training.starts))
        )


def origin_of(found: Checkpoint, num_users: int) -> Origin:
    """Return what a checkpoint records, to continue its training.

    Raises: CheckpointError if the list of users is damaged. Remedy: use another checkpoint.
    """
    recorded = {name: found.state[name] for name in (CHOSEN_BY, REFRESHED_FROM) if found.state.get(name)}
    if found.state.get(TRAINED_USERS) is None:
        return Origin(recorded)
    try:
        bits = np.frombuffer(b64decode(found.state[TRAINED_USERS], validate=True), np.uint8)
    except (ValueError, TypeError):
        bits = np.zeros(0, np.uint8)
    if len(bits) != (num_users + 7) // 8:
        raise CheckpointError(
            f"{found.path} has {TRAINED_USERS} that do not fit its data. Use another checkpoint."
        )
    return Origin(recorded, np.unpackbits(bits)[:num_users].astype(bool))
