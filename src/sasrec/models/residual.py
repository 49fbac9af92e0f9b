"""Residual connections: plain x + F(x), gated x + g(x) * F(x), or manifold-constrained hyper-connections (mHC).

mHC (Xie et al., arXiv 2512.24880) carries S parallel streams of width D through all sub-layers:

    x~     = RMSNorm(vec X), without a learned weight
    H_pre  = sigmoid(a_pre (x~ phi_pre) + b_pre)         weights of the streams in the input of the sub-layer
    H_post = 2 sigmoid(a_post (x~ phi_post) + b_post)    weights of the sub-layer's output in each stream
    H_res  = Sinkhorn(a_res mat(x~ phi_res) + b_res)     mixing of the streams; rows and columns sum to 1.
                                                         Other projections: birkhoff, orthogonal (sinkhorn.py)
    X'     = H_res X + H_post^T F(H_pre X)

Streams have the shape (B, L, S, D). The S streams of a position are contiguous in memory, so one matrix product
computes all three maps. `expand` starts with S copies of the input; `reduce` ends with the mean of the streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sasrec.config.settings import ModelConfig
from sasrec.models.sinkhorn import birkhoff, cayley, permutation_matrices, sinkhorn_knopp

_RMS_EPS = 1e-6


class PlainResidual(nn.Module):
    """The plain residual connection, x + F(x)."""

    def forward(self, x: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x + sub_layer(x), (B, L, D)."""
        return x + sub_layer(x)


class GatedResidual(nn.Module):
    """The gated residual of LiGR, x + sigmoid(x W + b) * F(LN(x)) (Borisyuk et al. 2025, arXiv 2502.03417).

    The gate reads the residual stream x itself, before LayerNorm, and has a value for each of the D units. W and b
    start at 0, so all gates start at 1/2. They use no random numbers: the other weights start as those of the
    plain network with the same random seed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_weight = nn.Parameter(torch.zeros(config.hidden_units, config.hidden_units))
        self.gate_bias = nn.Parameter(torch.zeros(config.hidden_units))

    def forward(self, x_BLD: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of x and the gated output of `sub_layer`, (B, L, D)."""
        return x_BLD + F.linear(x_BLD, self.gate_weight, self.gate_bias).sigmoid() * sub_layer(x_BLD)


