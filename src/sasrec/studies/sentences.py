"""Sentences about a comparison."""

from __future__ import annotations

from typing import Literal

from sasrec.evaluation.significance import Difference
from sasrec.studies.scored import LEVEL, Against, Figure, Scored, Side, grouped


def against_first(
    first: Side, side: Side, difference: Difference, adjusted_p: float, of: Figure, p_is: str
) -> Against:
    """A side against the first one, with the verdict in a sentence."""
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    said = f"no difference can be told between {side.name} and {first.name}"
    if adjusted_p <= LEVEL:
        verdict = "better" if difference.mean > 0 else "worse"
        said = f"{side.name} is {verdict} than {first.name}"
    own, theirs = (each.metrics[of.metric] for each in (side, first))
    figures = (
        f"{of} {number(own)} against {number(theirs)}, difference {number(difference.mean)} "
        f"(95 % interval {number(difference.low)} to {number(difference.high)}, {p_is} {p_value(adjusted_p)})"
    )
    return Against(side, difference, adjusted_p, verdict, f"{said}: {figures}")


def number(value: float) -> str:
    """Four decimals, without the zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def p_value(p: float) -> str:
    """Three decimals, without the zero before the point."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def notes_on(models: list[list[Scored]]) -> list[str]:
    """What a reader of the intervals should know about these models."""
    fitted = [model for model in models if model[0].seed is not None]
    single, notes = [model[0].name for model in fitted if len(model) == 1], []
    if len(models) == 1:
        notes.append(
            "these runs differ in nothing but the seed, so their spread is the seed's: it is in the intervals"
        )
    elif single and len(single) == len(fitted):
        notes.append(
            "the intervals are of the users' chance alone: what another seed would give is not in them; "
            "train with other seeds too, and name those runs as well"
        )
    elif single:
        notes.append(
            f"one run does not say how far seeds lie apart, so for {', '.join(single)} that is taken from the "
            "models with several runs; where it is more, the intervals are too narrow: train with other seeds too"
        )
    for alike in grouped([model[0] for model in fitted], lambda each: each.settings):
        if len(alike) > 1:
            notes.append(
                f"{', '.join(each.name for each in alike)} have equal settings: other code or another device made "
                "unequal weights of an equal seed, so they are compared as different models"
            )
    notes += [f"{each.name} {caution}" for model in fitted for each in model for caution in each.cautions]
    versions = sorted({each.protocol["sasrec"] for model in models for each in model})
    if len(versions) > 1:
        notes.append(f"measured by different versions of sasrec: {', '.join(versions)}")
    return notes


def notes_on_intervals(others: tuple[Against, ...]) -> list[str]:
    """Where a reader of the intervals would call a difference that Holm's p does not."""
    open_ = [each for each in others if each.verdict == "no difference" and len(others) > 1]
    if not any(each.difference.low > 0 or each.difference.high < 0 for each in open_):
        return []
    return [
        "an interval that leaves out 0 is not enough here: the intervals are each for itself, and of several "
        "comparisons one may leave it out by chance; Holm's p counts them"
    ]
