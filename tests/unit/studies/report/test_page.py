"""`sasrec report`: what the page says, that it says it of anybody's texts safely, and the tables beside it."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
import shutil
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError, EvaluationError
from sasrec.models import SASRec, SequenceModel
from sasrec.runs.folder import RunFolder, best_baseline
from sasrec.studies.report.cells import Cell
from sasrec.studies.report.page import report
from sasrec.studies.report.results import headline, results_of
from sasrec.studies.report.tried import Searched, Tried
from tests.synthetic import chain_frame, small

SCRIPT = "<script>alert('x')</script>"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "right\u202eleft",
    "bell\x07end",
    "{{ 7 * 7 }}",
    "&amp; 'quoted'",
]


class Own(SASRec):
    """A class of one's own."""


def own_loss(model: SequenceModel, batch: Any) -> torch.Tensor:
    """A loss of one's own."""
    return sum(weights.square().sum() for weights in model.parameters()) / 1000  # type: ignore[return-value]


class Page(HTMLParser):
    """The texts of a page, its elements, and the attributes of each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a model, and two of a model that learns nothing."""
    folder = tmp_path_factory.mktemp("runs")
    data = sasrec.prepare(chain_frame(users=80))
    for seed in (0, 1):
        sasrec.train(data, folder / f"good-{seed}", **small(num_epochs=8, seed=seed))
        sasrec.train(data, folder / f"poor-{seed}", **small(num_epochs=1, lr=1e-6, seed=seed))
    return folder


def named(runs: Path) -> list[Path]:
    return [runs / name for name in ("poor-0", "poor-1", "good-0", "good-1")]


def value(run: Path, metric: str = "ndcg@10") -> float:
    return float(RunFolder(run).metrics()["test"]["full"][metric])


def figure(number: float) -> str:
    return f"{number:.4f}".replace("0.", ".", 1)


