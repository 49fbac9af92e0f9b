"""Ranks -> NDCG, HR and MRR.

The rank of a target is 1 + the number of candidates with a higher score + half the number that tie with it,
so that a model that scores all items equally gets the middle rank, not the first or the last.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.errors import ConfigError, amount

CUTOFFS = (1, 5, 10, 20, 50)
# The protocol card contains these texts.
DEFINITIONS = {
    "ndcg@k": "1 / log2(1 + rank) if rank <= k, else 0",
    "hr@k": "1 if rank <= k, else 0",
    "mrr@k": "1 / rank if rank <= k, else 0",
    "mrr": "1 / rank",
    "mean": "over targets, which weigh alike",
}
METRICS = (*(f"{name}@{k}" for name in ("ndcg", "hr", "mrr") for k in CUTOFFS), "mrr")


_SHOWN = ("ndcg@10", "hr@10", "mrr@10", "ndcg@20", "hr@20")
MODEL, BLEND = "model", "blend"
"""The names of the model and of the blend of a run, beside those of the baselines. RUN:blend names the blend."""
SCORER = "scorer"
"""Key of the name of the measured scorer, if this is not the model."""


def measured_name(metrics: Mapping[str, Any]) -> str:
    """Return the name of the scorer that was measured: "model", "blend" or the name of a baseline."""
    return str(metrics.get(SCORER, MODEL))


class Metrics(dict[str, Any]):
    """The metrics of a run, which `evaluate` returns and RUN/metrics.json contains. A notebook shows them as a
    table.

    docs/reference/metrics.md defines the metrics. For example, metrics["test"]["full"]["ndcg@10"] is NDCG@10 on
    test in the full catalogue. `Metrics` is a dictionary with these entries:

        "valid", "test"     {"full": {"ndcg@10": …}, "sampled": {…}}, by the candidates of a target
        "baselines"         {NAME: {"valid": …, "test": …}}
        "protocol"          how the figures were measured (evaluation/card.py)
        "details"           if requested (evaluation/lists.py)
        "whole_period"      if requested (evaluation/whole_period.py)
        "scorer"            for RUN:NAME, the name of the baseline, or "blend"
    """

    ranks: pl.DataFrame | None = None
    """The rank of each target (evaluation/measure.py); None if RUN/ranks.parquet has the ranks."""
    users: pl.DataFrame | None = None
    """With `whole_period`, the values of each user: scorer, split, user, relevant, and a column for each metric.
    """

    def frame(self) -> pl.DataFrame:
        """Return the metrics of validation and test as a frame, with one value in each row.

        The columns are `split`, `scorer` (model, blend or the name of a baseline), `candidates`, `metric` and
        `value`. The entry "details" is left out.
        """
        columns = dict.fromkeys(("split", "scorer", "candidates", "metric"), pl.String)
        return pl.DataFrame(list(self._rows()), schema=columns | {"value": pl.Float64}, orient="row")

    def _rows(self) -> Iterator[tuple[str, str, str, str, float]]:
        for split in ("valid", "test"):
            scorers = {measured_name(self): self, **self.get("baselines", {})} if split in self else {}
            for scorer, measured in scorers.items():
                for candidates, values in measured[split].items():
                    for metric, value in values.items():
                        yield split, scorer, candidates, metric, value

    def __repr__(self) -> str:
        figures = [
            f"{split} NDCG@10 {self[split]['full']['ndcg@10']:.4f}, HR@10 {self[split]['full']['hr@10']:.4f}"
            for split in ("valid", "test")
            if split in self
        ]
        return f"<Metrics, full catalogue: {'; '.join(figures) or 'nobody has a target'}>"

    def _repr_html_(self) -> str:
        """Return the full-catalogue metrics of the model and the baselines as HTML tables, for notebooks."""
        heading = "".join(f"<th>{metric.upper()}</th>" for metric in _SHOWN)
        tables = []
        for split in [name for name in ("test", "valid") if name in self]:
            scorers = {measured_name(self): self, **self.get("baselines", {})}
            rows = "".join(
                f"<tr><th>{html.escape(scorer)}</th>"
                + "".join(f"<td>{measured[split]['full'][metric]:.4f}</td>" for metric in _SHOWN)
                + "</tr>"
                for scorer, measured in scorers.items()
            )
            tables.append(
                f"<table><caption>{html.escape(self._caption(split))}</caption>"
                f"<thead><tr><th></th>{heading}</tr></thead><tbody>{rows}</tbody></table>"
            )
        return "".join(tables) or html.escape(repr(self))

    def _caption(self, split: str) -> str:
        card = self.get("protocol", {})
        counts = card.get(split, {})
        parts = [f"{split}, full catalogue"]
        if counts:
            parts.append(f"{amount(counts['targets'], 'target')} of {amount(counts['users'], 'user')}")
        if "data" in card:
            parts.append(f"{str(card['split']).partition(':')[0]}, data {card['data']}")
        return "; ".join(parts)


def metric_named(text: str) -> str:
    """Return the name of a metric at any cut-off, such as ndcg@3, as metrics.json spells it. recall@k means hr@k.

    Each target is ranked alone, so the recall of a target is 1 or 0 and equals HR.

    Raises: ConfigError if the name is unknown. Remedy: use a name that the message lists.
    """
    found = re.fullmatch(r"(ndcg|hr|mrr|recall)@([1-9][0-9]{0,8})", text.lower())
    if found:
        return f"{'hr' if found[1] == 'recall' else found[1]}@{found[2]}"
    if text.lower() == "mrr":
        return "mrr"
    raise ConfigError(
        f"unknown metric {text!r}. Choose one of: ndcg@K, hr@K, recall@K (equal to hr@K) and mrr@K, where K is a "
        "whole number such as 10; or mrr."
    )


def metrics_from_ranks(ranks: npt.NDArray[np.float64], cutoffs: tuple[int, ...] = CUTOFFS) -> dict[str, float]:
    """Means over targets, with equal weights: `ndcg@k`, `hr@k` and `mrr@k` per cut-off, and `mrr` without cut-off.

    `ranks`: (targets,) from 1, halves allowed. A hit is rank <= k; NDCG of a hit is 1 / log2(1 + rank), as the
    ideal ranking has the one target first.
    """
    names = [f"{name}@{k}" for name in ("ndcg", "hr", "mrr") for k in cutoffs]
    return {metric: float(np.mean(of_targets(ranks, metric))) for metric in (*names, "mrr")}


def of_targets(ranks: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """Return the value of the metric for each target, (targets,). `metrics_from_ranks` returns its mean."""
    name, _, k = metric.partition("@")
    hit = ranks <= (float(k) if k else np.inf)
    if name == "hr":
        return hit.astype(np.float64)
    gain: npt.NDArray[np.float64] = 1 / np.log2(1 + ranks) if name == "ndcg" else 1 / ranks
    return gain * hit
