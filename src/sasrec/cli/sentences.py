"""Sentences about results that the command line prints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sasrec.errors import amount, for_shell
from sasrec.evaluation.metrics import BLEND, MODEL, measured_name
from sasrec.evaluation.significance import Difference
from sasrec.runs.folder import RunFolder, best_baseline
from sasrec.runtime.ranks import launched
from sasrec.studies.sentences import measured_how as measured_how
from sasrec.studies.sentences import number, p_value
from sasrec.studies.sentences import protocol as protocol
from sasrec.studies.verdict import Verdict

if TYPE_CHECKING:  # these import PyTorch
    from sasrec.studies.reproduce import Outcome


def verdict(found: Verdict) -> Iterator[str]:
    """Yield sentences: whether the model beats the best baseline, by how much, and whether training converged."""
    if found.baseline is None:
        yield "No verdict: nobody has a test target."
    elif found.comparison is None:
        yield "No verdict: one user on test says nothing about others."
    else:
        (against,) = found.comparison.others
        metric = found.comparison.metric
        figures = [number(each.metrics[metric]) for each in (against.side, found.comparison.first)]
        beside = f"the best baseline, {found.baseline}: {metric.upper()} {figures[0]} against {figures[1]}."
        yield _compared("the model", against.verdict, beside)
        yield f"{_difference(against.difference)}, p {_p(against.adjusted_p)}."
    if found.cut_by:
        yield (
            f"Training had not converged: validation was still improving when {found.cut_by} ended the run. "
            f"Continue with --resume and a larger --{found.cut_by}."
        )


def called(metrics: dict[str, Any]) -> str:
    """Return words for the measured scorer: the model, the blend, or the name of a baseline."""
    name = measured_name(metrics)
    return f"the {name}" if name in (MODEL, BLEND) else name


def against_best_baseline(metrics: dict[str, Any], change: Difference | None) -> Iterator[str]:
    """Yield sentences that compare what was measured, and not saved, with the best baseline on test.

    `change`: the difference in NDCG@10; None if only one user has a test target.
    """
    own, subject = metrics["test"]["full"]["ndcg@10"], called(metrics)
    name, best = best_baseline(metrics, "test.full.ndcg@10")
    beside = f"the best baseline, {name}: NDCG@10 {number(own)} against {number(best)}."
    if change is None:
        verdict = "equal to" if own == best else "above" if own > best else "below"
        yield f"{_opening(subject)} is {verdict} {beside} One user on test says nothing about others."
    else:
        better = "better" if change.low > 0 else "worse" if change.high < 0 else "no difference"
        yield _compared(subject, better, beside)
        yield f"{_difference(change)} over users."


def _compared(subject: str, verdict: str, beside: str) -> str:
    if verdict == "no difference":
        return f"No difference shown between {subject} and {beside}"
    return f"{_opening(subject)} is {verdict} than {beside}"


def _opening(subject: str) -> str:
    """Return the subject as the first words of a sentence; names of baselines stay as they are."""
    return f"T{subject[1:]}" if subject.startswith("the ") else subject


def counted(split: str, card: dict[str, Any]) -> str:
    """The title of a table of metrics: the split, and how many targets and users the means cover."""
    targets, users = card[split]["targets"], card[split]["users"]
    return f"{split}, full catalogue: {amount(targets, 'target')} of {amount(users, 'user')}"


def with_rules(split: str, metrics: dict[str, Any]) -> str:
    """The title of a table of metrics with rules: how many targets the lists never show."""
    card, lists = metrics["protocol"], f"{called(metrics)}'s lists"
    never, targets = card["rules"]["never_shown"][split], card[split]["targets"]
    return f"{split}, with {card['rules']['name']}: {lists} never show {never:,} of {targets:,} targets"


def best_with_rules(metrics: dict[str, Any], split: str) -> str:
    """Return a sentence that names the best baseline with rules by NDCG@10."""
    figures = {name: of[split]["with_rules"]["ndcg@10"] for name, of in metrics["baselines"].items()}
    best = max(figures, key=lambda name: figures[name])
    return f"best baseline with rules: {best}, NDCG@10 {number(figures[best])}"


def period(split: str, found: dict[str, Any]) -> str:
    """The title of a table of metrics on the whole period: its users, and how many items are relevant to each."""
    users, relevant = amount(found["users"], "user"), found["relevant"]
    return f"{split}, whole period: lists of {users}, with {relevant:.1f} relevant items each on average"


def period_difference(metrics: dict[str, Any], split: str) -> Iterator[str]:
    """Yield sentences that compare what was measured with the best baseline on the whole period."""
    found, own = metrics["whole_period"][split], called(metrics)
    best, metric, change = found["best_baseline"], found["metric"], found["difference"]
    mean = f"{metric.upper()} of {own} {_with_interval(found[measured_name(metrics)])}"
    if change["low"] > 0:
        verdict = f"{own} is better than the best baseline, {best}"
    elif change["high"] < 0:
        verdict = f"the best baseline, {best}, is better than {own}"
    else:
        verdict = f"no difference was shown between {own} and the best baseline, {best}"
    yield (
        f"{split}, whole period: {verdict}: {mean}, difference {_with_interval(change)}; 95 % intervals over users"
    )
    if (other := found["best_by_recall"]) != best:
        recall = f"recall@{metric.partition('@')[2]}"
        of = {name: values[split]["whole_period"][recall] for name, values in metrics["baselines"].items()}
        yield (
            f"by {recall.upper()} the best baseline is {other}: {number(of[other])}, against {number(of[best])} "
            f"of {best} and {number(metrics[split]['whole_period'][recall])} of {own}"
        )


def _with_interval(found: dict[str, float]) -> str:
    return f"{number(found['mean'])} ({number(found['low'])} to {number(found['high'])})"


def intervals(found: dict[str, Difference]) -> str:
    """Return a line with the 95 % interval, over users, of each metric of the model (`Verdict.intervals`)."""
    each = (f"{name.upper()} {number(of.low)} to {number(of.high)}" for name, of in found.items())
    return f"model, 95 % interval over users: {', '.join(each)}"


def sampled(metrics: dict[str, Any], split: str, *, shown: bool) -> str:
    """A line on the sampled protocol, which warns that its metrics are not comparable with the full ones."""
    values, card = metrics[split]["sampled"], metrics["protocol"]
    named = f"sampled protocol ({card['sampled_negatives']} negatives)"
    if shown:
        return f"{named}, seed {card['sampled_seed']}; not comparable with the full catalogue"
    figures = f"NDCG@10 {number(values['ndcg@10'])}, HR@10 {number(values['hr@10'])}"
    return f"{named}: {figures}; not comparable with the above; --sampled shows the table"


def reproduced(outcome: Outcome, seconds: float) -> Iterator[str]:
    """Yield sentences: the published metrics, the seeds that ran, and "all bands hold" if they do."""
    expected, ran = outcome.recipe.expected, len(outcome.endings)
    for each in outcome.recipe.published:
        yield f"published: {each.metric} {each.value:.4f} ({each.source})"
    yield f"{ran} seed{'s' * (ran > 1)}, {seconds:.0f} seconds of training each"
    if not expected.bands:
        yield "The recipe states no band: nothing was checked."
        return
    if ran < len(expected.seeds):
        yield f"The bands are for the mean over {len(expected.seeds)} seeds; this is the mean over {ran}."
    if not outcome.outside():
        yield "all bands hold"


def interrupted(train_dir: Path) -> str:
    """Return a sentence that says how to continue an interrupted run, if it saved anything."""
    if not RunFolder(train_dir).can_resume():
        return "interrupted before the first checkpoint; run the same command again"
    # Bits depend on the number of processes, so the command has them too.
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    command = f"torchrun --nproc_per_node={local} -m sasrec" if launched() else "sasrec"
    return f"interrupted; continue with: {command} train --train_dir {for_shell(train_dir)} --resume"


def next_step(run: Path, user: object = None, *, timed: bool = False) -> str:
    """Return a sentence with the command that recommends with `run`, the folder of a run or of an export.

    `user`: the id of one of its users; an export has none. `timed`: it reads the times of a history.
    """
    if user is not None:
        return f"next: sasrec recommend {for_shell(run)} --user {for_shell(user)}"
    times = " --times SECONDS,SECONDS,…" if timed else ""
    return f"next: sasrec recommend {for_shell(run)} --history ITEM,ITEM,…{times}"


def chosen_by(run: RunFolder) -> str:
    """Return a sentence on a run that was trained on all events: which run was measured instead, and how well."""
    start = next(event for event in reversed(run.events()) if event["event"] == "start")
    chosen = start["chosen_by"]
    figures = chosen["metrics"].get("test") or chosen["metrics"].get("valid") or {}
    of = "test" if "test" in chosen["metrics"] else "validation"
    reached = f"reached NDCG@10 {number(figures['ndcg@10'])} on {of}" if figures else "was not measured either"
    return (
        f"trained on all events for {amount(chosen['epoch'], 'epoch')}, so this run was not measured; "
        f"with the same settings, {chosen['run']} {reached}"
    )


REPEATS_NOT_LEARNED = (
    "this model has not learned how likely items are seen again: train it with --no_skip_own_items"
)
NEXT_ITEM = "one next item, on test"
WITHOUT_RULES = "without rules, on test"
LISTS_ARE = "lists of ten before the test targets, and AUC of the whole ranking"
SLICES_ARE = "NDCG@10 on test, full catalogue, by slice"
FROM_AND_TO = "from and to: events of the history, training events of the target's item, days since the last event"


def _difference(found: Difference) -> str:
    return f"Difference {number(found.mean)}, 95 % interval {number(found.low)} to {number(found.high)}"


def _p(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"
