"""History -> the best items, in the user's own ids, by the same ranking path that evaluation measures."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from sasrec.batches.ticks import personal_times
from sasrec.config.split_rule import split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.splits import Split, split_events
from sasrec.errors import ConfigError, DataError
from sasrec.models import SequenceModel
from sasrec.ranking.candidates import candidate_scores, own_blocks, summed
from sasrec.ranking.scorers import ModelScorer, Scorer
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained model and the data set whose ids it speaks."""

    model: SequenceModel
    data: Dataset
    how: str = "leave-one-out"
    """The split that the model was trained under, which decides what items are known, and the unit of personal
    times. Histories are whole, with what came after training."""
    exported_V: npt.NDArray[np.bool_] | None = None
    """(V,) which items are known, where the data has no events left that would tell."""

    @cached_property
    def split(self) -> Split:
        """What the model was trained on, and what it may be measured on."""
        return split_events(self.data, self.how, self.model.config)

    @cached_property
    def known_items(self) -> npt.NDArray[np.bool_] | None:
        """(V,) which items come out and count in histories, as in evaluation (data/splits.py); None: all."""
        if self.exported_V is not None or not self.data.num_events or not split_rule(self.how).boundaries:
            return self.exported_V
        return None if self.split.known_V[1:].all() else self.split.known_V

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
        """The best k (item id, score) for a history of item ids, oldest first; the best first.

        Ids come out as they went in: text, or integers where the data's column was of integers. Fewer than
        k come out where fewer are left. `allow` restricts the candidates, `deny` removes some; ids unknown
        to the data, and under a temporal split to its training part, are ignored with a warning that names them.
        With `exclude_seen` off, own items come out high if the model was trained with skip_own_items.
        A model with time also needs `times`, in seconds, one an item and ascending, or `assume_regular`: events at
        equal intervals. Other models ignore both. The unit of its intervals is then the smallest gap in `times`,
        and for a user of the data (`recommend_user`) that in their training part, so these lists can differ.

        Raises: DataError if no item of the history is known, or times are missing or do not fit;
        ConfigError if k < 1.
        """
        numbers = self._known(history, "history")
        if not len(numbers):
            there = "the data set" if self.known_items is None else "the training part of the data"
            raise DataError(f"no item of the history is in {there}: give at least one that is")
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
        """As `recommend`, for a user of the data, from all of their events.

        Raises: DataError if the user is not in the data, or none of their items is known; ConfigError if k < 1.
        """
        number = self.data.user_number(user)
        numbers, times = self.data.history(number).astype(np.int64), self._times
        clock = None if times is None else times[self.data.offsets[number] : self.data.offsets[number + 1]]
        if self.known_items is not None:
            kept = self.known_items[numbers]
            _warn([self._not_in_training(item) for item in numbers[~kept].tolist()], "history")
            if not kept.any():
                raise DataError(f"user {str(user)!r} has had no item that is in training: give a history with one")
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
        """Columns user, item, score, rank (from 1) for every user of the data, in order of user, then rank.

        Under a temporal split users of whose items none is known are left out, with a warning.

        Raises: DataError for an export, which has no users' events; ConfigError if k < 1.
        """
        if not self.data.num_events:
            raise DataError("an export has nobody's events: give histories, or the run that it was made of")
        users, histories = self._everybody()
        shape = (len(histories), min(max(k, 0), self.model.num_items))
        items, scores = np.zeros(shape), np.zeros(shape)
        allowed_V = self._allowed(allow, deny)
        with (log or RunLog(None)).bar("recommending", len(histories)) as bar:
            mine = own_blocks(ModelScorer(self.model), histories)
            for rows, item_BK, score_BK in self._best(histories, mine, k, exclude_seen, allowed_V):
                items[rows], scores[rows] = item_BK, score_BK
                bar(len(rows))
        items, scores = summed(items), summed(scores)  # a rank left the others' rows at 0
        user_E, place_E = np.nonzero(np.isfinite(scores))
        return pl.DataFrame(
            {
                "user": self.data.user_ids.gather(users[user_E]),
                "item": self.data.item_ids.gather(items[user_E, place_E].astype(np.int64) - 1),
                "score": scores[user_E, place_E].astype(np.float32),
                "rank": place_E + 1,
            }
        )

    def title(self, item_id: object) -> str | None:
        """The title of an item, where an items file was given."""
        numbers, _ = self.data.item_numbers([item_id])
        return None if self.data.titles is None or not len(numbers) else self.data.titles[int(numbers[0]) - 1]

    @property
    def _times(self) -> npt.NDArray[np.int64] | None:
        return self.split.times if self.model.config.time and self.data.num_events else None

    def _everybody(self) -> tuple[npt.NDArray[np.int64], Histories]:
        """Users who have events of known items, and all these events of each."""
        items, times, offsets = self.data.items, self._times, self.data.offsets
        if self.known_items is None:
            return np.arange(self.data.num_users), Histories(items, times, offsets[:-1], offsets[1:])
        kept = self.known_items[items]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[offsets]
        users = np.flatnonzero(np.diff(offsets))
        if (gone := int((~kept).sum())) and rank() == 0:
            nothing = self.data.num_users - len(users)
            nobody = f"; {nothing:,} users have no others, and get no recommendations" if nothing else ""
            warnings.warn(
                f"{gone:,} events of items that are not in training are left out of histories{nobody}",
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
        return [(self.data.item_ids[item - 1], score) for item, score in pairs if np.isfinite(score)]

    def _clock(
        self, history: Sequence[object], times: Sequence[float] | None, assume_regular: bool
    ) -> npt.NDArray[np.int64]:
        """Personal times of the known items of a history."""
        if times is None and not assume_regular:
            raise DataError(
                "this model needs the times of the history: give times (--times), or say assume_regular "
                "(--assume_regular)"
            )
        try:
            seconds = np.arange(len(history), dtype=np.float64) if times is None else np.asarray(times, np.float64)
        except (TypeError, ValueError):
            raise DataError("times must be numbers, of seconds since any moment") from None
        if len(seconds) != len(history) or not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any():
            raise DataError(f"times must be one for each of the {len(history)} items, in seconds and ascending")
        if (most := np.abs(seconds).max(initial=0)) >= 2**63 / 1e6:
            raise DataError(f"times must be in seconds, and {most:.3g} are too many: divide by the unit")
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
        """(rows, item numbers, scores), the last two (B, k), best first; -inf where nothing is left."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        for rows, scorer in blocks:
            scores_BV = candidate_scores(scorer, histories, rows, exclude_seen=exclude_seen, allowed_V=allowed_V)
            best = scores_BV.topk(min(k, scorer.num_items), dim=1)
            yield rows, best.indices.cpu().numpy(), best.values.cpu().numpy()

    def _allowed(self, allow: Iterable[object] | None, deny: Iterable[object]) -> torch.Tensor | None:
        """(V,) which item numbers may come out, or None for all."""
        denied = self._known(deny, "deny list")
        if allow is None and not len(denied) and self.known_items is None:
            return None
        allowed_V = torch.full((self.data.num_items + 1,), allow is None)
        if allow is not None:
            allowed_V[torch.from_numpy(self._known(allow, "allow list"))] = True
        elif self.known_items is not None:
            allowed_V = torch.tensor(self.known_items)
        allowed_V[torch.from_numpy(denied)] = False
        return allowed_V

    def _known(self, item_ids: Iterable[object], where: str) -> npt.NDArray[np.int64]:
        if isinstance(item_ids, str):
            raise DataError(f"{where}: give a list of item ids, not the text {item_ids!r}")
        numbers, unknown = self._numbers(item_ids)
        _warn(unknown, where)
        return numbers

    def _numbers(self, item_ids: Iterable[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The numbers of the known items, in order; and what to call the others."""
        numbers, unknown = self.data.item_numbers(item_ids)
        if self.known_items is None:
            return numbers, unknown
        kept = self.known_items[numbers]
        return numbers[kept], [*unknown, *(self._not_in_training(item) for item in numbers[~kept].tolist())]

    def _not_in_training(self, item: int) -> str:
        return f"{self.data.item_ids[item - 1]} (not in training)"


def _warn(unknown: list[str], where: str) -> None:
    if unknown:
        names = list(dict.fromkeys(unknown))
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        warnings.warn(f"{where}: unknown items are ignored: {shown}", stacklevel=5)
