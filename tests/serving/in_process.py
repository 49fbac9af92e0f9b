"""The application of the server, without a process of its own, and two runs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from sasrec.serving.app import build
from sasrec.serving.figures import Figures
from sasrec.serving.history_store import open_store
from sasrec.serving.limits import Limited
from sasrec.serving.service import Service, shares_of

TestClient = pytest.importorskip("starlette.testclient").TestClient

IDS = [f"item-{n:02d}" for n in range(40)]
CATALOGUE = pl.DataFrame(
    {"item": IDS, "title": [f"Thé n° {n}" for n in range(40)], "kind": [f"g{n % 4}" for n in range(40)]}
)
TABLE = pl.DataFrame({"item": IDS, "price": list(range(40))})
RULES = {"cheap": sasrec.Rules(where="price < 20", items=TABLE), "two": sasrec.Rules(per_group=2)}
SECRET = "sesame-opens-the-mountain"


def served(folder: Path, paths: dict[str, Path], **options: Any) -> tuple[Service, Figures]:
    figures = Figures()
    where = options.pop("events", folder / "events.sqlite")
    service = Service(
        None if where is None else open_store(where),
        options.pop("rules", RULES),
        options.pop("fallback", "popular"),
        5.0,
        figures.a_pass,
    )
    for name, share in shares_of(list(paths), options.pop("shares", {})).items():
        service.add(name, paths[name], share)
    return service, figures


def client_of(service: Service, figures: Figures, **options: Any) -> Any:
    limited = Limited(
        build(service, figures), tokens=options.pop("tokens", None), finished=figures.request, **options
    )
    return TestClient(limited, "http://localhost", raise_server_exceptions=False)
