"""`sasrec compare`: saved ranks, protocol cards that must agree, and verdicts."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.significance import holm
from sasrec.runs import train as train_module
from sasrec.runs.folder import RunFolder
from tests.synthetic import chain_frame, small

SMALL = small()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seeds of one model (seed-0 …), two of another (short-0, short-1), and two runs under other protocols."""
    folder = tmp_path_factory.mktemp("runs")
    data = sasrec.prepare(chain_frame(users=120, items=40, longest=12), output=folder / "data")
    for seed in range(6):
        sasrec.train(data, folder / f"seed-{seed}", seed=seed, num_epochs=10, patience=3, **SMALL)
    for seed in range(2):
        sasrec.train(data, folder / f"short-{seed}", seed=seed, num_epochs=2, **SMALL)
    sasrec.train(data, folder / "temporal", num_epochs=1, split="temporal:0.7", **SMALL)
    sasrec.train(chain_frame(users=30, items=40), folder / "other", num_epochs=1, **SMALL)
    return folder


def altered(run: Path, to: Path, seed: int | None = None, **card: Any) -> Path:
    """A copy of a run with another seed in its settings and changed fields in its protocol card."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "dataset"))
    metrics = json.loads((to / "metrics.json").read_text())
    metrics["protocol"] |= card
    (to / "metrics.json").write_text(json.dumps(metrics))
    (to / "seal.json").unlink()  # as if the run had been measured so
    if seed is not None:
        RunConfig.load(to / "config.toml").replace(seed=seed).save(to / "config.toml")
    return to


@pytest.mark.parametrize("name", ["seed-0", "temporal"])
def test_the_ranks_kept_give_every_figure_of_the_metrics_file(name: str, runs: Path) -> None:
    frame, metrics = pl.read_parquet(runs / name / "ranks.parquet"), RunFolder(runs / name).metrics()
    assert frame.columns == ["scorer", "split", "user", "event", "full", "sampled"]
    scorers = {"model": metrics, **metrics["baselines"]}
    assert frame["scorer"].unique(maintain_order=True).to_list() == list(scorers)
    for scorer, split, candidates in itertools.product(scorers, ("valid", "test"), ("full", "sampled")):
        rows = frame.filter(pl.col("scorer") == scorer, pl.col("split") == split)
        assert len(rows) == metrics["protocol"][split]["targets"]
        ranks = rows[candidates].cast(pl.Float64).to_numpy()
        assert metrics_from_ranks(ranks) == scorers[scorer][split][candidates]
    data = sasrec.load(runs / name).data
    owner = np.searchsorted(data.offsets, frame["event"].to_numpy(), side="right") - 1
    assert data.user_ids.gather(owner).to_list() == frame["user"].to_list(), "an event is its user's"


def test_the_card_says_how_it_was_measured_and_which_fields_must_agree(runs: Path) -> None:
    card = RunFolder(runs / "seed-0").metrics()["protocol"]
    assert card["cutoffs"] == [1, 5, 10, 20, 50]
    assert (card["sampled_negatives"], card["sampled_seed"]) == (100, 0)
    assert card["metrics"]["ndcg@k"] == "1 / log2(1 + rank) if rank <= k, else 0"
    assert card["data_hash"] == sasrec.open_dataset(runs / "data").data_hash
    assert card["sasrec"].startswith(f"{sasrec.__version__}+")
    for fields in card["must_agree"].values():
        assert set(fields) <= card.keys()
    assert set(card["must_agree"]["sampled"]) - set(card["must_agree"]["full"]) == {
        "sampled",
        "sampled_negatives",
        "sampled_seed",
    }


def test_a_run_that_was_trained_on_can_be_compared_again_when_it_was_evaluated(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, log = tmp_path / "mine", tmp_path / "mine/log.jsonl"
    shutil.copytree(runs / "short-0", mine)
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "_measured", lambda *_: None)  # as killed when all was trained
        sasrec.resume(mine, num_epochs=3)
    with pytest.raises(EvaluationError, match="was trained further after it was measured"):
        sasrec.compare([runs / "seed-0", mine])
    before = log.read_text()
    sasrec.evaluate(mine, checkpoint=next(iter((mine / "checkpoints").iterdir())))
    assert log.read_text() == before, "another checkpoint's figures are printed only"
    sasrec.evaluate(mine)
    assert sasrec.compare([runs / "seed-0", mine]).others


def test_a_model_is_found_better_than_popularity_and_popularity_worse_than_it(runs: Path) -> None:
    run = str(runs / "seed-0")
    (found,) = sasrec.compare([f"{run}:popularity", run]).others
    assert found.verdict == "better"
    assert found.difference.low > 0.4
    assert found.sentence.startswith(f"{run} is better than {run}:popularity: NDCG@10 .")
    (back,) = sasrec.compare([run, f"{run}:pop"]).others
    assert back.verdict == "worse"
    assert back.difference.mean == -found.difference.mean


def test_the_figures_are_those_of_the_metrics_file_for_every_metric_split_and_candidates(runs: Path) -> None:
    a, b = runs / "seed-0", runs / "short-0"
    for metric, candidates, split in (("ndcg@10", "full", "test"), ("mrr", "sampled", "valid"), ("hr@1", "full", "valid")):  # fmt: skip
        found = sasrec.compare([a, b], metric=metric, candidates=candidates, split=split, resamples=200)
        kept = [RunFolder(run).metrics()[split][candidates] for run in (a, b)]
        sides = (found.first, found.others[0].side)
        for side, figures in zip(sides, kept, strict=True):
            for name in (metric, "ndcg@10", "hr@10"):
                assert side.metrics[name] == pytest.approx(figures[name], abs=1e-12)
        change = found.others[0].difference
        assert change.mean == pytest.approx(kept[1][metric] - kept[0][metric], abs=1e-12)
        assert change.low <= change.mean <= change.high


def test_runs_that_differ_only_in_the_seed_are_not_called_different(runs: Path) -> None:
    """With two runs of one model, the seed noise is estimated from their difference alone, so it is as large."""
    for pair in itertools.combinations([runs / f"seed-{seed}" for seed in range(6)], 2):
        found = sasrec.compare(pair, resamples=2000)
        assert found.others[0].verdict == "no difference"
        assert found.others[0].sentence.startswith("no difference was shown between ")
        assert found.others[0].adjusted_p > 0.4
        assert "the intervals cover the variation between seeds" in found.notes[0]


def test_six_seeds_of_one_model_tell_how_far_seeds_lie_apart(runs: Path) -> None:
    few, many = ([runs / f"seed-{seed}" for seed in range(count)] for count in (2, 6))
    wide, narrow = (sasrec.compare(each).others[0].difference for each in (few, many))
    assert wide.mean == narrow.mean
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_seeds_of_one_model_are_one_side_and_their_spread_widens_the_interval(runs: Path) -> None:
    three, two = [runs / f"seed-{seed}" for seed in range(3)], [runs / f"short-{seed}" for seed in range(2)]
    found = sasrec.compare([three[0], *two, *three[1:]])
    assert found.first.runs == tuple(map(str, three))
    assert found.others[0].side.runs == tuple(map(str, two))
    assert found.first.name == f"{three[0]} (3 seeds)"
    means = [np.mean([RunFolder(run).metrics()["test"]["full"]["ndcg@10"] for run in side]) for side in (three, two)]  # fmt: skip
    assert found.first.metrics["ndcg@10"] == pytest.approx(means[0])
    assert found.others[0].difference.mean == pytest.approx(means[1] - means[0])
    assert found.others[0].verdict == "worse"
    assert not found.notes, "the seeds' chance is in the interval"


def test_seeds_that_lie_far_apart_make_the_interval_as_wide_as_they_say(runs: Path, tmp_path: Path) -> None:
    """If a model's two seeds are one good and one bad run, no difference from a model in between is shown."""
    good, bad = runs / "seed-0", altered(runs / "short-0", tmp_path / "bad", seed=9)
    shutil.copy(good / "config.toml", bad / "config.toml")
    RunConfig.load(bad / "config.toml").replace(seed=9).save(bad / "config.toml")
    (wide,) = sasrec.compare([f"{good}:markov", good, bad]).others
    (narrow,) = sasrec.compare([f"{good}:markov", good]).others
    assert wide.verdict == "no difference"
    assert wide.difference.high - wide.difference.low > 3 * (narrow.difference.high - narrow.difference.low)


