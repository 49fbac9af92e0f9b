"""Recommend the best items for a history or a user. Scores come from the same code that evaluation measures."""

from __future__ import annotations

import hashlib
import html
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.batches.ticks import user_ticks
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.data.splits import TrainingPart
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount
from sasrec.ranking.explain import effects, nearest
from sasrec.ranking.fallback import Fallback
from sasrec.ranking.known import KnownItems
from sasrec.ranking.lists import Asked, Known, Rows, best_of_one, lists_of
from sasrec.ranking.requests import (
    as_arrow,
    count,
    frame_of,
    listed,
    many,
    ordered,
    refuse_options,
    ticks_of,
    users_of,
    warn_unknown,
)
from sasrec.ranking.rules import Rules
from sasrec.ranking.selection import Learned
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import same_on_every_rank, world

if TYPE_CHECKING:
    from sasrec.models import SequenceModel
    from sasrec.ranking.scorers import Scorer

_OF_LISTS = ("row", "item", "score", "rank")


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained model or a baseline that recommends, with its catalogue and the users' histories."""

    scorer: Scorer
    """Gives each item a score: a `ModelScorer`, a baseline of a run, a blend of both, or an ONNX graph."""
    items: Items
    """The catalogue, in order of the model's item numbers."""
    data: Dataset | None = None
    """The data set of `recommend_user` and `recommend_all`; None for an export loaded without `dataset`."""
    known_items: npt.NDArray[np.bool_] | None = None
    """(V,) true for known items, which have a training event; None means that all items are known. Unknown items
    are never recommended, and histories are read without them."""
    training_part: TrainingPart = field(default_factory=lambda: TrainingPart(held_out=2))
    """Where the training part of a history ends; models with time take a user's unit of times from this part."""
    repeats: bool = False
    """Whether the model was trained with `repeats`, so that lists contain items that the user has seen."""
    fallback: Fallback | None = None
    """What answers unknown users and histories without a known item (ranking/fallback.py); None refuses them."""
    metrics: Any = None
    """The validation and test metrics that training measured (evaluation/metrics.py), for notebooks. None after
    `load`, or if no user has a target."""
    source: str = "model"
    """What the column `source` of lists calls the scorer: "model", "blend" or the name of the baseline."""

    def __post_init__(self) -> None:
        # Build the cached id maps now, so the first request is as fast as later ones.
        self.items.numbers(())
        if self.data is not None and self.data.num_users:
            self.data.user_number(self.data.user_ids[0])

    def __repr__(self) -> str:
        users = f", {amount(self.data.num_users, 'user')}" if self.data is not None else ""
        named = getattr(self.scorer, "model", self.scorer)
        return f"Recommender({type(named).__name__}, {amount(len(self.items), 'item')}{users})"

    def _repr_html_(self) -> str:
        """Return `repr` and the metrics as HTML, for notebooks."""
        table = "" if self.metrics is None else self.metrics._repr_html_()
        return f"<code>{html.escape(repr(self))}</code>{table}"

    @property
    def model(self) -> SequenceModel:
        """The trained model. Raises: ConfigError for a baseline or a graph. Remedy: load the run itself."""
        model: SequenceModel | None = getattr(self._trained, "model", None)
        if model is None:
            raise ConfigError("an ONNX export has no PyTorch model. Load the run that it came from.")
        return model

    @property
    def timed(self) -> bool:
        """Whether the model reads the times of a history."""
        return self._learned is not None and self._learned.timed

    @cached_property
    def _learned(self) -> Learned | None:
        """The scorer of the model, also in a blend; None for a baseline."""
        scorer = getattr(self.scorer, "first", self.scorer)
        return scorer if isinstance(scorer, Learned) else None

    @property
    def _trained(self) -> Learned:
        if self._learned is None:
            what = f"{type(self.scorer).__name__} is a baseline, which has no weights"
            raise ConfigError(f"{what}. Load the run without its name.")
        return self._learned

    def recommend(
        self,
        history: Sequence[object],
        k: int = 10,
        *,
        times: Sequence[float] | None = None,
        assume_regular: bool = False,
        exclude_seen: bool | None = None,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
        rules: Rules | None = None,
        user: object = None,
    ) -> list[tuple[str | int, float]]:
        """Return the k best items for a history of item ids (oldest first), as (item id, score), best first.

        The list is shorter if fewer than k items may be in it; if the list is empty, a warning says why. Ids that
        the model does not know are ignored with a warning. With the splits temporal, files and all, an item
        without a training event is unknown, too.

        `history`, `allow`, `deny`: lists, arrays or Series of ids; the number 1.0 means the id 1. `allow`: the
        only ids that the list may have. `deny`: ids that the list must not have. `exclude_seen`: whether to omit
        the items of the history. By default, they are omitted, unless the model was trained with repeats. A model
        that was trained with skip_own_items (the default) can give seen items high scores, so omit them. `rules`:
        more limits, as `Rules`. The list still has k items if the rules allow so many. `user`: the id of the user,
        for the bans of `rules`. `times`: the time of each item of `history` in seconds, ascending. Only a model
        that was trained with `time` needs and reads `times`. This model divides the times by a unit: the smallest
        gap above zero in `times`. By default, `recommend_user` takes this gap from the training part of the user's
        events, so its list can differ. `assume_regular`: assume equal gaps between the events, instead of `times`.

        Raises: DataError if no item of the history is known and the model has no fallback, or if times are missing
        or invalid. Remedy: give a known item, or valid times. ConfigError if k < 1. Remedy: use a larger k.
        """
        known = self._read(history, times, assume_regular)
        asked = self._asked(k, exclude_seen, allow, deny, rules)
        return self._list(known, asked, None if user is None else [user])

    def recommend_user(
        self,
        user: object,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
        rules: Rules | None = None,
    ) -> list[tuple[str | int, float]]:
        """Return the k best items for a user of the data set. The other arguments are those of `recommend`.

        Raises: DataError for an export without `dataset`, which has no users. DataError if `fallback` is None, and
        the user is not in the data set or has no known item. Remedy: pass a history to `recommend`. ConfigError if
        k < 1. Remedy: use a larger k.
        """
        known = self._read_user(user)
        if rules is not None and self.data is not None and isinstance(rules, Rules):
            rules.on(self.items).warn_nobody(self.data.has_user, rules.name)
        return self._list(known, self._asked(k, exclude_seen, allow, deny, rules), [user])

    def recommend_all(
        self,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
        rules: Rules | None = None,
        log: RunLog | None = None,
    ) -> pl.DataFrame:
        """Return the k best items of all users: a frame with columns user, item, score and rank (from 1).

        Rows are in order of user number, then rank. With the splits temporal and files, users without a known item
        get no rows, and a warning counts these users. With a fallback, these users get the list of the fallback,
        and the column `source` says what made each list, such as "model" or "popular". Under torchrun, each
        process scores a part of the users, and all processes return the same frame with all users.

        Raises: DataError for an export without `dataset`, which has no users. Remedy: use the original run.
        ConfigError if k < 1. Remedy: use a larger k.
        """
        data, asked = self._users(), self._asked(k, exclude_seen, allow, deny, rules)
        if world() > 1:
            parameters = () if self._learned is None else self.model.parameters()
            weights = hashlib.sha256(b"".join(each.detach().cpu().numpy().tobytes() for each in parameters))
            same_on_every_rank(
                {
                    "data with hash": data.data_hash[:12],
                    "weights with hash": weights.hexdigest()[:12],
                    "the options": str((asked.k, asked.exclude_seen, asked.allow, asked.deny)),
                    "the rules": "" if rules is None else rules.on(self.items).digest,
                }
            )
        fallback = None if self.fallback is None else self.fallback.name
        users, histories = self._catalogue.everybody(data, self._ticks(data, data.offsets), fallback)
        ids = data.user_ids.to_list() if rules else None
        lists = self._lists(histories, Rows(users, data.num_users, ids), asked, log)
        return lists.select(data.user_ids.gather(lists["row"]).alias("user"), pl.exclude("row"))

    def recommend_many(
        self,
        histories: Any,
        k: int = 10,
        *,
        times: Any = None,
        assume_regular: bool = False,
        exclude_seen: bool | None = None,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] = (),
        rules: Rules | None = None,
        users: Any = None,
        log: RunLog | None = None,
    ) -> pl.DataFrame:
        """Return the k best items of many histories: a frame with columns row, item, score and rank (from 1).

        `histories`: a list of histories, or a Polars Series or Arrow array of lists. `times`: the times of each
        history, as a list of lists. `users`: the user id of each history, for the bans of `rules`.

        The column `row` is the place of the history in `histories`, counted from 0. A history without a known item
        gets no rows, and a warning counts such histories. With a fallback, such a history gets the list of the
        fallback, and the column `source` says what made each list.

        The other arguments are those of `recommend`. One call is faster than a call of `recommend` for each
        history. The last digits of the scores can differ from those of single calls.

        Raises: The errors of `recommend`. A history without a known item raises no error.
        """
        asked = self._asked(k, exclude_seen, allow, deny, rules)
        histories = histories if hasattr(histories, "__len__") else ordered(histories, "histories")
        rows, known, unknown = many(
            histories, times, self.items, self.known_items, timed=self.timed, regular=assume_regular
        )
        warn_unknown(unknown, "histories", stacklevel=3)
        if (without := len(histories) - len(rows)) and self.fallback is None:
            warnings.warn(
                f"{without:,} of {len(histories):,} histories have no known item and get no recommendations",
                SasrecWarning,
                stacklevel=2,
            )
        users = None if users is None else users_of(users, len(histories))
        return self._lists(known, Rows(rows, len(histories), users), asked, log)

    def __call__(self, table: Any, k: int = 10, **options: Any) -> Any:
        """Recommend for the rows of a pyarrow Table or RecordBatch; return a Table user, item, score, rank.

        Columns of `table`: user; items, a list of ids for each user, oldest first; and, for models with time,
        times, a list of seconds. `options`: those of `recommend_many`. This is the form in which Ray, Spark and
        DuckDB pass batches (docs/how-to/engines.md).

        Raises: DataError if a column is missing. Remedy: name the columns so. The errors of `recommend_many`.
        """
        refuse_options(options, self.recommend_many, ["times"])
        timed = self.timed and not options.get("assume_regular")
        frame = frame_of(table, ["user", "items", *(["times"] if timed else [])])
        if options.get("rules") is not None:
            options = {"users": frame["user"]} | options
        lists = self.recommend_many(frame["items"], k, times=frame["times"] if timed else None, **options)
        users = frame["user"].gather(lists["row"])
        rank = pl.col("rank").cast(pl.Int32)
        return as_arrow(lists.select(users.alias("user"), "item", "score", rank, pl.exclude(*_OF_LISTS)))

    def title(self, item_id: object) -> str | None:
        """Return the title of an item id, or None if the item is unknown or has no title."""
        return self.items.title(item_id)

    def similar(self, item_id: object, k: int = 10) -> list[tuple[str | int, float]]:
        """Return the k items most similar to an item, most similar first, as (item id, cosine of the item
        vectors).

        Raises: DataError if the item is unknown. Remedy: name an item of the training data. ConfigError if k < 1.
        """
        (number,) = self._one(item_id)
        found = nearest(self._trained.vectors(), number, count(k), self._catalogue.allowed(None, ()))
        return [(self.items.id_of(each), cosine) for each, cosine in found]

    def explain(
        self,
        history: Sequence[object],
        item_id: object,
        *,
        times: Sequence[float] | None = None,
        assume_regular: bool = False,
    ) -> pl.DataFrame:
        """Return how much each event of a history raises the score of the item `item_id`, as a frame.

        The frame has a row for each of the last `maxlen` events with a known item, oldest first. The column `item`
        is the item of the event. The column `effect` is the score of `item_id` minus its score without this event
        (ranking/explain.py); below 0, the event lowers the score. For a model that reads times, the column
        `interval_effect` is the score minus the score if this event and the event before had the same time. For a
        blend, the effects are those of its model. `times`: as for `recommend`.

        Raises: DataError if the item or the whole history is unknown. Remedy: name known items. ConfigError for a
        baseline. Remedy: load RUN, without the name of the baseline.
        """
        return self._explained(*self._read(history, times, assume_regular), item_id)

    def explain_user(self, user: object, item_id: object) -> pl.DataFrame:
        """Return the reasons for an item for a user of the data set, in a frame such as `explain` returns."""
        return self._explained(*self._read_user(user), item_id)

    def _explained(
        self, numbers: npt.NDArray[np.int64], clock: npt.NDArray[np.int64] | None, item_id: object
    ) -> pl.DataFrame:
        if not len(numbers):
            raise DataError("a list of the fallback has no reasons in the history. Give a history of known items.")
        effect, interval_effect = effects(self._learned, numbers, clock, self._one(item_id))
        frame = pl.DataFrame({"item": self.items.ids.gather(numbers[-len(effect) :] - 1), "effect": effect[:, 0]})
        return frame if interval_effect is None else frame.with_columns(interval_effect=interval_effect[:, 0])

    def _read(self, history: Sequence[object], times: Sequence[float] | None, assume_regular: bool) -> Known:
        """Return the item numbers of the known items of a history, and their ticks for models with time."""
        history = ordered(history, "history")
        numbers = self._catalogue.named(history, "history", stacklevel=5)
        if not len(numbers) and self.fallback is not None:
            return self._nothing_known("no item of the history is known")
        if not len(numbers):
            source = "the data set" if self.known_items is None else "the training part of the data"
            raise DataError(f"no item of the history is in {source}. Give at least one item that is.")
        if not self.timed:
            return numbers, None
        known = np.array([len(self._catalogue.numbers([item])[0]) > 0 for item in history])
        return numbers, ticks_of(times, np.array([0, len(history)]), known, regular=assume_regular)

    def _read_user(self, user: object) -> Known:
        """Return the item numbers of the known items of a user, and their ticks for models with time."""
        data = self._users()
        if self.fallback is not None and not data.has_user(user):
            return self._nothing_known(f"the user {user} is not in the data")
        number = data.user_number(user)
        numbers = data.item_numbers_of(number).astype(np.int64)
        clock = self._ticks(data, data.offsets[number : number + 2])
        known = np.ones(len(numbers), bool) if self.known_items is None else self.known_items[numbers]
        warn_unknown([self._catalogue.not_in_training(item) for item in numbers[~known].tolist()], "history")
        if not known.any():
            if self.fallback is not None:
                return self._nothing_known(f"the user {user} has no known item")
            raise DataError(
                f"user {str(user)!r} has no event with an item that occurs in training. "
                "Give a history with at least one such item."
            )
        return numbers[known], None if clock is None else clock[known]

    def _nothing_known(self, why: str) -> tuple[npt.NDArray[np.int64], None]:
        """Return an empty history, for the fallback, and warn that it answers."""
        assert self.fallback is not None
        warnings.warn(f"{why}; the fallback {self.fallback.name} answers", SasrecWarning, stacklevel=4)
        return np.zeros(0, np.int64), None

    def _asked(self, k: int, exclude_seen: bool | None, allow: Any, deny: Any, rules: Rules | None) -> Asked:
        allow = None if allow is None else listed(allow, "allow list")
        return Asked(count(k), self._excludes(exclude_seen), allow, listed(deny, "deny list"), rules)

    def _lists(self, histories: Histories, rows: Rows, asked: Asked, log: RunLog | None) -> pl.DataFrame:
        return lists_of((self.scorer, self.fallback, self.source), self._catalogue, histories, rows, asked, log)

    def _list(self, known: Known, asked: Asked, user: list[object] | None) -> list[tuple[str | int, float]]:
        """Return the list of one history, which the fallback gives if no item is known."""
        scorer = self.scorer if len(known[0]) or self.fallback is None else self.fallback
        selection = self._catalogue.selection(asked.allow, asked.deny, asked.rules, user)
        return best_of_one(scorer, self.items, known, asked, selection)

    def _one(self, item_id: object) -> npt.NDArray[np.int64]:
        """Return the number of a known item, (1,). Raises: DataError. Remedy: name an item of the data."""
        numbers, unknown = self._catalogue.numbers([item_id])
        if unknown:
            raise DataError(f"the item {unknown[0]} is unknown. Name an item of the training data.")
        return numbers

    @cached_property
    def _catalogue(self) -> KnownItems:
        return KnownItems(self.items, self.known_items)

    def _excludes(self, exclude_seen: bool | None) -> bool:
        """Return whether lists omit seen items: as asked, else unless items come again."""
        return not self.repeats if exclude_seen is None else exclude_seen

    def _users(self) -> Dataset:
        """Return the data set. Raises: DataError for an export, which has none. Remedy: give a history."""
        if self.data is None:
            raise DataError("an export contains no users. Give a history, or use the run that it came from.")
        return self.data

    def _ticks(self, data: Dataset, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return the ticks (batches/ticks.py) of the events offsets[0]:offsets[-1], or None for models without
        time.
        """
        return user_ticks(data, self.model.config, self.training_part, offsets) if self.timed else None
