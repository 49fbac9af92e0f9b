"""Sinkhorn-Knopp on single matrices and on logits that exp alone cannot hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sasrec.errors import ConfigError
from sasrec.models import sinkhorn
from sasrec.models.sinkhorn import sinkhorn_knopp


def in_logarithms(logits: Tensor, rounds: int) -> Tensor:
    """The definition, in float64 and in the log domain, by autograd."""
    logs = logits.double()
    for _ in range(rounds):
        logs = logs - logs.logsumexp(-2, keepdim=True)
        logs = logs - logs.logsumexp(-1, keepdim=True)
    return logs.exp()


def far_logits(kind: str, streams: int) -> Tensor:
    random = torch.Generator().manual_seed(streams)
    logits = torch.randn(200, streams, streams, dtype=torch.float64, generator=random)
    rows, columns = (1e3 * torch.rand(200, *shape, generator=random) for shape in ((streams, 1), (1, streams)))
    if kind == "block":  # only the small corner can fill the columns: 19 rounds raise it from nearly nothing
        logits[:, : streams - 1, 1:] -= 100
        return logits
    return {"rows": logits + rows, "columns": logits + columns, "both": logits + rows + columns}.get(
        kind, 300 * logits
    )


def test_row_far_below_the_others_keeps_its_own_order() -> None:
    logits = torch.tensor([[0.0, 0.0], [-80.0, -70.0]])
    # After one round: column sums 1 + exp(-80) and 1 + exp(-70), then each row divided by its sum.
    expected = torch.tensor([[0.5, 0.5], [1 / (1 + 22026.4658), 1 - 1 / (1 + 22026.4658)]])
    assert torch.allclose(sinkhorn_knopp(logits, 1), expected, atol=1e-6)
    assert (sinkhorn_knopp(logits) - in_logarithms(logits, 20)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["rows", "columns", "both", "any", "block"])
@pytest.mark.parametrize("streams", [2, 4, 8])
@pytest.mark.parametrize("rounds", [1, 20, 100])
def test_far_logits_give_the_matrices_and_gradients_of_the_definition(
    kind: str, streams: int, rounds: int
) -> None:
    exact = far_logits(kind, streams)
    upstream = torch.randn(exact.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 5e-4)):
        logits = exact.to(dtype).requires_grad_()
        ours, plain = sinkhorn_knopp(logits, rounds), in_logarithms(logits, rounds)
        assert (ours - plain).abs().max() < bound
        found = torch.autograd.grad((ours * upstream.to(dtype)).sum(), logits)[0]
        expected = torch.autograd.grad((plain * upstream).sum(), logits)[0]
        assert (found - expected).abs().max() < bound


def test_gradients_of_far_logits_pass_gradcheck() -> None:
    logits = far_logits("rows", 3)[:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sinkhorn_knopp(z, 5), logits)


@pytest.mark.parametrize("shape", [(3, 3), (1, 3, 3), (1, 1, 3, 3)])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_backward_of_a_single_matrix_keeps_the_result(shape: tuple[int, ...], spread: float) -> None:
    logits = (spread * torch.randn(shape, generator=torch.Generator().manual_seed(1))).double().requires_grad_()
    matrix = sinkhorn_knopp(logits)
    before = matrix.detach().clone()
    gradients = [torch.autograd.grad(matrix.square().sum(), logits, retain_graph=True)[0] for _ in range(2)]
    assert matrix.shape == shape
    assert torch.equal(matrix, before)
    assert torch.equal(*gradients)
    assert (before - in_logarithms(logits, 20)).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda z: sinkhorn_knopp(z, 4), logits)


@pytest.mark.parametrize("kind", ["rows", "columns", "block"])
def test_the_way_of_accelerators_gives_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They work in float64, which can hold logits up to 700 apart; here on the CPU."""
    logits = 0.5 * far_logits(kind, 4).float().requires_grad_()
    exact = in_logarithms(logits, 20)
    expected = torch.autograd.grad(exact.square().sum(), logits)[0]
    monkeypatch.setattr(sinkhorn, "_wide", lambda _: True)
    ours = sinkhorn_knopp(logits)
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() < 1e-5
    assert (torch.autograd.grad(ours.square().sum(), logits)[0] - expected).abs().max() < 1e-5


def test_no_matrix_gives_no_matrix() -> None:
    assert sinkhorn_knopp(torch.zeros(0, 4, 4)).shape == (0, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype: torch.dtype) -> None:
    logits = torch.randn(50, 4, 4, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    found = sinkhorn_knopp(logits)
    assert found.dtype == dtype
    assert (found.float() - in_logarithms(logits, 20)).abs().max() < torch.finfo(dtype).eps
    assert bool(torch.autograd.grad(found.float().square().sum(), logits)[0].isfinite().all())


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 3, 3, dtype=torch.int64), "floating point, not torch.int64. Use logits.float()."),
        (torch.zeros(3, 3, dtype=torch.bool), "floating point, not torch.bool"),
        (torch.zeros(3, 3, dtype=torch.complex64), "floating point, not torch.complex64"),
        (torch.zeros(5, 2, 3), r"square matrices .* not logits of the shape \(5, 2, 3\)"),
        (torch.zeros(4), r"square matrices .* not logits of the shape \(4,\)"),
    ],
)
def test_logits_that_are_not_square_matrices_of_real_numbers_are_refused(
    logits: torch.Tensor, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sinkhorn_knopp(logits)
