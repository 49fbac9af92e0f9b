"""The protocol card: counts, the wording of splits, differences between two cards, and the code's version."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sasrec
from sasrec.data.dataset import Dataset
from sasrec.data.splits import split_events
from sasrec.evaluation.card import MUST_AGREE, Card, card, code_version, differences, source_hash
from tests.synthetic import dataset

DAY = 86_400 * 10**6
# Two users have too few events for leave-one-out, and four users for last-2.
LISTS = [[1, 2, 3, 4, 5, 6], [2, 3], [6, 5, 4, 3, 2, 1], [1], [4, 5, 6], [3, 2, 1, 4]]


def data() -> Dataset:
    """Event k of each user is on day k."""
    days = np.concatenate([np.arange(len(row)) for row in LISTS])
    return replace(dataset(LISTS, 7), times=days * DAY)


def card_of(how: str) -> Card:
    return card(data(), split_events(data(), how))


@pytest.mark.parametrize(
    ("how", "trained", "targets", "evaluated", "skipped"),
    [
        ("leave-one-out", 14, 4, 4, {"fewer than 3 events": 2}),
        ("last-2", 14, 4, 2, {"fewer than 5 events": 4}),
        ("temporal:1970-01-03,1970-01-05", 11, 2, 2, {"no event in this period": 4}),
    ],
)
def test_the_counts_of_the_card_equal_counts_by_hand(
    how: str, trained: int, targets: int, evaluated: int, skipped: dict[str, int]
) -> None:
    found = card_of(how)
    assert found["training_events"] == trained
    assert (found["test"]["targets"], found["test"]["users"]) == (targets, evaluated)
    assert {reason: users for reason, users in found["test"]["skipped"].items() if users} == skipped
    assert (found["users_evaluated"], found["users_skipped"]) == (evaluated, sum(skipped.values()))
    assert found["users_evaluated"] + found["users_skipped"] == len(LISTS)
    assert (found["items"], found["items_not_candidates"]) == (7, 0 if "temporal" not in how else 1)


@pytest.mark.parametrize(
    "ways",
    [
        ("leave-one-out", "last-1"),
        ("temporal:0.7", "temporal:0.70", "temporal: .7"),
        ("temporal:1970-01-03,1970-01-05", "temporal:1970-01-03T00:00Z, 1970-01-05", "temporal:1970-01-03T01:00+01:00,1970-01-05"),
    ],
)  # fmt: skip
def test_one_rule_has_one_card_however_it_is_written(ways: tuple[str, ...]) -> None:
    for how in ways[1:]:
        assert card_of(how) == card_of(ways[0])


def test_other_rules_have_other_cards() -> None:
    texts = [
        card_of(how)["split"]
        for how in ("leave-one-out", "last-2", "temporal:1970-01-03,1970-01-05", "temporal:1970-01-02,1970-01-05")
    ]
    assert len(set(texts)) == 4
    assert [text.partition(":")[0] for text in texts] == ["leave-one-out", "last-2", "temporal", "temporal"]


def told(**fields: tuple[object, object]) -> list[str]:
    one, other = (dict(card_of("last-2")) | {name: values[i] for name, values in fields.items()} for i in (0, 1))
    return differences(one, other, "full")


def test_hashes_that_differ_are_told_by_their_first_digits() -> None:
    hashes = [hashlib.sha256(text).hexdigest() for text in (b"one", b"other")]
    assert told(data_hash=(hashes[0], hashes[1])) == [f"data_hash ({hashes[0][:12]} … | {hashes[1][:12]} …)"]


def test_texts_that_differ_are_told_from_where_they_begin_to() -> None:
    earlier = card_of("temporal:1970-01-03,1970-01-05")["split"]
    same_valid = card_of("temporal:1970-01-03,1970-01-04")["split"]
    later = card_of("temporal:1970-01-02,1970-01-05")["split"]
    (both,) = told(split=(earlier, later))
    rest = "T00:00:00+00:00; a user's first event fr …"
    assert both == f"split (… 1970-01-03{rest} | … 1970-01-02{rest})"
    (test,) = told(split=(earlier, same_valid))
    assert test.startswith("split (… 1970-01-05T00:00:00+00:00, is validation")
    assert " | … 1970-01-04T00:00:00+00:00, is validation" in test
    assert told(full=("all items", "all items known")) == ["full (… items | … items known)"]
    assert told(items=(7, 8), ties=("half", None)) == ["items (7 | 8)", "ties (half | None)"]


def test_what_must_agree_is_told_and_nothing_else() -> None:
    one = dict(card_of("leave-one-out"))
    for field in one:
        found = [differences(one, one | {field: "another"}, candidates) for candidates in ("full", "sampled")]
        for candidates, said in zip(("full", "sampled"), found, strict=True):
            assert len(said) == (field in MUST_AGREE[candidates]), field


def test_the_code_has_its_version_and_a_hash_of_its_source() -> None:
    package = Path(sasrec.__file__).parent
    assert card_of("last-2")["sasrec"] == code_version() == f"{sasrec.__version__}+{source_hash(package)[:8]}"


def test_the_hash_of_a_source_changes_with_names_and_contents_of_modules_only(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "part/two.py").write_text("2")
    hashes = [source_hash(tmp_path)]
    (tmp_path / "note.txt").write_text("not a module")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/one.pyc").write_text("nor this")
    assert source_hash(tmp_path) == hashes[0]
    (tmp_path / "part/two.py").write_text("3")
    hashes.append(source_hash(tmp_path))
    (tmp_path / "part/two.py").rename(tmp_path / "two.py")
    hashes.append(source_hash(tmp_path))
    (tmp_path / "three.py").write_text("")
    hashes.append(source_hash(tmp_path))
    assert len(set(hashes)) == 4
