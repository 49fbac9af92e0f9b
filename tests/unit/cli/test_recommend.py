"""The command line recommends for a file of histories, gives reasons, and lists similar items."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import SasrecWarning
from sasrec.runs.lists import write_lists
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
        assert "1 history has no item" in said
        found = pl.read_parquet(output) if ending == "parquet" else pl.read_csv(output)
        assert found.columns == ["user", "item", "score", "rank"]
        model = sasrec.load(run)
        assert found.filter(pl.col("user") == 9)["item"].to_list() == [
            item for item, _ in model.recommend(["item-20"], 3)
        ]
        assert found["user"].to_list() == [7, 7, 7, 9, 9, 9]


def test_the_csv_for_a_file_is_that_for_all_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.runs.lists._AT_ONCE", 9)
    comma = pl.when(pl.col("item") == "item-03").then(pl.lit('a "b", c')).otherwise("item")
    frame = chain_frame(users=20).with_columns(item=comma)
    sasrec.train(frame, tmp_path / "run", **small(num_epochs=1))
    frame.group_by("user", maintain_order=True).agg(items="item").write_parquet(tmp_path / "histories.parquet")
    for words in (["--all"], ["--histories", str(tmp_path / "histories.parquet")]):
        output = f"--output={tmp_path / words[0][2:]}.csv"
        assert main(["recommend", str(tmp_path / "run"), *words, output, "--device=cpu", "--k=30"]) == 0
    lines = [(tmp_path / f"{name}.csv").read_text().splitlines() for name in ("all", "histories")]
    assert lines[1][0] == "user,item,score,rank"
    assert any('"a ""b"", c"' in line for line in lines[1])
    texts = [[line.replace('"a ""b"", c"', "abc").split(",") for line in each] for each in lines]
    # The last digits of scores can differ.
    assert [(user, rank) for user, _, _, rank in texts[0]] == [(user, rank) for user, _, _, rank in texts[1]]
    assert not [line for line in lines[1] if '"' in line.replace('"a ""b"", c"', "")]


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


def refused(run: Path, source: Path, output: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The error of recommending for a file, which leaves the old output."""
    output.write_text("old")
    names = set(output.parent.iterdir())
    capsys.readouterr()
    assert main(["recommend", str(run), f"--histories={source}", f"--output={output}", *options]) == 1
    assert output.read_text() == "old"
    assert set(output.parent.iterdir()) == names
    return " ".join(capsys.readouterr().err.split())


def saved(path: Path, items: Any, **columns: Any) -> Path:
    """A file of histories; some values are of types that only Arrow writes."""
    users = [f"u{row}" for row in range(len(items))]
    pyarrow.parquet.write_table(pa.table({"user": users, "items": items, **columns}), path)
    return path


def test_a_file_without_a_known_item_is_refused_unless_a_fallback_answers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.runs.lists._AT_ONCE", 2)
    output, source = tmp_path / "top.parquet", saved(tmp_path / "ints.parquet", [[1], [2, 3], [4]])
    said = refused(run, source, output, capsys)
    assert "ints.parquet has an item that the model knows: its ids are such as 1, 2, 3, those of the model" in said
    assert "such as item-00, item-01, item-02. Write the ids" in said
    empty = saved(tmp_path / "empty.parquet", pa.array([[], []], pa.list_(pa.string())))
    assert "all lists of items in" in refused(run, empty, output, capsys)
    known = saved(tmp_path / "known.parquet", [["item-01"], ["ghost"], ["item-02"]])
    assert "nothing is left" in refused(run, known, output, capsys, "--allow=item-01", "--deny=item-01")
    for path, of_fallback in ((source, 3), (known, 1)):
        command = ["recommend", str(run), f"--histories={path}", f"--output={output}", "--fallback=popular"]
        assert main(command) == 0
        assert f"{of_fallback} of 3 histories have no known item and get" in capsys.readouterr().err
        assert pl.read_parquet(output).filter(source="popular")["user"].n_unique() == of_fallback


def test_ids_with_blanks_around_them_are_those_of_the_data(run: Path, tmp_path: Path) -> None:
    model = sasrec.load(run)
    padded, plain = (saved(tmp_path / f"{n}.parquet", [[f"{s}item-01{s}"]]) for n, s in ((0, " "), (1, "")))
    found = [tmp_path / f"{n}.csv" for n in range(2)]
    for source, output in zip((padded, plain), found, strict=True):
        write_lists(model, source, output, 3)
    assert found[0].read_text() == found[1].read_text()
    assert model.recommend([" item-01\t"], 3) == model.recommend(["item-01"], 3)
    assert model.recommend_user(" u003 ", 3) == model.recommend_user("u003", 3)
    best = model.recommend(["item-01"], 1)[0][0]
    rules = sasrec.Rules(bans=pl.DataFrame({"user": ["u0 "], "item": [f" {best}"]}))
    write_lists(model, padded, found[0], 3, rules=rules)
    assert best not in pl.read_csv(found[0])["item"]
    with pytest.warns(
        SasrecWarning, match=r"rules: bans name 1 user, such as x, but no history of .*0\.parquet is"
    ):
        write_lists(model, padded, found[0], 3, rules=sasrec.Rules(bans={"x": [best]}))


def test_what_is_no_id_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "top.parquet"
    for items, words in (
        ([[{"id": "item-01"}]], "histories are lists of structs. Give lists of ids, which are text or integers."),
        ([[["item-01"]]], "histories are lists of lists."),
        ([[b"item-01", b"\xff"]], "histories are lists of bytes."),
        (["item-01"], "must be a column of lists"),
    ):
        assert words in refused(run, saved(tmp_path / "odd.parquet", items), output, capsys)


