"""Write docs/measurements/mhc-study.md and its figure from the stored results of benchmarks/mhc.py."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLOURS = {
    "plain": "#444444",
    "gated": "#0072b2",
    "mHC sinkhorn": "#d55e00",
    "mHC birkhoff": "#e69f00",
    "mHC orthogonal": "#009e73",
}
Cell = tuple[Any, ...]  # encoder, residual, depth, width, lr
PAGE = Path(__file__).with_name("mhc-page.md")


def write(stored: dict[str, Any], page: Path, figure: Path) -> None:
    """Write the page and its figure."""
    cells, differences = _of_study(stored, "mhc-ml-100k")
    large, of_large = _of_study(stored, "mhc-ml-1m")
    deep, of_deep = _of_study(stored, "mhc-ml-1m-deep")
    text = PAGE.read_text().format(
        conclusion=_conclusion([differences, of_large, of_deep], cells, stored["steps"]),
        verdict=_verdict(cells, differences, "The study on MovieLens 100K"),
        verdict_large=_verdict(large, of_large, "The first study on MovieLens 1M"),
        table_large=_table(large, {}),
        verdict_deep=_verdict(deep, of_deep, "The second study on MovieLens 1M"),
        table_deep=_table(deep, {}),
        differences_deep=_differences(of_deep, "plain"),
        differences_large=_differences(of_large, "plain"),
        depth_large=_differences(of_large, "shallow"),
        table=_table(cells, stored["steps"]),
        differences=_differences(differences, "plain"),
        depth=_differences(differences, "shallow"),
        controls=_controls(cells, stored["steps"]),
        diagnostics=_diagnostics(cells),
        left_out=_left_out(cells),
    )
    wrapped = (part if part.startswith(("|", "!", "-", "#")) else _filled(part) for part in text.split("\n\n"))
    page.write_text("\n\n".join(wrapped).rstrip() + "\n")
    _draw(cells, stored["steps"], figure)


def _filled(text: str) -> str:
    """Wrap a paragraph; code and percentages stay in one line."""
    # textwrap breaks lines only at blanks, so a stand-in for them keeps words together.
    joined = re.sub(r"`[^`]+`| %", lambda found: found[0].replace(" ", "\0"), " ".join(text.split()))
    return textwrap.fill(joined, 120, break_on_hyphens=False).replace("\0", " ")


def _of_study(
    stored: dict[str, Any], study: str
) -> tuple[dict[Cell, list[dict[str, Any]]], dict[tuple[Cell, str], dict[str, Any]]]:
    """Return the runs of a study by cell, and the differences by cell and what they are from."""
    cells: dict[Cell, list[dict[str, Any]]] = defaultdict(list)
    for row in stored["runs"]:
        if row["study"] == study:
            cells[row["encoder"], row["residual"], row["depth"], row["width"], row["lr"]].append(row)
    differences = {
        (tuple(each["cell"]), each["against"]): each for each in stored["differences"] if each["study"] == study
    }
    return cells, differences


def _name(cell: Cell) -> str:
    encoder, residual, depth, width, lr = cell
    extra = ("" if width == 64 else f", {width} units") + ("" if lr == 1e-3 else f", lr {lr:g}")
    return f"{encoder}, {residual}, {depth} blocks{extra}"


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.fmean(row[name] for row in rows)


def _spread(rows: list[dict[str, Any]], name: str) -> str:
    mean = f"{_mean(rows, name):.4f}".lstrip("0")
    if len(rows) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(row[name] for row in rows):.4f}".replace("± 0", "± ")


def _step(cell: Cell, steps: dict[str, float]) -> float | None:
    encoder, residual, depth, width, _ = cell
    return steps.get(f"{encoder}, {residual}, {depth}, {width}")


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(cells: dict[Cell, list[dict[str, Any]]], steps: dict[str, float]) -> str:
    """Metrics of all cells; without `steps` also without the column of step times."""
    rows = [
        [
            _name(cell),
            str(len(found)),
            f"{found[0]['parameters']:,}",
            *(["" if (step := _step(cell, steps)) is None else f"{step:.0f} ms"] if steps else []),
            _spread(found, "valid"),
            _spread(found, "test"),
            _spread(found, "hr"),
            ", ".join(str(row["best_epoch"]) for row in found),
        ]
        for cell, found in cells.items()
    ]
    head = ["model", "seeds", "parameters", *(["step"] if steps else []), "validation NDCG@10"]
    return _rows([*head, "test NDCG@10", "test HR@10", "best epochs"], rows)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".", 1).replace("-", "−")


def _is_different(each: dict[str, Any]) -> bool:
    return bool(each["low"] > 0 or each["high"] < 0)


def _differences(differences: dict[tuple[Cell, str], dict[str, Any]], against: str) -> str:
    rows = [
        [
            _name(cell),
            _signed(each["mean"]),
            f"{_signed(each['low'])} to {_signed(each['high'])}",
            ("better" if each["mean"] > 0 else "worse") if _is_different(each) else "no difference shown",
        ]
        for (cell, name), each in differences.items()
        if name == against
    ]
    return _rows(["model", "difference", "95 % interval", "verdict"], rows) if rows else "Not measured."


def _conclusion(
    studies: list[dict[tuple[Cell, str], dict[str, Any]]],
    cells: dict[Cell, list[dict[str, Any]]],
    steps: dict[str, float],
) -> str:
    """The sentences a practitioner needs: what was gained, and what it costs."""
    better = [
        _name(cell)
        for study in studies
        for (cell, against), each in study.items()
        if against == "plain" and each["low"] > 0
    ]
    ratios = [
        step / plain
        for cell in cells
        if cell[1].startswith("mHC")
        if (step := _step(cell, steps)) and (plain := _step((cell[0], "plain", *cell[2:]), steps))
    ]
    gain = (
        f"Better than the plain residual: {'; '.join(better)}."
        if better
        else "The measurements of this page show no gain from mHC or from a gate: each measured difference "
        "between a model that has mHC or a gate and the same model with plain residuals can be chance."
    )
    sentences = [gain]
    if ratios:
        sentences.append(
            f"On a CPU, a training step with mHC takes {min(ratios):.1f} to {max(ratios):.1f} times as long as a "
            "step with plain residuals."
        )
    if not better:
        sentences.append("So use plain residual connections, which are the default.")
    return " ".join(sentences)


def _verdict(
    cells: dict[Cell, list[dict[str, Any]]], differences: dict[tuple[Cell, str], dict[str, Any]], study: str
) -> str:
    """What a study shows, by the intervals; `study` begins the first sentence."""

    def bold(named: Iterable[Cell]) -> str:
        return "; ".join(f"**{_name(cell)}**" for cell in named)

    against = {cell: each for (cell, name), each in differences.items() if name == "plain"}
    better = [cell for cell, each in against.items() if _is_different(each) and each["mean"] > 0]
    worse = [cell for cell, each in against.items() if _is_different(each) and each["mean"] < 0]
    deeper = [cell for (cell, name), each in differences.items() if name == "shallow" and each["low"] > 0]
    best = max(cells, key=lambda cell: _mean(cells[cell], "valid"))
    blocks = " or ".join(str(depth) for depth in sorted({cell[2] for cell in against}))
    sentences = [
        f"{study} trained {len(against)} models that have a gate or mHC. These models have {blocks} blocks. Each "
        "of these models was compared with its plain version, which has plain residuals and is otherwise the same."
    ]
    if better:
        sentences.append(f"These models are better: {bold(better)}.")
    if worse:
        sentences.append(f"These models are worse: {bold(worse)}.")
    if not better + worse:
        count = "Both" if len(against) == 2 else f"All {len(against)}"
        sentences.append(
            f"{count} differences in test NDCG@10 can be chance, so no gain from a gate or from mHC is shown."
        )
    if deeper:
        sentences.append(
            f"But more blocks help: {bold(deeper)} is better than the same model with 2 blocks, and this "
            "difference is more than chance."
        )
    sentences.append(
        f"Of all models of the study, {bold([best])} has the highest NDCG@10 on validation. Its NDCG@10 on test "
        f"is {_spread(cells[best], 'test')}."
    )
    if best in against and not _is_different(against[best]):
        each = against[best]
        sentences.append(
            f"This is {_signed(abs(each['mean'])).lstrip('+')} {'more' if each['mean'] > 0 else 'less'} than the "
            "test NDCG@10 of the plain version of this model. But this difference can be chance: its 95 % "
            f"confidence interval, {_signed(each['low'])} to {_signed(each['high'])}, contains 0."
        )
    return " ".join(sentences)


def _controls(cells: dict[Cell, list[dict[str, Any]]], steps: dict[str, float]) -> str:
    """For each mHC cell, the plain cell that is nearest in parameters, and the one nearest in time."""
    rows = []
    for cell, found in cells.items():
        encoder, residual = cell[:2]
        if residual == "plain" or cell[3:] != (64, 1e-3):
            continue
        plain = {other: rows for other, rows in cells.items() if other[0] == encoder and other[1] == "plain"}
        size = found[0]["parameters"]
        by_size = min(plain, key=lambda other: abs(plain[other][0]["parameters"] - size))
        timed = [other for other in plain if _step(other, steps)]
        step = _step(cell, steps)
        by_time = min(timed, key=lambda other: abs((_step(other, steps) or 0) - step)) if timed and step else None
        rows.append(
            [
                _name(cell),
                _spread(found, "test"),
                f"{_name(by_size).removeprefix(encoder + ', plain, ')}: {_spread(plain[by_size], 'test')}",
                ""
                if by_time is None
                else f"{_name(by_time).removeprefix(encoder + ', plain, ')}: {_spread(plain[by_time], 'test')}",
            ]
        )
    head = [
        "model",
        "test NDCG@10 of the model",
        "plain model nearest in parameters: its test NDCG@10",
        "plain model nearest in step time: its test NDCG@10",
    ]
    return _rows(head, rows) if rows else "Not measured."


def _diagnostics(cells: dict[Cell, list[dict[str, Any]]]) -> str:
    rows = []
    for cell, found in cells.items():
        last = [[row[name][-1] for row in found if row[name]] for name in ("gain", "diversity")]
        rows.append(
            [
                _name(cell),
                f"{_mean(found, 'gradient_norm'):.2f}",
                *(f"{statistics.fmean(values):.2f}" if values else "" for values in last),
            ]
        )
    return _rows(["model", "gradient norm", "gain", "diversity"], rows)


def _left_out(cells: dict[Cell, list[dict[str, Any]]]) -> str:
    """A table of the numbers of blocks that were trained and that were planned only, and what was not planned."""
    wanted = [
        *(("SASRec", residual, 64) for residual in COLOURS),
        ("SASRec", "plain", 128),
        *(("TiSASRec", residual, 64) for residual in ("plain", "mHC sinkhorn")),
    ]
    rows = []
    for encoder, residual, width in wanted:
        whole = {
            depth: len(cells.get((encoder, residual, depth, width, 1e-3), [])) >= 3 for depth in (2, 4, 8, 12)
        }
        trained, planned = (
            ", ".join(str(depth) for depth in whole if whole[depth] == done) for done in (True, False)
        )
        rows.append([f"{encoder}, {residual}, {width} units", trained, planned])
    table = _rows(["model on MovieLens 100K", "blocks, trained", "blocks, not trained"], rows)
    return (
        "The file [mhc-ml-100k.toml](../../benchmarks/mhc-ml-100k.toml) describes the study on MovieLens 100K. "
        "The file asks for each kind of model with 2, 4, 8 and 12 transformer blocks, but not all of these models "
        "were trained. The table shows the numbers of blocks that were trained, and the numbers of blocks that "
        "the file also asks for:\n\n"
        f"{table}\n\n"
        "The file of the first study on MovieLens 1M, [mhc-ml-1m.toml](../../benchmarks/mhc-ml-1m.toml), also "
        "asks for `gated` and `mHC sinkhorn` with 8 blocks. The first study did not train these models, but the "
        "second study did.\n\n"
        "No study of this page measured the following:\n\n"
        "- data other than MovieLens, and more than about a million events (the size of MovieLens 1M);\n"
        "- more than 128 hidden units;\n"
        "- losses other than cross-entropy;\n"
        "- a learning rate tuned for each model.\n\n"
        "So on larger data, or with larger models, mHC may help more or less than on this page. We do not know of "
        "published figures for mHC in next-item recommendation."
    )


def _draw(cells: dict[Cell, list[dict[str, Any]]], steps: dict[str, float], path: Path) -> None:
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "mhc", "font.size": 9}
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    for encoder, style in (("SASRec", "-"), ("TiSASRec", "--")):
        for residual, colour in COLOURS.items():
            line = sorted(cell for cell in cells if cell[:2] == (encoder, residual) and cell[3:] == (64, 1e-3))
            if not line:
                continue
            means = [_mean(cells[cell], "test") for cell in line]
            errors = [
                statistics.stdev(row["test"] for row in cells[cell]) if len(cells[cell]) > 1 else 0
                for cell in line
            ]
            label = residual if encoder == "SASRec" else f"{encoder}, {residual}"
            sides = (
                [cell[2] for cell in line],
                [cells[cell][0]["parameters"] / 1000 for cell in line],
                [_step(cell, steps) or float("nan") for cell in line],
            )
            for panel, values in zip(panels, sides, strict=True):
                panel.errorbar(
                    values, means, errors, fmt=style, marker="o", ms=4, color=colour, label=label, capsize=2
                )
    for panel, title in zip(panels, ("blocks", "parameters (thousands)", "milliseconds a step"), strict=True):
        panel.set_xlabel(title)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_xticks([2, 4, 8, 12])
    panels[0].set_ylabel("test NDCG@10, mean ± sd over seeds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})
