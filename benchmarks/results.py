"""Generate docs/measurements/results.md from finished runs.

    python benchmarks/results.py [--folder runs/reproduce] [--models runs/models] > docs/measurements/results.md

--folder contains runs of `sasrec reproduce`: the page has a row for each recipe and protocol, and names missing
seeds. --models contains folders of four_models.py: the page has two tables for each. Runs that have not ended, and
runs with other settings or data than the recipe's, are named on stderr and omitted.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import four_models

from sasrec.config.recipe import Recipe, read_recipe, recipe_names
from sasrec.config.settings import RunConfig
from sasrec.errors import SasrecError
from sasrec.runs.folder import Ending, RunFolder, best_baseline, metric_of
from sasrec.studies.reproduce import result_of

HEAD = """# Results

This page shows which test metrics the recipes of sasrec reach on public data, next to the metrics of
simple baselines and to published values. A recipe is a TOML file with settings and expected metrics, in the
folder [recipes](../../recipes). `sasrec reproduce NAME` trains the recipe NAME with several random seeds, and
says whether the mean metrics are in the ranges that the recipe expects. For example, this command trains the
recipe `ml-100k`:

<!-- play: skip it downloads MovieLens 100K -->
```bash
sasrec reproduce ml-100k
```

The next two sections contain one table each, with a row for each recipe. The first table ranks the test
targets among the full catalogue, and the second table ranks them among 100 sampled items. The two tables have
the same columns:

