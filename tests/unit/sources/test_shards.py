"""A folder of Parquet shards, split by user, is prepared as if it were read at once; by several ranks too."""

from __future__ import annotations

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


def test_bad_rows_are_listed_by_shard(tmp_path: Path) -> None:
    frame = chain_frame(users=30)
    folder = sharded(
        tmp_path / "shards", frame.with_columns(item=pl.when(user="u007").then(None).otherwise("item"))
    )
    with pytest.raises(DataError, match="rows"):
        sasrec.prepare(folder, shards=True, output=tmp_path / "data")
    sasrec.prepare(folder, shards=True, output=tmp_path / "data", max_rejects=-1)
    (rejects,) = [path for path in (tmp_path / "data").glob("rejects-*.csv") if pl.read_csv(path).height]
    assert pl.read_csv(rejects)["reason"].unique().len() == 1


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
