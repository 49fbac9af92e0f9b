"""Rules: lists have k items whenever k are allowed, never a forbidden one, and what is measured is what is served."""

from __future__ import annotations

import dataclasses
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sasrec
from sasrec.cli.main import main
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.data.splits import split_events
from sasrec.errors import ConfigError, DataError, SasrecError, SasrecWarning
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.evaluation.with_rules import selected, served_ranks
from sasrec.ranking.known import NothingLeft
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.rules import Rules
from sasrec.runs.lists import write_lists
from tests.synthetic import chain_frame, dataset, random_lists, small

QUIET = "ignore::sasrec.errors.SasrecWarning"
MOMENT = 1_700_000_000  # seconds


class ByLastItem:
    """Scores that depend on the last item of the history, without ties."""

    def __init__(self, num_items: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.num_items = num_items
        self.table = np.stack([random.permutation(num_items + 1) for _ in range(num_items + 1)]).astype(np.float32)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self.table[histories.items[histories.ends[rows] - 1]])


@dataclass
class Shop:
    """A random shop: what the rules say about each item, and the rules."""

    items: int
    groups: list[str | None]
    price: list[int | None]
    start: list[int | None]
    end: list[int | None]
    listed: list[bool]
    allow: list[str] | None
    deny: list[str]
    also_deny: list[str]
    bans: dict[str, list[str]]
    per_group: int | None
    limit: int | None
    now: int
    histories: list[list[int]]
    exclude_seen: bool
    k: int
    seed: int

    @property
    def ids(self) -> list[str]:
        return [f"i{number}" for number in range(1, self.items + 1)]

    def rules(self, **changes: Any) -> Rules:
        start, end = (
            [None if each is None else MOMENT + each for each in ends] for ends in (self.start, self.end)
        )
        columns = {"item": self.ids, "price": self.price, "from": start, "until": end}
        kinds = {"item": pl.String, "price": pl.Int64, "from": pl.Int64, "until": pl.Int64}
        table = pl.DataFrame(columns, schema=kinds).filter(pl.Series(self.listed, dtype=pl.Boolean))
        options: dict[str, Any] = {
            "allow": self.allow,
            "deny": self.deny,
            "bans": self.bans,
            "per_group": self.per_group,
            "where": "" if self.limit is None else f"price < {self.limit}",
            "items": table,
            "now": MOMENT + self.now,
        }
        return Rules(**options | changes)

    def allowed(self, user: int, item: int, now: int) -> bool:
        """Whether the rules allow an item, without groups."""
        name, at = f"i{item}", item - 1
        there, price = self.listed[at], self.price[at]
        start, end = (self.start[at], self.end[at]) if there else (None, None)
        return (
            (self.allow is None or name in self.allow)
            and name not in {*self.deny, *self.also_deny, *self.bans.get(str(user), [])}
            and (self.limit is None or (there and price is not None and price < self.limit))
            and (start is None or start <= now)
            and (end is None or now < end)
        )

    def ranking(self, user: int, history: list[int], now: int, *, exclude_seen: bool) -> list[int]:
        """The whole list of a user, by walking down the ranking."""
        scores = ByLastItem(self.items, self.seed).table[history[-1]]
        seen = set(history) if exclude_seen else set()
        kept: list[int] = []
        for item in sorted(range(1, self.items + 1), key=lambda each: -scores[each]):
            group = self.groups[item - 1]
            full = self.per_group is not None and group is not None
            full = full and sum(self.groups[each - 1] == group for each in kept) >= (self.per_group or 0)
            if self.allowed(user, item, now) and item not in seen and not full:
                kept.append(item)
        return kept


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    items = draw(st.one_of(st.integers(1, 30), st.integers(15, 30)))

    def each(one: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(one, min_size=items, max_size=items))

    some = st.lists(st.integers(1, items + 1).map("i{}".format), max_size=items)  # the last one is unknown
    near = st.one_of(st.none(), st.integers(0, 6))
    start = each(near)
    long = each(near)
    history = st.lists(st.integers(1, items), min_size=1, max_size=6)
    histories = draw(st.lists(history, min_size=1, max_size=5))
    listed = each(st.sampled_from([True, True, True, False]))
    limit = draw(st.one_of(st.none(), st.integers(0, 9)))
    if limit is not None and not any(listed):  # a condition on an empty table is refused
        listed[0] = True
    return Shop(
        items=items,
        groups=each(st.sampled_from([None, "a", "b", "c"])),
        price=each(st.one_of(st.none(), st.integers(0, 9))),
        start=start,
        end=[None if more is None else (begin or 0) + more for begin, more in zip(start, long, strict=True)],
        listed=listed,
        allow=draw(st.one_of(st.none(), some)),
        deny=draw(some),
        also_deny=draw(st.lists(st.integers(1, items).map("i{}".format), max_size=2)),
        bans=draw(st.dictionaries(st.integers(0, 5).map(str), some, max_size=3)),
        per_group=draw(st.sampled_from([None, 1, 1, 2, 3, 4])),
        limit=limit,
        now=draw(st.integers(0, 7)),
        histories=histories,
        exclude_seen=draw(st.booleans()),
        k=draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 10**6)),
    )


