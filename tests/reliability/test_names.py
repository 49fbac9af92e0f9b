"""Names that would lead out of the folder they are meant for."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.checkpoint import store
from sasrec.errors import DataError
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16, num_epochs=2)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_names_that_lead_elsewhere_are_refused_wherever_a_name_is_taken(tmp_path: Path, every: int) -> None:
    """F4: 300 of them (by default each seventh), as the name of a public data set, and in the manifests of a data set and a checkpoint."""
    steps = [
        "..",
        "../..",
        "/etc",
        "..\\..",
        "%2e%2e",
        "....//",
        "\x00",
        "a/../..",
        "~",
        "file:///etc",
        "C:",
        "|ls",
        "$(ls)",
    ]
    ends = [
        "passwd",
        "/passwd",
        "//x",
        "/",
        "",
        "/.",
        "/..",
        "\n",
        " ",
        "/x.csv",
        "?a",
        "#a",
        "/dev/null",
        "/con",
        "/é",
    ]
    names = sorted({step + end + more for step in steps for end in ends for more in ("", "/ml-1m")})[:300]
    assert len(names) == 300
    data = sasrec.prepare(chain_frame(), output=tmp_path / "data")
    sasrec.train(data, tmp_path / "run", **SMALL)
    manifests = (tmp_path / "data/manifest.json", store.best(tmp_path / "run/checkpoints") / "MANIFEST.json")
    originals = [json.loads(path.read_text()) for path in manifests]
    (tmp_path / "run/seal.json").unlink()  # else every changed manifest is refused as such
    before = sorted(tmp_path.rglob("*"))
    for name in names[::every]:
        with pytest.raises(sasrec.SasrecError):
            sasrec.train(name, tmp_path / "not-made", **SMALL)
        manifests[0].write_text(json.dumps(originals[0] | {"files": originals[0]["files"] | {name: {}}}))
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            sasrec.open_dataset(tmp_path / "data")
        manifests[1].write_text(json.dumps({**originals[1], name: originals[1]["state.json"]}))
        sasrec.load(tmp_path / "run")  # what a manifest names beside the files of a checkpoint is never opened
    assert sorted(tmp_path.rglob("*")) == before


def test_brackets_in_a_path_are_no_pattern(tmp_path: Path) -> None:
    """`data[1]` beside `data1`: as a pattern, the first would match the second."""
    for name, prefix in (("data1", "a"), ("data[1]", "b")):
        own = [(pl.lit(prefix) + pl.col(each).cast(pl.String)).alias(each) for each in ("user", "item")]
        sasrec.prepare(chain_frame().with_columns(own), output=tmp_path / name)
    data = sasrec.open_dataset(tmp_path / "data[1]")
    assert {str(each)[0] for each in (*data.user_ids, *data.catalogue.ids)} == {"b"}
    for name in ("run1", "run[1]"):
        sasrec.train(data, tmp_path / name, **SMALL)
    run = tmp_path / "run[1]"
    assert sasrec.compare([f"{run}:popularity", str(run)]).others
    exported = sasrec.load(sasrec.export(run, tmp_path / "model[1]"))
    assert {str(each)[0] for each in exported.items.ids} == {"b"}
