"""Time and peak memory of reading events as MovieLens 25M has them: CSV, Parquet, and a folder of eight parts.

    python benchmarks/reading.py --rows 25000000 --folder FOLDER

Writes made-up events to FOLDER (about 1 GB for 25 million rows), reads each source in a process of its own, and
also a quarter of the rows, to see how the time grows.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

READ = """
import sys
from sasrec.cli.main import main
status = main(["prepare", sys.argv[1], "--output", sys.argv[2]])
sys.exit(status)
"""


def events(rows: int) -> pl.DataFrame:
    """Events of users with about 154 each, in order of user, of 59,000 items of which few are frequent."""
    random = np.random.default_rng(0)
    users = np.sort(random.integers(1, 2 + rows // 154, rows))
    items = random.zipf(1.1, rows) % 59_047 + 1
    times = random.integers(800_000_000, 1_570_000_000, rows)
    ratings = random.integers(1, 11, rows) / 2
    return pl.DataFrame({"userId": users, "movieId": items, "rating": ratings, "timestamp": times})


def write(folder: Path, rows: int) -> dict[str, Path]:
    """Write the events in three forms; files that exist are kept."""
    paths = {form: folder / f"{rows}.{form}" for form in ("csv", "parquet", "parts")}
    if not all(path.exists() for path in paths.values()):
        frame = events(rows)
        frame.write_csv(paths["csv"])
        frame.write_parquet(paths["parquet"])
        paths["parts"].mkdir(exist_ok=True)
        for part in range(8):
            low, high = (rows * place // 8 for place in (part, part + 1))
            frame.slice(low, high - low).write_parquet(paths["parts"] / f"part-{part}.parquet")
    return paths


def measure(source: Path, output: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and gigabytes at the peak of preparing a source."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", READ, str(source), str(output)], stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        peak = max(peak, next((int(line.split()[1]) for line in status.splitlines() if line[:6] == "VmHWM:"), 0))
        time.sleep(0.05)
    if process.wait():
        raise SystemExit(f"{source} could not be read")
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, peak / 1e6


def main() -> None:
    """Measure all forms at a quarter of the rows and at all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=25_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[tuple[str, int], float] = {}
    for rows in (options.rows // 4, options.rows):
        for form, path in write(options.folder, rows).items():
            wall, cpu, peak = measure(path, options.folder / "prepared")
            seconds[form, rows] = wall
            print(f"{rows:>11,} rows  {form:8}  {wall:6.1f} s  {cpu:6.1f} s of CPU  {peak:5.2f} GB", flush=True)
    for form in ("csv", "parquet", "parts"):
        grown = seconds[form, options.rows] / seconds[form, options.rows // 4]
        print(f"{form}: 4 x the rows, {grown:.2f} x the time")


if __name__ == "__main__":
    main()
