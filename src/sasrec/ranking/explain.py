"""Why an item is recommended, and which items are alike.

A reason is measured, not read from attention weights, which need not say what decides (Jain & Wallace 2019): the
model scores the history again without one of its events, and the fall of the score is the effect of that event
(occlusion, Zeiler & Fergus 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sasrec.data.histories import Histories
from sasrec.errors import ConfigError
from sasrec.models import SequenceModel
from sasrec.ranking.candidates import highest
from sasrec.ranking.scorers import ModelScorer


def effects(
    scorer: ModelScorer | None, history: npt.NDArray[np.int64], ticks: npt.NDArray[np.int64] | None, item: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Return how much each event of a history raises the score of an item, (L,), and each interval, (L,) or None.

    The effect of an event is the score of `item` with the whole history, minus the score without the event. The
    effect of an interval, before each event but the first, is the score minus that with both events at the same
    time. All variants are scored in one pass. A model reads the last `maxlen` events; L is at most this.

    `scorer`: the model; None for a baseline. `history`: item numbers, oldest first. `ticks`: their times
    (batches/ticks.py), for models with time.

    Raises: ConfigError for a baseline. Remedy: load the run itself.
    """
    if scorer is None:  # places of items move with each event of a history, whether it speaks for the item or not
        raise ConfigError("reasons are of the model, not of a baseline. Use RUN without the baseline's name.")
    maxlen = scorer.model.config.maxlen
    history = history[-maxlen:]
    ticks = None if ticks is None else ticks[-maxlen:]
    length = len(history)
    kept = np.stack([np.delete(np.arange(length), at) for at in range(length)]).reshape(length, length - 1)
    variants = [np.arange(length), *kept]
    times = None if ticks is None else [ticks, *(ticks[each] for each in kept)]
    if times is not None and ticks is not None:
        for at in range(1, length):
            gap = ticks[at] - ticks[at - 1]
            variants.append(np.arange(length))
            times.append(np.where(np.arange(length) >= at, ticks - gap, ticks))
    ends = np.cumsum([len(each) for each in variants])
    histories = Histories(
        np.concatenate([history[each] for each in variants]).astype(np.int32),
        None if times is None else np.concatenate(times),
        np.concatenate([[0], ends[:-1]]),
        ends,
    )
    scores = _scores_of(scorer, histories, item)
    of_events = scores[0] - scores[1 : length + 1]
    if ticks is None:
        return of_events, None
    return of_events, np.concatenate([[np.float32(np.nan)], scores[0] - scores[length + 1 :]])


@torch.no_grad()
def _scores_of(scorer: ModelScorer, histories: Histories, item: int) -> npt.NDArray[np.float32]:
    """Return the score of one item for each history, (rows,)."""
    rows = np.arange(len(histories))
    return (scorer.states(histories, rows) @ scorer.model.item_embedding.weight[item]).float().cpu().numpy()


@torch.no_grad()
def nearest(
    model: SequenceModel, item: int, k: int, allowed_V: npt.NDArray[np.bool_] | None
) -> list[tuple[int, float]]:
    """Return the k items whose embeddings have the largest cosine with that of `item`, as (number, cosine)."""
    vectors_VD = torch.nn.functional.normalize(model.item_embedding.weight.float(), dim=1)
    cosines_V = vectors_VD @ vectors_VD[item]
    cosines_V[[0, item]] = -torch.inf
    if allowed_V is not None:
        cosines_V.masked_fill_(torch.from_numpy(~allowed_V).to(cosines_V.device), -torch.inf)
    cosines_V.masked_fill_(cosines_V.isnan(), -torch.inf)
    best_1K, items_1K = highest(cosines_V.unsqueeze(0), min(k, model.num_items))
    pairs = zip(items_1K[0].tolist(), best_1K[0].tolist(), strict=True)
    return [(number, cosine) for number, cosine in pairs if np.isfinite(cosine)]
