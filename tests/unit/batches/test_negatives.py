"""What is drawn as negatives of a training step: how often, for whom, and the same whoever asks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from sasrec.batches.batches import TrainingBatches
from sasrec.batches.negatives import NegativePlan, TrainingNegatives
from sasrec.config.settings import LossConfig
from sasrec.data.splits import split_events
from tests.synthetic import dataset

ITEMS, MAXLEN = 12, 6
# Item k is k times as popular as item 1; the last two events of each row are held out, and would show.
LISTS = [[*([item] * item), 12, 12] for item in range(1, 11)] + [[1, 2, 3, 11, 4, 9, 9]] * 3
TRAINING = [row[:-2] for row in LISTS]
TARGETS = [row[1:][-MAXLEN:] for row in TRAINING]


def counts(rows: list[list[int]]) -> npt.NDArray[np.int64]:
    return np.bincount([item for row in rows for item in row], minlength=ITEMS + 1)


def drawer(**settings: Any) -> TrainingNegatives:
    training = split_events(dataset(LISTS, ITEMS)).training
    return TrainingNegatives(
        training, counts(TARGETS).astype(float), ITEMS, NegativePlan.of(LossConfig(**settings))
    )


def assert_drawn_by(weights: npt.NDArray[Any], drawn: npt.NDArray[np.int64]) -> None:
    """Chi-square, 6 standard deviations above its mean at most; what has no weight does not occur."""
    found = np.bincount(drawn.ravel(), minlength=len(weights))
    assert found[weights == 0].sum() == 0
    expected = (weights / weights.sum() * drawn.size)[weights > 0]
    freedom = len(expected) - 1
    assert ((found[weights > 0] - expected) ** 2 / expected).sum() < freedom + 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("negatives", "weights"), [("uniform", np.arange(ITEMS + 1) > 0), ("popularity", counts(TRAINING))]
)
def test_softmax_draws_by_the_probabilities_that_it_corrects_for(
    negatives: str, weights: npt.NDArray[Any], shared: bool
) -> None:
    options = {"share_negatives": shared, "num_negatives": 20_000, "skip_own_items": False}
    made = drawer(loss="softmax", negatives=negatives, **options)
    drawn = made.draw(np.arange(4), np.array([1, 2, 3, 4]), np.random.default_rng(0))
    assert drawn.shape == ((20_000,) if shared else (4, 20_000))
    assert_drawn_by(weights, drawn)
    assert np.allclose(np.exp(made.log_q_V)[weights > 0], (weights / weights.sum())[weights > 0], rtol=1e-14)


def test_popular_negatives_of_a_user_are_by_popularity_without_the_users_own_which_are_dropped() -> None:
    made = drawer(loss="bce", negatives="popularity", num_negatives=20_000)
    assert made.log_q_V is None
    drawn = made.draw(np.array([9, 10]), np.array([1, 1]), np.random.default_rng(0))
    for row, user in zip(drawn, (9, 10), strict=True):
        weights = counts(TRAINING)
        weights[0] = weights[TRAINING[user]][np.unique(TRAINING[user], return_index=True)[1]].sum()
        weights[TRAINING[user]] = 0
        assert_drawn_by(weights, row)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize("loss", ["bce", "gbce", "softmax"])
def test_negatives_of_a_position_are_none_of_the_users_training_items(loss: str, negatives: str) -> None:
    made = drawer(loss=loss, negatives=negatives, num_negatives=500)
    users = np.arange(len(LISTS))
    drawn = made.draw(users, users, np.random.default_rng(1))
    assert all(not set(TRAINING[user]) & set(drawn[user].tolist()) for user in users)


def test_in_batch_negatives_are_the_batchs_own_targets_each_at_most_once() -> None:
    made = drawer(loss="bce", negatives="in_batch", num_negatives=7)
    pool = np.array([5, 5, 6, 7, 8, 9, 10, 10, 10, 11])
    for seed in range(50):
        drawn = made.draw(np.zeros(10, np.int64), pool, np.random.default_rng(seed))
        assert len(drawn) == 7
        assert (np.bincount(drawn, minlength=12) <= np.bincount(pool, minlength=12)).all()
    few = made.draw(np.zeros(3, np.int64), pool[:3], np.random.default_rng(0))
    assert sorted(few.tolist()) == [5, 5, 6], "no more than there are"


@pytest.mark.parametrize("windows", ["last", "random"])
def test_in_batch_negatives_are_corrected_by_how_often_items_are_targets(
    windows: Literal["last", "random"],
) -> None:
    """Long histories, whose early items are targets of random windows only, and others the more often."""
    lists = [[*range(1, 13), *([12] * user), 1, 1] for user in range(8)] if windows == "random" else LISTS
    batches = TrainingBatches(
        split_events(dataset(lists, ITEMS)).training,
        ITEMS,
        maxlen=MAXLEN,
        batch_size=len(lists),
        plan=NegativePlan.of(LossConfig(loss="softmax", negatives="in_batch", num_negatives=10**6)),
        seed=0,
        windows=windows,
    )
    drawn = np.concatenate(
        [batches.batch(epoch, 0).negatives for epoch in range(3000 if windows == "random" else 1)]
    )
    found, q = np.bincount(drawn, minlength=ITEMS + 1) / len(drawn), np.exp(batches.log_q_V)
    assert abs(q[found > 0].sum() - 1) < 1e-12
    assert abs(found[found > 0] / q[found > 0] - 1).max() < (0.05 if windows == "random" else 1e-12)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("skip", [True, False])
def test_items_that_are_not_known_are_never_drawn_and_the_others_alike(
    loss: str, negatives: str, shared: bool, skip: bool
) -> None:
    """As under a temporal split, where training, and so popularity, holds known items only."""
    known_V = np.arange(ITEMS + 1) % 3 == 1
    training = split_events(dataset([[1, 4, 7, 4, 1, 1]] * 4 + [[10, 10, 1, 7, 1, 1]], ITEMS)).training
    loss_config = LossConfig(
        loss=loss, negatives=negatives, share_negatives=shared, num_negatives=5000, skip_own_items=skip
    )
    made = TrainingNegatives(training, np.zeros(ITEMS + 1), ITEMS, NegativePlan.of(loss_config), known_V=known_V)
    drawn = made.draw(np.array([4, 4]), np.array([1, 1]), np.random.default_rng(0))
    own = {1, 7, 10} if skip and not shared else set()
    assert set(np.unique(drawn)) - {0} == {1, 4, 7, 10} - own
    if loss == "softmax":
        weights = (
            np.bincount(training.items[training.flat()], minlength=ITEMS + 1)
            if negatives == "popularity"
            else known_V
        )
        assert np.allclose(np.exp(made.log_q_V)[known_V], (weights / weights.sum())[known_V])


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize(("shared", "skip"), [(False, False), (False, True), (True, False)])
def test_the_estimate_of_the_partition_function_is_unbiased(negatives: str, shared: bool, skip: bool) -> None:
    """Of the user's own items, of which user 9 has one, where draws that are theirs are dropped."""
    options = {"share_negatives": shared, "skip_own_items": skip, "num_negatives": 5}
    made = drawer(loss="softmax", negatives=negatives, **options)
    random = np.random.default_rng(2)
    scores = random.normal(0, 1, ITEMS + 1)
    scores[[0, 12]] = -np.inf, -np.inf if negatives == "popularity" else scores[12]  # 12 is in no training part
    target, user, times = 3, 9, 20_000
    if shared:
        drawn = np.stack([made.draw(np.full(1, user), np.array([target]), random) for _ in range(times)])
    else:
        drawn = made.draw(np.full(times, user), np.full(times, target), random)
    terms = np.where(drawn == target, 0, np.exp(scores[drawn] - made.log_q_V[drawn]) / 5)
    if skip:
        scores[TRAINING[user][0]] = -np.inf
    estimates, exact = np.exp(scores[target]) + terms.sum(1), np.exp(scores).sum()
    standard_error = estimates.std() / np.sqrt(times)
    assert abs(estimates.mean() - exact) < 4 * standard_error
    assert 4 * standard_error < 0.03 * exact, "a bound that would show a wrong q"


