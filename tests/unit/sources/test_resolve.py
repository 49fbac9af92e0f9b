"""Public data sets by name, without a network: from a local copy, and from the cache."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import sasrec
from sasrec.errors import ConfigError, DataError, SasrecWarning
from sasrec.runtime.log import RunLog
from sasrec.sources import public as catalog
from sasrec.sources.convert import Located
from tests.synthetic import chain_frame, small

SMALL = small(num_epochs=1)


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SASREC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "ml-100k.tsv.gz"
    path.write_bytes(gzip.compress(chain_frame().write_csv(separator="\t").encode()))
    (tmp_path / "titles.tsv").write_text("item\ttitle\nitem-06\tThe Sixth\n")
    return path


def test_a_local_copy_is_used_instead_of_a_download(events: Path, tmp_path: Path) -> None:
    recommender = sasrec.train("ml-100k", tmp_path / "run", local_copy=events, **SMALL)
    assert recommender.data.num_users == 60
    assert recommender.data.name == "ml-100k"
    assert not (tmp_path / "cache/ml-100k/prepared").exists(), "what a user brought is not the public data set"


def test_a_public_data_set_is_prepared_once_and_then_taken_from_the_cache(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def locate(name: str, **_: object) -> Located:
        calls.append(name)
        return Located(events, {"user_column": "user"}, tmp_path / "titles.tsv", "item", "title", "the test")

    monkeypatch.setattr(catalog, "locate", locate)
    first = sasrec.train("ml-100k", tmp_path / "a", **SMALL)
    second = sasrec.train("ml-100k", tmp_path / "b", **SMALL)
    filtered = sasrec.train("ml-100k", tmp_path / "c", k_core=2, min_user_events=10, **SMALL)
    assert calls == ["ml-100k"] * 2, "filters are not in the cache"
    assert first.data.data_hash == second.data.data_hash != filtered.data.data_hash
    assert first.title("item-06") == second.title("item-06") == "The Sixth"
    assert first.title("item-07") is None
    assert sasrec.load(tmp_path / "b").data.data_hash == first.data.data_hash
    for content in ('{"format": 1}', "cut"):  # of an older version, or damaged
        (tmp_path / "cache/ml-100k/prepared/manifest.json").write_text(content)
        again = sasrec.train("ml-100k", tmp_path / f"again-{len(content)}", **SMALL)
        assert again.data.data_hash == first.data.data_hash
    assert calls == ["ml-100k"] * 4


def test_a_download_without_a_known_checksum_is_noted_at_each_use_and_recorded(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, digest = tmp_path / "cache", "5f" * 32
    raw = cache / "steam" / "raw"
    raw.mkdir(parents=True)
    (raw / "steam_reviews.json.events.tsv").write_bytes(gzip.decompress(events.read_bytes()))
    (cache / "steam" / "steam_reviews.json.gz.sha256").write_text(digest + "\n")
    note = (
        "steam_reviews.json.gz was downloaded without a known checksum, so its content is not verified; "
        f"its SHA-256 is {digest}"
    )
    for run in ("first", "from the prepared folder", "of an older version"):
        if run == "of an older version":
            older = sasrec.open_dataset(cache / "steam/prepared")
            older.report["warnings"].remove(note)
            older.save(cache / "steam/prepared")
        log = RunLog(None, Console(file=(told := io.StringIO()), width=1000))
        data = sasrec.train("steam", tmp_path / run, log=log, **SMALL).data
        assert told.getvalue().count(f"note: {note}") == 1
        assert data.report["warnings"].count(note) == 1
        assert (
            json.loads(next((tmp_path / run / "dataset").rglob("report.json")).read_text())["warnings"][0] == note
        )
    kept = sasrec.train("ml-100k", tmp_path / "local", local_copy=events, **SMALL).data.report["warnings"]
    assert not [each for each in kept if "checksum" in each], "what a user brought was not downloaded"


def test_a_column_that_the_public_data_set_does_not_have_is_an_error(events: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'nope'"):
        sasrec.train("ml-100k", tmp_path / "run", local_copy=events, user_column="nope", **SMALL)


@pytest.mark.parametrize("setting", [{"user_column": "who"}, {"time_unit": "ms"}])
def test_reading_a_download_otherwise_than_it_is_written_is_an_error(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    monkeypatch.setattr(catalog, "locate", lambda *_, **__: pytest.fail("it was fetched before it was refused"))
    with pytest.raises(ConfigError, match=f"read the same way; remove `{next(iter(setting))}`"):
        sasrec.train("ml-100k", tmp_path / "run", **setting, **SMALL)


def test_with_a_local_copy_a_public_name_means_the_data_set_though_a_folder_has_that_name(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ml-100k").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sasrec.train("ml-100k", tmp_path / "run", local_copy=events, **SMALL).data.name == "ml-100k"


def test_a_local_copy_of_an_unknown_data_set_is_an_error_that_has_the_names(events: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ml-100k"):
        sasrec.train("ML-100K", tmp_path / "run", local_copy=events, **SMALL)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_local_copy_of_what_is_not_a_public_data_set_is_an_error(
    events: Path, tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other"
    if kind == "file":
        chain_frame().write_csv(other)
    else:
        sasrec.prepare(events).save(other)
    with pytest.raises(
        ConfigError, match=r"`local_copy` is only for public data sets, and .*/other is a local path"
    ):
        sasrec.train(other, tmp_path / "run", local_copy=events, **SMALL)


def test_a_local_copy_beside_data_is_an_error(events: Path, tmp_path: Path) -> None:
    for data in (chain_frame(), sasrec.prepare(events)):
        with pytest.raises(
            ConfigError, match="Pass the name of a public data set as the data, or remove `local_copy`"
        ):
            sasrec.train(data, tmp_path / "run", local_copy=events, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "mark"), [("Video", ""), ("my set", "\ufeff")])
def test_a_name_is_looked_up_in_the_folder_data_as_published_code_does(
    name: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    lines = [f"{user} {10 * user + at}\n" for user in range(9) for at in (5, 3, 4, 6)]
    (tmp_path / "data" / f"{name}.txt").write_text(mark + "".join(lines), encoding="utf-8")
    with pytest.warns(
        SasrecWarning, match=rf"data/{name}\.txt is read as lines of a user and an item, in order of time"
    ):
        recommender = sasrec.train(name, tmp_path / "run", **SMALL)
    assert recommender.data.history("2") == ["25", "23", "24", "26"]
    with pytest.raises(DataError, match=r"Vide does not exist, and neither does data/Vide\.txt\. Name a file"):
        sasrec.train("Vide", tmp_path / "other", **SMALL)
    with pytest.raises(DataError, match=r"a/Vide does not exist\. Name a file"):
        sasrec.train("a/Vide", tmp_path / "other", **SMALL)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "folder"])
def test_a_name_that_no_file_can_have_does_not_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "folder.txt").mkdir(parents=True)
    for read in (sasrec.prepare, lambda named: sasrec.train(named, tmp_path / "run", **SMALL)):
        with pytest.raises(DataError, match="does not exist"):
            read(name)


def test_a_file_in_data_that_is_no_list_of_pairs_is_read_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    chain_frame().write_csv(tmp_path / "data" / "mine.txt")
    with pytest.warns(SasrecWarning, match=r"^data/mine\.txt is read$"):
        recommender = sasrec.train("mine", tmp_path / "run", **SMALL)
    assert recommender.data.num_users == 60


def test_a_public_name_stays_public_beside_a_file_of_that_name(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-100k.txt").write_text("1 2\n")
    monkeypatch.setattr(catalog, "locate", lambda name, **_: Located(events, {}, None, None, None, "the test"))
    with pytest.warns(
        SasrecWarning, match=r"ml-100k is the public data set; for the file, name data/ml-100k\.txt"
    ):
        recommender = sasrec.train("ml-100k", tmp_path / "run", **SMALL)
    assert recommender.data.num_users == 60
