"""What commands print, at the widths of terminals and for other programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import sasrec
from sasrec.cli import data_commands, sentences, tables
from sasrec.cli.console import say
from sasrec.evaluation.significance import Difference
from sasrec.studies.compare import compare
from tests.synthetic import late_frame, small

SMALL = small(hidden_units=8, num_epochs=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a temporal split, whose protocol has the most to say."""
    folder = tmp_path_factory.mktemp("tables") / "r"
    sasrec.train(late_frame(), folder, split="temporal:0.8", **SMALL)
    return folder


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prints to a terminal of that width, and returns what it shows."""

    def at(width: int, show: Any) -> str:
        console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, highlight=False)
        for module in (tables, data_commands):
            monkeypatch.setattr(module, "out", console)
        show()
        return console.file.getvalue()  # type: ignore[attr-defined]

    return at


def commands(run: Path) -> dict[str, Any]:
    metrics = sasrec.evaluate(run, device="cpu", details=True)
    several = [f"{run}:popularity", f"{run}:markov", str(run)]
    return {
        "evaluate": lambda: tables.print_run(run, metrics, sampled=True),
        "compare": lambda: tables.print_comparison(compare(several, metric="hr@20")),
        "datasets": lambda: data_commands.Datasets().run(),
    }


@pytest.mark.parametrize("command", ["evaluate", "datasets"])
def test_text_wraps_at_words_and_tables_fit(command: str, run: Path, shown: Any) -> None:
    show = commands(run)[command]
    wide = shown(200, show)
    for width in (70, 80):
        narrow = shown(width, show)
        assert max(map(len, narrow.splitlines())) <= width
        assert narrow.split() == wide.split(), "no word is broken"


def test_everything_fits_60_columns(run: Path, shown: Any) -> None:
    for show in commands(run).values():
        assert max(map(len, shown(60, show).splitlines())) <= 60
    assert "…" not in shown(60, commands(run)["evaluate"])


def test_a_very_narrow_table_keeps_its_row_names_and_drops_metrics(run: Path, shown: Any) -> None:
    lines = shown(40, commands(run)["evaluate"]).splitlines()
    assert any(line.split() == ["NDCG@10", "HR@10", "MRR@10"] for line in lines)
    assert any(line.startswith("item-to-item ") for line in lines)


def test_a_narrow_comparison_leaves_differences_to_the_sentences(run: Path, shown: Any) -> None:
    show = commands(run)["compare"]
    assert "Holm's p  " not in shown(60, show).partition("\n")[0]
    assert "95 % interval" in shown(200, show).partition("\n")[0]
    sentences = " ".join(shown(60, show).split())
    assert "95 % interval" in sentences or "95 % confidence interval" in sentences


def test_other_programs_get_whole_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_run(run, sasrec.evaluate(run, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("split: temporal: validation from ") and ", test from " in line for line in lines)
    assert any(line.startswith("Difference ") and line.endswith(".") for line in lines)


def test_brackets_in_a_sentence_are_no_markup() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    say(console, "data [bold]mine[/bold]", label="note:", style="yellow")
    assert console.file.getvalue() == "note: data [bold]mine[/bold]\n"  # type: ignore[attr-defined]


def test_no_sentence_of_a_result_is_longer_than_25_words(run: Path) -> None:
    from sasrec.studies.verdict import verdict_on

    metrics, found = sasrec.evaluate(run, device="cpu"), verdict_on(run)
    said = [
        *sentences.verdict(found),
        *(f"{label} {words}" for label, words in sentences.protocol(metrics["protocol"]) if "skips" not in label),
        sentences.intervals(found.intervals),
        sentences.sampled(metrics, "test", shown=False),
        sentences.sampled(metrics, "test", shown=True),
        *sentences.against_best_baseline(metrics, None),
        *sentences.against_best_baseline(metrics, Difference(0.1, -0.1, 0.3, 0.5)),
    ]
    for each in said:
        for sentence in each.split(". "):
            assert len(sentence.split()) <= 25, sentence


def figures(model: float, **baselines: float) -> dict[str, Any]:
    def of(value: float) -> dict[str, Any]:
        return {"test": {"full": {"ndcg@10": value}}}

    return of(model) | {"baselines": {name: of(value) for name, value in baselines.items()}}


@pytest.mark.parametrize(
    ("metrics", "change", "words"),
    [
        (figures(0.08, popularity=0.1), None, "The model is below the best baseline, popularity: NDCG@10 .0800 against .1000. One user on test says nothing about others."),
        (figures(0.0, popularity=0.0), None, "The model is equal to the best baseline, popularity: NDCG@10 .0000 against .0000. One user on test says nothing about others."),
        (figures(0.08, popularity=0.1), (-0.02, -0.05, 0.01), "No difference shown between the model and the best baseline, popularity: NDCG@10 .0800 against .1000. Difference -.0200, 95 % interval -.0500 to .0100 over users."),
        (figures(0.2, popularity=0.1) | {"scorer": "blend"}, (0.1, 0.05, 0.2), "The blend is better than the best baseline, popularity: NDCG@10 .2000 against .1000. Difference .1000, 95 % interval .0500 to .2000 over users."),
        (figures(0.1, popularity=0.2) | {"scorer": "own-recent"}, (-0.1, -0.2, -0.05), "own-recent is worse than the best baseline, popularity: NDCG@10 .1000 against .2000. Difference -.1000, 95 % interval -.2000 to -.0500 over users."),
    ],
)  # fmt: skip
def test_the_verdict_on_what_is_not_saved_uses_the_interval(
    metrics: dict[str, Any], change: tuple[float, float, float] | None, words: str
) -> None:
    difference = None if change is None else Difference(*change, p_value=0.5)
    assert " ".join(sentences.against_best_baseline(metrics, difference)) == words


def test_signs_that_steer_a_terminal_are_shown_as_escapes(
    tmp_path: Path, shown: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = [f"item-{n:02d},Title {n}\n" for n in range(26) if n != 3]
    (tmp_path / "t.csv").write_text("id,title\nitem-03,A\x1b[2J \u202eB\u00a0é\n" + "".join(titles))
    data = sasrec.prepare(late_frame(), items=tmp_path / "t.csv")
    recommender = sasrec.train(data, tmp_path / "run", **SMALL)
    wide = shown(100, lambda: tables.print_items(recommender, [("item-03", 1.0)]))
    assert r"A\x1b[2J \u202eB" in wide
    assert "\x1b[2J" not in wide
    assert "é" in wide
    say(tables.out, "a\x1b]0;title\x07b\nc")
    assert r"a\x1b]0;title\x07b" in tables.out.file.getvalue()


class OfTitles:
    """As much of a recommender as a table of its items needs."""

    def title(self, item: str) -> str:
        return {"a\tb": "宇宙戦艦ヤマト", "c": "tab\there", "項目": "Amélie 🎬"}[item]


def test_tabs_and_wide_characters_do_not_shift_columns(
    shown: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items: Any = [("a\tb", 0.5), ("c", 0.25), ("項目", 0.125)]
    recommender: Any = OfTitles()
    lines = shown(60, lambda: tables.print_items(recommender, items)).splitlines()
    starts = [
        cell_len(line[: line.index(word)]) for line, word in zip(lines, ["title", "宇", "tab", "Am"], strict=True)
    ]
    assert len(set(starts)) == 1, lines
    assert "tab\\there" in lines[2]
    monkeypatch.setattr(tables, "out", Console(file=io.StringIO()))
    tables.print_items(recommender, items)
    assert [len(line.split("\t")) for line in capsys.readouterr().out.splitlines()] == [4] * 4
