"""Events from a query of a PostgreSQL server, which the test starts; skipped where PostgreSQL is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import sasrec
from sasrec.errors import DataError
from tests.postgres import needs_postgres, server
from tests.synthetic import small

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("events") as found:
        yield found.replace("postgres@", "postgres:secret@")


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
