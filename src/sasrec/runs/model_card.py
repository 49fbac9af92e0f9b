"""The model card of an export: what the model was trained on, how well it was measured, and how to use it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from sasrec.config.settings import ModelConfig, RunConfig
from sasrec.errors import SasrecError, amount
from sasrec.evaluation.metrics import BLEND, MODEL, of_targets
from sasrec.evaluation.significance import Difference, paired_bootstrap
from sasrec.ranking.recommender import Recommender
from sasrec.runs.folder import RunFolder, best_baseline
from sasrec.runs.origin import CHOSEN_BY, REFRESHED_FROM
from sasrec.untrusted import parquet_of

_SHOWN = ("ndcg@10", "hr@10", "mrr")
_RESAMPLES = 2_000


def model_card(
    run: RunFolder,
    recommender: Recommender,
    config: RunConfig,
    state: dict[str, Any],
    serves: dict[str, Any] | None = None,
) -> str:
    """Return the card of a run's model as Markdown, without paths or names of users.

    `state`: that of the checkpoint. It names the run that chose the settings of a final fit (runs/final.py), or
    the run that a refresh began with (runs/refresh.py). `serves`: the baseline or the blend that the export
    serves instead of the model (`save_served`).
    """
    timed = config.model.time and (serves is None or "weight" in serves)  # baselines ignore times
    parts = [
        *_opening(recommender, config.model, serves),
        "## Data",
        *_data(recommender),
        "## How well it ranks",
        *_measured(run, state, serves),
        "## How to use it",
        _usage(timed),
        "## Limits",
        *_limits(recommender, config, timed),
    ]
    wrapped = (part if part.startswith(("#", "|", "```", "- ")) else textwrap.fill(part, 120) for part in parts)
    return "\n\n".join(wrapped) + "\n"


def _opening(recommender: Recommender, config: ModelConfig, serves: dict[str, Any] | None) -> Iterator[str]:
    """Yield the title, and what the folder serves."""
    model, items = f"{type(recommender.model).__name__}{residual(config)}", amount(len(recommender.items), "item")
    parameters = sum(each.numel() for each in recommender.model.parameters())
    reads = f"{parameters:,} parameters; it reads the last {config.maxlen} events of a history."
    by = f"Written by sasrec {version('sasrec')}."
    if serves is None:
        yield f"# {model}, {items}"
        yield (
            "A sequential recommender: it ranks the items of a catalogue by what is likely to come next in a "
            f"history. {reads} {by}"
        )
    elif weight := serves.get("weight"):
        yield f"# Blend of {model} and {serves['name']}, {items}"
        yield (
            f"This folder serves a blend of the model and a baseline: it adds the places of an item in two "
            f"rankings, with the weight {weight:g} of the model and {1 - weight:g} of the baseline "
            f"{serves['name']}. The model has {reads} {by}"
        )
    else:
        yield f"# {serves['name']}, {items}"
        yield (
            f"This folder serves the baseline {serves['name']}, and not the model of the run. The baseline counts "
            f"events of the training data; it has no trained weights. {by}"
        )


def residual(model: ModelConfig) -> str:
    """Return the residuals of a model in words; nothing for plain ones."""
    return " with mHC residuals" if model.mhc else " with gated residuals" if model.gated else ""


def _data(recommender: Recommender) -> Iterator[str]:
    data = recommender.data
    assert data is not None, "a run has data"
    report = data.report
    when = f", from {report['first_event']} to {report['last_event']} UTC" if report.get("first_event") else ""
    users, items = amount(data.num_users, "user"), amount(data.num_items, "item")
    yield (
        f"{amount(data.num_events, 'event')} of {users} with {items}{when}. Name "
        f"{data.name}, hash {data.data_hash[:12]}. This folder has the ids of the items, and no user and no event."
    )


def _measured(run: RunFolder, state: dict[str, Any], serves: dict[str, Any] | None) -> Iterator[str]:
    if serves is not None and ("weight" in serves or {REFRESHED_FROM, CHOSEN_BY} & state.keys()):
        name, named = serves["name"], f"baseline {serves['name']}"
        if "weight" in serves:
            name = named = BLEND
        yield (
            f"The {named} was not measured for this card. `sasrec evaluate RUN:{name}` measures it on the "
            "held-out events of a run, or on later events with --test."
        )
        return
    if before := state.get(REFRESHED_FROM):
        measured = ""
        if before["metrics"]:
            old, new = (before["metrics"][name]["ndcg@10"] for name in ("old", "new"))
            measured = (
                " Before, a model refreshed without the newest events was measured on these: NDCG@10 "
                f"{new:.4f}, against {old:.4f} of that run."
            )
        yield (
            "Nothing was measured with these weights, because they were trained on all events. They were "
            f"refreshed from the run {before['run']}.{measured}"
        )
        return
    if chosen_by := state.get(CHOSEN_BY):
        figures = chosen_by["metrics"].get("test") or chosen_by["metrics"].get("valid") or {}
        shown = ", ".join(f"{name.upper()} {figures[name]:.4f}" for name in _SHOWN if name in figures)
        yield (
            f"Nothing was measured with these weights, because they were trained on all events. The run "
            f"{chosen_by['run']} chose the settings and the number of epochs ({chosen_by['epoch']}); it held out "
            f"events under the split {chosen_by['split']}, and was measured on them: {shown or 'not at all'}."
        )
        return
    if not run.metrics_file.exists():
        yield "Nothing was measured."
        return
    metrics = run.metrics()
    split = "test" if "test" in metrics else "valid"
    card = metrics["protocol"]
    best, _ = best_baseline(metrics, f"{split}.full.ndcg@10")
    own, other = (MODEL, best) if serves is None else (serves["name"], MODEL)
    found = intervals(run, split, own)
    texts = {name: f"{max(each.low, 0.0):.4f} to {min(each.high, 1.0):.4f}" for name, each in found.items()}
    scorers = {MODEL: metrics, **metrics["baselines"]}
    lines = [f"| | {own} | 95 % interval | {other} |", "|---|---:|---:|---:|"]
    for metric in _SHOWN:
        values = [scorers[name][split]["full"][metric] for name in (own, other)]
        lines.append(f"| {metric.upper()} | {values[0]:.4f} | {texts.get(metric, '')} | {values[1]:.4f} |")
    yield "\n".join(lines)
    yield (
        f"On {'test' if split == 'test' else 'validation'}: {amount(card[split]['targets'], 'target')} of "
        f"{amount(card[split]['users'], 'user')}, ranked among {card['full']}; {card['seen']}. The split: "
        f"{card['split']}. The interval is over users. {best} is the best of the simple baselines by NDCG@10."
    )


def intervals(run: RunFolder, split: str, scorer: str) -> dict[str, Difference]:
    """Return some metrics with their 95 % intervals; {} if the ranks are missing or there are too few users."""
    try:
        rows = parquet_of(run.ranks_file).filter(pl.col("scorer") == scorer, pl.col("split") == split)
        users = rows["user"].rank("dense").to_numpy().astype(np.int64)
        ranks = rows["full"].cast(pl.Float64).to_numpy()
        return {name: paired_bootstrap(of_targets(ranks, name), users, _RESAMPLES) for name in _SHOWN}
    except (SasrecError, OSError, ValueError, pl.exceptions.PolarsError):
        return {}


def _usage(timed: bool) -> str:
    times = ", times=[SECONDS, …]" if timed else ""
    option = " --times SECONDS,SECONDS" if timed else ""
    return (
        f'```python\nimport sasrec\n\nmodel = sasrec.load("this-folder")\n'
        f"model.recommend([ITEM, ITEM, …], k=10{times})\n```\n\n"
        f"    sasrec recommend this-folder --history ITEM,ITEM{option}"
    )


def _limits(recommender: Recommender, config: RunConfig, timed: bool) -> Iterator[str]:
    known = recommender.known_items
    unknown = 0 if known is None else len(recommender.items) - int(known.sum())
    limits = ["Items that are newer than the data are unknown to it: they are neither read nor recommended."]
    if unknown:
        never = "Such items are never recommended."
        limits.append(f"{amount(unknown, 'item')} of the catalogue did not occur in training. {never}")
    if not config.evaluation.repeats:
        limits.append("It was not trained to recommend an item again that is in the history.")
    if timed:
        limits.append("It needs the times of the history.")
    limits.append(
        "What was measured is the next event of users like those of the data, in lists of up to 50 items. Other "
        "uses were not measured."
    )
    yield "\n".join(f"- {each}" for each in limits)
