"""Next week: a run is brought up to date with newer events, and its folder stays as it is."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import sasrec
from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.checkpoint.restore import checkpoint_at
from sasrec.cli.main import main
from sasrec.config.settings import LossConfig
from sasrec.errors import CheckpointError, ConfigError, DataError, EvaluationError, SasrecError, SasrecWarning
from sasrec.losses.loss import training_loss
from sasrec.models import SequenceModel
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import Bar
from sasrec.training.trainer import Trainer
from tests.synthetic import small

SMALL = small(batch_size=16, num_epochs=12, patience=0)
WEEK = 7 * 86_400
FRESH = ["item-07", "item-08"]


def shop(weeks: int, users: int = 120, items: int = 20) -> pl.DataFrame:
    """24 users begin each week and stay for up to two; from the third week on, two items have successors."""
    random, rows = np.random.default_rng(0), []
    for user in range(users):
        item = int(random.integers(items))
        for step in range(int(random.integers(4, 13))):
            rows.append((f"u{user:03d}", f"item-{item:02d}", user // 24 * WEEK + step * 86_400 + user))
            item = (item + 1) % items if random.random() < 0.9 else int(random.integers(items))
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    fresh = pl.col("item").is_in(FRESH) & (pl.col("time") >= 3 * WEEK)
    frame = frame.with_columns(item=pl.when(fresh).then("new-" + pl.col("item")).otherwise("item"))
    frame = frame.filter(pl.col("time") < weeks * WEEK)
    return frame.with_columns(time=pl.col("time") + 1_600_000_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refresh") / "run"
    sasrec.train(shop(3), folder, **SMALL)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "refresh.json").read_text())
    return report


def test_numbers_and_ids_never_move_and_the_old_folder_serves_the_same_lists(run: Path, tmp_path: Path) -> None:
    before, lists = files(run), sasrec.load(run).recommend_all()
    old = sasrec.load(run).items.ids
    model = sasrec.refresh(run, shop(5), tmp_path / "next")
    assert files(run) == before
    assert sasrec.load(run).recommend_all().equals(lists)
    assert model.items.ids[: len(old)].equals(old)
    assert model.items.ids[len(old) :].to_list() == [f"new-{item}" for item in FRESH]
    assert model.data is not None
    assert model.data.num_events == shop(5).height
    assert [model.data.history(user) for user in ("u000", "u119")] == [
        shop(5).filter(pl.col("user") == user)["item"].to_list() for user in ("u000", "u119")
    ]
    again = sasrec.load(tmp_path / "next").recommend_all()
    assert again.equals(model.recommend_all())


def test_new_items_can_be_recommended_afterwards_and_not_before(run: Path, tmp_path: Path) -> None:
    old = sasrec.load(run)
    assert not any(str(item).startswith("new") for item, _ in old.recommend(["item-05", "item-06"], k=22))
    model = sasrec.refresh(run, shop(5), tmp_path / "next", epochs=10)
    best = [item for item, _ in model.recommend(["item-05", "item-06"], k=3)]
    assert "new-item-07" in best
    fresh = report_of(tmp_path / "next")["metrics"]["new_items"]
    assert fresh["targets"] > 0
    assert fresh["hr@20"] > 0.5


def test_the_report_and_the_checkpoints_say_what_is_new_and_what_it_was_refreshed_from(
    run: Path, tmp_path: Path
) -> None:
    sasrec.refresh(run, shop(5), tmp_path / "next", epochs=3)
    report, old, now = report_of(tmp_path / "next"), shop(3), shop(5)
    assert report["events"] == {"new": now.height - old.height, "all": now.height, "missing": 0}
    assert report["users"] == {"new": now["user"].n_unique() - old["user"].n_unique(), "all": 120}
    assert report["items"]["new"] == 2
    assert report["items"]["began_as"] == {"neighbours": 2, "group": 0, "rare": 0}
    assert 0 < report["popularity"] < 1
    assert 0.5 < report["vectors"] < 1
    assert report["metrics"]["difference"]["low"] <= report["metrics"]["difference"]["high"]
    means = [report["metrics"][name]["ndcg@10"] for name in ("new", "old")]
    assert report["metrics"]["difference"]["mean"] == pytest.approx(means[0] - means[1])
    best = checkpoint_at(run)
    origin = checkpoint_at(tmp_path / "next").need("refreshed_from")
    assert (origin["run"], origin["checkpoint"], origin["data_hash"]) == (
        "run", best.path.name, best.need("data_hash"),
    )  # fmt: skip
    start = RunFolder(tmp_path / "next").events()[0]
    assert start["refreshed_from"] == origin
    training = RunFolder(tmp_path / "next").config()
    assert (training.evaluation.split, training.training.num_epochs) == ("all", 1)
    sasrec.export(tmp_path / "next", tmp_path / "export")
    assert "refreshed from the run run" in " ".join((tmp_path / "export/README.md").read_text().split())


def test_training_continues_from_the_compared_model_on_all_events(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[tuple[int, dict[str, torch.Tensor]]] = []
    ended: list[dict[str, torch.Tensor]] = []
    fit = Trainer.fit

    def watched(trainer: Trainer) -> str:
        began.append((trainer.config.training.num_epochs, copy.deepcopy(dict(trainer.model.state_dict()))))
        reason = fit(trainer)
        ended.append(copy.deepcopy(dict(trainer.model.state_dict())))
        return reason

    monkeypatch.setattr(Trainer, "fit", watched)
    sasrec.refresh(run, shop(5), tmp_path / "next", worse=1.0)
    assert [epochs for epochs, _ in began] == [5, 2]
    assert all(torch.equal(each, ended[0][name]) for name, each in began[1][1].items())


def test_an_item_that_only_the_newest_events_have_begins_from_its_neighbours(run: Path, tmp_path: Path) -> None:
    last = 1_600_000_000 + 5 * WEEK
    newest = pl.DataFrame(
        [(f"u{user:03}", item, last + n) for user in range(8) for n, item in enumerate(("item-01", "latest"))],
        schema=["user", "item", "time"],
        orient="row",
    )
    model = sasrec.refresh(run, pl.concat([shop(4), newest]), tmp_path / "next", epochs=1, worse=1.0)
    assert report_of(tmp_path / "next")["items"]["began_as"]["neighbours"] >= 1
    assert dict(model.similar("latest", 5)).keys() & {"item-01"}


def test_a_model_that_got_worse_is_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    def wrong(model: SequenceModel, batch: DeviceTrainingBatch) -> torch.Tensor:
        return -training_loss(model, batch, LossConfig())

    before = files(run)
    with pytest.raises(EvaluationError, match=r"the refreshed model is worse than .* Keep .* `worse`") as error:
        sasrec.refresh(run, shop(5), tmp_path / "next", loss_function=wrong)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "next").exists()
    assert files(run) == before
    sasrec.refresh(run, shop(5), tmp_path / "next", loss_function=wrong, worse=1.0)
    means = report_of(tmp_path / "next")["metrics"]
    assert means["new"]["ndcg@10"] < 0.95 * means["old"]["ndcg@10"]


def test_an_interrupted_refresh_is_resumed(run: Path, tmp_path: Path) -> None:
    sasrec.refresh(run, shop(5), tmp_path / "next")
    whole = checkpoint_at(tmp_path / "next")
    for newest in sorted((tmp_path / "next/checkpoints").iterdir())[1:]:
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
    first = checkpoint_at(tmp_path / "next")
    assert first.need("step") < whole.need("step")
    sasrec.resume(tmp_path / "next")
    resumed = checkpoint_at(tmp_path / "next")
    assert all(torch.equal(whole.weights[name], each) for name, each in resumed.weights.items())
    assert resumed.need("refreshed_from") == whole.need("refreshed_from")
    with pytest.raises(ConfigError, match=r"already holds a run.*sasrec train --train_dir \S+ --resume"):
        sasrec.refresh(run, shop(5), tmp_path / "next")


@pytest.mark.parametrize("epochs", [0, 2, 5])
def test_a_refresh_that_stops_before_its_first_checkpoint_starts_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """After 5 epochs, the comparison is over and the new run has begun."""
    train_epoch, left = Trainer._train_epoch, [epochs]

    def stop(trainer: Trainer, bar: Bar) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        train_epoch(trainer, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            sasrec.refresh(run, shop(5), tmp_path / "next")
    assert (tmp_path / "next").exists() == (epochs == 5)
    sasrec.refresh(run, shop(5), tmp_path / "next")


def test_a_refreshed_run_is_refreshed_again_from_files_with_the_columns_of_the_first(tmp_path: Path) -> None:
    names = {"user": "who", "item": "what", "time": "when"}
    for weeks in (3, 4, 5):
        shop(weeks).rename(names).write_csv(tmp_path / f"{weeks}.csv")
    columns = {"columns": "who:user,what:item,when:time"}
    sasrec.train(tmp_path / "3.csv", tmp_path / "run", **columns, **SMALL)
    sasrec.refresh(tmp_path / "run", tmp_path / "4.csv", tmp_path / "second", worse=1.0)
    model = sasrec.refresh(tmp_path / "second", str(tmp_path / "5.csv"), tmp_path / "third", worse=1.0)
    old = sasrec.load(tmp_path / "second").items.ids
    assert model.items.ids[: len(old)].equals(old)
    assert report_of(tmp_path / "third")["refreshed_from"]["run"] == "second"
    assert sasrec.load(tmp_path / "second", dataset=tmp_path / "5.csv").recommend_user("u119")


@pytest.mark.parametrize(
    "settings",
    [
        {"time": True, "time_span": 16},
        {"split": "temporal:0.8", "schedule": "cosine"},
        {"repeats": True, "loss": "bce"},
    ],
)
def test_models_with_time_temporal_splits_and_repeats_are_refreshed_from_a_prepared_folder(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    sasrec.prepare(shop(4), output=tmp_path / "old")
    sasrec.prepare(shop(5), output=tmp_path / "now")
    sasrec.train(tmp_path / "old", tmp_path / "run", **SMALL | {"num_epochs": 3} | settings)
    model = sasrec.refresh(tmp_path / "run", tmp_path / "now", tmp_path / "next", worse=1.0)
    assert model.data is not None
    assert RunFolder(tmp_path / "next").dataset().data_hash == model.data.data_hash
    assert model.repeats == settings.get("repeats", False)
    assert set(model.recommend_all(k=3)["user"]) == set(shop(5)["user"])


def test_data_without_times_holds_out_the_last_new_event_of_each_user(tmp_path: Path) -> None:
    sasrec.train(shop(3).drop("time"), tmp_path / "run", **SMALL)
    sasrec.refresh(tmp_path / "run", shop(5).drop("time"), tmp_path / "next", worse=1.0)
    metrics = report_of(tmp_path / "next")["metrics"]
    assert metrics["users"] > 40
    assert metrics["targets"] == metrics["users"]


def titled(weeks: int, folder: Path) -> Path:
    """A prepared folder of the shop, whose items have titles and two groups."""
    names = shop(weeks)["item"].unique().sort()
    table = pl.DataFrame({"id": names, "title": "T-" + names, "group": ["even", "odd"] * (len(names) // 2)})
    table.write_csv(folder / "items.csv")
    output = folder / f"prepared-{weeks}"
    sasrec.prepare(shop(weeks), output=output, items=folder / "items.csv", items_group="group")
    return output


def test_new_items_of_a_plain_log_are_noted_and_get_titles_and_groups_from_a_prepared_folder(
    tmp_path: Path,
) -> None:
    sasrec.train(titled(3, tmp_path), tmp_path / "run", **SMALL | {"num_epochs": 2})
    words = (
        "2 new items have no title and no group. To give them, prepare the newer data with `items` and `items_gr"
    )
    with pytest.warns(SasrecWarning, match=words):
        plain = sasrec.refresh(tmp_path / "run", shop(4), tmp_path / "plain", epochs=1, worse=1.0)
    assert (plain.title("item-01"), plain.title("new-item-07")) == ("T-item-01", None)
    with pytest.warns(SasrecWarning, match="^2 items have no title and no group"):
        sasrec.load(tmp_path / "plain", dataset=shop(5))
    prepared = titled(5, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no title")
        served = sasrec.load(tmp_path / "plain", dataset=prepared)
        again = sasrec.refresh(tmp_path / "plain", prepared, tmp_path / "again", epochs=1, worse=1.0)
    for model in (served, again):
        assert model.title("new-item-07") == "T-new-item-07"
        assert model.items.groups is not None
        assert not model.items.groups.null_count()


def test_the_filter_of_the_run_is_noted_and_named_where_no_new_event_is_left(tmp_path: Path) -> None:
    other = pl.col("time") >= 1_600_000_000 + 4 * WEEK
    log = shop(5).with_columns(event=pl.when(other).then(pl.lit("view")).otherwise(pl.lit("buy")))
    for weeks in (3, 4, 5):
        log.filter(pl.col("time") < 1_600_000_000 + weeks * WEEK).write_csv(tmp_path / f"{weeks}.csv")
    left_out = log.filter(other).height
    run = tmp_path / "run"
    sasrec.train(tmp_path / "4.csv", run, where="event = 'buy'", **SMALL | {"num_epochs": 1})
    words = rf"^{run} was trained with where=\"event = 'buy'\", so {left_out} rows of '5' are left out$"
    with pytest.warns(SasrecWarning, match=words):
        sasrec.load(run, dataset=tmp_path / "5.csv")
    with (
        pytest.warns(SasrecWarning, match=words),
        pytest.raises(
            DataError, match=rf"has no event that {run} lacks.*Rows that where=.*leaves out do not count"
        ),
    ):
        sasrec.refresh(run, tmp_path / "5.csv", tmp_path / "next")
    log.filter(other).write_csv(tmp_path / "views.csv")
    with pytest.raises(DataError, match=rf"no row fulfils where=.*This filter is that of {run}"):
        sasrec.refresh(run, tmp_path / "views.csv", tmp_path / "next")


def test_data_that_lacks_most_events_of_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    newest = shop(5).filter(pl.col("time") > 1_600_000_000 + 3 * WEEK)
    words = (
        rf"of {shop(3).height} events of {run} are not in 'frame'.*Give all events, old and new.*train a new run"
    )
    with pytest.raises(DataError, match=words):
        sasrec.refresh(run, newest, tmp_path / "next", worse=1.0)
    assert not (tmp_path / "next").exists()
    third = shop(5).filter(pl.col("time") > 1_600_000_000 + WEEK)
    sasrec.refresh(run, third, tmp_path / "next", epochs=1, worse=1.0)
    assert report_of(tmp_path / "next")["events"]["missing"] > 0


def test_what_cannot_be_refreshed_is_refused_in_one_sentence_and_nothing_is_written(
    run: Path, tmp_path: Path
) -> None:
    sasrec.export(run, tmp_path / "export")
    (tmp_path / "measured").mkdir()
    for name in ("config.toml", "metrics.json", "ranks.parquet"):
        (tmp_path / "measured" / name).write_bytes((run / name).read_bytes())
    foreign = shop(5).with_columns(item="other-" + pl.col("item"))
    cases: list[tuple[Path, Any, type[SasrecError], str]] = [
        (tmp_path / "export", shop(5), ConfigError, "is an export, which has no events and cannot be trained"),
        (tmp_path / "measured", shop(5), CheckpointError, "has no checkpoint yet"),
        (tmp_path / "nothing", shop(5), CheckpointError, "does not exist"),
        (run, foreign, DataError, "no item of 'frame' is known to the run"),
        (run, shop(5).drop("time"), DataError, "the run's data has times and 'frame' has none"),
        (run, shop(3), DataError, "has no event that .* lacks"),
        (run, shop(5).with_columns(item=pl.col("item").str.slice(-2).cast(pl.Int64)), DataError, "no item of"),
        (run, tmp_path / "absent.csv", DataError, "does not exist"),
    ]
    for folder, data, kind, words in cases:
        with pytest.raises(kind, match=words) as error:
            sasrec.refresh(folder, data, tmp_path / "next")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "next").exists(), words
    for options, words in (({"epochs": 0}, "`epochs` must be"), ({"worse": -0.1}, "`worse` must be a share")):
        with pytest.raises(ConfigError, match=words):
            sasrec.refresh(run, shop(5), tmp_path / "next", **options)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/text.txt").write_text("mine")
    with pytest.raises(SasrecError, match="has files and is not a run"):
        sasrec.refresh(run, shop(5), tmp_path / "notes")
    with pytest.raises(ConfigError, match="already holds a run"):
        sasrec.refresh(run, shop(5), run)


def test_a_run_whose_prepared_data_was_replaced_is_refused(tmp_path: Path) -> None:
    sasrec.prepare(shop(3), output=tmp_path / "data")
    sasrec.train(tmp_path / "data", tmp_path / "run", **SMALL | {"num_epochs": 1})
    with pytest.warns(SasrecWarning, match="replacing the data set in"):
        sasrec.prepare(shop(5), output=tmp_path / "data")
    with pytest.raises(DataError, match=r"Restore it, and prepare newer events in another folder\."):
        sasrec.refresh(tmp_path / "run", tmp_path / "data", tmp_path / "next")
    assert not (tmp_path / "next").exists()


def test_the_command_line_refreshes_and_says_what_is_new(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop(5).write_csv(tmp_path / "now.csv")
    words = ["refresh", str(run), f"--dataset={tmp_path / 'now.csv'}", f"--train_dir={tmp_path / 'next'}"]
    assert main([*words, "--epochs=4"]) == 0
    said = capsys.readouterr()
    assert "2 items" in said.out
    assert "vectors of new items began as the mean of their neighbours (2)\n" in said.out
    assert "of the new events went to other items than the old shares predict" in said.out
    assert "targets of" in said.out
    assert "refreshed, .0000 before" in said.out
    first, second = said.err.split("second training, for the new run: continues on all")
    assert "first training, to compare the two models: on all but the newest" in first
    assert "training stopped after 4 epochs: all 4 epochs done" in first
    assert "training stopped after 1 epoch: the only epoch done" in second
    assert "refreshed" in said.out
    assert "next: sasrec recommend" in said.err
    assert main(words) == 1
    assert "Continue it with `resume`" not in capsys.readouterr().err
    assert main([*words[:3], f"--train_dir={tmp_path / 'other'}", "--epochs=0"]) == 1
    assert "--epochs must be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["one user", "items that nobody had"])
def test_new_events_that_cannot_be_measured_are_refused_unless_any_model_is_accepted(
    run: Path, tmp_path: Path, kind: str
) -> None:
    newest, day = 1_600_000_000 + 9 * WEEK, 86_400
    rows = [("u001", f"item-{number:02d}", newest + number * day) for number in range(4)]
    if kind == "items that nobody had":
        rows = [(f"u{user:03d}", f"unheard-{user}", newest) for user in range(40)]
    now = pl.concat([shop(3), pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")])
    with pytest.raises(DataError, match=r"cannot be compared, .* accept the new model unmeasured with `worse` 1"):
        sasrec.refresh(run, now, tmp_path / "next")
    assert not (tmp_path / "next").exists()
    assert main(["refresh", str(run), "--dataset", str(written(now, tmp_path)), "--worse", "1",
                 "--train_dir", str(tmp_path / "next")]) == 0  # fmt: skip
    assert report_of(tmp_path / "next")["metrics"] is None
    sasrec.export(tmp_path / "next", tmp_path / "export")
    assert "refreshed from the run run." in " ".join((tmp_path / "export/README.md").read_text().split())
    assert sasrec.load(tmp_path / "next").recommend_user("u001")


def written(frame: pl.DataFrame, folder: Path) -> Path:
    frame.write_csv(folder / "now.csv")
    return folder / "now.csv"


def test_known_users_with_one_new_event_each_at_one_time_are_refreshed(run: Path, tmp_path: Path) -> None:
    rows = [(f"u{user:03d}", "item-01", 1_600_000_000 + 9 * WEEK) for user in range(40)]
    now = pl.concat([shop(3), pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")])
    sasrec.refresh(run, now, tmp_path / "next", worse=1.0)
    assert report_of(tmp_path / "next")["metrics"]["users"] > 2
