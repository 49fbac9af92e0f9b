"""How a sub-layer joins the residual stream: plainly, or through manifold-constrained hyper-connections (mHC).

mHC (Xie et al., arXiv 2512.24880) keeps S streams of width D beside each other through all sub-layers:

    x~     = RMSNorm(vec X), without weight
    H_pre  = sigmoid(a_pre (x~ phi_pre) + b_pre)         which mixture of the streams the sub-layer reads
    H_post = 2 sigmoid(a_post (x~ phi_post) + b_post)    how much of its output each stream takes
    H_res  = Sinkhorn(a_res mat(x~ phi_res) + b_res)     how the streams mix: rows and columns sum to 1
    X'     = H_res X + H_post^T F(H_pre X)

Streams are (B, L, S, D): a token's streams lie together, so its maps are one matrix product and its mixing a
small one. They start as S copies of the input and end as their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sasrec.config.settings import ModelConfig
from sasrec.models.sinkhorn import birkhoff, permutation_matrices, sinkhorn_knopp

_RMS_EPS = 1e-6


class PlainResidual(nn.Module):
    """x + F(x)."""

    def forward(self, x: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return x + sub_layer(x)


class MHCResidual(nn.Module):
    """One sub-layer's three maps and the streams around them, in fp32 at least, whatever autocast says.

    The paper gives no initial biases. Ours make the network equal to the plain one at the start: phi is 0; H_post
    is 1; H_res is near the identity. H_pre favours one stream, another for each sub-layer: were all alike, the
    streams would stay copies for ever and H_res would get no gradient.
    In the first sub-layer of a network the streams are copies still, so there H_pre only scales what a LayerNorm
    scales back, and H_res changes nothing: only its H_post learns. After the last sub-layer the mean is taken,
    which no doubly stochastic H_res changes: there it learns nothing, or only from what Sinkhorn-Knopp leaves
    undone. That is the paper's network, and ours.
    """

    permutations: Tensor

    def __init__(self, config: ModelConfig, index: int) -> None:
        """`index`: number of the sub-layer in the network, from 0."""
        super().__init__()
        streams = config.mhc_expansion_rate
        self.streams, self.projection, self.max_iter = streams, config.mhc_projection, config.mhc_sinkhorn_iter
        if self.projection == "birkhoff":
            self.register_buffer("permutations", permutation_matrices(streams), persistent=False)
            res = torch.full((math.factorial(streams),), -7.0).index_fill(0, torch.tensor([0]), 0.0)
        else:
            res = 5 * (torch.eye(streams) - 1)
        self.phi = nn.Parameter(torch.zeros(streams * config.hidden_units, 2 * streams + res.numel()))
        self.gates = nn.Parameter(torch.full((3,), config.mhc_init_gate))
        self.b_pre = nn.Parameter(torch.full((streams,), -3.0).index_fill(0, torch.tensor([index % streams]), 3.0))
        self.b_post = nn.Parameter(torch.zeros(streams))
        self.b_res = nn.Parameter(res)

    def forward(self, x_BLSD: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, L, S, D) -> (B, L, S, D); `sub_layer` maps (B, L, D) to itself."""
        pre_BLS, post_BLS, res_BLSS = self.maps(x_BLSD)
        written_BLD = sub_layer((pre_BLS.unsqueeze(3) * x_BLSD).sum(2))
        with torch.autocast(x_BLSD.device.type, enabled=False):
            added_NSD = (post_BLS.unsqueeze(3) * written_BLD.unsqueeze(2)).flatten(0, 1)
            x_NSD, res_NSS = x_BLSD.to(res_BLSS.dtype).flatten(0, 1), res_BLSS.flatten(0, 1)
            return torch.baddbmm(added_NSD, res_NSS, x_NSD).view(x_BLSD.shape)

    def maps(self, x_BLSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """H_pre (B, L, S), H_post (B, L, S) and H_res (B, L, S, S), [to, from]."""
        with torch.autocast(x_BLSD.device.type, enabled=False):
            x_BLC = x_BLSD.flatten(2).to(self.phi.dtype)
            scale_BL1 = (x_BLC.square().mean(dim=2, keepdim=True) + _RMS_EPS).rsqrt()
            sizes = [self.streams, self.streams, self.b_res.numel()]
            pre_BLS, post_BLS, res_BLR = torch.split(x_BLC @ self.phi * scale_BL1, sizes, dim=2)
            pre_BLS = (self.gates[0] * pre_BLS + self.b_pre).sigmoid()
            post_BLS = 2 * (self.gates[1] * post_BLS + self.b_post).sigmoid()
            res_BLR = self.gates[2] * res_BLR + self.b_res.flatten()
            if self.projection == "birkhoff":
                return pre_BLS, post_BLS, birkhoff(res_BLR, self.permutations)
            square_BLSS = res_BLR.view(*x_BLSD.shape[:2], self.streams, self.streams)
            return pre_BLS, post_BLS, sinkhorn_knopp(square_BLSS, self.max_iter)


def build_residual(config: ModelConfig, index: int) -> nn.Module:
    """The residual of sub-layer number `index`; one stream is the plain residual, exactly."""
    return MHCResidual(config, index) if streams(config) > 1 else PlainResidual()


def streams(config: ModelConfig) -> int:
    """How many streams run through the network."""
    return config.mhc_expansion_rate if config.mhc else 1


def expand(x_BLD: Tensor, config: ModelConfig) -> Tensor:
    """(B, L, D) -> (B, L, S, D) copies, or as it is where there is one stream."""
    return x_BLD.unsqueeze(2).repeat(1, 1, streams(config), 1) if streams(config) > 1 else x_BLD


def reduce(x: Tensor, config: ModelConfig) -> Tensor:
    """The mean of the streams, (B, L, D)."""
    return x.mean(2) if streams(config) > 1 else x
