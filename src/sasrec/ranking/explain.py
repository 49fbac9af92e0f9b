"""Why an item is recommended, and which items are alike.

A reason is measured, not read from attention weights, which need not say what decides (Jain & Wallace 2019): the
model scores the history again without one of its events, and the fall of the score is the effect of that event
(occlusion, Zeiler & Fergus 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec.data.histories import Histories
from sasrec.errors import ConfigError
from sasrec.ranking.selection import Learned


def effects(
    scorer: Learned | None,
    history: npt.NDArray[np.int64],
    ticks: npt.NDArray[np.int64] | None,
    items: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Return how much each event of a history raises the scores of items, (L, items), and each interval, or None.

    The effect of an event is the score of an item with the whole history, minus the score without the event. The
    effect of an interval, before each event but the first, is the score minus that with both events at the same
    time. All variants are scored in one pass. A model reads the last `maxlen` events; L is at most this.

    `scorer`: the model; None for a baseline. `history`: item numbers, oldest first. `ticks`: their times
    (batches/ticks.py), for models with time.

    Raises: ConfigError for a baseline. Remedy: load the run itself.
    """
    if scorer is None:  # places of items move with each event of a history, whether it speaks for the item or not
        raise ConfigError("reasons are of the model, not of a baseline. Use RUN without the baseline's name.")
    maxlen = scorer.maxlen
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
    scores = scorer.item_scores(histories, items)
    of_events = scores[0] - scores[1 : length + 1]
    if ticks is None:
        return of_events, None
    return of_events, np.concatenate([np.full_like(scores[:1], np.nan), scores[0] - scores[length + 1 :]])


def nearest(
    vectors_VD: npt.NDArray[np.float32], item: int, k: int, allowed_V: npt.NDArray[np.bool_] | None
) -> list[tuple[int, float]]:
    """Return the k items with the largest cosine with `item`, as (number, cosine); ties in order of number.

    `vectors_VD`: item embeddings of length 1.
    """
    cosines_V = vectors_VD @ vectors_VD[item]
    cosines_V[[0, item]] = -np.inf
    if allowed_V is not None:
        cosines_V[~allowed_V] = -np.inf
    cosines_V[np.isnan(cosines_V)] = -np.inf
    k = min(k, len(cosines_V) - 1)
    candidates = np.flatnonzero(cosines_V >= np.partition(cosines_V, -k)[-k])
    best = candidates[np.argsort(-cosines_V[candidates], kind="stable")[:k]]
    return [(int(number), float(cosines_V[number])) for number in best if np.isfinite(cosines_V[number])]
