"""The contract of a store of events, in SQLite and in PostgreSQL."""

from __future__ import annotations

import math
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import sasrec
from sasrec.errors import ConfigError, DataError, SasrecError, StoreError
from sasrec.serving import history_store, sqlite_tables
from sasrec.serving.event_tables import Row
from sasrec.serving.history_store import Event, HistoryStore, Stored, open_store
from tests.postgres import frozen, needs_postgres, restart, server

ODD = ["", "\0", "a\0b", "\x1b", "\x1b0000", "\ud800", "é", "日本語", "🙂", "x" * 10_000, "NULL", "{}", '"', "'; --", "\\", "\\x00", "a,b", "%s", "?"]  # fmt: skip


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server("store") as url:
        yield url


def new_database(postgres: str, options: str = "") -> str:
    """The URL of a new database of the server."""
    import psycopg

    name = f"test_{random.SystemRandom().getrandbits(64):x}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")
    return postgres.rpartition("/")[0] + f"/{name}"


def new_schema(postgres: str) -> str:
    """The URL of a new schema, which is made faster than a database."""
    import psycopg

    name = f"test_{random.SystemRandom().getrandbits(64):x}"
    with psycopg.connect(postgres) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgres}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a new store."""
    if request.param == "sqlite":
        return str(tmp_path / "run.events.sqlite")
    return new_schema(request.getfixturevalue("postgres"))


@pytest.fixture
def store(where: str) -> Iterator[HistoryStore]:
    with closing(open_store(where)) as opened:
        yield opened


def items(store: HistoryStore, user: str) -> list[str]:
    return [item for item, _ in store.history(user)]


def test_a_history_is_in_order_of_time_then_arrival(store: HistoryStore) -> None:
    events = [("late", 9), ("first", 5), ("early", -5.5), ("second", 5), ("zero", 0), ("now", None), ("third", 5)]
    for name, moment in events[:3]:
        store.append([Event("u", name, moment)])
    assert store.append([Event("u", name, moment) for name, moment in events[3:]]) == Stored(4, 0)
    assert items(store, "u") == ["early", "zero", "first", "second", "third", "late", "now"]
    assert store.history("u")[:3] == [("early", -5.5), ("zero", 0.0), ("first", 5.0)]
    assert store.history("nobody") == []


def test_an_event_without_a_time_gets_the_present_moment(store: HistoryStore) -> None:
    before = time.time()
    store.append([Event("u", "a"), Event("u", "b")])
    (_, first), (_, second) = store.history("u")
    assert before <= first == second <= time.time()
    assert items(store, "u") == ["a", "b"]


def test_an_id_is_stored_once_for_each_user(store: HistoryStore) -> None:
    assert store.append([Event("u", "a", 1, "1"), Event("u", "b", 2, "1"), Event("u", "c", 3, "2")]) == Stored(
        2, 1
    )
    assert store.append([Event("u", "d", 4, "1"), Event("v", "d", 4, "1"), Event("u", "e", 5, "")]) == Stored(2, 1)
    assert store.append([Event("u", "f", 6, ""), Event("u", "e", 5), Event("u", "e", 5)]) == Stored(2, 1)
    assert items(store, "u") == ["a", "c", "e", "e", "e"]
    assert items(store, "v") == ["d"]
    assert store.append([]) == Stored(0, 0)


def test_events_and_marks_are_there_when_the_store_is_opened_again(where: str) -> None:
    with closing(open_store(where)) as store:
        store.append([Event("u", "a", 1.25, "1"), Event("v", "b", 2)])
        store.forget("v")
    with closing(open_store(where)) as store:
        assert store.history("u") == [("a", 1.25)]
        assert store.append([Event("u", "a", 1.25, "1")]) == Stored(0, 1)
        assert (store.history("v"), store.is_forgotten("v"), store.is_forgotten("u")) == ([], True, False)


def test_a_forgotten_user_has_no_events_but_may_get_new_ones(store: HistoryStore) -> None:
    store.append([Event("u", "a", 1, "1"), Event("v", "a", 1, "1")])
    assert not store.is_forgotten("u")
    assert (store.forget("u"), store.forget("u"), store.forget("new")) == (True, False, True)
    assert (store.is_forgotten("u"), store.is_forgotten("v"), store.is_forgotten("new")) == (True, False, True)
    assert (store.history("u"), items(store, "v")) == ([], ["a"])
    assert store.append([Event("u", "b", 2, "1")]) == Stored(1, 0)
    assert (items(store, "u"), store.is_forgotten("u")) == (["b"], True)
    assert store.forget("u")
    assert store.history("u") == []


def test_forgotten_ids_are_not_left_in_the_file(tmp_path: Path) -> None:
    with closing(open_store(tmp_path / "store")) as store:
        store.append([Event("somebody", "a-secret", 1, "id")] * 10 + [Event("other", "b", 1)])
        assert b"a-secret" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        store.forget("somebody")
        left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"a-secret" not in left
        assert b"somebody" not in left


def test_odd_ids_come_back_as_they_were_and_are_different(store: HistoryStore) -> None:
    assert store.append([Event("u", odd, number) for number, odd in enumerate(ODD)]) == Stored(len(ODD), 0)
    assert items(store, "u") == ODD
    events = [Event(odd, f"i{number}", 1, odd) for number, odd in enumerate(ODD)]
    assert store.append(events) == Stored(len(ODD), 0)
    assert store.append(events) == Stored(0, len(ODD))
    assert [items(store, odd) for odd in ODD] == [[f"i{number}"] for number in range(len(ODD))]
    assert store.append([Event("u2", "i", 1, odd) for odd in ODD]) == Stored(len(ODD), 0)
    assert all(store.forget(odd) for odd in ODD)
    assert [odd for odd in ODD if store.history(odd)] == []


def test_ids_that_are_numbers_are_the_text_of_the_data(store: HistoryStore) -> None:
    user: Any
    for user in (1, 1.0, "1", " 1 "):
        store.append([Event(user, user, 1)])
    assert items(store, "1") == ["1"] * 4
    assert store.forget(1)  # type: ignore[arg-type]
    assert store.is_forgotten("1")


@pytest.mark.parametrize(
    "moment",
    [math.nan, math.inf, -math.inf, 1.6e12, -1e11, 1e300, pytest.param(10**5000, id="huge"), "soon", [1]],
)
def test_a_time_that_is_not_seconds_is_refused_with_the_whole_call(store: HistoryStore, moment: Any) -> None:
    with pytest.raises(DataError, match=r"must be seconds since 1970.*event 2 is .*Correct it") as raised:
        store.append([Event("u", "a", 1), Event("u", "b", moment)])
    assert "soon" not in str(raised.value)  # what callers send does not reach logs
    assert ("milliseconds" in str(raised.value)) == (moment in (1.6e12, -1e11))
    assert store.history("u") == []


def test_large_times_are_kept_exactly(store: HistoryStore) -> None:
    moments = [-9.9e10, -1e-9, 1_600_000_000.123456, 9.9e10]
    store.append([Event("u", "a", moment) for moment in moments])
    assert [moment for _, moment in store.history("u")] == moments


TWO = """
import sys
from sasrec.serving.history_store import Event, open_store
where, name = sys.argv[1:]
store = open_store(where)
counts = [store.append([Event("u", name, 1.0, f"both-{n}"), Event("u", name, 1.0)]) for n in range(50)]
print(sum(each.stored for each in counts), sum(each.repeated for each in counts))
store.close()
"""


def test_two_processes_that_open_and_write_at_once_lose_nothing(where: str) -> None:
    commands = [[sys.executable, "-c", TWO, where, name] for name in ("a", "b")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [writer.communicate(timeout=100)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    stored, repeated = (sum(int(each[part]) for each in said) for part in (0, 1))
    assert (stored, repeated) == (150, 50)
    with closing(open_store(where)) as store:
        found = items(store, "u")
        assert len(found) == 150
        assert min(found.count("a"), found.count("b")) >= 50


def test_threads_that_append_read_and_forget_at_once_agree(store: HistoryStore) -> None:
    def work(number: int) -> None:
        for step in range(10):
            assert store.append([Event(f"u{number}", f"{step}", 1.0, f"{step}"), Event("all", "i")]) == Stored(
                2, 0
            )
            assert items(store, f"u{number}") == [str(each) for each in range(step + 1)]
        store.forget(f"u{number}")
        assert store.append([Event(f"u{number}", "last", 1.0, "1")]) == Stored(1, 0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(store.history("all")) == 80
    assert [items(store, f"u{number}") for number in range(8)] == [["last"]] * 8


def test_two_servers_that_get_the_same_events_in_other_orders_store_each_once(where: str) -> None:
    with closing(open_store(where)) as one, closing(open_store(where)) as two, ThreadPoolExecutor(2) as pool:
        for step in range(4):
            events = [Event(f"u{n % 7}", "i", n, f"{step}-{n}") for n in range(200)]
            calls = [pool.submit(one.append, events), pool.submit(two.append, events[::-1])]
            assert sum(call.result().stored for call in calls) == 200
        assert sum(len(two.history(f"u{n}")) for n in range(7)) == 800


def test_any_calls_in_any_order_give_the_histories_of_a_plain_dictionary(store: HistoryStore) -> None:
    chance, users = random.Random(1), ["a", "b", "", "é\0"]
    expected: dict[str, list[tuple[float, int, str]]] = {user: [] for user in users}
    ids: set[tuple[str, str]] = set()
    forgotten: set[str] = set()
    for step in range(200):
        user = chance.choice(users)
        if chance.random() < 0.1:
            assert store.forget(user) == (user not in forgotten or bool(expected[user]))
            forgotten.add(user)
            expected[user], ids = [], {each for each in ids if each[0] != user}
        events, new = [], 0
        for place in range(chance.randrange(4)):
            user, key = chance.choice(users), chance.choice([None, *"0123456789"])
            events.append(Event(user, f"{step}-{place}", float(chance.randrange(5)), key))
            if key is None or (user, key) not in ids:
                new += 1
                ids |= set() if key is None else {(user, key)}
                expected[user].append((events[-1].time or 0.0, 4 * step + place, events[-1].item))
        assert store.append(events) == Stored(new, len(events) - new)
        user = chance.choice(users)
        assert items(store, user) == [item for _, _, item in sorted(expected[user])]
        assert store.is_forgotten(user) == (user in forgotten)


def test_a_closed_store_says_so_and_keeps_what_was_sent_before(where: str) -> None:
    store = open_store(where)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(store.append, [Event("u", f"{number}")]) for number in range(4)]
        for call in calls:
            call.result()
    store.close()
    store.close()
    for use in (lambda: store.append([Event("u", "a")]), lambda: store.history("u"), lambda: store.forget("u")):
        with pytest.raises(StoreError, match="is closed"):
            use()
    with closing(open_store(where)) as again:
        assert sorted(items(again, "u")) == ["0", "1", "2", "3"]


def test_the_next_training_can_read_the_store_with_a_query(where: str) -> None:
    with closing(open_store(where)) as store:
        store.append([Event(f"u{n % 3}", f"i{n % 7}", 1_600_000_000 + n) for n in range(60)])
        table = "events" if "postgresql" not in where else "sasrec_events"
        url = where if "postgresql" in where else f"sqlite:///{where}"
        data = sasrec.prepare(url, query=f"SELECT user_id, item_id, time FROM {table}")
        assert data.history("u1") == items(store, "u1")


def test_a_store_of_a_later_version_is_refused(where: str) -> None:
    open_store(where).close()
    if where.startswith("postgresql"):
        import psycopg

        with psycopg.connect(where) as connection:
            connection.execute("UPDATE sasrec_store SET version = 2")
    else:
        with closing(sqlite3.connect(where)) as file:
            file.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigError, match="version 2, but this sasrec reads version 1"):
        open_store(where)


class Slow:
    """Tables that wait for `go` in each write, and count the writes."""

    where = "tables"

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.writes: list[int] = []
        self.fails: BaseException | None = None

    def append(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        self.begun.set()
        self.go.wait(20)
        if self.fails is not None:
            raise self.fails
        self.writes.append(len(batches))
        return [len(rows) for rows in batches]

    def close(self) -> None:
        self.go.set()


def waiting(store: HistoryStore, tables: Slow, pool: ThreadPoolExecutor, calls: int) -> list[Any]:
    """Append calls, of which the first is being written and the others wait."""
    first = pool.submit(store.append, [Event("u", "a")])
    assert tables.begun.wait(10)
    others = [pool.submit(store.append, [Event("u", "a")] * 2) for _ in range(calls)]
    deadline = time.monotonic() + 10
    while len(store._waiting) < calls and time.monotonic() < deadline:
        time.sleep(0.01)
    return [first, *others]


def test_calls_that_come_during_a_write_share_the_next_one() -> None:
    tables = Slow()
    with closing(HistoryStore(tables)) as store, ThreadPoolExecutor(17) as pool:  # type: ignore[arg-type]
        calls = waiting(store, tables, pool, 16)
        tables.go.set()
        assert [call.result() for call in calls] == [Stored(1, 0)] + [Stored(2, 0)] * 16
    assert tables.writes == [1, 16]


@pytest.mark.parametrize("error", [StoreError("full"), RuntimeError("a mistake")])
def test_a_failed_write_fails_all_that_share_it_and_the_next_succeeds(error: Exception) -> None:
    tables = Slow()
    with closing(HistoryStore(tables)) as store, ThreadPoolExecutor(5) as pool:  # type: ignore[arg-type]
        tables.fails = error
        calls = waiting(store, tables, pool, 4)
        tables.go.set()
        for call in calls:
            with pytest.raises(type(error), match=str(error)):
                call.result()
        tables.fails = None
        assert store.append([Event("u", "a")]) == Stored(1, 0)


def test_a_call_gives_up_on_a_store_that_hangs_and_what_waits_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_store, "_PATIENCE", 0.3)
    tables = Slow()
    with closing(HistoryStore(tables)) as store, ThreadPoolExecutor(3) as pool:  # type: ignore[arg-type]
        for call in waiting(store, tables, pool, 2):
            with pytest.raises(StoreError, match=r"not answered.*send the events again with the same ids"):
                call.result()
        tables.go.set()
        assert store.append([Event("u", "a")]) == Stored(1, 0)
    assert tables.writes == [1, 1]


# SQLite


def test_a_locked_file_is_waited_for_then_named_and_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tables, "_PATIENCE", 0.5)
    path = tmp_path / "store"
    with closing(open_store(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store.append([Event("u", "a", 1)])
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"store is locked by another program.*End that program"):
            store.append([Event("u", "b", 2)])
        assert items(store, "u") == ["a"]  # readers do not wait
        with pytest.raises(StoreError, match="is locked"):
            open_store(path)
        other.execute("ROLLBACK")
        assert store.append([Event("u", "b", 2)]) == Stored(1, 0)
        assert items(store, "u") == ["a", "b"]


READ_ONLY = """
import os, sys
import sasrec.serving.sqlite_tables  # others may not read the libraries of root
from sasrec.errors import StoreError
from sasrec.serving.history_store import Event, open_store
if os.geteuid() == 0:
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        open_store(path)
    except StoreError as error:
        print(error)
