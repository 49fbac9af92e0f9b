"""The figures on training: curves, and the metric against what it costs. Lines have their names beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

from sasrec.studies.report.curves import Curve
from sasrec.studies.report.svg import QUIET
from sasrec.untrusted import visible

# Okabe & Ito 2008: colours that colour-blind readers can tell apart; without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_NAMED = 12
_LONGEST = 26
_WIDE_RANGE = 20.0  # losses of different functions differ by this and need a logarithmic axis


@dataclass(frozen=True)
class Line:
    """The curves of one cell, one for each seed."""

    name: str
    curves: tuple[Curve, ...]
    at: int
    """The place of the cell, which decides its colour; more than MOST_NAMED are grey and without a name."""

    @property
    def colour(self) -> str:
        """Its colour in all figures."""
        return COLOURS[self.at % len(COLOURS)] if self.at < MOST_NAMED else "#b5b9bf"

    @property
    def dash(self) -> str:
        """Its kind of line in all figures."""
        return _DASHES[self.at // len(COLOURS) % len(_DASHES)] if self.at < MOST_NAMED else "-"


def short(name: str, longest: int = _LONGEST) -> str:
    """Return a name for a figure: visible letters only, shortened in the middle if it is long."""
    name = visible(name)
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def draw_loss(axes: Any, lines: Sequence[Line]) -> None:
    """Draw the training loss of each cell by epoch."""
    axes.set_title("Training loss")
    ends = [_draw(axes, line, [curve.losses for curve in line.curves]) for line in lines]
    low_high = [end[1] for end in ends if end]
    if low_high and min(low_high) > 0 and max(low_high) / min(low_high) > _WIDE_RANGE:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(
        axes,
        lines,
        ends,
        max((epoch for line in lines for each in line.curves for epoch in each.losses), default=1),
    )


def draw_validation(axes: Any, lines: Sequence[Line], baselines: dict[str, float]) -> None:
    """Draw validation by epoch: a dot at the best epoch of each run, and the baselines as horizontal lines."""
    axes.set_title("Validation NDCG@10, full catalogue")
    ends = [_draw(axes, line, [curve.validation for curve in line.curves]) for line in lines]
    for line in lines:
        for curve in line.curves:
            if (best := curve.best_epoch) is not None:
                axes.plot(
                    best, curve.validation[best], "o", ms=5, color=line.colour, mec="white", mew=0.8, zorder=4,
                    gid=f"cell-{line.at}",
                )  # fmt: skip
    for value in baselines.values():
        axes.axhline(value, color=QUIET, lw=0.9, dashes=(4, 3), zorder=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: number(value, 2) if value else "0")
    last = max((epoch for line in lines for curve in line.curves for epoch in curve.validation), default=1)
    _finish(
        axes, lines, ends, last, {f"{short(name)} {number(value)}": value for name, value in baselines.items()}
    )
    axes.set_xlabel("epoch (dots: best of each run)")


def draw_against(axes: Any, lines: Sequence[Line], values: dict[str, float], what: str, ylabel: str) -> None:
    """Draw a point for each run: its metric against its "parameters" or its "minutes" of training.

    `values`: the path of a run -> its metric.
    """
    titles = {"parameters": "Size of the model", "minutes": "Time of training"}
    axes.set_title(f"{ylabel} against {titles[what].lower()}")
    named: list[tuple[float, float, Line]] = []
    for line in lines:
        points = [
            (curve.parameters if what == "parameters" else (curve.seconds or 0) / 60, values[str(curve.run)])
            for curve in line.curves
            if str(curve.run) in values and None not in (curve.parameters, curve.seconds)
        ]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        mark = MARKERS[line.at % len(MARKERS)] if line.at < MOST_NAMED else "."
        axes.plot(x, y, mark, ms=7.5, color=line.colour, mec="white", mew=0.8, ls="", gid=f"cell-{line.at}")
        if line.at < MOST_NAMED:
            named.append((max(x), mean(y), line))
    axes.set_xlabel(f"{what}{' on its machine' if what == 'minutes' else ''}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
    axes.xaxis.set_major_locator(whole_ticks(4, whole=what == "parameters"))
    axes.yaxis.set_major_formatter(lambda value, _: number(value, 3))
    axes.margins(x=0.1, y=0.15)
    name_at_right(axes, [(x, y, short(line.name), line.colour, line.at) for x, y, line in named], leaders=False)


def _draw(axes: Any, line: Line, series: list[dict[int, float]]) -> tuple[int, float] | None:
    """Draw the runs of a cell thinly and their mean boldly; return where the mean, or the longest run, ends."""
    series = [each for each in series if each]
    if not series:
        return None
    style: dict[str, Any] = {"color": line.colour, "gid": f"cell-{line.at}"}
    grey = line.at >= MOST_NAMED
    if len(series) > 1:
        for each in series:
            axes.plot(list(each), list(each.values()), lw=0.8, alpha=0.45, **style)
    shared = sorted(set.intersection(*map(set, series)) if len(series) > 1 else series[0]) or sorted(series[0])
    means = [mean(each[epoch] for each in series if epoch in each) for epoch in shared]
    axes.plot(shared, means, lw=0.8 if grey else 1.9, ls=line.dash, zorder=1 if grey else 3, **style)
    longest = max(series, key=max)
    return (max(longest), longest[max(longest)]) if max(longest) > shared[-1] else (shared[-1], means[-1])


def _finish(
    axes: Any,
    lines: Sequence[Line],
    ends: list[tuple[int, float] | None],
    last: int,
    levels: dict[str, float] | None = None,
) -> None:
    """Name lines and levels at the right edge."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(whole_ticks(6))
    axes.set_xlim(0, last * 1.02)
    labels: list[tuple[float, float, str, str, int]] = [
        (*end, short(line.name), line.colour, line.at)
        for line, end in zip(lines, ends, strict=True)
        if end and line.at < MOST_NAMED
    ]
    labels += [(last * 1.02, value, name, QUIET, -1) for name, value in (levels or {}).items()]
    name_at_right(axes, labels)


