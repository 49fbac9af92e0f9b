"""Rank by an exported ONNX graph, with onnxruntime and without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sasrec.data.histories import Histories
from sasrec.errors import ConfigError, DataError, EvaluationError
from sasrec.ranking.selection import Best, Block, Selection, best_of_rows

if TYPE_CHECKING:
    from torch import Tensor

# A block has at most this many rows, scores (16 MB in fp32), positions and excluded items.
_ROWS, _SCORES, _POSITIONS, _EXCLUDED = 256, 2**22, 2**13, 2**22


class GraphScorer:
    """Finds the best items by a graph that `export_onnx` wrote. See `Ranker` and `Scorer`."""

    def __init__(
        self, path: Path, vectors: Path, *, num_items: int, maxlen: int, timed: bool, threads: int
    ) -> None:
        """`path`: the graph. `vectors`: (V, D) item embeddings of length 1, for similar items.

        `threads`: how many threads compute one request.

        Raises: ConfigError if onnxruntime is missing. Remedy: install it. DataError if it cannot read the graph.
        Remedy: export the run again.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError('an ONNX export needs onnxruntime: pip install "sasrec[onnx]".') from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            raise DataError(
                f"{path} cannot be read: {str(error).splitlines()[0]}. Export the run again."
            ) from None
        self.num_items, self.maxlen, self.timed = num_items, maxlen, timed
        # Opened now, because the export may be replaced while it is served.
        self._vectors: npt.NDArray[np.float32] = np.load(vectors, mmap_mode="r", allow_pickle=False)

    def top(self, histories: Histories, k: int, *, exclude_seen: bool, selection: Selection) -> Iterator[Block]:
        """Yield the k best items of all rows, block by block. See `candidates.top_items`.

        Raises: EvaluationError if a score is NaN. Remedy: export another checkpoint.
        """
        fixed = np.zeros(0, np.int64) if selection.allowed_V is None else np.flatnonzero(~selection.allowed_V)
        for rows in self._blocks(histories, len(fixed)):
            hidden = [] if selection.by_row is None else list(selection.by_row.forbidden(rows))
            inputs = self._inputs(histories, rows, exclude_seen) | {
                "excluded": _excluded(len(rows), fixed, hidden)
            }

            def best(some: npt.NDArray[np.int64], most: int, inputs: dict[str, Any] = inputs) -> Best:
                chosen = {name: value[some] if value.ndim else value for name, value in inputs.items()}
                return self._run(chosen, most)

            yield rows, *best_of_rows(best, len(rows), min(k, self.num_items), self.num_items, selection.by_row)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV, for evaluation. See `Scorer.scores`."""
        import torch

        inputs = self._inputs(histories, rows, exclude_seen=False)
        items_BK, scores_BK = self._run(inputs | {"excluded": np.zeros((len(rows), 0), np.int64)}, self.num_items)
        scores_BV = np.full((len(rows), self.num_items + 1), -np.inf, np.float32)
        np.put_along_axis(scores_BV, items_BK, scores_BK, axis=1)
        return torch.from_numpy(scores_BV)

    def item_scores(self, histories: Histories, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the scores of some items for each history, (rows, items)."""
        distinct, place = np.unique(items, return_inverse=True)
        only = Selection(np.isin(np.arange(self.num_items + 1), distinct))
        found = np.zeros((len(histories), len(distinct)), np.float32)
        for rows, items_BK, scores_BK in self.top(histories, len(distinct), exclude_seen=False, selection=only):
            found[rows[:, None], np.searchsorted(distinct, items_BK)] = scores_BK
        return found[:, place]

    def vectors(self) -> npt.NDArray[np.float32]:
        """Return the item embeddings at length 1, (V, D)."""
        return self._vectors

    def _run(self, inputs: dict[str, Any], k: int) -> Best:
        scores_BK, items_BK = self._session.run(None, inputs | {"k": np.array(k)})
        if np.isnan(scores_BK[:, :1]).any():
            raise EvaluationError(
                "the model gives NaN scores, because its weights diverged. Export another checkpoint."
            )
        return items_BK, scores_BK

    def _inputs(
        self, histories: Histories, rows: npt.NDArray[np.int64], exclude_seen: bool
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of the graph but `k` and `excluded`: right-padded histories."""
        lengths = histories.lengths[rows]
        if not exclude_seen:  # the graph needs only what the model reads
            lengths = np.minimum(lengths, self.maxlen)
        column = np.arange(max(1, int(lengths.max(initial=0))))
        real = column < lengths[:, None]
        source = np.where(real, (histories.ends[rows] - lengths)[:, None] + column, 0)

        def padded(flat: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
            return np.where(real, flat[source] if len(flat) else 0, 0).astype(np.int64)

        inputs = {"history": padded(histories.items), "exclude_seen": np.array(exclude_seen)}
        if self.timed:
            ticks = np.zeros(0) if histories.ticks is None else histories.ticks
            inputs |= {"times": padded(ticks), "unit": np.ones(len(rows), np.int64)}  # ticks have their unit
        return inputs

    def _blocks(self, histories: Histories, excluded: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield rows of similar length, few enough for memory."""
        lengths = histories.lengths
        order = np.argsort(lengths, kind="stable")
        most = max(1, min(_ROWS, _SCORES // (self.num_items + 1), _EXCLUDED // max(1, excluded)))
        start = 0
        while start < len(order):
            rows = order[start : start + most]
            if (longest := int(lengths[rows[-1]])) * len(rows) > _POSITIONS:
                rows = rows[: max(1, _POSITIONS // longest)]
            start += len(rows)
            yield rows


def _excluded(
    rows: int,
    fixed: npt.NDArray[np.int64],
    hidden: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> npt.NDArray[np.int64]:
    """Return (rows, E) the items that each row must not get: `fixed` in all rows, and pairs of row and item."""
    row_E = np.concatenate([np.zeros(0, np.int64), *(each[0] for each in hidden)])
    item_E = np.concatenate([np.zeros(0, np.int64), *(each[1] for each in hidden)])
    counts = np.bincount(row_E, minlength=rows)
    order = np.argsort(row_E, kind="stable")
    own = np.zeros((rows, int(counts.max(initial=0))), np.int64)  # 0 is padding, which is excluded anyway
    own[np.arange(own.shape[1]) < counts[:, None]] = item_E[order]
    return np.concatenate([np.broadcast_to(fixed, (rows, len(fixed))), own], axis=1)