class MHCResidual(nn.Module):
    """The mHC connection of one sub-layer. Its own arithmetic ignores autocast and uses at least fp32.

    The paper omits the initial biases. Ours make the initial network equal to the plain one: phi is 0, H_post is 1
    and H_res is near the identity. H_pre favours a different stream in successive sub-layers. If H_pre weighted
    all streams equally, they would stay identical forever, and H_res would never get a gradient.

    Some maps cannot learn, in the paper's network as in ours. In the first sub-layer all streams are equal, so
    H_res has no effect and LayerNorm undoes the scale of H_pre. In the last sub-layer H_res has no effect, because
    the streams are averaged next and a doubly stochastic matrix preserves their mean. The only gradient of that
    last H_res comes from the small error of Sinkhorn-Knopp. An orthogonal H_res changes the mean, so it learns.
    """

    permutations: Tensor

    def __init__(self, config: ModelConfig, index: int) -> None:
        """`index` counts the sub-layers of the network from 0."""
        super().__init__()
        streams = config.mhc_expansion_rate
        self.streams, self.projection, self.max_iter = streams, config.mhc_projection, config.mhc_sinkhorn_iter
        if self.projection == "birkhoff":
            self.register_buffer("permutations", permutation_matrices(streams), persistent=False)
            # Logits of S! permutations; the identity, permutation 0, gets nearly all of the softmax.
            res = torch.full((math.factorial(streams),), -7.0).index_fill(0, torch.tensor([0]), 0.0)
        elif self.projection == "orthogonal":
            res = torch.zeros(streams, streams)  # the identity
        else:
            # Weights off the diagonal start at exp(-5) = 0.7 % of those on the diagonal.
            res = 5 * (torch.eye(streams) - 1)
        self.phi = nn.Parameter(torch.zeros(streams * config.hidden_units, 2 * streams + res.numel()))
        self.gates = nn.Parameter(torch.full((3,), config.mhc_init_gate))
        self.b_pre = nn.Parameter(torch.full((streams,), -3.0).index_fill(0, torch.tensor([index % streams]), 3.0))
        self.b_post = nn.Parameter(torch.zeros(streams))
        self.b_res = nn.Parameter(res)

    def forward(self, x_BLSD: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """Update the streams (B, L, S, D); `sub_layer` maps (B, L, D) to (B, L, D)."""
        pre_BLS, post_BLS, res_BLSS = self.maps(x_BLSD)
        written_BLD = sub_layer((pre_BLS.unsqueeze(3) * x_BLSD).sum(2))
        with torch.autocast(x_BLSD.device.type, enabled=False):
            added_NSD = (post_BLS.unsqueeze(3) * written_BLD.unsqueeze(2)).flatten(0, 1)
            x_NSD, res_NSS = x_BLSD.to(res_BLSS.dtype).flatten(0, 1), res_BLSS.flatten(0, 1)
            # One fused call mixes the streams and adds the output of the sub-layer.
            return torch.baddbmm(added_NSD, res_NSS, x_NSD).view(x_BLSD.shape)

    def maps(self, x_BLSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the weights of each position: H_pre (B, L, S) reads the streams, H_post (B, L, S) writes to
        them, and H_res (B, L, S, S) mixes them. H_res is indexed [..., target stream, source stream].
        """
        with torch.autocast(x_BLSD.device.type, enabled=False):
            x_BLC = x_BLSD.flatten(2).to(self.phi.dtype)
            scale_BL1 = (x_BLC.square().mean(dim=2, keepdim=True) + _RMS_EPS).rsqrt()
            # RMSNorm lacks a weight, so its scale commutes with phi and applies to the smaller product.
            sizes = [self.streams, self.streams, self.b_res.numel()]
            pre_BLS, post_BLS, res_BLR = torch.split(x_BLC @ self.phi * scale_BL1, sizes, dim=2)
            pre_BLS = (self.gates[0] * pre_BLS + self.b_pre).sigmoid()
            post_BLS = 2 * (self.gates[1] * post_BLS + self.b_post).sigmoid()
            res_BLR = self.gates[2] * res_BLR + self.b_res.flatten()
            if self.projection == "birkhoff":
                return pre_BLS, post_BLS, birkhoff(res_BLR, self.permutations)
            square_BLSS = res_BLR.view(*x_BLSD.shape[:2], self.streams, self.streams)
            if self.projection == "orthogonal":
                return pre_BLS, post_BLS, cayley(square_BLSS)
            return pre_BLS, post_BLS, sinkhorn_knopp(square_BLSS, self.max_iter)


def build_residual(config: ModelConfig, index: int) -> nn.Module:
    """Build the residual of sub-layer `index`: mHC with two or more streams; with one, gated or plain."""
    if streams(config) > 1:
        return MHCResidual(config, index)
    return GatedResidual(config) if config.gated else PlainResidual()


def streams(config: ModelConfig) -> int:
    """Return the number of residual streams, which is 1 without hyper-connections (mHC)."""
    return config.mhc_expansion_rate if config.mhc else 1


def expand(x_BLD: Tensor, config: ModelConfig) -> Tensor:
    """Copy (B, L, D) into S streams, (B, L, S, D); return the input unchanged for one stream."""
    return x_BLD.unsqueeze(2).repeat(1, 1, streams(config), 1) if streams(config) > 1 else x_BLD


def reduce(x: Tensor, config: ModelConfig) -> Tensor:
    """Average the streams, (B, L, S, D) -> (B, L, D); return the input unchanged for one stream."""
    return x.mean(2) if streams(config) > 1 else x
