"""The command line recommends for a file of histories, gives reasons, and lists similar items."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    sasrec.train(chain_frame(), folder, **small(num_epochs=15))
    return folder


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    path = tmp_path / "histories.parquet"
    pl.DataFrame({"user": [7, 8, 9], "items": [["item-01", "item-02"], ["ghost"], ["item-20"]]}).write_parquet(
        path
    )
    return path


def test_a_file_of_histories_gives_the_lists_of_single_calls(
    run: Path, histories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.runs.lists._AT_ONCE", 2)
    for ending in ("parquet", "csv"):
        output = tmp_path / f"top.{ending}"
        assert main(["recommend", str(run), f"--histories={histories}", f"--output={output}", "--k=3"]) == 0
        said = capsys.readouterr().err
        assert "lists for 2 of 3 histories written to" in said
        assert "1 histories have no item" in said
        found = pl.read_parquet(output) if ending == "parquet" else pl.read_csv(output)
        assert found.columns == ["user", "item", "score", "rank"]
        model = sasrec.load(run)
        assert found.filter(pl.col("user") == 9)["item"].to_list() == [
            item for item, _ in model.recommend(["item-20"], 3)
        ]
        assert found["user"].to_list() == [7, 7, 7, 9, 9, 9]


def test_what_cannot_be_read_leaves_no_file(
    run: Path, histories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, empty, other = tmp_path / "text.parquet", tmp_path / "empty.parquet", tmp_path / "other.parquet"
    text.write_text("not parquet")
    pl.read_parquet(histories).head(0).write_parquet(empty)
    pl.read_parquet(histories).rename({"items": "list"}).write_parquet(other)
    output = tmp_path / "top.parquet"
    for source, words in (
        (text, "cannot be read as Parquet"),
        (empty, "has no rows"),
        (other, "no column 'items'"),
        (tmp_path / "nowhere.parquet", "does not exist"),
    ):
        assert main(["recommend", str(run), f"--histories={source}", f"--output={output}"]) == 1
        assert words in capsys.readouterr().err
        assert {path.name for path in tmp_path.iterdir()} == {
            "histories.parquet",
            "text.parquet",
            "empty.parquet",
            "other.parquet",
        }
    for options, words in (
        ([f"--histories={histories}"], "--histories needs --output"),
        ([f"--histories={histories}", "--all"], "exactly one of"),
        ([f"--histories={histories}", f"--output={output}", "--why"], "--why is only for"),
        (
            [f"--histories={histories}", f"--output={tmp_path / 'top.xlsx'}"],
            "the file of --output must end in .parquet",
        ),
    ):
        assert main(["recommend", str(run), *options]) == 1
        assert words in capsys.readouterr().err


def test_reasons_are_items_of_the_history(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(run), "--history=item-11,item-03,item-20", "--k=1", "--why"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["rank", "item", "score", "because"]
    assert (row.split("\t")[1], row.split("\t")[3]) == ("item-21", "item-20")
    assert main(["recommend", str(run), "--user=u003", "--k=2", "--why"]) == 0
    assert set(sasrec.load(run).data.history("u003")) >= {
        line.split("\t")[3] for line in capsys.readouterr().out.splitlines()[1:]
    } - {""}


def test_similar_lists_items_with_their_cosines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", str(run), "item-05", "--k=3"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["rank", "item", "cosine"]
    assert [row.split("\t")[1] for row in rows] == [item for item, _ in sasrec.load(run).similar("item-05", 3)]
    assert main(["similar", str(run), "ghost"]) == 1
    assert "the item ghost is unknown" in capsys.readouterr().err
