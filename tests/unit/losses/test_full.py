"""Losses against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from sasrec.losses import full
from sasrec.losses.full import LeftOut, full_cross_entropy
from sasrec.losses.sampled import binary_cross_entropy
from sasrec.models.dropout import Dropout


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_chunked_cross_entropy_equals_the_plain_one_and_so_do_its_gradients(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(full, "_POSITIONS_AT_LEAST", 1)
    torch.manual_seed(0)
    states = torch.randn(23, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, 31, (23,))
    plain = F.cross_entropy(states @ table[1:].T, targets - 1)
    expected = torch.autograd.grad(3 * plain, (states, table))
    ours = full_cross_entropy(states, table, targets)
    found = torch.autograd.grad(3 * ours, (states, table))
    assert torch.allclose(ours, plain, atol=1e-14)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-14)
    assert found[1][0].abs().max() == 0, "padding takes no part"


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("own", "unknown"), [(True, True), (True, False), (False, True)])
def test_what_is_left_out_of_cross_entropy_is_as_if_it_were_not_there(
    own: bool, unknown: bool, smoothing: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Position by position, on the rows of the table that remain; the target remains though it is left out."""
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(full, "_POSITIONS_AT_LEAST", 1)
    torch.manual_seed(0)
    states = torch.randn(23, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    targets, row_P = torch.randint(1, 29, (23,)), torch.arange(23) // 5
    own_BK = torch.cat([torch.randint(1, 31, (5, 6)), targets[::5, None]], 1)[:, : 7 * own]
    unknown_U = torch.tensor([29, 30])[: 2 * unknown]
    plain = torch.zeros((), dtype=torch.float64)
    for state, target, row in zip(states, targets.tolist(), row_P.tolist(), strict=True):
        gone = {*own_BK[row].tolist(), *unknown_U.tolist()} - {target}
        left = [item for item in range(1, 31) if item not in gone]
        place = torch.tensor(left.index(target))
        plain = plain + F.cross_entropy(table[left] @ state, place, label_smoothing=smoothing) / 23
    expected = torch.autograd.grad(plain, (states, table))
    ours = full_cross_entropy(
        states, table, targets, label_smoothing=smoothing, left_out=LeftOut(own_BK, row_P, unknown_U)
    )
    assert torch.allclose(ours, plain, atol=1e-14)
    for one, other in zip(torch.autograd.grad(ours, (states, table)), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_products_in_bf16_give_nearly_the_loss_and_the_gradients(smoothing: float) -> None:
    torch.manual_seed(0)
    states, table = torch.randn(300, 64, requires_grad=True), (0.3 * torch.randn(2001, 64)).requires_grad_()
    targets = torch.randint(1, 2001, (300,))
    left_out = LeftOut(torch.randint(1, 2001, (30, 20)), torch.arange(300) // 10, torch.tensor([5, 6]))
    exact = full_cross_entropy(states, table, targets, None, smoothing, left_out)
    expected = torch.autograd.grad(exact, (states, table))
    rounded = full_cross_entropy(states, table, targets, None, smoothing, left_out, torch.bfloat16)
    found = torch.autograd.grad(rounded, (states, table))
    assert rounded.dtype == found[0].dtype == found[1].dtype == torch.float32
    assert 0 < abs(rounded - exact) < 2e-3 * exact
    for one, other in zip(found, expected, strict=True):
        assert 0 < (one - other).norm() < 0.01 * other.norm()
        assert torch.equal(one == 0, other == 0), "what is left out of the sum has no gradient"


def test_cross_entropy_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", 5000)
    monkeypatch.setattr(full, "_POSITIONS_AT_LEAST", 1)
    sizes = []
    original = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor,
        "logsumexp",
        lambda self, *a, **k: (sizes.append(self.numel()), original(self, *a, **k))[1],
    )
    full_cross_entropy(torch.randn(1000, 4), torch.randn(501, 4), torch.ones(1000, dtype=torch.int64))
    assert max(sizes) <= 5000
    assert sum(sizes) == 1000 * 500


def test_a_large_catalogue_is_not_read_anew_for_every_few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", 1000)
    rows, original = [], torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor, "logsumexp", lambda self, *a, **k: (rows.append(len(self)), original(self, *a, **k))[1]
    )
    full_cross_entropy(torch.randn(100, 4), torch.randn(501, 4), torch.ones(100, dtype=torch.int64))
    assert rows == [32, 32, 32, 4]


def test_bce_is_that_of_the_papers_with_one_negative_and_sums_more() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(50).double(), torch.randn(50, 3).double()
    exists = torch.ones(50, 3, dtype=torch.bool)
    ones, zeros = torch.ones(50).double(), torch.zeros(50).double()
    bce = F.binary_cross_entropy_with_logits
    papers = bce(positive, ones) + bce(negative[:, 0], zeros)
    assert torch.allclose(binary_cross_entropy(positive, negative[:, :1], exists[:, :1], 50), papers)
    summed = bce(positive, ones) + sum(bce(negative[:, i], zeros) for i in range(3))
    assert torch.allclose(binary_cross_entropy(positive, negative, exists, 50), summed)
    exists[:, 1:] = False
    assert torch.allclose(binary_cross_entropy(positive, negative, exists, 50), papers)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_drops_the_given_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    out = Dropout(rate)(torch.ones(1001, 999))
    assert abs((out == 0).double().mean().item() - rate) < 0.003
    assert abs(out.double().mean().item() - 1) < 0.01
    assert out.unique().numel() == 2


def test_dropout_repeats_with_the_seed_and_its_elements_are_independent() -> None:
    dropout = Dropout(0.5)
    torch.manual_seed(3)
    first = dropout(torch.ones(400_000))
    assert not torch.equal(first, dropout(torch.ones(400_000)))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(torch.ones(400_000)))
    kept = (first > 0).double().view(-1, 4)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.02, "four lanes of one random word"


def test_dropout_does_nothing_in_evaluation_and_passes_the_gradient_of_what_it_kept() -> None:
    dropout = Dropout(0.5)
    x = torch.ones(1000, requires_grad=True)
    out = dropout(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert torch.equal(dropout.eval()(x), x)
    assert "0.5" in repr(dropout)


def test_the_highest_dropout_rates_are_finite() -> None:
    assert Dropout(0.999999)(torch.ones(10_000)).isfinite().all()
