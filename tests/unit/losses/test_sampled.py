"""Losses against sampled negatives: their formulas written plainly, their limits, parts, chunks and training."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import DeviceTrainingBatch, Loader
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import LossConfig, ModelConfig
from sasrec.data.splits import split_events
from sasrec.losses import full, sampled
from sasrec.losses.loss import training_loss
from sasrec.losses.sampled import binary_cross_entropy, gbce_beta
from sasrec.models import SequenceModel, build_model
from tests.synthetic import chain_frame, dataset, random_lists

ITEMS, MAXLEN = 30, 10
# One user has had every item, so that popular draws can be any; and then has no negatives in bce.
LISTS = [[*range(1, ITEMS + 1), 1, 2], *random_lists(30, ITEMS, seed=1, longest=16)]
NEGATIVES: dict[str, dict[str, Any]] = {
    "uniform": {},
    "popularity": {"negatives": "popularity"},
    "uniform shared": {"share_negatives": True},
    "popularity shared": {"negatives": "popularity", "share_negatives": True},
    "in batch": {"negatives": "in_batch"},
}
LOSSES = {"bce": {}, "gbce": {"gbce_t": 0.9}, "softmax": {}, "softmax plain": {"loss": "softmax", "logq": False}}
COMBINATIONS = [
    pytest.param(
        LossConfig(**{"loss": loss, **more, **kind}, num_negatives=count, skip_own_items=skip),
        id=f"{loss}-{name}-{count}-{'skip' if skip else 'all'}",
    )
    for count, skip in ((20, True), (3, True), (3, False))  # in chunks, and looked up at once
    for loss, more in LOSSES.items()
    for name, kind in NEGATIVES.items()
]
every_kind = pytest.mark.parametrize("config", COMBINATIONS)
every_kind_in_chunks = pytest.mark.parametrize("config", COMBINATIONS[: len(COMBINATIONS) // 3])


def made(
    config: LossConfig, lists: list[list[int]] = LISTS, batch_size: int = 12, dtype: torch.dtype = torch.float64
) -> Loader:
    training = split_events(dataset(lists, ITEMS)).training
    plan = NegativePlan.of(config)
    batches = TrainingBatches(training, ITEMS, maxlen=MAXLEN, batch_size=batch_size, plan=plan, seed=0)
    return Loader(batches, torch.device("cpu"), dtype)


@pytest.fixture
def model() -> SequenceModel:
    torch.manual_seed(0)
    built = build_model(ITEMS, ModelConfig(maxlen=MAXLEN, hidden_units=8)).double().eval()
    with torch.no_grad():
        built.item_embedding.weight.mul_(3)  # scores that differ
    return built


def value_and_gradients(model: SequenceModel, loss: Callable[[], Tensor]) -> list[Tensor]:
    model.zero_grad()
    value = loss()
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_equal(found: list[Tensor], expected: list[Tensor], within: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < within


def scores(model: SequenceModel, batch: DeviceTrainingBatch, temperature: float = 1.0) -> Tensor:
    """Of every item, padding included, at every position."""
    states = model(batch.items_BL, batch.positions_BL).flatten(0, 1)
    return states[batch.real_P] @ model.item_embedding.weight.T / temperature


def probabilities(negatives: str) -> Tensor:
    """That a draw is each item, from the lists themselves."""
    if negatives == "uniform":
        return torch.full((ITEMS + 1,), 1 / ITEMS, dtype=torch.float64)
    training = [row[:-2] if len(row) >= 3 else row for row in LISTS]
    if negatives == "in_batch":
        training = [row[1:][-MAXLEN:] for row in training]
    counts = torch.bincount(torch.tensor([item for row in training for item in row]), minlength=ITEMS + 1)
    return counts.double() / counts.sum()


def owners(batch: DeviceTrainingBatch) -> list[set[int]]:
    """The training items of each position's user, from the lists: their last inputs tell rows apart."""
    training = [row[:-2] if len(row) >= 3 else row for row in LISTS]
    found = []
    for row, length in zip(batch.items_BL, batch.lengths_B, strict=True):
        (own,) = {tuple(each) for each in training if each[:-1][-MAXLEN:] == row[:length].tolist()}
        found += [set(own)] * int(length)
    return found


