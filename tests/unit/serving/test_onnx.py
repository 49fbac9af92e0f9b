"""An ONNX export gives the lists of its run, without PyTorch, and other programs can run its graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecWarning
from sasrec.serving import export_onnx as module
from sasrec.serving.export_onnx import export_onnx
from tests.synthetic import chain_frame, small

ort = pytest.importorskip("onnxruntime")

NEAR = 1e-4
FRAME = chain_frame(items=40)
GROUPS = pl.DataFrame({"item": [f"item-{n:02d}" for n in range(40)], "group": [f"g{n % 5}" for n in range(40)]})
HISTORIES = [["item-03"], ["item-07", "item-01", "item-20"], ["item-24", "item-01"] * 15, ["?", "item-02"], []]
TIMES = [[float(7 * at * at) for at in range(len(each))] for each in HISTORIES]


def trained(folder: Path, **kind: Any) -> sasrec.Recommender:
    groups = folder.with_name("groups.csv")
    GROUPS.write_csv(groups)
    data = sasrec.prepare(FRAME, items=groups, items_group="group")
    return sasrec.train(data, folder, **small(num_epochs=2, num_blocks=1, **kind))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[sasrec.Recommender, sasrec.Recommender, Path]:
    """A run of the model with the most parts, its graph, and the folder of both."""
    folder = tmp_path_factory.mktemp("onnx")
    trained(folder / "run", time=True, mhc=True)
    export_onnx(folder / "run", folder / "graph")
    return (
        sasrec.load(folder / "run", fallback="popular"),
        sasrec.load(folder / "graph", fallback="popular"),
        folder,
    )


def assert_same(run: pl.DataFrame, graph: pl.DataFrame) -> None:
    """Equal items, up to the order of equal scores; scores within 1e-4."""
    assert run.height
    assert run.drop("item", "score").equals(graph.drop("item", "score"))
    assert np.allclose(run["score"], graph["score"], atol=NEAR, rtol=0)
    apart = run.filter(run["item"] != graph["item"])
    near = run.group_by("row").agg(gap=pl.col("score").diff().abs().min())
    assert (apart.join(near, on="row")["gap"] < NEAR).all()


@pytest.mark.parametrize("k", [1, 10, 40, 500])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exclude_seen": False},
        {"allow": [f"item-{n:02d}" for n in range(0, 40, 3)]},
        {"deny": ["item-02", "item-30"]},
        {"rules": sasrec.Rules(per_group=1)},
        {
            "rules": sasrec.Rules(
                per_group=2, deny=["item-05"], bans={"a": ["item-06", "item-07"], "b": ["item-08"]}
            ),
            "users": ["a", "b", "c", "a", "b"],
        },
    ],
)
def test_lists_are_those_of_the_run(both: Any, k: int, options: dict[str, Any]) -> None:
    run, graph, _ = both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SasrecWarning)
        assert_same(
            *(each.recommend_many(HISTORIES, k, times=TIMES, **options) for each in (run, graph)),
        )


def test_one_history_reasons_and_similar_items_are_those_of_the_run(both: Any) -> None:
    run, graph, _ = both
    history, times = HISTORIES[2], TIMES[2]
    lists = [dict(each.recommend(history, 5, times=times)) for each in (run, graph)]
    assert list(lists[0]) == list(lists[1])
    assert lists[0] == pytest.approx(lists[1], abs=NEAR)
    ours, theirs = (each.explain(history, "item-09", times=times) for each in (run, graph))
    assert ours["item"].equals(theirs["item"])
    for column in ("effect", "interval_effect"):
        assert np.allclose(ours[column], theirs[column], atol=NEAR, equal_nan=True)
    assert graph.similar("item-09", 7) == run.similar("item-09", 7)


def test_other_programs_can_run_the_graph_with_times_in_seconds(both: Any) -> None:
    run, _, folder = both
    session = ort.InferenceSession(folder / "graph" / "model.onnx", providers=["CPUExecutionProvider"])
    numbers, _ = run.items.numbers(HISTORIES[1])
    inputs = {
        "history": np.array([[*numbers, 0, 0]]),
        "times": np.array([[*map(int, TIMES[1]), 0, 0]]),
        "unit": np.zeros(1, np.int64),
        "excluded": np.zeros((1, 0), np.int64),
        "k": np.array(5),
        "exclude_seen": np.array(True),
    }
    scores, items = session.run(None, inputs)
    expected = run.recommend(HISTORIES[1], 5, times=TIMES[1])
    assert [run.items.id_of(int(item)) for item in items[0]] == [item for item, _ in expected]
    assert np.allclose(scores[0], [score for _, score in expected], atol=NEAR)
    for wrong in ({"history": inputs["history"].astype(np.float32)}, {"history": inputs["history"][0]}):
        with pytest.raises(Exception, match=r"(?i)unexpected input data type|invalid rank"):
            session.run(None, inputs | wrong)
    with pytest.raises(Exception, match=r"excluded.*missing"):
        session.run(None, {"history": inputs["history"]})


def test_a_graph_recommends_without_pytorch(both: Any) -> None:
    *_, folder = both
    script = (
        "import sys; from sasrec.cli.main import main\n"
        "status = main(['recommend', sys.argv[1], '--history', 'item-03,item-04', '--times', '1,2', '--k', '3'])\n"
        "assert not {'torch', 'onnx', 'onnxscript'} & set(sys.modules), 'torch was imported'\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "graph")], check=True, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 4


def test_the_folder_says_what_it_is_and_has_nobody_s_events(both: Any) -> None:
    _, graph, folder = both
    written = {path.name for path in (folder / "graph").iterdir()}
    assert written == {"README.md", "counts.parquet", "graph.json", "items.parquet", "model.onnx", "vectors.npy"}
    check = json.loads((folder / "graph" / "graph.json").read_text())["check"]
    assert (check["histories"], check["k"]) == (60, 40)
    assert 0 < check["largest_difference"] < NEAR
    card = (folder / "graph" / "README.md").read_text()
    assert card.startswith("# TiSASRec with mHC residuals, 40 items")
    assert "exclude_seen ()" in card
    assert graph.timed
    assert not graph.repeats
    with pytest.raises(DataError, match="an export contains no users"):
        graph.recommend_user("u000")
    with pytest.raises(ConfigError, match="an ONNX export has no PyTorch model"):
        _ = graph.model
    with pytest.raises(DataError, match="needs the times"):
        graph.recommend(["item-03"])


def test_what_a_graph_cannot_do_is_refused_with_the_remedy(both: Any, tmp_path: Path) -> None:
    *_, folder = both
    for options, named in (({"dataset": FRAME}, "dataset"), ({"device": "cuda"}, "device")):
        with pytest.raises(ConfigError, match=f"for histories: {named} does not fit"):
            sasrec.load(folder / "graph", **options)
    with pytest.raises(ConfigError, match="of the model, not of a baseline"):
        export_onnx(f"{folder / 'run'}:markov", tmp_path / "other")
    with pytest.raises(ConfigError, match="not empty"):
        export_onnx(folder / "run", folder / "graph")


@pytest.mark.parametrize("name", ["model.onnx", "items.parquet", "vectors.npy", "counts.parquet", "graph.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_damage_is_named(both: Any, tmp_path: Path, name: str, how: str) -> None:
    *_, folder = both
    copy = tmp_path / "graph"
    shutil.copytree(folder / "graph", copy)
    content = (copy / name).read_bytes()
    if how == "gone":
        (copy / name).unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] if how == "cut" else content[:middle] + b"\x00\xff" + content[middle + 2 :]
        (copy / name).write_bytes(changed)
    if (name, how) == ("graph.json", "gone"):
        assert main(["recommend", str(copy), "--history", "item-03"]) == 1
        return
    with pytest.raises(DataError, match=name):
        sasrec.load(copy, fallback="popular")


def test_a_graph_that_disagrees_is_not_exported(
    both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, folder = both
    monkeypatch.setattr(module, "_NEAR", 0.0)
    monkeypatch.setattr(
        module, "write_graph", lambda model, unknown, path: shutil.copy(folder / "graph/model.onnx", path)
    )
    with pytest.raises(EvaluationError, match="the graph gives other lists than the run"):
        export_onnx(folder / "run", tmp_path / "graph")
    assert not (tmp_path / "graph" / "graph.json").exists()


KINDS = [
    pytest.param(
        {"time": time, "mhc": mhc, "norm": norm}, id=f"{'ti' if time else ''}sasrec{'-mhc' if mhc else ''}-{norm}"
    )
    for time in (False, True)
    for mhc in (False, True)
    for norm in ("pre", "post")
    if norm == "pre" or not mhc
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *KINDS,
        {"norm": "original"},
        {"mhc": True, "mhc_projection": "orthogonal"},
        {"mhc": True, "mhc_projection": "birkhoff"},
        {"gated": True},
        {"feed_forward": "swiglu"},
        {"split": f"temporal:{1_600_000_000 + 3600 * 6},{1_600_000_000 + 3600 * 8}"},
        {"repeats": True},
    ],
)
def test_every_model_has_a_graph(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = trained(tmp_path / "run", **kind)
    graph = sasrec.load(export_onnx(tmp_path / "run", tmp_path / "graph"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SasrecWarning)
        assert_same(*(each.recommend_many(HISTORIES, 20, assume_regular=True) for each in (run, graph)))
    assert graph.repeats == run.repeats


@pytest.mark.slow
def test_an_export_can_be_exported_again(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    sasrec.export(tmp_path / "run", tmp_path / "model")
    graph = sasrec.load(export_onnx(tmp_path / "model", tmp_path / "graph"), fallback="popular")
    assert dict(graph.recommend(["item-03"], 5)) == pytest.approx(dict(run.recommend(["item-03"], 5)), abs=NEAR)
    assert graph.recommend([], 2)[0][1] > graph.recommend([], 2)[1][1]


@pytest.mark.slow
def test_memory_does_not_grow_with_calls_of_changing_shapes(both: Any) -> None:
    _, graph, _ = both
    random, held = np.random.default_rng(0), []
    ids = graph.items.ids.to_list()
    for call in range(100_000):
        history = random.choice(ids, int(random.integers(1, 60))).tolist()
        deny = random.choice(ids, int(random.integers(0, 20))).tolist()
        graph.recommend(history, int(random.integers(1, 40)), assume_regular=True, deny=deny)
        if call % 10_000 == 9_999:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            held.append(pages)
    assert max(held) < 1.05 * held[0]
