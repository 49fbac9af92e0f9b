"""The command `sasrec blend`: a model and a baseline in one list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sasrec.cli.commands import with_options
from sasrec.cli.console import err, out, say
from sasrec.errors import for_shell


@dataclass(frozen=True)
class Blend:
    """Blend a run with a baseline: combine both rankings, with the weight that is best on validation.

    The command tries nine weights for each baseline. If the best blend is better on validation than the model
    alone and than each tried baseline alone, the command saves it as RUN/blend.json. RUN:blend then stands for the
    blend in recommend, evaluate, serve and export.

    Example: sasrec blend runs/mine

    Example: sasrec recommend runs/mine:blend --user 196
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run."""
    baselines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    """Names of the baselines to try; all by default."""

    def run(self) -> None:
        """Blend, and print what was chosen and how it was measured."""
        from sasrec.runs.blend import blend
        from sasrec.runtime.log import RunLog

        report = blend(self.run_dir, baselines=self.baselines, log=RunLog(None, err, with_options))
        for sentence in _reported(report, self.run_dir):
            say(out, sentence)


def _reported(report: dict[str, Any], run: Path) -> list[str]:
    """Return the report as sentences."""
    from sasrec.studies.sentences import number

    name, weight = report["baseline"], report["weight"]
    sentences = [f"best blend on validation: {weight} model, {1 - weight:.1f} {name}"]
    for split in ("valid", "test"):
        if split in report:
            values = ", ".join(f"{each} {number(report[split][each])}" for each in ("blend", "model", "baseline"))
            sentences.append(f"{split}, NDCG@10: {values}")
    if "test" in report:
        change = report["test"]["difference"]
        sentences.append(
            f"test, blend against {change['against']}: difference {number(change['mean'])}, 95 % interval "
            f"{number(change['low'])} to {number(change['high'])}"
        )
    if report["wins"]:
        sentences.append(f"the blend is chosen, because it is better on validation; {run}:blend serves it")
        if change := report["valid"].get("difference"):
            shown = "a difference" if change["low"] > 0 else "no difference"
            sentences.append(
                f"validation shows {shown} between the blend and {change['against']} alone: "
                f"{number(change['mean'])}, 95 % interval {number(change['low'])} to {number(change['high'])}; "
                f"sasrec evaluate {for_shell(f'{run}:blend')} measures it on test"
            )
    else:
        sentences.append(f"no blend is chosen: none is better on validation than {report['best_alone']} alone")
    if before := report.get("before"):
        words = f"{before['weight']} model, {1 - before['weight']:.1f} {before['baseline']}"
        if before["fate"] == "stays":
            of = f", chosen among {', '.join(before['tried'])}" if before["tried"] else ""
            sentences.append(f"the blend from before stays ({words}{of}): its baseline was not tried now")
        elif before["fate"] == "removed":
            sentences.append(f"the blend from before is removed ({words}): it no longer wins")
        elif (before["baseline"], before["weight"]) != (name, weight):
            sentences.append(f"it replaces the blend from before ({words})")
    return sentences
