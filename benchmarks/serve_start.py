"""Seconds from the command `sasrec serve` to its first list, for a run and for its ONNX export.

    python benchmarks/serve_start.py RUN EXPORT [--rounds 7] [--json FILE]

Run it with the Python of an environment that has sasrec installed from its wheel, with the extras serve and onnx.
The two take turns. `memory` is the most that the process had, in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import sasrec


def started(path: str, item: str, folder: Path) -> tuple[float, float]:
    """Return the seconds to the first list, and the most memory in MB."""
    command = [str(Path(sys.executable).with_name("sasrec")), "serve", path, "--port", "0", "--drain", "0"]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--events", str(folder / "events")], stderr=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        assert process.stderr is not None
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "the server has ended"
            address = re.search(r"http://[^ ]+/", line)
        body = json.dumps({"history": [item], "k": 10}).encode()
        request = urllib.request.Request(f"{address[0]}v1/recommend", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.loads(answer.read())["items"]) == 10
        seconds = time.perf_counter() - began
        memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        process.terminate()
    assert memory is not None
    return seconds, int(memory[1]) / 1024


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("export")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    item = str(sasrec.load(asked.export).items.ids[0])
    paths = {"PyTorch": os.path.abspath(asked.run), "ONNX": os.path.abspath(asked.export)}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, path in paths.items():
                measured[name].append(started(path, item, Path(folder)))
    found = {
        name: {
            "seconds, median": round(statistics.median(each[0] for each in rounds), 2),
            "seconds, longest": round(max(each[0] for each in rounds), 2),
            "memory": round(max(each[1] for each in rounds)),
        }
        for name, rounds in measured.items()
    }
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