def test_errors_of_a_file_name_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, whole = tmp_path / "top.parquet", saved(tmp_path / "whole.parquet", [["item-01", "item-02"] * 500])
    other = tmp_path / "other.parquet"
    pl.DataFrame({"user": [1], "item": [["item-01"]], "at": [0]}).write_parquet(other)
    said = refused(run, other, output, capsys)
    assert "other.parquet: the table has no column 'items', only user, item, at." in said
    assert f"{tmp_path}: it is a folder, not a file. Name a Parquet file" in refused(run, tmp_path, output, capsys)
    damaged, content = tmp_path / "damaged.parquet", bytearray(whole.read_bytes())
    pl.read_parquet(whole).write_parquet(damaged, compression="zstd")
    content = bytearray(damaged.read_bytes())
    content[12:60] = bytes(48)
    damaged.write_bytes(content)
    assert "damaged.parquet cannot be read as Parquet: " in refused(run, damaged, output, capsys)


def test_wrong_times_of_a_file_name_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.runs.lists._AT_ONCE", 2)
    run, output = tmp_path / "timed", tmp_path / "top.parquet"
    sasrec.train(chain_frame(), run, **small(num_epochs=1, time=True))
    items = [["item-01", "item-02"]] * 4
    for times, words in (
        ([1.0], "row 3 (user u2): it has 2 items, but 1 time. Give one time per item."),
        ([2.0, 1.0], "row 3 (user u2): times must be finite numbers in ascending order"),
        ([1.0, 1e18], "row 3 (user u2): times must be in seconds, but 1e+18 is too large"),
    ):
        source = saved(tmp_path / "wrong.parquet", items, times=[[1.0, 2.0], [0.0, 0.0], times, [1.0, 2.0]])
        said = refused(run, source, output, capsys)
        assert f"wrong.parquet, {words}" in said
        assert "--times" not in said


@pytest.mark.parametrize("same", [Path, lambda path: path.parent / "." / ".." / path.parent.name / path.name])
def test_a_file_that_is_read_is_never_replaced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], same: Callable[[Path], Path]
) -> None:
    source = saved(tmp_path / "top.parquet", [["item-01"]])
    link, events, bans = tmp_path / "link.parquet", tmp_path / "events.csv", tmp_path / "bans.csv"
    link.symlink_to(source)
    chain_frame().write_csv(events)
    bans.write_text("user,item\nu000,item-03\n")
    rules, deny = tmp_path / "rules.toml", tmp_path / "deny.csv"
    rules.write_text('bans = "bans.csv"')
    deny.write_text("item-03\n")
    sasrec.train(events, tmp_path / "run", **small(num_epochs=1, split="temporal:0.8"))
    recommend, evaluate = (
        ["recommend", str(tmp_path / "run")],
        ["evaluate", str(tmp_path / "run"), "--whole_period"],
    )
    kept = {path: path.read_bytes() for path in (source, events, bans, deny)}
    for command, output, name in (
        ([*recommend, f"--histories={source}"], source, "--histories"),
        ([*recommend, f"--histories={link}"], source, "--histories"),
        ([*recommend, f"--histories={source}"], link, "--histories"),
        ([*recommend, "--all", f"--dataset={events}"], events, "--dataset"),
        ([*recommend, "--all", f"--dataset={tmp_path}"], events, "--dataset"),
        ([*recommend, "--all"], events, "the data of the run"),
        ([*recommend, "--all", f"--rules={rules}"], bans, "bans"),
        ([*recommend, "--all", f"--deny=@{deny}"], deny, "--deny"),
        ([*evaluate, f"--test={events}"], events, "--test"),
        ([*evaluate], events, "the data of the run"),
    ):
        option = "--per_user" if command[0] == "evaluate" else "--output"
        assert main([*command, f"{option}={same(output)}"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"would replace a file that the command reads ({name}). Name another file." in said
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_a_sentence_and_leaves_the_old_output(
    run: Path,
    histories: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signum: int,
    status: int,
) -> None:
    output = tmp_path / "top.parquet"
    output.write_text("old")
    names = set(tmp_path.iterdir())
    monkeypatch.setattr("sasrec.runs.lists._AT_ONCE", 1)
    call = sasrec.Recommender.__call__

    def slow(model: sasrec.Recommender, table: Any, *arguments: Any, **options: Any) -> Any:
        if table.column("user")[0].as_py() == 8:
            assert set(tmp_path.iterdir()) > names, "a part is written"
            os.kill(os.getpid(), signum)
        return call(model, table, *arguments, **options)

    monkeypatch.setattr(sasrec.Recommender, "__call__", slow)
    command = ["recommend", str(run), f"--histories={histories}", f"--output={output}"]
    if signum == signal.SIGTERM:
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == status
        assert signal.getsignal(signum) == signal.SIG_DFL
    else:
        assert main(command) == status
    assert f"stopped; {output} has not been written" in " ".join(capsys.readouterr().err.split())
    assert output.read_text() == "old"
    assert set(tmp_path.iterdir()) == names


def test_a_user_who_has_every_item_is_no_example_and_may_have_seen_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"u{user}", f"i{(user + at) % 6}", 1.7e9 + 86400 * at) for user in range(20) for at in range(6)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    frame = pl.concat([frame, frame.filter(pl.col("user") == "u1").head(4).with_columns(user=pl.lit("v1"))])
    frame.write_csv(tmp_path / "events.csv")
    train = ["train", "--dataset", str(tmp_path / "events.csv"), "--train_dir", str(tmp_path / "run")]
    assert main([*train, "--num_epochs=1", "--maxlen=8", "--hidden_units=8"]) == 0
    assert "--user v1" in " ".join(capsys.readouterr().err.split())
    assert main(["recommend", str(tmp_path / "run"), "--user", "u0"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("because the history has every item that may be recommended. Add --include_seen.")