def plain(model: SequenceModel, batch: DeviceTrainingBatch, config: LossConfig) -> Tensor:
    """docs/explanation/losses.md, position by position."""
    scores_PV, q = scores(model, batch, config.temperature), probabilities(config.negatives)
    histories = owners(batch) if config.skip_own_items else [set()] * len(batch.targets_P)
    terms = []
    for at, target in enumerate(batch.targets_P.tolist()):
        drawn = (batch.negatives if batch.negatives.dim() == 1 else batch.negatives[at]).tolist()
        kept = [item for item in drawn if item not in (0, target) and item not in histories[at]]
        positive, negative = scores_PV[at, target], scores_PV[at, kept]
        if config.loss == "softmax":
            corrected = negative - torch.log(len(drawn) * q[kept]) if config.logq else negative
            terms.append(torch.cat([positive[None], corrected]).logsumexp(0) - positive)
        else:
            alpha = len(drawn) / (ITEMS - 1)
            beta = alpha * (config.gbce_t * (1 - 1 / alpha) + 1 / alpha) if config.loss == "gbce" else 1
            terms.append(-beta * positive.sigmoid().log() - (1 - negative.sigmoid()).log().sum())
    return torch.stack(terms).mean()


@every_kind
def test_loss_and_gradients_equal_those_of_the_formula(config: LossConfig, model: SequenceModel) -> None:
    config = dataclasses.replace(config, temperature=0.7)
    batch = made(config).batch(0, 1)
    found = value_and_gradients(model, lambda: training_loss(model, batch, config))
    assert_equal(found, value_and_gradients(model, lambda: plain(model, batch, config)))


@every_kind_in_chunks
@pytest.mark.parametrize("parts", [2, 3, 40])
def test_the_losses_and_gradients_of_parts_add_up(config: LossConfig, parts: int, model: SequenceModel) -> None:
    batches = made(config)

    def total(parts: int) -> Tensor:
        return sum(training_loss(model, batches.batch(0, 0, part, parts), config) for part in range(parts))

    whole, split = (value_and_gradients(model, lambda count=count: total(count)) for count in (1, parts))
    assert_equal(split, whole)


