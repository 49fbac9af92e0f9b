"""Any layout of a sound history is read exactly right, or refused with a remedy; never as another history."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.events import read_events
from tests.layouts import histories, layout

REMEDY = re.compile(
    r"columns=|`columns`|_column|`user`|time_unit|time_format|encoding|max_rejects|Rename|Name |Write |Use |Correct |Fix "
)


def outcome(seed: int, folder: Path) -> tuple[str, str]:
    """Return the kind of a generated file, and "right" or "refused". Any other outcome fails the test."""
    folder.mkdir()
    made = layout(seed, folder)
    try:
        events = read_events(made.path, DataConfig())
    except DataError as error:
        assert REMEDY.search(str(error)), f"seed {seed}: no remedy in: {error}\n{made.said}"
        assert not made.clear, f"seed {seed}: refused, though nothing is open: {error}\n{made.said}"
        return made.kind, "refused"
    rows = events.frame.select("user", "item", *(["time"] if events.time_unit else [])).rows()
    found = histories([(row[0], row[1], row[2] if events.time_unit else None) for row in rows])
    assert found == made.truth, f"seed {seed}: another history; {events.warnings}\n{made.said}"
    return made.kind, "right"


@pytest.mark.parametrize("start", range(0, 150, 30))
def test_any_layout_is_read_right_or_refused(start: int, tmp_path: Path) -> None:
    found = Counter(outcome(seed, tmp_path / str(seed))[1] for seed in range(start, start + 30))
    assert found["right"] > found["refused"]