def test_more_than_two_are_adjusted_for_being_many(runs: Path) -> None:
    names = [f"{runs / 'seed-0'}{scorer}" for scorer in ("", ":markov", ":item-to-item", ":recent-7-days")]
    found = sasrec.compare(names).others
    p = [each.difference.p_value for each in found]
    assert [each.adjusted_p for each in found] == holm(p).tolist()
    assert max(each.adjusted_p / each.difference.p_value for each in found) > 1


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({"data_hash": "none"}, " | none)"),
        ({"split": "last-2: other"}, "split (leave-one-out: "),
        ({"ties": "first"}, "ties (half: "),
        ({"full": "a sample"}, "full (all items of the catalogue | a sample)"),
        ({"seen": "kept"}, "seen (items"),
        ({"card": 0}, "card (2 | 0)"),
    ],
)
def test_unlike_protocols_are_refused_and_the_field_is_named(
    card: dict[str, Any], told: str, runs: Path, tmp_path: Path
) -> None:
    other = altered(runs / "seed-1", tmp_path / "other", **card)
    with pytest.raises(EvaluationError, match="different protocols") as refused:
        sasrec.compare([runs / "seed-0", other])
    assert told in str(refused.value)


def test_other_splits_and_other_data_are_refused(runs: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"differ in split \(leave-one-out: .* \| temporal: .*training_events"
    ):
        sasrec.compare([runs / "seed-0", runs / "temporal"])
    with pytest.raises(EvaluationError, match="differ in data_hash"):
        sasrec.compare([runs / "seed-0", runs / "other"])


