"""What NDCG does not say: what is recommended, coverage to diversity, and for whom it works."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.evaluation.baselines import event_counts
from sasrec.evaluation.lists import coverage, intra_list_diversity, novelty, popularity, slices
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.ranking.candidates import candidate_scores, own_chunks, seen_items, summed
from sasrec.ranking.scorers import Scorer
from sasrec.runtime.log import RunLog

LENGTH = 10


def details_on_test(
    scorers: dict[str, Scorer],
    ranks: dict[str, npt.NDArray[np.float64]],
    data: Dataset,
    split: Split,
    log: RunLog,
) -> dict[str, Any]:
    """{"lists": {"model" | "popularity": measures of its ten best}, "best_baseline": its name,
    "slices": {slice: {"rows", "from", "to", "model": {"ndcg@10", "hr@10"}, the best baseline: …}}}.

    All on test, full catalogue, for the histories before the targets. `ranks`: (rows,) of the test targets by
    scorer; the best baseline is the one with the best NDCG@10. `diversity` is there if the items have groups; None
    is a mean over nothing.
    """
    part, counts_V = split.test, event_counts(split.training, data.num_items)
    measured = {}
    for name in ("model", "popularity"):
        with log.bar(f"{name}, lists", len(part.targets)) as bar:
            lists_BK = best_items(scorers[name], part, bar)
        measured[name] = _of_lists(lists_BK, data, split, counts_V)
    scores = {name: metrics_from_ranks(each, (LENGTH,))["ndcg@10"] for name, each in ranks.items()}
    scores.pop("model")
    best = max(scores, key=lambda name: scores[name])
    return {"lists": measured, "best_baseline": best, "slices": _slices(ranks, best, data, part, counts_V)}


def best_items(scorer: Scorer, part: EvaluationSplit, advance: Any = lambda rows: None) -> npt.NDArray[np.int64]:
    """(rows, 10) item numbers as `recommend` gives them before the targets, best first; 0 where none is left."""
    lists_BK = np.zeros((len(part.targets), min(LENGTH, scorer.num_items)))
    known_V = torch.from_numpy(part.known_V)
    for rows in own_chunks(part.histories, scorer.num_items):
        best = candidate_scores(scorer, part.histories, rows, allowed_V=known_V).topk(lists_BK.shape[1], dim=1)
        lists_BK[rows] = torch.where(best.values.isfinite(), best.indices, 0).cpu().numpy()
        advance(len(rows))
    return summed(lists_BK).astype(np.int64)  # a rank left the others' rows at 0


def _of_lists(
    lists_BK: npt.NDArray[np.int64], data: Dataset, split: Split, counts_V: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    trained = np.flatnonzero(split.training.lengths)
    row_E, item_E = seen_items(split.training, trained)
    pairs = np.unique(row_E * (data.num_items + 1) + item_E)
    users_V = np.bincount(pairs % (data.num_items + 1), minlength=data.num_items + 1)
    found = {
        "coverage": coverage(lists_BK, int(split.known_V.sum())),
        **popularity(lists_BK, split.test.histories, counts_V),
        "novelty": novelty(lists_BK, users_V, len(trained)),
    }
    if data.catalogue.groups is not None:
        # A null, which is an item without a group, becomes 0; such items count in no pair.
        numbers = data.catalogue.groups.rank("dense").fill_null(0).cast(int).to_numpy()
        groups_V = np.concatenate([np.zeros(1, np.int64), numbers])
        found["diversity"] = intra_list_diversity(np.where(groups_V[lists_BK] > 0, lists_BK, 0), groups_V)
    return {name: None if math.isnan(value) else value for name, value in found.items()}  # JSON has no NaN


def _slices(
    ranks: dict[str, npt.NDArray[np.float64]],
    best: str,
    data: Dataset,
    part: EvaluationSplit,
    counts_V: npt.NDArray[np.int64],
) -> dict[str, dict[str, Any]]:
    gaps = None if data.times is None else data.times[part.events] - data.times[part.events - 1]
    both = {
        name: slices(ranks[name], part.histories.lengths, part.targets, counts_V, gaps) for name in ("model", best)
    }
    return {
        name: {key: whole[key] for key in ("rows", "from", "to")}
        | {scorer: {key: of[name][key] for key in ("ndcg@10", "hr@10")} for scorer, of in both.items()}
        for name, whole in both["model"].items()
    }
