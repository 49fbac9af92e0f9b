"""`--compile`: the same numbers, or a warning and the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sasrec
from tests.synthetic import chain_frame

SMALL: dict[str, Any] = {
    "maxlen": 8,
    "hidden_units": 16,
    "num_blocks": 1,
    "num_epochs": 2,
    "batch_size": 16,
    "device": "cpu",
    "loss": "bce",
}


def losses(folder: Path, **settings: Any) -> list[float]:
    """The loss of every step, as the log has it."""
    sasrec.train(chain_frame(), folder, diagnose_every=1, **SMALL, **settings)
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "diagnostics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "which",
    [
        {},
        {"time": True},
        {"mhc": True},
        {"time": True, "mhc": True},
        {"mhc": True, "mhc_projection": "birkhoff"},
        {"mhc": True, "mhc_projection": "orthogonal"},
        {"gated": True, "feed_forward": "swiglu", "feed_forward_width": 24},
    ],
)
def test_compiled_training_gives_the_losses_of_eager_training(
    tmp_path: Path, which: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.compiler.reset()
    eager, compiled = losses(tmp_path / "eager", **which), losses(tmp_path / "compiled", compile=True, **which)
    assert "no effect" not in capsys.readouterr().err
    assert len(eager) > 4
    assert eager[-1] != eager[0]
    assert compiled == pytest.approx(eager, abs=1e-5)


@pytest.mark.slow
def test_without_a_compiler_training_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    compiled = losses(tmp_path / "compiled", compile=True)
    assert "compile has no effect here" in capsys.readouterr().err
    assert compiled == losses(tmp_path / "eager")