def catalogue(shop: Shop) -> Items:
    groups = pl.Series(shop.groups, dtype=pl.String)
    if not groups.count():
        groups = pl.concat([pl.Series(["a"]), groups[1:]])
        shop.groups[0] = "a"
    return Items(pl.Series(shop.ids), groups=groups)


def check_lists(shop: Shop) -> None:
    """The lists are those of the walk: exactly k of what is allowed, in the order of the scores."""
    model = Recommender(ByLastItem(shop.items, shop.seed), catalogue(shop))
    rules, users = shop.rules(), list(range(len(shop.histories)))
    ids = [[f"i{item}" for item in history] for history in shop.histories]
    options: dict[str, Any] = {"exclude_seen": shop.exclude_seen, "deny": shop.also_deny, "rules": rules}
    found = model.recommend_many(ids, shop.k, users=users, **options)
    for user, history in enumerate(shop.histories):
        expected = shop.ranking(user, history, shop.now, exclude_seen=shop.exclude_seen)
        mine = found.filter(row=user)
        assert mine["item"].to_list() == [f"i{item}" for item in expected[: shop.k]]
        assert mine["score"].to_list() == sorted(mine["score"], reverse=True)
        assert mine["rank"].to_list() == list(range(1, mine.height + 1))
    one = model.recommend(ids[-1], shop.k, user=users[-1], **options)
    assert [item for item, _ in one] == found.filter(row=users[-1])["item"].to_list()


def check_ranks(shop: Shop) -> None:
    """The measured rank of each target is its place in the whole list that is served at its time."""
    # Most lists are long here, so that groups are full above some targets and not above others.
    loose: dict[str, Any] = {"allow": None, "limit": None, "deny": shop.deny[:1]} if shop.seed % 4 else {}
    shop = dataclasses.replace(shop, also_deny=[], **loose)
    random = np.random.default_rng(shop.seed)
    lists = [[*history, *random.integers(1, shop.items + 1, 5).tolist()] for history in shop.histories]
    data = dataset(lists, shop.items)
    times = (MOMENT + random.integers(0, 8, data.num_events)) * 10**6
    data = dataclasses.replace(data, times=times, catalogue=catalogue(shop))
    scorer, rules = ByLastItem(shop.items, shop.seed), shop.rules(now=None)
    split = split_events(data, "last-2", repeats=not shop.exclude_seen)
    for part in (split.valid, split.test):
        if not len(part.targets):
            continue
        ranks = served_ranks(scorer, part, selected(part, data, rules))
        for rank, user, target, event in zip(
            ranks, part.users.tolist(), part.targets.tolist(), part.events.tolist(), strict=True
        ):
            history = data.items[data.offsets[user] : event].tolist()
            now = int(times[event]) // 10**6 - MOMENT
            expected = shop.ranking(user, history, now, exclude_seen=shop.exclude_seen)
            assert rank == (expected.index(target) + 1 if target in expected else np.inf)
        at = dataclasses.replace(rules, now=MOMENT + now)  # the last target, as it is served
        model = Recommender(scorer, data.catalogue, repeats=not shop.exclude_seen)
        served = model.recommend([f"i{item}" for item in history], shop.items, rules=at, user=user)
        assert [item for item, _ in served] == [f"i{item}" for item in expected]


FEW = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=10_000)


@pytest.mark.filterwarnings(QUIET)
@FEW
@given(shops())
def test_lists_have_k_items_whenever_k_are_allowed_and_never_another_one(shop: Shop) -> None:
    check_lists(shop)


@pytest.mark.filterwarnings(QUIET)
@settings(FEW, max_examples=100)
@given(shops())
def test_the_measured_rank_is_the_place_in_the_served_list(shop: Shop) -> None:
    check_ranks(shop)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("check", [check_lists, check_ranks])
def test_ten_thousand_random_rule_sets(check: Callable[[Shop], None]) -> None:
    MANY(given(shops())(check))()


def made(groups: list[str | None] | None = None, titles: list[str] | None = None) -> Items:
    """Six items, a to f."""
    kinds = [None if each is None else pl.Series(each, dtype=pl.String) for each in (titles, groups)]
    return Items(pl.Series(list("abcdef")), *kinds)


def ranked(rules: Rules, items: Items | None = None, k: int = 6, **options: Any) -> str:
    """The ids of the list, in order, where the ranking without rules is a to f."""
    scorer = ByLastItem(6, 0)
    scorer.table[:] = [0, 6, 5, 4, 3, 2, 1]
    model = Recommender(scorer, items or made())
    return "".join(str(item) for item, _ in model.recommend(["a"], k, exclude_seen=False, rules=rules, **options))


