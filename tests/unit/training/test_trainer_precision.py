"""bf16 and fp16 by autocast, on CPU by the same code as on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from sasrec.errors import TrainingError
from sasrec.losses import loss as loss_module
from sasrec.losses import sampled
from sasrec.models.residual import MHCResidual
from sasrec.runs import train as train_module
from sasrec.training import trainer
from tests.synthetic import chain_frame, small

SMALL = small(hidden_units=32, batch_size=16, diagnose_every=1)


def logged_losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "diagnostics"]


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("mhc", [False, True])
@pytest.mark.parametrize("time", [False, True])
def test_bf16_follows_fp32_and_keeps_maps_and_loss_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: bool, mhc: bool, loss: str
) -> None:
    seen: dict[str, set[torch.dtype]] = {"layer": set(), "maps": set(), "loss": set()}
    maps, linear = MHCResidual.maps, torch.nn.Linear.forward
    name = "full_cross_entropy" if loss == "ce" else "binary_cross_entropy"
    home = loss_module if loss == "ce" else sampled
    original = getattr(home, name)

    def watched_maps(self: MHCResidual, x_BLSD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = maps(self, x_BLSD)
        seen["maps"].update(each.dtype for each in out)
        return out

    def watched_linear(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        out = linear(self, x)
        seen["layer"].add(out.dtype)
        return out

    def watched_loss(first: torch.Tensor, *others: Any) -> torch.Tensor:
        out = original(first, *others)
        seen["products"] = {others[-1]}
        seen["loss"].update({first.dtype, out.dtype})
        return out

    monkeypatch.setattr(MHCResidual, "maps", watched_maps)
    monkeypatch.setattr(torch.nn.Linear, "forward", watched_linear)
    monkeypatch.setattr(home, name, watched_loss)
    data, settings = sasrec.prepare(chain_frame()), SMALL | {"time": time, "mhc": mhc, "loss": loss}
    sasrec.train(data, tmp_path / "fp32", num_epochs=8, eval_every=8, **settings)
    assert seen["layer"] == {torch.float32}
    seen["layer"].clear()
    sasrec.train(data, tmp_path / "bf16", num_epochs=8, eval_every=8, precision="bf16", **settings)
    assert torch.bfloat16 in seen["layer"]
    assert loss != "ce" or seen["products"] == {torch.bfloat16}
    assert seen["loss"] == {torch.float32}
    assert seen["maps"] == ({torch.float32} if mhc else set())
    full, half = logged_losses(tmp_path / "fp32"), logged_losses(tmp_path / "bf16")
    assert len(full) >= 30
    assert full != half
    assert half == pytest.approx(full, rel=0.02)


def test_fp16_multiplies_scores_of_the_catalogue_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products, original = set(), loss_module.full_cross_entropy

    def watched(*arguments: Any) -> torch.Tensor:
        products.add(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(loss_module, "full_cross_entropy", watched)
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", num_epochs=1, precision="fp16", **SMALL)
    assert products == {torch.float32}


def test_fp16_skips_a_step_that_overflows_and_lowers_its_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales, weights = [], []
    original = trainer.training_loss

    def overflowing(model: Any, *others: Any) -> torch.Tensor:
        loss = original(model, *others)
        weights.append(model.item_embedding.weight.detach().clone())
        return loss * (1e35 if len(weights) == 3 else 1)

    def watched(self: torch.amp.GradScaler) -> None:
        update(self)
        scales.append(self.get_scale())

    update = torch.amp.GradScaler.update
    monkeypatch.setattr(torch.amp.GradScaler, "update", watched)
    monkeypatch.setattr(trainer, "training_loss", overflowing)
    data = sasrec.prepare(chain_frame())
    sasrec.train(data, tmp_path / "run", num_epochs=2, precision="fp16", **SMALL | {"diagnose_every": 0})
    assert scales[2] == scales[1] / 2
    assert torch.equal(weights[3], weights[2])
    assert not torch.equal(weights[4], weights[3])
    state = store.newest(tmp_path / "run/checkpoints", print).state["training"]
    assert state["scaler"]["scale"] == scales[-1]


def test_an_overflow_in_a_layer_of_fp16_is_traced_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = train_module.build_model

    def huge(*arguments: Any) -> Any:
        model = built(*arguments)
        model.blocks[1].feed_forward.inner.weight.data.mul_(3e5)
        return model

    monkeypatch.setattr(train_module, "build_model", huge)
    with pytest.raises(TrainingError, match=r"first layer .* is blocks\.1\.feed_forward\.inner"):
        sasrec.train(chain_frame(), tmp_path / "run", num_epochs=1, precision="fp16", accumulate=2, **SMALL)
