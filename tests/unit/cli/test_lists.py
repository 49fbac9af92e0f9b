"""Lists of ids on the command line: each id arrives as it is in the data, or the way to write it is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sasrec
from sasrec.cli.arguments import joined_values, misspelt
from sasrec.cli.data_commands import Prepare
from sasrec.cli.lists import ids
from sasrec.cli.main import main
from sasrec.cli.recommend import Recommend
from sasrec.errors import ConfigError
from tests.synthetic import chain_frame, small

COMMANDS = {"recommend": Recommend, "prepare": Prepare}
ITEMS = {"004", "029", "-5", "3", "a, b", "a", "b", "it 1", 'say "hi"', "x,y"}


def read(text: str, items: set[str] = ITEMS) -> list[str]:
    return ids("--deny", text, items.__contains__)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_file_gives_the_same_ids_whatever_its_encoding_ends_and_quotes(
    encoding: str, end: str, quote: str, tmp_path: Path
) -> None:
    path = tmp_path / "deny.txt"
    lines = [
        "",
        f"{quote}004{quote} ",
        "  ",
        f"\ufeff{quote}029{quote}",
        f"{quote}überzug{quote}",
        '"say ""hi"""',
        "",
    ]
    path.write_bytes(end.join(lines).encode(encoding))
    assert read(f"@{path}") == ["004", "029", "überzug", 'say "hi"']


def test_a_line_is_one_id_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    path.write_text('a, b\nx,y\nit 1\n-5\n"a, b"\n"half" quoted\nnew, item\n"a;b"\n')
    assert read(f"@{path}") == ["a, b", "x,y", "it 1", "-5", "a, b", '"half" quoted', "new, item", "a;b"]


@pytest.mark.parametrize(
    "line",
    ["004,029", "004;Title", "004\t5", "004 029", "004|x", "004::y", '"004","029"', "['004', '029']", '["004"]'],
)
def test_a_line_with_several_ids_or_columns_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    path.write_text(f"029\n{line}\n")
    with pytest.raises(ConfigError, match=r"deny\.txt, line 2: .*Write one id a line and nothing else"):
        read(f"@{path}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("é".encode("cp1252"), "not UTF-8 text.*iconv -f WINDOWS-1252 -t UTF-8"),
        ("004\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (None, "cannot be read.*begins with @ is written --deny '\"@id\"'"),
    ],
)
def test_a_file_that_is_not_readable_text_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "deny.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read(f"@{tmp_path / 'deny.txt'}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("004, 029,,", ["004", "029"]),
        ('"a, b",x', ["a, b", "x"]),
        ('x, "x,y"', ["x", "x,y"]),
        ('"a","b"', ["a", "b"]),
        ('"say ""hi"""', ['say "hi"']),
        ('"@home",3', ["@home", "3"]),
        ("it 1,new one", ["it 1", "new one"]),
        ("", []),
    ],
)
def test_ids_are_separated_by_commas_and_quoted_as_in_csv(text: str, found: list[str]) -> None:
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "3,a, b",
            r"a, b in --deny is the id of one item.* --deny '\"a, b\"' .* or --deny '\"a\",\"b\"' for several",
        ),
        ("x,y", r"--deny '\"x,y\"'"),
        ('3,"a', "double quotes of --deny .* do not match"),
        ("004 029", "'004 029' is not the id of an item, but '004' is. Separate ids by commas"),
        ("3,004;029", "'004;029' is not"),
        ("3,'004'", "\"'004'\" is not"),
    ],
)
def test_a_text_that_can_be_read_in_two_ways_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1), min_size=1))
def test_quoted_ids_come_back_as_they_were_written(given_ids: list[str]) -> None:
    given_ids = [item_id.strip("\ufeff") or "x" for item_id in given_ids]
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="").writerow(given_ids)
    assert read(stream.getvalue(), set(given_ids)) == given_ids


