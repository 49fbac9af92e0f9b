"""What the server sends: lists with ids, titles and reasons, and errors in words that repeat nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from sasrec.errors import ConfigError, DataError, SasrecError, StoreError
from sasrec.ranking.fallback import Fallback
from sasrec.serving.engine import (
    BaselineError,
    Engine,
    Listed,
    NothingKnownError,
    UnfitError,
    UnknownError,
)
from sasrec.serving.limits import Refused
from sasrec.serving.schemas import Recommend


def refusal(error: SasrecError) -> Refused:
    """Return the answer to an error. Only messages that repeat nothing of the request are passed on."""
    if isinstance(error, UnknownError):
        return Refused(404, "unknown", str(error)[:1].upper() + str(error)[1:])
    if isinstance(error, StoreError):
        return Refused(503, "store", "The store of events cannot be used now. Send the request again later.")
    if isinstance(error, BaselineError):
        message = "This model is a baseline, which has neither reasons nor similar items. Name another model."
        return Refused(422, "baseline", message)
    if isinstance(error, UnfitError):
        return Refused(422, "unfit_rules", str(error))
    if isinstance(error, ConfigError):
        return Refused(422, "unfit_rules", "A list, a filter or a limit of groups does not fit this catalogue.")
    if isinstance(error, NothingKnownError):
        message = "No item of the history is known, and the server has no fallback. Send known items."
        return Refused(422, "nothing_known", message)
    if isinstance(error, DataError):
        message = "A model with time needs `times`: one per item, in seconds, ascending. Send them."
        return Refused(422, "unfit_times", message)
    return Refused(503, "model", "The model cannot answer now. GET /readyz tells more.")


def name_and_hash(engine: Engine) -> dict[str, str]:
    """Return which model answered."""
    return {"name": engine.name, "hash": engine.digest}


def named_items(engine: Engine, numbers: Any, *, titles: bool = True) -> list[dict[str, Any]]:
    """Return {"item": id} of item numbers; with `titles`, title and group too, where the catalogue has them."""
    columns = [(name, column) for name, column in engine.names.items() if titles or name == "item"]
    return [
        {name: column[number - 1] for name, column in columns} for number in np.asarray(numbers, np.int64).tolist()
    ]


def answer_of(asked: Recommend, listed: Listed, request_id: str) -> dict[str, Any]:
    """Return the answer to one request of /v1/recommend."""
    engine = listed.engine
    items = named_items(engine, listed.items, titles=asked.titles)
    for place, each in enumerate(items):
        each["score"], each["rank"] = float(listed.scores[place]), place + 1
    if listed.reasons is not None:
        reasons = iter(
            named_items(engine, [item for each in listed.reasons for item, _ in each], titles=asked.titles)
        )
        for each, of_item in zip(items, listed.reasons, strict=True):
            each["reasons"] = [next(reasons) | {"effect": effect} for _, effect in of_item]
    notes = []
    fallback: Fallback | None = engine.recommender.fallback
    if fallback is not None and listed.source == fallback.name:
        notes.append(f"No item of the history is known, so the fallback {fallback.name} gives the list.")
    if len(items) < asked.k:
        notes.append(f"Only {len(items)} of {asked.k} items are left by the history, the lists and the rules.")
    answer = {
        "request_id": request_id,
        "model": name_and_hash(engine),
        "source": listed.source,
        "items": items,
        "known": listed.known,
        "unknown": listed.unknown,
        "notes": notes,
    }
    return answer if asked.user is None else {"user": asked.user} | answer
