"""The examples of docs/how-to-onnx.md and docs/how-to-serve.md work as they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from tests.serving.process import serving
from tests.synthetic import small

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on the ids of the examples."""
    random = np.random.default_rng(0)
    items = ["50", "172", "181", *map(str, range(200, 220))]
    events = [
        (str(user), random.choice(items), 1_600_000_000 + step) for user in range(190, 230) for step in range(12)
    ]
    frame = pl.DataFrame(events, schema=["user", "item", "time"], orient="row")
    sasrec.train(frame, tmp_path / "runs" / "final", **small(num_epochs=1, num_blocks=1))
    return tmp_path / "runs" / "final"


@pytest.mark.slow
def test_the_graph_can_be_run_as_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "how-to-onnx.md").read_text()
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^(sasrec .*)$", text, re.MULTILINE):
        assert main(line.split()[1:]) == 0, line
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "how-to-onnx.md", "exec"), {})
    printed = capsys.readouterr().out
    expected = sasrec.load(run).recommend(["50", "181"], 10, deny=["172"])
    assert re.findall(r"'(\d+)'", printed) == [item for item, _ in expected]


def test_the_requests_of_the_page_are_answered(run: Path, tmp_path: Path) -> None:
    text = (DOCS / "how-to-serve.md").read_text()
    requests = re.findall(r"http://127\.0\.0\.1:8000(/v1/\w+) -H .*?-d '(.*?)'", text, re.DOTALL)
    assert len(requests) == 3
    with serving(run, "--events", tmp_path / "events") as served:
        for path, body in requests:
            status, answer, _ = served.ask(path, json.loads(body))
            assert status == 200, answer
        assert answer["stored"] == 1
        described = served.ask("/openapi.json")[1]["paths"]
    named = {
        name.partition("?")[0].replace("ID", "{id}")
        for name in re.findall(r"`(?:GET|POST|DELETE) (/[^`]*)`", text)
    }
    assert set(described) - named == {"/readyz", "/openapi.json"}


def test_the_events_of_a_store_are_added_to_the_log_as_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [("196", "50", 1_600_000_000), ("197", "172", 1_600_000_001)]
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv("log.csv")
    sent = [
        {"user": "196", "item": "181", "time": 1_700_000_000},
        {"user": "196", "item": "50", "time": 1_600_000_000},
    ]
    with serving(run, "--events", "events.sqlite") as served:
        assert served.ask("/v1/events", {"events": sent})[0] == 200
        (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "how-to-serve.md").read_text(), re.DOTALL)
        exec(compile(code, "how-to-serve.md", "exec"), {})
    found = sasrec.prepare("all.parquet")
    assert found.num_events == 3
    assert found.history("196") == ["50", "181"]