def test_a_list_is_searched_beyond_its_first_items_until_it_is_full() -> None:
    groups = ["tea", "tea", "tea", "tea", "pot", None]
    assert ranked(Rules(per_group=1), made(groups), 2) == "ae"
    assert ranked(Rules(per_group=2), made(groups), 4) == "abef"
    scorer = ByLastItem(200, 0)
    scorer.table[:] = -np.arange(201)
    items = Items(pl.Series(range(1, 201)), groups=pl.Series(["tea"] * 150 + ["pot"] * 48 + [None] * 2))
    model = Recommender(scorer, items)
    found = [item for item, _ in model.recommend([200], 5, rules=Rules(per_group=1))]
    assert found == [1, 151, 199], "200 is seen, and each group gives one"
    found = [item for item, _ in model.recommend([200], 5, rules=Rules(per_group=2), exclude_seen=False)]
    assert found == [1, 2, 151, 152, 199]


def test_rules_combine_with_the_lists_of_a_request() -> None:
    assert ranked(Rules(deny=["a"]), deny=["b"]) == "cdef"
    assert ranked(Rules(allow=["a", "b", "c"]), allow=["b", "c", "d"]) == "bc"
    assert ranked(Rules(allow=(each for each in "ab"))) == "ab", "an iterator is read once"
    with pytest.warns(NothingLeft, match="because the rules leave no item"):
        assert ranked(Rules(allow=["a"], deny=["a"])) == ""


def test_conditions_read_the_item_table_and_the_catalogue(tmp_path: Path) -> None:
    table = pl.DataFrame({"item": list("abcd"), "price": [5, 15, 25, None], "shelf": ["x", "y", "x", "y"]})
    table.write_csv(tmp_path / "items.csv")
    table.write_csv(tmp_path / "items.txt", separator=";")
    table.write_parquet(tmp_path / "items.parquet")
    groups = ["tea", "tea", "pot", "pot", "tea", None]
    for source in (
        table,
        table.to_pandas(),
        table.to_arrow(),
        table.lazy(),
        *(tmp_path / f"items.{kind}" for kind in ("csv", "txt", "parquet")),
        str(tmp_path / "items.csv"),
    ):
        assert ranked(Rules(where="price < 20", items=source)) == "ab"
        assert ranked(Rules(where="price < 20 OR shelf = 'x'", items=source)) == "abc"
    assert ranked(Rules(where="price IS NULL", items=table)) == "def", "items without a row have null"
    assert ranked(Rules(where="price < 20 AND \"group\" = 'tea'", items=table), made(groups)) == "ab"
    assert ranked(Rules(where="\"group\" = 'tea'"), made(groups)) == "abe"
    assert ranked(Rules(where="title LIKE 'A%'"), made(titles=["A", "Ab", "B", "A", "C", "D"])) == "abd"
    own = table.with_columns(group=pl.lit("cup"))
    assert ranked(Rules(where="\"group\" = 'cup'", items=own), made(groups)) == "abcd", "the table's own column"


def test_integers_and_floats_of_ids_are_the_same_item() -> None:
    scorer = ByLastItem(3, 0)
    model = Recommender(scorer, Items(pl.Series([7, 8, 9])))
    for ids in ([7, 8], [7.0, 8.0], ["7", "8"]):
        table = pl.DataFrame({"item": ids, "price": [1, 1]})
        for rules in (Rules(allow=ids), Rules(where="price = 1", items=table)):
            assert {item for item, _ in model.recommend([9], rules=rules)} == {7, 8}


@pytest.mark.parametrize(
    "kind",
    [
        lambda seconds: seconds,
        float,
        lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(),
        lambda seconds: datetime.fromtimestamp(seconds, UTC),
        lambda seconds: datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None),
    ],
    ids=["seconds", "float", "iso", "zoned", "naive"],
)
def test_an_item_is_available_from_a_moment_until_just_before_another(kind: Callable[[int], Any]) -> None:
    first, last = [kind(MOMENT), None, kind(MOMENT)], [kind(MOMENT + 60), kind(MOMENT + 60), None]
    table = pl.DataFrame({"item": list("abc"), "from": first, "until": last})
    for seconds, expected in ((-1, "bdef"), (0, "abcdef"), (59, "abcdef"), (60, "cdef")):
        assert ranked(Rules(items=table, now=kind(MOMENT + seconds))) == expected


def test_a_request_is_at_the_present_moment_unless_the_rules_have_a_time() -> None:
    table = pl.DataFrame({"item": ["a", "b"], "from": ["2000-01-01", "2999-01-01"], "until": ["", None]})
    assert ranked(Rules(items=table)) == "acdef"
    assert ranked(Rules(items=table, now=date(1999, 12, 31))) == "cdef"
    assert ranked(Rules(items=table.drop("until"), now="2999-01-01")) == "abcdef"


