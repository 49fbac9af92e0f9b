"""Results as tables: for people on a terminal, as tabs for other programs. Sentences go to stderr."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from sasrec.evaluation.baselines import against_baselines
from sasrec.recommend import Recommender
from sasrec.reproduction import Outcome

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_items(recommender: Recommender, items: list[tuple[str | int, float]]) -> None:
    """Rank, item id, score and, where there are any, titles."""
    titles = [recommender.title(item) for item, _ in items]
    names = ["rank", "item", "score", *(["title"] if any(titles) else [])]
    rows = [
        [str(rank), str(item), f"{score:.4f}", *([title or ""] if any(titles) else [])]
        for rank, ((item, score), title) in enumerate(zip(items, titles, strict=True), start=1)
    ]
    if not out.is_terminal:  # for other programs: tabs, and no id is ever shortened
        sys.stdout.writelines("\t".join(row) + "\n" for row in [names, *rows])
        return
    table = Table(*(Column(name, overflow="fold") for name in names), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def print_metrics(metrics: dict[str, Any]) -> None:
    """What `evaluate` returns: model and baselines on both splits, and the protocol."""
    columns = ("ndcg@10", "hr@10", "mrr@10", "ndcg@20", "hr@20")
    for candidates in ("full", "sampled"):
        table = Table("", *columns, title=f"{candidates}: {metrics['protocol'][candidates]}", title_justify="left")
        for split in ("valid", "test"):
            rows = {
                "model": metrics[split],
                **{name: each[split] for name, each in metrics["baselines"].items()},
            }
            for name, measured in rows.items():
                table.add_row(f"{split}, {name}", *(f"{measured[candidates][column]:.4f}" for column in columns))
        out.print(table)
    out.print(against_baselines(metrics))
    protocol = metrics["protocol"]
    out.print(
        f"{protocol['split']}; ties {protocol['ties']}; {protocol['users_evaluated']} users evaluated, "
        f"{protocol['users_skipped']} skipped; {protocol['items']} items; data {protocol['data_hash'][:12]}"
    )
    for split in ("valid", "test"):
        part = protocol[split]
        skipped = ", ".join(f"{users} ({reason})" for reason, users in part["skipped"].items() if users)
        out.print(
            f"{split}: {part['targets']} targets of {part['users']} users; users skipped: {skipped or 'none'}; "
            f"{part['history_events_left_out']} events left out of histories"
        )


def print_outcome(outcome: Outcome) -> None:
    """Each metric that a recipe has a band for: mean and spread over the seeds, the band, what was published."""
    table = Table("metric", "mean", "standard deviation", "expected", "published", box=None)
    for metric, (low, high) in outcome.recipe.expected.bands.items():
        values = outcome.values(metric)
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "one seed"
        published = [
            f"{each.value:.4f} ({each.source})" for each in outcome.recipe.published if each.metric == metric
        ]
        table.add_row(
            metric, f"{statistics.mean(values):.4f}", spread, f"{low:g} to {high:g}", "; ".join(published)
        )
    out.print(table)
    minutes = statistics.mean(outcome.seconds) / 60
    out.print(f"{len(outcome.seconds)} seeds, {minutes:.1f} minutes of training each")
