"""What is recommended where the model knows nothing of a history or a user, and how the output says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError, DataError, SasrecWarning
from tests.synthetic import chain_frame, small

TEMPORAL = {"split": "temporal:2020-09-13T20:00,2020-09-13T23:00"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A run with times, groups, and users whose items are all unknown in training."""
    folder = tmp_path_factory.mktemp("fallback")
    late = pl.DataFrame({"user": ["late", "late", "later"], "item": ["new-1", "new-2", "new-1"]})
    late = late.with_columns(time=pl.lit(1_600_036_000))
    frame = pl.concat([chain_frame(), late.cast(dict(chain_frame().schema))])  # type: ignore[arg-type]
    items = frame.select("item").unique().with_columns(group=pl.col("item").str.slice(-1))
    items.write_csv(folder / "items.csv")
    data = sasrec.prepare(frame, items=folder / "items.csv", items_group="group")
    sasrec.train(data, folder / "run", **TEMPORAL, **small(num_epochs=1))
    return folder / "run", frame


def answer(
    recommender: sasrec.Recommender, history: list[str], k: int, **options: list[str]
) -> list[tuple[object, float]]:
    """What is recommended for a history of which nothing is known."""
    with pytest.warns(SasrecWarning, match="answers"):
        return list(recommender.recommend(history, k, **options))  # type: ignore[arg-type]


def known_counts(frame: pl.DataFrame) -> Counter[str]:
    return Counter(item for item in frame["item"] if not item.startswith("new"))


def test_without_a_fallback_an_unknown_history_is_refused(shop: tuple[Path, pl.DataFrame]) -> None:
    recommender = sasrec.load(shop[0])
    with pytest.raises(DataError, match="no item of the history"):
        recommender.recommend(["nothing"])
    with pytest.raises(DataError, match="not in the data set"):
        recommender.recommend_user("nobody")


def test_popular_gives_the_items_with_most_events_and_says_so(shop: tuple[Path, pl.DataFrame]) -> None:
    run, frame = shop
    recommender = sasrec.load(run, fallback="popular")
    counts = known_counts(frame)
    asked = (
        lambda: recommender.recommend([], 5),
        lambda: recommender.recommend(["nothing"], 5),
        lambda: recommender.recommend_user("nobody", 5),
        lambda: recommender.recommend_user("late", 5),
    )
    for each in asked:
        with pytest.warns(SasrecWarning, match="the fallback popular answers"):
            found = each()
        assert [score for _, score in found] == sorted(counts.values(), reverse=True)[:5]
        assert all(counts[str(item)] == score for item, score in found)


def test_known_histories_get_the_lists_of_the_model(shop: tuple[Path, pl.DataFrame]) -> None:
    plain, with_fallback = sasrec.load(shop[0]), sasrec.load(shop[0], fallback="popular")
    history = ["item-03", "item-04"]
    assert with_fallback.recommend(history) == plain.recommend(history)
    assert with_fallback.recommend_user("u000") == plain.recommend_user("u000")


def test_all_users_get_a_list_and_the_column_source_tells_whose(shop: tuple[Path, pl.DataFrame]) -> None:
    run, frame = shop
    plain, found = sasrec.load(run).recommend_all(5), sasrec.load(run, fallback="popular").recommend_all(5)
    assert set(found["user"]) == set(frame["user"])
    assert found.filter(source="model").drop("source").equals(plain)
    late = found.filter(source="popular")
    assert set(late["user"]) == set(frame["user"]) - set(plain["user"])
    assert late.filter(user="late")["rank"].to_list() == [1, 2, 3, 4, 5]
    assert found["user"].to_list() == sorted(found["user"]), "in order of user"


def test_many_histories_and_tables(shop: tuple[Path, pl.DataFrame]) -> None:
    recommender = sasrec.load(shop[0], fallback="popular")
    histories = [["item-01"], [], ["nothing"], ["item-02", "item-03"]]
    found = recommender.recommend_many(histories, 3)
    assert found.select("row", "source").unique(maintain_order=True).rows() == [
        (0, "model"),
        (1, "popular"),
        (2, "popular"),
        (3, "model"),
    ]
    table = pl.DataFrame({"user": list("abcd"), "items": histories}).to_arrow()
    lists = pl.DataFrame(recommender(table, 3))
    assert lists["source"].to_list() == found["source"].to_list()
    assert lists["item"].to_list() == found["item"].to_list()


def test_recent_counts_the_last_seven_days_and_groups_take_turns(tmp_path: Path) -> None:
    begin, day = 1_600_000_000, 86_400
    rows = [(user, "old", begin) for user in "abcd"]
    rows += [(user, item, begin + 30 * day) for user, item in (("a", "now"), ("b", "now"), ("c", "also"))]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    items = pl.DataFrame({"item": ["old", "now", "also"], "group": ["y", "y", "x"]})
    items.write_csv(tmp_path / "items.csv")
    data = sasrec.prepare(frame, items=tmp_path / "items.csv", items_group="group")
    sasrec.train(data, tmp_path / "run", split="all", **small(num_epochs=1))
    recent, popular, groups = (
        answer(sasrec.load(tmp_path / "run", fallback=name), [], 3) for name in ("recent", "popular", "groups")
    )
    assert recent == [("now", 2.0), ("also", 1.0), ("old", pytest.approx(4 / 5))]
    assert popular == [("old", 4.0), ("now", 2.0), ("also", 1.0)]
    assert [item for item, _ in groups] == ["old", "also", "now"], "the best of y, of x, then the next of y"


