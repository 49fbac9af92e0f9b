"""What a researcher asks of mHC: are the maps doubly stochastic, do the streams differ, do they stay bounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sasrec.batches.loader import DeviceBatch
from sasrec.models.interface import SequenceModel
from sasrec.models.residual import MHCResidual


@torch.no_grad()
def stream_diagnostics(model: SequenceModel, batch: DeviceBatch) -> dict[str, list[float]]:
    """One number for each sub-layer, in order, over the real positions of a batch; {} without mHC.

    rows, columns: the largest |sum - 1| of H_res. diversity: how far the streams are from their mean, as a share
    of their norm. gain: the largest column sum of the product of all H_res so far, by which a gradient on its way
    back can have grown (forward, rows are the bound, and they sum to 1).
    """
    found: dict[str, list[float]] = {"rows": [], "columns": [], "diversity": [], "gain": []}
    real_BL = batch.items_BL > 0
    product_NSS: Tensor | None = None

    def watch(connection: MHCResidual, inputs: tuple[Any, ...], out_BLSD: Tensor) -> None:
        nonlocal product_NSS
        res_NSS = connection.maps(inputs[0])[2][real_BL]
        product_NSS = res_NSS if product_NSS is None else res_NSS @ product_NSS
        streams_NSD = out_BLSD[real_BL]
        apart_NSD = streams_NSD - streams_NSD.mean(1, keepdim=True)
        found["rows"].append(float((res_NSS.sum(2) - 1).abs().max()))
        found["columns"].append(float((res_NSS.sum(1) - 1).abs().max()))
        found["diversity"].append(float(apart_NSD.norm() / streams_NSD.norm()))
        found["gain"].append(float(product_NSS.sum(1).max()))

    connections: list[nn.Module] = [m for m in model.modules() if isinstance(m, MHCResidual)]
    if not connections:
        return {}
    handles = [connection.register_forward_hook(watch) for connection in connections]
    was_training = model.training
    try:
        model.eval()
        model(batch.items_BL, batch.positions_BL, batch.ticks_BL)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found