"""


def test_a_file_or_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"store-{os.getpid()}"  # others may not enter pytest's folder
    folder.mkdir()
    try:
        open_store(folder / "file").close()
        (folder / "file").chmod(stat.S_IREAD | stat.S_IRGRP | stat.S_IROTH)
        folder.chmod(0o555)
        command = [sys.executable, "-c", READ_ONLY, str(folder / "file"), str(folder / "new")]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert [name in line and "permissions" in line for name, line in zip(("file", "new"), lines, strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize("name", ["gone/store", ".", "a\0b"])
def test_a_path_that_cannot_be_a_file_is_an_error_with_a_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"(ame another|Check the file)"):
        open_store(f"{tmp_path}/{name}")


def test_files_of_others_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE events (user_id)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"SQLite file of another program. Name another file"):
        open_store(path)
    assert path.read_bytes() == before
    path.write_bytes(text := b"user,item\n" * 1000)
    with pytest.raises(StoreError, match="is not an SQLite file"):
        open_store(path)
    assert path.read_bytes() == text
    with pytest.raises(ConfigError, match="not in mysql"):
        open_store("mysql://host/name")


def test_a_damaged_file_is_an_error_with_a_remedy_never_another(tmp_path: Path) -> None:
    path, chance = tmp_path / "store", random.Random(0)
    with closing(open_store(path)) as store:
        store.append([Event(f"u{n % 20}", f"item-{n}", n, str(n)) for n in range(2000)])
    whole = path.read_bytes()
    found: set[str] = set()
    for number in range(60):
        size = chance.randrange(1, len(whole))
        begin = chance.randrange(0, len(whole) - 4096)
        noise = whole[:begin] + chance.randbytes(4096) + whole[begin + 4096 :]
        path.write_bytes(whole[:size] if number % 2 else noise)
        try:
            with closing(open_store(path)) as store:
                for user in range(20):
                    store.history(f"u{user}")
                store.append([Event(f"u{n % 20}", "new", n, f"new-{n}") for n in range(200)])
        except SasrecError as error:
            found.add(str(error).split(": ")[0])
        for beside in tmp_path.glob("store-*"):
            beside.unlink()
    assert f"the store of events {path} is damaged" in found
    assert [sentence for sentence in found if str(path) not in sentence] == []


def test_a_file_that_is_deleted_or_replaced_stores_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(open_store(path)) as store:
        store.append([Event("u", "a")])
        path.rename(tmp_path / "moved")
        with pytest.raises(StoreError, match=r"deleted, moved or replaced.*Put the file back"):
            store.append([Event("u", "b")])


@pytest.fixture
def full_disk(tmp_path: Path) -> Path:
    """The library that makes a disk full, see tests/reliability/full_disk.c."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fault injection needs Linux and a compiler of C")
    source, library = Path(__file__).parents[1] / "reliability/full_disk.c", tmp_path / "full_disk.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


