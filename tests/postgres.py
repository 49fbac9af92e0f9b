"""A PostgreSQL server of the tests' own, on loopback. Skips where PostgreSQL is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
needs_postgres = pytest.mark.skipif(not _PROGRAMS, reason="PostgreSQL is not installed")


@contextmanager
def server(name: str) -> Iterator[str]:
    """Start a server in a new folder, named after the test; yield its URL, without a user's password."""
    folder = Path("/tmp") / f"postgres-{os.getpid()}-{name}"  # others may not enter pytest's folder
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    binaries, data = _PROGRAMS[-1].parent, folder / "data"
    _as_postgres(binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres")
    control = [binaries / "pg_ctl", "-D", data]
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    _as_postgres(*control, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        _as_postgres(*control, "-m", "fast", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def restart(url: str) -> None:
    """Let a server of `server` crash and start again."""
    import psycopg

    with psycopg.connect(url) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    _as_postgres(
        _PROGRAMS[-1].parent / "pg_ctl", "-D", data, "-m", "immediate", "-w", "restart", "-l", f"{data}/../log"
    )


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Stop all processes of a server of `server`, which keeps its connections; let them run again afterwards."""
    import psycopg

    with psycopg.connect(url) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    main = int(Path(data, "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    processes = [main, *map(int, children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def _as_postgres(*command: object) -> None:
    """Run a program; as the user postgres if root runs the tests, because PostgreSQL refuses root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, *map(str, command)], check=True, capture_output=True, timeout=60)