def test_bans_are_of_users_in_every_form(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "c"]})
    frame.write_csv(tmp_path / "bans.csv")
    for bans in ({1: ["a", "b"], "2": ["c"]}, frame, frame.to_pandas(), tmp_path / "bans.csv"):
        assert ranked(Rules(bans=bans), user="1") == "cdef"
        assert ranked(Rules(bans=bans), user=2.0) == "abdef"
        assert ranked(Rules(bans=bans), user="other") == "abcdef"
        with pytest.warns(SasrecWarning, match="bans are not applied to histories without a user"):
            assert ranked(Rules(bans=bans)) == "abcdef"
    scorer = ByLastItem(6, 0)
    model = Recommender(scorer, made())
    table = pa.table({"user": [2, 1, 5], "items": [["d"], ["e"], ["f"]]})
    found = pl.DataFrame(model(table, 6, rules=Rules(bans=frame), exclude_seen=False))
    for user, banned in ((2, {"c"}), (1, {"a", "b"}), (5, set())):
        assert set(found.filter(pl.col("user") == user)["item"]) == set("abcdef") - banned
    with pytest.warns(SasrecWarning, match="bans name 1 user, such as x, but none of these lists is for"):
        model.recommend_many([["d"], ["e"]], users=[1, 2], rules=Rules(bans={"x": ["a"]}))
    with pytest.raises(DataError, match=r"1 user, but 2 histories\. Give a user"):
        model.recommend_many([["d"], ["e"]], users=[1])


def test_unknown_ids_are_counted_in_one_warning_and_ignored() -> None:
    table = pl.DataFrame({"item": ["a", "y", "z"], "price": [1, 1, 1]})
    rules = Rules(allow=["a", "x"], deny=["u"], bans={"1": ["v"]}, where="price = 1", items=table)
    items = made()
    with pytest.warns(SasrecWarning) as said:
        assert ranked(rules, items, user="1") == "a"
    assert [str(each.message) for each in said] == [
        "rules: allow: 1 of 2 items are unknown and ignored, such as x",
        "rules: deny: 1 of 1 items are unknown and ignored, such as u",
        "rules: bans: 1 of 1 items are unknown and ignored, such as v",
        "the frame of items: 2 of 3 items are unknown and ignored, such as y, z",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ranked(rules, items, user="1") == "a", "one warning for a catalogue, not one for each request"


def test_a_value_of_another_type_than_the_condition_needs_is_counted() -> None:
    table = pl.DataFrame({"item": list("abc"), "price": ["5", "cheap", "7"]})
    with pytest.warns(SasrecWarning, match=r"1 item is not recommended, because price is not a number.*cheap"):
        assert ranked(Rules(where="price < 9", items=table)) == "ac"


GROUPED = made(["tea", "tea", "pot", "pot", "tea", None])
TABLE = pl.DataFrame({"item": ["a", "b"], "price": [1, 2]})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"per_group": 0}, ConfigError, r"per_group must be a whole number from 1, not 0"),
        ({"per_group": True}, ConfigError, r"per_group must be a whole number from 1, not True"),
        ({"per_group": "2"}, ConfigError, r"per_group must be a whole number from 1, not '2'"),
        ({"per_group": 2}, ConfigError, r"per_group needs groups.*Prepare the data with `items` and `items_group`"),
        ({"allow": "a"}, DataError, r"allow of the rules: give a list of item ids"),
        ({"where": 3}, ConfigError, r"where must be a text in SQL, not 3"),
        ({"where": "price <"}, ConfigError, r"where = 'price <' is not a condition in SQL"),
        ({"where": "group = 'tea'"}, ConfigError, r'group is a word of SQL, so as a column it must be in double quotes: "group"\.'),
        ({"where": "1 = 1"}, ConfigError, r"names no column"),
        *(
            ({"where": where, "items": TABLE}, ConfigError, rf"where = .* has {name}, which reads many rows")
            for where, name in (
                ("SUM(price) > 5", "SUM"),
                ("count (*) > 1 AND price > 1", "COUNT"),
                ("price > AVG(price)", "AVG"),
                ("ROW_NUMBER() OVER (ORDER BY price) < 3", "ROW_NUMBER"),
                ("price > STDDEV(price)", "STDDEV"),
            )
        ),
        ({"where": "price < 20", "items": TABLE.head(0)}, DataError, r"the frame of items has no rows"),
        ({"where": "price < 2"}, DataError, r"the catalogue has no column 'price', which the rule where names.*: item.*Name the table"),
        ({"where": "cost < 2", "items": TABLE}, DataError, r"no column 'cost'.*Its columns are: item, price"),
        ({"where": 'price < 2 AND item = "tea"', "items": TABLE}, DataError, r"'tea'.*Texts take single quotes"),
        ({"where": "price + 1", "items": TABLE}, DataError, r"cannot be applied \(it gives no truth value\)"),
        ({"items": TABLE}, ConfigError, r"no rule reads the table.*no column from or until.*Add a condition"),
        ({"items": TABLE.rename({"item": "id"}), "where": "price < 2"}, DataError, r"no column 'item'.*id, price"),
        ({"items": pl.concat([TABLE, TABLE]), "where": "price < 2"}, DataError, r"the item a in 2 rows. Keep one"),
        ({"items": "nowhere.csv", "where": "price < 2"}, DataError, r"nowhere\.csv does not exist.*Name a CSV"),
        ({"items": ".", "where": "price < 2"}, DataError, r"\.: it is a folder, not a file\. Name a CSV or Parquet file as items"),
        ({"bans": "."}, DataError, r"\.: it is a folder, not a file\. Name a CSV or Parquet file as bans"),
        ({"items": 3, "where": "price < 2"}, ConfigError, r"must be a frame or the path.*not a int"),
        ({"bans": pl.DataFrame({"item": ["a"]})}, DataError, r"the frame of bans has no column 'user'"),
        ({"bans": pl.DataFrame({"item": ["a"], "user": [1.5]})}, DataError, r"users are decimal numbers"),
        ({"bans": {"1": "a"}}, DataError, r"bans of 1: give a list of item ids"),
        ({"bans": 3}, ConfigError, r"bans must be a frame or the path"),
        ({"now": "soon"}, ConfigError, r"now is 'soon', but .*Write an ISO date or seconds"),
        ({"now": True}, ConfigError, r"now is True"),
        ({"now": ""}, ConfigError, r"now is ''"),
        ({"now": float("nan")}, ConfigError, r"now is nan"),
        ({"now": 1.7e12}, ConfigError, r"looks like milliseconds"),
        ({"now": 20260504}, ConfigError, r"now is 20260504, but .* before 1990\. Write an ISO date"),
        ({"now": 10**30}, ConfigError, r"now is 1000"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_applied_is_refused_with_the_remedy(
    options: dict[str, Any], error: type[SasrecError], words: str
) -> None:
    with pytest.raises(error, match=words):
        ranked(Rules(**options))


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (
            "2026-05-02",
            "2026-05-01",
            r"the item a is available from 2026-05-02 until 2026-05-01, which is earlier",
        ),
        ("2026-02-30", "", r"from of the item a is '2026-02-30', but the date or time of day does not exist"),
        ("", "tomorrow", r"until of the item a is 'tomorrow', but the time is neither"),
        ("1700000000000", "", r"from of the item a is '1700000000000', but .* looks like milliseconds"),
        ("", "20301231", r"until of the item a is '20301231', but a number .* before 1990\. Write .* 2030-12-31"),
        ("2030", "", r"from of the item a is '2030', but a number .* would be before 1990"),
        ("", "-5.5", r"until of the item a is '-5\.5', but .* before 1990"),
    ],
)
def test_times_that_cannot_be_are_refused_with_the_item(first: str, last: str, words: str) -> None:
    table = pl.DataFrame({"item": ["b", "a"], "from": ["", first], "until": ["", last]})
    with pytest.raises(DataError, match=words):
        ranked(Rules(items=table))