FULL = """
import os, sys
from pathlib import Path
from sasrec.errors import StoreError
from sasrec.serving.history_store import Event, Stored, open_store
place, log = sys.argv[1:]
os.environ |= {"FULL_UNDER": place, "FULL_LOG": log, "FULL_AT": "0"}
calls = lambda: Path(log).read_text().splitlines()
store = open_store(place + "/store")
for number in range(20):
    before = len(calls())
    store.append([Event("u", f"before-{number}", number, f"{number}")])
    assert any(line.startswith("fdatasync") or line.startswith("fsync") for line in calls()[before:]), calls()[before:]
failed = 0
for number in range(30):
    os.environ["FULL_AT"] = str(len(calls()) + 1 + number % 5)
    batch = [Event("u", f"full-{number}", 100 + number, f"full-{number}")] * 3
    try:
        store.append(batch)
    except StoreError as error:
        failed += 1
        assert "ree space on the disk" in str(error) or "free space, then" in str(error), error
    assert len(store.history("u")) >= 20
    os.environ["FULL_AT"] = "0"
    store.append(batch)
    assert store.append(batch) == Stored(0, 3)
    assert store.history("u")[-1][0] == f"full-{number}"
assert failed > 10, failed
os.environ["FULL_AT"] = "1"
try:
    open_store(place + "/other")
except StoreError as error:
    print(error)
os.environ["FULL_AT"] = "0"
store.close()
store = open_store(place + "/store")
assert len(store.history("u")) == 50, store.history("u")
store.close()
print("done")
"""


