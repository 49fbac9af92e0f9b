"""`sasrec compare` on runs with synthetic ranks: users, seeds, Holm's method, grouping by model, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.data.splits import split_events
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.card import card
from sasrec.evaluation.metrics import metrics_from_ranks, of_targets
from sasrec.evaluation.significance import paired_bootstrap, seed_noise
from sasrec.runs.folder import RunFolder
from tests.synthetic import dataset

USERS = 100
USER = np.arange(USERS)


def made(folder: Path, ranks: np.ndarray, *, split: str = "leave-one-out", version: str = "", start_from: str | None = None, **settings: Any) -> str:  # fmt: skip
    """Write a run whose model has these ranks and whose baselines always have rank 20. Returns the run's name."""
    folder.mkdir(parents=True)
    data = dataset([[1, 2, 3, 4, 5]] * USERS)
    protocol = dict(card(data, split_events(data, split)))
    scorers = {"model": ranks, "popularity": np.full(len(ranks), 20.0), "markov": np.full(len(ranks), 20.0)}
    users = np.repeat(USER, len(ranks) // USERS)
    rows = {"user": users, "event": np.arange(len(ranks))}
    frames, metrics = [], {}
    for name, each in scorers.items():
        metrics[name] = {part: dict.fromkeys(("full", "sampled"), metrics_from_ranks(each)) for part in ("valid", "test")}  # fmt: skip
        frames += [pl.DataFrame({"scorer": name, "split": part, **rows, "full": each, "sampled": each}, schema_overrides={"full": pl.Float32, "sampled": pl.Float32}) for part in ("valid", "test")]  # fmt: skip
    pl.concat(frames).write_parquet(folder / "ranks.parquet")
    if version:
        protocol["sasrec"] = version
    whole = {**metrics.pop("model"), "baselines": metrics, "protocol": protocol}
    (folder / "metrics.json").write_text(json.dumps(whole))
    RunConfig().replace(split=split, **settings).save(folder / "config.toml")
    end = {"event": "stopped", "reason": "all done", "best_epoch": 1, "seconds": 1, "time": "2026-11-25"}
    told = [{"event": "start", "start_from": start_from}, end, {"event": "metrics"}]
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told))
    return str(folder)


def hits(seed: int, share: float = 0.5, rows: int = USERS) -> np.ndarray:
    """Rank 1 for a random share of the rows, and rank 20, where NDCG@10 is 0, for the others."""
    return np.where(np.random.default_rng(seed).random(rows) < share, 1.0, 20.0)


def seeds(folder: Path, name: str, shares: list[float], **settings: Any) -> list[str]:
    """Runs of one model with the seeds 0, 1, …"""
    return [
        made(folder / f"{name}-{seed}", hits(seed, share), seed=seed, **settings)
        for seed, share in enumerate(shares)
    ]


def ndcg(run: str) -> np.ndarray:
    frame = pl.read_parquet(f"{run}/ranks.parquet").filter(pl.col("scorer") == "model", pl.col("split") == "test")
    return of_targets(frame["full"].cast(pl.Float64).to_numpy(), "ndcg@10")


def test_all_targets_of_a_user_are_drawn_together(tmp_path: Path) -> None:
    """Each user's second target has the rank of the first, so twice the rows add no information."""
    a, b = (
        made(tmp_path / str(seed), np.repeat(hits(seed), 2), split="last-2", hidden_units=8 + 2 * seed)
        for seed in (0, 1)
    )
    found = sasrec.compare([a, b]).others[0].difference
    differences = ndcg(b) - ndcg(a)
    assert found == paired_bootstrap(differences, np.repeat(USER, 2))
    once = paired_bootstrap(differences[::2], USER)
    assert (found.low, found.high) == pytest.approx((once.low, once.high))
    naive = paired_bootstrap(differences, np.arange(2 * USERS))
    assert found.high - found.low > 1.3 * (naive.high - naive.low)


def test_of_several_comparisons_holms_p_decides_and_not_the_interval(tmp_path: Path) -> None:
    first = np.where(np.arange(USERS) < 5, 1.0, 20.0)
    names = [made(tmp_path / "first", first)]
    for place in (1, 2, 3):  # hits 15 users that the first misses, and misses the first's 5 users
        other = np.where((np.arange(USERS) >= 5 + 15 * place) & (np.arange(USERS) < 20 + 15 * place), 1.0, 20.0)
        names.append(made(tmp_path / f"{place}", other, hidden_units=8 * place))
    (alone,) = (one := sasrec.compare(names[:2])).others
    assert alone.verdict == "better"
    assert not any("Holm" in note for note in one.notes)
    found = sasrec.compare(names)
    for each in found.others:
        assert each.difference.p_value <= 0.05 < each.adjusted_p
        assert each.difference.low > 0
        assert each.verdict == "no difference"
        assert each.sentence.startswith("no difference was shown")
    assert sum("an interval that excludes 0 does not show a difference here" in note for note in found.notes) == 1


