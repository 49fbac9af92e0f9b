"""How fast lists and reasons are made, and whether reasons are faithful.

    OMP_NUM_THREADS=1 python benchmarks/serving.py RUN [--histories 100000] [--json FILE]

RUN: a trained run. Its users' histories, each cut at a random place, are drawn until there are enough. Measured:
`recommend_many` against one call each (on a sample of 500), and whether their lists are equal; the time of
`explain` for 50 events; and for 1,000 histories how far the score of the first recommendation falls without its
top reason, against without a random event of the history.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import sasrec


def histories_of(model: sasrec.Recommender, count: int, random: np.random.Generator) -> list[list[Any]]:
    """Cut histories of random users at random places, 10 events or more where they have as many."""
    assert model.data is not None
    lengths = np.diff(model.data.offsets)
    users = random.choice(np.flatnonzero(lengths > 1), count)
    ids = model.items.ids.to_list()
    cut = []
    for user in users:
        numbers = model.data.item_numbers_of(int(user))
        end = int(random.integers(min(10, len(numbers)), len(numbers) + 1))
        cut.append([ids[number - 1] for number in numbers[:end]])
    return cut


def speed(model: sasrec.Recommender, histories: list[list[Any]]) -> dict[str, float]:
    """Seconds a history in one call for all, and in calls of their own; equal lists among the latter."""
    sample = histories[:500]
    model.recommend_many(sample, 10)
    began = time.perf_counter()
    alone = [[item for item, _ in model.recommend(history, 10)] for history in sample]
    one = (time.perf_counter() - began) / len(sample)
    began = time.perf_counter()
    found = model.recommend_many(histories, 10)
    many = (time.perf_counter() - began) / len(histories)
    lists = found.filter(found["row"] < len(sample)).group_by("row", maintain_order=True).agg("item")["item"]
    equal = sum(a == b.to_list() for a, b in zip(alone, lists, strict=True))
    return {"one call each, ms": 1000 * one, "many, ms": 1000 * many, "ratio": one / many, "equal of 500": equal}


def reasons(model: sasrec.Recommender, random: np.random.Generator, users: int) -> dict[str, float]:
    """What becomes of the first recommendation without its top reason, and without a random event."""
    falls: dict[str, list[float]] = {"top reason": [], "random event": []}
    ranks: dict[str, list[int]] = {"top reason": [], "random event": []}
    times = []
    for history in histories_of(model, users, random):
        history = history[-50:]
        (best, score), *_ = model.recommend(history, 1)
        began = time.perf_counter()
        effects = model.explain(history, best)["effect"].to_numpy()
        if len(history) == 50:
            times.append(1000 * (time.perf_counter() - began))
        if len(history) < 2:
            continue
        for name, at in (
            ("top reason", int(effects.argmax())),
            ("random event", int(random.integers(len(history)))),
        ):
            rest = history[:at] + history[at + 1 :]
            scores = dict(model.recommend(rest, len(model.items)))
            falls[name].append(score - scores[best])
            ranks[name].append(1 + sum(each > scores[best] for each in scores.values()))
    found = {f"fall of the score, {name}": statistics.fmean(each) for name, each in falls.items()}
    found |= {f"still first, {name}": sum(rank == 1 for rank in each) / len(each) for name, each in ranks.items()}
    lower = sum(a > b for a, b in zip(*falls.values(), strict=True)) / len(falls["top reason"])
    return found | {
        "users": len(ranks["top reason"]),
        "lower than random": lower,
        "explain 50 events, ms": statistics.median(times),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    model, random = sasrec.load(asked.run, device="cpu"), np.random.default_rng(0)
    found = {
        "lists": speed(model, histories_of(model, asked.histories, random)),
        "reasons": reasons(model, random, asked.users),
    }
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
