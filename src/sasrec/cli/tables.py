"""Results as tables: for people on a terminal, as tabs for other programs. Sentences go to stderr."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from sasrec.evaluation.baselines import against_baselines
from sasrec.ranking.recommender import Recommender
from sasrec.runs.folder import best_baseline
from sasrec.studies.reproduce import Outcome
from sasrec.studies.scored import Comparison
from sasrec.studies.sentences import number, p_value

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
    """What `evaluate` returns: model and baselines on both splits, the protocol card, details if there are any."""
    card = metrics["protocol"]
    titles = {
        "full": card["full"],
        "sampled": f"{card['sampled_negatives']} negatives, seed {card['sampled_seed']}",
    }
    columns = ("ndcg@10", "hr@10", "mrr@10", "ndcg@20", "hr@20")
    for candidates, title in titles.items():
        table = Table("", *columns, title=f"{candidates}: {title}", title_justify="left")
        for split in [name for name in ("valid", "test") if name in metrics]:
            rows = {
                "model": metrics[split],
                **{name: each[split] for name, each in metrics["baselines"].items()},
            }
            for name, measured in rows.items():
                table.add_row(f"{split}, {name}", *(f"{measured[candidates][column]:.4f}" for column in columns))
        out.print(table)
    if "test" in metrics:
        out.print(against_baselines(metrics))
    _print_card(card)
    if "details" in metrics:
        _print_details(metrics["details"])


def print_comparison(found: Comparison) -> None:
    """What `compare` returns: a table and its protocol, a sentence for each side, and what to bear in mind."""
    several = len(found.others) > 1
    figures = list(found.first.metrics)
    headings = [*figures, "difference", "95 % interval", "Holm's p" if several else "p"]
    columns = (Column(heading, no_wrap=True) for heading in headings)
    table = Table(Column("", overflow="fold"), *columns, box=None, pad_edge=False)
    table.add_row(escape(found.first.name), *(number(found.first.metrics[name]) for name in figures))
    for each in found.others:
        change = each.difference
        table.add_row(
            escape(each.side.name),
            *(number(each.side.metrics[name]) for name in figures),
            number(change.mean),
            f"{number(change.low)} to {number(change.high)}",
            p_value(each.adjusted_p),
        )
    out.print(table)
    out.print(escape(_measured_how(found)))
    for sentence in [each.sentence for each in found.others]:
        out.print(escape(sentence))
    for note in found.notes:
        out.print(f"note: {escape(note)}")


def _measured_how(found: Comparison) -> str:
    """Without it the figures of one protocol pass for those of another."""
    card, part = found.protocol, found.protocol[found.split]
    rule = card["split"].partition(":")[0]
    negatives = f"{card['sampled_negatives']} sampled negatives, seed {card['sampled_seed']}"
    return (
        f"{'validation' if found.split == 'valid' else 'test'} of {rule}, "
        f"{'full catalogue' if found.candidates == 'full' else negatives}, "
        f"data {card['data']} {card['data_hash'][:12]}, {part['targets']:,} targets of {part['users']:,} users, "
        f"{found.resamples:,} resamples"
    )


def _print_card(card: dict[str, Any]) -> None:
    defined = card["metrics"]
    out.print(f"split {card['split']}")
    out.print(f"ties {card['ties']}; {card['seen']}")
    out.print(
        f"ndcg@k {defined['ndcg@k']}; hr@k {defined['hr@k']}; mrr@k {defined['mrr@k']}; means {defined['mean']}"
    )
    out.print(f"sampled: {card['sampled']}")
    for split in ("valid", "test"):
        part = card[split]
        skipped = ", ".join(f"{users} ({reason})" for reason, users in part["skipped"].items() if users)
        out.print(
            f"{split}: {part['targets']} targets of {part['users']} users; users skipped: {skipped or 'none'}; "
            f"{part['history_events_left_out']} events left out of histories; "
            f"{part['repeats_left_out']} targets left out as the user has had them"
        )
    trained_on = f"{card['training_events']} events trained on"
    items = f"{card['items']} items, {card['items_not_candidates']} of them no candidates"
    out.print(f"{trained_on}; {items}; data {card['data']} {card['data_hash'][:12]}; sasrec {card['sasrec']}")


def _print_details(details: dict[str, Any]) -> None:
    measures = list(details["lists"]["model"])
    table = Table("", *measures, title="lists of ten before the test targets", title_justify="left")
    for name, measured in details["lists"].items():
        values = [measured[measure] for measure in measures]
        table.add_row(name, *("" if value is None else f"{value:,.3f}" for value in values))
    out.print(table)
    best = details["best_baseline"]
    out.print("NDCG@10 on test, full catalogue")
    table = Table("", "rows", "from", "to", "model", best, box=None, pad_edge=False)
    for name, part in details["slices"].items():
        edges = [f"{part[edge]:,.{0 if 'gaps' not in name else 2}f}" for edge in ("from", "to")]
        table.add_row(
            name, f"{part['rows']:,}", *edges, *(f"{part[each]['ndcg@10']:.4f}" for each in ("model", best))
        )
    out.print(table)
    out.print(
        "from and to: events of the history, training events of the target's item, days since the last event"
    )


def print_outcome(outcome: Outcome) -> None:
    """Each metric that a recipe speaks of: mean and spread over the seeds, the band, the best baseline. Then what
    was published, and what was checked."""
    expected, published = outcome.recipe.expected, outcome.recipe.published
    stated = [*expected.bands, *(each.metric for each in published)] or ["test.full.ndcg@10", "test.full.hr@10"]
    table = Table("metric", "mean", "st. dev.", "expected", "best baseline", box=None)
    for metric in dict.fromkeys(stated):
        values = outcome.values(metric)
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "one seed"
        low_high = expected.bands.get(metric)
        band = f"{low_high[0]:g} to {low_high[1]:g}" if low_high else ""
        name, value = best_baseline(outcome.metrics[0], metric)
        table.add_row(metric, f"{statistics.mean(values):.4f}", spread, band, f"{name} {value:.4f}")
    out.print(table)
    for each in published:
        out.print(f"published: {each.metric} {each.value:.4f} ({escape(each.source)})")
    ran = len(outcome.endings)
    seconds = statistics.mean(each.seconds for each in outcome.endings)
    out.print(f"{ran} seed{'s' * (ran > 1)}, {seconds:.0f} seconds of training each")
    if not expected.bands:
        out.print("no band is stated: nothing was checked")
        return
    if ran < len(expected.seeds):
        out.print(f"the bands are for the mean over {len(expected.seeds)} seeds; this is the mean over {ran}")
    if not outcome.outside():
        out.print("all bands hold")