@every_kind_in_chunks
@pytest.mark.parametrize("at_once", [1, 300])
def test_the_size_of_chunks_changes_nothing(
    config: LossConfig, at_once: int, model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = made(config).batch(0, 1)
    expected = [3 * tensor for tensor in value_and_gradients(model, lambda: training_loss(model, batch, config))]
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", at_once)
    assert_equal(value_and_gradients(model, lambda: 3 * training_loss(model, batch, config)), expected)


@pytest.mark.parametrize("kind", NEGATIVES)
def test_memory_is_that_of_a_chunk_whatever_the_number_of_positions_and_negatives(
    kind: str, model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LossConfig(loss="softmax", num_negatives=500, **NEGATIVES[kind])
    batch = made(config, LISTS * 5, batch_size=1000).batch(0, 0)
    asked = len(batch.targets_P) * batch.negatives.shape[-1]
    allowed = asked // 20
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", allowed)
    sizes: list[int] = []
    for name in ("logsumexp", "sum"):
        original = getattr(Tensor, name)
        watched = lambda self, *a, original=original, **k: (sizes.append(self.numel()), original(self, *a, **k))[1]  # noqa: E731
        monkeypatch.setattr(Tensor, name, watched)
    training_loss(model, batch, config).backward()
    assert max(sizes) <= allowed
    assert sum(sizes) > asked, "they were watched"


@pytest.mark.parametrize("few", [1, 20])
def test_gbce_with_t_zero_is_bce_and_with_all_items_as_negatives_too(few: int, model: SequenceModel) -> None:
    bce = LossConfig(loss="bce", num_negatives=few)
    batch = made(bce).batch(0, 0)
    expected = value_and_gradients(model, lambda: training_loss(model, batch, bce))
    uncalibrated = LossConfig(loss="gbce", num_negatives=few, gbce_t=0.0)
    assert_equal(value_and_gradients(model, lambda: training_loss(model, batch, uncalibrated)), expected, 1e-15)
    assert gbce_beta(ITEMS - 1, ITEMS, 1.0) == gbce_beta(5 * ITEMS, ITEMS, 0.5) == 1.0


def test_gbce_is_calibrated_by_what_can_be_drawn_and_how_many_are(model: SequenceModel) -> None:
    """Of known items only, and in batch of fewer targets than were asked for."""
    config = LossConfig(loss="gbce", num_negatives=5, gbce_t=1.0)
    batch = made(config).batch(0, 0)
    known = dataclasses.replace(batch.run, unknown_U=torch.arange(21, ITEMS + 1))
    few = dataclasses.replace(batch, run=known)
    positive = scores(model, batch).gather(1, batch.targets_P[:, None])
    difference = training_loss(model, few, config) - training_loss(model, batch, config)
    expected = (5 / 19 - 5 / 29) * F.softplus(-positive).mean()
    assert abs(difference - expected) < 1e-12
    config = LossConfig(loss="gbce", negatives="in_batch", num_negatives=1000, gbce_t=1.0)
    assert len(made(config, batch_size=2).batch(0, 0).negatives) < ITEMS
    batch = made(config, batch_size=2).batch(0, 0)
    assert_equal(
        value_and_gradients(model, lambda: training_loss(model, batch, config)),
        value_and_gradients(model, lambda: plain(model, batch, config)),
    )


def test_gbce_with_t_one_is_least_where_the_sigmoid_is_the_probability_and_bce_where_it_is_overconfident() -> None:
    share = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    # Ten targets in those shares, each with each of the other items as its one negative.
    pairs = [(i, j) for i in range(4) for _ in range(round(10 * share[i].item())) for j in range(4) if j != i]
    target, negative = torch.tensor(pairs).T

    def slope(probability: Tensor, t: float) -> Tensor:
        score = probability.logit().requires_grad_()
        exists = torch.ones(len(pairs), 1, dtype=torch.bool)
        beta = gbce_beta(1, 4, t)
        loss = binary_cross_entropy(score[target], score[negative].unsqueeze(1), exists, len(pairs), beta)
        return torch.autograd.grad(loss, score)[0]

    overconfident = share / (share + (1 - share) / 3)
    assert slope(share, 1.0).abs().max() < 1e-15
    assert slope(overconfident, 0.0).abs().max() < 1e-15
    assert slope(share, 0.0).abs().min() > 0.01


@pytest.mark.parametrize(("shared", "skip"), [(False, False), (True, False), (True, True)])
def test_sampled_softmax_of_every_item_once_without_correction_is_cross_entropy(
    shared: bool, skip: bool, model: SequenceModel
) -> None:
    """Of their own for each position, draws of the user's items would be dropped when they are made."""
    common = {"temperature": 0.5, "skip_own_items": skip}
    config = LossConfig(loss="softmax", share_negatives=shared, logq=False, **common)
    batch, every = made(config).batch(0, 0), np.arange(1, ITEMS + 1)
    tiled = np.tile(every, (len(batch.targets_P), 1))
    batch = dataclasses.replace(batch, negatives=torch.from_numpy(every if shared else tiled))
    found = value_and_gradients(model, lambda: training_loss(model, batch, config))
    cross_entropy = LossConfig(**common)
    assert_equal(
        found,
        value_and_gradients(
            model, lambda: training_loss(model, dataclasses.replace(batch, negatives=None), cross_entropy)
        ),
    )


@pytest.mark.parametrize("kind", ["uniform shared", "popularity shared"])
def test_the_error_of_sampled_softmax_shrinks_as_one_over_the_root_of_the_number_of_negatives(
    kind: str, model: SequenceModel
) -> None:
    def error(count: int) -> float:
        config = LossConfig(loss="softmax", num_negatives=count, **NEGATIVES[kind])
        batches, squares = made(config), []
        for epoch in range(60):
            batch = batches.batch(epoch, 0)
            with torch.no_grad():
                exact = training_loss(model, dataclasses.replace(batch, negatives=None), LossConfig())
                squares.append((training_loss(model, batch, config) - exact).item() ** 2)
        return math.sqrt(np.mean(squares))

    few, many = error(400), error(6400)
    assert 3 < few / many < 5.3, "16 times as many: 4, but for chance"
    assert many < 0.01


def test_label_smoothing_and_temperature_are_those_of_torch(model: SequenceModel) -> None:
    config = LossConfig(label_smoothing=0.15, temperature=0.4, skip_own_items=False)
    batch = made(config).batch(0, 1)
    targets = batch.targets_P - 1

    def theirs() -> Tensor:
        return F.cross_entropy(scores(model, batch, 0.4)[:, 1:], targets, label_smoothing=0.15)

    found = value_and_gradients(model, lambda: training_loss(model, batch, config))
    assert_equal(found, value_and_gradients(model, theirs))


def test_label_smoothing_holds_chunk_by_chunk(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LossConfig(label_smoothing=0.15)
    batch = made(config).batch(0, 1)
    expected = value_and_gradients(model, lambda: training_loss(model, batch, config))
    monkeypatch.setattr(full, "_LOGITS_AT_ONCE", 100)
    monkeypatch.setattr(full, "_POSITIONS_AT_LEAST", 1)
    assert_equal(value_and_gradients(model, lambda: training_loss(model, batch, config)), expected)


@pytest.mark.parametrize("count", [2, 12])
def test_a_position_whose_negatives_all_are_its_target_has_no_softmax_loss(
    count: int, model: SequenceModel
) -> None:
    config = LossConfig(loss="softmax", skip_own_items=False)
    batch = made(config).batch(0, 0)
    hits = batch.targets_P[:, None].repeat(1, count)
    found = value_and_gradients(
        model, lambda: training_loss(model, dataclasses.replace(batch, negatives=hits), config)
    )
    assert all(tensor.abs().max() == 0 for tensor in found)


@pytest.mark.parametrize("loss", ["bce", "gbce"])
def test_shared_negatives_that_hit_the_target_of_a_position_do_not_count_there(
    loss: str, model: SequenceModel
) -> None:
    config = LossConfig(loss=loss, num_negatives=3, share_negatives=True, skip_own_items=False)
    batch = made(config).batch(0, 0)
    item = int(batch.targets_P.bincount().argmax())
    batch = dataclasses.replace(batch, negatives=torch.full((3,), item))
    scores_PV, targets = scores(model, batch), batch.targets_P
    beta = 1.0 if loss == "bce" else gbce_beta(3, ITEMS, config.gbce_t)
    positive = F.softplus(-scores_PV.gather(1, targets[:, None])).squeeze(1)
    negative = 3 * F.softplus(scores_PV[:, item]) * (targets != item)
    assert (targets == item).sum() >= 2
    expected = (beta * positive + negative).mean()
    assert abs(training_loss(model, batch, config) - expected) < 1e-12


@every_kind_in_chunks
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_under_autocast_scores_and_losses_stay_in_fp32(
    config: LossConfig, half: torch.dtype, model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, seen = made(config, dtype=torch.float32).batch(0, 0), set()
    name = "sampled_softmax" if config.loss == "softmax" else "binary_cross_entropy"
    original = getattr(sampled, name)

    def watched(positive: Tensor, negative: Tensor, *others: Any) -> Tensor:
        seen.update({positive.dtype, negative.dtype})
        return original(positive, negative, *others)

    monkeypatch.setattr(sampled, name, watched)
    full = value_and_gradients(model.float(), lambda: training_loss(model, batch, config))
    with torch.autocast("cpu", half):
        found = value_and_gradients(model, lambda: training_loss(model, batch, config))
    assert seen == {torch.float32}
    assert found[0].dtype == torch.float32
    assert abs(found[0] / full[0] - 1) < 0.01
    assert all(tensor.isfinite().all() for tensor in found)


@every_kind_in_chunks
def test_training_runs_and_the_loss_falls(config: LossConfig, tmp_path: Path) -> None:
    settings = dataclasses.asdict(config) | {"num_epochs": 3, "eval_every": 3, "lr": 0.02, "batch_size": 6}
    frame = chain_frame(users=60, items=25)
    sasrec.train(frame, tmp_path / "run", maxlen=MAXLEN, hidden_units=8, device="cpu", **settings)
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first, *_, last = (event["loss"] for event in events if event["event"] == "epoch")
    assert last < first
