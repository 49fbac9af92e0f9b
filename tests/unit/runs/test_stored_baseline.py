"""An export of a baseline serves it, with the scores that were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sasrec
from sasrec.cli.main import main
from sasrec.errors import DataError, SasrecError
from sasrec.evaluation.baselines import KINDS
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / "run"
    sasrec.train(chain_frame(), folder, repeats=True, **small(num_epochs=1))
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_lists_of_the_export_equal_those_of_the_run(run: Path, tmp_path: Path, name: str) -> None:
    of_run = sasrec.load(f"{run}:{name}")
    sasrec.export(f"{run}:{name}", tmp_path / "once")
    sasrec.export(tmp_path / "once", tmp_path / "twice")
    histories = [["item-03"], ["item-01", "item-07", "item-01"], [f"item-{k:02}" for k in range(20)]]
    for folder in ("once", "twice"):
        exported = sasrec.load(tmp_path / folder)
        assert exported.data is None
        for history in histories:
            assert exported.recommend(history, 25) == of_run.recommend(history, 25)
    card = (tmp_path / "once/README.md").read_text()
    assert card.startswith(f"# {name}, 25 items\n\nThis folder serves the baseline {name}, and not the model")
    of = sasrec.evaluate(run)["baselines"][name]["test"]["full"]
    assert f"| | {name} | 95 % interval | model |" in card
    assert f"| NDCG@10 | {of['ndcg@10']:.4f} | " in card
    assert "parameters" not in card


def test_a_changed_file_is_refused(run: Path, tmp_path: Path) -> None:
    sasrec.export(f"{run}:item-to-item", tmp_path / "model")
    path = tmp_path / "model/baseline.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="has changed since the export"):
        sasrec.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(DataError, match="Export the run again"):
        sasrec.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("array", "values", "reason"),
    [
        ("others", np.array([10**6]), "not of the catalogue"),
        ("first", np.array([3, 1]), "do not fit"),
        ("values", np.array([np.nan], np.float32), "finite"),
        ("decay", np.array([1.5]), "between 0 and 1"),
        ("more", np.zeros(1), "are not decay, first"),
    ],
)
def test_arrays_that_cannot_be_right_are_refused_before_use(
    run: Path, array: str, values: np.ndarray, reason: str
) -> None:
    kind = KINDS["item-to-item"]
    arrays = kind.arrays(sasrec.load(f"{run}:item-to-item").scorer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason):
        kind.restored(25, arrays | {array: values})
    with pytest.raises(ValueError, match="not for 26 items"):
        KINDS["popularity"].restored(26, {"counts_V": np.zeros(26, np.float32)})


def test_a_stranger_s_file_with_a_right_hash_is_still_checked(run: Path, tmp_path: Path) -> None:
    from sasrec.runs.stored_baseline import read_baseline

    sasrec.export(f"{run}:markov", tmp_path / "model")
    path = tmp_path / "model/baseline.safetensors"
    arrays = load_file(path)
    arrays["others"][:] = 99
    save_file(arrays, path)
    with pytest.raises(DataError, match="not of the catalogue"):
        read_baseline(path, "markov", 25)
    path.write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="has no baseline markov"):
        read_baseline(path, "markov", 25)


def test_the_command_line_exports_and_serves_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"{run}:item-to-item", "--output", str(tmp_path / "model")]) == 0
    assert main(["recommend", str(tmp_path / "model"), "--history", "item-03", "--k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SasrecError, match="is not a baseline of this run"):
        sasrec.export(f"{run}:best", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("name", "asks"), [("markov", False), ("", True)])
def test_an_export_of_a_time_model_asks_for_times_only_if_it_serves_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, asks: bool
) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", time=True, **small(num_epochs=1))
    served = f"{tmp_path / 'run'}:{name}" if name else str(tmp_path / "run")
    assert main(["export", served, "--output", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model/README.md").read_text()
    assert ("--times" in capsys.readouterr().err, "--times" in card, "needs the times" in card) == (asks,) * 3
    if not asks:
        assert len(sasrec.load(tmp_path / "model").recommend(["item-03"], 3)) == 3


def test_an_export_without_its_items_is_called_incomplete(run: Path, tmp_path: Path) -> None:
    sasrec.export(run, tmp_path / "model")
    (tmp_path / "model/items.parquet").unlink()
    with pytest.raises(DataError, match=r"incomplete: items.parquet is missing. Export the run again"):
        sasrec.load(tmp_path / "model")
