"""`sasrec plot`: training curves of runs, studies and folders of runs."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError
from sasrec.studies.report.cells import find_runs
from sasrec.studies.report.curves import curve_of
from sasrec.studies.report.plots import lines_of, plot
from sasrec.studies.report.training_figures import MOST_NAMED, spread
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two seeds of one model, and one run of another."""
    folder = tmp_path_factory.mktemp("runs")
    data = sasrec.prepare(chain_frame())
    for seed in (0, 1):
        sasrec.train(data, folder / f"plain-{seed}", **small(num_epochs=4, seed=seed))
    sasrec.train(data, folder / "time <b>$x$", **small(num_epochs=2, time=True))
    return folder


def texts(path: Path) -> list[str]:
    return [each.text or "" for each in ElementTree.parse(path).iter() if each.tag.endswith("}text")]


def test_an_svg_names_every_model_and_baseline_once_and_marks_the_best_epochs(runs: Path, tmp_path: Path) -> None:
    plot([runs], tmp_path / "curves.svg")
    said = texts(tmp_path / "curves.svg")
    for name in ("plain-0", "time <b>$x$"):
        assert said.count(name) == 2, said  # in the panels of loss and validation
    curve = curve_of(runs / "plain-0")
    for name, value in curve.baselines.items():
        assert f"{name} {value:.4f}".replace(" 0.", " .") in said
    assert "plain-1" not in said  # the seeds of a model are one line
    dots = (tmp_path / "curves.svg").read_text().count('id="cell-')
    assert dots >= 2 * (2 + 1 + 1)


def test_a_png_has_the_resolution_of_print_and_the_command_names_the_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "curves.png"
    assert main(["plot", str(runs / "plain-0"), str(runs / "plain-1"), "--output", str(path)]) == 0
    assert f"plot written to {path}" in capsys.readouterr().err
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width > 1600
    assert height > 500