def test_another_seed_of_the_negatives_matters_to_sampled_figures_only(runs: Path, tmp_path: Path) -> None:
    other = altered(runs / "seed-1", tmp_path / "other", sampled_seed=7)
    with pytest.raises(EvaluationError, match=r"differ in sampled_seed \(0 \| 7\)"):
        sasrec.compare([runs / "seed-0", other], candidates="sampled")
    assert sasrec.compare([runs / "seed-0", other]).others[0].side.name == str(other)


def test_another_version_of_the_code_is_a_note(runs: Path, tmp_path: Path) -> None:
    other = altered(runs / "seed-1", tmp_path / "other", sasrec="0.0.9")
    notes = sasrec.compare([runs / "seed-0", other]).notes
    assert any(f"0.0.9, {sasrec.__version__}+" in note for note in notes)


def test_other_targets_and_files_of_two_measurements_are_refused(runs: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(runs / "seed-0/ranks.parquet")
    moved = altered(runs / "seed-1", tmp_path / "moved")
    pl.read_parquet(moved / "ranks.parquet").with_columns(pl.col("event") + 1).write_parquet(
        moved / "ranks.parquet"
    )
    with pytest.raises(EvaluationError, match="on different targets"):
        sasrec.compare([runs / "seed-0", moved])
    mixed = altered(runs / "seed-1", tmp_path / "mixed")
    frame.with_columns(pl.col("full") + 1).write_parquet(mixed / "ranks.parquet")
    with pytest.raises(EvaluationError, match=r"different evaluations\. Measure it again: sasrec evaluate"):
        sasrec.compare([runs / "seed-0", mixed])
    for damaged in ("ranks.parquet", "metrics.json"):
        cut = altered(runs / "seed-1", tmp_path / damaged)
        (cut / damaged).write_bytes((cut / damaged).read_bytes()[:500])
        with pytest.raises(EvaluationError, match=r"(?i)is damaged\W+measure "):
            sasrec.compare([runs / "seed-0", cut])
    (mixed / "ranks.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"has no ranks\.parquet.*Measure it again"):
        sasrec.compare([runs / "seed-0", mixed])


def test_what_cannot_be_asked_is_told(runs: Path, tmp_path: Path) -> None:
    a, b = runs / "seed-0", runs / "short-0"
    (tmp_path / "empty").mkdir()
    sasrec.final_fit(a, tmp_path / "final")
    for asked, options, message in (
        ([a], {}, "at least two different runs"),
        ([a, a], {}, "Name each run once"),
        ([a, b], {"metric": "ndcg@0"}, "unknown metric 'ndcg@0'. Choose one of: ndcg@K, "),
        ([a, b], {"metric": "auc"}, "unknown metric 'auc'. Choose one of: ndcg@K, "),
        ([a, b], {"candidates": "nope"}, "unknown `candidates` 'nope'. Choose one of: full, sampled"),
        ([a, b], {"split": "train"}, "unknown `split` 'train'. Choose one of: valid, test"),
        ([a, b], {"resamples": 10}, "at least 100"),
        ([a, f"{a}:nothing"], {}, "no scorer 'nothing'. Choose one of: model, popularity, recent-7-days"),
        ([a, tmp_path / "empty"], {}, "has no metrics.json"),
        ([a, tmp_path / "final"], {}, "can measure it. Compare the run that chose its settings"),
        ([a, runs], {}, f"{runs} is a folder of runs. Name the runs in it, such as {runs}/"),
        ([a, b, altered(a, tmp_path / "copy")], {}, "the same settings, seed and ranks"),
    ):
        with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
            sasrec.compare(asked, **options)


def test_the_command_prints_a_table_a_sentence_and_what_to_bear_in_mind(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(runs / "short-0"), str(runs / "seed-0"), f"{runs / 'seed-0'}:markov"]
    assert main(["compare", *names, "--metric", "hr@5", "--resamples", "500"]) == 0
    out = capsys.readouterr().out
    for heading in ("HR@5", "NDCG@10", "HR@10", "difference", "95 % interval", "Holm's p"):
        assert heading in out
    assert f"{names[1]} is better than {names[0]}: HR@5 ." in out
    assert "not the random seed" in out
    assert main(["compare", names[0]]) == 1
    assert "at least two different runs" in capsys.readouterr().err


def test_a_full_disk_leaves_the_ranks_and_metrics_of_before(runs: Path) -> None:
    run = runs / "short-1"
    before = {name: (run / name).read_bytes() for name in ("ranks.parquet", "metrics.json")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            sasrec.evaluate(run, device="cpu", details=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {name: (run / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_of_200_pairs_of_runs_that_differ_only_in_the_seed_none_is_called_different(tmp_path: Path) -> None:
    """400 runs of one model in 200 pairs. The second run of a pair has max_minutes = 60, a limit that is never reached.

    With that setting, the two runs count as two equally good models. Without it, they count as one model.
    """
    sasrec.prepare(chain_frame(users=200, items=40, longest=12), output=tmp_path / "data")
    sides: list[list[Path]] = [[], []]
    alone = together = 0
    for number in range(200):
        for half, side in enumerate(sides):
            run = tmp_path / f"{number}-{half}"
            limit = {"max_minutes": 60.0 * half}
            sasrec.train(
                tmp_path / "data", run, seed=2 * number + half, num_epochs=10, patience=3, **limit, **SMALL
            )
            shutil.rmtree(run / "checkpoints")
            side.append(run)
        first, second = sides[0][-1], sides[1][-1]
        alone += sasrec.compare([first, second], resamples=2000).others[0].verdict != "no difference"
        assert sasrec.compare([f"{first}:popularity", first], resamples=2000).others[0].verdict == "better"
        RunConfig.load(second / "config.toml").replace(max_minutes=0.0).save(tmp_path / "config.toml")
        twin = altered(second, tmp_path / "twin")
        shutil.copy(tmp_path / "config.toml", twin)
        assert sasrec.compare([first, twin], resamples=2000).others[0].verdict == "no difference"
        shutil.rmtree(twin)
    for start in range(0, 198, 3):
        three = [run for side in sides for run in side[start : start + 3]]
        together += sasrec.compare(three, resamples=2000).others[0].verdict != "no difference"
    assert alone <= 12, f"{alone} of 200 pairs, one run a side"
    assert together <= 3, f"{together} of 66 pairs, three seeds a side"


def test_one_run_given_as_text_is_an_error_that_shows_the_form() -> None:
    with pytest.raises(
        ConfigError,
        match=r"runs must be a list of at least two runs, such as \['runs/a', 'runs/b'\], not 'runs/a'",
    ):
        sasrec.compare("runs/a")