def test_the_noise_of_both_sides_is_of_their_own_runs(tmp_path: Path) -> None:
    a = seeds(tmp_path, "a", [0.5, 0.52, 0.48])
    b = seeds(tmp_path, "b", [0.2, 0.9], hidden_units=8)
    found = sasrec.compare([*a, *b]).others[0].difference
    differences = np.mean([ndcg(run) for run in b], 0) - np.mean([ndcg(run) for run in a], 0)
    means = [[float(ndcg(run).mean()) for run in side] for side in (a, b)]
    expected = paired_bootstrap(differences, USER, noise=seed_noise(means))
    assert found.p_value == expected.p_value
    assert (found.low, found.high) == (max(-1, expected.low), min(1, expected.high))


def test_no_interval_is_wider_than_what_a_difference_can_be(tmp_path: Path) -> None:
    runs = [*seeds(tmp_path, "a", [0.1, 0.9]), *seeds(tmp_path, "b", [0.2, 0.8], hidden_units=8)]
    found = sasrec.compare(runs).others[0]
    assert (found.difference.low, found.difference.high) == (-1, 1)
    assert "(95 % interval -1.0000 to 1.0000, p" in found.sentence


def test_a_single_run_beside_others_has_the_noise_of_theirs_and_a_note_names_it(tmp_path: Path) -> None:
    a = seeds(tmp_path, "a", [0.5, 0.5, 0.5])
    b, c = (made(tmp_path / name, hits(9), hidden_units=units) for name, units in (("b", 8), ("c", 16)))
    found = sasrec.compare([f"{a[0]}:popularity", *a, b])
    single = found.others[1]
    theirs = [float(ndcg(run).mean()) for run in a]
    assert single.difference == paired_bootstrap(ndcg(b), USER, noise=seed_noise([[ndcg(b).mean()]], [theirs]))
    (note,) = found.notes
    assert f"For {b}, this" in note
    assert "from the models with several runs" in note
    (note,) = sasrec.compare([*a, b, c]).notes
    assert f"For {b}, {c}, this variation is estimated" in note
    (note,) = sasrec.compare([f"{b}:popularity", b, c]).notes
    assert note.startswith("the intervals only cover the sampling of users, not the random seed")


def test_settings_by_which_no_weight_changes_make_no_other_model(tmp_path: Path) -> None:
    changes = [{}, {"device": "cpu"}, {"save_minutes": 7.0}, {"detect_anomaly": True}, {"show_shapes": True}, {"tensorboard": True}, {"diagnose_every": 3}]  # fmt: skip
    runs = [made(tmp_path / str(seed), hits(seed), seed=seed, **each) for seed, each in enumerate(changes)]
    other = made(tmp_path / "other", hits(9), seed=9, lr=0.5)
    found = sasrec.compare([*runs, other])
    assert found.first.runs == tuple(runs)
    assert [each.side.runs for each in found.others] == [(other,)]


def test_runs_of_one_split_are_one_model_however_it_is_written(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / split, hits(seed), seed=seed, split=split)
        for seed, split in enumerate(("leave-one-out", "last-1"))
    ]
    assert "differ only in the random seed" in sasrec.compare(runs).notes[0]


def test_equal_settings_and_seed_with_other_weights_are_two_models(tmp_path: Path) -> None:
    """For example, before and after a change of the code."""
    before, after = made(tmp_path / "before", hits(0, 0.3)), made(tmp_path / "after", hits(1, 0.7))
    found = sasrec.compare([before, after])
    assert found.others[0].difference == paired_bootstrap(ndcg(after) - ndcg(before), USER)
    assert found.others[0].verdict == "better"
    assert any(note.startswith(f"{before}, {after} have equal settings") for note in found.notes)
    assert any("not the random seed" in note for note in found.notes)


def test_seeds_before_and_after_a_change_of_the_code_are_told_apart_by_its_version(tmp_path: Path) -> None:
    def four(folder: Path, versions: str) -> list[str]:
        where = zip(("a-0", "a-1", "b-0", "b-1"), versions, strict=True)
        return [
            made(folder / name, hits(number), seed=number % 2, version=f"0.1.0+{version}")
            for number, (name, version) in enumerate(where)
        ]

    names = four(tmp_path / "told", "1122")
    found = sasrec.compare([names[0], names[3], names[1], names[2]])
    assert (set(found.first.runs), set(found.others[0].side.runs)) == (set(names[:2]), set(names[2:]))
    for number, versions in enumerate(("1111", "1222")):
        names = four(tmp_path / str(number), versions)
        found = sasrec.compare(names)
        assert [found.first.runs, *(each.side.runs for each in found.others)] == [(name,) for name in names]