def test_a_curve_is_what_the_log_says_and_a_repeated_epoch_counts_as_the_last_time(
    runs: Path, tmp_path: Path
) -> None:
    events = [
        {"event": "start"},
        {"event": "baselines", "baselines": {"markov": {"valid": {"full": {"ndcg@10": 0.25}}}, "odd": 3}},
        {"event": "epoch", "epoch": 1, "loss": 5.0, "seconds": 1},
        {"event": "epoch", "epoch": 2, "loss": 4.0, "seconds": 2},
        {"event": "validation", "epoch": 2, "score": 0.5},
        {"event": "resume"},
        {"event": "epoch", "epoch": 2, "loss": 4.5, "seconds": 3},
        {"event": "validation", "epoch": 2, "score": 0.4},
        {"event": "validation", "epoch": 3, "score": 0.4},
        {"event": "epoch", "epoch": "4", "loss": float("nan"), "seconds": None},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "ep')
    curve = curve_of(tmp_path)
    assert curve.losses == {1: 5.0, 2: 4.5}
    assert curve.validation == {2: 0.4, 3: 0.4}
    assert curve.best_epoch == 2
    assert curve.baselines == {"markov": 0.25}
    trained = curve_of(runs / "plain-0")
    assert sorted(trained.losses) == [1, 2, 3, 4]
    assert trained.parameters
    assert trained.seconds


def test_losses_far_apart_get_a_logarithmic_axis_with_plain_numbers(runs: Path, tmp_path: Path) -> None:
    for name, loss in (("far-high", 7.0), ("far-low", 0.3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(f"[training]\nlr = {loss / 10}\n")
        events = [{"event": "epoch", "epoch": epoch, "loss": loss / epoch, "seconds": epoch} for epoch in (1, 2)]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    plot([tmp_path], tmp_path / "far.svg")
    said = texts(tmp_path / "far.svg")
    assert {"0.2", "0.5", "1", "2", "5"} <= set(said)
    assert not any("$" in text for text in said)


def test_runs_of_older_logs_take_the_baselines_of_their_metrics(runs: Path, tmp_path: Path) -> None:
    for name in ("log.jsonl", "metrics.json", "config.toml"):
        (tmp_path / name).write_bytes((runs / "plain-0" / name).read_bytes())
    log = (tmp_path / "log.jsonl").read_text().splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join(line for line in log if '"baselines"' not in line))
    assert curve_of(tmp_path).baselines == curve_of(runs / "plain-0").baselines != {}


@pytest.mark.slow
def test_seeds_are_one_cell_and_a_study_gives_its_cells_their_names(runs: Path, tmp_path: Path) -> None:
    assert [len(cell.runs) for cell in find_runs([runs]).cells] == [2, 1]
    pytest.importorskip("optuna")
    (tmp_path / "events.csv").write_text(chain_frame().write_csv())
    settings = "maxlen = 8\nhidden_units = 8\nnum_blocks = 1\nnum_epochs = 1\nbatch_size = 16\n"
    study = tmp_path / "small.toml"
    study.write_text(
        f'dataset = "{tmp_path}/events.csv"\ntrain_dir = "{tmp_path}/small"\nseeds = [0, 1]\n'
        f'[settings]\ndevice = "cpu"\n{settings}[cells.one]\n[cells.two]\ndropout_rate = 0.5\n'
    )
    assert main(["study", "run", str(study)]) == 0
    for named in (study, tmp_path / "small"):
        found = find_runs([named])
        assert [(cell.name, len(cell.runs)) for cell in found.cells] == [("one", 2), ("two", 2)]
        assert found.plan
    plot([study], tmp_path / "study.svg")
    assert texts(tmp_path / "study.svg").count("two") == 2


def test_of_many_models_only_the_best_have_names(runs: Path, tmp_path: Path) -> None:
    config = (runs / "plain-0" / "config.toml").read_text()
    for number in range(MOST_NAMED + 3):
        folder = tmp_path / f"run-{number:02d}"
        folder.mkdir()
        (folder / "config.toml").write_text(config.replace("lr = 0.01", f"lr = 0.01{number + 1:02d}"))
        epochs = [{"event": "epoch", "epoch": epoch, "loss": 2 / epoch, "seconds": 1} for epoch in (1, 2)]
        scores = [{"event": "validation", "epoch": epoch, "score": (number + epoch) / 100} for epoch in (1, 2)]
        (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in epochs + scores))
    lines = lines_of(find_runs([tmp_path]).cells)
    assert lines[0].name == "run-14"
    assert len({(line.colour, line.dash) for line in lines[:MOST_NAMED]}) == MOST_NAMED
    plot([tmp_path], tmp_path / "many.svg")
    said = texts(tmp_path / "many.svg")
    assert "run-14" in said
    assert "run-00" not in said


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.0, 0.01, 1.0], [0.99, 1.0, 0.98], [0.3]])
def test_labels_are_moved_apart_and_keep_their_order(places: list[float]) -> None:
    moved = spread(places, 0.1)
    ordered = sorted(zip(places, moved, strict=True))
    assert all(after - before >= 0.1 - 1e-9 for (_, before), (_, after) in pairwise(ordered))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


def test_what_cannot_be_plotted_is_refused_with_the_remedy(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as \.png or \.svg, not as \.pdf"):
        plot([runs], tmp_path / "curves.pdf")
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        plot([tmp_path / "nowhere"], tmp_path / "curves.png")
    with pytest.raises(ConfigError, match="has no runs"):
        plot([tmp_path], tmp_path / "curves.png")
    with pytest.raises(ConfigError, match="at least one run"):
        plot([], tmp_path / "curves.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_bytes((runs / "plain-0/config.toml").read_bytes())
    with pytest.raises(ConfigError, match="no run has finished an epoch"):
        plot([tmp_path / "run"], tmp_path / "curves.png")
