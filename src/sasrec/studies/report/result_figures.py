"""The figures on results: differences with their intervals, slices of the targets, and what a search has tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sasrec.studies.report.svg import QUIET, RULE
from sasrec.studies.report.training_figures import COLOURS, Line, name_at_right, number, short, whole_ticks
from sasrec.studies.report.tried import Searched, Tried
from sasrec.studies.scored import Comparison

_MOST_AXES = 6


def draw_differences(axes: Any, table: Comparison, colours: dict[str, str]) -> None:
    """Draw the difference of each side from the first one, with its interval. `colours`: by name of a side."""
    axes.set_title(f"{table.metric.upper()} on {table.split}: difference from {short(table.first.runs[0])}")
    for at, against in enumerate(table.others):
        name, change = against.side.runs[0], against.difference
        colour = colours.get(name, QUIET)
        axes.plot([change.low, change.high], [at, at], lw=2, color=colour, solid_capstyle="butt")
        sure = against.verdict != "no difference"
        axes.plot(change.mean, at, "o", ms=7, color=colour, mfc=colour if sure else "white", mew=1.6)
    axes.axvline(0, color=QUIET, lw=1)
    axes.set_yticks(range(len(table.others)), [short(against.side.runs[0], 22) for against in table.others])
    axes.set_ylim(len(table.others) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(whole_ticks(5, whole=False))
    axes.xaxis.set_major_formatter(lambda value, _: number(value, 3) if value else "0")
    axes.set_xlabel("95 % interval; filled: shown to differ")


def draw_slices(
    axes: Any, slices: dict[str, dict[str, float]], rows: dict[str, int], lines: dict[str, Line]
) -> None:
    """Draw NDCG@10 by slice of the test targets.

    `slices`: name of a slice -> name of a cell or baseline -> value. `rows`: name of a slice -> its targets.
    `lines`: the cells, by name; the other names are baselines, which get a grey square.
    """
    axes.set_title("NDCG@10 by kind of target")
    names = list(slices)
    for at, name in enumerate(names):
        values = slices[name]
        axes.plot([min(values.values()), max(values.values())], [at, at], lw=1, color=RULE, zorder=1)
        for side, value in values.items():
            line = lines.get(side)
            look: dict[str, Any] = {"marker": "s", "color": "#8a9099", "ms": 5.5} if line is None else {
                "marker": "o", "color": line.colour, "ms": 7, "gid": f"cell-{line.at}"
            }  # fmt: skip
            axes.plot(value, at, ls="", mec="white", mew=0.7, zorder=3, **look)
    axes.set_yticks(range(len(names)), [f"{name} ({rows[name]:,})" for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(whole_ticks(5, whole=False))
    axes.xaxis.set_major_formatter(lambda value, _: number(value, 2) if value else "0")


def draw_best_so_far(axes: Any, tried: Sequence[Tried], metric: str) -> None:
    """Draw the metric of each run in the order in which they were chosen, and the best one so far."""
    axes.set_title(f"Best {metric} so far")
    points = [(at, each.value) for at, each in enumerate(tried, start=1) if each.value is not None]
    best: list[tuple[int, float]] = []
    for at, value in points:
        best.append((at, max(value, best[-1][1]) if best else value))
    for state, marker in (("done", "o"), ("pruned", "x")):
        some = [(at, value) for at, value in points if (tried[at - 1].state == "pruned") == (state == "pruned")]
        if some:
            axes.plot(*zip(*some, strict=True), marker, ms=5, color="#8a9099", ls="", zorder=2)
    if best:
        best.append((len(tried), best[-1][1]))
        axes.step(*zip(*best, strict=True), where="post", lw=2, color=COLOURS[0], zorder=3)
        name_at_right(axes, [(best[-1][0], best[-1][1], f"best {number(best[-1][1])}", COLOURS[0], -1)])
    axes.xaxis.set_major_locator(whole_ticks(6))
    axes.yaxis.set_major_formatter(lambda value, _: number(value, 3))
    axes.set_xlabel("point" + (" (crosses: pruned)" if any(each.state == "pruned" for each in tried) else ""))


def draw_importance(axes: Any, importance: dict[str, float]) -> None:
    """Draw a bar for each setting: how much it decided the metric."""
    axes.set_title("Which settings decide")
    ordered = sorted(importance.items(), key=lambda item: -item[1])[:12]
    axes.barh(range(len(ordered)), [value for _, value in ordered], height=0.6, color=COLOURS[0])
    for at, (_, value) in enumerate(ordered):
        axes.annotate(
            f"{100 * value:.0f} %", (value, at), (4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(range(len(ordered)), [short(name, 22) for name, _ in ordered])
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlim(0, max((value for _, value in ordered), default=1) * 1.15 or 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def draw_parallel(axes: Any, searched: Searched, metric: str) -> None:
    """Draw each run as a line over an axis for each setting, and the metric last; better runs are darker."""
    axes.set_title("Settings of each point; the best are dark")
    done = [each for each in searched.tried if each.value is not None]
    names = list(dict.fromkeys(name for each in done for name in each.settings))
    names.sort(key=lambda name: -searched.importance.get(name, 0.0))
    names = names[:_MOST_AXES]
    scales = [_Scale([each.settings.get(name) for each in done]) for name in names]
    scales.append(_Scale([each.value for each in done], logarithmic=False, text=number))
    order = sorted(range(len(done)), key=lambda at: done[at].value or 0.0)
    for place, at in enumerate(order):
        share = place / max(1, len(order) - 1)  # 0 is the worst
        values = [done[at].settings.get(name) for name in names] + [done[at].value]
        heights = [scale.height(value) for scale, value in zip(scales, values, strict=True)]
        light = tuple(round(0.86 + (dark - 0.86) * share**2, 3) for dark in (0.0, 0.45, 0.70))
        axes.plot(range(len(scales)), heights, color=light, lw=0.8 + 1.2 * share**2, zorder=2 + share)
    for at, (name, scale) in enumerate(zip([*names, metric], scales, strict=True)):
        axes.axvline(at, color=QUIET, lw=0.8, zorder=1)
        for height, text in scale.ticks():
            # Above the upper end and below the lower one, so that no line crosses a number.
            side, away = ("top", -2) if height == 0 else ("bottom", 2) if height == 1 else ("center", 0)
            axes.annotate(
                text, (at, height), (3, away), textcoords="offset points", va=side, fontsize=7.5, color=QUIET,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}, zorder=5,
            )  # fmt: skip
        axes.annotate(
            short(name, 16),
            (at, 0),
            (0, -22 - 12 * (at % 2) * (len(scales) > 4)),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    axes.set_xlim(-0.1, len(scales) - 0.6)
    axes.set_ylim(-0.04, 1.04)
    axes.grid(visible=False)
    axes.set_axis_off()
    axes.title.set_visible(True)


class _Scale:
    """Places the values of one setting between 0 and 1: numbers by size, by logarithm if wide; others by order."""

    def __init__(
        self, values: Sequence[Any], *, logarithmic: bool = True, text: Callable[[float], str] = "{:.4g}".format
    ) -> None:
        self.text = text
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        self.names: list[str] = []
        self.low, self.high = min(numbers, default=0.0), max(numbers, default=0.0)
        if len(numbers) < len([value for value in values if value is not None]):
            self.names = sorted({str(value) for value in values if value is not None})
        self.logarithmic = logarithmic and self.low > 0 and self.high / self.low >= 10

    def height(self, value: Any) -> float:
        """Where a value is drawn; a missing one is at the bottom."""
        if self.names:
            return (self.names.index(str(value)) + 0.5) / len(self.names) if str(value) in self.names else -0.03
        if not isinstance(value, int | float):
            return -0.03
        low, high, at = self.low, self.high, float(value)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Heights with their texts: each name, or the least and the greatest number."""
        if self.names:
            return [(self.height(name), short(name, 12)) for name in self.names[:12]]
        ends = [self.low, self.high] if self.high > self.low else [self.low]
        return [(self.height(end), self.text(end)) for end in ends]
