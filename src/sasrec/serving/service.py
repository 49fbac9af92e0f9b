"""What the server knows: its models, which users get which, the rules, and the events of users."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sasrec.data.items import Items
from sasrec.errors import ConfigError, SasrecError, StoreError
from sasrec.ranking.item_table import moment
from sasrec.ranking.rules import Rules
from sasrec.runs.folder import named_run
from sasrec.serving.batcher import Batcher, OverloadedError
from sasrec.serving.engine import Ask, Engine, Read, UnfitError, UnknownError
from sasrec.serving.history_store import HistoryStore
from sasrec.serving.items_search import ItemSearch
from sasrec.serving.limits import to_stderr
from sasrec.serving.load import load
from sasrec.serving.model_facts import columns_of, digest_of, facts_about, popularity
from sasrec.serving.schemas import Filter, NewEvent, Of, Recommend
from sasrec.serving.threads import Threads

_KEPT_BYTES = 2**26  # of filters and limits of groups, about
_CANARY_SECONDS, _CANARY_LASTS, _MINUTE = 2.0, 0.5, 60.0
T = TypeVar("T")


def spare_collections() -> None:
    """Collect garbage, and leave what lives then out of later collections.

    A model and its libraries have hundreds of thousands of objects, and each full collection visits all of them,
    while every request waits.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


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
    store_works: bool = True
    """Whether the last use of the store was without an error."""
    _said: dict[str, float] = field(default_factory=dict)
    _kept: dict[tuple[str | None, str, int | None], Rules] = field(default_factory=dict)
    _size: int = 0
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
            await asyncio.to_thread(spare_collections)
        return old, engine.digest

    def _loaded(self, name: str, path: Path) -> Engine:
        run, simple = named_run(path)
        exact = run.path.resolve()  # a link could be moved while its files are read
        path = Path(f"{exact}:{simple}") if simple else exact
        recommender = load(path, device="cpu", fallback=self.fallback)
        search = ItemSearch(recommender.items, popularity(path, recommender))
        engine = Engine(name, recommender, digest_of(path, recommender), search, facts_about(path, recommender))
        engine.canary()
        for rules in self.rules.values():
            rules.on(recommender.items)  # its tables are read now, and faults are reported now
        return engine

    def overload(self) -> int | None:
        """Return in how many seconds to ask again, if every model has more requests than it can answer in time."""
        seconds = []
        for model in self.models.values():
            try:
                model.batcher.refuse_overload()
            except OverloadedError as error:
                seconds.append(error.retry_after)
            else:
                return None
        return min(seconds, default=None)

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

        Raises: UnknownError for unknown rules; UnfitError for a wrong time. What it returns raises UnfitError for
        filters that fit no column.
        """
        try:
            now = None if request.now is None else moment(request.now)
        except ConfigError:
            raise UnfitError(
                "`now` is not a time. Send seconds since 1970, or ISO 8601: 2030-12-31T18:00:00Z."
            ) from None
        rules = self._rules_of(request)

        def prepare(engine: Engine) -> Ask:
            if rules is not None:
                _refuse_unfit(rules, engine.recommender.items, request)
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

    def is_unknown(self, event: NewEvent) -> bool:
        """Whether no model knows the item of an event. It is stored, because a later model may know it."""
        return all(each.engine.recommender.items.number_of(event.item) is None for each in self.models.values())

    async def newer(self, requests: Sequence[Of]) -> list[Newer]:
        """Return what the store knows of the user of each request without a history.

        Raises: OverloadedError, StoreError. Remedy: ask again later.
        """
        users = [str(each.user) if each.history is None else None for each in requests]
        if self.store is None or not any(user is not None for user in users):
            return [Newer() for _ in users]

        def read(store: HistoryStore) -> dict[str | None, Newer]:
            found: dict[str | None, Newer] = {None: Newer()}
            for user in users:
                if user is not None and user not in found:
                    found[user] = Newer(store.history(user), not store.is_forgotten(user))
            return found

        found = await self._with_store(read)
        return [found[user] for user in users]

    async def stored(self, work: Callable[[HistoryStore], T]) -> T:
        """Change the store. Raises: OverloadedError, StoreError. Remedy: ask again later."""
        if self.store is None:
            raise StoreError("this server keeps no events")
        return await self._with_store(work)

    async def _with_store(self, work: Callable[[Any], T]) -> T:
        try:
            result = await self._of_store.run(partial(work, self.store))
        except StoreError:
            self.store_works = False
            raise
        self.store_works = True
        return result

    def complain(self, reason: str) -> None:
        """Write to stderr why requests fail, each reason once a minute: clients do not get to know it."""
        now = time.monotonic()
        if now - self._said.get(reason, -math.inf) >= _MINUTE:
            self._said = {reason: now} if len(self._said) > 100 else self._said | {reason: now}
            to_stderr(f"requests fail: {reason}")

    async def found(
        self, engine: Engine, query: str, limit: int, offset: int
    ) -> tuple[npt.NDArray[np.int64], int]:
        """See `ItemSearch.find`. Raises: OverloadedError. Remedy: ask again later."""
        return await self._of_search.run(partial(engine.search.find, query, limit, offset))

    def _rules_of(self, request: Recommend) -> Rules | None:
        """Return the rules that a request names, with its own filters and limit of groups on top."""
        named = None if request.rules is None else self._named_rules(request.rules)
        if not request.filters and request.per_group is None:
            return named
        own = " AND ".join(map(_sql, request.filters))
        key = (request.rules, own, request.per_group)
        if key not in self._kept:
            most = max((len(each.engine.recommender.items) for each in self.models.values()), default=0)
            size = 10 * len(own) + 9 * most * len(self.models)  # the parsed text, and masks of items
            if self._size + size > _KEPT_BYTES:
                self._kept.clear()
                self._size = 0
            self._size += size
            self._kept[key] = (named or Rules(name="the request")).narrowed(own, request.per_group)
        return self._kept[key]

    def _named_rules(self, name: str) -> Rules:
        if name not in self.rules:
            raise UnknownError("no rules have this name. GET /v1/models lists them.")
        return self.rules[name]


def _refuse_unfit(rules: Rules, items: Items, request: Recommend) -> None:
    """Raise UnfitError if the filters or the limit of groups of a request do not fit a catalogue."""
    try:
        rules.on(items)
        return
    except SasrecError:
        columns = columns_of(items, rules)
    for at, each in enumerate(request.filters):
        if each.column not in columns:
            message = f"`filters[{at}].column` is not a column here; these are: {', '.join(columns)}."
            raise UnfitError(message)
    if request.per_group is not None and "group" not in columns:
        raise UnfitError("`per_group` needs groups, which the catalogue does not have.")
    kinds = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    raise UnfitError(f"A filter compares a column with a value of another kind. The columns are {kinds}.")


def _sql(each: Filter) -> str:
    """Return a filter as a condition in SQL, in which names and texts cannot end early."""
    column = '"' + each.column.replace('"', '""') + '"'
    if each.op == "in":
        values = each.value if isinstance(each.value, list) else [each.value]
        return f"{column} IN ({', '.join(map(_literal, values))})"
    if isinstance(each.value, list):
        raise UnfitError('A filter compares with one value. Use the op "in" for a list.')
    return f"{column} {each.op} {_literal(each.value)}"


def _literal(value: str | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def shares_of(names: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Return the share of users of each model; those not given share the rest equally.

    Raises: ConfigError if a name is unknown, or the shares do not add up to 1. Remedy: correct them.
    """
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(f"--share names {unknown[0]}, which is not served. Use one of {', '.join(names)}.")
    rest = [name for name in names if name not in given]
    left = 1 - sum(given.values())
    if not all(0 <= share <= 1 for share in given.values()) or left < -1e-9 or (not rest and abs(left) > 1e-9):
        shown = ", ".join(f"{name}={share:g}" for name, share in given.items())
        raise ConfigError(f"shares of users must be from 0 to 1 and add up to 1, not {shown}. Correct --share.")
    return {name: given[name] if name in given else left / len(rest) for name in names}
