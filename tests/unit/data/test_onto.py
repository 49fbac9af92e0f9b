"""Other events with the item numbers of a catalogue."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data.items import Items
from sasrec.data.onto import onto
from sasrec.errors import DataError, SasrecWarning

EVENTS = pl.DataFrame(
    {"user": ["a", "a", "a", "b", "c"], "item": ["x", "new", "y", "new", "y"], "time": [1e9 + n for n in range(5)]}
)


def test_items_get_the_numbers_of_the_catalogue_and_unknown_ones_are_counted_once() -> None:
    catalogue = Items(pl.Series(["y", "z", "x"]))
    with pytest.warns(
        SasrecWarning, match="2 of 5 events are left out, because .* 1 item. This leaves out 1 user with"
    ):
        data = onto(catalogue, sasrec.prepare(EVENTS))
    assert data.catalogue is catalogue
    assert data.user_ids.to_list() == ["a", "c"]
    np.testing.assert_array_equal(data.items, [3, 1, 1])
    np.testing.assert_array_equal(data.offsets, [0, 2, 3])
    np.testing.assert_array_equal(data.times // 10**6 - 10**9, [0, 2, 4])
    assert data.history("a") == ["x", "y"]


def test_a_catalogue_with_every_item_only_changes_numbers(recwarn: pytest.WarningsRecorder) -> None:
    given = sasrec.prepare(EVENTS)
    data = onto(Items(pl.Series(["z"])).extended(given.catalogue), given)
    assert [data.history(user) for user in "abc"] == [given.history(user) for user in "abc"]
    assert data.num_items == 4
    assert not [each for each in recwarn if "left out" in str(each.message)]


def test_integers_and_their_text_are_one_id() -> None:
    given = sasrec.prepare(EVENTS.with_columns(item=pl.Series([5, 7, 5, 7, 5])))
    data = onto(Items(pl.Series(["7", "5"])), given)
    np.testing.assert_array_equal(data.items, [2, 1, 2, 1, 2])


def test_events_without_a_known_item_are_refused() -> None:
    with pytest.raises(DataError, match="no item of 'frame' is known to the run: an item is new there and q in"):
        onto(Items(pl.Series(["q"])), sasrec.prepare(EVENTS))
