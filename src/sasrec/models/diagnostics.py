"""Diagnostics of manifold-constrained hyper-connections (mHC, see residual.py).

They measure errors of the mixing matrices, differences between streams, and growth of gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceBatch
from sasrec.models.interface import SequenceModel
from sasrec.models.residual import MHCResidual


@torch.no_grad()
def stream_diagnostics(model: SequenceModel, batch: DeviceBatch) -> dict[str, list[float]]:
    """Run the model on a batch and measure each mHC sub-layer at the real positions; return {} without mHC.

    Each list contains one number for each sub-layer, from the first to the last. H_res is the matrix with which a
    sub-layer mixes the streams (residual.py).

    - `rows`, `columns`: the largest |sum - 1| over the rows, or columns, of H_res. With mhc_projection orthogonal,
      `orthogonality` takes their place: the largest element of |H_res H_res^T - I|.
    - `diversity`: norm(streams - their mean) / norm(streams), for the streams after the sub-layer.
    - `gain`: the largest column sum of the product of all H_res up to this sub-layer, of absolute values. The
      mixing amplifies a gradient on its way back at most by this factor, measured by its largest stream. Doubly
      stochastic mixing cannot amplify activations, because rows sum to 1. Orthogonal mixing preserves their norm,
      so its gain is at most sqrt(S).
    """
    connections = [m for m in model.modules() if isinstance(m, MHCResidual)]
    if not connections:
        return {}
    orthogonal = any(connection.projection == "orthogonal" for connection in connections)
    errors = ["orthogonality"] if orthogonal else ["rows", "columns"]
    measures: dict[str, list[float]] = {name: [] for name in (*errors, "diversity", "gain")}
    real_BL = batch.items_BL > 0
    product_NSS: Tensor | None = None

    def watch(connection: MHCResidual, inputs: tuple[Any, ...], out_BLSD: Tensor) -> None:
        nonlocal product_NSS
        res_NSS = connection.maps(inputs[0])[2][real_BL]
        # Later matrices multiply from the left, in the order in which the sub-layers mix the streams.
        product_NSS = res_NSS if product_NSS is None else res_NSS @ product_NSS
        streams_NSD = out_BLSD[real_BL]
        deviation_NSD = streams_NSD - streams_NSD.mean(1, keepdim=True)
        if orthogonal:
            identity_SS = torch.eye(connection.streams, device=res_NSS.device)
            measures["orthogonality"].append(float((res_NSS @ res_NSS.mT - identity_SS).abs().max()))
        else:
            measures["rows"].append(float((res_NSS.sum(2) - 1).abs().max()))
            measures["columns"].append(float((res_NSS.sum(1) - 1).abs().max()))
        measures["diversity"].append(float(deviation_NSD.norm() / streams_NSD.norm()))
        measures["gain"].append(float(product_NSS.abs().sum(1).max()))

    handles = [connection.register_forward_hook(watch) for connection in connections]
    was_training = model.training
    try:  # an exception must not leave the model in evaluation mode or with hooks attached
        model.eval()
        model(batch.items_BL, batch.positions_BL, batch.ticks_BL)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return measures
