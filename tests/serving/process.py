"""Start `sasrec serve` as a process, and send it requests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def connection(self, timeout: float = 30.0) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, path: str, body: Any = None, connection: HTTPConnection | None = None) -> tuple[int, Any, Any]:
        """Return the status, the JSON, and the headers of an answer."""
        on = connection or self.connection()
        method = "GET" if body is None else "POST"
        content = None if body is None else json.dumps(body)
        on.request(method, path, content, {} if body is None else {"content-type": "application/json"})
        answer = on.getresponse()
        text = answer.read()
        if connection is None:
            on.close()
        return answer.status, json.loads(text), answer.headers


IMPATIENT = """
import sys
from sasrec.cli.main import main
from sasrec.serving import limits, server
limits._BODY_SECONDS = server._HEADER_SECONDS = 1.0
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def serving(*arguments: str | Path, seconds: float = 60.0, impatient: bool = False) -> Iterator[Served]:
    """Run `sasrec serve` on a free port until the block ends; wait until it listens.

    `impatient`: it waits one second for headers and for bodies.
    """
    command = ["-c", IMPATIENT] if impatient else ["-m", "sasrec"]
    process = subprocess.Popen(
        [sys.executable, *command, "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    try:
        assert process.stderr is not None
        deadline, said = time.monotonic() + seconds, ""
        while (found := re.search(r"http://[^ ]+:(\d+)/", said)) is None:
            line = process.stderr.readline()
            said += line
            assert line, said
            assert time.monotonic() < deadline, said
        yield Served(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
