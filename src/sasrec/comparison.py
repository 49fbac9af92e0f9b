"""Runs beside one another: is the difference between them more than chance?

Nothing is measured again: each run has kept the rank of every target (RUN/ranks.parquet) and the protocol card of
its figures (RUN/metrics.json).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config import RunConfig
from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.card import Candidates, differences
from sasrec.evaluation.metrics import METRICS, of_targets
from sasrec.evaluation.significance import Difference, holm, paired_bootstrap, seed_noise
from sasrec.trained import METRICS as METRICS_FILE
from sasrec.trained import RANKS, saved_metrics

LEVEL = 0.05
# Settings by which no weight changes: runs that differ in these and the seed alone are seeds of one model.
_NO_WEIGHT = ("device", "save_minutes", "detect_anomaly", "show_shapes", "tensorboard", "diagnose_every")


@dataclass(frozen=True)
class Side:
    """A model, or a baseline, among those compared."""

    name: str
    runs: tuple[str, ...]
    """Its runs, as they were named: more than one where they differ in nothing but the seed."""
    metrics: dict[str, float]
    """Means over targets, and over runs."""


@dataclass(frozen=True)
class Against:
    """A side against the first one."""

    side: Side
    difference: Difference
    """Of the metric: this side minus the first."""
    adjusted_p: float
    """The p-value, adjusted for the number of comparisons (Holm)."""
    verdict: Literal["better", "worse", "no difference"]
    """By `adjusted_p` and a level of 5 %."""
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    metric: str
    candidates: Candidates
    split: SplitName
    first: Side
    others: tuple[Against, ...]
    notes: tuple[str, ...]
    """What to bear in mind when reading the figures."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """One scorer of one run."""

    name: str
    seed: int | None
    """None for a baseline, which has none."""
    settings: str
    """Equal for runs of one model."""
    protocol: dict[str, Any]
    rows: pl.DataFrame
    """In order of event."""


def compare(
    runs: Sequence[str | Path],
    *,
    metric: str = "ndcg@10",
    candidates: Candidates = "full",
    split: SplitName = "test",
    resamples: int = 10_000,
) -> Comparison:
    """Compare each run with the first, on the same targets.

    `runs`: folders, or "RUN:BASELINE" for a baseline that was measured with the run, as in "runs/a:popularity";
    the beginning of its name will do. Runs whose settings differ in nothing but the seed are one side, of which
    the means over runs are compared. The interval (95 %) and p-value are of `paired_bootstrap` over users and,
    where a side has several runs, over seeds; docs/evaluation.md says how to read them.

    Raises: ConfigError for what cannot be asked; EvaluationError naming the fields of the protocol card that
    differ, or a run without ranks.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}; the metrics are: {', '.join(METRICS)}")
    if resamples < 100:
        raise ConfigError(f"resamples must be at least 100, not {resamples}")
    names = [str(run) for run in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            "name two runs or more to compare, each once (RUN, or RUN:BASELINE such as RUN:popularity)"
        )
    scored = [_scored(name, candidates, split) for name in names]
    for other in scored[1:]:
        _check_alike(scored[0], other, candidates)
    models, of = _models(scored), _Of(candidates, metric)
    # Of one model alone, the runs are what there is to compare.
    groups = models if len(models) > 1 else [[each] for each in scored]
    sides = [of.side(group) for group in groups]
    found = [_difference(groups[0], group, models, of, resamples) for group in groups[1:]]
    adjusted = holm([each.p_value for each in found]).tolist()
    against = [
        _against(sides[0], side, difference, p, metric, "p" if len(found) == 1 else "Holm's p")
        for side, difference, p in zip(sides[1:], found, adjusted, strict=True)
    ]
    return Comparison(metric, candidates, split, sides[0], tuple(against), _notes(models))


def _scored(name: str, candidates: Candidates, split: SplitName) -> _Scored:
    folder, asked = Path(name), "model"
    if not (folder / METRICS_FILE).exists() and ":" in name:
        run, _, asked = name.rpartition(":")
        folder = Path(run)
    if not (folder / METRICS_FILE).exists():
        raise ConfigError(f"{folder} has no {METRICS_FILE}: name a run (`sasrec train` made it), or RUN:BASELINE")
    again = f"measure it again: sasrec evaluate {folder}"
    if not (folder / RANKS).exists():
        raise EvaluationError(f"{folder} was measured by a version that kept no ranks: {again}")
    try:
        metrics, frame = saved_metrics(folder), pl.read_parquet(folder / RANKS)
    except (ValueError, pl.exceptions.PolarsError):
        raise EvaluationError(f"{folder}/{METRICS_FILE} or {RANKS} is damaged: {again}") from None
    known = ["model", *metrics["baselines"]]
    chosen = [scorer for scorer in known if scorer == asked] or [s for s in known if s.startswith(asked)]
    if len(chosen) != 1:
        raise ConfigError(f"{folder} has no scorer {asked!r}; it has: {', '.join(known)}")
    (scorer,) = chosen
    rows = frame.filter(pl.col("scorer") == scorer, pl.col("split") == split).sort("event")
    kept = (metrics if scorer == "model" else metrics["baselines"][scorer])[split][candidates]["mrr"]
    if abs(float(np.mean(of_targets(_ranks(rows, candidates), "mrr"))) - kept) > 1e-9:
        raise EvaluationError(f"{folder}/{RANKS} and {METRICS_FILE} are not of one measurement: {again}")
    config = RunConfig.load(folder / "config.toml")
    fitted = scorer == "model"
    settings = _settings(config) if fitted else name
    return _Scored(name, config.training.seed if fitted else None, settings, metrics["protocol"], rows)


