"""Beyond accuracy: how much of the catalogue is recommended, how popular and how alike, and for whom it works.

`lists_BK`: (rows, K) item numbers, best first, 0 where a list is shorter; a row without any item counts nowhere.
`counts_V`, `users_V`: (num_items + 1,) events and users of each item in the training part, 0 for padding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec.data.histories import Histories
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.ranking.candidates import seen_items

Items = npt.NDArray[np.int64]
_DAY = 86_400 * 10**6  # microseconds
_LENGTHS = ("history up to 5", "history 6-20", "history 21-50", "history 51 and more")
_TARGETS = ("target in the tail", "target in the middle", "target in the head")
_GAPS = ("shortest gaps to the target", "middle gaps to the target", "longest gaps to the target")


def coverage(lists_BK: Items, num_items: int) -> float:
    """Share of the catalogue that is in somebody's list (Ge, Delgado-Battenfeld & Jannach, RecSys 2010).

    `num_items`: how many could be.
    """
    return float(np.count_nonzero(np.unique(lists_BK)) / num_items)


def popularity(lists_BK: Items, histories: Histories, counts_V: Items) -> dict[str, float]:
    """`popularity`: events of what is recommended; `popularity_ratio`: the same over events of what users had.

    Both are means over rows of the mean over a row's items, repeats included: the group average popularity of
    Abdollahpouri et al. (RMSE 2019), whose lift is `popularity_ratio` - 1. `histories`: (rows,) of the same rows.
    NaN where there is nothing to average.
    """
    recommended = _mean_of_row_means(counts_V[lists_BK].astype(np.float64), lists_BK > 0)
    lengths = histories.lengths
    row_E, item_E = seen_items(histories, np.arange(len(lengths)))
    sums = np.bincount(row_E, weights=counts_V[item_E], minlength=len(lengths))
    some = lengths > 0
    had = float(np.mean(sums[some] / lengths[some])) if some.any() else 0
    return {"popularity": recommended, "popularity_ratio": recommended / had if had else np.nan}


def novelty(lists_BK: Items, users_V: Items, num_users: int) -> float:
    """Mean self-information in bits of what is recommended (Zhou et al., PNAS 2010).

        -log2(users_V[i] / num_users), meaned over a row's items, then over rows

    An item that nobody had in training counts as had by one user: log2(num_users), the most there can be.
    """
    bits_V = np.log2(num_users) - np.log2(np.maximum(users_V, 1))
    return _mean_of_row_means(bits_V[lists_BK], lists_BK > 0)


def intra_list_diversity(lists_BK: Items, groups_V: Items) -> float:
    """Share of the pairs of a list that are of different groups, meaned over lists of two items or more.

    `groups_V`: (num_items + 1,) one group an item, any numbers (Ziegler et al., WWW 2005, as 1 - similarity, with
    similarity 1 in a group and 0 across). NaN if no list has two items.
    """
    groups_BK, there_BK = groups_V[lists_BK], lists_BK > 0
    pairs, different = np.zeros(len(lists_BK)), np.zeros(len(lists_BK))
    for apart in range(1, lists_BK.shape[1]):
        both = there_BK[:, apart:] & there_BK[:, :-apart]
        pairs += both.sum(1)
        different += (both & (groups_BK[:, apart:] != groups_BK[:, :-apart])).sum(1)
    some = pairs > 0
    return float(np.mean(different[some] / pairs[some])) if some.any() else float("nan")


def slices(
    ranks: npt.NDArray[np.float64],
    lengths: Items,
    targets: Items,
    counts_V: Items,
    gaps: npt.NDArray[np.int64] | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of groups of rows: {slice: {"rows", "from", "to", "ndcg@10", "hr@10"}}, without empty slices.

    By history length in fixed bins, so that data sets can be compared (`lengths`: (rows,) events before the
    target); by popularity of the target, in thirds of the training events, so that a few items make the head
    (`targets`: (rows,)); and by recency, in thirds of the rows (`gaps`: (rows,) microseconds from the last event
    to the target, or None without times). Equal values share a slice, so thirds are only about equal. `from` and
    `to` are the smallest and largest value in the slice: events, events, days.
    """
    groupings: list[tuple[tuple[str, ...], Items, npt.NDArray[np.number]]] = [
        (_LENGTHS, np.digitize(lengths, (5, 20, 50), right=True), lengths),
        (_TARGETS, _thirds(counts_V, counts_V)[targets], counts_V[targets]),
    ]
    if gaps is not None:
        groupings.append((_GAPS, _thirds(gaps, np.ones_like(gaps)), gaps / _DAY))
    return {
        name: _slice(ranks[label == number], values[label == number])
        for names, label, values in groupings
        for number, name in enumerate(names)
        if (label == number).any()
    }


def _slice(ranks: npt.NDArray[np.float64], values: npt.NDArray[np.number]) -> dict[str, float]:
    metrics = metrics_from_ranks(ranks, (10,))
    return {
        "rows": len(ranks),
        "from": float(values.min()),
        "to": float(values.max()),
        "ndcg@10": metrics["ndcg@10"],
        "hr@10": metrics["hr@10"],
    }


def _thirds(values: Items, weights: Items) -> Items:
    """0, 1 or 2 each: the third of all weight, by ascending value, in which the middle of its equals lies."""
    _, equals = np.unique(values, return_inverse=True)
    weight_of_equals = np.bincount(equals, weights=weights)
    middle = np.cumsum(weight_of_equals) - weight_of_equals / 2
    thirds: Items = np.minimum(2, 3 * middle // max(weights.sum(), 1)).astype(np.int64)[equals]
    return thirds


def _mean_of_row_means(values_BK: npt.NDArray[np.float64], there_BK: npt.NDArray[np.bool_]) -> float:
    """NaN if nothing is there."""
    count_B = there_BK.sum(1)
    some = count_B > 0
    means = (values_BK * there_BK).sum(1)[some] / count_B[some]
    return float(np.mean(means)) if len(means) else float("nan")
