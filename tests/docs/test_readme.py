"""What the README shows works as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.shop import shop
from sasrec.cli.main import main
from sasrec.config.recipe import read_recipe

FIGURES = [f"test.{candidates}.{metric}@10" for candidates in ("full", "sampled") for metric in ("ndcg", "hr")]
README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The blocks of a language that are not skipped by a comment above them."""
    return re.findall(rf"(?<! -->\n)```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def beside_the_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = shop(customers=60, products=40, weeks=12)
    log.write_csv(tmp_path / "shop.csv")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("beside_the_shop")
def test_the_commands_run() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert [shlex.split(command)[1] for command in commands] == ["train", "recommend", "prepare", "compare"]
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "sasrec"
        if arguments[0] == "train":
            arguments += ["--num_epochs", "1", "--maxlen", "20", "--hidden_units", "16"]
        assert main(arguments) == 0


@pytest.mark.usefixtures("beside_the_shop")
def test_the_python_runs_in_eight_lines_or_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("[('")
    assert "ndcg@10" in shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"\$\(BIN\)/sasrec ([^&\n]+)", makefile.partition("demo: ")[2].partition("\n")[0])
    assert [command.split()[0] for command in commands] == ["train", "recommend"]
    printed = ""
    for words in commands:
        arguments = shlex.split(words.replace("recipes/", f"{README.parent}/recipes/"))
        command = [sys.executable, "-m", "sasrec", *arguments]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        printed += subprocess.check_output(
            command, cwd=tmp_path, stderr=subprocess.STDOUT, env=one_thread, text=True
        )
    printed = "".join(line for line in printed.splitlines(keepends=True) if not line.startswith("code: "))
    shown = README.read_text(encoding="utf-8").partition("ends like this")[2].split("```")[1]
    # A terminal wraps lines, and aligns labels instead of writing a colon after them.
    expected, got = ([word.rstrip(":") for word in text.split()] for text in (shown, printed))
    assert got[-len(expected) :] == expected


def rows_by_recipe(text: str) -> dict[str, list[str]]:
    """The cells of each row that links to a recipe; of several rows of one recipe one after the other."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("|") and (recipe := re.search(r"recipes/([\w-]+)\.toml\)", line)):
            found.setdefault(recipe[1], []).extend(cell.strip() for cell in line.strip("|").split("|"))
    return found


def test_figures_in_readme_and_recipes_are_those_of_the_results() -> None:
    root = README.parent
    results = rows_by_recipe((root / "docs/measurements/results.md").read_text(encoding="utf-8"))
    shown = rows_by_recipe(README.read_text(encoding="utf-8"))
    assert shown
    for name, made in results.items():
        measured = [cell.split(" ± ") for cell in made if re.fullmatch(r"0\.\d{4}( ± 0\.\d{4})?", cell)]
        assert len(measured) == 4, "NDCG@10 and HR@10, full and sampled"
        header = (root / f"recipes/{name}.toml").read_text(encoding="utf-8").split("[model]")[0]
        said = re.findall(r"(?:NDCG|HR)@10 (\.\d{4} ± \.\d{4})", header.replace("\n# ", " "))
        assert said == [" ± ".join(value.removeprefix("0") for value in each) for each in measured], name
        bands = read_recipe(root / f"recipes/{name}.toml").expected.bands
        for metric, (low, high) in bands.items():
            assert low <= float(measured[FIGURES.index(metric)][0]) <= high, (name, metric)
        if name in shown:
            _, _, seeds, *figures, baseline = shown[name]
            assert figures == [figure[0].removeprefix("0") for figure in measured], name
            assert seeds == made[3], name
            assert baseline.lower().replace(" ", " 0") == made[6].lower(), name
    assert shown.keys() <= results.keys()
