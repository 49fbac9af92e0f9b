"""Export the model of a run as an ONNX graph that finds the best items of histories, and check it on histories.

Inputs, all int64 but one:

    history (B, L)      item numbers, oldest first, padded with 0 on the right; L is free
    times (B, L)        whole seconds, ascending; only of models with time
    unit (B,)           seconds of a time interval of 1; 0: the smallest gap of the history (batches/ticks.py)
    excluded (B, E)     items that must not be listed, padded with 0; E is free and may be 0
    k ()                how long the lists are, at most the number of items
    exclude_seen ()     bool: leave out the items of the history

Outputs: scores (B, k) and items (B, k), best first, of equal scores the smaller number first. Places without an
item have the score -inf.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sasrec.errors import ConfigError
from sasrec.models import SequenceModel

_MOST_BYTES = 2**30  # of weights in the graph itself; a file of this kind ends at 2 GB


class Graph(nn.Module):
    """A model with all that turns histories into lists. See the top of this file."""

    unknown_U: Tensor

    def __init__(self, model: SequenceModel, unknown_U: Tensor) -> None:
        """`unknown_U`: the numbers of items that are never listed."""
        super().__init__()
        self.model, self.maxlen, self.timed = model, model.config.maxlen, model.config.time
        self.register_buffer("unknown_U", unknown_U)

    def forward(
        self,
        history_BL: Tensor,
        excluded_BE: Tensor,
        k: int,
        exclude_seen: Tensor,
        times_BL: Tensor | None = None,
        unit_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores_BK and items_BK."""
        scores_BV = self.model.scores(self._last_states(history_BL, times_BL, unit_B))
        if len(self.unknown_U):
            scores_BV = scores_BV.index_fill(1, self.unknown_U, -torch.inf)
        seen_BL = torch.where(exclude_seen, history_BL, 0)
        hidden = torch.cat([seen_BL, excluded_BE], dim=1)
        return torch.topk(scores_BV.scatter(1, hidden, -torch.inf), k, dim=1)

    def _last_states(self, history_BL: Tensor, times_BL: Tensor | None, unit_B: Tensor | None) -> Tensor:
        """Return states_BD from the last `maxlen` items of each row."""
        length = history_BL.shape[1]
        lengths_B1 = (history_BL > 0).sum(1, keepdim=True)
        start_B1 = (lengths_B1 - self.maxlen).clamp(min=0)
        at_BW = start_B1 + torch.arange(torch.sym_min(length, self.maxlen))  # type: ignore[no-untyped-call]
        real_BW, source_BW = at_BW < lengths_B1, at_BW.clamp(max=length - 1)
        items_BW = history_BL.gather(1, source_BW) * real_BW
        read_B1 = lengths_B1 - start_B1
        positions_BW = (self.maxlen - lengths_B1 + at_BW + 1) * real_BW  # the last item has position maxlen
        ticks_BW = None
        if times_BL is not None and unit_B is not None:
            ticks_BW = _ticks(times_BL, lengths_B1, unit_B).gather(1, source_BW) * real_BW
        states_BWD: Tensor = self.model(items_BW, positions_BW, ticks_BW)
        last_B11 = (read_B1 - 1).clamp(min=0).unsqueeze(2)
        return states_BWD.gather(1, last_B11.expand(-1, 1, states_BWD.shape[2]))[:, 0]


def _ticks(times_BL: Tensor, lengths_B1: Tensor, unit_B: Tensor) -> Tensor:
    """Return the ticks of times in whole seconds, (B, L), by the formula of batches/ticks.py."""
    real_BL = torch.arange(times_BL.shape[1]) < lengths_B1
    gaps_BL = torch.cat([torch.zeros_like(times_BL[:, :1]), times_BL[:, 1:] - times_BL[:, :-1]], dim=1)
    most = torch.iinfo(torch.int64).max
    smallest_B1 = torch.where(real_BL & (gaps_BL > 0), gaps_BL, most).amin(1, keepdim=True)
    smallest_B1 = torch.where(smallest_B1 == most, 1, smallest_B1)
    unit_B1 = torch.where(unit_B.unsqueeze(1) > 0, unit_B.unsqueeze(1), smallest_B1)
    since_BL = times_BL - times_BL[:, :1]
    return (since_BL.double() / unit_B1.double()).round().long() + 1


def write_graph(model: SequenceModel, unknown_U: Tensor, path: Path) -> None:
    """Write the graph of a model on the CPU, in evaluation mode.

    Raises: ConfigError if a package is missing, or the model is an own one that has no graph. Remedy: as it says.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError('the export to ONNX needs onnx and onnxscript: pip install "sasrec[onnx]".') from None
    batch, length, excluded = (torch.export.Dim(name) for name in ("batch", "length", "excluded"))
    history_BL = torch.ones(3, 7, dtype=torch.int64)
    inputs: dict[str, tuple[Any, Any]] = {
        "history": (history_BL, {0: batch, 1: length}),
        "excluded": (torch.ones(3, 4, dtype=torch.int64), {0: batch, 1: excluded}),
        "k": (2, torch.export.Dim.DYNAMIC),
        "exclude_seen": (torch.tensor(True), None),
    }
    if model.config.time:
        inputs["times"] = history_BL.cumsum(1), {0: batch, 1: length}
        inputs["unit"] = torch.zeros(3, dtype=torch.int64), {0: batch}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names packages that a graph does not need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                Graph(model, unknown_U),
                tuple(value for value, _ in inputs.values()),
                dynamo=True,
                dynamic_shapes=tuple(shape for _, shape in inputs.values()),
                input_names=list(inputs),
                output_names=["scores", "items"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(
                f"{type(model).__name__} has no ONNX graph: {str(error).splitlines()[0]} Use operations that "
                "torch.onnx.export knows, or export without --format onnx."
            ) from None
    assert program is not None, "dynamo=True returns a program"
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    program.save(path, external_data=weights > _MOST_BYTES)