def test_items_without_a_group_in_the_catalogue_have_that_of_the_item_table(tmp_path: Path) -> None:
    table = pl.DataFrame({"item": list("acf"), "group": ["cup", "tea", " pot "]})
    table.write_csv(tmp_path / "items.csv")
    items = made(["tea", "tea", None, "pot", None, None])
    with pytest.warns(
        SasrecWarning, match=r"^rules: per_group does not limit 3 items without a group\. The column"
    ):
        assert ranked(Rules(per_group=1), items) == "acdef"
    for source in (table, tmp_path / "items.csv"):
        with pytest.warns(SasrecWarning, match="per_group does not limit 1 item without a group"):
            assert ranked(Rules(per_group=1, items=source), items) == "ade", (
                "the catalogue's group of a comes first"
            )
    assert ranked(Rules(per_group=1, items=table.with_columns(group=pl.lit("tea"))), made()) == "abde"
    with pytest.raises(DataError, match="column group is of type List"):
        ranked(Rules(per_group=1, items=table.with_columns(group=pl.concat_list("group"))), items)


@pytest.mark.parametrize("until", [20301231, 2030, 20301231.0, 0])
def test_numbers_that_are_dates_are_refused_in_every_table(tmp_path: Path, until: float) -> None:
    table = pl.DataFrame({"item": ["a"], "until": [until]})
    table.write_csv(tmp_path / "items.csv")
    table.write_parquet(tmp_path / "items.parquet")
    for source in (table, table.to_pandas(), tmp_path / "items.csv", tmp_path / "items.parquet"):
        with pytest.raises(DataError, match="before 1990"):
            ranked(Rules(items=source))
    assert ranked(Rules(items=pl.DataFrame({"item": ["a"], "until": ["1970-08-01"]}))) == "bcdef"


def test_ids_of_tables_are_those_of_the_events_without_blanks(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["1 ", " 1", "2\t"], "item": ["a", "b ", " c"]})
    frame.write_parquet(tmp_path / "bans.parquet")
    for bans in (frame, frame.cast(pl.Categorical), tmp_path / "bans.parquet", {"1 ": ["a", " b"], 2.0: ["c "]}):
        for user in ("1", " 1", 1):
            assert ranked(Rules(bans=bans), user=user) == "cdef"
        assert ranked(Rules(bans=bans), user=2) == "abdef"
    assert ranked(Rules(allow=["a ", "b"], deny=[" b"])) == "a"
    table = pl.DataFrame({"item": ["a ", "b"], "price": [1, 1]})
    assert ranked(Rules(where="price = 1", items=table)) == "ab"
    with pytest.raises(DataError, match="the item a in 2 rows"):
        ranked(Rules(where="price = 1", items=pl.DataFrame({"item": ["a ", "a"], "price": [1, 1]})))


