"""Confidence intervals have their coverage, p-values are uniform without a difference, and Holm's method is correct."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sasrec.errors import EvaluationError
from sasrec.evaluation import significance
from sasrec.evaluation.significance import holm, paired_bootstrap, seed_noise


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random, covered, n, simulations = np.random.default_rng(0), 0, 60, 400
    for seed in range(simulations):  # skewed, as differences of NDCG are
        found = paired_bootstrap(random.exponential(1, n) - 0.7, np.arange(n), resamples=1000, seed=seed)
        covered += found.low <= 0.3 <= found.high
    assert 0.92 <= covered / simulations <= 0.98


def test_under_the_null_p_values_are_uniform() -> None:
    """With 2,000 simulations, a share of .05 has a standard error of .005; the bound 6 % is two of these above."""
    random, n = np.random.default_rng(1), 150
    p = np.array(
        [
            paired_bootstrap(random.normal(0, 1, n), np.arange(n), resamples=500, seed=s).p_value
            for s in range(2000)
        ]
    )
    assert (p <= 0.05).mean() <= 0.06
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert (p <= share).mean() == pytest.approx(share, abs=0.035)


def test_rows_of_one_user_move_together() -> None:
    """Ten equal rows per user add no information: both intervals are equal and have the stated coverage."""
    values = np.random.default_rng(2).normal(0.1, 1, 200)
    users = np.arange(200)
    once = paired_bootstrap(values, users)
    tenfold = paired_bootstrap(np.repeat(values, 10), np.repeat(users, 10))
    naive = paired_bootstrap(np.repeat(values, 10), np.arange(2000))
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert tenfold.p_value == once.p_value
    assert naive.high - naive.low < 0.4 * (once.high - once.low)


def test_users_with_many_rows_weigh_as_many_and_the_interval_covers() -> None:
    """The mean is over rows: a resample's sum divided by its rows. Each user has a different level."""
    random, covered, simulations = np.random.default_rng(3), 0, 400
    for seed in range(simulations):
        rows = random.integers(1, 6, 80)
        users = np.repeat(np.arange(80), rows)
        differences = random.normal(0, 1, 80)[users] + random.normal(0, 0.3, len(users))
        found = paired_bootstrap(differences, users, resamples=1000, seed=seed)
        assert found.mean == pytest.approx(differences.mean())
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / simulations <= 0.98


def test_it_agrees_with_the_normal_approximation_where_there_are_many_users() -> None:
    """The ends of 10,000 resamples have a standard error of .027 of the mean's standard error; .1 is four times that."""
    n = 5000
    values = np.random.default_rng(4).normal(0, 1, n)
    values += 0.028 - values.mean()  # about two standard errors
    found = paired_bootstrap(values, np.arange(n))
    error = values.std() / math.sqrt(n)
    assert found.low == pytest.approx(0.028 - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(0.028 + 1.96 * error, abs=0.1 * error)
    assert found.p_value == pytest.approx(math.erfc(0.028 / error / math.sqrt(2)), abs=0.01)


def test_it_is_the_same_for_a_seed_and_for_any_order_and_names_of_users() -> None:
    values, users = np.random.default_rng(5).normal(0.05, 1, 300), np.repeat(np.arange(100), 3)
    found = paired_bootstrap(values, users, resamples=500)
    assert found == paired_bootstrap(values, users, resamples=500)
    assert found == paired_bootstrap(values, users * 7 - 40, resamples=500)
    assert found != paired_bootstrap(values, users, resamples=500, seed=1)
    shuffled = np.random.default_rng(6).permutation(300)
    again = paired_bootstrap(values[shuffled], users[shuffled], resamples=500)
    assert (again.mean, again.low, again.high) == pytest.approx((found.mean, found.low, found.high))


def test_swapping_the_models_mirrors_the_interval() -> None:
    values = np.random.default_rng(7).normal(0.1, 1, 200)
    ours = paired_bootstrap(values, np.arange(200), resamples=999)
    theirs = paired_bootstrap(-values, np.arange(200), resamples=999)
    assert (theirs.mean, theirs.low, theirs.high) == pytest.approx((-ours.mean, -ours.high, -ours.low))
    assert theirs.p_value == ours.p_value


def test_no_difference_at_all_has_a_p_value_of_one_and_a_clear_one_the_smallest() -> None:
    assert paired_bootstrap(np.zeros(50), np.arange(50), resamples=99).p_value == 1
    clear = paired_bootstrap(np.ones(50), np.arange(50), resamples=99)
    assert (clear.mean, clear.low, clear.high, clear.p_value) == (1, 1, 1, 0.02)


def test_a_higher_level_is_a_wider_interval() -> None:
    values = np.random.default_rng(8).normal(0, 1, 100)
    wide, narrow = (paired_bootstrap(values, np.arange(100), resamples=999, level=x) for x in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_result_does_not_depend_on_how_many_are_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = np.random.default_rng(9).normal(0, 1, 101), np.arange(101) // 2
    whole = paired_bootstrap(values, users, resamples=99)
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 1)
    assert paired_bootstrap(values, users, resamples=99) == whole


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="two users"):
        paired_bootstrap(np.ones(3), np.zeros(3, int))
    with pytest.raises(EvaluationError, match="not finite"):
        paired_bootstrap(np.array([1, np.nan]), np.arange(2))
    with pytest.raises(EvaluationError, match="equal lengths, not 3 and 2"):
        paired_bootstrap(np.ones(3), np.arange(2))


