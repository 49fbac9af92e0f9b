"""The tables of a store of events, the same in SQLite and PostgreSQL.

`events` has user_id, item_id and time (seconds since 1970 UTC), which the next
training can read with a query, and a key of the user and of the event. `forgotten` has keys of users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Row = tuple[str, str, float, bytes, bytes]
"""user_id, item_id, time, user_key, event_key. The last two are unique together."""
VERSION = 1
"""Version of the tables. A store of another version is refused."""
COLUMNS = ("user_id", "item_id", "time", "user_key", "event_key")


class Tables(Protocol):
    """Reads and writes the tables. `append` and `forget` are for one thread, the others for many.

    Each raises StoreError if the store cannot be used now; a later call may succeed.
    """

    @property
    def where(self) -> str:
        """The file or URL, for messages."""

    def append(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store rows in one transaction; return how many of each batch were new, after the commit."""

    def forget(self, user_key: bytes, now: float) -> bool:
        """Delete the rows of a user, and mark the user; return whether anything changed, after the commit."""

    def history(self, user_key: bytes) -> list[tuple[str, float]]:
        """Return item_id and time of the rows of a user, in order of time, then arrival."""

    def is_forgotten(self, user_key: bytes) -> bool:
        """Whether a user is marked."""

    def close(self) -> None:
        """Close the connections. Nothing is written or read afterwards."""
