"""Check the content of metrics.json before it is used: kinds, ranges, and that all that is shown is there."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sasrec.evaluation.metrics import METRICS

Count = Annotated[int, Field(ge=0, lt=2**53)]
Value = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=2000)]
Measured = dict[str, dict[str, Value]]
"""Candidates, "full" or "sampled" -> name of a metric -> its value."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


class _Rows(_Strict):
    targets: Count
    users: Count
    skipped: dict[str, Count]
    history_events_left_out: Count
    repeats_left_out: Count
    targets_left_out: dict[str, Count] = {}


class _Card(_Strict):
    """The fields of `Card` (evaluation/card.py) that are shown or compared."""

    split: Name
    boundaries: dict[str, str] | None = None
    full: str
    sampled_negatives: Count
    sampled_seed: Count
    training_events: Count
    items: Count
    items_not_candidates: Count
    valid: _Rows
    test: _Rows
    data: Name
    data_hash: Name
    sasrec: Name
    test_file: dict[str, str] = {}


class _Metrics(_Strict):
    valid: Measured = {}
    test: Measured = {}
    baselines: dict[str, dict[str, Measured]]
    protocol: _Card


def check_metrics(content: Any) -> None:
    """Check the content of metrics.json.

    Raises: ValueError naming the entry that is missing or wrong. The caller adds the remedy.
    """
    found = _Metrics.model_validate(content)
    measured = [split for split in ("valid", "test") if getattr(found.protocol, split).targets]
    scorers = {"": content, **{f"baselines.{name}.": values for name, values in found.baselines.items()}}
    for (place, scorer), split, candidates, name in product(
        scorers.items(), measured, ("full", "sampled"), METRICS
    ):
        if name not in scorer.get(split, {}).get(candidates, {}):
            raise ValueError(f"{place}{split}.{candidates}.{name}: it is missing")
    if unknown := {"valid", "test"} & content.keys() - set(measured):
        raise ValueError(f"{min(unknown)}: the protocol has no targets for it")
