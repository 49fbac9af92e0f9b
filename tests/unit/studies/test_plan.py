"""The file of a study: what it trains, and what is refused before anything trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sasrec.cli.main import main
from sasrec.errors import ConfigError
from sasrec.studies.plan import kept_plan, read_plan

ABLATION = """\
dataset = "ml-100k"
seeds = [3, 4]
[settings]
num_epochs = 20
[cells.plain]
[cells.time]
time = true
[grid]
num_blocks = [2, 4]
norm = ["pre"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ablation.toml"
    path.write_text(text)
    return path


def test_cells_times_grid_times_seeds_are_the_runs(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, ABLATION))
    assert plan.folder == Path("runs/ablation")
    assert len(plan.jobs) == 2 * 2 * 2
    assert [job.name for job in plan.jobs[:3]] == [
        "plain_num_blocks-2_norm-pre/seed-3",
        "plain_num_blocks-2_norm-pre/seed-4",
        "time_num_blocks-2_norm-pre/seed-3",
    ]
    last = plan.jobs[-1].config
    assert (last.model.time, last.model.num_blocks, last.training.seed) == (True, 4, 4)
    assert (last.training.num_epochs, last.data.dataset) == (20, "ml-100k")


def test_a_recipe_comes_first_and_settings_override_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[model]\nmaxlen = 7\nhidden_units = 16\n")
    text = f'dataset = "x"\nrecipe = "{tmp_path / "base.toml"}"\n[settings]\nmaxlen = 9\n'
    (job,) = read_plan(written(tmp_path, text)).jobs
    assert (job.name, job.config.model.maxlen, job.config.model.hidden_units) == ("default/seed-0", 9, 16)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("seeds =", "sedes ="), "line 2: sedes: Extra inputs"),
        (("seeds = [3, 4]", "seeds = [3, 3]"), "line 2: a seed occurs twice"),
        (("seeds = [3, 4]", "seeds = []"), "line 2: seeds: "),
        (("num_epochs = 20", "num_epochs = 0"), "line 4: `num_epochs` must be at least 1"),
        (
            ("num_epochs = 20", "num_epoch = 20"),
            "line 4: 'num_epoch' is not a setting. Did you mean num_epochs? Correct the file, which sets num_epoch=20.",
        ),
        (("num_blocks = [2, 4]", "num_blocks = 2"), "line 9: grid.num_blocks: "),
        (("num_blocks = [2, 4]", "num_blocks = [2, -1]"), "line 9: `num_blocks` must be at least 1"),
        (("num_blocks = [2, 4]", "num_blocks = [2, 2]"), "have the same settings"),
        (('norm = ["pre"]', "seed = [1]"), "line 10: `seed` is not a setting of a single run here. Use seeds"),
        (("time = true", "time_span = 9"), "line 7: `time_span` does nothing without `time`"),
        (('dataset = "ml-100k"', 'dataset = "ml-100k"\nmetric = "f1"'), "line 2: metric: "),
        (("[cells.time]", '[cells."a/b"]'), "line 6: cells.a/b"),
        (("[grid]", "[grid"), "not valid TOML"),
        # The line of the value that is wrong, not the first one with this name.
        (("num_blocks = [2, 4]", "num_epochs = [1, 0]"), "line 9: `num_epochs` must be at least 1"),
        (("num_blocks = [2, 4]", 'dataset = ["x"]'), "line 9: `dataset` is not a setting of a single run"),
        (("time = true", "num_epochs = 0"), "line 7: `num_epochs` must be at least 1"),
        (("time = true", "save_minutes = 1.0"), "the same settings, except some that do not change the weights"),
        (("seeds = [3, 4]", 'train_dir = "a\\u0000b"'), "line 2: train_dir: must be a path"),
        (("seeds = [3, 4]", 'metric = "valid.full.ndcg@7"'), "line 2: metric: must be a metric such as"),
        (("seeds = [3, 4]", 'storage = "sqlite:///x"'), "line 2: storage: must be a URL such as postgresql://"),
        (("seeds = [3, 4]", 'storage = "postgresql://h:x/d"'), "line 2: postgresql://h:x/d is not a URL"),
        (("seeds = [3, 4]", 'storage = "postgresql://h/d?password=p"'), "line 2: the URL has a password"),
        (
            ("time = true", "min_user_events = 3"),
            "line 7: `min_user_events` decides the data, which all runs share",
        ),
        (("num_blocks = [2, 4]", "k_core = [0, 5]"), "line 9: `k_core` decides the data, which all runs share"),
        (('dataset = "ml-100k"', 'dataset = ""'), "line 1: dataset: String should have at least 1"),
    ],
)
def test_what_no_run_could_use_is_refused_with_its_line(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    path = written(tmp_path, ABLATION.replace(*change))
    with pytest.raises(ConfigError) as error:
        read_plan(path)
    assert told in str(error.value)


@pytest.mark.parametrize("name", ["data", "stop", "Threads", "study.json", "journal.log", "worker-0.log"])
def test_a_cell_cannot_have_the_name_of_a_file_of_the_study(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"line 2: the name {name} is taken by a file of the study"):
        read_plan(written(tmp_path, f'dataset = "x"\n[cells."{name}"]\n'))


def test_a_grid_of_very_many_runs_is_refused_at_once(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(1, 101)))
    names = ("maxlen", "num_blocks", "num_heads", "batch_size", "patience", "accumulate")
    grid = "".join(f"{name} = [{many}]\n" for name in names)
    with pytest.raises(ConfigError, match="has 2,000,000,000,000 runs, more than 10,000"):
        read_plan(written(tmp_path, f'dataset = "x"\nseeds = [0, 1]\n[grid]\n{grid}'))