def test_the_headline_says_who_is_best_by_how_much_and_whether_seeds_separate_them(
    runs: Path, tmp_path: Path
) -> None:
    report(named(runs), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    means = [statistics.mean(value(runs / f"{name}-{seed}") for seed in (0, 1)) for name in ("poor", "good")]
    spread = statistics.stdev(value(runs / f"good-{seed}") for seed in (0, 1))
    above = figure(means[1] - means[0])
    lead = f"good-0 is best on validation: NDCG@10 {figure(means[1])} ± {figure(spread)} on test, {above} above poor-0."
    assert lead in page.text
    found = sasrec.compare([str(run) for run in named(runs)])
    change = found.others[0].difference
    assert f"difference {above} (95 % interval {figure(change.low)} to {figure(change.high)}, p" in page.text
    assert "With 2 seeds each, good-0 is shown to be better than poor-0." in page.text
    assert (
        f"the best baseline, {best_baseline(RunFolder(runs / 'good-0').metrics(), 'test.full.ndcg@10')[0]}."
        in page.text
    )


def test_the_table_has_every_model_and_baseline_and_the_files_beside_it_the_same_figures(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.html"
    assert main(["report", *map(str, named(runs)), "--output", str(path)]) == 0
    written = [path, *(path.with_name(f"{path.stem}-table{ending}") for ending in (".md", ".csv", ".tex"))]
    assert f"report written to {', '.join(map(str, written))}" in capsys.readouterr().err
    with (tmp_path / "own-table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    page = Page(path)
    for row in rows:
        cell = f"{figure(float(row['ndcg@10']))} ± {figure(float(row['ndcg@10_sd']))}"
        assert cell in page.text
        assert cell in (tmp_path / "own-table.md").read_text().replace("*", "")
    assert r"\toprule" in (tmp_path / "own-table.tex").read_text()
    for name, of in RunFolder(runs / "good-0").metrics()["baselines"].items():
        assert f"{name} {figure(of['test']['full']['ndcg@10'])}" in page.text


def test_a_single_run_is_compared_with_its_baselines(runs: Path, tmp_path: Path) -> None:
    report([runs / "good-0"], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    name, best = best_baseline(RunFolder(runs / "good-0").metrics(), "test.full.ndcg@10")
    assert re.search(
        rf"(good-0 is (better|worse) than|No difference was shown between good-0 and) the best baseline, {name}\.",
        page.text,
    )
    assert f"NDCG@10 {figure(value(runs / 'good-0'))} against {figure(best)}: difference" in page.text
    assert "Holm's p" in page.text


def test_the_page_says_how_it_was_measured_and_how_to_repeat_it(runs: Path, tmp_path: Path) -> None:
    report(named(runs), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    card = RunFolder(runs / "good-0").metrics()["protocol"]
    for words in (card["split"], card["data_hash"], f"sasrec {card['sasrec']}"):
        assert words in page.text
    command = re.search(r"sasrec train [^\n]*good-0[^\n]*", page.source)
    assert command
    for option in ("--maxlen 12", "--hidden_units 16", "--num_epochs 8", "--seed 0", "# also with --seed 1"):
        assert option in command[0]
    assert "PyTorch" in page.text
    assert "sasrec evaluate" in page.text  # slices are not measured yet, and the page says how


def test_slices_are_shown_once_they_are_measured(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "good-0", tmp_path / "run")
    details = sasrec.evaluate(tmp_path / "run", details=True)["details"]
    report([tmp_path / "run"], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    for name, part in details["slices"].items():
        assert f"{name} ({part['rows']:,})" in page.text
    assert "--details" not in page.text
    report([tmp_path / "run", runs / "poor-0"], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "Not measured with sasrec evaluate RUN --details: " in page.text
    legend = page.source.partition('class="legend"')[2].partition("</p>")[0]
    assert "poor-0" not in legend
    assert legend.count("<bdi>") == 2  # the measured run and the baseline


def test_examples_show_the_list_before_the_target_and_mark_it(runs: Path, tmp_path: Path) -> None:
    report([runs / "good-0"], tmp_path / "report.html", users=4)
    page = Page(tmp_path / "report.html")
    assert sum(tag == "article" for tag, _ in page.tags) == 4
    ranks = pl.read_parquet(runs / "good-0" / "ranks.parquet").filter(
        (pl.col("scorer") == "model") & (pl.col("split") == "test")
    )
    shown = [float(rank) for rank in re.findall(r"the next item had rank ([\d.]+)", page.text)]
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (ranks["full"].min(), ranks["full"].max())
    hits = sum("hit" in (of.get("class") or "") for tag, of in page.tags if tag == "li")
    assert hits == sum(rank <= 10 for rank in shown)


def test_texts_of_others_are_escaped(tmp_path: Path) -> None:
    frame = chain_frame(users=60, items=12)
    items = {f"item-{number:02d}": f"{number}{HOSTILE[number % len(HOSTILE)]}" for number in range(12)}
    users = {f"u{number:03d}": f"{number}{HOSTILE[number % len(HOSTILE)]}" for number in range(60)}
    frame = frame.with_columns(pl.col("item").replace(items), pl.col("user").replace(users))
    frame = frame.with_columns(pl.col("user", "item").str.replace_all("\x07", ""))  # no reader takes these as ids
    run = tmp_path / 'run <script>alert("r")</script> $x$ \u202e\x07'
    sasrec.train(frame, run, **small(num_epochs=1))
    tried = [
        Tried(SCRIPT, {SCRIPT: SCRIPT, "lr": 0.1}, 0.1, SCRIPT),
        Tried("b", {SCRIPT: 1, "lr": 0.2}, 0.2, "done"),
    ]
    report([run], tmp_path / "report.html", users=12, search=Searched(tuple(tried), {SCRIPT: 0.7}))
    page = Page(tmp_path / "report.html")
    assert [of for tag, of in page.tags if tag == "script"] == [{}]  # ours
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [key for _, of in page.tags for key in of if key.startswith("on")]
    assert html.escape("<script>alert", quote=False) in page.source
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", page.source)
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", page.source)
    assert r"\u202e" in page.source


def test_the_page_allows_only_its_own_script_and_style_and_names_no_address(runs: Path, tmp_path: Path) -> None:
    report(named(runs), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    policy = next(of["content"] or "" for tag, of in page.tags if of.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [key for _, of in page.tags for key in of if key in ("style", "src", "action", "srcset")]
    links = [of["href"] or "" for _, of in page.tags if "href" in of]
    assert all(link.startswith(("#", "data:,")) for link in links)
    ids = [of["id"] for _, of in page.tags if "id" in of]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    script = page.source.partition("<script>")[2].partition("</script>")[0]
    assert len(script.splitlines()) <= 100
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_a_search_has_its_section(runs: Path, tmp_path: Path) -> None:
    tried = [
        Tried(f"trial-{at}", {"lr": 10.0 ** -(1 + at % 4), "loss": ("ce", "bce")[at % 2]}, 0.01 * at, "done")
        for at in range(1, 20)
    ]
    tried += [Tried("cut", {"lr": 0.5, "loss": "ce"}, 0.01, "pruned"), Tried("bad", {"lr": 1.0}, None, "failed")]
    report(named(runs), tmp_path / "report.html", search=Searched(tuple(tried), {"lr": 0.8, "loss": 0.2}))
    page = Page(tmp_path / "report.html")
    assert (
        "21 points were drawn (19 done, 1 pruned, 1 failed). The best on validation is trial-19: NDCG@10 .1900 with"
        in page.text
    )
    for words in ("best .1900", "80 %", "PED-ANOVA", "Settings of each point; the best are dark"):
        assert words in page.text
    nothing = Searched((Tried("a", {"lr": 1}, None, "queued"),))
    report([runs / "good-0"], tmp_path / "none.html", search=nothing)
    assert "Search" not in Page(tmp_path / "none.html").text


@pytest.mark.slow
def test_a_study_that_searches_compares_its_best_point_and_shows_what_it_tried(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    chain_frame().write_csv(tmp_path / "events.csv")
    study = tmp_path / "search.toml"
    study.write_text(
        f'dataset = "{tmp_path}/events.csv"\ntrain_dir = "{tmp_path}/search"\nseeds = [0, 1]\n'
        '[settings]\ndevice = "cpu"\nmaxlen = 8\nnum_blocks = 1\nnum_epochs = 2\nbatch_size = 16\n'
        "[search]\ntrials = 6\n[search.space]\nlr = { low = 1e-4, high = 1e-1, log = true }\nhidden_units = [8, 16]\n"
    )
    assert main(["study", "run", str(study)]) == 0
    report([study], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "6 points were drawn (6 done). The best on validation is" in page.text
    assert "Which settings decide" in page.text
    with (tmp_path / "report-table.csv").open() as stream:
        names = [row["model"] for row in csv.DictReader(stream)]
    assert len(names) == 2
    assert names[0].startswith("default")
    assert re.fullmatch(r"default_trial-\d \(2 seeds\)", names[1])
    assert "dataset = " in page.text  # the study itself


def test_runs_that_are_not_measured_are_named_and_what_cannot_be_compared_is_refused(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "poor-0", tmp_path / "waiting")
    (tmp_path / "waiting/metrics.json").unlink()
    with pytest.raises(ConfigError, match="no run is measured yet"):
        report([tmp_path / "waiting"], tmp_path / "report.html")
    report([runs / "good-0", tmp_path / "waiting"], tmp_path / "report.html")
    assert "not measured yet, so left out:" in Page(tmp_path / "report.html").text
    with pytest.raises(ConfigError, match=r"reports are written as \.html, not as \.pdf"):
        report([runs], tmp_path / "report.pdf")
    sasrec.train(chain_frame(users=30), tmp_path / "other", **small(num_epochs=1))
    with pytest.raises(EvaluationError, match="different protocols"):
        report([runs / "good-0", tmp_path / "other"], tmp_path / "report.html")


def test_the_headline_and_the_seeds_agree_where_the_order_of_a_comparison_decides(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.studies.report.results._RESAMPLES", 100)
    cells = [Cell(name, (runs / f"{name}-0", runs / f"{name}-1")) for name in ("poor", "good")]
    found = results_of(cells, "ndcg@10")
    assert found.table is not None
    unsure = dataclasses.replace(found.table.others[0], verdict="no difference", adjusted_p=0.051)
    lead, sentences = headline(
        dataclasses.replace(found, table=dataclasses.replace(found.table, others=(unsure,)))
    )
    assert lead == "good is best on validation, but on test no difference from poor was shown."
    assert "With 2 seeds each, good cannot be separated from poor." in sentences
    assert "With 2 seeds each, good is shown to be better than poor." in headline(found)[1]


def test_a_run_with_own_code_is_repeated_in_python(tmp_path: Path) -> None:
    own = {"encoder": Own, "loss_function": own_loss}
    for seed in (0, 1):
        sasrec.train(chain_frame(), tmp_path / f"own-{seed}", **small(num_epochs=1, seed=seed), **own)
    sasrec.train(chain_frame(), tmp_path / "plain", **small(num_epochs=1))
    report([tmp_path], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert re.search(
        r"sasrec\.train\('DATA', '[^']*own-0', encoder=Own, loss_function=own_loss, maxlen=12,", page.text
    )
    assert f"# in Python, with {__name__}.Own and {__name__}.own_loss; also with seed=1" in page.text
    assert f"encoder – {__name__}.Own –" in page.text  # a setting, and its default
    assert re.search(r"sasrec train [^\n]*plain", page.source)
    assert not re.search(r"sasrec train [^\n]*own-0", page.source)
    report([tmp_path / "own-0"], tmp_path / "report.html")
    assert f"a report cannot load your class {__name__}.Own." in Page(tmp_path / "report.html").text


def test_lists_are_missing_with_the_reason_if_the_data_has_moved(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame()).save(tmp_path / "data")
    sasrec.train(str(tmp_path / "data"), tmp_path / "run", **small(num_epochs=1))
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    report([tmp_path / "run"], tmp_path / "report.html")
    assert "Examples cannot be shown: the data of the run" in Page(tmp_path / "report.html").text


def test_without_matplotlib_the_extra_is_named(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    for command in (
        ["plot", "--output", str(tmp_path / "a.png")],
        ["report", "--output", str(tmp_path / "a.html")],
    ):
        assert main([command[0], str(runs / "good-0"), *command[1:]]) == 1
        assert 'pip install "sasrec[reports]"' in capsys.readouterr().err


def test_titles_are_shown_where_the_data_has_them(tmp_path: Path) -> None:
    frame = chain_frame()
    frame.write_csv(tmp_path / "events.csv")
    titles = pl.DataFrame(
        {"item": sorted(set(frame["item"])), "title": [f"The {SCRIPT} & {at}" for at in range(25)]}
    )
    titles.write_csv(tmp_path / "items.csv")
    data = tmp_path / "data"
    arguments = [
        "prepare",
        str(tmp_path / "events.csv"),
        "--items",
        str(tmp_path / "items.csv"),
        "--output",
        str(data),
    ]
    assert main(arguments) == 0
    sasrec.train(str(data), tmp_path / "run", **small(num_epochs=1))
    report([tmp_path / "run"], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert f"The {SCRIPT} & " in page.text
    assert [of for tag, of in page.tags if tag == "script"] == [{}]


def test_the_chosen_cell_is_the_best_on_validation(runs: Path, tmp_path: Path) -> None:
    def validation(run: Path) -> Any:
        return RunFolder(run).metrics()["valid"]["full"]["ndcg@10"]

    report([runs / "good-0", runs / "poor-0"], tmp_path / "report.html")
    assert validation(runs / "good-0") > validation(runs / "poor-0")
    assert "good-0, the base, is best on validation: NDCG@10" in Page(tmp_path / "report.html").text
