"""The table of a report, and its slices, as values to show and to sort by."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from sasrec.runs.folder import metric_of
from sasrec.studies.report.curves import Curve
from sasrec.studies.report.results import Results, sides_of
from sasrec.studies.report.training_figures import MOST_NAMED, Line
from sasrec.studies.scored import Against, Side
from sasrec.studies.sentences import number, p_value


def note_on(results: Results) -> str:
    """Say what the columns of the table are."""
    if results.table is None:
        return "Means over targets. One user says nothing about others, so nothing was tested."
    base = results.table.first.runs[0]
    several = any(len(cell.runs) > 1 for cell in results.cells)
    adjusted = " and p is adjusted for their number (Holm)" if len(results.table.others) > 1 else ""
    return (
        f"{'Mean ± standard deviation over seeds. ' if several else ''}Differences in {results.metric.upper()} "
        f"are from {base}, on the same targets; intervals cover 95 %{adjusted}. Bold: the best mean. "
        "Grey: baselines."
    )


def table_of(results: Results, lines: Sequence[Line]) -> dict[str, Any]:
    """Return "head", the names of the columns, and "rows", each with its name, colour and cells."""
    by_name = {line.name: line for line in lines}
    first = results.metrics[str(results.cells[0].runs[0])]
    if results.table is None:
        names, sides = [results.metric], []
    else:
        names, sides = list(results.table.first.metrics), sides_of(results.table)
    p_is = "Holm's p" if len(sides) > 2 else "p"
    head = [
        "model",
        "seeds",
        *map(str.upper, names),
        "difference",
        "95 % interval",
        p_is,
        "parameters",
        "minutes",
        "best epoch",
    ]
    rows = []
    best = {name: max(side.metrics[name] for side, _ in sides) for name in names} if sides else {}
    for side, against in sides:
        line = by_name.get(side.runs[0])
        shown = line is not None and len(side.runs) == len(line.curves)
        rows.append(
            _row(
                side.runs[0],
                line,
                _means(side, best, seeds=line is not None)
                + _against(against)
                + _costs(line.curves if shown and line else ()),
            )
        )
    if results.table is None or len(results.cells) > 1:
        for name in first["baselines"]:
            values = [metric_of(first, f"baselines.{name}.{results.split}.full.{each}") for each in names]
            cells = [_cell(), *(_cell(number(value), value) for value in values), *[_cell()] * 6]
            rows.append(_row(name, None, cells))
    if results.table is None:
        value = results.side(results.best)[0]
        cells = [_cell("1", 1), _cell(number(value), value), *[_cell()] * 3, *_costs(lines[0].curves)]
        rows.insert(0, _row(results.best.name, lines[0], cells))
    return {"head": head, "rows": rows}


def _row(name: str, line: Line | None, cells: list[dict[str, Any]]) -> dict[str, Any]:
    coloured = line is not None and line.at < MOST_NAMED
    return {
        "name": name,
        "at": None if line is None else line.at,
        "colour": line.colour if coloured and line else "",
        "cells": cells,
    }


def _cell(text: str = "", value: float | str = "", *, best: bool = False) -> dict[str, Any]:
    return {"text": text, "value": value, "best": best}


def _means(side: Side, best: dict[str, float], *, seeds: bool) -> list[dict[str, Any]]:
    cells = [_cell(str(len(side.runs)), len(side.runs)) if seeds else _cell()]
    for name, value in side.metrics.items():
        spread = f" ± {number(side.spread[name])}" if side.spread else ""
        cells.append(_cell(number(value) + spread, value, best=value == best[name]))
    return cells


def _against(against: Against | None) -> list[dict[str, Any]]:
    if against is None:
        return [_cell("base"), _cell(), _cell()]
    change = against.difference
    interval = f"{number(change.low)} to {number(change.high)}"
    return [
        _cell(number(change.mean), change.mean),
        _cell(interval, change.low),
        _cell(p_value(against.adjusted_p), against.adjusted_p),
    ]


def _costs(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Parameters, minutes of training (mean), and the best epoch of each run."""
    sizes = [curve.parameters for curve in curves if curve.parameters is not None]
    minutes = [curve.seconds / 60 for curve in curves if curve.seconds is not None]
    epochs = [curve.best_epoch for curve in curves if curve.best_epoch is not None]
    return [
        _cell(f"{sizes[0]:,}", sizes[0]) if sizes else _cell(),
        _cell(_minutes(mean(minutes)), mean(minutes)) if minutes else _cell(),
        _cell(", ".join(map(str, epochs[:5])), epochs[0]) if epochs else _cell(),
    ]


def _minutes(minutes: float) -> str:
    """Minutes with one decimal; below one with two digits, so that a short training is not 0.0."""
    return f"{minutes:,.1f}" if minutes >= 1 else f"{minutes:.2g}"


class _Metrics(BaseModel):
    ndcg: Annotated[float, Field(alias="ndcg@10", ge=0, le=1, allow_inf_nan=False)]


def slices_of(results: Results) -> tuple[dict[str, dict[str, float]], dict[str, int], str]:
    """Return slice -> cell or baseline -> mean NDCG@10, slice -> its targets, and the name of the baseline.

    Only runs that were measured with details count. metrics.json may have been made by somebody else, so what is
    not a metric is left out.
    """
    values: dict[str, dict[str, list[float]]] = {}
    rows: dict[str, int] = {}
    baseline = ""
    for cell in results.cells:
        for run in cell.runs:
            details = results.metrics[str(run)].get("details")
            if not isinstance(details, dict) or not isinstance(details.get("slices"), dict):
                continue
            baseline = baseline or str(details.get("best_baseline"))
            for name, part in details["slices"].items():
                for scorer, side in (("model", cell.name), (baseline, baseline)):
                    try:
                        value = _Metrics.model_validate(part[scorer]).ndcg
                        rows[str(name)] = int(part["rows"])
                    except (ValidationError, KeyError, TypeError, ValueError):
                        continue
                    values.setdefault(str(name), {}).setdefault(side, []).append(value)
    return {name: {side: mean(each) for side, each in of.items()} for name, of in values.items()}, rows, baseline
