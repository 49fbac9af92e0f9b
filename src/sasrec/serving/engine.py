"""Answer several requests with one pass through a model.

Requests that arrive together differ in their lists, rules and lengths, so all that is theirs alone becomes a list
of items that their row must not get. What ranks is the code that evaluation measures (ranking/).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sasrec.batches.ticks import personal_times
from sasrec.data.histories import Histories
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecError, SasrecWarning
from sasrec.ranking.explain import effects, nearest
from sasrec.ranking.known import KnownItems
from sasrec.ranking.lists import Known
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.requests import ticks_of
from sasrec.ranking.rules import Rules
from sasrec.ranking.selection import Best, Learned, Ranker, RowRules, Selection
from sasrec.serving.items_search import ItemSearch

if TYPE_CHECKING:
    from sasrec.ranking.scorers import Scorer

_UNKNOWN, _REASONS = 10, 3  # the most ids and reasons of an answer


class NothingKnownError(DataError):
    """The model knows no item of a history, and the server has no fallback. Remedy: send known items."""


class UnknownError(SasrecError):
    """A request names a user, item, model or rules that do not exist, or asks for reasons without a known item.

    The message does not repeat the name.
    """


class UnfitError(ConfigError):
    """The filters or groups of a request do not fit the catalogue, or its time is wrong.

    The message names the field, and repeats nothing of the request.
    """


class BaselineError(ConfigError):
    """A request asks a baseline to explain an item, or for similar items, which only models can. Remedy: name a
    model.
    """


@dataclass(frozen=True, eq=False)
class Past:
    """The events of a user, in order of time."""

    items: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    """Microseconds since 1970; 0 for events of data without times."""
    stored: npt.NDArray[np.bool_]
    """True for events of the store, false for those of the data."""


@dataclass(frozen=True, eq=False)
class Read:
    """A history as the model reads it."""

    known: Known
    unknown: list[str]
    """Ids that the model does not know, at most ten."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One request for a list."""

    read: Read
    k: int = 10
    exclude_seen: bool | None = None
    """None: as the model was trained."""
    allow: Sequence[object] | None = None
    deny: Sequence[object] = ()
    rules: Rules | None = None
    user: object = None
    """The user id, for bans."""
    now: int | None = None
    """Microseconds since 1970 at which the items must be available; None: the present moment."""
    reasons: bool = False


@dataclass(frozen=True, eq=False)
class Listed:
    """The answer to a request: item numbers, best first."""

    engine: Engine
    """Whose item numbers they are: a model may be replaced while a request waits."""
    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.floating]
    source: str
    """"model", or the name of a baseline or of the fallback."""
    known: int
    """How many events of the history were known."""
    unknown: list[str]
    """Ids that the model does not know, at most ten."""
    reasons: list[list[tuple[int, float]]] | None = None
    """For each item, the events (item number, effect) that speak most for it."""


