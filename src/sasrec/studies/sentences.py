"""English sentences about a comparison: verdicts, notes, and the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sasrec.errors import amount
from sasrec.evaluation.card import IN_BASKETS
from sasrec.evaluation.significance import Difference
from sasrec.studies.scored import LEVEL, Against, Comparison, Figure, Scored, Side, grouped


def against_first(
    first: Side, side: Side, difference: Difference, adjusted_p: float, of: Figure, p_is: str
) -> Against:
    """Compare a side (a model, a run or a baseline) with the first side; return values and a sentence.

    `p_is`: the name of the p-value in the sentence, "p" or "Holm's p".
    """
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    statement = f"no difference was shown between {side.name} and {first.name}"
    if adjusted_p <= LEVEL:
        verdict = "better" if difference.mean > 0 else "worse"
        statement = f"{side.name} is {verdict} than {first.name}"
    own, baseline = side.metrics[of.metric], first.metrics[of.metric]
    figures = (
        f"{of} {number(own)} against {number(baseline)}, difference {number(difference.mean)} "
        f"(95 % interval {number(difference.low)} to {number(difference.high)}, {p_is} {p_value(adjusted_p)})"
    )
    return Against(side, difference, adjusted_p, verdict, f"{statement}: {figures}")


def number(value: float) -> str:
    """A metric with four decimals and without the zero before the point, for example ".1234"."""
    return f"{value:.4f}".replace("0.", ".", 1)


def p_value(p: float) -> str:
    """A p-value with three decimals and without the zero before the point, for example ".012" or "< .001"."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def notes_on(models: list[list[Scored]]) -> list[str]:
    """Return notes on a comparison: what the intervals cover, and warnings about the runs (`Scored.cautions`).

    Other notes name runs that have equal settings but count as different models, and different sasrec versions.
    """
    fitted = [model for model in models if model[0].seed is not None]
    single, notes = [model[0].name for model in fitted if len(model) == 1], []
    if len(models) == 1:
        notes.append("these runs differ only in the random seed; the intervals cover the variation between seeds")
    elif single and len(single) == len(fitted):
        notes.append(
            "the intervals only cover the sampling of users, not the random seed. "
            "Train each model with several seeds, and compare all these runs"
        )
    elif single:
        notes.append(
            f"one run cannot show the variation between seeds. For {', '.join(single)}, this variation is "
            "estimated from the models with several runs; if the real variation is larger, the intervals are too "
            "narrow. Train each model with several seeds"
        )
    for twins in grouped([model[0] for model in fitted], lambda run: run.settings):
        if len(twins) > 1:
            notes.append(
                f"{', '.join(run.name for run in twins)} have equal settings, but equal seeds gave different "
                "weights (another version of the code or of a library, another device, or another number of "
                "threads or processes). They are compared as different models"
            )
    notes += [f"{run.name} {caution}" for model in fitted for run in model for caution in run.cautions]
    versions = sorted({run.protocol["sasrec"] for model in models for run in model})
    if len(versions) > 1:
        notes.append(f"the runs were measured by different versions of sasrec: {', '.join(versions)}")
    return notes


def notes_on_intervals(others: tuple[Against, ...]) -> list[str]:
    """A note if an interval excludes 0 although Holm's p shows no difference."""
    undecided = [against for against in others if against.verdict == "no difference" and len(others) > 1]
    if not any(against.difference.low > 0 or against.difference.high < 0 for against in undecided):
        return []
    return [
        "an interval that excludes 0 does not show a difference here. Each interval covers one comparison only; "
        "with several comparisons, one may exclude 0 by chance. Holm's p corrects for the number of comparisons"
    ]


def protocol(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield pairs (label, text) that summarise the protocol card; RUN/metrics.json has the whole card."""
    if card["boundaries"] is None:
        yield "split", card["split"]
    else:
        moments = f"validation from {card['boundaries']['valid']}, test from {card['boundaries']['test']}"
        yield "split", f"temporal: {moments}{IN_BASKETS if IN_BASKETS in card['split'] else ''}"
    seen = "without those" if "no candidates" in card["seen"] else "also those"
    yield "candidates", f"{card['full']}, {seen} of the user's history; ties count half"
    for split in ("valid", "test"):
        part = card[split]
        if not part["targets"] and "test_file" not in card:
            yield split, "0 targets of 0 users"
        skipped = [f"{amount(users, 'user')} ({reason})" for reason, users in part["skipped"].items() if users]
        if skipped:
            yield f"{split} skips", ", ".join(skipped)
        if part["history_events_left_out"]:
            yield f"{split} omits", f"{amount(part['history_events_left_out'], 'history event')} of unknown items"
        if part["repeats_left_out"] not in (0, *part["skipped"].values()):  # one a user is said above
            yield f"{split} omits", f"{amount(part['repeats_left_out'], 'target')} that the user has seen"
        for reason, targets in part.get("targets_left_out", {}).items():
            if targets:
                yield f"{split} omits", f"{amount(targets, 'target')} ({reason})"
    if leak := card.get("test_file", {}).get("leak"):
        yield "test leaks", leak
    if rules := card.get("rules"):
        stated = [f"{name} {value}" for name, value in rules.items() if name not in ("name", "never_shown")]
        yield "rules", f"{rules['name']} ({'; '.join(stated)})"
    unknown = card["items_not_candidates"]
    items = f"{amount(card['items'], 'item')}{f' ({unknown:,} not candidates)' if unknown else ''}"
    events = amount(card["training_events"], "training event")
    yield "data", f"{card['data']} {card['data_hash'][:12]}; {items}; {events}"
    yield "code", f"sasrec {card['sasrec']}"


def measured_how(found: Comparison) -> str:
    """A line on how a comparison was measured: split, candidates, data, number of targets and of resamples."""
    card, part = found.protocol, found.protocol[found.split]
    rule = card["split"].partition(":")[0]
    targets = f"{amount(part['targets'], 'target')} of {amount(part['users'], 'user')}"
    negatives = f"{card['sampled_negatives']} sampled negatives, seed {card['sampled_seed']}"
    return (
        f"{'validation' if found.split == 'valid' else 'test'} of {rule}, "
        f"{'full catalogue' if found.candidates == 'full' else negatives}, "
        f"data {card['data']} {card['data_hash'][:12]}, {targets}, "
        f"{amount(found.resamples, 'resample')}"
    )
