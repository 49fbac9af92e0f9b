"""The protocol card: the rules under which metrics were measured.

metrics.json contains the card as "protocol". Two results are comparable only if both have a card, and the cards
agree in the fields of `MUST_AGREE`.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from sasrec.config.choices import Candidates as Candidates
from sasrec.config.split_rule import split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.moments import iso
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.evaluation.metrics import CUTOFFS, DEFINITIONS

# Add one when a field of the card changes its meaning or its wording, because `differences` compares text.
CARD = 2
SAMPLED_NEGATIVES = 100
SAMPLED_SEED = 0

IN_BASKETS = "; events of one time are one basket, and a history ends before the target's basket"
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
    """Counts for one split: the measured targets and their users, and the users and events that were omitted."""

    targets: int
    users: int
    skipped: dict[str, int]
    """Reason for having no target -> number of users with that reason."""
    history_events_left_out: int
    """Events that histories omit because the item of the event does not occur in training, summed over targets."""
    repeats_left_out: int
    """The number of events left out of the targets because the user had already seen the item."""
    targets_left_out: NotRequired[dict[str, int]]
    """Other reason for leaving out a target -> number of targets. Only for own validation and test files."""


class Card(TypedDict):
    """The protocol: everything that a metric depends on, except the scorer. It also identifies data and code."""

    card: int
    """Version of the card's fields and their wording (`CARD`)."""
    split: str
    """The split in words. Two spellings of one setting, such as "last-1", give the same words."""
    boundaries: dict[str, str] | None
    """Start of validation and of test, in ISO 8601. None unless the split is temporal."""
    cutoffs: list[int]
    full: str
    """Which items are candidates for the full metrics, in words."""
    sampled: str
    """Which items are candidates for the sampled metrics, in words."""
    sampled_negatives: int
    sampled_seed: int
    seen: str
    """How seen items are treated, in words."""
    ties: str
    metrics: dict[str, str]
    """Name of a metric -> its definition in one line."""
    training_events: int
    valid: Rows
    test: Rows
    users_evaluated: int
    """Users with a test target."""
    users_skipped: int
    """Users without a test target."""
    items: int
    items_not_candidates: int
    """Items that are never candidates, because they do not occur in training. 0 for leave-one-out and last-N."""
    data: str
    data_hash: str
    sasrec: str
    """Version of the sasrec code that measured the metrics (`code_version`)."""
    test_file: NotRequired[dict[str, str]]
    """The name and hash of the file that the test targets come from, if it is not in the run's data; and as "leak"
    a sentence, if some of them precede training events of their user."""
    computed_on: NotRequired[dict[str, str | bool]]
    """The "device" that scored, and whether its operators were "deterministic" (setting of the run)."""
    rules: NotRequired[dict[str, Any]]
    """The rules of the metrics "with_rules" in words (`Rules.described`), and as "never_shown" the number of
    targets of each split that the model's lists never show with these rules."""
    must_agree: dict[Candidates, list[str]]
    """Full or sampled metrics -> the fields that must be equal in two results to compare them."""


def card(data: Dataset, split: Split, cutoffs: tuple[int, ...] = CUTOFFS) -> Card:
    """Describe the protocol of metrics that are measured on this split of the data, at these cut-offs."""
    whole = split_rule(split.how).last > 0
    catalogue = "items of the catalogue" if whole else "items that occur in training"
    valid, test = _rows(split.valid), _rows(split.test)
    described: Card = {
        "card": CARD,
        "split": _description(split),
        "boundaries": None
        if split.boundaries is None
        else {"valid": iso(split.boundaries[0]), "test": iso(split.boundaries[1])},
        "cutoffs": list(cutoffs),
        "full": f"all {catalogue}",
        "sampled": f"the target and {catalogue} drawn uniformly with replacement, a draw for each target",
        "sampled_negatives": SAMPLED_NEGATIVES,
        "sampled_seed": SAMPLED_SEED,
        "seen": "items of the user's whole history are candidates and targets like all others"
        if split.repeats
        else "items of the user's whole history are no candidates, and no targets",
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
    if split.other_file is not None:
        described["test_file"] = split.other_file
    return described


def source_hash(package: Path) -> str:
    """SHA-256 of the relative paths and contents of all .py files below `package`, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# Hashed at import, because a file that is edited while a run trains is not the code of that run.
_SOURCE = source_hash(Path(__file__).parents[1])


def code_version() -> str:
    """Version of the package, then 8 digits of its source hash, for example "0.1.0+89abcdef".

    The digits distinguish two commits of the same version.
    """
    return f"{version('sasrec')}+{_SOURCE[:8]}"


def differences(one: dict[str, Any], other: dict[str, Any], candidates: Candidates) -> list[str]:
    """The fields that differ between two cards although they must agree, each as "field (one | other)"."""
    return [
        f"{field} ({' | '.join(_where_apart(str(one.get(field)), str(other.get(field))))})"
        for field in MUST_AGREE[candidates]
        if one.get(field) != other.get(field)
    ]


def _where_apart(one: str, other: str) -> tuple[str, str]:
    """Return an excerpt of each text, from the first word in which the texts differ.

    A text without spaces, which is a hash, is shown from its start.
    """
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    start = one.rfind(" ", 0, same) + 1
    return _excerpt(one, start), _excerpt(other, start)


def _excerpt(text: str, start: int) -> str:
    length = 12 if " " not in text else 50  # a text without a space is a hash
    return f"{'… ' if start else ''}{text[start : start + length]}{' …' if len(text) > start + length else ''}"


def _rows(part: EvaluationSplit) -> Rows:
    rows: Rows = {
        "targets": len(part.targets),
        "users": len(np.unique(part.users)),
        "skipped": part.skipped,
        "history_events_left_out": part.events_left_out,
        "repeats_left_out": part.repeats_left_out,
    }
    if part.targets_left_out:  # own files only: the cards of other splits stay as they were
        rows["targets_left_out"] = part.targets_left_out
    return rows


def _description(split: Split) -> str:
    return _rule_in_words(split) + (IN_BASKETS if split.basket_starts is not None else "")


def _rule_in_words(split: Split) -> str:
    if split.other_file is not None:
        name, data_hash = split.other_file["name"], split.other_file["data_hash"][:12]
        return (
            f"other file: trained under {split.how}; each event of {name} ({data_hash}) is a test target; a "
            "history has the user's events before the target, in the run's data and in the file"
        )
    if split.boundaries is not None:
        valid, test = map(iso, split.boundaries)
        return (
            f"temporal: trained on what is before {valid}; a user's first event from there on, and before "
            f"{test}, is validation, the first from {test} on test; new users and new items are skipped"
        )
    rule = split_rule(split.how)
    if rule.files:
        return (
            "files: trained on the training file; each event of the validation and the test file is a target; a "
            "history has the user's events before the target, in all files; new users and new items are skipped"
        )
    last = rule.last
    if last == 1:
        return "leave-one-out: last event test, last but one validation; test history includes validation"
    return (
        f"last-{last}: so many last events of a user are test, as many before them validation; "
        "a history has all before its target"
    )