def test_runs_from_other_initial_weights_are_another_model(tmp_path: Path) -> None:
    names = [
        made(tmp_path / str(number), hits(number), seed=number, start_from=start)
        for number, start in enumerate((None, None, "there", "there"))
    ]
    (tmp_path / "0/log.jsonl").unlink()
    with (tmp_path / "1/log.jsonl").open("ab") as log:
        log.write(
            b'{"event": "metrics"}\nnull\n\xff\n{"event": "start", "start_'
        )  # an incomplete line, as after a kill
    found = sasrec.compare(names)
    assert (found.first.runs, found.others[0].side.runs) == (tuple(names[:2]), tuple(names[2:]))


def test_a_run_that_has_not_ended_is_no_seed_of_others_and_named(tmp_path: Path) -> None:
    names = seeds(tmp_path, "run", [0.5, 0.5, 0.5, 0.5])
    (tmp_path / "run-0/log.jsonl").write_text(
        '{"event": "metrics"}\n'
    )  # as for a run without a log that was measured again
    for seed in (2, 3):
        log = tmp_path / f"run-{seed}/log.jsonl"
        log.write_text(log.read_text() + '{"event": "resume"}\n{"event": "stopped", "reason": "interrupted"}\n')
    found = sasrec.compare([f"{names[0]}:markov", *names])
    assert [each.side.runs for each in found.others] == [tuple(names[:2]), (names[2],), (names[3],)]
    words = " has not finished training, so it is not grouped with other seeds"
    assert [note.split(words)[0] for note in found.notes if words in note] == names[2:]


def test_a_run_that_was_trained_on_since_it_was_measured_is_refused_but_not_its_baselines(tmp_path: Path) -> None:
    names = seeds(tmp_path, "run", [0.5, 0.5])
    log = tmp_path / "run-1/log.jsonl"
    log.write_text(log.read_text() + '{"event": "resume"}\n' + log.read_text().splitlines()[1] + "\n")
    with pytest.raises(
        EvaluationError, match=r"run-1 was trained further after it was measured\. Measure it again"
    ):
        sasrec.compare(names)
    assert sasrec.compare([names[0], f"{names[1]}:markov"]).others


def test_intervals_that_knew_held_out_times_are_noted(tmp_path: Path) -> None:
    time = made(tmp_path / "time", hits(0), time=True)
    whole = made(tmp_path / "whole", hits(1), time=True, interval_unit="history")
    notes = [note for note in sasrec.compare([time, whole]).notes if "held-out times" in note]
    assert notes == [f"{whole} uses interval_unit = history, so its unit of time depends on held-out times"]  # fmt: skip


def test_rounding_is_no_difference(tmp_path: Path) -> None:
    """For some users, means of the same three ranks in another order differ by 1e-16."""
    ranks = [np.random.default_rng(seed).integers(1, 10, USERS).astype(float) for seed in range(3)]
    first = [made(tmp_path / f"a-{seed}", each, seed=seed) for seed, each in enumerate(ranks)]
    last = [made(tmp_path / f"b-{seed}", each, seed=seed, maxlen=9) for seed, each in enumerate([*ranks[1:], ranks[0]])]  # fmt: skip
    means = [np.stack([ndcg(run) for run in runs]).mean(0) for runs in (first, last)]
    assert not np.array_equal(*means)
    (found,) = sasrec.compare([*first, *last]).others
    assert (found.difference.mean, found.adjusted_p) == (0, 1)


def test_a_baseline_of_a_run_counts_once_by_whatever_name(tmp_path: Path) -> None:
    run = made(tmp_path / "run", hits(0))
    with pytest.raises(ConfigError, match="name only one of them"):
        sasrec.compare([run, f"{run}:pop", f"{run}/:popularity"])


def test_a_beginning_of_two_names_is_ambiguous(tmp_path: Path) -> None:
    run = made(tmp_path / "run", hits(0))
    with pytest.raises(ConfigError, match=r":m is ambiguous\. Write model or markov"):
        sasrec.compare([run, f"{run}:m"])
    assert sasrec.compare([run, f"{run}:ma"]).others[0].side.name == f"{run}:ma"


