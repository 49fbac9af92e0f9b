"""The most memory that `recommend --histories` uses, and its rate, for a file of many rows.

    OMP_NUM_THREADS=1 python benchmarks/histories.py RUN [--rows 2000000] [--json FILE]

RUN: a trained run. A Parquet file of made-up histories of its items is written, with a tenth of the rows and then
with all, and the command runs on each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import sasrec

AT_ONCE = 50_000


def write(path: Path, ids: pa.Array, rows: int, random: np.random.Generator) -> None:
    """Write user and items: histories of 1 to 100 items."""
    writer = None
    for start in range(0, rows, AT_ONCE):
        lengths = random.integers(1, 101, min(AT_ONCE, rows - start))
        items = ids.take(pa.array(random.integers(len(ids), size=lengths.sum())))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        users = pa.array(np.arange(start, start + len(lengths)))
        table = pa.table({"user": users, "items": pa.ListArray.from_arrays(offsets, items)})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measured(run: Path, histories: Path, output: Path) -> dict[str, float]:
    """Run the command; return its peak of resident memory, in MB, and its seconds."""
    command = [sys.executable, "-m", "sasrec", "recommend", str(run), "--histories", str(histories)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--output", str(output), "--device", "cpu"])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the command failed")
    return {"MB": usage.ru_maxrss / 1024, "seconds": time.monotonic() - began}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    ids = sasrec.load(asked.run, device="cpu").items.ids.to_arrow()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        histories, output = Path(folder) / "histories.parquet", Path(folder) / "top.parquet"
        for rows in (asked.rows // 10, asked.rows):
            write(histories, ids, rows, np.random.default_rng(0))
            found[str(rows)] = measured(asked.run, histories, output)
            output.unlink()
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