@dataclass(eq=False)
class Engine:
    """A loaded model that answers requests. Its methods may be called from one thread at a time."""

    name: str
    recommender: Recommender
    digest: str
    """Identifies the weights."""
    search: ItemSearch
    facts: dict[str, Any] = field(default_factory=dict)
    """What /v1/models tells besides."""

    @cached_property
    def _catalogue(self) -> KnownItems:
        return KnownItems(self.recommender.items, self.recommender.known_items)

    @cached_property
    def _plain(self) -> Selection:
        return Selection(self._catalogue.allowed(None, ()))

    @cached_property
    def names(self) -> dict[str, list[Any]]:
        """The ids of the items, and titles and groups where the catalogue has them, by item number - 1.

        They are lists, because reading ten values of a Polars series takes as long as all else that the event
        loop does for a request.
        """
        items = self.recommender.items
        columns = {"item": items.ids, "title": items.titles, "group": items.groups}
        return {name: column.to_list() for name, column in columns.items() if column is not None}

    def read(self, history: Sequence[object], times: Sequence[float] | None) -> Read:
        """Read a history in ids and, for models with time, seconds.

        Raises: DataError if times are missing or wrong. Remedy: as the message says.
        """
        known_V = self._catalogue.known_V
        found = self.recommender.items.numbers_or_zero(history)
        known = found > 0
        if known_V is not None:
            known &= known_V[found]
        unknown = [str(history[at]) for at in np.flatnonzero(~known)[:_UNKNOWN]]
        if not self.recommender.timed:
            return Read((found[known], None), unknown)
        clock = ticks_of(times, np.array([0, len(history)]), known, regular=False)
        return Read((found[known], clock), unknown)

    def read_user(self, user: object, newer: Sequence[tuple[str, float]], *, own: bool = True) -> Read:
        """Read a user's events of the data, unless `own` is false, and `newer` ones: (item, seconds)."""
        past, known_V = self.past(user, newer, own=own), self._catalogue.known_V
        known = np.ones(len(past.items), bool) if known_V is None else known_V[past.items]
        unknown = [item for (item, _) in newer if self.recommender.items.number_of(item) is None]
        if not self.recommender.timed:
            return Read((past.items[known], None), unknown[:_UNKNOWN])
        offsets = np.array([0, len(past.items)])
        ticks = personal_times(past.times, offsets, self._unit_end(past))
        return Read((past.items[known], ticks[known]), unknown[:_UNKNOWN])

    def past(self, user: object, newer: Sequence[tuple[str, float]], *, own: bool = True) -> Past:
        """Return the events of a user: those of the data, unless `own` is false, and `newer` ones.

        If the data has no times, its events come first. Events of the store with unknown items are left out, and
        those that the data has by now: the same item in the same second.
        """
        data, items = self.recommender.data, self.recommender.items
        numbers, times = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if own and data is not None and data.has_user(user):
            number = data.user_number(user)
            numbers = data.item_numbers_of(number).astype(np.int64)
            times = np.zeros(len(numbers), np.int64)
            if data.times is not None:
                times = np.asarray(data.times[data.offsets[number] : data.offsets[number + 1]])
        dated = data is not None and data.times is not None
        own_events = set(zip(numbers.tolist(), (times // 10**6).tolist(), strict=True)) if dated else set()
        found = [
            (number, second)
            for number, second in ((items.number_of(item), second) for item, second in newer)
            # Sent to a server, logged, and by now a part of the data: one event. Logs have whole seconds.
            if number and (number, math.floor(second)) not in own_events
        ]
        later = np.array([number for number, _ in found], np.int64)
        moments = np.array([second * 1e6 for _, second in found]).astype(np.int64)
        stored = np.repeat([False, True], [len(numbers), len(later)])
        numbers, times = np.append(numbers, later), np.append(times, moments)
        if data is not None and data.times is None:
            return Past(numbers, times, stored)
        order = np.argsort(times, kind="stable")
        return Past(numbers[order], times[order], stored[order])

    def _unit_end(self, past: Past) -> npt.NDArray[np.int64]:
        """Return where the events end from which the unit of time is taken, (1,), as `recommend_user` does."""
        data, whole = self.recommender.data, np.array([0, len(past.items)])
        model = getattr(getattr(self.recommender.scorer, "first", self.recommender.scorer), "model", None)
        if data is None or model is None or model.config.interval_unit == "history":
            return whole[1:]
        if data.parts is not None:  # events of the store are in no part of the data
            return np.array([int((~past.stored).sum())])
        return self.recommender.training_part.ends(past.times, whole)

    def answer(self, asks: Sequence[Ask]) -> list[Listed | SasrecError]:
        """Return a list for each request, or why it has none, from one pass through the model."""
        answers: list[Listed | SasrecError] = [NothingKnownError() for _ in asks]
        fallback = self.recommender.fallback
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SasrecWarning)  # the answer says what was ignored
            hidden: dict[int, tuple[npt.NDArray[np.int64], RowRules | None]] = {}
            for row, ask in enumerate(asks):
                try:
                    hidden[row] = self._hidden(ask)
                except SasrecError as error:
                    answers[row] = ConfigError(str(error))  # lists and rules, whatever is wrong with them
            known = [row for row in hidden if len(asks[row].read.known[0])]
            others = [row for row in hidden if not len(asks[row].read.known[0])]
            for rows, scorer, source in (
                (known, self.recommender.scorer, self.recommender.source),
                (others, fallback, "" if fallback is None else fallback.name),
            ):
                if rows and scorer is not None:
                    for row, best in self._lists(scorer, rows, asks, hidden):
                        answers[row] = self._listed(asks[row], best, source)
        return answers

    def _hidden(self, ask: Ask) -> tuple[npt.NDArray[np.int64], RowRules | None]:
        """Return the items that a request must not get, and the rule on groups if it has one."""
        excludes = not self.recommender.repeats if ask.exclude_seen is None else ask.exclude_seen
        hidden = [ask.read.known[0]] if excludes else []
        grouped: RowRules | None = None
        now = None if ask.now is None else np.array([ask.now])
        users = None if ask.user is None else [ask.user]
        if ask.allow is not None or ask.deny or ask.rules is not None:
            found = self._catalogue.selection(ask.allow, ask.deny, ask.rules, users, now)
            if found.allowed_V is not None:
                hidden.append(np.flatnonzero(~found.allowed_V))
            if found.by_row is not None:
                hidden += [item_E for _, item_E in found.by_row.forbidden(np.zeros(1, np.int64))]
                grouped = found.by_row if found.by_row.groups_V is not None else None
        return np.concatenate([np.zeros(0, np.int64), *hidden]), grouped

    def _lists(
        self,
        scorer: Scorer | Ranker,
        rows: list[int],
        asks: Sequence[Ask],
        hidden: dict[int, tuple[npt.NDArray[np.int64], RowRules | None]],
    ) -> Iterator[tuple[int, Best]]:
        """Yield the best items of each row. The model reads all rows at once."""
        histories = _histories([asks[row].read.known for row in rows])
        banned = _histories([(hidden[row][0], None) for row in rows])
        groups: dict[Any, list[int]] = {}
        for place, row in enumerate(rows):
            by_row = hidden[row][1]
            key = None if by_row is None else (id(by_row.groups_V), by_row.per_group)
            groups.setdefault(key, []).append(place)
        top = _ranked_by(scorer, histories)
        for places in groups.values():
            by_row = hidden[rows[places[0]]][1]
            at, k = np.array(places), max(asks[rows[place]].k for place in places)
            limited = RowRules(
                banned,
                groups_V=None if by_row is None else by_row.groups_V,
                per_group=by_row.per_group if by_row else 0,
            )
            items, scores = top(at, k, Selection(self._plain.allowed_V, limited))
            for line, place in enumerate(places):
                most = asks[rows[place]].k
                yield rows[place], (items[line, :most], scores[line, :most])

    def _listed(self, ask: Ask, best: Best, source: str) -> Listed:
        items, scores = best
        real = np.isfinite(scores)
        items, scores = items[real], scores[real]
        learned = getattr(self.recommender.scorer, "first", self.recommender.scorer)
        if not ask.reasons or not isinstance(learned, Learned) or not len(ask.read.known[0]):
            return Listed(self, items, scores, source, len(ask.read.known[0]), ask.read.unknown)
        of_events, _ = effects(learned, *ask.read.known, items)
        events = ask.read.known[0][-len(of_events) :]
        reasons = []
        for column in of_events.T:
            first = np.argsort(-column, kind="stable")[:_REASONS]
            reasons.append([(int(events[at]), float(column[at])) for at in first if column[at] > 0])
        return Listed(self, items, scores, source, len(ask.read.known[0]), ask.read.unknown, reasons)

    def similar(self, item: object, k: int) -> list[tuple[int, float]]:
        """Return (item number, cosine) of the items most like an item. Raises: UnknownError, BaselineError."""
        vectors, number = self._learned.vectors(), self.number(item)
        _refuse_nan(vectors[number])
        return nearest(vectors, number, k, self._catalogue.allowed(None, ()))

    def explain(
        self, known: Known, item: object
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Return the events that the model reads, and how much each, and its interval, raises the item's score.

        Raises: UnknownError, BaselineError.
        """
        of_events, of_intervals = effects(self._learned, *known, np.array([self.number(item)]))
        _refuse_nan(of_events)
        events = known[0][-len(of_events) :]
        return events, of_events[:, 0], None if of_intervals is None else of_intervals[:, 0]

    @property
    def _learned(self) -> Learned:
        scorer = getattr(self.recommender.scorer, "first", self.recommender.scorer)
        if not isinstance(scorer, Learned):
            raise BaselineError
        return scorer

    def number(self, item: object) -> int:
        """Return the number of a known item. Raises: UnknownError. Remedy: name an item of the training data."""
        numbers, _ = self._catalogue.numbers([item])
        if not len(numbers):
            raise UnknownError("the item is unknown. GET /v1/items finds items.")
        return int(numbers[0])

    def canary(self) -> None:
        """Answer a fixed request. Raises: SasrecError, or what else goes wrong, if the answer is not sound."""
        known_V = self._catalogue.known_V
        number = 1 if known_V is None else int(np.flatnonzero(known_V)[0])
        clock = np.ones(1, np.int64) if self.recommender.timed else None
        count = len(self.recommender.items) if known_V is None else int(known_V.sum())
        (found,) = self.answer([Ask(Read((np.array([number]), clock), []), k=min(5, count), exclude_seen=False)])
        if isinstance(found, SasrecError):
            raise found
        if len(found.items) != min(5, count):
            raise DataError(f"the canary got {len(found.items)} items instead of {min(5, count)}")


def _refuse_nan(values: npt.NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise EvaluationError("the model gives NaN, because its weights diverged. Load another checkpoint.")


def _histories(rows: Sequence[Known]) -> Histories:
    """Return rows of item numbers and ticks as ranges of one array."""
    ends = np.cumsum([len(items) for items, _ in rows])
    items = np.concatenate([items for items, _ in rows]).astype(np.int32)
    ticks = None if rows[0][1] is None else np.concatenate([clock for _, clock in rows if clock is not None])
    return Histories(items, ticks, np.append(0, ends[:-1]), ends)


def _ranked_by(scorer: Scorer | Ranker, histories: Histories) -> Any:
    """Return a function (rows, k, selection) -> items and scores; a model encodes all rows now, once.

    The rows of `selection` are those of `histories`. Seen items are candidates.
    """
    if isinstance(scorer, Ranker):

        def of_ranker(rows: npt.NDArray[np.int64], k: int, selection: Selection) -> Best:
            chosen = _chosen(histories, rows)
            by_row = selection.by_row
            assert by_row is not None
            assert by_row.banned is not None
            own = RowRules(_chosen(by_row.banned, rows), groups_V=by_row.groups_V, per_group=by_row.per_group)
            few = min(k, scorer.num_items)
            items, scores = np.zeros((len(rows), few), np.int64), np.full((len(rows), few), -np.inf)
            for some, items_BK, scores_BK in scorer.top(
                chosen, k, exclude_seen=False, selection=Selection(selection.allowed_V, own)
            ):
                items[some], scores[some] = items_BK, scores_BK
            return items, scores

        return of_ranker
    from sasrec.ranking.candidates import top_items
    from sasrec.ranking.scorers import EncodedScorer, ModelScorer

    ready: Any = scorer
    if isinstance(scorer, ModelScorer):
        ready = EncodedScorer(scorer, histories, np.arange(len(histories)))

    def of_scores(rows: npt.NDArray[np.int64], k: int, selection: Selection) -> Best:
        ((_, items, scores),) = top_items([(rows, ready)], histories, k, exclude_seen=False, selection=selection)
        return items, scores

    return of_scores


def _chosen(histories: Histories, rows: npt.NDArray[np.int64]) -> Histories:
    return Histories(histories.items, histories.ticks, histories.starts[rows], histories.ends[rows])