def test_values_that_begin_with_a_hyphen_are_joined_to_their_option() -> None:
    given_words = [
        "recommend",
        "run",
        "--history",
        "-5,3",
        "--user",
        "-u5",
        "--k",
        "2",
        "--deny",
        "-h",
        "--times",
        "-1",
    ]
    joined = ["recommend", "run", "--history=-5,3", "--user=-u5", "--k", "2", "--deny", "-h", "--times=-1"]
    assert joined_values(given_words, COMMANDS) == joined
    prepare = ["prepare", "x", "--item-column", "-1", "--max_rejects", "-1", "--item", "-id"]
    assert joined_values(prepare, COMMANDS) == [*prepare[:-2], "--item=-id"]
    assert joined_values(["--help"], COMMANDS) == ["--help"]
    assert misspelt(["recommend", "run", "--history", "--foo"], COMMANDS) == (
        "unknown option --foo of recommend; sasrec recommend --help lists the options; "
        "if --foo is the value of --history, write --history=--foo"
    )


@pytest.fixture(scope="module")
def hyphens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose users and items begin with hyphens; the items have a comma."""
    folder = tmp_path_factory.mktemp("hyphens")
    frame = chain_frame().with_columns(user="-" + pl.col("user"), item="-" + pl.col("item").str.replace("-", ", "))
    sasrec.train(sasrec.prepare(frame), folder / "run", **small(num_epochs=1))
    return folder / "run"


def test_ids_that_begin_with_hyphens_or_have_commas_are_found(
    hyphens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h.txt").write_text("-item, 03\n-item, 04\n")
    lists = []
    for history in (["--history", '"-item, 03","-item, 04"'], ["--history=@" + str(tmp_path / "h.txt")]):
        assert main(["recommend", str(hyphens), *history, "--k", "3"]) == 0
        lists.append(capsys.readouterr())
    assert lists[0] == lists[1]
    assert lists[0].err == ""
    assert main(["recommend", str(hyphens), "--user", "-u001"]) == 0
    assert main(["recommend", str(hyphens), "--history", "-item, 03"]) == 1
    assert """Write --history '"-item, 03"' for this item""" in capsys.readouterr().err


def test_unknown_ids_show_their_invisible_characters(hyphens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = '"-item, 03","-item,\u00a004",plain,zero\u200bwidth'
    assert main(["recommend", str(hyphens), "--history", history]) == 0
    assert "unknown items are ignored: '-item,\\xa004', plain, 'zero\\u200bwidth'" in capsys.readouterr().err


def test_nothing_left_to_recommend_is_an_error_that_says_why(
    hyphens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = tmp_path / "all.txt"
    everything.write_text("".join(f"-item, {number:02d}\n" for number in range(25)))
    (empty := tmp_path / "none.txt").write_text("\n\n")
    one, output = '"-item, 03"', tmp_path / "top.csv"
    history = ["--history", one]
    for asked, reason in (
        ([*history, "--allow", "ghost"], "the allow list has no known item"),
        ([*history, "--allow", '"-item, 05"', "--deny", '"-item, 05"'], "the allow list has no known item"),
        ([*history, "--allow", f"@{empty}"], "the allow list has no known item"),
        ([*history, "--deny", f"@{everything}"], "the deny list has every item"),
        ([*history, "--allow", one], "the history has every item that may be recommended"),
        (["--user", "-u001", "--deny", f"@{everything}"], "the deny list has every item"),
        (["--all", "--output", str(output), "--deny", f"@{everything}"], "the deny list has every item"),
    ):
        assert main(["recommend", str(hyphens), *asked]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert f"error: nothing is left to recommend because {reason}" in said.err
        assert "or add --include_seen." in said.err
        assert not output.exists()
    assert main(["recommend", str(hyphens), "--all", "--output", str(output), "--allow", one]) == 0
    assert " of 60 users because the history has every item that may be recommended" in capsys.readouterr().err


def test_a_file_without_its_sign_is_not_an_id(tmp_path: Path) -> None:
    (tmp_path / "deny.txt").write_text("004\n")
    with pytest.raises(ConfigError, match=rf"is a file.*write --deny @{tmp_path}/deny\.txt"):
        read(f"{tmp_path}/deny.txt")
