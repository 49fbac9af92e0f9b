"""The command `sasrec refresh`: bring a run up to date with newer events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from sasrec.cli.arguments import OptionalText
from sasrec.cli.commands import with_options
from sasrec.cli.console import err, out, say
from sasrec.config.choices import REFRESH_EPOCHS, REFRESH_WORSE
from sasrec.errors import amount


@dataclass(frozen=True)
class Refresh:
    """Continue the model of a run on newer events, with new users and items, as a new run.

    First, the command trains without the newest of the new events, and compares this model with the old model on
    these newest events. If the NDCG@10 is lower by more than --worse allows, the command ends without a new run.
    Otherwise it also trains on the newest events. The old run is not changed, so it can serve again at any time.

    Example: sasrec refresh runs/mine --dataset up-to-now.csv --train_dir runs/next
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run to refresh."""
    dataset: str
    """All events up to now, old and new: a file, a prepared folder or a public data set, as for train."""
    train_dir: Path
    """Folder for the new run; created if missing."""
    epochs: int = REFRESH_EPOCHS
    """Epochs of the first training, without the newest events. The second training has a quarter as many."""
    worse: float = REFRESH_WORSE
    """Share of the old model's NDCG@10 that may be lost; 1 accepts any loss, also if it cannot be measured."""
    device: OptionalText = None
    """Device to train on: cpu, cuda, mps or auto. Default: the device of the run."""

    def run(self) -> None:
        """Refresh, and print what is new and how both models were measured."""
        from sasrec.cli.sentences import interrupted, next_step
        from sasrec.runs.refresh import REPORT, refresh
        from sasrec.runtime.log import RunLog
        from sasrec.untrusted import json_of

        try:
            recommender = refresh(
                self.run_dir,
                self.dataset,
                self.train_dir,
                epochs=self.epochs,
                worse=self.worse,
                device=self.device,
                log=RunLog(None, err, with_options),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupted(self.train_dir)) from None
        except SystemExit:
            say(err, interrupted(self.train_dir))
            raise
        for sentence in _reported(json_of(self.train_dir / REPORT)):
            say(out, sentence)
        user_ids = recommender.data.user_ids if recommender.data is not None else ()
        say(err, next_step(self.train_dir, next(iter(user_ids), None)))


def _reported(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report of a refresh as sentences."""
    from sasrec.studies.sentences import number

    users, items, events, metrics = (report[name] for name in ("users", "items", "events", "metrics"))
    yield f"new: {amount(events['new'], 'event')}, {amount(users['new'], 'user')}, {amount(items['new'], 'item')}"
    if items["new"]:
        kinds = {"neighbours": "their neighbours", "group": "their group", "rare": "rare items"}
        began = [f"of {words} ({count:,})" for name, words in kinds.items() if (count := items["began_as"][name])]
        yield f"vectors of new items began as the mean {' or '.join(began)}"
    if items["without_events"]:
        yield f"without any event now, so not recommended: {amount(items['without_events'], 'item')} of the run"
    yield (
        f"popularity has shifted: {report['popularity']:.1%} of the new events went to other items than the old "
        f"shares predict; vectors of known items: mean cosine {report['vectors']:.3f} to those before"
    )
    if metrics is None:
        yield "the two models were not compared, because too few of the newest events can be targets"
        return
    old, new, between = metrics["old"], metrics["new"], metrics["difference"]
    yield (
        f"newest events, {amount(metrics['targets'], 'target')} of {amount(metrics['users'], 'user')}: NDCG@10 "
        f"{number(new['ndcg@10'])} refreshed, {number(old['ndcg@10'])} before; difference "
        f"{number(between['mean'])}, 95 % interval {number(between['low'])} to {number(between['high'])}"
    )
    if metrics["new_items"]["targets"]:
        yield (
            f"new items among them, {amount(metrics['new_items']['targets'], 'target')}: HR@20 "
            f"{number(metrics['new_items']['hr@20'])} refreshed, {number(0.0)} before"
        )
