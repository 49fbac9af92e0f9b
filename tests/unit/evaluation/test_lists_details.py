"""`sasrec evaluate --details`: lists and slices of a run against plain loops, and item groups from the items file."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import sasrec
from sasrec.cli.main import main
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.errors import ConfigError, DataError
from sasrec.evaluation.measure import Asked, evaluate_scorer
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import RunLog
from tests.synthetic import chain_frame, small

SMALL = small(num_epochs=3)
ITEMS = 25


def items_file(folder: Path) -> Path:
    """A file with titles and genres; items 7, 14 and 21 have no genre."""
    lines = [
        "id,name,genre",
        *(f"item-{i:02d},The {i},{'' if i in (7, 14, 21) else 'abc'[i % 3]}" for i in range(ITEMS)),
    ]
    path = folder / "items.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data with item groups, measured with details."""
    folder = tmp_path_factory.mktemp("details")
    uneven = pl.col("time") + pl.int_range(pl.len()) ** 2 % 1789
    chain_frame().with_columns(time=uneven).write_csv(folder / "events.csv")
    columns = ["--items", str(items_file(folder)), "--items_group", "genre"]
    assert main(["prepare", str(folder / "events.csv"), "--output", str(folder / "data"), *columns]) == 0
    sasrec.train(folder / "data", folder / "run", **SMALL)
    sasrec.evaluate(folder / "run", details=True)
    return folder / "run"


def details(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())["details"]


def lists_of_users(run: Path) -> list[list[str]]:
    """The items that `recommend` returns for each user before the test target."""
    recommender = sasrec.load(run, device="cpu")
    data = recommender.data
    users = split_events(data).test.users
    histories = [[data.catalogue.ids[int(i) - 1] for i in data.item_numbers_of(user)[:-1]] for user in users]
    return [[item for item, _ in recommender.recommend(history)] for history in histories]


def test_the_measures_of_lists_equal_plain_loops_over_what_is_recommended(run: Path) -> None:
    found, lists = details(run)["lists"]["model"], lists_of_users(run)
    training: dict[str, int] = {}
    data = sasrec.load(run).data
    for user, place in itertools.product(range(data.num_users), range(30)):
        if place < len(data.item_numbers_of(user)) - 2:
            item = data.catalogue.ids[int(data.item_numbers_of(user)[place]) - 1]
            training[item] = training.get(item, 0) + 1
    assert found["coverage"] == len({item for row in lists for item in row}) / ITEMS
    assert found["popularity"] == pytest.approx(np.mean([np.mean([training[i] for i in row]) for row in lists]))
    genre = {f"item-{i:02d}": "abc"[i % 3] for i in range(ITEMS) if i not in (7, 14, 21)}
    pairs = [[(a, b) for a, b in itertools.combinations(row, 2) if a in genre and b in genre] for row in lists]
    expected = np.mean([np.mean([genre[a] != genre[b] for a, b in row]) for row in pairs])
    assert found["diversity"] == pytest.approx(expected), "items without a group count in no pair"
    assert found["novelty"] > details(run)["lists"]["popularity"]["novelty"], (
        "nothing is less novel than popularity"
    )


def test_novelty_and_the_ratio_of_popularity_equal_plain_loops_over_users(run: Path) -> None:
    """Novelty counts a user once per item. The ratio divides by the histories before the test target."""
    found, lists, data = details(run)["lists"]["model"], lists_of_users(run), sasrec.load(run).data
    whole = [
        [data.catalogue.ids[int(i) - 1] for i in data.item_numbers_of(user)] for user in range(data.num_users)
    ]
    training = [row[:-2] for row in whole]
    assert any(len(set(row)) < len(row) for row in training), "somebody had an item twice"
    had = {item: sum(item in row for row in training) for row in lists for item in row}
    people = sum(map(bool, training))
    bits = [np.mean([np.log2(people) - np.log2(max(had[item], 1)) for item in row]) for row in lists]
    assert found["novelty"] == pytest.approx(np.mean(bits))
    counts = Counter(item for row in training for item in row)
    measured = [whole[user] for user in split_events(sasrec.load(run).data).test.users]
    before = np.mean([np.mean([counts[item] for item in row[:-1]]) for row in measured])
    assert found["popularity_ratio"] == pytest.approx(found["popularity"] / before)


