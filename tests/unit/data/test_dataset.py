"""From checked events to arrays, and back from disk."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data.dataset import Dataset
from sasrec.errors import ConfigError, DataError, FolderError, SasrecWarning
from tests.synthetic import chain_frame, write_csv


def small(**options) -> sasrec.Dataset:
    frame = pl.DataFrame(
        {
            "user": ["b", "a", "b", "a", "b", "b", "c"],
            "item": ["x", "y", "z", "x", "x", "y", "x"],
            "time": [30, 5, 10, 5, 10, 20, 1],
        }
    )
    return sasrec.prepare(frame, time_unit="s", **options)


def ids(data: sasrec.Dataset, user: str) -> list[str]:
    return [data.catalogue.ids[int(number) - 1] for number in data.item_numbers_of(data.user_number(user))]


def test_histories_are_in_order_of_time_then_of_the_file() -> None:
    data = small()
    assert (data.num_users, data.num_items, data.num_events) == (3, 3, 7)
    assert ids(data, "a") == ["y", "x"]
    assert ids(data, "b") == ["z", "x", "y", "x"]
    assert data.times is not None
    assert data.times[data.offsets[1] : data.offsets[2]].tolist() == [
        10_000_000,
        10_000_000,
        20_000_000,
        30_000_000,
    ]


@pytest.mark.parametrize(
    ("option", "left"),
    [
        ({"duplicates": "first"}, ["z", "x", "y"]),
        ({"duplicates": "last"}, ["z", "y", "x"]),
        ({"duplicates": "drop_exact"}, ["z", "x", "y", "x"]),
        ({"min_item_events": 2}, ["x", "y", "x"]),
        ({"k_core": 2}, ["x", "y", "x"]),
    ],
)
def test_filters_keep_what_they_say(option: dict[str, object], left: list[str]) -> None:
    assert ids(small(**option), "b") == left


def test_exact_duplicates_are_dropped_only_where_the_time_is_equal_too() -> None:
    frame = pl.DataFrame({"user": ["a"] * 3, "item": ["x"] * 3, "time": [1, 1, 2]})
    assert sasrec.prepare(frame, duplicates="drop_exact", time_unit="s").num_events == 2


def test_a_k_core_repeats_until_nothing_is_left_to_drop_and_minimum_events_count_once() -> None:
    # Dropping item z leaves user b with one event; dropping b leaves item y with one.
    frame = pl.DataFrame({"user": ["a", "a", "a", "b", "b"], "item": ["x", "x", "y", "y", "z"], "time": range(5)})
    core = sasrec.prepare(frame, k_core=2, time_unit="s")
    assert core.user_ids.to_list() == ["a"]
    assert core.catalogue.ids.to_list() == ["x"]
    once = sasrec.prepare(frame, min_user_events=2, min_item_events=2, time_unit="s")
    assert once.user_ids.to_list() == ["a", "b"]
    assert once.catalogue.ids.to_list() == ["x", "y"]


def test_filters_that_leave_nothing_are_named() -> None:
    with pytest.raises(DataError, match="k_core=9"):
        small(k_core=9)


def test_the_report_counts_ties_repeats_and_disorder() -> None:
    report = small().report
    assert report["events"] == report["rows_read"] == 7
    assert report["users_below_3_events"] == 2
    assert report["tied"] == 4 / 7
    assert report["repeated"] == 1 / 7
    assert report["unsorted"] == 1 / 7
    assert report["first_event"] == "1970-01-01 00:00:01"
    assert (report["length_min"], report["length_max"], report["length_median"]) == (1, 4, 2.0)
    assert any("share their time" in warning for warning in report["warnings"])
    assert any("out of order" in warning for warning in report["warnings"])
    assert (
        "2 users have fewer than 3 events; leave-one-out cannot evaluate these users, and trains only on those "
        "with 2 events" in report["warnings"]
    )


def test_saved_and_opened_a_data_set_is_the_same_and_mapped(tmp_path: Path) -> None:
    titles = tmp_path / "items.tsv"
    titles.write_text("item\ttitle\nx\tThe X\nz\tThe Z\n")
    frame = chain_frame(users=5).with_columns(item=pl.lit("x"))
    for data in (small(items=titles), sasrec.prepare(frame.drop("time"))):
        data.save(tmp_path / "data")
        opened = sasrec.open_dataset(tmp_path / "data")
        assert isinstance(opened.items, np.memmap)
        assert (
            opened.data_hash
            == data.data_hash
            == json.loads((tmp_path / "data/manifest.json").read_text())["data_hash"]
        )
        for name in ("items", "times", "offsets"):
            assert np.array_equal(getattr(opened, name), getattr(data, name)), name
        assert opened.report == data.report
        assert (opened.catalogue.titles is None) == (data.catalogue.titles is None)
        assert opened.user_ids.equals(data.user_ids)
    assert small(items=titles).catalogue.titles.to_list() == ["The X", None, "The Z"]


@pytest.mark.parametrize(
    "file", ["items.bin", "offsets.bin", "times.bin", "users.parquet", "items.parquet", "report.json"]
)
def test_a_file_that_changed_or_went_missing_is_named(file: str, tmp_path: Path) -> None:
    small(output=tmp_path)
    path = tmp_path / "data-1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=file):
        sasrec.open_dataset(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=file):
        sasrec.open_dataset(tmp_path)


def test_what_is_no_data_set_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sasrec prepare"):
        sasrec.open_dataset(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        sasrec.open_dataset(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99, "files": {}, "users": 1}))
    with pytest.raises(DataError, match="format 99"):
        sasrec.open_dataset(tmp_path)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(FolderError, match="is not empty and does not contain a data set"):
        small(output=other)


def test_the_same_rows_give_the_same_hash_however_they_arrive(tmp_path: Path) -> None:
    whole = write_csv(tmp_path / "whole.csv", users=20)
    lines = whole.read_text().splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(lines[:40]))
    (tmp_path / "b.csv").write_text(lines[0] + "".join(lines[40:]))
    expected = sasrec.prepare(whole).data_hash
    assert sasrec.prepare([tmp_path / "a.csv", tmp_path / "b.csv"]).data_hash == expected
    assert sasrec.prepare(chain_frame(users=20)).data_hash == expected
    # Users in another order, each in its own order: the numbers do not depend on who comes first.
    shuffled = chain_frame(users=20).sort("user", descending=True, maintain_order=True)
    assert sasrec.prepare(shuffled).data_hash == expected
    assert sasrec.prepare(chain_frame(users=21)).data_hash != expected


def test_integer_columns_come_back_as_integers_and_are_found_as_text_too() -> None:
    data = sasrec.prepare(pl.DataFrame({"user": [7, 7], "item": [30, 4]}))
    assert data.user_ids.to_list() == [7]
    assert sorted(data.catalogue.ids.to_list()) == [4, 30]
    assert data.user_number("7") == data.user_number(7) == 0
    numbers, unknown = data.catalogue.numbers([4, "30", 5])
    assert len(numbers) == 2
    assert unknown == ["5"]


def test_an_unknown_user_and_a_wrong_option_are_named() -> None:
    with pytest.raises(DataError, match="'nobody'"):
        small().user_number("nobody")
    with pytest.raises(ConfigError, match="k_cor"):
        small(k_cor=3)


def test_titles_name_their_columns_when_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('id,"name"\nx,"The, X"\nz,The Z\n')
    assert small(items=tmp_path / "items.csv").catalogue.titles.to_list()[0] == "The, X"
    with pytest.raises(DataError, match="id, name"):
        small(items=tmp_path / "items.csv", items_title="title")
    with pytest.raises(DataError, match="nowhere"):
        small(items=tmp_path / "nowhere.csv")


def test_what_an_interrupted_save_left_is_removed_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    data = small(output=tmp_path)
    (tmp_path / "data-7").mkdir()
    (tmp_path / "data-7" / "items.bin").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    data.save(tmp_path)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"data-8", "manifest.json", "notes", "notes.txt"}
    assert sasrec.open_dataset(tmp_path).data_hash == data.data_hash


def test_options_that_are_none_of_reading_are_refused() -> None:
    for wrong in ({"maxlen": 5}, {"dataset": "x"}):
        with pytest.raises(ConfigError, match=f"no option {next(iter(wrong))}"):
            small(**wrong)


def test_columns_have_the_names_of_the_settings_too() -> None:
    frame = pl.DataFrame({"who": ["a", "a"], "what": ["x", "y"], "when": [1_600_000_002, 1_600_000_001]})
    data = sasrec.prepare(frame, user_column="who", item="what", time_column="when")
    assert data.history("a") == ["y", "x"]
    with pytest.raises(ConfigError, match="`user` and `user_column` are one setting"):
        sasrec.prepare(frame, user="who", user_column="what", item="what")


@pytest.mark.parametrize("name", ["manifest.json", "items.bin", "data-1", "rejects.csv", "thesis.tmp"])
def test_a_strangers_folder_is_not_written_into_whatever_its_files_are_called(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    for attempt in (lambda: small().save(tmp_path), lambda: small(output=tmp_path)):
        with pytest.raises(FolderError, match="is not empty and does not contain a data set"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "{}"


def test_the_second_of_two_writers_is_told_who_writes(tmp_path: Path) -> None:
    data = small()
    found: list[Exception] = []

    def second() -> None:
        try:
            data.save(tmp_path / "data")
        except FolderError as error:
            found.append(error)

    with Dataset.writing(tmp_path / "data"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        data.save(tmp_path / "data")
    assert re.search(rf"in use: process {os.getpid()} on .* since 20.*writing a data set.*Wait", str(found[0]))
    data.save(tmp_path / "data")
    assert sasrec.open_dataset(tmp_path / "data").data_hash == data.data_hash


def test_a_reader_finds_the_old_or_the_new_data_set_while_one_is_replaced(tmp_path: Path) -> None:
    one, two = small(), sasrec.prepare(chain_frame(users=9))
    one.save(tmp_path)
    stop = threading.Event()
    found: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            found.add(sasrec.open_dataset(tmp_path).data_hash)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(20):
        for data in (two, one):
            data.save(tmp_path)
    stop.set()
    thread.join()
    assert found <= {one.data_hash, two.data_hash}
    assert found


def test_a_save_that_fails_leaves_the_old_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small(output=tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sasrec.data.dataset.write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        sasrec.prepare(chain_frame(users=9)).save(tmp_path)
    assert sasrec.open_dataset(tmp_path).data_hash == data.data_hash
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"data-1", "manifest.json"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("users", -1),
        ("events", 3),
        ("items", True),
        ("name", 5),
        ("folder", "../x"),
        ("files", []),
        ("data_hash", "a"),
    ],
)
def test_a_manifest_that_is_changed_is_found(key: str, value: object, tmp_path: Path) -> None:
    small(output=tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=r"Prepare the data set again"):
        sasrec.open_dataset(tmp_path)


def test_folders_of_others_beside_ours_stay_whatever_their_names(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(), output=tmp_path)
    for name in ("data-2023", "data-2024010112", "data-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    for users in (20, 30):
        with pytest.warns(SasrecWarning, match=r"replacing the data set in .* \(hash [0-9a-f]{12}\) by"):
            sasrec.prepare(chain_frame(users=users), output=tmp_path)
        assert sasrec.open_dataset(tmp_path).num_users == users
    assert sorted(path.parent.name for path in tmp_path.glob("*/thesis.tex")) == [
        "data-2023",
        "data-2024010112",
        "data-7",
    ]
    assert len(list(tmp_path.glob("data-*/items.bin"))) == 1


def test_titles_that_are_lost_are_said(tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv"
    frame = chain_frame()
    frame.select(item_id="item", title="item").unique().write_csv(titles)
    sasrec.prepare(frame, items=titles, output=tmp_path / "data")
    with pytest.warns(SasrecWarning, match="the titles that .* had are gone"):
        sasrec.prepare(frame, output=tmp_path / "data")
