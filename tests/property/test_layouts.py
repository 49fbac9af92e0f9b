"""Any layout of a sound history is read exactly right, or refused with a remedy; never as another history."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import pytest

import sasrec
from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.events import read_events
from tests.layouts import histories, layout

Read = TypeVar("Read")
REMEDY = re.compile(
    r"columns=|`columns`|_column|`user`|time_unit|time_format|encoding|max_rejects|Rename|Name |Write |Use |Correct |Fix "
)


def attempt(read: Callable[[], Read]) -> tuple[Read | None, str]:
    """Return what is read, or None and why it is refused."""
    try:
        return read(), ""
    except DataError as error:
        return None, str(error)


def outcome(seed: int, folder: Path) -> tuple[str, str]:
    """Return the kind of a generated file, and "right" or "refused". Any other outcome fails the test."""
    folder.mkdir()
    made = layout(seed, folder)
    events, error = attempt(lambda: read_events(made.path, DataConfig()))
    if events is None:
        assert REMEDY.search(error), f"seed {seed}: no remedy in: {error}\n{made.said}"
        assert not made.clear, f"seed {seed}: refused, though nothing is open: {error}\n{made.said}"
        return made.kind, "refused"
    rows = events.frame.select("user", "item", *(["time"] if events.time_unit else [])).rows()
    found = histories([(row[0], row[1], row[2] if events.time_unit else None) for row in rows])
    assert found == made.truth, f"seed {seed}: another history; {events.warnings}\n{made.said}"
    return made.kind, "right"


@pytest.mark.parametrize("start", range(0, 150, 30))
def test_any_layout_is_read_right_or_refused(start: int, tmp_path: Path) -> None:
    found = Counter(outcome(seed, tmp_path / str(seed))[1] for seed in range(start, start + 30))
    assert found["right"] >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_thousand_layouts_are_read_right_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Counter(outcome(seed, tmp_path / str(seed)) for seed in range(2000))
    with capsys.disabled():
        for kind in sorted({kind for kind, _ in found}):
            print(f"\n{kind}: {found[kind, 'right']} right, {found[kind, 'refused']} refused", end="")  # noqa: T201
    assert sum(found.values()) == 2000


def like_movielens(users: int = 120, items: int = 200) -> pl.DataFrame:
    """Rows of user, item, rating and time as ml-100k has them: integers, sessions, a few popular films."""
    chance = random.Random(4)
    popularity = [1 / (rank + 3) for rank in range(items)]
    rows = []
    for user in chance.sample(range(1, users + 1), users):
        moment = 874_000_000 + chance.randrange(18_000_000)
        for item in dict.fromkeys(chance.choices(range(1, items + 1), popularity, k=chance.randint(25, 60))):
            moment += chance.randrange(1, 60) + 2_000_000 * (chance.random() < 0.1)  # or they come again
            rows.append((user, item, chance.randint(1, 5), moment))
    return pl.DataFrame(rows, ["user", "item", "rating", "time"], orient="row")


def rewritten(frame: pl.DataFrame, folder: Path) -> list[Path]:
    """Write the rows of user, item, rating and time in twelve layouts."""
    user, item, rating, time = frame.columns
    shuffled, by_user, by_item = (
        frame.sample(fraction=1, shuffle=True, seed=1),
        *(frame.sort(k, time) for k in (user, item)),
    )
    iso = pl.from_epoch(time).dt.to_string("%Y-%m-%dT%H:%M:%SZ").alias(time)

    def text(name: str, rows: pl.DataFrame, separator: str = ",", *, header: bool = False) -> Path:
        (folder / name).write_text(rows.write_csv(separator=separator, include_header=header))
        return folder / name

    rows = [
        text("u.data", shuffled, "\t"),
        text("by-user.tsv", by_user, "\t"),
        text("item-first.csv", by_item.select(item, user, rating, time)),
        text("item-first-by-user.csv", by_user.select(item, user, rating, time)),
        text("time-first.txt", frame.sort(time).select(time, rating, item, user), ";"),
        text("iso.csv", by_user.select(user, iso, item, rating)),
        text("header.csv", shuffled.select(rating, time, item, user), header=True),
        text("header-iso.csv", by_item.select(item, iso, user), "|", header=True),
        folder / "ratings.dat",
        folder / "a.parquet",
        folder / "a.jsonl",
        folder / "millis.csv.gz",
    ]
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in by_user.rows()))
    shuffled.select(time, item, user).write_parquet(folder / "a.parquet")
    shuffled.write_ndjson(folder / "a.jsonl")
    millis = by_item.with_columns(pl.col(time) * 1000).write_csv()
    (folder / "millis.csv.gz").write_bytes(gzip.compress(millis.encode()))
    return rows


def test_twelve_layouts_of_ratings_have_the_same_hash_or_are_refused(tmp_path: Path) -> None:
    frame = like_movielens()
    expected = sasrec.prepare(frame.drop("rating")).data_hash
    refused = []
    for path in rewritten(frame, tmp_path):
        data, error = attempt(lambda path=path: sasrec.prepare(path))
        if data is None:
            assert "columns=" in error
            refused.append(path.name)
        else:
            assert data.data_hash == expected, path.name
    assert set(refused) <= {"u.data", "item-first.csv", "time-first.txt", "ratings.dat"}


@pytest.mark.parametrize("order", [("user", "item"), ("item", "user")])
@pytest.mark.parametrize("key", ["user", "item"])
def test_two_columns_without_a_header_show_users_only_by_numbers_in_order_and_popular_items(
    order: tuple[str, str], key: str, tmp_path: Path
) -> None:
    frame = like_movielens(users=600, items=700).sort(key, "time")
    frame.select(order).write_csv(tmp_path / "a.tsv", separator="\t", include_header=False)
    if key == "user":
        events = read_events(tmp_path / "a.tsv", DataConfig())
        assert any("users are numbered 1, 2, 3" in note for note in events.warnings)
        assert events.user_ids.len() == 600
    else:
        with pytest.raises(DataError, match="columns='user,item'"):
            read_events(tmp_path / "a.tsv", DataConfig())


def test_parts_whose_values_show_different_roles_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, rows in {"a": "u1,i1\nu1,i2\nu2,i1\n", "b": "i3,u3\ni4,u3\ni3,u4\n"}.items():
        (folder / f"{name}.csv").write_text(rows)
    with pytest.raises(DataError, match=r"a\.csv show 0 = user, 1 = item, but those of b\.csv show .*columns="):
        read_events(folder, DataConfig())


def test_one_row_a_user_with_words_asks_whether_they_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("user\titem\na\tx y z\nb\ty x\n")
    with pytest.raises(DataError, match=r"may be a list.*columns='user:user,item:items"):
        read_events(path, DataConfig())
    assert read_events(path, DataConfig(columns="user:user,item:items")).read == 5
    assert read_events(path, DataConfig(columns="user:user,item:item")).read == 2