- **data**: the name of the data set, and the first characters of the
  [hash](../reference/glossary.md#data-hash) of its events. `video-kang205` is Amazon Games,
  `beauty-ticoserec` is Amazon Beauty, and `ml-100k` and `ml-1m` are MovieLens 100K and 1M.
- **recipe**: the name of the recipe. The name is a link to the file.
- **model and loss**: the [loss](../explanation/losses.md), the number of hidden units, and `maxlen`, the
  number of newest events that the model reads. The loss `ce` compares the target with all items of the
  catalogue except the user's [own items](../reference/glossary.md#own-items). The losses `bce`, `gbce` and
  `softmax` compare the target with [negatives](../reference/glossary.md#negative). Uniform negatives are
  drawn from the whole catalogue, in-batch negatives are targets of the same batch, and shared negatives are
  the same for all positions of a batch.
- **seeds**: the number of trainings, each with another random seed.
- **NDCG@10**, **HR@10**: the [metrics](../reference/metrics.md#metrics-of-one-target) on test, as mean ±
  standard deviation over the random seeds. Larger is better. Each training kept the weights of the epoch that
  was best on validation, not on test.
- **best baseline**: the [baseline](../reference/metrics.md#baselines) with the highest NDCG@10, and its
  NDCG@10. Baselines are simple recommenders that count events: `popularity`, `recent-7-days` (only if the
  data has times), `item-to-item` and `markov`. Baselines are measured on the same targets as the model.
- **published**: the NDCG@10 that a paper reports for the same data and the same way of measuring, then a slash,
  and then the HR@10. The brackets name the paper. Some brackets also contain the loss of the paper, which can
  differ from the loss of the recipe, or another value from the same paper. An empty cell means that no such
  value was found.
- **seconds a seed**: the time of one training with its validations, on one thread of a CPU. Other programs
  ran on this CPU at the same time, so the seconds are only a rough comparison.

The recipes of one data set are sorted by NDCG@10, the highest first. The tables contain all recipes, even
recipes that are worse than a published value or than the best baseline. [The lab log](lab.md) describes the
experiments that led to the recipes.

`python benchmarks/results.py` wrote this page. The metrics in the next two sections come from runs of
`sasrec reproduce`. The trainings of these runs ended on {dates}.
"""

TITLES = {
    "full": "Full catalogue, without seen items",
    "sampled": "The papers' protocol: the target among 100 sampled items",
}

NOTES = {
    "full": (
        "In this section, each target is ranked among all items of the catalogue, without the items that the\n"
        "user has already taken. The target is the item of the user's last event. For each data set, the recipe\n"
        "with the loss `ce` has the highest NDCG@10. All recipes except `games-papers` are better than the best\n"
        "baseline. [The list at the top](#results) explains the columns. The table shows the test metrics of the\n"
        "[recipes](#results), which are files of settings:\n\n"
    ),
    "sampled": (
        "In this section, each target is ranked among only 100 other items, drawn at random, as in the papers of\n"
        "SASRec and TiSASRec and in many other papers. The target is the item of the user's last event. With so\n"
        "few items, all values are higher than with the full catalogue. So use this table only for a comparison\n"
        "with such papers, and [do not compare](../explanation/sampled-and-full.md) its values with values of\n"
        "the table for the full catalogue. [The list at the top](#results) explains the columns. The table shows\n"
        "the test metrics of the [recipes](#results), which are files of settings:\n\n"
    ),
}

COLUMNS = (
    "data",
    "recipe",
    "model and loss",
    "seeds",
    "NDCG@10",
    "HR@10",
    "best baseline",
    "published",
    "seconds a seed",
)

MODELS_HEAD = """## SASRec and TiSASRec, leave-one-out and temporal

This section answers whether TiSASRec, which also reads the time between events, is better than SASRec. Each
part below shows one data set with one [split](../explanation/splits-and-leaks.md), the rule that divides the
events into training, validation and test:

- `leave-one-out`: the last event of each user is the test target, and the event before it is the validation
  target. The model trains on all earlier events.
- `temporal:0.8`: all events of all users are ordered by time. The model trains on about the oldest 60 % of
  the events. The next 20 % are for validation, and the newest 20 % are for test. (0.8 is the share of the
  events before the test period.) The test target of a user is the user's first event in the test period.
  Users without earlier events or without an event in the test period are not measured, so there are fewer
  targets than users.

Each target is ranked among the full catalogue, without the items that the user has taken before. With
`temporal:0.8`, items without a training event are neither candidates nor targets.

TiSASRec is better than SASRec in one of the six parts: on `ml-1m-first2999` (users 1 to 2,999 of MovieLens
1M) with the split `leave-one-out`, by .0100 NDCG@10. In the other five parts, the difference between the two
models can be chance. On `ml-100k` with `temporal:0.8`, the baseline `recent-7-days` is better than the two
models.

Each part shows the settings of the training in a block. SASRec and TiSASRec have the same settings, except
`--time`, which turns SASRec into TiSASRec and is not in the block. The settings were chosen for SASRec, so
TiSASRec may be better with other settings. Settings that are not in the block have their [default
values](../reference/settings.md).

The first table of each part shows the metrics of the two models, as mean ± standard deviation over random
seeds. The first table also shows the metrics of the [baselines](../reference/metrics.md#baselines), simple
recommenders that count events. Larger metrics are better. The last two columns are:

- **best epoch**: the epoch with the highest validation NDCG@10, for each random seed. If this epoch is near the
  last epoch of the training, more epochs could still improve the model.
- **s / epoch**: the seconds of one epoch with its validation. Other work on the machine changed from run to
  run, so these seconds do not say which model is faster.

The second table of each part shows differences in test NDCG@10, computed by `sasrec compare`. The last
row of this table compares TiSASRec with SASRec, and so answers which of the two models is better on these
data. The columns of the second table are:

- **model**: the model that is compared, SASRec or TiSASRec.
- **against**: the other side of the comparison: the best baseline, or SASRec.
- **NDCG@10 of the other**: the test NDCG@10 of the other side.
- **difference**: the NDCG@10 of the model minus the NDCG@10 of the other side. A positive difference means
  that the model is better.
- **95 % interval**: a confidence interval of the difference, over users and random seeds. If the interval
  contains 0, the difference can be chance ([intervals](../explanation/intervals-and-ties.md)).
- **p**: the probability of a difference at least this far from 0, if the true difference were 0. If p is at
  most .05, the difference is probably not chance. The p values are not corrected for the number of comparisons
  on this page, so a single p just below .05 is only weak evidence.

The data set `beauty-ticoserec` is Amazon Beauty, and `ml-100k` is MovieLens 100K. `ml-1m-first2999` contains
the ratings of the users 1 to 2,999 of MovieLens 1M. Do not compare metrics on `ml-1m-first2999` with metrics
on the whole of MovieLens 1M. The script `python benchmarks/four_models.py` trained and compared the models.
"""

DATA = {
    "beauty-ticoserec": "Amazon Beauty",
    "ml-100k": "MovieLens 100K",
    "ml-1m-first2999": "the ratings of the users 1 to 2,999 of MovieLens 1M",
}

SPLITS = {
    "leave-one-out": (
        "This split holds out two events of each user: the last event is the test target, and the event before it "
        "is the validation target. The models are trained on all earlier events. There are {} test targets, one "
        "for each user."
    ),
    "temporal:0.8": (
        "This split orders the events of all users by time. The models are trained on about the oldest 60 % of "
        "the events. The next 20 % are for validation, and the newest 20 % are for test. The test target of a "
        "user is the user's first event among the newest 20 %. A user without an earlier event has no test "
        "target, and a target whose item has no training event is not measured. So {} test targets remain."
    ),
}

TABLES = """The first table below shows the metrics of the two models and of simple baselines. Larger metrics are
better. The second table shows differences in test NDCG@10. A positive difference means that the model in the
first column is better. If the 95 % interval contains 0, the difference can be chance. [The section
above](#sasrec-and-tisasrec-leave-one-out-and-temporal) explains all columns."""


@dataclass(frozen=True)
class Made:
    """A recipe and its finished runs."""

    recipe: Recipe
    metrics: list[dict[str, Any]]
    endings: list[Ending]

    def values(self, metric: str) -> list[float]:
        """The values of one metric, one per seed."""
        return [metric_of(each, metric) for each in self.metrics]


def left_out(why: object) -> None:
    """Report an omitted run on stderr, because stdout is the page."""
    print(f"left out: {why}", file=sys.stderr)


def made(recipe: Recipe, folder: Path) -> Made | None:
    """A recipe with its finished runs of the right settings and data; None if no such run exists."""
    results = []
    for seed in recipe.expected.seeds:
        run = folder / f"{recipe.name}-{seed}"
        if run.exists():
            try:
                results.append(result_of(run, recipe, seed))
            except SasrecError as error:
                left_out(error)
    if not results:
        return None
    return Made(recipe, [metrics for metrics, _ in results], [ended for _, ended in results])


def model_and_loss(config: RunConfig) -> str:
    """The model and the loss in a few words, for example `bce, 1 uniform negative, 50 units, maxlen 200`."""
    model, loss = config.model, config.loss
    words = ["TiSASRec"] * model.time + ["mHC"] * model.mhc + [loss.loss]
    if loss.loss != "ce":
        kind = f"{'shared ' if loss.share_negatives else ''}{loss.negatives.replace('_', '-')}"
        words.append(f"{loss.num_negatives:,} {kind} negative{'s' * (loss.num_negatives > 1)}")
    return ", ".join([*words, f"{model.hidden_units} units", f"maxlen {model.maxlen}"])


def both(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def row(of: Made, candidates: str) -> str:
    """One row of a protocol's table."""
    recipe, protocol = of.recipe, of.metrics[0]["protocol"]
    names = [f"test.{candidates}.{metric}" for metric in ("ndcg@10", "hr@10")]
    said = [
        f"{each.value:.4f} ({each.source})" for name in names for each in recipe.published if each.metric == name
    ]
    baseline, value = best_baseline(of.metrics[0], names[0])
    missing = len(recipe.expected.seeds) - len(of.metrics)
    cells = [
        f"{protocol['data']} {protocol['data_hash'][:8]}",
        f"[{recipe.name}](../../recipes/{recipe.name}.toml)",
        model_and_loss(recipe.config),
        f"{len(of.metrics)}" + (f" ({missing} to come)" if missing else ""),
        *(both(of.values(name)) for name in names),
        f"{baseline} {value:.4f}",
        " / ".join(said),
        f"{statistics.mean(each.seconds for each in of.endings):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(found: list[Made], candidates: str) -> str:
    """The table of one protocol: data sets by name, and the best recipe of a data set first."""

    def order(of: Made) -> tuple[str, str, float]:
        protocol, values = of.metrics[0]["protocol"], of.values(f"test.{candidates}.ndcg@10")
        return protocol["data"], protocol["data_hash"], -statistics.mean(values)

    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
    return "\n".join([head, *(row(of, candidates) for of in sorted(found, key=order))])


def of_models(folder: Path) -> str:
    """The tables of a folder of four_models.py, under a title of their common settings; empty without runs."""
    runs = four_models.runs_of(folder)
    done = {run for of_model in runs.values() for run in of_model}
    for run in sorted(each for each in folder.iterdir() if each.is_dir() and each not in done):
        left_out(f"{run} is no run of four_models.py that is done")
    if not runs:
        return ""
    first = next(iter(runs.values()))[0]
    protocol, config = RunFolder(first).metrics()["protocol"], RunConfig.load(first / "config.toml")
    settings = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, (_, value) in RunConfig().differences(config).items()
        if name not in ("dataset", "seed", "time", "device")
    ]
    name, split, targets = protocol["data"], config.evaluation.split, protocol["test"]["targets"]
    text = (
        f"This part compares SASRec and TiSASRec on {DATA.get(name, 'the data set')} (`{name}`), with the split "
        f"`{split}`. {SPLITS.get(split, 'The test has {} targets.').format(f'{targets:,}')} The settings of the "
        "training are:"
    )
    return (
        f"### {name}, {split}\n\n"
        f"{wrapped(text)}\n\n"
        f"```text\n{lines(settings)}\n```\n\n"
        f"{TABLES}\n\n"
        f"{four_models.table(folder)}\n\n{four_models.margins(folder)}\n"
    )


def wrapped(text: str) -> str:
    """The text in lines of at most 110 characters, without a break inside code or before a per cent sign."""
    joined = re.sub(r"`[^`]+`| %", lambda found: found[0].replace(" ", "\0"), text)
    return textwrap.fill(joined, 110, break_on_hyphens=False).replace("\0", " ")


def lines(settings: list[str]) -> str:
    """The settings in lines of at most 100 characters, with names and values together."""
    # textwrap breaks lines only at blanks, so a stand-in for them keeps a value beside its name.
    joined = textwrap.fill(" ".join(each.replace(" ", "\0") for each in settings), 100, break_on_hyphens=False)
    return joined.replace("\0", " ")


def main() -> None:
    """Build the whole page, then print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--models", type=Path, default=Path("runs/models"))
    options = parser.parse_args()
    found = [of for name in recipe_names() if (of := made(read_recipe(name), options.folder))]
    dates = sorted({each.time[:10] for of in found for each in of.endings})
    page = [HEAD.format(dates=" to ".join(dates[:1] + dates[1:][-1:]) or "no runs")]
    page += [f"## {title}\n\n{NOTES[key]}{table(found, key)}\n" for key, title in TITLES.items()]
    folders = sorted(each for each in options.models.glob("*") if each.is_dir())
    if models := list(filter(None, map(of_models, folders))):
        page += [MODELS_HEAD, *models]
    print("\n".join(page).rstrip())


if __name__ == "__main__":
    try:
        main()
    except SasrecError as error:
        sys.exit(f"error: {error}")
