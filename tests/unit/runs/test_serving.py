"""A run, or an export, serves new events of the items that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import CheckpointError, ConfigError, DataError, SasrecWarning
from tests.synthetic import chain_frame, late_frame, small

SMALL = small(num_epochs=2)
pytestmark = pytest.mark.filterwarnings("ignore:.*users? .* of all events")


def newer() -> pl.DataFrame:
    """Events of a known user, of a new user, and of an item that is not in `chain_frame`."""
    rows = [("u000", "item-03", 1), ("u000", "item-04", 2), ("guest", "item-07", 3), ("guest", "unknown", 4)]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(
        time=pl.col("time") + 1_700_000_000
    )


def test_new_users_and_events_are_served_with_the_numbers_of_the_run(tmp_path: Path) -> None:
    run = sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    sasrec.export(tmp_path / "run", tmp_path / "export")
    newer().write_csv(tmp_path / "new.csv")
    with pytest.warns(SasrecWarning):
        sasrec.prepare(newer(), output=tmp_path / "prepared")
    for folder in ("run", "export"):
        for source in (newer(), tmp_path / "new.csv", str(tmp_path / "prepared")):
            with pytest.warns(SasrecWarning, match="1 of 4 events are left out, because .* 1 item$"):
                model = sasrec.load(tmp_path / folder, dataset=source)
            assert model.items.ids.equals(run.items.ids)
            assert model.recommend_user("u000") == run.recommend(["item-03", "item-04"])
            assert model.recommend_user("guest") == run.recommend(["item-07"])
            assert set(model.recommend_all(k=3)["user"]) == {"u000", "guest"}


def test_a_baseline_counts_the_events_of_the_run_and_serves_the_new_ones(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    of_run = sasrec.load(f"{tmp_path / 'run'}:item-to-item")
    with pytest.warns(SasrecWarning, match="left out"):
        served = sasrec.load(f"{tmp_path / 'run'}:item-to-item", dataset=newer())
    assert served.recommend_user("guest") == of_run.recommend(["item-07"])


def test_files_are_read_with_the_columns_of_the_run_and_without_its_filters(tmp_path: Path) -> None:
    names = {"user": "who", "item": "what", "time": "when"}
    settings = {"columns": "who:user,what:item,when:time", "min_user_events": 3} | SMALL
    sasrec.train(chain_frame().rename(names), tmp_path / "run", **settings)
    with pytest.warns(SasrecWarning, match="left out"):
        model = sasrec.load(tmp_path / "run", dataset=newer().rename(names))
    assert model.data is not None
    assert model.data.user_ids.to_list() == ["guest", "u000"]


def test_an_item_without_a_training_event_stays_unknown(tmp_path: Path) -> None:
    run = sasrec.train(late_frame(), tmp_path / "run", split="temporal:0.7", **SMALL)
    assert run.known_items is not None
    served = sasrec.load(tmp_path / "run", dataset=late_frame().filter(pl.col("user") < "u070"))
    with pytest.warns(SasrecWarning, match="histories omit"):
        lists = served.recommend_all(k=25)
    assert "late" not in lists["item"]


def test_what_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(), output=tmp_path / "data")
    sasrec.train(tmp_path / "data", tmp_path / "run", time=True, time_span=8, **SMALL)
    foreign = newer().with_columns(item=pl.lit("other-") + pl.col("item"))
    with pytest.raises(DataError, match=r"no item of .* is known to the run"):
        sasrec.load(tmp_path / "run", dataset=foreign)
    with pytest.raises(DataError, match="reads times, and 'frame' has none"):
        sasrec.load(tmp_path / "run", dataset=newer().select("user", "item"))
    newer().write_csv(tmp_path / "new.csv")
    with pytest.raises(ConfigError, match="must be the prepared folder of the run's own data"):
        sasrec.evaluate(tmp_path / "run", dataset=tmp_path / "new.csv")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        sasrec.evaluate(tmp_path / "run", dataset=sasrec.prepare(chain_frame(users=20)))
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        sasrec.load(tmp_path / "run", dataset=newer())


def test_data_that_was_prepared_again_with_other_events_is_said_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, users in (("old", 60), ("new", 50)):
        chain_frame(users=users).write_csv(tmp_path / f"{name}.csv")
    prepare = ["prepare", str(tmp_path / "old.csv"), f"--output={tmp_path / 'data'}"]
    assert main(prepare) == 0
    assert main(prepare) == 0
    assert "replacing the data set" not in capsys.readouterr().err, "the data is the same"
    sasrec.train(tmp_path / "data", tmp_path / "run", **SMALL)
    assert main([prepare[0], str(tmp_path / "new.csv"), prepare[2]]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("runs that were trained on it need it. To keep it, name another --output") == 1
    for options in ({}, {"dataset": newer()}):
        with pytest.raises(CheckpointError, match=r"data was prepared again with other data .*in another folder"):
            sasrec.load(tmp_path / "run", **options)
    assert main(["prepare", str(tmp_path / "old.csv"), f"--output={tmp_path / 'again'}"]) == 0
    assert sasrec.load(tmp_path / "run", dataset=tmp_path / "again").recommend_user("u000")


def test_the_command_line_recommends_for_new_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    newer().write_csv(tmp_path / "new.csv")
    words = ["recommend", str(tmp_path / "run"), f"--dataset={tmp_path / 'new.csv'}"]
    assert main([*words, "--all", f"--output={tmp_path / 'top.csv'}"]) == 0
    said = capsys.readouterr().err
    assert said.count("1 of 4 events are left out") == 1
    assert "20 rows for 2 users" in said
    assert main([*words, "--user=guest", "--k=3"]) == 0
    assert main([*words, "--user=u001"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "user 'u001' is not in the data set. For a new user, give a history of item ids, or name a --fall" in said
    )


@pytest.mark.parametrize("settings", [{}, {"time": True, "time_span": 8}, {"split": "temporal:0.7"}])
def test_a_fallback_answers_for_users_of_whose_items_none_is_known(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = sasrec.train(chain_frame(), tmp_path / "run", **settings, **SMALL)
    stranger = pl.DataFrame({"user": ["q1", "q1"], "item": ["new-1", "new-2"], "time": [1_700_000_009] * 2})
    for source, known in ((pl.concat([newer(), stranger]), {"u000", "guest"}), (stranger, set())):
        with pytest.warns(SasrecWarning, match="there is 1 user with only such events$"):
            served = sasrec.load(tmp_path / "run", dataset=source, fallback="popular")
        lists = served.recommend_all(3)
        assert set(lists.filter(source="model")["user"]) == known
        own = lists.filter(user="q1")
        assert own["source"].to_list() == ["popular"] * 3
        with pytest.warns(SasrecWarning, match="the user q1 has no known item; the fallback popular answers"):
            assert dict(served.recommend_user("q1", 3)) == dict(own.select("item", "score").iter_rows())
        with pytest.warns(SasrecWarning, match="the user q2 is not in the data; the fallback popular answers"):
            assert served.recommend_user("q2", 3) == served.recommend_user("q1", 3)
    best = chain_frame().group_by("item").len().filter(pl.col("len") == pl.col("len").max())["item"]
    assert own["item"][0] in best.to_list(), "without a known item in the new data, the run's own are counted"
    assert run.recommend_all(1).height == 60


def test_an_export_counts_its_own_items_if_the_new_events_have_none(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **SMALL)
    sasrec.export(tmp_path / "run", tmp_path / "export")
    stranger = pl.DataFrame({"user": ["q1"], "item": ["new-1"], "time": [1_700_000_009]})
    with pytest.warns(SasrecWarning, match="left out"):
        served = sasrec.load(tmp_path / "export", dataset=stranger, fallback="recent")
    whole = sasrec.load(tmp_path / "export", fallback="recent")
    with pytest.warns(SasrecWarning, match="answers"):
        assert served.recommend_user("q1") == whole.recommend([])
