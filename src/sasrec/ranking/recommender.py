"""History -> the best items, in the user's own ids, by the same ranking path that evaluation measures."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from sasrec.batches.ticks import personal_times, user_ticks
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.data.splits import TrainingPart
from sasrec.errors import ConfigError, DataError
from sasrec.models import SequenceModel
from sasrec.ranking.candidates import candidate_scores, own_blocks, summed
from sasrec.ranking.scorers import ModelScorer, Scorer
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained model and the items that it ranks; with a data set, also its users."""

    model: SequenceModel
    items: Items
    data: Dataset | None = None
    """The data whose users `recommend_user` and `recommend_all` serve; None for an export."""
    known_items: npt.NDArray[np.bool_] | None = None
    """(V,) the items that were in training; others are neither recommended nor read in histories. None: all."""
    training_part: TrainingPart = field(default_factory=lambda: TrainingPart(held_out=2))
    """Where the training part of a user's history ended; it decides the length of the user's tick."""

    metrics: Any = None
    """The metrics of the training (evaluation/metrics.py), which a notebook shows; None after `load`."""

    def __post_init__(self) -> None:
        # Build the maps of ids now, so that the first request is as fast as the next.
        self.items.numbers(())
        if self.data is not None and self.data.num_users:
            self.data.user_number(self.data.user_ids[0])

    def __repr__(self) -> str:
        users = f", {self.data.num_users:,} users" if self.data is not None else ""
        return f"Recommender({type(self.model).__name__}, {len(self.items):,} items{users})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        table = "" if self.metrics is None else self.metrics._repr_html_()
        return f"<code>{html.escape(repr(self))}</code>{table}"

    def recommend(
        self,
        history: Sequence[object],
        k: int = 10,
        *,
        times: Sequence[float] | None = None,
        assume_regular: bool = False,
        exclude_seen: bool = True,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
    ) -> list[tuple[str | int, float]]:
        """The best k items for a history, as (item id, score), best first. Fewer are returned if fewer are left.

        `history`: item ids, oldest first. Returned ids have the type of the data's column, text or integer.
        `times`: for models with time, the seconds of each event, ascending. `assume_regular` takes equal intervals
        instead. The smallest gap in `times` becomes the user's tick. `recommend_user` takes the tick from the
        training part, so its list can differ.
        `exclude_seen`: omit the items of the history. A model that was trained with skip_own_items scores seen
        items too high, so train without it before you turn this off.
        `allow`: the only candidates. `deny`: items to omit. An id that is unknown, or was not in training under a
        temporal split, is ignored with a warning.

        Raises: DataError if no item of the history is known, or times are missing or wrong; ConfigError if k < 1.
        """
        numbers = self._known(history, "history")
        if not len(numbers):
            place = "the data set" if self.known_items is None else "the training part of the data"
            raise DataError(f"no item of the history is in {place}. Give at least one known item")
        clock = self._clock(history, times, assume_regular) if self.model.config.time else None
        return self._top(numbers, clock, k, exclude_seen, allow, deny)

    def recommend_user(
        self,
        user: object,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
    ) -> list[tuple[str | int, float]]:
        """The best k items for a user of the data, from all events of the user. See `recommend`.

        Raises: DataError if the user is unknown or has no known item; ConfigError if k < 1.
        """
        data = self._users()
        number = data.user_number(user)
        numbers = data.item_numbers_of(number).astype(np.int64)
        clock = self._ticks(data, data.offsets[number : number + 2])
        if self.known_items is not None:
            kept = self.known_items[numbers]
            _warn([self._not_in_training(item) for item in numbers[~kept].tolist()], "history")
            if not kept.any():
                raise DataError(
                    f"user {str(user)!r} has no item that was in training. Give a history with a known item"
                )
            numbers, clock = numbers[kept], None if clock is None else clock[kept]
        return self._top(numbers, clock, k, exclude_seen, allow, deny)

    def recommend_all(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
        log: RunLog | None = None,
    ) -> pl.DataFrame:
        """The best k items of every user: columns user, item, score, rank (from 1), sorted by user, then rank.

        Users without a known item are omitted with a warning; they occur under a temporal split.

        Raises: DataError for an export, which has no users; ConfigError if k < 1.
        """
        data = self._users()
        users, histories = self._everybody(data)
        shape = (len(histories), min(max(k, 0), self.model.num_items))
        items, scores = np.zeros(shape), np.zeros(shape)
        allowed_V = self._allowed(allow, deny)
        with (log or RunLog(None)).bar("recommending", len(histories)) as bar:
            mine = own_blocks(ModelScorer(self.model), histories)
            for rows, item_BK, score_BK in self._best(histories, mine, k, exclude_seen, allowed_V):
                items[rows], scores[rows] = item_BK, score_BK
                bar(len(rows))
        items, scores = summed(items), summed(scores)  # each process leaves the rows of the others at 0
        user_E, place_E = np.nonzero(np.isfinite(scores))
        return pl.DataFrame(
            {
                "user": data.user_ids.gather(users[user_E]),
                "item": self.items.ids.gather(items[user_E, place_E].astype(np.int64) - 1),
                "score": scores[user_E, place_E].astype(np.float32),
                "rank": place_E + 1,
            }
        )

    def title(self, item_id: object) -> str | None:
        """The title of an item id, or None if the data has no title for it."""
        return self.items.title(item_id)

    def _users(self) -> Dataset:
        """The data set. Raises: DataError for an export."""
        if self.data is None:
            raise DataError("an export holds no users. Give a history, or use the run that the export came from")
        return self.data

    def _ticks(self, data: Dataset, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Ticks of the events of consecutive users, or None for models without time."""
        config = self.model.config
        return user_ticks(data, config, self.training_part, offsets) if config.time else None

    def _everybody(self, data: Dataset) -> tuple[npt.NDArray[np.int64], Histories]:
        """The users who have events of known items, and all these events of each."""
        items, offsets = data.items, data.offsets
        times = self._ticks(data, offsets)
        if self.known_items is None:
            return np.arange(data.num_users), Histories(items, times, offsets[:-1], offsets[1:])
        kept = self.known_items[items]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[offsets]
        users = np.flatnonzero(np.diff(offsets))
        if (gone := int((~kept).sum())) and rank() == 0:
            nothing = data.num_users - len(users)
            without = f"; {nothing:,} users have no other items and get no list" if nothing else ""
            warnings.warn(
                f"histories omit {gone:,} events, whose items were not in training{without}",
                stacklevel=3,
            )
        clock = None if times is None else times[kept]
        return users, Histories(items[kept], clock, offsets[users], offsets[users + 1])

    def _top(
        self,
        numbers: npt.NDArray[np.int64],
        clock: npt.NDArray[np.int64] | None,
        k: int,
        exclude_seen: bool,
        allow: Iterable[object] | None,
        deny: Iterable[object],
    ) -> list[tuple[str | int, float]]:
        start, end = np.zeros(1, np.int64), np.full(1, len(numbers), np.int64)
        histories = Histories(numbers.astype(np.int32), clock, start, end)
        allowed_V = self._allowed(allow, deny)
        one = [(np.zeros(1, np.int64), ModelScorer(self.model))]
        ((_, item_BK, score_BK),) = self._best(histories, one, k, exclude_seen, allowed_V)
        pairs = zip(item_BK[0].tolist(), score_BK[0].tolist(), strict=True)
        return [(self.items.id_of(item), score) for item, score in pairs if np.isfinite(score)]

    def _clock(
        self, history: Sequence[object], times: Sequence[float] | None, assume_regular: bool
    ) -> npt.NDArray[np.int64]:
        """Ticks of the known items of a history."""
        if times is None and not assume_regular:
            raise DataError(
                "this model needs the times of the history. Give times (--times), or assume_regular=True"
            )
        try:
            seconds = np.arange(len(history), dtype=np.float64) if times is None else np.asarray(times, np.float64)
        except (TypeError, ValueError):
            raise DataError("times must be numbers in seconds") from None
        if len(seconds) != len(history) or not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any():
            raise DataError(
                f"times must be {len(history)} ascending numbers in seconds, one for each item of the history"
            )
        if (most := np.abs(seconds).max(initial=0)) >= 2**63 / 1e6:
            raise DataError(f"times must be in seconds, and {most:.3g} is too large. Divide them by their unit")
        known = [len(self._numbers([item])[0]) > 0 for item in history]
        microseconds = (seconds[known] * 1e6).astype(np.int64)
        ends = np.array([0, len(microseconds)])
        return personal_times(microseconds, ends, ends[1:])

    def _best(
        self,
        histories: Histories,
        blocks: Iterable[tuple[npt.NDArray[np.int64], Scorer]],
        k: int,
        exclude_seen: bool,
        allowed_V: torch.Tensor | None,
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield (rows, item numbers (B, k), scores (B, k)), best first; -inf where no item is left."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        for rows, scorer in blocks:
            scores_BV = candidate_scores(scorer, histories, rows, exclude_seen=exclude_seen, allowed_V=allowed_V)
            best = scores_BV.topk(min(k, scorer.num_items), dim=1)
            yield rows, best.indices.cpu().numpy(), best.values.cpu().numpy()

    def _allowed(self, allow: Iterable[object] | None, deny: Iterable[object]) -> torch.Tensor | None:
        """(V,) which item numbers are candidates, or None for all."""
        denied = self._known(deny, "deny list")
        if allow is None and not len(denied) and self.known_items is None:
            return None
        allowed_V = torch.full((len(self.items) + 1,), allow is None)
        if allow is not None:
            allowed_V[torch.from_numpy(self._known(allow, "allow list"))] = True
        elif self.known_items is not None:
            allowed_V = torch.tensor(self.known_items)
        allowed_V[torch.from_numpy(denied)] = False
        return allowed_V

    def _known(self, item_ids: Iterable[object], where: str) -> npt.NDArray[np.int64]:
        if isinstance(item_ids, str):
            raise DataError(f"{where} must be a list of item ids, not the text {item_ids!r}")
        numbers, unknown = self._numbers(item_ids)
        _warn(unknown, where)
        return numbers

    def _numbers(self, item_ids: Iterable[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The numbers of the known items, in order, and the names of the others for a warning."""
        numbers, unknown = self.items.numbers(item_ids)
        if self.known_items is None:
            return numbers, unknown
        kept = self.known_items[numbers]
        return numbers[kept], [*unknown, *(self._not_in_training(item) for item in numbers[~kept].tolist())]

    def _not_in_training(self, item: int) -> str:
        return f"{self.items.id_of(item)} (not in training)"


def _warn(unknown: list[str], where: str) -> None:
    if unknown:
        names = list(dict.fromkeys(unknown))
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        warnings.warn(f"{where}: unknown items are ignored: {shown}", stacklevel=5)
