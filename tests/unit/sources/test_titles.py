"""Titles of items: any usual format is read, matched by ids; what does not match is said or refused."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sasrec
from sasrec.cli.main import main
from sasrec.data.dataset import Dataset
from sasrec.errors import ConfigError, DataError
from sasrec.sources.tables import TableFile, open_table
from sasrec.sources.titles import Wanted, titled

IDS = [str(number) for number in range(1, 13)]
TITLES = {item_id: f"Title, part {item_id}; the: end" for item_id in IDS}


def events(ids: list[Any] = IDS) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": ["a"] * len(ids), "item": ids, "time": range(1_600_000_000, 1_600_000_000 + len(ids))}
    )


def prepared(path: Path, ids: list[Any] = IDS, **options: Any) -> Dataset:
    return sasrec.prepare(events(ids), items=path, **options)


def titles(data: Dataset) -> dict[str, str | None]:
    assert data.catalogue.titles is not None
    return dict(zip(map(str, data.catalogue.ids), data.catalogue.titles, strict=True))


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def lines(separator: str, *, header: str = "", quote: str = "", end: str = "\n") -> str:
    rows = [f"{quote}{i}{quote}{separator}{quote}{title}{quote}{separator}x" for i, title in TITLES.items()]
    return end.join([*([header.replace("|", separator)] if header else []), *rows, ""])


@pytest.mark.parametrize(
    "header", ["", "movieId|title|genres", "sku|label|kind", "item_id:token|name:token|c:token"]
)
@pytest.mark.parametrize("separator", ["\t", "::", ",", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_separator_and_unicode_encoding_is_read_with_and_without_a_header(
    header: str, separator: str, encoding: str, end: str, tmp_path: Path
) -> None:
    quote = '"' if separator in ",;" else ""
    if separator == "::":
        header = header.replace(":token", "")
    text = lines(separator, header=header, quote=quote, end=end)
    data = prepared(written(tmp_path / "x.any", text, encoding), items_group="2" if not header else None)
    assert titles(data) == TITLES
    said = [note for note in data.report["warnings"] if "x.any" in note]
    if header:
        assert data.catalogue.groups is None
        assert said == [f"titles are the column {header.replace(':token', '').split('|')[1]} of x.any"]
    else:
        assert data.catalogue.groups is not None
        assert data.catalogue.groups.to_list() == ["x"] * 12
        assert said == ["x.any has no header, because its first line has an id"]


def test_the_first_line_is_an_item_though_the_data_does_not_have_it(tmp_path: Path) -> None:
    data = prepared(written(tmp_path / "movies.dat", lines("::")), IDS[1:])
    assert titles(data) == {i: TITLES[i] for i in IDS[1:]}
    assert "movies.dat has no header, because its first line has an id" in data.report["warnings"]


@pytest.mark.parametrize("form", ["lines", "array", "parquet", "gzip"])
def test_objects_and_typed_tables_are_read(form: str, tmp_path: Path) -> None:
    rows = [{"asin": int(i), "name": title, "tags": ["a", i]} for i, title in TITLES.items()]
    path = tmp_path / ("titles.parquet" if form == "parquet" else "titles.json")
    if form == "parquet":
        # pandas turns integers into floats when a value is missing
        pl.DataFrame(rows).with_columns(pl.col("asin").cast(pl.Float64)).write_parquet(path)
    elif form == "array":
        written(path, json.dumps(rows, indent=1), "utf-8-sig")
    else:
        text = "\n".join(map(json.dumps, rows)) + "\n\nnot JSON\n"
        path = written(path, text) if form == "lines" else tmp_path / "titles.jsonl.gz"
        if form == "gzip":
            path.write_bytes(gzip.compress(text.encode()))
    data = prepared(path, list(map(int, IDS)), items_group="tags")
    assert titles(data) == TITLES
    assert data.catalogue.groups is not None
    assert data.catalogue.groups[0] == '["a", "1"]'
    assert any("1 line of" in note and "line 14" in note for note in data.report["warnings"]) == (
        form in ("lines", "gzip")
    )


def test_files_of_western_europe_are_read_with_a_note_and_others_refused(tmp_path: Path) -> None:
    text = lines("::").replace("part 3;", "café 3;")
    data = prepared(written(tmp_path / "m.dat", text, "latin-1"))
    assert titles(data)["3"] == TITLES["3"].replace("part 3;", "café 3;")
    assert "read as Windows-1252, for example 'Title, café 3" in " ".join(data.report["warnings"])
    for other, encoding in (("пример", "cp1251"), ("电影名字", "gbk"), ("タイトル", "shift-jis")):
        with pytest.raises(DataError, match=r"not UTF-8 text.*save text as UTF-8"):
            prepared(written(tmp_path / "m.dat", text.replace("café", other), encoding))
    with pytest.raises(DataError, match="UTF-16 without a byte order mark"):
        prepared(written(tmp_path / "m.dat", lines(","), "utf-16-le"))


def test_two_titles_of_an_item_are_said_and_the_first_is_kept(tmp_path: Path) -> None:
    text = "id,title,genre\n" + "".join(f"{i},T{i},g\n" for i in IDS) + "3,T3,g\n4,Other,g\n4,Third,h\n5,Five,g\n"
    data = prepared(written(tmp_path / "t.csv", text), items_group="genre")
    assert titles(data) == {i: f"T{i}" for i in IDS}
    assert "2 items have two titles in t.csv and keep the first; 4 has 'T4' and 'Other'" in data.report["warnings"]
    assert "1 item has two groups in t.csv and keeps the first; 4 has 'g' and 'h'" in data.report["warnings"]


@pytest.mark.parametrize(("have", "refused"), [(12, False), (11, False), (6, False), (5, True), (0, True)])
def test_items_without_a_title_are_counted_and_below_half_refused(
    have: int, refused: bool, tmp_path: Path
) -> None:
    path = written(tmp_path / "t.csv", "id,title\nx,X\n" + "".join(f"{i},T\n" for i in IDS[:have]))
    if refused:
        with pytest.raises(
            DataError, match=rf"only {have} of 12 items.*column id has x, but the data has .*columns"
        ):
            prepared(path, output=tmp_path / "data")
        assert not (tmp_path / "data/manifest.json").exists()
    else:
        said = [note for note in prepared(path).report["warnings"] if "t.csv" in note]
        assert said == ([f"{have} of 12 items have a title in t.csv"] if have < 12 else [])
    assert [f"{have} of 12 items have a title in t.csv"] == [
        note
        for note in titled(sasrec.prepare(events()), open_table(path), Wanted(), partial=True).report["warnings"]
        if "t.csv" in note
    ] or have == 12


@pytest.mark.parametrize("theirs", [lambda i: i.zfill(5), lambda i: f"{i}.0", lambda i: f"00{i}.00"])
@pytest.mark.parametrize("turned", [False, True])
def test_ids_that_match_only_without_zeros_are_refused_with_the_reason(
    theirs: Any, turned: bool, tmp_path: Path
) -> None:
    changed = list(map(theirs, IDS))
    data, file = (changed, IDS) if turned else (IDS, changed)
    path = written(tmp_path / "t.csv", "id,title\n" + "".join(f"{i},T\n" for i in file))
    with pytest.raises(DataError, match=r"only 0 of 12.*They match only without zeros.*dtype=str"):
        prepared(path, data)
    some = written(tmp_path / "some.csv", "id,title\n" + "".join(f"{i},T\n" for i in [*data[:8], *file[8:]]))
    said = " ".join(prepared(some, data).report["warnings"])
    assert "8 of 12 items have a title in some.csv" in said
    assert "4 items without a row differ from an id of the file only in zeros" in said


def test_another_column_of_ids_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"category": "c", "title": title, "code": i} for i, title in TITLES.items()]
    path = written(tmp_path / "meta.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"Column code has 12 of them\. Use items_id='code'"):
        prepared(path)
    assert titles(prepared(path, items_id="code")) == TITLES
    events().write_csv(tmp_path / "e.csv")
    command = ["prepare", str(tmp_path / "e.csv"), "--output", str(tmp_path / "d"), "--items", str(path)]
    assert main(command) == 1
    assert "Use --items_id code." in capsys.readouterr().err
    assert main([*command, "--items_id", "code"]) == 0
    assert "note: titles are the column title of meta.jsonl" in capsys.readouterr().out
    numbered = written(tmp_path / "n.dat", "".join(f"c::{title}::{i}\n" for i, title in TITLES.items()))
    with pytest.raises(DataError, match="Use items_id='2'"):
        prepared(numbered)
    assert titles(prepared(numbered, items_id="2", items_title="1")) == TITLES


def test_of_two_numberings_the_one_with_fewer_items_is_not_taken_silently(tmp_path: Path) -> None:
    text = "movie_id,title,dense_id\n" + "".join(f"{i},T{n},{n}\n" for n, i in enumerate([1, *range(3, 20)], 1))
    path = written(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match="items_id='dense_id', or items_id='movie_id' if the first is right"):
        prepared(path)
    assert titles(prepared(path, items_id="dense_id")) == {i: f"T{i}" for i in IDS}
    assert titles(prepared(path, items_id="movie_id"))["3"] == "T2"
    assert titles(prepared(path, items_id="movie_id"))["2"] is None


def test_a_column_that_is_missing_is_refused_with_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "1,A,x\n2,B,y\n")
    with pytest.raises(DataError, match=r"no column 'name'; its first line is an item, so .* numbered: 0, 1, 2"):
        prepared(path, ["1", "2"], items_title="name")
    with pytest.raises(DataError, match="no column '3'"):
        prepared(path, ["1", "2"], items_title="3")


def test_lines_that_cannot_be_split_are_counted(tmp_path: Path) -> None:
    text = "id,title\n" + "".join(f"{i},T{i}\n" for i in IDS[:9]) + '10,A, B\n11,"never closed\n12,T12\n'
    data = prepared(written(tmp_path / "t.csv", text))
    assert titles(data) == {i: f"T{i}" for i in IDS[:9]} | dict.fromkeys(IDS[9:])
    said = "3 lines of t.csv are ignored, because the number of fields is not 2 or a quote is not closed; "
    assert f"{said}the first is line 11" in data.report["warnings"]
    with pytest.raises(DataError, match=r"9 lines of t\.csv are ignored.*the first is line 5"):
        prepared(
            written(tmp_path / "t.csv", 'id,title\n1,A\n2,B\n3,C\n4,"D\n' + "".join(f"{i},T\n" for i in IDS[4:]))
        )


def test_quotes_in_titles_stay_and_quotes_around_fields_go(tmp_path: Path) -> None:
    odd = {i: f'"Weird" Al {i}' for i in IDS}
    raw = written(tmp_path / "raw.tsv", "".join(f"{i}\t{title}\n" for i, title in odd.items()))
    assert titles(prepared(raw)) == odd
    for separator in "\t,;|":
        frame = pl.DataFrame({"id": IDS, "title": list(odd.values())})
        frame.write_csv(tmp_path / "quoted.txt", separator=separator)
        assert titles(prepared(tmp_path / "quoted.txt")) == odd


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"id\n1\n2\n", "one column"),
        (b"PK\x03\x04\x00\x00\xff\xfe", "UTF-8"),
        (b"\x1f\x8bbroken", "UTF-8"),
        (b'{"a": 1', "one column"),
    ],
)
def test_files_that_are_not_tables_are_refused_before_the_events_are_read(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.sources.resolve.read_events", lambda *_: pytest.fail("the events were read"))
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"u\.csv does not exist \(.*t\.csv does\)\. Check the path"):
        prepared(tmp_path / "u.csv")
    with pytest.raises(ConfigError, match="`items` must be the path of a file, not a DataFrame"):
        prepared(pl.DataFrame())  # type: ignore[arg-type]
    for name in ("", "t.csv.gz", "t.parquet"):
        if name.startswith("t."):
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            prepared(tmp_path / name)


def test_titles_do_not_change_the_hash_of_the_data(tmp_path: Path) -> None:
    data = prepared(written(tmp_path / "t.csv", lines(";")))
    assert data.data_hash == sasrec.prepare(events()).data_hash


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters='"\x7f\x85'), max_size=12)


@settings(deadline=None)
@given(
    # They begin with x, because ids such as NA or null count as missing.
    ids=st.lists(st.from_regex(r"x[A-Za-z0-9_-]{0,5}", fullmatch=True), min_size=2, max_size=20, unique=True),
    texts=st.lists(WORDS, min_size=20, max_size=20),
    names=st.sampled_from([("item", "title"), ("產品", "naam"), ("", "label"), ("Product Id", "x")]),
    form=st.sampled_from(list(itertools.product("\t,;|", ["utf-8", "utf-8-sig", "utf-16"], ["\n", "\r\n"]))),
)
def test_a_file_of_any_layout_gives_the_right_titles_or_is_refused(
    ids: list[str], texts: list[str], names: tuple[str, str], form: tuple[str, str, str], tmp_path_factory: Any
) -> None:
    separator, encoding, end = form
    texts = [text.strip() for text in texts[: len(ids)]]
    frame = pl.DataFrame({names[0]: ids, names[1]: texts})
    text = frame.write_csv(separator=separator, quote_style="necessary", line_terminator=end)
    path = written(tmp_path_factory.mktemp("titles") / "t.txt", text, encoding)
    truth = {i: title or None for i, title in zip(ids, texts, strict=True)}
    assert titles(prepared(path, ids)) == truth
    table: TableFile = open_table(path)
    assert not table.guessed_encoding


def test_items_of_own_validation_and_test_files_get_titles_and_count_as_items(tmp_path: Path) -> None:
    frame = events()
    parts = {"valid": frame[8:10], "test": frame[10:]}
    others = {name: pl.concat([frame[:1], part]) for name, part in parts.items()}  # each shares an item
    path = written(tmp_path / "x.csv", lines(";", header="id|title|genre", quote='"'))
    data = sasrec.prepare(frame[:8], **others, items=path, items_group="genre", output=tmp_path / "data")
    assert titles(data) == TITLES
    assert data.parts is not None
    assert data.report["parts"] == {"training": 8, "validation": 3, "test": 3}
    opened = sasrec.open_dataset(tmp_path / "data")
    assert titles(opened) == TITLES
    assert opened.catalogue.groups is not None
    assert opened.parts is not None

    few = written(tmp_path / "few.csv", "id,title\n" + "".join(f"{i},t\n" for i in IDS[8:]))
    with pytest.raises(DataError, match="only 4 of 12 items have a row"):
        sasrec.prepare(frame[:8], **others, items=few)


@pytest.mark.parametrize("first", ["", "rank", "index"])
def test_a_column_named_as_an_item_has_the_ids_even_if_numbers_come_first(first: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 3]})
    path = tmp_path / "titles.csv"
    path.write_text(f"{first},item_id,title\n0,3,C\n1,2,B\n2,1,A\n3,4,D\n")
    data = sasrec.prepare(frame, items=path)
    assert [data.catalogue.title(item) for item in (1, 2, 3)] == ["A", "B", "C"]


def test_a_column_of_numbers_before_the_ids_is_not_taken_for_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",id,title\n0,1,A\n1,2,B\n2,3,C\n3,4,D\n")
    assert prepared(tmp_path / "t.csv", [1, 2, 3]).catalogue.titles.to_list() == ["A", "B", "C"]
    (tmp_path / "t.csv").write_text("rank,nr,title\n3,1,A\n1,2,B\n2,3,C\n")
    with pytest.raises(DataError, match=r"rank and nr of .* may both have the ids.*items_id='nr'"):
        prepared(tmp_path / "t.csv", [1, 2, 3])
    titles = prepared(tmp_path / "t.csv", [1, 2, 3], items_id="nr").catalogue.titles
    assert titles.to_list() == ["A", "B", "C"]
