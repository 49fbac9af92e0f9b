"""Own training, validation and test files: what is read, stored, noted and refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.config.settings import DataConfig
from sasrec.data.dataset import Dataset
from sasrec.data.parts import TEST, TRAIN, VALID
from sasrec.errors import ConfigError, DataError
from sasrec.sources.resolve import resolve
from tests.synthetic import chain_frame


def frame(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Events at these seconds after a day of 2020."""
    found = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return found.with_columns(pl.col("time") + 1_600_000_000)


def shown(data: Dataset) -> list[tuple[object, object, int]]:
    """(user, item, part) of each event, in order."""
    assert data.parts is not None
    users = [user for user in range(data.num_users) for _ in data.item_numbers_of(user)]
    return [
        (data.user_ids[user], data.catalogue.id_of(int(item)), int(part))
        for user, item, part in zip(users, data.items, data.parts, strict=True)
    ]


TRAINING = frame(("a", "x", 10), ("a", "y", 20), ("b", "x", 10), ("b", "z", 20), ("c", "y", 50))
VALIDATION = frame(("a", "z", 30), ("c", "x", 40))
TESTING = frame(("a", "w", 30), ("b", "y", 30), ("d", "x", 60), ("b", "y", 40))


def notes(data: Dataset) -> str:
    return "\n".join(data.report["warnings"])


def test_events_are_in_order_of_time_and_equal_times_in_order_of_the_files() -> None:
    data = sasrec.prepare(TRAINING, valid=VALIDATION, test=TESTING)
    assert shown(data) == [
        ("a", "x", TRAIN), ("a", "y", TRAIN), ("a", "z", VALID), ("a", "w", TEST),
        ("b", "x", TRAIN), ("b", "z", TRAIN), ("b", "y", TEST), ("b", "y", TEST),
        ("c", "x", VALID), ("c", "y", TRAIN), ("d", "x", TEST),
    ]  # fmt: skip
    assert data.report["parts"] == {"training": 5, "validation": 2, "test": 4}
    assert data.report["rows_read"] == 11
    assert "events of each file: training 5 (frame), validation 2 (frame), test 4 (frame)" in notes(data)


def test_without_times_the_files_follow_each_other() -> None:
    parts = [part.drop("time") for part in (TRAINING, VALIDATION, TESTING)]
    data = sasrec.prepare(parts[0], valid=parts[1], test=parts[2])
    assert [row for row in shown(data) if row[0] in "ac"] == [
        ("a", "x", TRAIN), ("a", "y", TRAIN), ("a", "z", VALID), ("a", "w", TEST), ("c", "y", TRAIN), ("c", "x", VALID)
    ]  # fmt: skip


def test_a_held_out_event_before_a_training_event_of_its_user_is_called_a_leak_with_counts() -> None:
    data = sasrec.prepare(TRAINING, valid=VALIDATION, test=TESTING)
    assert "leak: 1 of 2 validation events (1 user) are earlier than an event of the same user in" in notes(data)
    assert "of 4 test events" not in notes(data)
    early = frame(("a", "w", 5), ("a", "w", 25), ("b", "w", 15), ("c", "x", 50))
    assert "leak: 2 of 4 test events (2 users)" in notes(sasrec.prepare(TRAINING, test=early))
    assert "leak" not in notes(sasrec.prepare(TRAINING, test=TESTING))


def test_copies_in_two_files_are_counted() -> None:
    copies = pl.concat([TRAINING.head(2), frame(("a", "x", 99)), TESTING])
    data = sasrec.prepare(TRAINING, test=copies)
    assert "2 of 7 test events are in the training or validation file too (same user, item and time)" in notes(
        data
    )
    once = sasrec.prepare(TRAINING, test=copies, duplicates="drop_exact")
    assert "are in the" not in notes(once)
    assert once.report["parts"] == {"training": 5, "validation": 0, "test": 5}