def test_bans_of_nobody_are_said(tmp_path: Path) -> None:
    model = sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    strange = Rules(bans={"nobody": ["item-01"]})
    for call in (lambda: model.recommend_user("u001", rules=strange), lambda: model.recommend_all(rules=strange)):
        with pytest.warns(SasrecWarning, match="rules: bans name 1 user, such as nobody, but none of"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.recommend_user("u001", rules=Rules(bans={"nobody": ["item-01"], "u002 ": ["item-01"]}))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_item_tables_are_read_with_the_byte_order_marks_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item;price\r\na;1\r\nb;2\r\n", encoding, newline="")
    assert ranked(Rules(where="price = 2", items=path)) == "b"


def test_a_column_without_values_fulfils_no_condition(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,price\na,\nb,\n")
    with pytest.warns(NothingLeft):
        assert ranked(Rules(where="price < 2", items=tmp_path / "items.csv")) == ""
    assert ranked(Rules(where="price < 2 OR item = 'a'", items=tmp_path / "items.csv")) == "a"


def test_rules_that_were_used_can_be_sent_to_another_process() -> None:
    rules = Rules(where="price = 2", items=TABLE, per_group=2)
    assert ranked(rules, GROUPED) == "b"
    assert ranked(pickle.loads(pickle.dumps(rules)), GROUPED) == "b"


def test_something_else_than_rules_is_refused(tmp_path: Path) -> None:
    for other in ("rules.toml", {"deny": ["a"]}):
        with pytest.raises(ConfigError, match=r"rules must be sasrec.Rules, not .*Use sasrec\.Rules"):
            ranked(other)  # type: ignore[arg-type]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "deny = ['a']\ngroups = 2",
            r"line 2: groups: this entry is unknown\. The entries are: allow, .*, per_group, where, items, now\. Correct",
        ),
        ("deny = 'a'", r"line 1: deny: .*list"),
        ("per_group = 0", r"line 1: per_group: .*greater than or equal to 1"),
        ("per_group = '2'", r"line 1: per_group: .*integer"),
        ("deny = ['a']\n[bans]\n7 = 'a'", r"line 3: bans.7: .*list"),
        ("bans = 3", r"line 1: bans: .*dictionary"),
        ("deny = ['a', 1.5]", r"line 1: deny.1: an id must be a text or a whole number"),
        ("deny = ['a']\nnow = 10:00:00", r"line 2: now: it must be a date, a time or seconds"),
        ("now = 'soon'\ndeny = ['a']", r"rules\.toml: now is 'soon'"),
        ("", r"has no rule\. Add one, such as per_group = 2"),
        ("now = 2026-05-04", r"has no rule"),
        ("deny = [", r"not valid TOML"),
    ],
)
def test_a_file_of_rules_names_the_line_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Rules.load(written(tmp_path / "rules.toml", text))


def test_a_file_of_rules_names_tables_beside_it(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "items.csv")
    pl.DataFrame({"user": ["7"], "item": ["a"]}).write_csv(tmp_path / "bans.csv")
    text = "where = 'price < 3'\nitems = 'items.csv'\nbans = 'bans.csv'\nnow = 2026-05-04T10:00:00Z\n"
    assert ranked(Rules.load(written(tmp_path / "rules.toml", text)), user=7) == "b"
    assert ranked(Rules.load(written(tmp_path / "rules.toml", "[bans]\n7 = ['a']\n8 = ['b']")), user=8) == "acdef"
    with pytest.raises(ConfigError, match="does not exist"):
        Rules.load(tmp_path / "nowhere.toml")


@pytest.mark.filterwarnings(QUIET)
def test_rules_that_forbid_nothing_change_no_rank_and_no_list() -> None:
    data = dataset(random_lists(60, 12, seed=1), 12)
    scorer = ByLastItem(12, 0)
    scorer.table = np.floor(scorer.table / 4)  # many ties
    groups = pl.Series(["a", "b", None, "a"] * 3)
    data = dataclasses.replace(data, catalogue=dataclasses.replace(data.catalogue, groups=groups))
    part = split_events(data).test
    ranks = target_ranks(scorer, part).full
    for rules in (Rules(), Rules(per_group=12), Rules(per_group=2**63), Rules(bans={"0": []})):
        assert served_ranks(scorer, part, selected(part, data, rules)).tolist() == ranks.tolist()
    model = Recommender(scorer, data.catalogue, data)
    for rules in (Rules(), Rules(per_group=12), Rules(per_group=2**63), Rules(per_group=10**30)):
        assert model.recommend_all(5, rules=rules).equals(model.recommend_all(5))


