"""The protocol card: under which rules figures were measured, and which rules two results must share.

It is the part "protocol" of metrics.json. A figure without it cannot be compared with another.
"""

from __future__ import annotations

from importlib.metadata import version
from textwrap import shorten
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np

from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split, iso
from sasrec.evaluation.metrics import CUTOFFS, DEFINITIONS

Candidates: TypeAlias = Literal["full", "sampled"]

# Raised when a field of the card changes its meaning.
CARD = 2
SAMPLED_NEGATIVES = 100
SAMPLED_SEED = 0

_FULL = (
    "card",
    "data_hash",
    "split",
    "training_events",
    "items",
    "items_not_candidates",
    "full",
    "seen",
    "ties",
    "metrics",
)
MUST_AGREE: dict[Candidates, tuple[str, ...]] = {
    "full": _FULL,
    "sampled": (*_FULL, "sampled", "sampled_negatives", "sampled_seed"),
}


class Rows(TypedDict):
    """What was measured on one split, and who was not."""

    targets: int
    users: int
    skipped: dict[str, int]
    """Why users have no target -> how many."""
    history_events_left_out: int
    """Events before a target that the model was not shown, as their items are not known."""
    repeats_left_out: int
    """Events that would be targets, but of items the user has had."""


class Card(TypedDict):
    """Everything beside the scorer that a figure depends on, and what names data and code."""

    card: int
    """Version of this list of fields."""
    split: str
    """The setting, and in words what it does."""
    boundaries: dict[str, str] | None
    """Where validation and test begin (temporal only), ISO 8601."""
    cutoffs: list[int]
    full: str
    """The candidates of the full ranking."""
    sampled: str
    """The candidates of the sampled ranking."""
    sampled_negatives: int
    sampled_seed: int
    seen: str
    """What becomes of the items that a user has had."""
    ties: str
    metrics: dict[str, str]
    """Definitions, in a line each."""
    training_events: int
    valid: Rows
    test: Rows
    users_evaluated: int
    """On test, as `users_skipped`."""
    users_skipped: int
    items: int
    items_not_candidates: int
    """Items that no target is ranked against: they do not occur in training (temporal only)."""
    data: str
    data_hash: str
    sasrec: str
    """Version of the code that measured."""
    must_agree: dict[Candidates, list[str]]
    """The fields in which two results have to be equal to be compared."""


def card(data: Dataset, split: Split) -> Card:
    """The card of what is measured on that split of the data."""
    whole = split.boundaries is None
    catalogue = "items of the catalogue" if whole else "items that occur in training"
    valid, test = _rows(split.valid), _rows(split.test)
    return {
        "card": CARD,
        "split": _description(split),
        "boundaries": None
        if split.boundaries is None
        else {"valid": iso(split.boundaries[0]), "test": iso(split.boundaries[1])},
        "cutoffs": list(CUTOFFS),
        "full": f"all {catalogue}",
        "sampled": f"the target and {catalogue} drawn uniformly with replacement, a draw for each target",
        "sampled_negatives": SAMPLED_NEGATIVES,
        "sampled_seed": SAMPLED_SEED,
        "seen": "items of the user's whole history are no candidates, and no targets",
        "ties": "half: rank = 1 + number above + half the number equal",
        "metrics": DEFINITIONS,
        "training_events": int(split.training.lengths.sum()),
        "valid": valid,
        "test": test,
        "users_evaluated": test["users"],
        "users_skipped": sum(test["skipped"].values()),
        "items": data.num_items,
        "items_not_candidates": data.num_items - int(split.known_V.sum()),
        "data": data.name,
        "data_hash": data.data_hash,
        "sasrec": version("sasrec"),
        "must_agree": {name: list(fields) for name, fields in MUST_AGREE.items()},
    }


def differences(one: dict[str, Any], other: dict[str, Any], candidates: Candidates) -> list[str]:
    """The fields that must agree and do not, each with both values, for a sentence."""
    return [
        f"{field} ({shorten(str(one.get(field)), 50)} | {shorten(str(other.get(field)), 50)})"
        for field in MUST_AGREE[candidates]
        if one.get(field) != other.get(field)
    ]


def _rows(part: EvaluationSplit) -> Rows:
    return {
        "targets": len(part.targets),
        "users": len(np.unique(part.users)),
        "skipped": part.skipped,
        "history_events_left_out": part.events_left_out,
        "repeats_left_out": part.repeats_left_out,
    }


def _description(split: Split) -> str:
    if split.boundaries is not None:
        valid, test = map(iso, split.boundaries)
        return (
            f"{split.how}: trained on what is before {valid}; a user's first event from there on, and before "
            f"{test}, is validation, the first from {test} on test; new users and new items are skipped"
        )
    if split.how == "leave-one-out":
        return "leave-one-out: last event test, last but one validation; test history includes validation"
    return (
        f"{split.how}: so many last events of a user are test, as many before them validation; "
        "a history has all before its target"
    )
