"""Beyond accuracy: measures of the recommended lists, and accuracy by slices of the test targets.

`details_on_test` computes all of them for `sasrec evaluate --details`.

Shapes used throughout:
`lists_BK`: (rows, K) item numbers, best first; 0 fills a list that is shorter than K. Empty lists are ignored.
`counts_V`, `users_V`: (num_items + 1,) the number of training events and of training users of each item. Item 0,
the padding item, has 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.evaluation.baselines import event_counts
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import other_candidates
from sasrec.ranking.candidates import candidate_scores, highest, own_chunks
from sasrec.ranking.scorers import Scorer
from sasrec.ranking.selection import seen_items
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import summed

LENGTH = 10
Items = npt.NDArray[np.int64]
_DAY = 86_400 * 10**6  # microseconds
_LENGTHS = ("history up to 5", "history 6-20", "history 21-50", "history 51 and more")
_TARGETS = ("target in the tail", "target in the middle", "target in the head")
_GAPS = ("shortest gaps to the target", "middle gaps to the target", "longest gaps to the target")


def details_on_test(
    scorers: dict[str, Scorer],
    ranks: dict[str, npt.NDArray[np.float64]],
    data: Dataset,
    split: Split,
    log: RunLog,
) -> dict[str, Any]:
    """Measure the top-10 lists of the model and of popularity; compare the model and a baseline on slices.

    The first of `scorers` is the measured one, usually "model".

        {"lists": {"model": {measure: value}, "popularity": {measure: value}},
         "best_baseline": name,
         "slices": {slice: {"rows", "from", "to", "model": {"ndcg@10", "hr@10"}, name: {"ndcg@10", "hr@10"}}}}

    All values are on test, with the full catalogue as candidates. The baseline is that with the highest NDCG@10.
    A slice groups targets by history length, item popularity or time gap; "from" and "to" are the smallest and the
    largest such value in the slice (see `slices`). A measure of lists is None if it would average over nothing.
    The measure "diversity" is present only if the items have groups; "auc" is of the whole ranking.

    `scorers`: the measured one, then the baselines. `ranks`: (rows,) ranks of the test targets, by scorer.
    """
    part, counts_V = split.test, event_counts(split.training, data.num_items)
    measures, first = {}, next(iter(scorers))
    for name in dict.fromkeys((first, "popularity")):
        with log.bar(f"{name}, lists", len(part.targets)) as bar:
            lists_BK = best_items(scorers[name], part, bar)
        measures[name] = _list_measures(lists_BK, data, split, counts_V) | {"auc": auc(ranks[name], part)}
    ndcg = {name: metrics_from_ranks(ranks[name], (LENGTH,))["ndcg@10"] for name in ranks if name != first}
    best = max(ndcg, key=lambda name: ndcg[name])
    return {
        "lists": measures,
        "best_baseline": best,
        "slices": _slices(ranks, (first, best), data, part, counts_V),
    }


def best_items(
    scorer: Scorer, part: EvaluationSplit, advance: Any = lambda rows: None, length: int = LENGTH
) -> Items:
    """(rows, length) items with the highest scores, best first, given each row's history; 0 if too few remain.

    Of items with equal scores, the one with the smaller number is first, as in `top_items`.
    Seen items (unless items come again) and items unknown in training are excluded, as in `recommend`. With
    several processes, every process returns all rows. `advance`: called with the number of rows after each chunk
    of rows that this process scores.
    """
    lists_BK = np.zeros((len(part.targets), min(length, scorer.num_items)))
    for rows in own_chunks(part.histories, scorer.num_items):
        scores_BV = candidate_scores(
            scorer, part.histories, rows, exclude_seen=not part.repeats, allowed_V=part.known_V
        )
        best_BK, items_BK = highest(scores_BV, lists_BK.shape[1])
        # Excluded items have the score -inf; they fill a list only when no other item remains.
        lists_BK[rows] = torch.where(best_BK.isfinite(), items_BK, 0).cpu().numpy()
        advance(len(rows))
    # Each process filled its own rows and left the others 0, so the sum over processes has every row.
    return summed(lists_BK).astype(np.int64)


def auc(ranks: npt.NDArray[np.float64], part: EvaluationSplit) -> float | None:
    """Mean share of the other candidates that the target outranks, with ties as half (Rendle et al., UAI 2009).

        (others - (rank - 1)) / others, averaged over the targets that have others

    Others are the known items without the target and, unless items come again, without the items of its history.
    None if no target has any.

    `ranks`: (rows,) rank of each target in the full catalogue.
    """
    others = other_candidates(part, np.arange(len(part.targets)))
    some = others > 0
    return float(np.mean(1 - (ranks[some] - 1) / others[some])) if some.any() else None


def coverage(lists_BK: Items, num_items: int) -> float:
    """Share of the catalogue that occurs in at least one list (Ge, Delgado-Battenfeld & Jannach, RecSys 2010).

    `num_items`: number of items that could be recommended.
    """
    return float(np.count_nonzero(np.unique(lists_BK)) / num_items)


def popularity(lists_BK: Items, histories: Histories, counts_V: Items) -> dict[str, float]:
    """Return how popular the recommended items are, alone and relative to the histories.

    This is the group average popularity of Abdollahpouri et al. (RMSE 2019).

    "popularity": the mean training events of a list's items, averaged over lists.
    "popularity_ratio": "popularity" divided by the same average over histories. Repeated items count each time.
    The paper's popularity lift is `popularity_ratio` - 1. Both values are NaN if nothing can be averaged.

    `histories`: (rows,) the history that each list was made for.
    """
    of_lists = _mean_of_row_means(counts_V[lists_BK].astype(np.float64), lists_BK > 0)
    lengths = histories.lengths
    row_E, item_E = seen_items(histories, np.arange(len(lengths)))
    sums = np.bincount(row_E, weights=counts_V[item_E], minlength=len(lengths))
    some = lengths > 0
    of_histories = float(np.mean(sums[some] / lengths[some])) if some.any() else 0
    return {"popularity": of_lists, "popularity_ratio": of_lists / of_histories if of_histories else np.nan}


def novelty(lists_BK: Items, users_V: Items, num_users: int) -> float:
    """Mean self-information of the recommended items, in bits (Zhou et al., PNAS 2010).

        -log2(users_V[i] / num_users), averaged over a list's items, then over lists

    An item without training users counts as if it had one, which gives the maximum, log2(num_users).

    `users_V`: the number of training users of each item. `num_users`: the number of all training users.
    """
    bits_V = np.log2(num_users) - np.log2(np.maximum(users_V, 1))
    return _mean_of_row_means(bits_V[lists_BK], lists_BK > 0)


def intra_list_diversity(lists_BK: Items, groups_V: Items) -> float:
    """Share of the item pairs of a list whose groups differ, averaged over lists of two items or more.

    This is 1 - the mean similarity of Ziegler et al. (WWW 2005), where items of one group have similarity 1 and
    items of different groups 0. NaN if every list has fewer than two items.

    `groups_V`: (num_items + 1,) an integer for each item that identifies its group.
    """
    groups_BK, filled_BK = groups_V[lists_BK], lists_BK > 0
    pairs, different = np.zeros(len(lists_BK)), np.zeros(len(lists_BK))
    # All pairs that are `apart` places apart in one step: K steps instead of K² pairs.
    for apart in range(1, lists_BK.shape[1]):
        both = filled_BK[:, apart:] & filled_BK[:, :-apart]
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
    """Metrics by slices of the rows: {slice: {"rows", "from", "to", "ndcg@10", "hr@10"}}, without empty slices.

    The rows are sliced three times:
    - by history length, in fixed bins, so that data sets can be compared;
    - by the popularity of the target item, its number of training events. Each slice covers items that together
      have about a third of all training events, so a few popular items form the head;
    - by the gap from the last event to the target, in thirds of the rows, if `gaps` is given.

    Rows with equal values share a slice, so the thirds are approximate. "from" and "to" are the smallest and the
    largest value in the slice, in events (history length), training events (popularity) or days (gap).

    `ranks`, `lengths`, `targets`: (rows,) the target's rank, the events before it, and its item number.
    `gaps`: (rows,) microseconds, or None for data without times.
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


