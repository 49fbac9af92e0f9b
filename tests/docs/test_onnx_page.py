"""docs/how-to/onnx.md: the graph gives the lists of the run."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

import sasrec
from docs.tools.play import Stage, played

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "onnx.md"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_graph_gives_the_lists_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Stage(tmp_path)) as stage:
        shown = played(PAGE, stage)
    monkeypatch.chdir(tmp_path)
    expected = sasrec.load("runs/final").recommend(["P1000", "P1001"], 3, deny=["P1022"])
    printed = re.findall(r"^(P\d+) ([\d.]+)$", shown, re.MULTILINE)[-3:]
    assert [item for item, _ in printed] == [item for item, _ in expected]
    assert [float(score) for _, score in printed] == pytest.approx([score for _, score in expected], abs=1e-3)
