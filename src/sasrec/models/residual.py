"""How a sub-layer joins the residual stream: plainly, or through manifold-constrained hyper-connections (mHC).

mHC (Xie et al., arXiv 2512.24880) keeps S streams of width D beside each other through all sub-layers:

    x~     = RMSNorm(vec X), without weight
    H_pre  = sigmoid(a_pre (x~ phi_pre) + b_pre)         which mixture of the streams the sub-layer reads
    H_post = 2 sigmoid(a_post (x~ phi_post) + b_post)    how much of its output each stream takes
    H_res  = Sinkhorn(a_res mat(x~ phi_res) + b_res)     how the streams mix: rows and columns sum to 1
    X'     = H_res X + H_post^T F(H_pre X)

Streams are (S, B, L, D). They start as S copies of the input and end as their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sasrec.config import ModelConfig
from sasrec.models.sinkhorn import sinkhorn_knopp

_RMS_EPS = 1e-6


class PlainResidual(nn.Module):
    """x + F(x)."""

    def forward(self, x: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return x + sub_layer(x)


class HyperConnection(nn.Module):
    """One sub-layer's three maps, computed in fp32 at least, whatever autocast says.

    The paper gives no initial biases. Ours make the network equal to the plain one at the start: phi is 0; H_post
    is 1; H_res is near the identity (0 on the diagonal, -5 elsewhere). H_pre favours one stream, another for each
    sub-layer: were all alike, the streams would stay copies for ever and H_res would get no gradient.
    In the first sub-layer of a network the streams are copies still, so there H_pre only scales what a LayerNorm
    scales back, and H_res changes nothing: only its H_post learns. That is the paper's network, and ours.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        """`index`: number of the sub-layer in the network, from 0."""
        super().__init__()
        streams, width = config.mhc_expansion_rate, config.hidden_units
        self.streams, self.max_iter = streams, config.mhc_sinkhorn_iter
        self.phi = nn.Parameter(torch.zeros(streams, width, 2 * streams + streams**2))
        self.gates = nn.Parameter(torch.full((3,), config.mhc_init_gate))
        self.b_pre = nn.Parameter(torch.full((streams,), -3.0).index_fill(0, torch.tensor([index % streams]), 3.0))
        self.b_post = nn.Parameter(torch.zeros(streams))
        self.b_res = nn.Parameter(5 * (torch.eye(streams) - 1))

    def forward(self, x_SBLD: Tensor, sub_layer: Callable[[Tensor], Tensor]) -> Tensor:
        """(S, B, L, D) -> (S, B, L, D); `sub_layer` maps (B, L, D) to itself."""
        pre_SBL, post_SBL, res_SSBL = self.maps(x_SBLD)
        read_BLD = torch.einsum("sbl,sbld->bld", pre_SBL.to(x_SBLD.dtype), x_SBLD)
        written_BLD = sub_layer(read_BLD)
        mixed_SBLD = torch.einsum("stbl,tbld->sbld", res_SSBL.to(x_SBLD.dtype), x_SBLD)
        return mixed_SBLD + post_SBL.to(x_SBLD.dtype).unsqueeze(3) * written_BLD

    def maps(self, x_SBLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """H_pre (S, B, L), H_post (S, B, L) and H_res (S, S, B, L), [to, from]."""
        with torch.autocast(x_SBLD.device.type, enabled=False):
            x_SBLD = x_SBLD.to(self.phi.dtype)
            scale_BL = (x_SBLD.square().mean(dim=(0, 3)) + _RMS_EPS).rsqrt()
            projected_MBL = torch.einsum("sbld,sdm->mbl", x_SBLD, self.phi) * scale_BL
            sizes = [self.streams, self.streams, self.streams**2]
            pre_SBL, post_SBL, res_RBL = torch.split(projected_MBL, sizes)
            pre_SBL = (self.gates[0] * pre_SBL + self.b_pre[:, None, None]).sigmoid()
            post_SBL = 2 * (self.gates[1] * post_SBL + self.b_post[:, None, None]).sigmoid()
            logits_SSBL = self.gates[2] * res_RBL.reshape(self.streams, self.streams, *scale_BL.shape)
            return pre_SBL, post_SBL, sinkhorn_knopp(logits_SSBL + self.b_res[:, :, None, None], self.max_iter)


def build_residual(config: ModelConfig, index: int) -> nn.Module:
    """The residual of sub-layer number `index`; one stream is the plain residual, exactly."""
    return HyperConnection(config, index) if streams(config) > 1 else PlainResidual()


def streams(config: ModelConfig) -> int:
    """How many streams run through the network."""
    return config.mhc_expansion_rate if config.mhc else 1


def expand(x_BLD: Tensor, config: ModelConfig) -> Tensor:
    """(B, L, D) -> (S, B, L, D) copies, or as it is where there is one stream."""
    return x_BLD.expand(streams(config), *x_BLD.shape) if streams(config) > 1 else x_BLD


def reduce(x: Tensor, config: ModelConfig) -> Tensor:
    """The mean of the streams, (B, L, D)."""
    return x.mean(0) if streams(config) > 1 else x