def test_a_study_that_has_begun_says_what_differs(tmp_path: Path) -> None:
    text = f'train_dir = "{tmp_path / "study"}"\n{ABLATION}'
    (tmp_path / "study/data").mkdir(parents=True)
    (tmp_path / "study/data/manifest.json").write_text("{}")
    plan = read_plan(written(tmp_path, text)).keep()
    assert plan.keep() == plan
    assert kept_plan(tmp_path / "study") == plan
    changed = read_plan(written(tmp_path, text.replace("= 20", "= 30")))
    with pytest.raises(ConfigError, match=r"another plain.*seed-3: num_epochs was 20 and is 30\. Undo"):
        changed.keep()
    larger = read_plan(written(tmp_path, text.replace("[3, 4]", "[3, 4, 5]")))
    with pytest.raises(ConfigError, match=r"begun without plain_num_blocks-2_norm-pre/seed-5, .*study add"):
        larger.keep()
    larger = larger.keep(add=True)
    assert (larger.id, kept_plan(tmp_path / "study")) == (plan.id, larger)
    with pytest.raises(ConfigError, match="it is gone"):
        plan.keep()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"jobs": [{}], "dataset": "x", "metric": "y"}', "[" * 100_000]
)
def test_a_damaged_plan_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="is not a study"):
        kept_plan(tmp_path)
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(
        ConfigError, match=r"study.json is damaged, or of another version .* Remove this file, and run"
    ):
        kept_plan(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("hours", "8"), ("metric", "valid.full.ndcg@7"), ("storage", "sqlite:///x"), ("jobs", []), ("id", 3)],
)
def test_an_edited_plan_is_refused_and_the_remedy_works(
    tmp_path: Path, entry: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, ABLATION)
    plan = read_plan(path).keep()
    kept = plan.folder / "study.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps(content | {entry: value}))
    for look in (lambda: kept_plan(plan.folder), lambda: read_plan(path).keep()):
        with pytest.raises(ConfigError, match=rf"\({entry}.*\)\. Remove this file, and run the TOML file"):
            look()
    content["jobs"][0]["cell"] = "../../evil"
    kept.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"jobs\.0\.cell"):
        kept_plan(plan.folder)
    kept.unlink()
    assert read_plan(path).keep().jobs == plan.jobs


def test_a_study_may_change_until_its_data_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else a misspelt name of the data would need another folder.
    monkeypatch.chdir(tmp_path)
    wrong = read_plan(written(tmp_path, ABLATION.replace("ml-100k", "ml-100kk"))).keep()
    plan = read_plan(written(tmp_path, ABLATION)).keep()
    assert (plan.dataset, kept_plan(plan.folder)) == ("ml-100k", plan)
    assert plan.id != wrong.id
    (plan.folder / "data").mkdir()
    (plan.folder / "data/manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="dataset was 'ml-100k' and is 'ml-100kk'"):
        read_plan(written(tmp_path, ABLATION.replace("ml-100k", "ml-100kk"))).keep()


def test_a_study_whose_file_has_changed_is_shown_and_stopped_as_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, ABLATION)
    for action in ("status", "stop"):
        assert main(["study", action, str(path)]) == 1
        assert f"{path} has not begun. Start it with `sasrec study run {path}`" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "a look writes nothing"
    folder = read_plan(path).keep().folder
    before = (folder / "study.json").read_bytes()
    assert main(["study", "status", str(path)]) == 0
    assert "note" not in capsys.readouterr().err
    written(tmp_path, ABLATION.replace("seeds = [3, 4]", "seeds = [3]"))
    assert main(["study", "status", str(path)]) == 0
    said = capsys.readouterr()
    assert "has changed since the study began; this is the study as it began" in said.err
    assert "seed-4" in said.out
    assert main(["study", "stop", str(path)]) == 0
    assert (folder / "stop").exists()
    assert (folder / "study.json").read_bytes() == before
