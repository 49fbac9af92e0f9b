"""Runs to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

import sasrec
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same catalogue: `plain`, and `timed`, whose model reads times."""
    pytest.importorskip("starlette")
    from tests.serving.in_process import CATALOGUE

    folder = tmp_path_factory.mktemp("runs")
    CATALOGUE.write_csv(folder / "items.csv")
    data = sasrec.prepare(
        chain_frame(items=40),
        items=folder / "items.csv",
        items_id="item",
        items_title="title",
        items_group="kind",
        output=folder / "data",
    )
    sasrec.train(data, folder / "plain", **small(num_epochs=2, num_blocks=1))
    sasrec.train(data, folder / "timed", **small(num_epochs=1, num_blocks=1, time=True))
    return folder