@pytest.mark.parametrize("parts", [1, 2, 3, 40])
@pytest.mark.parametrize(
    "settings",
    [
        {"share_negatives": True},
        {"negatives": "in_batch"},
        {"negatives": "popularity", "share_negatives": True},
        {"negatives": "popularity"},
        {},
    ],
)
@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_all_parts_have_the_negatives_of_the_whole(loss: str, settings: dict[str, Any], parts: int) -> None:
    training = split_events(dataset(LISTS, ITEMS)).training
    plan = NegativePlan.of(LossConfig(loss=loss, num_negatives=9, **settings))
    batches = TrainingBatches(training, ITEMS, maxlen=MAXLEN, batch_size=6, plan=plan, seed=3)
    whole = batches.batch(1, 1)
    pieces = [batches.batch(1, 1, part, parts) for part in range(parts)]
    if plan.shared:
        assert all(np.array_equal(piece.negatives, whole.negatives) for piece in pieces)
        assert whole.negatives.ndim == 1
    else:
        rows = [
            sorted(map(tuple, np.concatenate(made))) for made in ([p.negatives for p in pieces], [whole.negatives])
        ]
        assert rows[0] == rows[1]
        assert whole.negatives.ndim == 2
    other = TrainingBatches(training, ITEMS, maxlen=MAXLEN, batch_size=6, plan=plan, seed=4).batch(1, 1)
    assert not np.array_equal(
        other.negatives,
        whole.negatives,
    )
