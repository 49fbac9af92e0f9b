"""What a run says while it works: to people, to log.jsonl, to TensorBoard."""

from __future__ import annotations

import io
import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sasrec
from sasrec.errors import ConfigError
from sasrec.runtime.log import RunLog
from sasrec.training import health
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16, num_epochs=2)


def test_log_lines_where_there_is_no_terminal_and_numbers_for_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sasrec.runtime.log._SAY_EVERY", 0.0)
    sasrec.train(chain_frame(), tmp_path / "run", tensorboard=True, **SMALL)
    assert re.search(r"training: \d+ of 1\d\d  epoch 1", capsys.readouterr().err)
    events = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = {event["step"]: event["loss"] for event in events if event["event"] == "epoch"}
    assert all(event["positions_per_second"] > 0 for event in events if event["event"] == "epoch")
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = board.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload().Scalars("epoch/loss")
    assert {each.step: pytest.approx(each.value) for each in shown} == losses
    assert len(losses) == 2
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        sasrec.train(chain_frame(), tmp_path / "none", tensorboard=True, **SMALL)


def test_the_memory_of_an_accelerator_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here; what PyTorch would say of one is stood in for."""
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 3 * 2**20)
    assert health.peak_memory(torch.device("cuda:1")) == {"device_memory_mb": 3.0}
    assert health.peak_memory(torch.device("cpu")) == {}


class Notebook(types.ModuleType):
    """IPython.display, as far as it is used: one text for each output of the cell."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.outputs: dict[str, str] = {}
        self.shown: list[str] = []

    def display(self, data: dict[str, str], *, display_id: str, raw: bool) -> None:
        assert raw
        assert display_id not in self.outputs
        self.update_display(data, display_id=display_id, raw=raw)

    def update_display(self, data: dict[str, str], *, display_id: str, raw: bool) -> None:
        self.outputs[display_id] = data["text/plain"]
        self.shown.append(data["text/plain"])


def test_a_notebook_shows_one_line_that_is_rewritten_and_ends_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, printed = Notebook(), io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr("sasrec.runtime.log._SHOW_EVERY", 0.0)
    console = Console(file=printed, width=80)
    console.is_jupyter = True
    monkeypatch.setattr(console, "print", lambda text, **_: printed.write(f"{text}\n"))
    log = RunLog(None, console)
    log.say("before")
    for work in ("training", "measuring"):
        with log.bar(work, 2000) as bar:
            bar(1000, "epoch 1")
            log.say("epoch 1  loss 2.5")
            log.say("note: kept")
            bar(1000, "epoch 2")
    log.say("after")
    assert list(notebook.outputs.values()) == [""]
    assert "training: 1,000 of 2,000  epoch 1\nepoch 1  loss 2.5" in notebook.shown
    assert "measuring: 2,000 of 2,000  epoch 2\nepoch 1  loss 2.5" in notebook.shown
    assert printed.getvalue().splitlines() == ["before", "note: kept", "note: kept", "after"]


def test_a_notebook_is_not_flooded_with_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    console = Console(file=io.StringIO())
    console.is_jupyter = True
    with RunLog(None, console).bar("training", 10_000) as bar:
        for _ in range(10_000):
            bar(1)
    assert len(notebook.shown) < 20


@pytest.mark.parametrize("width", [60, 80])
def test_the_line_on_a_terminal_is_never_cut(width: int) -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    log = RunLog(None, console)
    with log.bar("training", 1140) as bar:
        bar(973, "epoch 3, best NDCG@10 0.9396")
    assert "epoch 3, best NDCG@10 0.9396" in said.getvalue()
    assert "973/1140" in said.getvalue()
    assert "…" not in said.getvalue()


def test_sentences_wrap_at_words_on_a_terminal_and_stay_whole_elsewhere() -> None:
    sentence = "several words " * 10 + "end"
    for terminal, lines in ((True, 4), (False, 1)):
        said = io.StringIO()
        RunLog(None, Console(file=said, force_terminal=terminal, width=40, color_system=None)).say(sentence)
        assert len(said.getvalue().splitlines()) == lines
        assert said.getvalue().split() == sentence.split()
