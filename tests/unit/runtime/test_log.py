"""What a run says while it works: to people, to log.jsonl, to TensorBoard."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sasrec
from sasrec.errors import ConfigError
from sasrec.training import health
from tests.synthetic import chain_frame

SMALL: dict[str, Any] = {"maxlen": 12, "hidden_units": 16, "batch_size": 16, "device": "cpu", "num_epochs": 2}


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
