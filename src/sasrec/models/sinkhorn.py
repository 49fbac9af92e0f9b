"""Mixing matrices from logits: doubly stochastic (Sinkhorn-Knopp, mixtures of permutations), or orthogonal."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from sasrec.errors import ConfigError

_OFFSET = 30.0  # the largest logit before exp; exp(±30) fits fp32 easily
_FAR = 2 * _OFFSET  # a logit this far below the largest one may vanish in exp, so such logits take the log domain
_FAR_IN_DOUBLE = 700.0  # the same in float64, where logits further below are raised to this


def sinkhorn_knopp(logits: Tensor, max_iter: int = 20) -> Tensor:
    """Return matrices (..., S, S) with rows that sum to 1 and columns that nearly sum to 1.

    The algorithm takes exp of the logits, then repeats `max_iter` times: normalise columns, then rows (Xie et al.
    2025, eq. 8 and 9). The error of the column sums grows with the range of the logits. After 20 iterations the
    error is 2e-4 for logits with standard deviation 1, and 5e-2 for standard deviation 3.

    Raises: ConfigError if the logits are not square matrices of real numbers. Remedy: convert or reshape them.
    """
    if not logits.is_floating_point():
        raise ConfigError(
            f"sinkhorn_knopp needs logits in floating point, not {logits.dtype}. Use logits.float()."
        )
    if logits.ndim < 2 or logits.shape[-1] != logits.shape[-2]:
        raise ConfigError(
            f"sinkhorn_knopp needs square matrices (…, S, S), not logits of the shape {tuple(logits.shape)}, "
            "because no other matrix has rows and columns that all sum to 1. Reshape the logits."
        )
    if logits.dtype in (torch.float16, torch.bfloat16):  # exp needs the range and the digits of fp32
        return sinkhorn_knopp(logits.float(), max_iter).to(logits.dtype)
    shifted = logits - logits.amax(dim=(-2, -1), keepdim=True)
    if torch.compiler.is_exporting():
        return _plain(shifted, max_iter)
    matrices: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
        shifted.reshape(-1, *logits.shape[-2:]), max_iter
    )
    return matrices.view(logits.shape)


def birkhoff(logits: Tensor, permutations: Tensor) -> Tensor:
    """Average all S! permutation matrices with softmax weights: logits (..., S!) -> matrices (..., S, S).

    Rows and columns sum to 1 for any logits, up to rounding. Every doubly stochastic matrix is such an average
    (Birkhoff 1946; arXiv 2601.05732 uses it for residuals). `permutations` (S!, S, S) comes from
    `permutation_matrices`.
    """
    return torch.einsum("...p,pst->...st", logits.softmax(-1), permutations)


def cayley(logits: Tensor) -> Tensor:
    """Return orthogonal matrices (I - A)^-1 (I + A), (..., S, S), of the skew-symmetric A = (Z - Z^T) / 2.

    Z is `logits`, (..., S, S); Z = 0 gives the identity. The results are rotations without the eigenvalue -1
    (Cayley 1846; arXiv 2602.18308 uses the transform for residuals). I - A always has an inverse, because the
    eigenvalues of A are imaginary. Rounding errors grow with the size of the logits.
    """
    identity_SS = torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    # (I - A)^-1 (I + A) = 2 (I - A)^-1 - I. Unlike inv, inv_ex does not make the host wait for a GPU.
    matrices = identity_SS - (logits - logits.mT) / 2
    if torch.compiler.is_exporting():
        return 2 * _inverse(matrices, identity_SS) - identity_SS
    inverse: Tensor = torch.linalg.inv_ex(matrices)[0]
    return 2 * inverse - identity_SS


def _inverse(matrices: Tensor, identity_SS: Tensor) -> Tensor:
    """Invert matrices I - A, (..., S, S), for graphs, by Gauss-Jordan elimination.

    No pivots are searched: the symmetric part of I - A is I, so all pivots are at least 1.
    """
    inverse = identity_SS.expand_as(matrices)
    for place in range(matrices.shape[-1]):
        row, own = matrices[..., place : place + 1, :], inverse[..., place : place + 1, :]
        pivot = row[..., place : place + 1]
        # Take the scaled row from all rows, so that column `place` becomes that of the identity.
        factor = (matrices[..., place : place + 1] - identity_SS[:, place : place + 1]) / pivot
        matrices, inverse = matrices - factor * row, inverse - factor * own
    return inverse


def permutation_matrices(size: int) -> Tensor:
    """Return all permutation matrices, (size!, size, size), starting with the identity."""
    return torch.stack([torch.eye(size)[list(order)] for order in itertools.permutations(range(size))])


def _plain(logits: Tensor, max_iter: int) -> Tensor:
    """Sinkhorn-Knopp on logits (..., S, S) with the maximum 0, for graphs, which know only plain operations.

    It works in float64, as on a GPU (`_wide`).
    """
    matrices = (logits.double().clamp(min=-_FAR_IN_DOUBLE) + _OFFSET).exp()
    for _ in range(max_iter):
        matrices = matrices / matrices.sum(-2, keepdim=True)
        matrices = matrices / matrices.sum(-1, keepdim=True)
    return matrices.to(logits.dtype)


class _Normalise(torch.autograd.Function):
    """Sinkhorn-Knopp on logits (N, S, S) with the maximum 0, with an exact gradient written by hand.

    Autograd would store a graph of 2·max_iter divisions. This class stores only the logits, the resulting
    matrices, and the row and column sums of all divisions.
    """

    @staticmethod
    def forward(ctx: Any, logits_NSS: Tensor, max_iter: int) -> Tensor:
        matrices_NSS: Tensor
        matrices_NSS, sums_RSN = _normalise(logits_NSS, max_iter)
        ctx.save_for_backward(logits_NSS, matrices_NSS, sums_RSN)
        return matrices_NSS

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _normalise_backward(grad_outputs[0], *ctx.saved_tensors), None


# Custom operators hide the two loops from torch.compile. Unrolled loops took minutes to compile and then ran
# slower. Inside, the batch axis N is last, so each operation runs along long contiguous rows.


@torch.library.custom_op("sasrec::normalise", mutates_args=())
def _normalise(logits_NSS: Tensor, max_iter: int) -> tuple[Tensor, Tensor]:
    """Return the normalised matrices (N, S, S), and the sums that each division used, (2·max_iter, S, N).

    The order of the sums is that of the divisions: columns, rows, columns, rows, …
    If `_far`, the sums are the logarithms of sums, and a division is a subtraction of logarithms.
    """
    logits_SSN = logits_NSS.permute(1, 2, 0)
    if _wide(logits_NSS):
        logits_SSN = logits_SSN.double().clamp(min=-_FAR_IN_DOUBLE)
    sums_RSN = logits_SSN.new_empty(2 * max_iter, *logits_SSN.shape[1:])
    if _far(logits_NSS):
        m_SSN = logits_SSN.clone(memory_format=torch.contiguous_format)
        for sums_SN, axis in zip(sums_RSN, itertools.cycle((0, 1))):
            m_SSN.sub_(torch.logsumexp(m_SSN, axis, out=sums_SN).unsqueeze(axis))
        m_SSN.exp_()
    else:
        m_SSN = (logits_SSN + _OFFSET).exp().contiguous()
        for sums_SN, axis in zip(sums_RSN, itertools.cycle((0, 1))):
            m_SSN.div_(torch.sum(m_SSN, axis, out=sums_SN).unsqueeze(axis))
    return m_SSN.permute(2, 0, 1).to(logits_NSS.dtype).contiguous(), sums_RSN


@torch.library.custom_op("sasrec::normalise_backward", mutates_args=())
def _normalise_backward(grad_NSS: Tensor, logits_NSS: Tensor, matrices_NSS: Tensor, sums_RSN: Tensor) -> Tensor:
    """Return the gradient with respect to the logits, (N, S, S), by undoing the divisions from last to first.

    Let m be the matrices, and a = grad · m, which is the gradient with respect to log m. To undo a division by row
    sums: a -= m · rowsum(a), then m *= the sums of that division (`sums_RSN`). Column sums work the same way. At
    the end, log m is the logits, so a is the result.
    """
    # clone: contiguous() of a single matrix would be the result itself, which the loops must not overwrite.
    m_SSN = matrices_NSS.permute(1, 2, 0).to(sums_RSN.dtype).clone(memory_format=torch.contiguous_format)
    a_SSN = grad_NSS.permute(1, 2, 0).contiguous() * m_SSN
    divisions = zip(sums_RSN.flip(0), itertools.cycle((1, 0)))
    if _far(logits_NSS):
        # The logarithms of the matrices, also where exp has rounded a number to 0.
        log_SSN = logits_NSS.permute(1, 2, 0) - sums_RSN[::2].sum(0) - sums_RSN[1::2].sum(0).unsqueeze(1)
        for sums_SN, axis in divisions:
            a_SSN.addcmul_(log_SSN.exp(), a_SSN.sum(axis, keepdim=True), value=-1)
            log_SSN.add_(sums_SN.unsqueeze(axis))
    else:
        for sums_SN, axis in divisions:
            a_SSN.addcmul_(m_SSN, a_SSN.sum(axis, keepdim=True), value=-1)
            m_SSN.mul_(sums_SN.unsqueeze(axis))
    return a_SSN.permute(2, 0, 1).to(logits_NSS.dtype).contiguous()


def _wide(logits: Tensor) -> bool:
    """Whether to work in float64, where hardly a logit is far: asking `_far` would make the host wait for a GPU.

    MPS has no float64.
    """
    return logits.device.type not in ("cpu", "mps")


def _far(logits_NSS: Tensor) -> bool:
    """Whether a logit lies so far below the largest one of its matrix that only the log domain is exact.

    The log domain takes several times as long.
    """
    return not _wide(logits_NSS) and logits_NSS.numel() > 0 and float(logits_NSS.amin()) < -_FAR


@_normalise.register_fake
def _(logits_NSS: Tensor, max_iter: int) -> tuple[Tensor, Tensor]:
    kind = torch.float64 if _wide(logits_NSS) else logits_NSS.dtype
    count, size = logits_NSS.shape[:2]
    return torch.empty_like(logits_NSS), logits_NSS.new_empty(2 * max_iter, size, count, dtype=kind)


@_normalise_backward.register_fake
def _(grad_NSS: Tensor, logits_NSS: Tensor, matrices_NSS: Tensor, sums_RSN: Tensor) -> Tensor:
    return torch.empty_like(matrices_NSS)
