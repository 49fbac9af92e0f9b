"""What a training begins with: the baselines on validation, measured once, which change no weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sasrec
from sasrec.evaluation import measure
from sasrec.runs import train as train_module
from sasrec.runs.folder import RunFolder
from tests.synthetic import chain_frame, small


def baselines_of(run: Path) -> list[dict[str, Any]]:
    return [event["baselines"] for event in RunFolder(run).events() if event["event"] == "baselines"]


def test_the_baselines_are_logged_before_the_first_epoch_and_are_those_of_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    names = [event["event"] for event in RunFolder(tmp_path / "run").events()]
    assert names.index("baselines") < names.index("epoch")
    (logged,) = baselines_of(tmp_path / "run")
    measured = RunFolder(tmp_path / "run").metrics()["baselines"]
    assert {name: each["valid"]["full"] for name, each in logged.items()} == {
        name: each["valid"]["full"] for name, each in measured.items()
    }
    best = max(measured, key=lambda name: measured[name]["valid"]["full"]["ndcg@10"])
    value = measured[best]["valid"]["full"]["ndcg@10"]
    assert f"best baseline on validation: {best}, NDCG@10 {value:.4f}" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_the_weights_and_ranks_are_those_without_them(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(num_epochs=2, dropout_rate=0.5, loss=loss)
    sasrec.train(chain_frame(), tmp_path / "with", **settings)
    monkeypatch.setattr(train_module, "validated_baselines", lambda *_: {})
    sasrec.train(chain_frame(), tmp_path / "without", **settings)
    for pattern in ("checkpoints/*/weights.safetensors", "ranks.parquet"):
        files = [sorted((tmp_path / name).glob(pattern)) for name in ("with", "without")]
        assert len(files[0]) == len(files[1]) > 0
        for one, other in zip(*files, strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_no_baseline_is_ranked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[tuple[str, str]] = []
    original = measure.target_ranks

    def counted(scorer: Any, split: Any, **options: Any) -> Any:
        ranked.append((type(scorer).__name__, split.name))
        return original(scorer, split, **options)

    monkeypatch.setattr(measure, "target_ranks", counted)
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    assert len(set(ranked)) == len(ranked) == 10


def test_a_resumed_run_logs_them_once(tmp_path: Path) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1))
    sasrec.resume(tmp_path / "run", num_epochs=2)
    assert len(baselines_of(tmp_path / "run")) == 1
    assert set(RunFolder(tmp_path / "run").metrics()["baselines"]) == set(baselines_of(tmp_path / "run")[0])


def test_without_validation_targets_there_are_none(tmp_path: Path) -> None:
    frame = chain_frame(longest=3).group_by("user", maintain_order=True).head(2)
    sasrec.train(frame, tmp_path / "run", **small(num_epochs=1))
    assert baselines_of(tmp_path / "run") == []