def test_saved_and_opened_the_parts_are_there_and_the_hash_covers_them(tmp_path: Path) -> None:
    data = sasrec.prepare(TRAINING, valid=VALIDATION, test=TESTING, output=tmp_path / "data")
    opened = sasrec.open_dataset(tmp_path / "data")
    assert shown(opened) == shown(data)
    assert opened.data_hash == data.data_hash
    other = sasrec.prepare(pl.concat([TRAINING, VALIDATION]), test=TESTING)
    plain = sasrec.prepare(pl.concat([TRAINING, VALIDATION, TESTING]))
    assert other.items.tolist() == data.items.tolist() == plain.items.tolist()
    assert len({data.data_hash, other.data_hash, plain.data_hash}) == 3
    # A data set without parts that replaces this one leaves no parts behind.
    plain.save(tmp_path / "data")
    assert sasrec.open_dataset(tmp_path / "data").parts is None
    assert not (tmp_path / "data" / "parts.bin").exists()


def test_ids_are_integers_only_if_they_are_in_all_files() -> None:
    numbers = TRAINING.with_columns(pl.col("user", "item").rank("dense").cast(pl.Int64))
    test = numbers.head(2).with_columns(time=1_600_000_090)
    assert sasrec.prepare(numbers, test=test).history(1) == [1, 2, 1, 2]
    mixed = sasrec.prepare(numbers, test=test.with_columns(pl.col("user", "item").cast(pl.String)))
    assert mixed.history(1) == ["1", "2", "1", "2"]
    assert mixed.user_ids.dtype == pl.String


def test_recbole_and_amazon_files_are_read_as_they_are(tmp_path: Path) -> None:
    whole = chain_frame(users=20)
    parts = {
        "train": whole.filter(pl.int_range(pl.len()) % 5 < 3),
        "valid": whole.filter(pl.int_range(pl.len()) % 5 == 3),
    }
    parts["test"] = whole.filter(pl.int_range(pl.len()) % 5 == 4)
    for name, part in parts.items():
        part.rename({"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float"}).write_csv(
            tmp_path / f"made.{name}.inter", separator="\t"
        )
        part.select(
            user_id="user",
            parent_asin="item",
            rating=pl.lit(5.0),
            timestamp=pl.col("time") * 1000,
            history=pl.lit("i-1 i-2"),
        ).write_csv(tmp_path / f"{name}.csv")
    plain = sasrec.prepare(parts["train"], valid=parts["valid"], test=parts["test"])
    for pattern in ("made.{}.inter", "{}.csv"):
        files = {name: tmp_path / pattern.format(name) for name in parts}
        data = sasrec.prepare(files["train"], valid=files["valid"], test=files["test"])
        assert data.data_hash == plain.data_hash


@pytest.mark.parametrize(
    ("training", "test", "message"),
    [
        (TRAINING, TESTING.drop("time"), "the training file has times and the test file has none"),
        (TRAINING.drop("time"), TESTING, "the test file has times and the training file has none"),
        (
            TRAINING,
            TESTING.with_columns(pl.col("time") * 1000),
            "times of the training file look like s, and those of the test file like ms.*`time_unit`",
        ),
        (TRAINING, TESTING.with_columns(user=pl.col("user") + ".0"), r"no user of the test file.*An id is 'a\.0' there and 'a' here"),
        (TRAINING, TESTING.with_columns(item=pl.col("item") + " 2"), "no item of the test file"),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together_are_refused(
    training: pl.DataFrame, test: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        sasrec.prepare(training, test=test)


def test_bad_rows_of_all_files_are_counted_and_listed_together(tmp_path: Path) -> None:
    for name, part in (("train", TRAINING), ("test", TESTING)):
        part.with_columns(item=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("")).otherwise("item")).write_csv(
            tmp_path / f"{name}.csv"
        )
    files = {"source": tmp_path / "train.csv", "test": tmp_path / "test.csv", "output": tmp_path / "data"}
    with pytest.raises(DataError, match=r"2 of 9 rows of all files are bad.*max_rejects=2"):
        sasrec.prepare(**files, max_rejects=1)
    data = sasrec.prepare(**files, max_rejects=2)
    assert (data.report["rows_read"], data.report["rows_rejected"], data.num_events) == (9, 2, 7)
    assert pl.read_csv(tmp_path / "data" / "rejects.csv")["file"].to_list() == ["train.csv", "test.csv"]


def test_files_are_not_added_to_data_that_is_already_prepared(tmp_path: Path) -> None:
    data = sasrec.prepare(TRAINING, output=tmp_path / "data")
    for source in (data, tmp_path / "data", "ml-100k"):
        with pytest.raises(
            ConfigError, match=r"so `test` cannot be added to it\. Give the file of training events"
        ):
            resolve(source, DataConfig(), test=TESTING)
