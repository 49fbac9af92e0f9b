"""What the server knows: its models, which users get which, the rules, and the events of users."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sasrec.errors import ConfigError, SasrecError, StoreError
from sasrec.files import file_digest
from sasrec.ranking.fallback import Counts
from sasrec.ranking.item_table import moment
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.rules import Rules
from sasrec.runs.folder import RunFolder, named_run
from sasrec.runs.model_card import intervals
from sasrec.serving.batcher import Batcher
from sasrec.serving.engine import Ask, Engine, Read, UnknownError
from sasrec.serving.history_store import HistoryStore
from sasrec.serving.items_search import ItemSearch
from sasrec.serving.load import COUNTS, FACTS, facts_of, load
from sasrec.serving.schemas import Filter, Of, Recommend
from sasrec.serving.threads import Threads

_QUICK = 20_000  # targets whose intervals take less than a second
_COMBINATIONS = 200  # of filters and limits of groups whose masks are kept
_CANARY_SECONDS, _CANARY_LASTS = 2.0, 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Newer:
    """What the store knows of a user."""

    events: list[tuple[str, float]] = field(default_factory=list)
    """(item, seconds since 1970), in order of time."""
    own: bool = True
    """Whether the events of the data may be used, too."""


@dataclass(eq=False)
class Model:
    """A model that is served: where it came from, its worker, and its share of the users."""

    path: Path
    batcher: Batcher
    share: float
    _canary: asyncio.Future[None] | None = None
    _asked: float = -math.inf

    @property
    def engine(self) -> Engine:
        """The model that answers now. After an `await`, it may be another one."""
        return self.batcher.engine

    async def trouble(self) -> str | None:
        """Return why the model does not answer a fixed request; None if it does, or did half a second ago."""
        now = time.monotonic()
        if self._canary is None or (self._canary.done() and now > self._asked + _CANARY_LASTS):
            self._canary = asyncio.ensure_future(self.batcher.run(Engine.canary, urgent=True))
            self._asked = now
        try:
            await asyncio.wait_for(asyncio.shield(self._canary), _CANARY_SECONDS)
        except TimeoutError:
            return f"it has not answered for {_CANARY_SECONDS:.0f} seconds"
        except Exception as error:
            return str(error) if isinstance(error, SasrecError) else f"it fails with {type(error).__name__}"
        return None


@dataclass(eq=False)
class Service:
    """All that requests are answered from. Its methods are safe from the thread of the event loop."""

    store: HistoryStore | None
    rules: Mapping[str, Rules]
    fallback: str | None
    wait: float
    """The longest that a request may wait, in seconds."""
    passes: Callable[[str, int, float], None]
    """Called after each pass with the model, its number of requests and its seconds."""
    models: dict[str, Model] = field(default_factory=dict)
    draining: bool = False
    """Whether the server is about to stop."""
    _kept: dict[tuple[str | None, str, int | None], Rules] = field(default_factory=dict)
    # A store that does not answer must not keep a model waiting, which has one thread.
    _of_store: Threads = field(default_factory=lambda: Threads("sasrec store", 32, 1_024))
    _of_search: Threads = field(default_factory=lambda: Threads("sasrec search", 2, 64))
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, name: str, path: Path, share: float) -> None:
        """Load a model. Raises: the errors of `load`; DataError if its canary fails. Remedy: as it says."""
        engine = self._loaded(name, path)

        def seen(requests: int, seconds: float) -> None:
            self.passes(name, requests, seconds)

        self.models[name] = Model(path, Batcher(engine, wait=self.wait, seen=seen), share)

    async def reload(self, name: str) -> tuple[str, str]:
        """Load a model again from its path, which may be a link that now leads elsewhere, and let it take over.

        Returns the digests of the old and of the new one. Raises: as `add`, and then the old one stays.
        """
        model = self.models[name]
        async with self._reloading:  # one at a time, for memory
            engine = await asyncio.to_thread(self._loaded, name, model.path)
            old, model.batcher.engine = model.engine.digest, engine
        return old, engine.digest

    def _loaded(self, name: str, path: Path) -> Engine:
        run, simple = named_run(path)
        exact = run.path.resolve()  # a link could be moved while its files are read
        path = Path(f"{exact}:{simple}") if simple else exact
        recommender = load(path, device="cpu", fallback=self.fallback)
        search = ItemSearch(recommender.items, _popularity(path, recommender))
        engine = Engine(name, recommender, _digest(path, recommender), search, _facts(path, recommender))
        engine.canary()
        for rules in self.rules.values():
            rules.on(recommender.items)  # its tables are read now, and faults are reported now
        return engine

    def close(self) -> None:
        """End the threads, and close the store."""
        for model in self.models.values():
            model.batcher.close()
        self._of_store.close()
        self._of_search.close()
        if self.store is not None:
            self.store.close()

    def named(self, name: str | None, user: object, history: Sequence[object] | None = None) -> Model:
        """Return the model of this name; without a name, that of the user's share, else of the history's.

        Raises: UnknownError. Remedy: use a name of /v1/models.
        """
        if name is not None:
            if name not in self.models:
                raise UnknownError("no model has this name. GET /v1/models lists them.")
            return self.models[name]
        if len(self.models) == 1:
            return next(iter(self.models.values()))
        drawn = hashlib.blake2b(repr(history if user is None else str(user)).encode(), digest_size=8)
        place, total = int.from_bytes(drawn.digest()) / 2**64, 0.0
        for model in self.models.values():
            total += model.share
            if place < total:
                break
        return model

    def to_ask(self, request: Recommend, newer: Newer) -> Callable[[Engine], Ask]:
        """Return what prepares a request in the worker thread. `newer`: of its user.

        Raises: UnknownError for unknown rules; ConfigError for filters that fit no column, or a wrong time.
        """
        now = None if request.now is None else moment(request.now)
        rules = [] if request.rules is None else [self._named_rules(request.rules)]
        if request.filters or request.per_group is not None:
            rules.append(
                self._combined(request.rules, " AND ".join(map(_sql, request.filters)), request.per_group)
            )

        def prepare(engine: Engine) -> Ask:
            return Ask(
                self.read(engine, request, newer),
                request.k,
                request.exclude_seen,
                request.allow,
                request.deny,
                rules,
                request.user,
                now,
                request.reasons,
            )

        return prepare

    def read(self, engine: Engine, request: Of, newer: Newer) -> Read:
        """Read the history of a request, or of its user: events of the data and of the store.

        Raises: UnknownError for an unknown user without a fallback. DataError for wrong times.
        """
        if request.history is not None:
            return engine.read(request.history, request.times)
        user, data = request.user, engine.recommender.data
        known = newer.own and data is not None and data.has_user(user)
        if not newer.events and not known and self.fallback is None:
            raise UnknownError(
                "the user is unknown, and the server has no fallback. Send a history, or events first."
            )
        return engine.read_user(user, newer.events, own=newer.own)

    async def newer(self, requests: Sequence[Of]) -> list[Newer]:
        """Return what the store knows of the user of each request without a history.

        Raises: OverloadedError, StoreError. Remedy: ask again later.
        """
        users = [str(each.user) if each.history is None else None for each in requests]
        store = self.store
        if store is None or not any(user is not None for user in users):
            return [Newer() for _ in users]

        def read(user: str | None) -> Newer:
            return Newer() if user is None else Newer(store.history(user), not store.is_forgotten(user))

        return await self._of_store.run(lambda: list(map(read, users)))

    async def stored(self, work: Callable[[HistoryStore], T]) -> T:
        """Change the store. Raises: OverloadedError, StoreError. Remedy: ask again later."""
        if self.store is None:
            raise StoreError("this server keeps no events")
        return await self._of_store.run(partial(work, self.store))

    async def found(
        self, engine: Engine, query: str, limit: int, offset: int
    ) -> tuple[npt.NDArray[np.int64], int]:
        """See `ItemSearch.find`. Raises: OverloadedError. Remedy: ask again later."""
        return await self._of_search.run(partial(engine.search.find, query, limit, offset))

    def _combined(self, rules: str | None, where: str, per_group: int | None) -> Rules:
        """Return the rules of a request with filters, on the item table of the named rules; they are kept."""
        key = (rules, where, per_group)
        if key not in self._kept:
            if len(self._kept) >= _COMBINATIONS:
                self._kept.clear()
            table = self.rules[rules].items if rules is not None and where else None
            self._kept[key] = Rules(where=where, per_group=per_group, items=table, name="the request")
        return self._kept[key]

    def _named_rules(self, name: str) -> Rules:
        if name not in self.rules:
            raise UnknownError("no rules have this name. GET /v1/models lists them.")
        return self.rules[name]


def _sql(each: Filter) -> str:
    """Return a filter as a condition in SQL, in which names and texts cannot end early."""
    column = '"' + each.column.replace('"', '""') + '"'
    if each.op == "in":
        values = each.value if isinstance(each.value, list) else [each.value]
        return f"{column} IN ({', '.join(map(_literal, values))})"
    if isinstance(each.value, list):
        raise ConfigError('a filter compares with one value. Use the op "in" for a list.')
    return f"{column} {each.op} {_literal(each.value)}"


def _literal(value: str | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _digest(path: Path, recommender: Recommender) -> str:
    """Return what identifies the weights, or the data of a baseline, in 12 hexadecimal digits."""
    if (path / FACTS).is_file():
        return facts_of(path).weights[:12]
    from sasrec.checkpoint import store
    from sasrec.checkpoint.restore import CHECKPOINTS

    run, simple = named_run(path)
    weights = file_digest(store.best(run.path / CHECKPOINTS) / store.WEIGHTS)[:12]
    return f"{weights}-{simple}" if simple else weights


def _facts(path: Path, recommender: Recommender) -> dict[str, Any]:
    """Return what /v1/models tells of a model."""
    model = getattr(getattr(recommender.scorer, "first", recommender.scorer), "model", None)
    data, run = recommender.data, named_run(path)[0]
    facts: dict[str, Any] = {
        "kind": type(recommender.scorer if model is None else model).__name__,
        "source": recommender.source,
        "timed": recommender.timed,
        "maxlen": getattr(getattr(recommender.scorer, "first", recommender.scorer), "maxlen", None),
        "repeats": recommender.repeats,
        "items": len(recommender.items),
        "users": 0 if data is None else data.num_users,
        "parameters": None if model is None else sum(each.numel() for each in model.parameters()),
        "loaded": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if (path / FACTS).is_file():
        found = facts_of(path)
        return facts | {"kind": found.model, "check": found.check}
    if data is not None:
        report = data.report
        facts["data"] = {
            "name": data.name,
            "events": data.num_events,
            "first_event": report.get("first_event"),
            "last_event": report.get("last_event"),
        }
    if run.metrics_file.exists():
        metrics = run.metrics()
        split = "test" if "test" in metrics else "valid" if "valid" in metrics else None
        if split is not None:
            facts["metrics"] = {"split": split} | metrics[split]["full"]
            if metrics["protocol"][split]["targets"] <= _QUICK:
                around = intervals(run, split, recommender.source)
                facts["intervals"] = {metric: [each.low, each.high] for metric, each in around.items()}
            facts["baselines"] = {name: each[split]["full"] for name, each in metrics["baselines"].items()}
            facts["protocol"] = {name: metrics["protocol"].get(name) for name in ("full", "seen", "split")}
    return facts


def _popularity(path: Path, recommender: Recommender) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the events of each item, (V,); zeros if an export has no counts."""
    count = len(recommender.items)
    if recommender.data is not None:
        return np.bincount(recommender.data.items, minlength=count + 1)
    for file in (path / COUNTS, RunFolder(path).counts_file):
        if file.is_file():
            return Counts.read(file, count).popular_V
    return np.zeros(count + 1, np.int64)


def shares_of(names: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Return the share of users of each model; those not given share the rest equally.

    Raises: ConfigError if a name is unknown, or the shares do not add up to 1. Remedy: correct them.
    """
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(f"--share names {unknown[0]}, which is not served. Use one of {', '.join(names)}.")
    rest = [name for name in names if name not in given]
    left = 1 - sum(given.values())
    if min(given.values(), default=0) < 0 or left < -1e-9 or (not rest and abs(left) > 1e-9):
        raise ConfigError("the shares of users must be from 0 to 1 and add up to 1. Correct --share.")
    return {name: given[name] if name in given else left / len(rest) for name in names}