def test_holm_equals_an_example_by_hand() -> None:
    # Ascending .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_is_monotone_never_below_p_never_above_one_and_knows_no_order(p: list[float], shuffler) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert adjusted.min() == min(1, min(p) * len(p))
    order = list(range(len(p)))
    shuffler.shuffle(order)
    assert holm([p[i] for i in order]).tolist() == adjusted[order].tolist()


def test_few_users_that_differ_do_not_cry_wolf() -> None:
    """Two good models agree on most users. Here only eight of 200 users differ, and neither model is better."""
    random, simulations, calls = np.random.default_rng(8), 600, 0
    for seed in range(simulations):
        differences = np.zeros(200)
        differences[:8] = random.choice([-1, 1], 8) * random.exponential(1, 8)
        calls += paired_bootstrap(differences, np.arange(200), resamples=500, seed=seed).p_value <= 0.05
    assert calls / simulations <= 0.06, "without the widening it is .09"


@pytest.mark.parametrize("users", [3, 4, 10, 100])
def test_the_widening_is_that_of_student(users: int) -> None:
    expected = stats.t.ppf(0.975, users - 1) / stats.norm.ppf(0.975) * math.sqrt(users / (users - 1))
    assert significance._widening(users, 0.95) == pytest.approx(expected, rel=0.01)


def fits(random: np.random.Generator, seeds: int, common: float) -> np.ndarray:
    """(seeds, 150) metrics of several runs of one model. `common` is the standard deviation of a run's overall level."""
    return random.normal(0, common, (seeds, 1)) + random.normal(0, 1, (seeds, 150))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_with_the_noise_of_seeds_one_model_is_not_told_from_itself_and_without_it_is(seeds: int) -> None:
    random, simulations, with_noise, without = np.random.default_rng(seeds), 300, 0, 0
    for seed in range(simulations):
        first, second = fits(random, seeds, 0.2), fits(random, seeds, 0.2)
        noise = seed_noise([first.mean(1).tolist(), second.mean(1).tolist()])
        differences, users = second.mean(0) - first.mean(0), np.arange(150)
        with_noise += paired_bootstrap(differences, users, 500, seed=seed, noise=noise).p_value <= 0.05
        without += paired_bootstrap(differences, users, 500, seed=seed).p_value <= 0.05
    assert with_noise / simulations <= 0.06
    assert without / simulations > 0.2


@pytest.mark.parametrize(
    ("runs", "common", "at_most"),
    [((5, 2), (0.1, 1), 0.11), ((5, 2), (1, 0.1), 0.08), ((3, 3), (0.1, 1), 0.08)],
)
def test_a_model_that_varies_more_than_the_other_is_not_told_from_it_much_more_often(
    runs: tuple[int, int], common: tuple[float, float], at_most: float
) -> None:
    """With one pooled variance for both models, .35 of the first case would count as different."""
    random, simulations, calls = np.random.default_rng(10), 400, 0
    for seed in range(simulations):
        first, second = (fits(random, *each) for each in zip(runs, common, strict=True))
        noise = seed_noise([first.mean(1).tolist(), second.mean(1).tolist()])
        differences = second.mean(0) - first.mean(0)
        calls += paired_bootstrap(differences, np.arange(150), 400, seed=seed, noise=noise).p_value <= 0.05
    assert calls / simulations <= at_most


def test_the_noise_of_seeds_equals_an_example_by_hand() -> None:
    # Variances 2 and 4, so 2 / 2 + 4 / 3, with 1 and 2 degrees of freedom.
    noise = seed_noise([[1, 3], [4, 6, 8]])
    assert noise.deviation == pytest.approx(math.sqrt(1 + 4 / 3))
    assert noise.freedom == pytest.approx((1 + 4 / 3) ** 2 / (1 / 1 + (4 / 3) ** 2 / 2))
    assert seed_noise([[1, 3]]).deviation == pytest.approx(1), "a baseline has no seeds"
    assert seed_noise([[5, 5], [5, 5]]).deviation == 0, "runs that agree to the bit"
    assert seed_noise([[1], [2]]) is None, "one run each says nothing"
    assert seed_noise([]) is None


def test_a_side_of_one_run_is_taken_to_vary_as_the_models_with_more_do() -> None:
    alone = seed_noise([[7], [4, 6, 8]])
    assert (alone.deviation, alone.freedom) == (pytest.approx(math.sqrt(4 + 4 / 3)), pytest.approx(2))
    # Against a baseline, from two other models: squares 2 and 8, with 1 and 2 degrees of freedom.
    others = seed_noise([[7]], [[1, 3], [4, 6, 8]])
    assert (others.deviation, others.freedom) == (pytest.approx(math.sqrt(10 / 3)), pytest.approx(100 / (4 + 32)))
    # Two runs of the three of one model.
    same = seed_noise([[4], [8]], [[4, 6, 8]])
    assert (same.deviation, same.freedom) == (pytest.approx(math.sqrt(8)), pytest.approx(2))
