"""The reference in docs/reference is what the code says; docs/tools/reference.py makes its parts."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from sasrec.evaluation import baselines, card, metrics, whole_period

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/reference"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs/tools")
    return importlib.import_module("reference")


def test_the_pages_are_current(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = tool.main(["--check"])
    assert (status, capsys.readouterr().out) == (0, "")


def test_a_page_that_is_not_current_is_named(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PAGES, tmp_path, dirs_exist_ok=True)
    settings, errors = tmp_path / "settings.md", tmp_path / "errors.md"
    settings.write_text(settings.read_text().replace("| `maxlen` | `200` |", "| `maxlen` | `201` |"))
    errors.write_text(errors.read_text() + "| `no code says this` | | |\n")
    commands = tmp_path / "command-line.md"
    commands.write_text(commands.read_text().replace("<!-- generated: command mcp -->", ""))
    assert tool.main(["--check", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "docs/reference/settings.md: not current. Run python docs/tools/reference.py",
        "docs/reference/command-line.md: the part 'command mcp' is missing",
        "docs/reference/errors.md: no message of the code is: no code says this",
    ]
    settings.write_text(settings.read_text().replace("| `maxlen` | `200` |", "| `maxlen` | `201` |"))
    assert tool.main(["--folder", str(tmp_path)]) == 1  # the others are not written
    assert settings.read_text() == (PAGES / "settings.md").read_text()


def test_the_page_on_metrics_has_every_metric_baseline_and_field_of_the_card() -> None:
    text = (PAGES / "metrics.md").read_text()
    named = [*(metrics.DEFINITIONS | whole_period.DEFINITIONS), *baselines.KINDS, *card.Card.__annotations__]
    assert [name for name in named if name != "mean" and f"`{name}`" not in text] == []
