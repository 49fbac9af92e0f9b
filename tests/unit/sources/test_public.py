"""The catalogue against small synthetic archives in the shape of the real ones, served on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
from rich.console import Console

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError, DownloadError
from sasrec.sources import download
from sasrec.sources import public as catalog
from sasrec.sources.convert import Located
from sasrec.sources.public import cache_root, locate, unverified
from sasrec.sources.registry import CATALOG, find

TIMED = {"user_column": "user", "item_column": "item", "time_column": "time", "time_unit": "s"}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


U_DATA = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
U_ITEM = "242|Caf\xe9 (1997)|01-Jan-1997||http://x|0|1\n302|L.A. Confidential (1997)|||\n".encode("latin-1")
INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U_DATA
ITEM = (
    b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    b"242\tKolya\t1996\tComedy\n302\tunknown\t\tunknown\n"
)
RATINGS_DAT = b"1::1193::5::978300760\n1::661::3::978302109\n"
MOVIES_DAT = '1193::"Great" Caf\xe9 (1975)::Drama\n'.encode("latin-1")
RATINGS_CSV = b"userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n"
MOVIES_CSV = b'movieId,title,genres\n2,"American President, The (1995)",Comedy\n'
AMAZON = b"A39HTATAQ9V7YF,0205616461,5.0,1369699200\n"
STEAM = (
    b"{u'username': u'Chaos \"Syren\"\\t', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17'}\n"
    b"{u'username': u'caf\xc3\xa9', u'early_access': False, u'product_id': 328100, u'date': u'1970-01-02'}\n"
)
ML_100K = zipped({"ml-100k/u.data": U_DATA, "ml-100k/u.item": U_ITEM})
WHEEL = zipped({"recbole/x/ml-100k.inter": INTER, "recbole/x/ml-100k.item": ITEM})
ARCHIVES: dict[str, bytes] = {
    "ml-100k": ML_100K,
    "ml-1m": zipped({"ml-1m/ratings.dat": RATINGS_DAT, "ml-1m/movies.dat": MOVIES_DAT}),
    "ml-20m": zipped({"ml-20m/ratings.csv": RATINGS_CSV, "ml-20m/movies.csv": MOVIES_CSV}),
    "amazon-beauty": AMAZON,
    "amazon-games": AMAZON,
    "steam": gzip.compress(STEAM),
}
RATED = "user\titem\trating\ttime\n"
EVENTS = {
    "ml-100k": RATED + "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
    "ml-1m": RATED + "1\t1193\t5\t978300760\n1\t661\t3\t978302109\n",
    "ml-20m": RATED + "1\t2\t3.5\t1112486027\n",
    "amazon-beauty": RATED + "A39HTATAQ9V7YF\t0205616461\t5.0\t1369699200\n",
    "amazon-games": RATED + "A39HTATAQ9V7YF\t0205616461\t5.0\t1369699200\n",
    "steam": 'user\titem\ttime\n"Chaos ""Syren"" "\t725280\t1513468800\ncafé\t328100\t86400\n',
}
TITLES = {
    "ml-100k": "item\ttitle\n242\tCafé (1997)\n302\tL.A. Confidential (1997)\n",
    "ml-1m": 'item\ttitle\n1193\t"Great" Café (1975)\n',
    "ml-20m": "item\ttitle\n2\tAmerican President, The (1995)\n",
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Files by name; the catalogue's web addresses now lead to them, checksums included."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path.lstrip("/"))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "FIRST_WAIT", 0.0)
    for name, dataset in CATALOG.items():
        digest = hashlib.sha256(ARCHIVES[name]).hexdigest()
        sources = [
            source
            if source.pip
            else replace(
                source,
                address=f"http://127.0.0.1:{server.server_port}/{source.file}",
                sha256=source.sha256 and digest,
                md5=None,
            )
            for source in dataset.sources
        ]
        monkeypatch.setitem(CATALOG, name, replace(dataset, sources=tuple(sources)))
    yield files
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def fake_pip(
    monkeypatch: pytest.MonkeyPatch, body: bytes = b"", name: str = "", error: str = ""
) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if name:
            (Path(command[command.index("--dest") + 1]) / name).write_bytes(body)
        return subprocess.CompletedProcess(command, 1 if error else 0, "", error)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def serve(files: dict[str, bytes], name: str) -> None:
    files[CATALOG[name].sources[0].file] = ARCHIVES[name]


def no_network(*arguments: object, **options: object) -> Path:
    raise AssertionError("nothing may be downloaded here")


def contents(located: Located) -> tuple[str, str | None]:
    titles = located.items.read_text(encoding="utf-8") if located.items else None
    return located.events.read_text(encoding="utf-8"), titles


@pytest.mark.parametrize("name", list(CATALOG))
def test_every_data_set_becomes_tables_with_a_header_once(
    name: str, served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(served, name)
    located = locate(name, cache=tmp_path)
    assert contents(located) == (EVENTS[name], TITLES.get(name))
    assert located.data_config_overrides == TIMED
    assert replace(DataConfig(), **TIMED).time_column == "time"  # type: ignore[arg-type]
    assert located.events.is_relative_to(tmp_path / name / "raw")
    monkeypatch.setattr(catalog, "download", no_network)
    again = locate(name, cache=tmp_path)
    source, note = CATALOG[name].sources[0], unverified(name, cache=tmp_path)
    assert bool(note) == (source.sha256 is None)
    assert not note or hashlib.sha256(ARCHIVES[name]).hexdigest() in note
    assert replace(again, source=located.source) == located
    assert "downloaded earlier" in again.source


def test_every_entry_states_its_terms_and_an_https_address() -> None:
    for name, dataset in CATALOG.items():
        assert dataset.name == name
        assert dataset.terms.endswith(".")
        assert dataset.homepage.startswith("https://")
        for source in dataset.sources:
            assert source.pip or urlparse(source.address).scheme == "https"
            assert source.pip or source.address.endswith(f"/{source.file}")
            assert source.sha256 is None or len(source.sha256) == 64
            assert source.file in dataset.accepted


def test_unknown_name_lists_the_names_and_the_closest() -> None:
    with pytest.raises(DataError, match=r"ml-20m.*steam; did you mean ml-1m\?"):
        find("ML-1M")
    with pytest.raises(DataError, match=r"amazon-beauty.*steam$"):
        locate("qqq", cache=Path("unused"))


def test_cache_root_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SASREC_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("SASREC_CACHE")
    assert cache_root() == Path.home() / ".cache" / "sasrec"


def patch_wheel(monkeypatch: pytest.MonkeyPatch, body: bytes = WHEEL) -> list[list[str]]:
    dataset = CATALOG["ml-100k"]
    wheel = replace(dataset.sources[1], sha256=hashlib.sha256(WHEEL).hexdigest())
    monkeypatch.setitem(CATALOG, "ml-100k", replace(dataset, sources=(dataset.sources[0], wheel)))
    return fake_pip(monkeypatch, body, wheel.file)


def test_ml_100k_falls_back_to_the_wheel_and_says_so(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = patch_wheel(monkeypatch)
    told = io.StringIO()
    located = locate("ml-100k", cache=tmp_path, console=Console(file=told))
    assert contents(located) == (
        EVENTS["ml-100k"],
        "item\ttitle\n242\tKolya (1996)\n302\tunknown\n",
    )
    assert "wheel of recbole==1.2.1" in located.source
    assert "answered 404" in told.getvalue()
    assert "Trying the next source" in told.getvalue()
    assert commands[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert "--only-binary=:all:" in commands[0]
    assert commands[0][-1] == "recbole==1.2.1"
    (located.events).unlink()
    assert contents(locate("ml-100k", cache=tmp_path))[0] == EVENTS["ml-100k"]
    wheel = tmp_path / "ml-100k" / "recbole-1.2.1-py3-none-any.whl"
    assert contents(locate("ml-100k", cache=tmp_path, local_copy=wheel)) == contents(located)
    assert len(commands) == 1, "the wheel in the cache is used again"


def test_forged_wheel_is_refused(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_wheel(monkeypatch, body=b"forged")
    with pytest.raises(DownloadError, match=r"not the expected file.*`local_copy`"):
        locate("ml-100k", cache=tmp_path)


def test_without_any_source_the_error_names_each_failure_and_the_remedy(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(monkeypatch, error="Looking\nERROR: no such version\n\n[notice] newer pip\n")
    with pytest.raises(DownloadError) as caught:
        locate("ml-100k", cache=tmp_path)
    for part in (
        "answered 404",
        "(ERROR: no such version)",
        "`local_copy` accepts any of these files: ml-100k.zip",
        "grouplens.org",
    ):
        assert part in str(caught.value)


def test_second_address_is_tried_when_the_first_fails(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steam = CATALOG["steam"]
    lost = replace(steam.sources[0], address=steam.sources[0].address + ".lost")
    monkeypatch.setitem(CATALOG, "steam", replace(steam, sources=(lost, steam.sources[1])))
    serve(served, "steam")
    assert contents(locate("steam", cache=tmp_path))[0] == EVENTS["steam"]


def test_download_of_something_else_is_refused(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served["ratings_Beauty.csv"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="not the original"):
        locate("amazon-beauty", cache=tmp_path)
    sources = (replace(CATALOG["ml-1m"].sources[0], sha256=None),)
    monkeypatch.setitem(CATALOG, "ml-1m", replace(CATALOG["ml-1m"], sources=sources))
    served["ml-1m.zip"] = zipped({"readme": b"empty"})
    with pytest.raises(DataError, match=r"contains none of the expected files: ratings\.dat"):
        locate("ml-1m", cache=tmp_path)


LOCAL: list[tuple[str, str, dict[str, bytes]]] = [
    ("ml-100k", "ml-100k.zip", {"ml-100k.zip": ML_100K}),
    ("ml-100k", "folder", {"folder/u.data": U_DATA, "folder/u.item": U_ITEM}),
    ("ml-100k", "folder", {"folder/ml-100k/u.data": U_DATA, "folder/ml-100k/u.item": U_ITEM}),
    ("ml-100k", "u.data", {"u.data": U_DATA, "u.item": U_ITEM}),
    ("ml-1m", "ratings.dat", {"ratings.dat": RATINGS_DAT, "movies.dat": MOVIES_DAT}),
    ("ml-20m", "ratings.csv.gz", {"ratings.csv.gz": gzip.compress(RATINGS_CSV), "movies.csv": MOVIES_CSV}),
    ("amazon-beauty", "ratings_Beauty.csv", {"ratings_Beauty.csv": AMAZON}),
    ("steam", "steam_reviews.json", {"steam_reviews.json": STEAM}),
]


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


@pytest.mark.parametrize(("name", "given", "files"), LOCAL)
def test_local_copy_of_any_kind_stands_in_for_the_download(
    name: str, given: str, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "download", no_network)
    lay(tmp_path, files)
    for _ in range(2):
        located = locate(name, cache=tmp_path / "cache", local_copy=tmp_path / given)
        assert contents(located) == (EVENTS[name], TITLES.get(name))
        assert located.data_config_overrides == TIMED
        assert str(tmp_path / given) in located.source


def test_changed_local_copy_is_converted_again(tmp_path: Path) -> None:
    lay(tmp_path, {"u.data": U_DATA})
    locate("ml-100k", cache=tmp_path, local_copy=tmp_path / "u.data")
    lay(tmp_path, {"u.data": U_DATA + b"1\t2\t3\t4\n"})
    located = locate("ml-100k", cache=tmp_path, local_copy=tmp_path / "u.data")
    assert located.events.read_text().endswith("1\t2\t3\t4\n")


def test_five_core_reviews_of_amazon_are_read(tmp_path: Path) -> None:
    review = b'{"reviewerID": "A1", "asin": "B2", "overall": 5.0, "unixReviewTime": 1369699200}\n'
    lay(tmp_path, {"reviews_Beauty_5.json.gz": gzip.compress(review)})
    located = locate("amazon-beauty", cache=tmp_path, local_copy=tmp_path / "reviews_Beauty_5.json.gz")
    assert located.events.read_text() == "user\titem\ttime\nA1\tB2\t1369699200\n"


ITEMS = b"movie_id\ttitle\tgenres\tkang205_item\n1\tToy Story (1995)\tComedy\t109\n"


@pytest.mark.parametrize(
    ("name", "file", "events", "items", "column"),
    [
        (
            "ml-100k",
            "ml-100k.tsv.gz",
            b"1\t168\t874965478\n",
            {"ml-100k.items.tsv": b"item\ttitle\n1\tX\n"},
            "item",
        ),
        ("ml-1m", "ml-1m-first2999.tsv.gz", b"1\t3186\t978300019\n", {"ml-1m.items.tsv": ITEMS}, "movie_id"),
        ("amazon-beauty", "beauty-ticoserec.tsv.gz", b"1\t7873\t1318896000\n", {}, None),
        ("steam", "steam.tsv.gz", b"1\t7873\t1318896000\n", {"steam.items.tsv": b"id\tname\n"}, None),
    ],
)
def test_table_the_reader_takes_is_left_as_it_is(
    name: str, file: str, events: bytes, items: dict[str, bytes], column: str | None, tmp_path: Path
) -> None:
    lay(tmp_path, {file: gzip.compress(events), **items})
    located = locate(name, cache=tmp_path / "cache", local_copy=tmp_path / file)
    assert located.events == tmp_path / file
    assert located.data_config_overrides == {}
    assert (located.item_column, located.title_column) == (column, column and "title")
    assert located.items == (tmp_path / next(iter(items)) if column else None)


def test_pairs_without_names_get_them_and_the_numbering_of_their_titles(tmp_path: Path) -> None:
    lay(tmp_path, {"ml-1m.tsv.gz": gzip.compress(b"1\t1\n1\t2\n"), "ml-1m.items.tsv": ITEMS})
    for given in (tmp_path / "ml-1m.tsv.gz", tmp_path, tmp_path / "ml-1m.tsv.gz"):
        located = locate("ml-1m", cache=tmp_path / "cache", local_copy=given)
        assert located.events.read_text() == "user\titem\n1\t1\n1\t2\n"
        assert located.data_config_overrides == {"user_column": "user", "item_column": "item"}
        assert located.item_column == "kang205_item"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, r"does not exist. Pass one of ml-1m\.zip"),
        ({"given": b"?"}, r"is not a copy of ml-1m. Pass one of ml-1m\.zip.*or a folder"),
        ({"given/readme": b"?"}, "is not a copy of ml-1m. Pass"),
        ({"given": ML_100K}, "is not a copy of ml-1m"),
    ],
)
def test_file_that_is_no_copy_is_refused_with_what_is_expected(
    files: dict[str, bytes], sentence: str, tmp_path: Path
) -> None:
    lay(tmp_path, files)
    with pytest.raises(DataError, match=sentence):
        locate("ml-1m", cache=tmp_path / "cache", local_copy=tmp_path / "given")


def damaged_member() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ml-1m/ratings.dat", RATINGS_DAT)
    return buffer.getvalue().replace(b"978300760", b"978300761", 1)


@pytest.mark.parametrize(
    "archive", [damaged_member(), ARCHIVES["ml-1m"][:40] + ARCHIVES["ml-1m"][60:]], ids=["other member", "cut"]
)
def test_damaged_zip_is_refused_with_the_remedy_and_leaves_nothing(archive: bytes, tmp_path: Path) -> None:
    lay(tmp_path, {"ml-1m.zip": archive})
    with pytest.raises(DataError, match=r"(is damaged|cannot be read).*`local_copy`"):
        locate("ml-1m", cache=tmp_path / "cache", local_copy=tmp_path / "ml-1m.zip")
    assert not list((tmp_path / "cache").rglob("*events*"))


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, {"steam_reviews.json.gz": ARCHIVES["steam"][:-20]})
    with pytest.raises(DataError, match="is damaged"):
        locate("steam", cache=tmp_path / "cache", local_copy=tmp_path / "steam_reviews.json.gz")


def test_member_larger_than_its_bound_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "ml-1m", replace(CATALOG["ml-1m"], max_bytes=10))
    lay(tmp_path, {"ml-1m.zip": ARCHIVES["ml-1m"]})
    with pytest.raises(DataError, match="not the original"):
        locate("ml-1m", cache=tmp_path / "cache", local_copy=tmp_path / "ml-1m.zip")


@pytest.mark.parametrize("line", [b"{'username': 'a'}", b"__import__('os')", b"[1, 2]", b"\xff", b"(" * 500])
def test_steam_line_that_is_no_review_is_named(line: bytes, tmp_path: Path) -> None:
    lay(tmp_path, {"steam_reviews.json": STEAM + line + b"\n"})
    with pytest.raises(DataError, match=r"steam_reviews\.json, line 3: cannot read username, product_id, date"):
        locate("steam", cache=tmp_path / "cache", local_copy=tmp_path / "steam_reviews.json")


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SASREC_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(DownloadError, match=r"no home folder\. Set the environment variable SASREC_CACHE"):
        cache_root()
