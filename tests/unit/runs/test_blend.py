"""A blend of model and baseline, chosen on validation: measured, served, exported."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import rankdata

import sasrec
from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.cli.main import main
from sasrec.data.baskets import split_of
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecWarning
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.ranking.blend import fused
from sasrec.runtime.log import RunLog
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "time"])
def blended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:  # type: ignore[type-arg]
    """A short training, so that a blend with the Markov chain is better."""
    run = tmp_path_factory.mktemp("blend") / "run"
    sasrec.train(chain_frame(users=120), run, time=request.param, **small(num_epochs=3))
    return run, sasrec.blend(run, baselines=("popularity", "item-to-item"))


def test_fused_scores_follow_the_formula_with_ties_in_the_middle() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 5, (2, 20, 30)).astype(np.float32)
    found = fused(torch.from_numpy(one), torch.from_numpy(other), 0.3)[:, 1:].numpy()

    def reciprocal(scores: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        places = rankdata(-scores[:, 1:], axis=1)
        return 1 / (60 + places)

    assert np.allclose(found, 0.3 * reciprocal(one) + 0.7 * reciprocal(other), rtol=0, atol=1e-15)
    one[3, 4] = np.nan
    assert fused(torch.from_numpy(one), torch.from_numpy(other), 0.3)[3].isnan().all()


def test_the_best_of_the_tried_is_chosen_and_what_is_measured_is_served(blended: tuple[Path, dict]) -> None:  # type: ignore[type-arg]
    run, report = blended
    assert report["wins"]
    assert report["valid"]["blend"] > max(report["valid"]["model"], report["valid"]["baseline"])
    served = sasrec.load(f"{run}:blend")
    assert served.data is not None
    config = config_of(checkpoint_at(run))
    split = with_ticks(split_of(served.data, config.evaluation), served.data, config.model)
    for part, name in ((split.valid, "valid"), (split.test, "test")):
        found = metrics_from_ranks(target_ranks(served.scorer, part).full)["ndcg@10"]
        assert found == pytest.approx(report[name]["blend"], abs=1e-12)
    metrics = json.loads((run / "metrics.json").read_text())
    assert report["test"]["model"] == pytest.approx(metrics["test"]["full"]["ndcg@10"])
    change = report["test"]["difference"]
    alone = report["test"]["model" if change["against"] == "model" else "baseline"]
    assert change["against"] in ("model", report["baseline"])
    assert change["mean"] == pytest.approx(report["test"]["blend"] - alone)
    assert change["low"] <= change["mean"] <= change["high"]


def test_its_lists_come_from_python_files_and_exports(blended: tuple[Path, dict], tmp_path: Path) -> None:  # type: ignore[type-arg]
    run, _ = blended
    served = sasrec.load(f"{run}:blend")
    one = served.recommend_user("u000", 5)
    everybody = served.recommend_all(5).filter(user="u000")
    assert (
        one == list(zip(everybody["item"], everybody["score"], strict=True))
        or [i for i, _ in one] == everybody["item"].to_list()
    )
    sasrec.export(f"{run}:blend", tmp_path / "model")
    history, times = ["item-03", "item-07"], [1.6e9, 1.6e9 + 60]
    exported = sasrec.load(tmp_path / "model")
    assert exported.recommend(history, 10, times=times) == served.recommend(history, 10, times=times)
    assert "blend of the model and a baseline" in (tmp_path / "model/README.md").read_text()
    assert served.similar("item-03", 2) == sasrec.load(run).similar("item-03", 2)


def test_final_fit_and_refresh_of_a_blended_run_serve_the_blend(
    blended: tuple[Path, dict],  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    run, report = blended
    sasrec.final_fit(run, tmp_path / "final")
    frame = chain_frame(users=120)
    later = chain_frame(users=120, seed=5).with_columns(pl.col("time") + 10**6)
    sasrec.refresh(tmp_path / "final", pl.concat([frame, later]), tmp_path / "next", epochs=1, worse=1.0)
    for name in ("final", "next"):
        served = sasrec.load(f"{tmp_path / name}:blend")
        assert served.scorer.weight == report["weight"]  # type: ignore[attr-defined]
        assert len(served.recommend_user("u000", 5)) == 5


def test_a_blend_that_does_not_win_is_not_written(tmp_path: Path) -> None:
    """With one item that always follows, the Markov chain alone is right."""
    rows = [(f"u{user}", f"i{(user + k) % 7}", 1_600_000_000 + k) for user in range(40) for k in range(6)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    sasrec.train(frame, tmp_path / "run", **small(num_epochs=1, lr=1e-6))
    report = sasrec.blend(tmp_path / "run", baselines=("markov",))
    assert not report["wins"]
    assert report["best_alone"] == "markov"
    assert not (tmp_path / "run/blend.json").exists()
    (tmp_path / "run/blend.json").write_text('{"baseline": "markov", "weight": 0.5}')
    assert not sasrec.blend(tmp_path / "run", baselines=("markov",))["wins"]
    assert not (tmp_path / "run/blend.json").exists(), "one of an earlier state of the run is removed"
    with pytest.raises(ConfigError, match="has no blend yet"):
        sasrec.load(f"{tmp_path / 'run'}:blend")


def test_a_search_without_its_baseline_leaves_a_blend_that_won(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    sasrec.train(chain_frame(users=120), run, **small(num_epochs=12))
    report = sasrec.blend(run)
    assert report["wins"]
    name, written = report["baseline"], (run / "blend.json").read_bytes()
    weak = next(each for each in report["tried"] if not trial(run, each, tmp_path)["wins"])
    assert main(["blend", str(run), "--baselines", weak]) == 0
    said = capsys.readouterr().out
    assert f"the blend from before stays ({report['weight']} model" in said
    assert f"chosen among {', '.join(report['tried'])}): its baseline was not tried now" in said
    assert (run / "blend.json").read_bytes() == written
    lucky = json.loads(written) | {"baseline": weak, "tried": [weak]}
    (run / "blend.json").write_text(json.dumps(lucky))
    assert main(["blend", str(run), "--baselines", weak]) == 0
    assert "the blend from before is removed" in capsys.readouterr().out
    assert not (run / "blend.json").exists()
    (run / "blend.json").write_text(json.dumps(lucky))
    assert main(["blend", str(run), "--baselines", name]) == 0
    assert "it replaces the blend from before" in capsys.readouterr().out


def trial(run: Path, name: str, folder: Path) -> dict:  # type: ignore[type-arg]
    """Blend a copy of the run with one baseline."""
    copy = folder / f"with-{name}"
    shutil.copytree(run, copy)
    return sasrec.blend(copy, baselines=(name,))


def test_a_blend_of_a_run_that_was_trained_further_is_refused_until_it_is_chosen_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sasrec.train(chain_frame(users=120), run, **small(num_epochs=3))
    assert sasrec.blend(run, baselines=("popularity", "item-to-item"))["wins"]
    sasrec.resume(run, num_epochs=6)
    with pytest.raises(ConfigError, match=r"was chosen with step-\d+, but its best is now step-.*blend"):
        sasrec.load(f"{run}:blend")
    with pytest.warns(SasrecWarning, match=r"final gets no blend: the blend of .*run was chosen with"):
        sasrec.final_fit(run, tmp_path / "final")
    assert not (tmp_path / "final/blend.json").exists()
    again = sasrec.blend(run, baselines=("popularity", "item-to-item"))
    assert (run / "blend.json").exists() == again["wins"]


def test_an_interrupted_final_fit_or_refresh_has_the_blend_once_it_is_resumed(
    blended: tuple[Path, dict],  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    run, report = blended
    later = chain_frame(users=120, seed=5).with_columns(pl.col("time") + 10**6)
    data = pl.concat([chain_frame(users=120), later])

    def stop(line: dict) -> None:  # type: ignore[type-arg]
        if line["event"] == "epoch":
            signal.raise_signal(signal.SIGINT)

    log = RunLog(None, watch=stop)
    with pytest.raises(KeyboardInterrupt):
        sasrec.final_fit(run, tmp_path / "final", log=log)
    with pytest.raises(KeyboardInterrupt):
        sasrec.refresh(run, data, tmp_path / "next", epochs=5, worse=1.0, log=log)
    for name in ("final", "next"):
        sasrec.resume(tmp_path / name)
        assert sasrec.load(f"{tmp_path / name}:blend").scorer.weight == report["weight"]  # type: ignore[attr-defined]


def test_wrong_uses_and_damaged_files_are_refused(blended: tuple[Path, dict], tmp_path: Path) -> None:  # type: ignore[type-arg]
    run, _ = blended
    with pytest.raises(ConfigError, match="is not a baseline of this run"):
        sasrec.blend(run, baselines=("best",))
    sasrec.export(run, tmp_path / "model")
    with pytest.raises(ConfigError, match="an export has no events"):
        sasrec.blend(tmp_path / "model")
    sasrec.train(chain_frame(), tmp_path / "all", split="all", **small(num_epochs=1))
    with pytest.raises(EvaluationError, match="no validation targets"):
        sasrec.blend(tmp_path / "all")
    file = run / "blend.json"
    good = file.read_text()
    try:
        for text in ("{", "[]", '{"baseline": "markov", "weight": 2.0}', '{"baseline": "../x", "weight": 0.5}'):
            file.write_text(text)
            with pytest.raises(DataError, match=r"[Bb]lend the run again"):
                sasrec.load(f"{run}:blend")
    finally:
        file.write_text(good)


def test_the_command_line_says_what_was_chosen(
    blended: tuple[Path, dict],  # type: ignore[type-arg]
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, _ = blended
    assert main(["blend", str(run), "--baselines", "popularity", "item-to-item"]) == 0
    said = capsys.readouterr().out
    assert "best blend on validation" in said
    assert "95 % interval" in said
    assert main(["recommend", f"{run}:blend", "--user", "u001", "--k", "3"]) == 0


def test_what_a_blend_serves_can_be_measured_like_a_run(
    blended: tuple[Path, dict],  # type: ignore[type-arg]
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, report = blended
    written = (run / "metrics.json").read_bytes()
    metrics = sasrec.evaluate(f"{run}:blend")
    assert metrics["test"]["full"]["ndcg@10"] == pytest.approx(report["test"]["blend"], abs=1e-12)
    alone = sasrec.evaluate(f"{run}:item-to-item")
    assert alone["test"] == metrics["baselines"]["item-to-item"]["test"]
    assert (run / "metrics.json").read_bytes() == written
    assert main(["evaluate", f"{run}:blend"]) == 0
    assert "the rows called model are those of blend" in capsys.readouterr().err