def test_a_full_disk_is_an_error_and_the_store_works_again_when_there_is_space(
    tmp_path: Path, full_disk: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    command = [sys.executable, "-c", FULL, str(place), str(tmp_path / "log")]
    ended = subprocess.run(
        command, env=os.environ | {"LD_PRELOAD": str(full_disk)}, capture_output=True, text=True, timeout=100
    )
    assert ended.stdout.endswith("done\n"), ended.stderr
    assert len(ended.stdout.splitlines()) == 2


# PostgreSQL


@needs_postgres
def test_lost_connections_are_made_again_without_an_error(postgres: str) -> None:
    import psycopg

    where = new_schema(postgres)
    with closing(open_store(where)) as store, psycopg.connect(postgres, autocommit=True) as admin:
        store.append([Event("u", "a", 1, "1")])
        with ThreadPoolExecutor(8) as pool:  # several idle connections
            list(pool.map(lambda _: store.history("u"), range(50)))
        for use in (lambda: store.append([Event("u", "b", 2)]), lambda: store.history("u")):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sasrec'"
            )
            time.sleep(0.1)
            use()
        assert items(store, "u") == ["a", "b"]


@needs_postgres
def test_a_server_that_goes_away_is_an_error_and_after_its_return_all_works(postgres: str) -> None:
    from tests.reliability.test_studies_postgres import cable_to

    cable, where = cable_to(new_schema(postgres))
    with closing(open_store(where)) as store:
        store.append([Event("u", "a", 1, "1")])
        cable.cut()
        for _ in range(3):
            with pytest.raises(StoreError, match="Start or repair the data base"):
                store.append([Event("u", "b", 2, "2")])
            with pytest.raises(StoreError, match="Start or repair the data base"):
                store.history("u")
        with pytest.raises(StoreError, match="Start or repair"):
            open_store(where)
        cable.join()
        time.sleep(1.1)
        assert store.append([Event("u", "a", 1, "1"), Event("u", "b", 2, "2")]).repeated >= 1
        assert items(store, "u") == ["a", "b"]


