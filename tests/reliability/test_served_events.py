"""Events of a server that is killed under load: each acknowledged one is stored exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sasrec.errors import StoreError
from sasrec.serving.history_store import Event, HistoryStore, open_store
from tests.postgres import needs_postgres, restart, server

THREADS = 8
# Writes as fast as it can, and says which events were acknowledged. Each thread has its user.
WRITER = f"""
import itertools, os, sys, threading
from sasrec.serving import postgres_tables, sqlite_tables
from sasrec.serving.history_store import open_store
from tests.reliability.test_served_events import call_of
where, kill, said = sys.argv[1], int(sys.argv[2]), os.dup(1)
print("ready", flush=True)
store = open_store(where)
def write(thread):
    for number in itertools.count():
        events = call_of(kill, thread, number)
        store.append(events)
        os.write(said, "".join(event.item + "\\n" for event in events).encode())
for thread in range({THREADS}):
    threading.Thread(target=write, args=(thread,)).start()
"""


def call_of(kill: int, thread: int, number: int) -> list[Event]:
    """One to four events; the second and the fourth have no id."""
    names = [f"{kill}-{thread}-{number}-{place}" for place in range(1 + number % 4)]
    return [Event(f"u{thread}", name, None, None if place % 2 else name) for place, name in enumerate(names)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server("served") as url:
        yield url


def killed_writer(where: str, kill: int, after: float) -> list[str]:
    """Let a process open the store and write, and kill it after some seconds; return what was acknowledged."""
    command = [sys.executable, "-c", WRITER, where, str(kill)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        threading.Timer(after, process.kill).start()
        names = process.stdout.read().decode().splitlines()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == -9
    return names


def wait_for_the_server(where: str) -> None:
    """Wait until a server of PostgreSQL has finished what killed clients had sent."""
    import psycopg

    with psycopg.connect(where, autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sasrec'"
        while connection.execute(query).fetchone() != (0,):
            time.sleep(0.02)


def stored(store: HistoryStore) -> Counter[str]:
    """Item -> how many events have it."""
    return Counter(item for thread in range(THREADS) for item, _ in store.history(f"u{thread}"))


def sent_again(store: HistoryStore, kill: int, acknowledged: list[str]) -> set[str]:
    """Send all events that have an id again, also those that were not answered; return their names."""
    calls = Counter(int(name.split("-")[1]) for name in acknowledged if name.endswith("-0"))
    events = [
        event
        for thread in range(THREADS)
        for number in range(calls[thread] + 1)  # the last one was not answered
        for event in call_of(kill, thread, number)
        if event.id is not None
    ]
    before = stored(store)
    result = store.append(events)
    assert result.repeated == sum(event.item in before for event in events)
    return {event.item for event in events}


def survives_kills(stores: list[str], kills: int) -> tuple[int, int]:
    """Kill writers; return how many events were acknowledged, and how many others were stored.

    Writers of a store that is new are killed while they open it, others under load.
    """
    chance, used, acknowledged, others = random.Random(kills), set[str](), 0, 0
    for kill in range(kills):
        where = stores[kill * len(stores) // kills]
        names = killed_writer(where, kill, chance.uniform(0.0, 0.4 if where in used else 0.04))
        used.add(where)
        if where.startswith("postgresql"):
            wait_for_the_server(where)
        with closing(open_store(where)) as store:
            found = stored(store)
            assert [name for name in names if found[name] != 1] == [], "lost, or twice"
            assert [name for name, count in found.items() if count > 1] == [], "twice"
            acknowledged, others = acknowledged + len(names), others + len(found) - len(names)
            again = sent_again(store, kill, names)
            assert stored(store) == Counter({*found, *again})
            for thread in range(THREADS):  # the store stays small
                store.forget(f"u{thread}")
    return acknowledged, others


KILLS = [3, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("kills", KILLS)
def test_killed_writers_of_sqlite_lose_no_acknowledged_event_and_store_none_twice(
    tmp_path: Path, kills: int
) -> None:
    assert survives_kills([str(tmp_path / f"store-{n}") for n in range(1 + kills // 5)], kills)[0] > 0


@needs_postgres
@pytest.mark.parametrize("kills", KILLS)
def test_killed_writers_of_postgresql_lose_no_acknowledged_event_and_store_none_twice(
    postgres: str, kills: int
) -> None:
    assert survives_kills([postgres], kills)[0] > 0


@needs_postgres
@pytest.mark.parametrize("crashes", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_crashing_server_of_postgresql_loses_no_acknowledged_event_and_stores_none_twice(
    postgres: str, crashes: int
) -> None:
    """Clients send an event again, with its id, until it is acknowledged."""
    stop, sent = threading.Event(), [0] * THREADS

    with closing(open_store(postgres)) as store:

        def send(thread: int) -> None:
            while not stop.is_set():
                name = f"crash-{thread}-{sent[thread]}"
                while True:
                    try:
                        store.append([Event(f"u{thread}", name, None, name)])
                        break
                    except StoreError:
                        time.sleep(0.05)
                sent[thread] += 1

        with ThreadPoolExecutor(THREADS) as pool:
            clients = [pool.submit(send, thread) for thread in range(THREADS)]
            for _ in range(crashes):
                time.sleep(0.3)
                restart(postgres)
            time.sleep(1.5)
            stop.set()
            for client in clients:
                client.result(timeout=60)
        found = stored(store)
        names = {f"crash-{thread}-{number}" for thread in range(THREADS) for number in range(sent[thread])}
        assert {name: found[name] for name in names if found[name] != 1} == {}
        assert {name for name in found if name.startswith("crash-")} == names
        for thread in range(THREADS):
            store.forget(f"u{thread}")