def name_at_right(axes: Any, labels: list[tuple[float, float, str, str, int]], *, leaders: bool = True) -> None:
    """Write (x, y, text, colour, cell) right of the axes, moved apart where they would overlap.

    `leaders`: with a thin line from (x, y) to its text.
    """
    height = axes.figure.get_figheight() * 72 * 0.74  # of the axes, about
    step = 11.5 / height
    low, high = axes.get_ylim()
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.set_ylim(low, high)  # so that the labels are placed by the limits that are drawn
    places = spread([float(to_axes.transform((x, y))[1]) for x, y, *_ in labels], step)
    arrow = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
    for (x, y, text, colour, at), place in zip(labels, places, strict=True):
        axes.annotate(
            text, (x, y), (1.05, place), xycoords="data", textcoords="axes fraction", va="center", fontsize=8.5,
            color=colour, annotation_clip=False, gid=f"cell-{at}" if at >= 0 else None,
            arrowprops=arrow | {"color": colour} if leaders else None,
        )  # fmt: skip


def spread(places: list[float], step: float) -> list[float]:
    """Move places apart until neighbours are `step` apart, as little as possible and within 0 to 1 if they fit."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + step)
    top = 1.0
    for index in reversed(order):
        moved[index] = min(moved[index], top)
        top = moved[index] - step
    if order and (under := -moved[order[0]]) > 0:
        moved = [place + under for place in moved]
    return moved


def whole_ticks(most: int, *, whole: bool = True) -> Any:
    """A locator of at most this many intervals between ticks, at whole numbers if `whole`."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=whole, min_n_ticks=1)


def number(value: float, digits: int = 4) -> str:
    """A metric without the zero before the point: .1234."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)
