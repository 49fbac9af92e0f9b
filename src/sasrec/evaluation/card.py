"""The protocol card: under which rules figures were measured, and which rules two results must share.

It is the part "protocol" of metrics.json. A figure without it cannot be compared with another.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from sasrec.config.choices import Candidates as Candidates
from sasrec.config.split_rule import split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split, iso
from sasrec.evaluation.metrics import CUTOFFS, DEFINITIONS

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
    """The rule in words, the same for every way to write the setting."""
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
    """Version of the code that measured, as `code_version` gives it."""
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
        "sasrec": code_version(),
        "must_agree": {name: list(fields) for name, fields in MUST_AGREE.items()},
    }


def source_hash(package: Path) -> str:
    """Of the names and contents of a package's modules."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package).as_posix()}\n".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


# Read when it is imported: a file edited while a run trains is not the code of that run.
_SOURCE = source_hash(Path(__file__).parents[1])


def code_version() -> str:
    """The version of the package, and of its source, which tells commits apart: "0.1.0+89abcdef"."""
    return f"{version('sasrec')}+{_SOURCE[:8]}"


def differences(one: dict[str, Any], other: dict[str, Any], candidates: Candidates) -> list[str]:
    """The fields that must agree and do not, each with both values, for a sentence."""
    return [
        f"{field} ({' | '.join(_where_apart(str(one.get(field)), str(other.get(field))))})"
        for field in MUST_AGREE[candidates]
        if one.get(field) != other.get(field)
    ]


def _where_apart(one: str, other: str) -> tuple[str, str]:
    """The start of each text, from the word on in which they begin to differ; of a hash, the first digits."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    start = one.rfind(" ", 0, same) + 1
    return _excerpt(one, start), _excerpt(other, start)


def _excerpt(text: str, start: int) -> str:
    length = 12 if " " not in text else 50
    return f"{'… ' if start else ''}{text[start : start + length]}{' …' if len(text) > start + length else ''}"


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
            f"temporal: trained on what is before {valid}; a user's first event from there on, and before "
            f"{test}, is validation, the first from {test} on test; new users and new items are skipped"
        )
    last = split_rule(split.how).last
    if last == 1:
        return "leave-one-out: last event test, last but one validation; test history includes validation"
    return (
        f"last-{last}: so many last events of a user are test, as many before them validation; "
        "a history has all before its target"
    )
