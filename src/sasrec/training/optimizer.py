"""The optimiser of the papers: Adam with betas (0.9, 0.98)."""

from __future__ import annotations

import torch

from sasrec.config import TrainingConfig
from sasrec.models import SequenceModel


def build_optimizer(model: SequenceModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam, fused where the device has it: one pass over the embedding table instead of several."""
    fused = model.device.type in {"cpu", "cuda"}
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.98), fused=fused)
