"""Events from a query of a PostgreSQL server, which the test starts; skipped where PostgreSQL is not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import sasrec
from sasrec.errors import DataError
from tests.synthetic import small

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed")


def as_postgres(*command: object) -> None:
    """Run a program; as the user postgres if root runs the tests, because PostgreSQL refuses root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, *map(str, command)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = Path("/tmp") / tmp_path_factory.mktemp("postgres").name  # others may not enter pytest's folder
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    binaries, data = PROGRAMS[-1].parent, folder / "data"
    as_postgres(binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres")
    control = [binaries / "pg_ctl", "-D", data]
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    as_postgres(*control, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://postgres:secret@127.0.0.1:{port}/postgres"
    finally:
        as_postgres(*control, "-m", "fast", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_query_gives_the_events_and_no_password_is_kept(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as server:
        server.execute(
            "CREATE TABLE log AS SELECT 'u' || (n % 9) AS user_id, n % 20 AS item_id, "
            "to_timestamp(1600000000 + n) AS ts FROM generate_series(1, 90) AS n"
        )
    query = "SELECT user_id, item_id, ts FROM log"
    data = sasrec.prepare(url, query=query)
    assert data.history("u1") == [n % 20 for n in range(1, 91) if n % 9 == 1]
    sasrec.train(url, tmp_path / "run", query=query, **small(num_epochs=1))
    for file in (tmp_path / "run").rglob("*.*"):
        assert not file.is_file() or b"secret" not in file.read_bytes(), file
    with pytest.raises(DataError, match=r'//…@127.*relation "gone" does not exist'):
        sasrec.prepare(url, query="SELECT * FROM gone")
