"""How many requests a second `sasrec serve` answers, against a plain route that answers one at a time.

    python benchmarks/serve_load.py RUN [--json FILE]

RUN is a run or an export, best with 50 items of history (maxlen 50) and the catalogue of MovieLens 1M. Both
servers run in turns, each as one process with one thread of computation; the load comes from wrk with one thread.
The plain route is uvicorn and starlette too, and calls `Recommender.recommend` in the event loop.

Then `sasrec serve`, where a request may wait WAIT seconds, gets three times as many requests a second as it
answered before: connections of wrk that pause between requests. Twenty connections more measure how long accepted
requests take, because wrk does not tell them from refused ones; after the load, how long until ten requests in a
row are accepted. Needs wrk (Debian's package) and the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

import sasrec

ROUNDS, SECONDS, CONNECTIONS, WAIT, PAUSE = 3, 10, 64, 0.2, 100

PLAIN = """
import sys, uvicorn, sasrec
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import torch
torch.set_num_threads(1)
model = sasrec.load(sys.argv[1])
async def recommend(request):
    body = await request.json()
    found = model.recommend(body["history"], body["k"], times=body.get("times"))
    return JSONResponse({"items": [{"item": item, "score": score} for item, score in found]})
app = Starlette(routes=[Route("/v1/recommend", recommend, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def bodies(run: str) -> list[dict[str, Any]]:
    """200 requests with histories of 50 items, drawn by popularity where the run has its data."""
    model, random = sasrec.load(run, device="cpu"), np.random.default_rng(0)
    numbers = np.arange(1, len(model.items) + 1) if model.data is None else np.asarray(model.data.items)
    found = []
    for _ in range(200):
        history = model.items.ids.gather(random.choice(numbers, 50) - 1).to_list()
        found.append({"history": history, "k": 10} | ({"times": list(range(0, 3000, 60))} if model.timed else {}))
    return found


def script(path: Path, requests: list[dict[str, Any]], pause: int = 0) -> Path:
    """Write the script of wrk, which sends the requests in turns, `pause` ms after each answer."""
    lines = ",\n".join("[==[" + json.dumps(each) + "]==]" for each in requests)
    path.write_text(
        f"local bodies = {{{lines}}}\nlocal n = 0\nlocal refused = 0\n"
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        "request = function() n = n + 1 "
        'return wrk.format(nil, "/v1/recommend", nil, bodies[n % #bodies + 1]) end\n'
        + (f"delay = function() return {pause} end\n" if pause else "")
    )
    return path


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            ask(port, {"history": [], "k": 1})
        except ConnectionError:
            time.sleep(0.1)
        except OSError as error:
            if "refused" not in str(error):
                return
            time.sleep(0.1)
        else:
            return


def ask(port: int, body: dict[str, Any]) -> Any:
    """Send one request."""
    headers = {"content-type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{port}/v1/recommend", json.dumps(body).encode(), headers)) as answer:
        return json.loads(answer.read())


def is_accepted(port: int, body: dict[str, Any]) -> bool:
    """Whether a request is answered with a list."""
    try:
        ask(port, body)
    except HTTPError:
        return False
    return True


def load(port: int, lua: Path, connections: int, seconds: int = SECONDS) -> dict[str, float]:
    """Run wrk; return requests a second, milliseconds at p50 and p99, and the share of other answers than 200."""
    words = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(lua),
        f"http://127.0.0.1:{port}",
    ]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def at(share: str) -> float:
        number, name = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
        return float(number) * unit[name]

    total = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    return {"a second": rate, "p50": at("50"), "p99": at("99"), "refused": int(other[1]) / total if other else 0.0}


async def probed(port: int, requests: list[dict[str, Any]], seconds: float) -> list[tuple[int, float]]:
    """Send requests on twenty connections, five a second on each; return the status and milliseconds of each."""
    found: list[tuple[int, float]] = []
    end = time.monotonic() + seconds

    async def one(row: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(row / 100)
        while time.monotonic() < end:
            body = json.dumps(requests[row]).encode()
            head = f"POST /v1/recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
            began = time.monotonic()
            writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(re.search(r"content-length: (\d+)", answer)[1]))  # type: ignore[index]
            found.append((int(answer.split()[1]), 1e3 * (time.monotonic() - began)))
            await asyncio.sleep(0.2)
        writer.close()

    await asyncio.gather(*(one(row) for row in range(20)))
    return found


def overload(port: int, folder: Path, requests: list[dict[str, Any]], rate: float) -> dict[str, float]:
    """Send three times `rate` requests a second; return what came of them."""
    lua = script(folder / "overload.lua", requests, PAUSE)
    # An answer takes something between nothing and WAIT, and then its connection pauses.
    connections = round(3 * rate * (PAUSE / 1e3 + WAIT / 4))
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load, port, lua, connections)
        time.sleep(1)
        found = asyncio.run(probed(port, requests, SECONDS - 2))
        all_of_them = loaded.result()
    accepted = [each for status, each in found if status == 200]
    began = first = time.monotonic()
    in_a_row = 0
    while in_a_row < 10:
        in_a_row = in_a_row + 1 if is_accepted(port, requests[0]) else 0
        first = time.monotonic() if not in_a_row else first
    return {
        "connections": connections,
        "a second": all_of_them["a second"],
        "refused": all_of_them["refused"],
        "accepted, p50": statistics.median(accepted),
        "accepted, p99": float(np.quantile(accepted, 0.99)),
        "accepted, number": len(accepted),
        "other than 200 and 429": sum(status not in (200, 429) for status, _ in found),
        "seconds until ten in a row are accepted": first - began,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        requests = bodies(asked.run)
        lua = script(Path(folder) / "load.lua", requests)
        (Path(folder) / "plain.py").write_text(PLAIN)
        ours = [sys.executable, "-m", "sasrec", "serve", asked.run, "--port", "8901", "--wait", str(WAIT)]
        ours += ["--events", f"{folder}/events"]
        plain = [sys.executable, f"{folder}/plain.py", asked.run, "8902"]
        servers = [subprocess.Popen(each, env=environment, stderr=subprocess.DEVNULL) for each in (ours, plain)]
        try:
            for port in (8901, 8902):
                wait_for(port)
                load(port, lua, 8, 2)
            rounds: dict[str, list[dict[str, float]]] = {"sasrec serve": [], "plain route": []}
            for _ in range(ROUNDS):
                for name, port in (("sasrec serve", 8901), ("plain route", 8902)):
                    rounds[name].append(load(port, lua, CONNECTIONS))
            found = {
                name: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
                for name, runs in rounds.items()
            }
            rate = found["sasrec serve"]["a second"]
            found["three times too much"] = overload(8901, Path(folder), requests, rate)
        finally:
            for each in servers:
                each.terminate()
            for each in servers:
                each.wait(60)
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