def test_the_slices_put_the_model_beside_the_best_baseline_and_hold_every_target(run: Path) -> None:
    found, metrics = details(run), RunFolder(run).metrics()
    scores = {name: each["test"]["full"]["ndcg@10"] for name, each in metrics["baselines"].items()}
    assert found["best_baseline"] == max(scores, key=scores.get)
    frame = pl.read_parquet(run / "ranks.parquet").filter(pl.col("split") == "test")
    data = sasrec.load(run).data
    for name in ("model", found["best_baseline"]):
        rows = frame.filter(pl.col("scorer") == name)
        lengths = rows["event"].to_numpy() - data.offsets[split_events(data).test.users]
        short = metrics_from_ranks(rows["full"].cast(pl.Float64).to_numpy()[lengths <= 5])
        assert found["slices"]["history up to 5"][name] == {key: short[key] for key in ("ndcg@10", "hr@10")}
    for kind in ("history", "target in", "gaps"):
        parts = [part for name, part in found["slices"].items() if kind in name]
        assert sum(part["rows"] for part in parts) == len(rows)
    events = rows["event"].to_numpy()
    days = (data.times[events] - data.times[events - 1]) / 86_400e6
    assert found["slices"]["shortest gaps to the target"]["from"] == pytest.approx(days.min())
    assert found["slices"]["longest gaps to the target"]["to"] == pytest.approx(days.max())


def test_details_are_printed_only_when_asked_for_and_fit_80_columns(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["evaluate", str(run), "--details"]) == 0
    out = capsys.readouterr().out
    for word in ("coverage", "novelty", "diversity", "history 6-20", "target in the head", "longest gaps"):
        assert word in out
    lines = out.splitlines()
    slices = lines[next(i for i, line in enumerate(lines) if "NDCG@10 on test" in line) :][:10]
    tables = [line for line in lines if line[:1] in "┃│┏┡├└"] + slices
    assert max(map(len, tables)) <= 80
    assert sum("recent-7-days" in line for line in lines) == 2, "no name is broken over two lines"
    assert (
        sum(line.startswith(("history ", "target in ", "shortest ", "middle ", "longest ")) for line in slices)
        == 8
    )
    assert main(["evaluate", str(run)]) == 0
    assert "coverage" not in capsys.readouterr().out
    assert "details" not in RunFolder(run).metrics()
    sasrec.evaluate(run, details=True)


def test_without_groups_and_without_times_there_is_no_diversity_and_no_gap(tmp_path: Path) -> None:
    sasrec.train(chain_frame().select("user", "item"), tmp_path / "run", **SMALL)
    found = sasrec.evaluate(tmp_path / "run", details=True)["details"]
    assert found["lists"]["model"].keys() == {"coverage", "popularity", "popularity_ratio", "novelty", "auc"}
    assert not any("gap" in name for name in found["slices"])


class Rising:
    """Scores an item by its number, so that the last items are the first in every list."""

    num_items = ITEMS + 3

    def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        return torch.arange(self.num_items + 1.0).repeat(len(rows), 1)


def test_under_a_temporal_split_lists_and_coverage_are_of_the_items_in_training() -> None:
    late = pl.DataFrame(
        {
            "user": ["u000"] * 3,
            "item": ["late-0", "late-1", "late-2"],
            "time": [1_700_000_000 + i for i in range(3)],
        }
    )
    data = sasrec.prepare(pl.concat([chain_frame(), late]))
    assert data.catalogue.numbers(late["item"])[0].tolist() == [26, 27, 28], "the best for the scorer"
    split = split_events(data, "temporal:0.7")
    part, counts_V = split.test, np.bincount(split.training.items[split.training.flat()])
    lists = []
    for start, end in zip(part.histories.starts, part.histories.ends, strict=True):
        seen = part.histories.items[start:end].tolist()
        lists.append([item for item in range(ITEMS, 0, -1) if item not in seen][:10])
    found = evaluate_scorer(Rising(), data, split, log=RunLog(None), asked=Asked(details=True)).metrics["details"][
        "lists"
    ]
    assert found["model"]["coverage"] == len({item for row in lists for item in row}) / ITEMS
    expected = np.mean([np.mean([counts_V[item] for item in row]) for row in lists])
    assert found["model"]["popularity"] == pytest.approx(expected)


def test_groups_are_kept_as_given_and_come_back_from_disk(tmp_path: Path) -> None:
    items = items_file(tmp_path)
    data = sasrec.prepare(chain_frame(), items=items, items_group="genre", output=tmp_path / "data")
    assert data.catalogue.groups.to_list()[:8] == ["a", "b", "c", "a", "b", "c", "a", None]
    opened = sasrec.open_dataset(tmp_path / "data")
    assert opened.catalogue.groups.to_list() == data.catalogue.groups.to_list()
    assert opened.catalogue.titles.to_list()[0] == "The 0"
    assert sasrec.prepare(chain_frame(), items=items).catalogue.groups is None
    with pytest.raises(DataError, match="no column 'colour'; its columns are: id, name, genre"):
        sasrec.prepare(chain_frame(), items=items, items_group="colour")
    with pytest.raises(ConfigError, match="items_group"):
        sasrec.prepare(chain_frame(), items_group="genre")
