"""Time how many events a second one process stores durably, by the size of a call and the number of threads.

    python benchmarks/served_events.py [--events FILE|URL] [--seconds 3]

The four cases (calls of 1 and of 100 events, 1 and 16 threads) run in turns, three times; the medians are printed.
Each call waits for its commit, so one thread can store one call for each wait for the disk. Also printed: the wait
for the disk alone (4 KiB and fsync), and the time to read a history of 50 events. FILE and the tables of URL
remain; users begin with "bench-".
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from sasrec.serving.history_store import Event, HistoryStore, open_store

CASES = [(size, threads) for size in (1, 100) for threads in (1, 16)]


def rate(store: HistoryStore, size: int, threads: int, seconds: float) -> float:
    """Return events a second."""
    stored, stop = [0] * threads, time.perf_counter() + seconds

    def client(thread: int) -> None:
        while time.perf_counter() < stop:
            key = f"{threads}-{thread}-{stored[thread]}-{stop}"
            events = [
                Event(f"bench-{(thread * 7919 + stored[thread] + place) % 6040}", "item", None, f"{key}-{place}")
                for place in range(size)
            ]
            stored[thread] += store.append(events).stored

    clients = [threading.Thread(target=client, args=(thread,)) for thread in range(threads)]
    begun = time.perf_counter()
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return sum(stored) / (time.perf_counter() - begun)


def disk(folder: Path) -> float:
    """Return the median seconds of a write of 4 KiB with fsync."""
    found = []
    file = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    for block in range(100):
        begun = time.perf_counter()
        os.pwrite(file, bytes(4096), block * 4096)
        os.fsync(file)
        found.append(time.perf_counter() - begun)
    os.close(file)
    return statistics.median(found)


def reading(store: HistoryStore) -> float:
    """Return the median seconds to read a history of 50 events."""
    store.forget("bench-reader")
    store.append([Event("bench-reader", f"{number}", number) for number in range(50)])
    found = []
    for _ in range(500):
        begun = time.perf_counter()
        store.history("bench-reader")
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def main() -> None:
    """Run the cases, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", help="default: a temporary file")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(options.events or Path(folder) / "events.sqlite")
        rates: dict[tuple[int, int], list[float]] = {case: [] for case in CASES}
        for _ in range(3):
            for case in CASES:
                rates[case].append(rate(store, *case, options.seconds))
        print(f"{store.where}: wait for the disk {disk(Path(folder)) * 1e3:.1f} ms")
        print("events a call  threads  events/s")
        for (size, threads), found in rates.items():
            print(f"{size:13}  {threads:7}  {statistics.median(found):8,.0f}")
        print(f"reading a history of 50 events: {reading(store) * 1e6:.0f} us")
        store.close()


if __name__ == "__main__":
    main()
