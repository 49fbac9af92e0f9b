"""Facts about a served model: its hash, how it was measured, its columns, how popular its items are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sasrec.data.items import Items
from sasrec.files import file_digest
from sasrec.ranking.fallback import Counts
from sasrec.ranking.item_table import CATALOGUE, ItemTable
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.rules import Rules
from sasrec.runs.folder import RunFolder, named_run
from sasrec.runs.model_card import intervals
from sasrec.serving.load import COUNTS, FACTS, facts_of

_QUICK = 20_000  # targets whose intervals take less than a second


def columns_of(items: Items, rules: Rules | None = None) -> dict[str, str]:
    """Return the columns that filters can use, each with "number" or "text"."""
    given = None if rules is None else rules.items
    empty = pl.DataFrame({"item": pl.Series([], dtype=items.ids.dtype)})
    table = ItemTable(empty, CATALOGUE) if given is None else ItemTable.read(given, "items")
    schema = table.on(items).frame.schema
    return {name: "number" if kind.is_numeric() else "text" for name, kind in schema.items()}


def digest_of(path: Path, recommender: Recommender) -> str:
    """Return what identifies the weights, or the data of a baseline, in 12 hexadecimal digits."""
    if (path / FACTS).is_file():
        return facts_of(path).weights[:12]
    from sasrec.checkpoint import store
    from sasrec.checkpoint.restore import CHECKPOINTS

    run, simple = named_run(path)
    weights = file_digest(store.best(run.path / CHECKPOINTS) / store.WEIGHTS)[:12]
    return f"{weights}-{simple}" if simple else weights


def facts_about(path: Path, recommender: Recommender) -> dict[str, Any]:
    """Return what /v1/models says of a model."""
    model = getattr(getattr(recommender.scorer, "first", recommender.scorer), "model", None)
    data, run = recommender.data, named_run(path)[0]
    facts: dict[str, Any] = {
        "kind": type(recommender.scorer if model is None else model).__name__,
        "source": recommender.source,
        "timed": recommender.timed,
        "maxlen": getattr(getattr(recommender.scorer, "first", recommender.scorer), "maxlen", None),
        "repeats": recommender.repeats,
        "items": len(recommender.items),
        "columns": columns_of(recommender.items),
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
            simple = named_run(path)[1]
            own = metrics["baselines"].get(simple) if simple else metrics  # a blend was not measured with the run
            if own is not None:
                facts["metrics"] = {"split": split} | own[split]["full"]
            if own is not None and metrics["protocol"][split]["targets"] <= _QUICK:
                around = intervals(run, split, recommender.source)
                facts["intervals"] = {metric: [each.low, each.high] for metric, each in around.items()}
            facts["baselines"] = {name: each[split]["full"] for name, each in metrics["baselines"].items()}
            facts["protocol"] = {name: metrics["protocol"].get(name) for name in ("full", "seen", "split")}
    return facts


def popularity(path: Path, recommender: Recommender) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the events of each item, (V,); zeros if an export has no counts."""
    count = len(recommender.items)
    if recommender.data is not None:
        return np.bincount(recommender.data.items, minlength=count + 1)
    for file in (path / COUNTS, RunFolder(path).counts_file):
        if file.is_file():
            return Counts.read(file, count).popular_V
    return np.zeros(count + 1, np.int64)