def test_too_few_resamples_for_any_difference_to_be_told_are_refused(tmp_path: Path) -> None:
    clear = [
        made(tmp_path / f"{place}", np.full(USERS, 20.0 - place), hidden_units=8 + 2 * place) for place in range(4)
    ]
    names = [made(tmp_path / "first", np.full(USERS, 1.0)), *clear]
    with pytest.raises(ConfigError, match=r"resamples is 159, too few .* at least 160"):
        sasrec.compare(names, resamples=159)
    assert {each.verdict for each in sasrec.compare(names, resamples=160).others} == {"worse"}


@pytest.mark.parametrize(
    ("candidates", "split", "line", "figure"),
    [
        ("full", "test", "test of last-2, full catalogue, data events ", ": NDCG@10 ."),
        ("sampled", "test", "test of last-2, 100 sampled negatives, seed 0, data events ", ": sampled NDCG@10 ."),
        ("full", "valid", "validation of last-2, full catalogue, data events ", ": validation NDCG@10 ."),
        ("sampled", "valid", "validation of last-2, 100 sampled negatives", ": validation sampled NDCG@10 ."),
    ],
)
def test_what_is_printed_says_under_which_protocol(
    candidates: str, split: str, line: str, figure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (
        made(tmp_path / str(seed), hits(seed, rows=2 * USERS), split="last-2", lr=1e-3 + seed) for seed in (0, 1)
    )
    assert main(["compare", a, b, "--candidates", candidates, "--split", split, "--resamples", "1000"]) == 0
    out = capsys.readouterr().out
    protocol = sasrec.compare([a, b], resamples=100).protocol
    assert protocol == RunFolder(a).metrics()["protocol"]
    assert line in out
    assert f"{protocol['data_hash'][:12]}, 200 targets of 100 users, 1,000 resamples\n" in out
    assert figure in out


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "3",
        "null",
        '"text"',
        "{",
        "without test",
        "without protocol",
        "without targets",
        "words",
        "a list",
    ],
)
def test_a_metrics_file_of_another_shape_is_told_to_be_measured_again(text: str, tmp_path: Path) -> None:
    good, bad = made(tmp_path / "good", hits(0)), made(tmp_path / "bad", hits(1), seed=1)
    whole = RunFolder(bad).metrics()
    changed: dict[str, Any] = {
        "without test": {name: part for name, part in whole.items() if name != "test"},
        "without protocol": {name: part for name, part in whole.items() if name != "protocol"},
        "without targets": whole | {"protocol": whole["protocol"] | {"test": {"users": 3}}},
        "words": whole | {"test": whole["test"] | {"full": dict.fromkeys(whole["test"]["full"], "high")}},
        "a list": whole | {"baselines": list(whole["baselines"])},
    }
    (tmp_path / "bad/metrics.json").write_text(json.dumps(changed[text]) if text in changed else text)
    message = f"{bad}/metrics.json is damaged; measure the run again: sasrec evaluate {bad}"
    with pytest.raises(EvaluationError, match=message):
        RunFolder(bad).metrics()
    with pytest.raises(EvaluationError, match=message):
        sasrec.compare([good, bad])


@pytest.mark.parametrize("column", ["scorer", "split", "user", "event", "full", "sampled"])
def test_ranks_without_a_column_or_with_words_in_it_are_told_to_be_measured_again(
    column: str, tmp_path: Path
) -> None:
    good, bad = made(tmp_path / "good", hits(0)), made(tmp_path / "bad", hits(1), seed=1)
    frame = pl.read_parquet(f"{bad}/ranks.parquet")
    frame.drop(column).write_parquet(f"{bad}/ranks.parquet")
    with pytest.raises(EvaluationError, match=r"ranks\.parquet is damaged\. Measure it again: sasrec evaluate "):
        sasrec.compare([good, bad])
    changed = pl.lit("high") if column in ("full", "sampled") else pl.lit(1)
    frame.with_columns(changed.alias(column)).write_parquet(f"{bad}/ranks.parquet")
    with pytest.raises(EvaluationError, match=r"Measure (it|both runs) again"):
        sasrec.compare([good, bad])


def test_ranks_that_are_not_there_for_the_candidates_asked_for_are_refused(tmp_path: Path) -> None:
    good, bad = made(tmp_path / "good", hits(0)), made(tmp_path / "bad", hits(1), seed=1)
    frame = pl.read_parquet(f"{bad}/ranks.parquet")
    frame.with_columns(sampled=pl.lit(None, pl.Float32)).write_parquet(f"{bad}/ranks.parquet")
    assert sasrec.compare([good, bad]).others
    with pytest.raises(EvaluationError, match="different evaluations"):
        sasrec.compare([good, bad], candidates="sampled")
    frame.filter(pl.col("scorer") != "model").write_parquet(f"{bad}/ranks.parquet")
    with pytest.raises(EvaluationError, match="different evaluations"):
        sasrec.compare([good, bad])