def test_half_of_the_items_with_the_targets_score_are_above_it() -> None:
    items = made(["tea", "tea", "tea", "pot", "pot", None])
    data = dataclasses.replace(dataset([[6, 6, 6, 2]], 6), catalogue=items)
    scorer = ByLastItem(6, 0)
    scorer.table[:] = 1
    part = split_events(data, repeats=True).test
    ranks = [served_ranks(scorer, part, selected(part, data, Rules(per_group=most)))[0] for most in (1, 2, 3)]
    # Half of a and c, of d and e, and of f are above b: 1 + 0.5 of the group of b, so that two of it fill a place.
    assert ranks == [np.inf, 1 + 1 + 1 + 0.5, 1 + 1 + 1 + 0.5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    genres = [("tea", "pot", "cup")[number % 3] for number in range(25)]
    names = [f"item-{number:02d}" for number in range(25)]
    pl.DataFrame({"id": names, "title": names, "genre": genres}).write_csv(folder / "titles.csv")
    chain_frame(users=80).write_parquet(folder / "events.parquet")
    events = folder / "events.parquet"
    data = sasrec.prepare(events, items=folder / "titles.csv", items_group="genre", output=folder / "data")
    sasrec.train(data, folder / "run", **small(num_epochs=4))
    table = pl.DataFrame({"item": names, "price": range(25), "until": ["2020-09-14" if n % 4 == 1 else "" for n in range(25)]})  # fmt: skip
    table.write_csv(folder / "items.csv")
    text = 'deny = ["item-03"]\nper_group = 2\nwhere = "price < 22"\nitems = "items.csv"\n[bans]\nu001 = ["item-05"]\n'
    written(folder / "rules.toml", text)
    return folder


def test_evaluate_measures_what_a_run_serves_at_the_time_of_each_target(run: Path) -> None:
    rules = Rules.load(run / "rules.toml")
    plain = sasrec.evaluate(run / "run", dataset=run / "data", device="cpu")
    before = {path.name: path.read_bytes() for path in (run / "run").iterdir() if path.is_file()}
    metrics = sasrec.evaluate(run / "run", dataset=run / "data", device="cpu", rules=rules)
    assert {path.name: path.read_bytes() for path in (run / "run").iterdir() if path.is_file()} == before
    assert metrics["test"]["full"] == plain["test"]["full"]
    assert "with_rules" not in plain["test"]
    assert {"full", "sampled", "with_rules"} == set(metrics["test"])
    model = sasrec.load(run / "run", dataset=run / "data", device="cpu")
    data = model.data
    assert data is not None
    assert data.times is not None
    part = split_events(data).test
    gains, never = [], 0
    for user, target, event in zip(part.users.tolist(), part.targets, part.events, strict=True):
        history = [data.catalogue.id_of(int(item)) for item in data.items[data.offsets[user] : event]]
        at = dataclasses.replace(rules, now=int(data.times[event]) // 10**6)
        served = [item for item, _ in model.recommend(history, 25, rules=at, user=data.user_ids[user])]
        name = data.catalogue.id_of(int(target))
        gains.append(1 / np.log2(2 + served.index(name)) if name in served[:10] else 0)
        never += name not in served
    assert metrics["test"]["with_rules"]["ndcg@10"] == pytest.approx(np.mean(gains))
    assert 0 < never < len(part.targets)
    described = metrics["protocol"]["rules"]
    assert described.pop("never_shown")["test"] == never
    assert described == {
        "name": "rules.toml",
        "deny": "1 items",
        "bans": "of 1 users",
        "per_group": 2,
        "where": "price < 22",
        "items": "items.csv",
    }
    json.dumps(metrics)
    rows = metrics.frame().filter(candidates="with_rules", split="test", metric="ndcg@10")
    assert set(rows["scorer"]) == {"model", *metrics["baselines"]}


def test_evaluate_refuses_what_rules_do_not_measure(run: Path) -> None:
    with pytest.raises(ConfigError, match="`details` is measured without rules"):
        sasrec.evaluate(run / "run", dataset=run / "data", rules=Rules(deny=["item-01"]), details=True)
    with pytest.raises(ConfigError, match=r"rules must be sasrec\.Rules"):
        sasrec.evaluate(run / "run", dataset=run / "data", rules="rules.toml")  # type: ignore[arg-type]
    table = pl.DataFrame({"item": ["1"], "from": ["2026-01-01"]})
    data = dataset(random_lists(9, 5, seed=0), 5)
    with pytest.raises(ConfigError, match=r"the data has no times\. Add the time of the requests.*now = "):
        selected(split_events(data).test, data, Rules(items=table))
    assert selected(split_events(data).test, data, Rules(items=table, now="2025-01-01")).allowed_V is not None


def test_users_are_served_with_the_rules_one_by_one_all_and_from_files(run: Path) -> None:
    rules = Rules.load(run / "rules.toml")
    model = sasrec.load(run / "run", dataset=run / "data", device="cpu")
    everybody = model.recommend_all(4, rules=rules)
    assert model.items.groups is not None
    genre = dict(zip(model.items.ids, model.items.groups, strict=True))
    late = {f"item-{number:02d}" for number in range(25) if number % 4 == 1 or number >= 22}
    for (user,), lines in everybody.group_by("user"):
        assert not set(lines["item"]) & {"item-03", *late, *(["item-05"] if user == "u001" else [])}
        assert max(np.unique([genre[each] for each in lines["item"]], return_counts=True)[1]) <= 2
        assert [item for item, _ in model.recommend_user(user, 4, rules=rules)] == lines["item"].to_list()
    users = everybody["user"].unique(maintain_order=True)
    assert model.data is not None
    pl.DataFrame({"user": users, "items": [model.data.history(user) for user in users]}).write_parquet(
        run / "histories.parquet"
    )
    write_lists(model, run / "histories.parquet", run / "lists.parquet", 4, rules=rules)
    assert pl.read_parquet(run / "lists.parquet").select("user", "item").equals(everybody.select("user", "item"))
    simple = sasrec.load(f"{run / 'run'}:popularity", dataset=run / "data", device="cpu")
    assert "item-03" not in simple.recommend_all(25, rules=rules)["item"]


def test_the_command_line_recommends_and_measures_with_rules(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--device=cpu", f"--dataset={run / 'data'}", f"--rules={run / 'rules.toml'}"]
    assert main(["recommend", str(run / "run"), "--user=u001", "--k=3", *common]) == 0
    model = sasrec.load(run / "run", dataset=run / "data", device="cpu")
    expected = model.recommend_user("u001", 3, rules=Rules.load(run / "rules.toml"))
    shown = capsys.readouterr().out
    assert [line.split("\t")[1] for line in shown.splitlines()[1:]] == [item for item, _ in expected]
    assert main(["recommend", str(run / "run"), "--all", f"--output={tmp_path / 'top.csv'}", *common]) == 0
    lists = pl.read_csv(tmp_path / "top.csv")
    assert "item-03" not in lists["item"]
    capsys.readouterr()
    one = ["recommend", str(run / "run"), "--all", f"--output={tmp_path / 'one.csv'}", "--k=1", *common]
    assert main(one) == 0
    assert "fewer than" not in capsys.readouterr().err
    long = ["--k=20", *common, f"--output={tmp_path / 'long.csv'}"]
    users = lists["user"].n_unique()
    pl.DataFrame({"user": ["x"], "items": [["item-01"]]}).write_parquet(tmp_path / "one.parquet")
    of_file = f"--histories={tmp_path / 'one.parquet'}"
    alone = ["--k=20", *common]
    asked = [("--all", long, f"{users} of {users} lists have"), (of_file, long, "the list has")]
    asked += [("--user=u001", alone, "the list has"), ("--history=item-01", alone, "the list has")]
    for command, options, subject in asked:
        assert main(["recommend", str(run / "run"), command, *options]) == 0
        said = " ".join(capsys.readouterr().err.split())
        words = f"{subject} fewer than 20 items, because the rules and the items seen leave no more"
        assert said.count(words) == 1
    capsys.readouterr()
    assert main(["recommend", str(run / "run"), "--user=u001", "--allow=item-03", *common]) == 1
    assert "the rules leave no item that is not in the history. Change the rules" in capsys.readouterr().err
    assert main(["evaluate", str(run / "run"), *common]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "test, with rules.toml: the model's lists never show" in said
    assert "without rules with rules difference model NDCG@10" in said
    assert "best baseline with rules:" in said
    assert "without rules, on test No difference shown" in said or "without rules, on test The model is" in said
    assert (
        "rules: rules.toml (deny 1 items; bans of 1 users; per_group 2; where price < 22; items items.csv)" in said
    )
    other = written(tmp_path / "other.toml", "where = 'cost < 3'")
    for command in (["evaluate"], ["recommend", "--user=u001"]):
        assert main([*command, str(run / "run"), *common[:2], f"--rules={other}"]) == 1
        assert "no column 'cost', which the rule where names" in " ".join(capsys.readouterr().err.split())


def test_a_column_of_ids_is_recognised_by_its_name_as_in_files_of_events(run: Path, tmp_path: Path) -> None:
    """A shop's table of products has product_id; its bans have customer_id and sku."""
    frame = pl.DataFrame({"item": [f"item-{number:02}" for number in range(25)], "price": range(25)})
    renamed = frame.rename({"item": "product_id"})
    (tmp_path / "items.csv").write_text(renamed.write_csv(separator=";"))
    recommender = sasrec.load(run / "run")
    expected = recommender.recommend(["item-03"], 5, rules=sasrec.Rules(items=frame, where="price < 5"))
    for table in (renamed, tmp_path / "items.csv"):
        rules = sasrec.Rules(items=table, where="price < 5 and product_id = item")
        assert recommender.recommend(["item-03"], 5, rules=rules) == expected
    bans = pl.DataFrame({"customer_id": ["u000"], "sku": [expected[0][0]]})
    banned = recommender.recommend(["item-03"], 5, rules=sasrec.Rules(bans=bans), user="u000")
    assert expected[0][0] not in dict(banned)
    two = renamed.with_columns(sku="product_id")
    with pytest.raises(DataError, match="several for it: product_id, sku"):
        recommender.recommend(["item-03"], 5, rules=sasrec.Rules(items=two, where="price < 5"))
