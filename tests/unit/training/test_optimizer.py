"""The learning rate of each step, and a warning where a schedule cannot act."""

from __future__ import annotations

import pytest
import torch

from sasrec.config.settings import TrainingConfig
from sasrec.training.optimizer import learning_rate, schedule_warning


@pytest.mark.parametrize(("unit", "per_epoch"), [("steps", 10), ("epochs", 7)])
def test_the_step_schedule_is_that_of_pytorch(unit: str, per_epoch: int) -> None:
    config = TrainingConfig(schedule="step", step_size=3, step_unit=unit, gamma=0.95, lr=0.1)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.95)
    for step in range(60):
        assert learning_rate(config, step, per_epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        if unit == "steps" or (step + 1) % per_epoch == 0:
            scheduler.step()


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"schedule": "step", "step_size": 20, "num_epochs": 20}, "step_size=20 (epochs), but the run has"),
        ({"schedule": "step", "step_size": 19, "num_epochs": 20}, ""),
        (
            {"schedule": "step", "step_size": 1000, "step_unit": "steps", "num_epochs": 20},
            "step_size=1000 (steps), but the run has",
        ),
        ({"schedule": "step", "step_size": 99, "step_unit": "steps", "num_epochs": 20}, ""),
        ({"warmup_steps": 100, "num_epochs": 20}, "never reaches `lr`"),
        ({"schedule": "cosine", "num_epochs": 20}, ""),
        ({"schedule": "step", "step_size": 1, "gamma": 1.0, "num_epochs": 20}, "gamma=1; lower `gamma`"),
    ],
)
def test_a_schedule_that_never_acts_is_warned_of(settings: dict[str, object], warning: str) -> None:
    found = schedule_warning(TrainingConfig(**settings), steps_per_epoch=5)
    assert warning in found
    assert bool(warning) == bool(found)


def test_a_cosine_over_a_single_step_is_warned_of() -> None:
    config = TrainingConfig(schedule="cosine", num_epochs=1)
    assert "one step" in schedule_warning(config, steps_per_epoch=1)
    assert schedule_warning(config, steps_per_epoch=2) == ""
