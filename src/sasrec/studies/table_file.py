"""Write the table of a comparison to a file, for a paper or a page: LaTeX, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from sasrec.errors import ConfigError
from sasrec.files import write_whole
from sasrec.studies.scored import Comparison, Side
from sasrec.studies.sentences import measured_how, number, p_value
from sasrec.untrusted import visible

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def write_table(found: Comparison, path: str | Path) -> None:
    """Write the table of a comparison: a row for each side, with its means, and its difference from the first.

    With several seeds a mean has its standard deviation over the seeds. In LaTeX (package booktabs) and Markdown
    the best mean of each column is bold. `path` ends in .tex, .md or .csv; a file there is replaced.

    Raises: ConfigError for another ending. Remedy: use one of the three. OSError if the file cannot be written.
    """
    path = Path(path)
    write_whole(path, table_as(path.suffix)(found))


def table_as(suffix: str) -> Callable[[Comparison], str]:
    """Return the function that writes a comparison in the format of files with this ending, such as ".tex".

    Raises: ConfigError for another ending. Remedy: use .tex, .md or .csv.
    """
    formats = {".tex": _latex, ".md": _markdown, ".csv": _csv}
    if suffix not in formats:
        raise ConfigError(
            f"tables are written as {', '.join(formats)}, not as {suffix or 'a file without an ending'}. Use "
            "one of these endings."
        )
    return formats[suffix]


def _latex(found: Comparison) -> str:
    tested = _p_is(found)
    head = ["", *map(str.upper, found.first.metrics), "difference", r"95\,\% interval", tested.replace("p", "$p$")]
    rows = _cells(found, r"\textbf{{{}}}", r" $\pm$ ", _escaped)
    several = any(side.spread for side in (found.first, *(each.side for each in found.others)))
    spread = "; mean and standard deviation over seeds" if several else ""
    lines = [
        f"% {visible(measured_how(found))}{spread}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join([row[0], *map(_mathematical, row[1:])]) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _markdown(found: Comparison) -> str:
    head = ["", *map(str.upper, found.first.metrics), "difference", "95 % interval", _p_is(found)]
    rows = [
        head,
        ["---", *(["---:"] * (len(head) - 1))],
        *_cells(found, "**{}**", " ± ", lambda name: name.replace("|", r"\|")),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _csv(found: Comparison) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = list(found.first.metrics)
    spreads = [f"{name}_sd" for name in names]
    table.writerow(["model", "runs", *names, *spreads, "difference", "low", "high", "p", "adjusted_p"])
    for side, rest in [(found.first, ["", "", "", "", ""])] + [
        (
            each.side,
            [
                each.difference.mean,
                each.difference.low,
                each.difference.high,
                each.difference.p_value,
                each.adjusted_p,
            ],
        )
        for each in found.others
    ]:
        deviations = [side.spread.get(name, "") for name in names]
        table.writerow([side.name, len(side.runs), *(side.metrics[name] for name in names), *deviations, *rest])
    return text.getvalue()


def _cells(found: Comparison, bold: str, between: str, escaped: Callable[[str], str]) -> list[list[str]]:
    sides = [found.first, *(each.side for each in found.others)]
    best = {name: max(side.metrics[name] for side in sides) for name in found.first.metrics}

    def means(side: Side) -> list[str]:
        cells = []
        for name, value in side.metrics.items():
            mean = bold.format(number(value)) if value == best[name] else number(value)
            cells.append(mean + (between + number(side.spread[name]) if side.spread else ""))
        return cells

    rows = [[escaped(found.first.name), *means(found.first), "", "", ""]]
    for each in found.others:
        change = each.difference
        interval = f"{number(change.low)} to {number(change.high)}"
        rows.append(
            [escaped(each.side.name), *means(each.side), number(change.mean), interval, p_value(each.adjusted_p)]
        )
    return rows


def _p_is(found: Comparison) -> str:
    return "Holm's p" if len(found.others) > 1 else "p"


def _mathematical(figures: str) -> str:
    """Figures with "-" and "<" in mathematics, because LaTeX text has a hyphen for "-", and "¡" for "<"."""
    return re.sub("[-<]", r"$\g<0>$", figures)


def _escaped(name: str) -> str:
    return re.sub(r"[\\&%$#_{}~^<>]", lambda sign: _SPECIAL.get(sign[0], "\\" + sign[0]), name)
