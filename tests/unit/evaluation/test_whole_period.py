"""All items that a user takes in the period as targets of one list: recall, precision, MAP, NDCG, hit rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import pytrec_eval

import sasrec
from sasrec.cli.main import main
from sasrec.data.histories import Histories
from sasrec.data.period import period_of
from sasrec.data.splits import split_events
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.whole_period import of_lists
from tests.synthetic import small

DAY = 86_400
SETTINGS = small(num_epochs=1, split="temporal:2023-11-18,2023-11-20", maxlen=10)


def week_frame(users: int = 30, days: int = 8, seed: int = 0) -> pl.DataFrame:
    """Each user takes two items at each of some days from 2023-11-14; items come again."""
    random = np.random.default_rng(seed)
    rows = [
        (f"u{user:02}", f"i{item}", 1_699_920_000 + DAY * day + 60 * user)
        for user in range(users)
        for day in range(days)
        if random.random() < 0.8
        for item in random.choice(12, 2, replace=False)
    ]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


@pytest.fixture(scope="module")
def weekly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("weekly") / "run"
    sasrec.train(week_frame(), run, repeats=True, **SETTINGS)
    return run


def histories(lists: list[list[int]]) -> Histories:
    ends = np.cumsum([len(each) for each in lists])
    return Histories(np.concatenate(lists).astype(np.int32), None, np.concatenate([[0], ends[:-1]]), ends)


def test_figures_of_lists_equal_those_of_trec_eval() -> None:
    random = np.random.default_rng(1)
    lists = np.array([random.permutation(40)[:20] + 1 for _ in range(50)])
    relevant = [np.sort(random.choice(40, random.integers(1, 30), replace=False) + 1) for _ in range(50)]
    found = of_lists(lists, histories([list(each) for each in relevant]), (1, 5, 20))
    truth = {str(row): {str(item): 1 for item in each} for row, each in enumerate(relevant)}
    run = {str(row): {str(item): -float(rank) for rank, item in enumerate(each)} for row, each in enumerate(lists)}
    names = {"P.1,5,20", "recall.1,5,20", "ndcg_cut.1,5,20", "success.1,5", "map_cut.20"}
    theirs = pytrec_eval.RelevanceEvaluator(truth, names).evaluate(run)
    for row in range(50):
        for ours, other in (("precision", "P"), ("recall", "recall"), ("ndcg", "ndcg_cut")):
            for k in (1, 5, 20):
                assert found[f"{ours}@{k}"][row] == pytest.approx(theirs[str(row)][f"{other}_{k}"], abs=1e-12)
        assert found["hr@5"][row] == theirs[str(row)]["success_5"]
        # trec_eval divides by all relevant items; MAP@k as recommenders use it by what a list of k can hold.
        of_all = theirs[str(row)]["map_cut_20"] * len(relevant[row]) / min(20, len(relevant[row]))
        assert found["map@20"][row] == pytest.approx(of_all, abs=1e-12)


def test_a_list_that_is_shorter_than_k_counts_its_places_as_misses() -> None:
    found = of_lists(np.array([[3, 0]]), histories([[3, 4, 5]]), (5,))
    assert found["recall@5"] == pytest.approx(1 / 3)
    assert found["precision@5"] == pytest.approx(1 / 5)
    assert found["map@5"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("repeats", [False, True])
def test_the_period_has_every_item_after_the_moment_and_the_history_what_is_before(repeats: bool) -> None:
    """Against a direct computation from the rows."""
    frame = week_frame(seed=3)
    data = sasrec.prepare(frame)
    split = split_events(data, SETTINGS["split"], repeats=repeats)
    rows = frame.sort("user", "time", maintain_order=True)
    known = set(frame.filter(pl.col("time") < 1_700_265_600)["item"])
    for part, begin, end in ((split.valid, 1_700_265_600, 1_700_438_400), (split.test, 1_700_438_400, 10**12)):
        expected = {}
        for (user,), own in rows.group_by("user", maintain_order=True):
            before = own.filter(pl.col("time") < begin)["item"].to_list()
            inside = set(own.filter(pl.col("time").is_between(begin, end, closed="left"))["item"]) & known
            wanted = inside if repeats else inside - set(before)
            if [item for item in before if item in known] and wanted:
                expected[user] = (before, wanted)
        period = period_of(data, split, part)
        names = data.catalogue.ids
        found = {}
        for row, user in enumerate(data.user_ids.gather(period.part.users)):
            of = period.part.histories
            history = names.gather(of.items[of.starts[row] : of.ends[row]] - 1).to_list()
            own = period.relevant.items[period.relevant.starts[row] : period.relevant.ends[row]]
            found[user] = (history, set(names.gather(own - 1)))
            assert len(own) == len(set(own))
        assert found == expected


@pytest.mark.parametrize("how", ["last-3", "files"])
def test_the_history_ends_before_the_period_also_where_the_period_begins_with_a_seen_item(
    how: str, tmp_path: Path
) -> None:
    """Against a direct computation; a seen item is no target, and was once taken for a part of the history."""
    frame = week_frame(seed=4).sort("user", "time", maintain_order=True)
    later = pl.col("time") >= 1_700_438_400
    if how == "files":
        run = tmp_path / "run"
        sasrec.train(frame.filter(~later), run, **small(num_epochs=1))
        found = sasrec.evaluate(run, test=frame.filter(later), whole_period=True, k=[3]).users
        periods = {user: own.filter(later) for (user,), own in frame.group_by("user")}
    else:
        data = sasrec.prepare(frame)
        period = period_of(data, split_events(data, how), split_events(data, how).test)
        found = pl.DataFrame(
            {"user": data.user_ids.gather(period.part.users), "relevant": period.relevant.lengths}
        )
        lengths = period.part.histories.lengths.tolist()
        assert lengths == [frame.filter(user=user).height - 3 for user in found["user"]]
        periods = {user: own.tail(3) for (user,), own in frame.group_by("user")}
    assert found is not None
    repeated_first = 0
    for user, relevant in found.unique("user").select("user", "relevant").iter_rows():
        own = frame.filter(user=user)
        before = own.head(own.height - periods[user].height)["item"].to_list()
        repeated_first += periods[user]["item"][0] in before
        assert relevant == len(set(periods[user]["item"]) - set(before))
    assert repeated_first > 5
    if how == "files":
        model = sasrec.load(tmp_path / "run")
        for row in found.filter(pl.col("scorer") == "model", pl.col("split") == "test").to_dicts():
            own = frame.filter(pl.col("user") == row["user"])
            before, wanted = own.filter(~later)["item"].to_list(), own.filter(later)["item"].to_list()
            top = {item for item, _ in model.recommend(before, 3)}
            assert row["hr@3"] == float(bool(top & (set(wanted) - set(before))))


def test_model_and_baselines_are_measured_and_each_user_is_written(weekly: Path, tmp_path: Path) -> None:
    metrics = sasrec.evaluate(weekly, whole_period=True, k=[3])
    users = metrics.users
    assert users is not None
    for scorer, of in {"model": metrics, **metrics["baselines"]}.items():
        own = users.filter(pl.col("scorer") == scorer, pl.col("split") == "test")
        assert own.height == metrics["whole_period"]["test"]["users"] == own["user"].n_unique()
        for metric in ("recall@3", "precision@10", "map@10", "ndcg@10", "hr@50"):
            assert of["test"]["whole_period"][metric] == pytest.approx(own[metric].mean())
    compared = metrics["whole_period"]["test"]
    assert compared["model"]["low"] <= compared["model"]["mean"] <= compared["model"]["high"]
    best = max(of["test"]["whole_period"]["ndcg@3"] for of in metrics["baselines"].values())
    assert compared["difference"]["mean"] == pytest.approx(compared["model"]["mean"] - best)
    kinds = metrics.frame().filter(pl.col("candidates") == "whole_period")
    assert kinds.height == 2 * (1 + len(metrics["baselines"])) * 5 * 6

    arguments = ["evaluate", str(weekly), "--whole_period", "--per_user"]
    assert main([*arguments, str(tmp_path / "users.csv")]) == 0
    assert pl.read_csv(tmp_path / "users.csv").height == users.height


def test_the_verdict_is_last_at_the_length_of_the_list_and_names_the_best_by_recall(
    weekly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, measured in ((3, "model"), (20, "own-recent")):
        metrics = sasrec.evaluate(
            weekly if measured == "model" else f"{weekly}:own-recent", whole_period=True, k=[k]
        )
        found, simple = metrics["whole_period"]["test"], metrics["baselines"]
        for by, entry in ((f"ndcg@{k}", "best_baseline"), (f"recall@{k}", "best_by_recall")):
            values = {name: of["test"]["whole_period"][by] for name, of in simple.items()}
            assert values[found[entry]] == max(values.values())
        own = metrics["test"]["whole_period"][f"ndcg@{k}"]
        best = simple[found["best_baseline"]]["test"]["whole_period"][f"ndcg@{k}"]
        assert found["metric"] == f"ndcg@{k}"
        assert (found[measured]["mean"], found["difference"]["mean"]) == pytest.approx((own, own - best))
        where = str(weekly) if measured == "model" else f"{weekly}:{measured}"
        file = tmp_path / f"{k}.csv"
        assert main(["evaluate", where, "--whole_period", "--k", str(k), "--per_user", str(file)]) == 0
        said = capsys.readouterr().out.splitlines()
        last = next(line for line in reversed(said) if line.startswith("test, whole period: "))
        assert f"NDCG@{k} of {'the model' if measured == 'model' else measured} ." in said[-1 - (said[-1] != last)]
        assert said[-1].startswith((last, f"by RECALL@{k} the best baseline is {found['best_by_recall']}: "))
        assert (said[-1] != last) == (found["best_by_recall"] != found["best_baseline"])
        assert set(pl.read_csv(file)["scorer"]) == {measured, *simple}


def test_what_one_user_gets_is_what_recommend_gives(weekly: Path) -> None:
    users = sasrec.evaluate(weekly, whole_period=True, k=[3]).users
    assert users is not None
    frame = week_frame()
    recommender = sasrec.load(weekly)
    for row in users.filter(pl.col("scorer") == "model", pl.col("split") == "test").head(8).to_dicts():
        own = frame.filter(pl.col("user") == row["user"]).sort("time", maintain_order=True)
        before = own.filter(pl.col("time") < 1_700_438_400)["item"].to_list()
        after = set(own.filter(pl.col("time") >= 1_700_438_400)["item"])
        hits = {item for item, _ in recommender.recommend(before, 3)} & after
        assert row["relevant"] == len(after)
        assert row["precision@3"] == pytest.approx(len(hits) / 3)


def test_a_file_of_later_events_is_a_period_under_any_split(tmp_path: Path) -> None:
    frame = week_frame()
    early, late = frame.filter(pl.col("time") < 1_700_438_400), frame.filter(pl.col("time") >= 1_700_438_400)
    run = tmp_path / "run"
    sasrec.train(early, run, **SETTINGS | {"split": "leave-one-out"})
    with pytest.raises(EvaluationError, match="one target"):
        sasrec.evaluate(run, whole_period=True)
    metrics = sasrec.evaluate(run, whole_period=True, test=late)
    assert metrics["whole_period"]["test"]["relevant"] > 1
    assert "valid" not in metrics["whole_period"]


def test_wrong_uses_are_refused(weekly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="`whole_period` is measured without rules"):
        sasrec.evaluate(weekly, whole_period=True, rules=sasrec.Rules(deny=("i1",)))
    assert main(["evaluate", str(weekly), "--per_user", "x.csv"]) == 1
    assert main(["evaluate", str(weekly), "--whole_period", "--per_user", "x.txt"]) == 1
    assert main(["evaluate", str(weekly), "--whole_period", "--per_user", str(tmp_path / "no/x.csv")]) == 1
    said = capsys.readouterr().err
    for words in ("needs --whole_period", "the file of --per_user must end in .parquet or .csv", "does not exist"):
        assert words in said
