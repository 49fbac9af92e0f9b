"""`compare --output`: the table in LaTeX, Markdown and CSV."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from pathlib import Path

import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError
from sasrec.runs.folder import RunFolder
from sasrec.studies.table_file import write_table
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two seeds of a model, and one run of another."""
    folder = tmp_path_factory.mktemp("runs")
    data = sasrec.prepare(chain_frame(users=80))
    for seed in (0, 1):
        sasrec.train(data, folder / f"a_{seed}", **small(num_epochs=6, seed=seed))
    sasrec.train(data, folder / "b&c", **small(num_epochs=1))
    return [str(folder / name) for name in ("b&c", "a_0", "a_1")]


def value(run: str, metric: str) -> float:
    return float(RunFolder(run).metrics()["test"]["full"][metric])


def test_latex_escapes_names_and_has_means_spreads_and_the_best_in_bold(runs: list[str], tmp_path: Path) -> None:
    path = tmp_path / "table.tex"
    assert main(["compare", *runs, "--show", "mrr", "hr@20", "--output", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert lines[0].startswith("% test of leave-one-out, full catalogue, data ")
    assert lines[0].endswith("standard deviation over seeds")
    assert lines[1] == r"\begin{tabular}{lrrrrrr}"
    assert lines[3] == r" & NDCG@10 & MRR & HR@20 & difference & 95\,\% interval & $p$ \\"
    assert r"b\&c & " in lines[5]
    means = [value(run, "ndcg@10") for run in runs[1:]]
    mean, spread = (f"{each:.4f}"[1:] for each in (statistics.mean(means), statistics.stdev(means)))
    assert rf"(2 seeds) & \textbf{{{mean}}} $\pm$ {spread} & " in lines[6]
    assert r"a\_0" in lines[6]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_latex_writes_minus_and_less_than_as_mathematics(runs: list[str], tmp_path: Path) -> None:
    found = sasrec.compare([*runs[1:], runs[0]])
    (against,) = found.others
    worse = dataclasses.replace(against, adjusted_p=0.0001, side=dataclasses.replace(against.side, name="a-<b>"))
    write_table(dataclasses.replace(found, others=(worse,)), tmp_path / "table.tex")
    row = (tmp_path / "table.tex").read_text().splitlines()[-3]
    assert row.startswith(r"a-\textless{}b\textgreater{} & ")
    assert row.endswith(r" & $<$ .001 \\")
    assert f" & $-${abs(against.difference.mean):.4f} & ".replace("0.", ".") in row


def test_markdown_and_csv_have_the_same_figures(runs: list[str], tmp_path: Path) -> None:
    found = sasrec.compare(runs, show=["mrr"])
    write_table(found, tmp_path / "table.md")
    head, rule, first, other = (tmp_path / "table.md").read_text().splitlines()
    assert head == "|  | NDCG@10 | MRR | difference | 95 % interval | p |"
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert first.endswith("|  |  |  |")
    mean = f"{statistics.mean(value(run, 'mrr') for run in runs[1:]):.4f}".removeprefix("0")
    assert f"| **{mean}** ± " in other
    write_table(found, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["runs"] for row in rows] == ["1", "2"]
    assert float(rows[0]["ndcg@10"]) == pytest.approx(value(runs[0], "ndcg@10"), abs=1e-12)
    assert float(rows[1]["difference"]) == found.others[0].difference.mean
    assert rows[0]["mrr_sd"] == ""
    assert float(rows[1]["mrr_sd"]) == pytest.approx(statistics.stdev(value(run, "mrr") for run in runs[1:]))


def test_another_ending_or_metric_is_refused_before_the_work(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"not as \.xlsx"):
        write_table(sasrec.compare(runs), tmp_path / "table.xlsx")
    assert main(["compare", "nowhere", "elsewhere", "--output", "table.doc"]) == 1
    assert (
        "tables are written as .tex, .md, .csv, not as .doc. Use one of these endings." in capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match="f1"):
        sasrec.compare(runs, show=["f1"])
