"""Test whether a difference between two models is significant.

`paired_bootstrap` accounts for the sampling of users. `seed_noise` accounts for the random seed. `holm` corrects
for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sasrec.errors import EvaluationError

# Users drawn at a time, over all resamples: about 8 MB of user numbers, and 16 MB of the users' sums.
_DRAWN_AT_ONCE = 2**21


@dataclass(frozen=True)
class Difference:
    """A mean difference with its confidence interval and p-value."""

    mean: float
    """The mean of the differences over all targets; a side with several runs counts by the mean of its runs."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end of the 95 % confidence interval."""
    p_value: float
    """Two-sided p-value of the hypothesis that the mean is 0. It is never below 2 / (resamples + 1)."""


@dataclass(frozen=True)
class SeedNoise:
    """How much the difference between two models varies when both are trained again with other random seeds."""

    deviation: float
    """Estimated standard deviation of A - B, where A and B are the two models' means over rows and runs."""
    freedom: float
    """Degrees of freedom of this estimate."""


def seed_noise(sides: Sequence[Sequence[float]], others: Sequence[Sequence[float]] = ()) -> SeedNoise | None:
    """Estimate the seed noise of the difference between two compared models; None if no model has two runs.

    The variance is the sum of s² / runs over the compared models, where s² is the variance between a model's runs.
    The degrees of freedom are Satterthwaite's (Welch 1947). A model with one run has no variance between runs, so
    the pooled s² of all models with several runs stands in for it.

    `sides`: for each compared model, one number per run: the mean of the metric over all rows. Omit a baseline,
    which has no seed.
    `others`: the same for models that are not compared here. They contribute to the pooled s² only.
    """
    models = [*sides, *others]
    freedom_M = np.array([len(runs) - 1 for runs in models], np.float64)
    if not freedom_M.any():
        return None
    variance_M = np.array([np.var(runs, ddof=1) if len(runs) > 1 else 0.0 for runs in models])
    # The variance of the difference is sum(weight_M * variance_M).
    weight_M = np.zeros(len(models))
    for place, side in enumerate(sides):
        if len(side) > 1:
            weight_M[place] += 1 / len(side)
        else:
            weight_M += freedom_M / freedom_M.sum()  # one run only: use the pooled s²
    part_M = weight_M * variance_M
    total = float(part_M.sum())
    if not total:
        return SeedNoise(0.0, float(freedom_M.sum()))
    several = freedom_M > 0
    return SeedNoise(math.sqrt(total), total**2 / float((part_M[several] ** 2 / freedom_M[several]).sum()))


def paired_bootstrap(
    differences: npt.NDArray[np.float64],
    users: npt.NDArray[np.int64],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    noise: SeedNoise | None = None,
) -> Difference:
    """Mean difference between two models, with a bootstrap confidence interval over users and a p-value.

    Each resample draws as many users as the data has, with replacement, and averages over all rows of these users
    (Efron 1979). The interval is the percentile interval (Efron & Tibshirani 1993, ch. 13), widened by `_widening`
    for few users. The p-value is twice the smaller share of resampled means on one side of 0, with one added to
    numerator and denominator (Davison & Hinkley 1997, eq. 4.11). So p < 1 - level roughly where the interval
    excludes 0.

    `differences`: (rows,) the metric of one model minus that of the other, for the same targets.
    `users`: (rows,) a number that identifies the row's user. All rows of a user are drawn together.
    `noise`: seed noise to add to each resampled mean, drawn from a t-distribution. The interval then also covers
    the random seed. If a model has several runs, first average its metric for each target over these runs, and
    compute `differences` from the averages. With noise, the interval is slightly too wide, because the differences
    between users already include a part of the seed noise.

    Cost: resamples × users draws, in bounded memory. 10,000 resamples of 30,000 users took 1.1 s on one core.

    Raises: EvaluationError for fewer than two users, a value that is not finite, or unequal lengths.
    """
    if len(differences) != len(users):
        raise EvaluationError(
            f"differences and users must have equal lengths, not {len(differences)} and {len(users)}. "
            "Give each difference its user"
        )
    if not np.isfinite(differences).all():
        raise EvaluationError(
            "a difference is not finite, because a metric is missing or infinite. Measure both models again."
        )
    distinct, user_of_row = np.unique(users, return_inverse=True)
    if len(distinct) < 2:
        raise EvaluationError(
            f"a confidence interval needs at least two users, not {len(distinct)}. Compare on data with more users"
        )
    rows_U = np.bincount(user_of_row).astype(np.float64)
    sums_U = np.bincount(user_of_row, weights=differences).astype(np.float64)
    random = np.random.default_rng(seed)
    mean = float(sums_U.sum() / rows_U.sum())
    means = _resampled_means(sums_U, rows_U, resamples, random)
    # Users without any difference are not counted: they make the resamples look more certain than they are.
    means = mean + _widening(int(np.count_nonzero(sums_U)), level) * (means - mean)
    if noise is not None:
        means += noise.deviation * random.standard_t(noise.freedom, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    beyond = int(min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0)))
    p_value = min(1.0, 2 * (beyond + 1) / (resamples + 1))
    return Difference(mean, float(low), float(high), p_value)


def _widening(users: int, level: float) -> float:
    """Factor by which to widen a percentile interval for few users (expanded percentile, Hesterberg 2015).

        Student's t quantile / normal quantile * sqrt(n / (n - 1)), with n - 1 degrees of freedom

    `users`: n, the number of users whose difference is not exactly 0. Other users add no information, and two good
    models agree on most users. `level`: the confidence level of the interval. The t quantile is computed by a
    series (Abramowitz & Stegun 1964, 26.7.5), which is accurate within 1 % for 3 or more users.
    """
    n = max(users, 2)
    z, freedom = NormalDist().inv_cdf((1 + level) / 2), n - 1
    series = (
        (z**3 + z) / 4 / freedom
        + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / freedom**4
    )
    return (1 + series / z) * math.sqrt(n / (n - 1))


def _resampled_means(
    sums_U: npt.NDArray[np.float64], rows_U: npt.NDArray[np.float64], resamples: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(resamples,) mean over rows of each resample: the sum of its users' sums divided by its number of rows."""
    users = len(sums_U)
    at_once = max(1, _DRAWN_AT_ONCE // users)
    # If all users have equally many rows, every resample has the same number of rows, and no sum is needed.
    equal_rows = bool((rows_U == rows_U[0]).all())
    means = np.empty(resamples)
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, users, (min(at_once, resamples - start), users), dtype=np.int32)
        rows = users * rows_U[0] if equal_rows else rows_U[drawn].sum(1)
        means[start : start + at_once] = sums_U[drawn].sum(1) / rows
    return means


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(comparisons,) p-values adjusted for multiple comparisons by Holm's method (Holm 1979), in the given order.

        adjusted p_k = min(1, max over j <= k of (m - j + 1) * p_j), for p_1 <= p_2 <= … <= p_m

    If only adjusted p-values below a threshold count as significant, the probability of any false positive is at
    most that threshold. This holds for any dependence between the comparisons.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