def _settings(config: RunConfig) -> str:
    """What decides the weights, but for the data, whose hash is in the card, and the seed."""
    parts = dataclasses.asdict(config)
    training = {name: value for name, value in parts["training"].items() if name not in ("seed", *_NO_WEIGHT)}
    return json.dumps([parts["model"], parts["loss"], training, parts["evaluation"]])


def _check_alike(first: _Scored, other: _Scored, candidates: Candidates) -> None:
    if differing := differences(first.protocol, other.protocol, candidates):
        raise EvaluationError(
            f"{first.name} and {other.name} were not measured alike, and cannot be compared: "
            f"they differ in {'; '.join(differing)}"
        )
    if not all(
        first.rows[key].cast(pl.String).equals(other.rows[key].cast(pl.String)) for key in ("user", "event")
    ):
        raise EvaluationError(f"{first.name} and {other.name} were measured on other targets: measure both again")


def _models(scored: list[_Scored]) -> list[list[_Scored]]:
    """Runs of one model together, in order of the first of each."""
    models: dict[str, list[_Scored]] = {}
    for each in scored:
        model = models.setdefault(each.settings, [])
        if twice := [run.name for run in model if run.seed == each.seed and run.rows.equals(each.rows)]:
            raise ConfigError(
                f"{twice[0]} and {each.name} have the same settings, seed and ranks: name one of them"
            )
        model.append(each)
    return list(models.values())


def _ranks(rows: pl.DataFrame, candidates: Candidates) -> npt.NDArray[np.float64]:
    return rows[candidates].cast(pl.Float64).to_numpy()


@dataclass(frozen=True)
class _Of:
    """Which figures are looked at."""

    candidates: Candidates
    metric: str

    def runs(self, group: list[_Scored], metric: str | None = None) -> npt.NDArray[np.float64]:
        """(runs, rows)"""
        return np.stack([of_targets(_ranks(each.rows, self.candidates), metric or self.metric) for each in group])

    def side(self, group: list[_Scored]) -> Side:
        shown = dict.fromkeys((self.metric, "ndcg@10", "hr@10"))
        name = group[0].name + (f" ({len(group)} seeds)" if len(group) > 1 else "")
        means = {metric: float(self.runs(group, metric).mean()) for metric in shown}
        return Side(name, tuple(each.name for each in group), means)


def _difference(
    first: list[_Scored], other: list[_Scored], models: list[list[_Scored]], of: _Of, resamples: int
) -> Difference:
    fitted = [side for side in (first, other) if side[0].seed is not None]
    estimated = [model for model in models if any(run in side for side in fitted for run in model)]
    means = [of.runs(model).mean(1).tolist() for model in estimated]
    users = first[0].rows["user"].rank("dense").to_numpy().astype(np.int64)
    differences = of.runs(other).mean(0) - of.runs(first).mean(0)
    return paired_bootstrap(differences, users, resamples, noise=seed_noise(means, [len(side) for side in fitted]))


def _against(
    first: Side, side: Side, difference: Difference, adjusted_p: float, metric: str, p_is: str
) -> Against:
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    said = f"no difference can be told between {side.name} and {first.name}"
    if adjusted_p <= LEVEL:
        verdict = "better" if difference.mean > 0 else "worse"
        said = f"{side.name} is {verdict} than {first.name}"
    figures = (
        f"{metric.upper()} {number(side.metrics[metric])} against {number(first.metrics[metric])}, difference "
        f"{number(difference.mean)} (95 % interval {number(difference.low)} to {number(difference.high)}, "
        f"{p_is} {p_value(adjusted_p)})"
    )
    return Against(side, difference, adjusted_p, verdict, f"{said}: {figures}")


def number(value: float) -> str:
    """Four decimals, without the zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def p_value(p: float) -> str:
    """Three decimals, without the zero before the point."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _notes(models: list[list[_Scored]]) -> tuple[str, ...]:
    notes = []
    fitted = [model for model in models if model[0].seed is not None]
    if len(models) == 1:
        notes.append(
            "these runs differ in nothing but the seed, so their spread is the seed's: it is in the intervals"
        )
    elif fitted and all(len(model) == 1 for model in fitted):
        notes.append(
            "the intervals are of the users' chance alone: what another seed would give is not in them; "
            "train with other seeds too, and name those runs as well"
        )
    versions = sorted({each.protocol["sasrec"] for model in models for each in model})
    if len(versions) > 1:
        notes.append(f"measured by different versions of sasrec: {', '.join(versions)}")
    return tuple(notes)