@needs_postgres
def test_a_server_that_is_frozen_holds_no_call_for_ever(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sasrec.serving import postgres_tables

    monkeypatch.setattr(postgres_tables, "_PATIENCE", 0.6)
    where = f"{new_schema(postgres)}&connect_timeout=2"
    with closing(open_store(where)) as store:
        store.append([Event("u", "a", 1, "1")])
        with frozen(postgres), ThreadPoolExecutor(12) as pool:
            begun = time.monotonic()
            calls = [pool.submit(store.history, "u") for _ in range(11)]
            calls.append(pool.submit(store.append, [Event("u", "b", 2, "2")]))  # type: ignore[arg-type]
            for call in calls:
                with pytest.raises(StoreError, match="cannot be read or written"):
                    call.result()
            assert time.monotonic() - begun < 20
        time.sleep(1.1)
        store.append([Event("u", "b", 2, "2")])
        assert items(store, "u") == ["a", "b"]


@needs_postgres
def test_a_server_that_crashes_keeps_what_was_acknowledged(postgres: str) -> None:
    where = new_database(postgres)
    import psycopg

    with psycopg.connect(where, autocommit=True) as admin:  # a default that would lose the last events
        admin.execute(f"ALTER DATABASE {where.rpartition('/')[2]} SET synchronous_commit = off")
    with closing(open_store(where)) as store:
        for number in range(20):
            store.append([Event("u", str(number), number, str(number))])
        restart(where)
        deadline = time.monotonic() + 30
        while True:
            try:
                store.append([Event("u", "last", 99, "last")])
                break
            except StoreError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert items(store, "u") == [*map(str, range(20)), "last"]


@needs_postgres
def test_a_database_that_cannot_store_events_is_refused_when_it_is_opened(postgres: str) -> None:
    import psycopg

    latin = new_database(postgres, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigError, match="stores texts as LATIN1"):
        open_store(latin)
    taken, ours = new_schema(postgres), new_schema(postgres)
    with psycopg.connect(taken) as connection:
        connection.execute("CREATE TABLE sasrec_events (user_id TEXT)")
    with pytest.raises(ConfigError, match=r'"sasrec_events" already exists. Correct'):
        open_store(taken)
    open_store(ours).close()
    with psycopg.connect(ours) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {(schema := ours.rpartition('3D')[2])} TO reader")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
    with pytest.raises(ConfigError, match=r"permission denied.*rights"):
        open_store(ours.replace("postgres@", "reader@"))


@needs_postgres
def test_another_program_that_locks_the_table_is_an_error(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    from sasrec.serving import postgres_tables

    monkeypatch.setattr(postgres_tables, "_PATIENCE", 0.5)
    where = new_schema(postgres)
    with closing(open_store(where)) as store:
        with psycopg.connect(where) as other:
            other.execute("LOCK TABLE sasrec_events")
            with pytest.raises(StoreError, match="statement timeout"):
                store.append([Event("u", "a")])
            with pytest.raises(StoreError, match="statement timeout"):
                store.history("u")
        assert store.append([Event("u", "a")]) == Stored(1, 0)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:1/name",
        "postgresql://me:se@cret@127.0.0.1:1/name",
        "postgresql://me:sec/ret@127.0.0.1:1/name",
        "postgresql://127.0.0.1:1/name?password=secret",
        "postgresql://me:secret@127.0.0.1:1/name?nonsense=1",
        "postgresql://me:secret@[::/name",
    ],
)
def test_no_message_has_the_password(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises((ConfigError, StoreError), match=r"(correct its URL|Write postgresql)") as raised:
        open_store(url)
    assert not any(part in str(raised.value) for part in ("secret", "cret", "ret@"))
