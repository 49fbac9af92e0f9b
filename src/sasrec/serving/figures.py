"""Figures of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Figures:
    """Counts requests, their time, lists of each model, and the sizes of passes. Safe from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        of: Any = {"registry": self._registry}
        self._requests = Counter(
            "sasrec_requests", "Finished requests, by route and status", ["route", "status"], **of
        )
        self._seconds = Histogram(
            "sasrec_request_seconds",
            "Seconds from the headers of a request to its answer",
            ["route"],
            buckets=_SECONDS,
            **of,
        )
        self._lists = Counter(
            "sasrec_lists",
            "Lists, by model and by what ranked the items (the field source)",
            ["model", "source"],
            **of,
        )
        self._sizes = Histogram(
            "sasrec_pass_requests", "Requests that share one pass through a model", ["model"], buckets=_SIZES, **of
        )
        self._passes = Histogram(
            "sasrec_pass_seconds", "Seconds that a pass through a model takes", ["model"], buckets=_SECONDS, **of
        )
        self._waiting = Gauge("sasrec_waiting_requests", "Requests that wait for a model now", ["model"], **of)
        self._refused = Counter(
            "sasrec_overloaded", "Requests refused with status 429, because too many waited", **of
        )
        self._events = Counter("sasrec_events_stored", "Events of users stored", **of)
        self._store_errors = Counter(
            "sasrec_store_errors", "Requests that failed because of the store of events", **of
        )
        self._reloads = Counter(
            "sasrec_reloads", "Reloads of a model, by result: new or refused", ["model", "result"], **of
        )
        self._loaded = Gauge(
            "sasrec_model_loaded_seconds",
            "When a model was loaded, in seconds since 1970",
            ["model", "hash"],
            **of,
        )
        ProcessCollector(registry=self._registry)

    def request(self, route: str, status: int, seconds: float, _model: str) -> None:
        """Count a finished request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def lists(self, model: str, sources: Iterable[str]) -> None:
        """Count lists of a model. `sources`: for each, "model", or the name of the baseline or fallback."""
        for source in sources:
            self._lists.labels(model, source).inc()

    def a_pass(self, model: str, requests: int, seconds: float) -> None:
        """Count a pass through a model."""
        self._sizes.labels(model).observe(requests)
        self._passes.labels(model).observe(seconds)

    def refused(self) -> None:
        """Count a request that was refused because of overload."""
        self._refused.inc()

    def events(self, count: int) -> None:
        """Count stored events."""
        self._events.inc(count)

    def store_error(self) -> None:
        """Count a request that failed because of the store of events."""
        self._store_errors.inc()

    def reload(self, model: str, result: str) -> None:
        """Count a reload. `result`: "new" or "refused"."""
        self._reloads.labels(model, result).inc()

    def text(self, waiting: Mapping[str, int], loaded: Mapping[tuple[str, str], float]) -> bytes:
        """Return all figures in the format of Prometheus.

        `waiting`: requests that wait for each model. `loaded`: (model, hash) -> seconds since 1970.
        """
        self._loaded.clear()
        for names, moment in loaded.items():
            self._loaded.labels(*names).set(moment)
        for model, count in waiting.items():
            self._waiting.labels(model).set(count)
        return generate_latest(self._registry)