def test_recent_orders_what_nobody_bought_in_those_days_by_popularity_as_the_baseline_does(tmp_path: Path) -> None:
    begin, day = 1_600_000_000, 86_400
    counts = {"rare": 1, "some": 2, "most": 3}
    rows = [(f"u{n}", item, begin + n) for item, count in counts.items() for n in range(count)]
    rows += [(f"u{n}", "now", begin + 30 * day + n) for n in range(3)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    sasrec.train(frame, tmp_path / "run", split="all", **small(num_epochs=1))
    found = answer(sasrec.load(tmp_path / "run", fallback="recent"), [], 4)
    assert [item for item, _ in found] == ["now", "most", "some", "rare"]
    baseline = sasrec.load(f"{tmp_path / 'run'}:recent-7-days")
    assert baseline.recommend(["now"], 4, exclude_seen=False) == found


def test_rules_and_lists_of_ids_hold_for_the_fallback(shop: tuple[Path, pl.DataFrame]) -> None:
    run, frame = shop
    recommender = sasrec.load(run, fallback="popular")
    best = [item for item, _ in known_counts(frame).most_common()]
    assert best[0] not in dict(answer(recommender, [], 3, deny=best[:1]))
    banned = sasrec.Rules(bans={"late": (best[0],)})
    found = recommender.recommend_all(25, rules=banned)
    assert best[0] not in set(found.filter(user="late")["item"])
    assert best[0] in set(found.filter(pl.col("user") != "late", source="popular")["item"])


def test_an_export_has_the_counts(shop: tuple[Path, pl.DataFrame], tmp_path: Path) -> None:
    run, _ = shop
    sasrec.export(run, tmp_path / "once")
    sasrec.export(tmp_path / "once", tmp_path / "twice")
    expected = answer(sasrec.load(run, fallback="recent"), [], 5)
    for name in ("once", "twice"):
        assert answer(sasrec.load(tmp_path / name, fallback="recent"), [], 5) == expected
    counts = tmp_path / "once/counts.parquet"
    pl.read_parquet(counts).with_columns(popular=pl.col("popular") + 1).write_parquet(counts)
    with pytest.raises(DataError, match="has changed since the export"):
        sasrec.load(tmp_path / "once", fallback="recent")
    counts.unlink()
    with pytest.raises(DataError, match="Export again"):
        sasrec.load(tmp_path / "once", fallback="recent")


def test_what_a_fallback_lacks_is_named(tmp_path: Path) -> None:
    sasrec.train(chain_frame().drop("time"), tmp_path / "run", **small(num_epochs=1))
    for name, lacks in (("recent", "needs times"), ("groups", "needs groups"), ("best", "must be one of")):
        with pytest.raises(ConfigError, match=lacks):
            sasrec.load(tmp_path / "run", fallback=name)


def test_reasons_are_refused_for_a_list_of_the_fallback(shop: tuple[Path, pl.DataFrame]) -> None:
    recommender = sasrec.load(shop[0], fallback="popular")
    with pytest.warns(SasrecWarning), pytest.raises(DataError, match="no reasons"):
        recommender.explain([], "item-01")


def test_a_baseline_has_a_fallback_too(shop: tuple[Path, pl.DataFrame]) -> None:
    recommender = sasrec.load(f"{shop[0]}:item-to-item", fallback="popular")
    assert recommender.fallback is not None
    assert answer(recommender, [], 2) == answer(replace(recommender, scorer=recommender.fallback), [], 2)


def test_the_command_line_says_who_answered(
    shop: tuple[Path, pl.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(shop[0])
    assert main(["recommend", run, "--user", "nobody", "--fallback", "popular", "--k", "2"]) == 0
    assert "the fallback popular answers" in capsys.readouterr().err
    assert main(["recommend", run, "--user", "nobody", "--fallback", "popular", "--k", "2", "--why"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert "because" not in said.out
    assert said.err.count("the fallback popular answers") == 1
    assert main(["recommend", run, "--history", "item-01,nothing", "--fallback", "popular", "--why"]) == 0
    said = capsys.readouterr()
    assert "because" in said.out
    assert said.err.count("unknown items are ignored") == 1
    assert main(["recommend", run, "--history", "nothing", "--fallback", "recent"]) == 0
    assert main(["recommend", run, "--all", "--fallback", "groups", "--output", str(tmp_path / "all.csv")]) == 0
    assert set(pl.read_csv(tmp_path / "all.csv")["source"]) == {"model", "groups"}