def _list_measures(lists_BK: Items, data: Dataset, split: Split, counts_V: Items) -> dict[str, float | None]:
    """All measures of the test lists, by name; None instead of NaN, which JSON cannot contain."""
    trained = np.flatnonzero(split.training.lengths)
    row_E, item_E = seen_items(split.training, trained)
    # A user counts once for an item, however often the item occurs in the history.
    pairs = np.unique(row_E * (data.num_items + 1) + item_E)
    users_V = np.bincount(pairs % (data.num_items + 1), minlength=data.num_items + 1)
    measures = {
        "coverage": coverage(lists_BK, int(split.known_V.sum())),
        **popularity(lists_BK, split.test.histories, counts_V),
        "novelty": novelty(lists_BK, users_V, len(trained)),
    }
    if data.catalogue.groups is not None:
        # An item without a group gets the group number 0, and is then removed from the lists: no pair contains it.
        numbers = data.catalogue.groups.rank("dense").fill_null(0).cast(int).to_numpy()
        groups_V = np.concatenate([np.zeros(1, np.int64), numbers])
        measures["diversity"] = intra_list_diversity(np.where(groups_V[lists_BK] > 0, lists_BK, 0), groups_V)
    return {name: None if math.isnan(value) else value for name, value in measures.items()}


def _slices(
    ranks: dict[str, npt.NDArray[np.float64]],
    names: tuple[str, str],
    data: Dataset,
    part: EvaluationSplit,
    counts_V: Items,
) -> dict[str, dict[str, Any]]:
    """Return the entry "slices" of `details_on_test`: the metrics of the model and of the best baseline by slice.

    `names`: of the two.

    A slice contains the same rows for both scorers, so each slice has "rows", "from" and "to" only once.
    """
    gaps = None if data.times is None else data.times[part.events] - data.times[part.events - 1]
    by_scorer = {name: slices(ranks[name], part.histories.lengths, part.targets, counts_V, gaps) for name in names}
    return {
        name: {key: whole[key] for key in ("rows", "from", "to")}
        | {scorer: {key: of[name][key] for key in ("ndcg@10", "hr@10")} for scorer, of in by_scorer.items()}
        for name, whole in by_scorer[names[0]].items()
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
    """Divide the sorted values into three parts of about equal weight; return the part of each value.

    Part 0 has the lowest values, part 2 the highest. Equal values are all in the same part, the one that contains
    the middle of their joint weight.
    """
    _, equals = np.unique(values, return_inverse=True)
    weight_of_equals = np.bincount(equals, weights=weights)
    middle = np.cumsum(weight_of_equals) - weight_of_equals / 2
    # max() guards against a total weight of 0; min() keeps a middle at the very end in the last third.
    thirds: Items = np.minimum(2, 3 * middle // max(weights.sum(), 1)).astype(np.int64)[equals]
    return thirds


def _mean_of_row_means(values_BK: npt.NDArray[np.float64], filled_BK: npt.NDArray[np.bool_]) -> float:
    """The mean over rows of the mean over a row's filled places; NaN if no row has filled places.

    Rows without filled places are ignored.
    """
    count_B = filled_BK.sum(1)
    some = count_B > 0
    means = (values_BK * filled_BK).sum(1)[some] / count_B[some]
    return float(np.mean(means)) if len(means) else float("nan")
