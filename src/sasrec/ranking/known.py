"""The catalogue as requests see it: which ids are known, and which items may be recommended."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.items import Items, shown
from sasrec.errors import ConfigError, SasrecWarning, amount
from sasrec.ranking.requests import listed, warn_unknown
from sasrec.ranking.rules import Rules
from sasrec.ranking.selection import Selection
from sasrec.runtime.ranks import rank


class NothingLeft(SasrecWarning):
    """No item is left to recommend, because of `allow`, `deny`, the rules or the seen items."""


@dataclass(frozen=True, eq=False)
class KnownItems:
    """A catalogue, and which of its items occur in training."""

    items: Items
    known_V: npt.NDArray[np.bool_] | None
    """(V,) true for known items; None if all are."""

    def named(self, item_ids: Iterable[object], where: str, stacklevel: int = 7) -> npt.NDArray[np.int64]:
        """Return the item numbers of the known ids, and warn about the other ids, which were given in `where`."""
        numbers, unknown = self.numbers(listed(item_ids, where))
        warn_unknown(unknown, where, stacklevel)
        return numbers

    def numbers(self, item_ids: Iterable[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return the numbers of the known items, in the order of `item_ids`, and the other ids as `shown`."""
        numbers, unknown = self.items.numbers(item_ids)
        unknown = [shown(item_id) for item_id in unknown]
        if self.known_V is None:
            return numbers, unknown
        known = self.known_V[numbers]
        return numbers[known], [*unknown, *map(self.not_in_training, numbers[~known].tolist())]

    def not_in_training(self, item: int) -> str:
        """Return how messages show an item that has a number, but no event in training."""
        return f"{shown(self.items.id_of(item))} (not in training)"

    def allowed(self, allow: Iterable[object] | None, deny: Iterable[object]) -> npt.NDArray[np.bool_] | None:
        """Return (V,): true for items that may be recommended; None if all may be."""
        denied = self.named(deny, "deny list")
        if allow is None and not len(denied) and self.known_V is None:
            return None
        allowed_V = np.full(len(self.items) + 1, allow is None)
        if allow is not None:
            allowed_V[self.named(allow, "allow list")] = True
        elif self.known_V is not None:
            allowed_V = self.known_V.copy()
        allowed_V[denied] = False
        return allowed_V

    def selection(
        self,
        allow: Iterable[object] | None,
        deny: Iterable[object],
        rules: Rules | None,
        users: Sequence[object] | None = None,
        times: npt.NDArray[np.int64] | None = None,
    ) -> Selection:
        """Return what may be recommended, by lists of ids and by rules.

        `users`: (rows,) ids of the users, for bans. `times`: (rows,) microseconds since 1970 at which items must
        be available; without it, the time of the rules.

        Raises: the errors of `Rules.on`; ConfigError if `rules` are of another type. Remedy: use `Rules`.
        """
        allowed_V = self.allowed(allow, deny)
        if rules is None:
            return Selection(allowed_V, allow=allow is not None)
        if not isinstance(rules, Rules):
            raise ConfigError(
                f"rules must be sasrec.Rules, not {rules!r}. Use sasrec.Rules(...) or sasrec.Rules.load(path)."
            )
        of_items = rules.on(self.items)
        times = times if rules.now is None else None
        static = times is not None or of_items.availability is None
        now_V = of_items.allowed_at(None if static else rules.moment())
        allowed_V = now_V if allowed_V is None else allowed_V & now_V
        by_row = of_items.by_row(users, times, rules.name)
        return Selection(allowed_V, by_row, allow=allow is not None, rules=True)

    def everybody(
        self, data: Dataset, ticks: npt.NDArray[np.int64] | None, fallback: str | None = None
    ) -> tuple[npt.NDArray[np.int64], Histories]:
        """Return the user numbers, (U,), of all users with a known item in their history, and these histories.

        The histories omit items that are not known. `ticks`: (events,) those of the data, for models with time.
        `fallback`: what answers for the other users.
        """
        items, offsets = data.items, data.offsets
        if self.known_V is None:
            users = np.flatnonzero(np.diff(offsets))
            return users, Histories(items, ticks, offsets[users], offsets[users + 1])
        known_E = self.known_V[items]
        # Offsets into the known events: count the known events before each user.
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(known_E)])[offsets]
        users = np.flatnonzero(np.diff(offsets))
        if (removed := int((~known_E).sum())) and rank() == 0:  # one warning, not one per process
            without = data.num_users - len(users)
            get = "can get no recommendations" if fallback is None else f"get the list of the fallback {fallback}"
            note = f". {amount(without, 'user')} with only such events {get}" if without else ""
            warnings.warn(
                f"histories omit {amount(removed, 'event')} with items that are not in training{note}",
                SasrecWarning,
                stacklevel=4,
            )
        ticks = None if ticks is None else ticks[known_E]
        return users, Histories(items[known_E], ticks, offsets[users], offsets[users + 1])


def warn_nothing_left(selection: Selection, some: str = "") -> None:
    """Warn that nothing is left to recommend, and why.

    `some`: words for the users concerned, if other users get recommendations.
    """
    allowed_V = selection.allowed_V
    if selection.rules:
        reason = "the rules leave no item that is not in the history"
    elif allowed_V is None or bool(allowed_V[1:].any()):
        reason = "the history has every item that may be recommended"
    elif selection.allow:
        reason = "the allow list has no known item that is not in the deny list too"
    else:
        reason = "the deny list has every item"
    if rank() == 0:  # one warning, not one per process
        category = SasrecWarning if some else NothingLeft
        warnings.warn(f"nothing is left to recommend {some}because {reason}", category, stacklevel=5)
