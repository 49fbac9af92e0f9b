"""A folder of Parquet shards, split by user, is prepared as if it were read at once; by several ranks too."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError, DataError, FolderError
from tests.distributed.launch import finish, start
from tests.synthetic import chain_frame


def sharded(folder: Path, frame: pl.DataFrame, count: int = 5) -> Path:
    """Write the events to files, by a hash of the user."""
    folder.mkdir()
    for number in range(count):
        own = frame.filter(pl.col("user").hash(seed=1) % count == number)
        own.write_parquet(folder / f"part-{number}.parquet")
    return folder


def equal(one: sasrec.Dataset, other: sasrec.Dataset) -> bool:
    same = {name: value for name, value in one.report.items() if name not in ("sources", "warnings", "unsorted")}
    assert same == pytest.approx({name: other.report[name] for name in same})
    return one.data_hash == other.data_hash


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_the_data_set_is_that_of_the_whole_folder(tmp_path: Path, integers: bool, timed: bool) -> None:
    frame = chain_frame(users=90)
    if integers:
        frame = frame.with_columns(
            pl.col("user").str.slice(1).cast(pl.Int64), pl.col("item").str.slice(5).cast(pl.Int64)
        )
    folder = sharded(tmp_path / "shards", frame if timed else frame.drop("time"))
    whole = sasrec.prepare(folder)
    merged = sasrec.prepare(folder, shards=True, output=tmp_path / "data")
    assert equal(merged, whole)
    assert merged.user_ids.dtype == whole.user_ids.dtype
    assert sasrec.open_dataset(tmp_path / "data").data_hash == whole.data_hash
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "nothing is left over"


def test_notes_and_titles_are_those_of_the_whole(tmp_path: Path) -> None:
    frame = chain_frame(users=90)
    folder = sharded(tmp_path / "shards", pl.concat([frame, frame]))  # everything twice
    titles = frame.select("item").unique().with_columns(title=pl.col("item") + "!")
    titles.write_csv(tmp_path / "items.csv")
    whole = sasrec.prepare(folder, items=tmp_path / "items.csv")
    merged = sasrec.prepare(folder, shards=True, output=tmp_path / "data", items=tmp_path / "items.csv")
    assert equal(merged, whole)
    assert merged.catalogue.title("item-03") == "item-03!"
    assert set(merged.report["warnings"]) == set(whole.report["warnings"])


def test_a_user_in_two_shards_is_refused_and_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards", chain_frame(users=30))
    chain_frame(users=3).write_parquet(folder / "part-9.parquet")
    with pytest.raises(DataError, match=r"user 'u00\d' has events in two shards.*part-9.parquet \(3 such users\)"):
        sasrec.prepare(folder, shards=True, output=tmp_path / "data")
    assert not (tmp_path / "data/manifest.json").exists()


def test_what_shards_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards", chain_frame())
    for options, words in (
        ({}, "`shards` needs `output`"),
        ({"output": tmp_path / "data", "k_core": 2}, "`k_core` counts the events of an item in all shards"),
        ({"output": tmp_path / "data", "test": folder}, "`test` is a file of its own"),
    ):
        with pytest.raises(ConfigError, match=words):
            sasrec.prepare(folder, shards=True, **options)
    (tmp_path / "events.csv").write_text("user,item\na,b\n")
    with pytest.raises(DataError, match="shards must be Parquet files"):
        sasrec.prepare(tmp_path / "events.csv", shards=True, output=tmp_path / "data")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match="not empty"):
        sasrec.prepare(folder, shards=True, output=stranger)
    assert [path.name for path in stranger.iterdir()] == ["notes.txt"]


def test_bad_rows_of_all_shards_are_counted_and_listed_together(tmp_path: Path) -> None:
    """Also of shards that have one name, in two folders."""
    folder = sharded(tmp_path / "shards", chain_frame(users=30))
    for name in ("a", "b"):
        bad = pl.DataFrame({"user": [name, name], "item": [None, "item-03"], "time": [1_600_000_000] * 2})
        (folder / name).mkdir()
        bad.write_parquet(folder / name / "part-9.parquet")
    with pytest.raises(DataError, match=r"2 of 347 rows are bad \(all are listed in .*rejects.csv"):
        sasrec.prepare(folder, shards=True, output=tmp_path / "data", max_rejects=1)
    assert not (tmp_path / "data/manifest.json").exists()
    merged = sasrec.prepare(folder, shards=True, output=tmp_path / "data", max_rejects=2)
    assert equal(merged, sasrec.prepare(folder, max_rejects=2, output=tmp_path / "whole"))
    assert [path.name for path in (tmp_path / "data").glob("rejects*")] == ["rejects.csv"]
    assert (tmp_path / "data/rejects.csv").read_text() == (tmp_path / "whole/rejects.csv").read_text()


@pytest.mark.parametrize("name", ["my shards", "_x", "(1)", "day=1", "a+b", "übung", "x" * 70])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = sharded(tmp_path / name, chain_frame(users=30))
    assert sasrec.prepare(folder, shards=True, output=tmp_path / "data").name == "events"
    pattern = sasrec.prepare(f"{folder}/*.parquet", shards=True, output=tmp_path / "data")
    assert equal(pattern, sasrec.prepare(folder))


def test_a_data_set_with_an_odd_name_does_not_replace_a_good_one_by_a_damaged_one(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(), output=tmp_path / "data")
    replace(data, name="My data").save(tmp_path / "data")
    assert sasrec.open_dataset(tmp_path / "data").name == "events"
    with pytest.raises(DataError):
        replace(data, report={"sources": 1}).save(tmp_path / "data")
    assert sasrec.open_dataset(tmp_path / "data").data_hash == data.data_hash


def test_shards_without_events_are_left_out(tmp_path: Path) -> None:
    """Spark writes empty parts; a filter or a condition can leave a shard without events."""
    frame = chain_frame(users=30)
    folder = sharded(tmp_path / "shards", frame)
    frame.clear().write_parquet(folder / "part-5.parquet")
    (folder / "part-6.parquet").write_bytes(b"")
    one = pl.DataFrame({"user": ["short"], "item": ["item-03"], "time": [1_600_000_000]})
    one.write_parquet(folder / "part-7.parquet")
    for options in ({}, {"min_user_events": 3}, {"where": "\"user\" <> 'short'"}):
        merged = sasrec.prepare(folder, shards=True, output=tmp_path / "data", **options)
        whole = sasrec.prepare(folder, **options)
        assert equal(merged, whole)
        assert set(merged.report["warnings"]) == set(whole.report["warnings"])
    for options, words in (
        ({"min_user_events": 99}, r"^min_user_events=99 leaves none of the \d+ events. Lower the limit.$"),
        ({"where": "item = 'nothing'"}, "no row fulfils where="),
    ):
        with pytest.raises(DataError, match=words):
            sasrec.prepare(folder, shards=True, output=tmp_path / "data", **options)
        with pytest.raises(DataError, match=words):
            sasrec.prepare(folder, **options)


def test_the_note_on_the_condition_counts_all_shards(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards", chain_frame(users=90))
    where = "item <> 'item-03'"
    notes = sasrec.prepare(folder, shards=True, output=tmp_path / "data", where=where).report["warnings"]
    assert set(notes) == set(sasrec.prepare(folder, where=where).report["warnings"])
    assert sum("`where` leaves out" in note for note in notes) == 1


def test_shards_with_other_columns_are_refused_as_when_read_at_once(tmp_path: Path) -> None:
    frame = chain_frame(users=30)
    for name, other in (
        ("names", frame.rename({"item": "product"})),
        ("order", frame.select("item", "user", "time")),
        ("times", frame.drop("time")),
    ):
        folder = sharded(tmp_path / name, frame)
        other.with_columns(user=pl.lit("z")).write_parquet(folder / "part-9.parquet")
        for options in ({"shards": True, "output": tmp_path / "data"}, {}):
            with pytest.raises(DataError, match=r"has files with different columns: part-0.*but part-9"):
                sasrec.prepare(folder, **options)
    files = [tmp_path / "times" / name for name in ("part-0.parquet", "part-9.parquet")]
    with pytest.raises(DataError, match="some of the files have times and others do not"):
        sasrec.prepare(files, shards=True, output=tmp_path / "data")


def test_a_missing_folder_is_called_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        sasrec.prepare(tmp_path / "nowhere", shards=True, output=tmp_path / "data")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_prepare_leaves_no_shards(tmp_path: Path, signum: signal.Signals) -> None:
    """SIGKILL leaves them until the next `prepare` into the same folder, of shards or not."""
    folder = sharded(tmp_path / "shards", chain_frame(users=400), count=200)
    words = ["prepare", str(folder), "--shards", "--output", str(tmp_path / "data")]
    process = subprocess.Popen([sys.executable, "-m", "sasrec", *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "data/.shards").glob("3")):
        time.sleep(0.01)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    killed = signum == signal.SIGKILL
    assert process.returncode == (-signum if killed else 128 + signum)
    assert said == ("" if killed else f"interrupted; run the same command again to write {tmp_path / 'data'}\n")
    left = [path for path in tmp_path.rglob("*") if "shards" in path.name and path != folder]
    assert left == ([tmp_path / "data/.shards"] if killed else [])
    if killed:
        sasrec.prepare(chain_frame(), output=tmp_path / "data")
        assert not (tmp_path / "data/.shards").exists()


@pytest.mark.slow
def test_two_ranks_prepare_their_own_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sharded(tmp_path / "shards", chain_frame(users=90))
    words = ["-m", "sasrec", "prepare", str(folder), "--shards", "--output"]
    status, said = finish(start(2, *words, str(tmp_path / "data")))
    assert status == 0, said
    assert said.count("677 rows read") + said.count("rows read from") == 1, "rank 0 alone prints"
    assert main(["prepare", str(folder), "--shards", "--output", str(tmp_path / "one")]) == 0
    assert sasrec.open_dataset(tmp_path / "data").data_hash == sasrec.open_dataset(tmp_path / "one").data_hash
    chain_frame(users=3).write_parquet(folder / "part-9.parquet")
    status, said = finish(start(2, *words, str(tmp_path / "other")))
    assert status != 0
    assert "has events in two shards" in said
    chain_frame(users=3).rename({"item": "product"}).write_parquet(folder / "part-9.parquet")
    status, said = finish(start(2, *words, str(tmp_path / "other")))
    assert status != 0
    assert "has files with different columns" in said
