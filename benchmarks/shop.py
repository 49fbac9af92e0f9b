"""Make the log of a shop that does not exist: repeats, baskets, seasons, and new products every week.

    python benchmarks/shop.py shop.csv --items shop-items.csv [--customers 4000] [--products 2500] [--weeks 60]

Customers come and go. At a visit, a customer buys a basket at one moment: about half of it is what the customer
bought before (the more often and the more recently, the likelier), the rest is from the groups that the
customer likes, the more popular products first, with some that go well with what was bought last. Groups have
seasons. A share of the products appears during the time, some are taken off. The same seed makes the same file.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

GROUPS = ("tea", "coffee", "cups", "candles", "cards", "garden", "toys", "kitchen", "lamps", "bags")
START = datetime(2025, 9, 1, 8)
REPEATED, TOGETHER, BASKET, RECENT = 0.5, 0.3, 2.5, 20


@dataclass
class Products:
    """Everything that is fixed about the products, (products,) each."""

    group: np.ndarray
    appeal: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    partners: np.ndarray
    """(products, 3) what goes well with a product."""

    @staticmethod
    def made(count: int, weeks: int, random: np.random.Generator) -> Products:
        """Draw the products."""
        group = random.integers(len(GROUPS), size=count)
        appeal = (1 + np.arange(count)) ** -0.8
        random.shuffle(appeal)
        new = random.random(count) < 0.35
        begins = np.where(new, random.integers(1, weeks, count), 0)
        ends = np.where(random.random(count) < 0.15, begins + random.integers(8, weeks, count), weeks + 1)
        same = [np.flatnonzero(group == each) for each in range(len(GROUPS))]
        partners = np.stack([random.choice(same[each], 3) for each in group])
        return Products(group, appeal, begins, ends, partners)

    def weights(self, week: int, phases: np.ndarray) -> np.ndarray:
        """How much each product is wanted in a week, (products,); 0 if it is not on sale."""
        season = 1 + 0.8 * np.sin(2 * np.pi * (week / 52 + phases))
        novelty = 1 + 3 * np.exp(-(week - self.begins) / 3) * (self.begins > 0)
        on_sale = (self.begins <= week) & (week < self.ends)
        return self.appeal * season[self.group] * np.where(on_sale, novelty, 0)


def events(customers: int, products: Products, weeks: int, random: np.random.Generator) -> list[tuple[Any, ...]]:
    """Return rows (customer, product, moment) of all purchases."""
    phases = random.random(len(GROUPS))
    wanted = [products.weights(week, phases) for week in range(weeks)]
    rows = []
    for customer in range(customers):
        taste = random.dirichlet(np.full(len(GROUPS), 0.3))[products.group]
        arrives, stays = int(random.integers(weeks)), int(random.geometric(0.02))
        rate = random.gamma(1.5, 0.4)
        bought: list[int] = []
        for week in range(arrives, min(weeks, arrives + stays + 1)):
            here = wanted[week] * taste
            chance = np.cumsum(here / here.sum())
            for day in sorted(random.random(random.poisson(rate)) * 7):
                moment = START + timedelta(weeks=week, days=day)
                basket = {
                    _one(bought, chance, wanted[week], products, random)
                    for _ in range(1 + random.poisson(BASKET - 1))
                }
                rows += [(customer, product, moment) for product in sorted(basket)]
                bought += sorted(basket)
    return rows


def _one(
    bought: list[int], chance: np.ndarray, wanted: np.ndarray, products: Products, random: np.random.Generator
) -> int:
    """Draw one product for a basket."""
    if bought and random.random() < REPEATED:
        again = bought[-1 - min(int(random.exponential(RECENT)), len(bought) - 1)]
        if wanted[again] > 0:
            return again
    if bought and random.random() < TOGETHER:
        partner = int(random.choice(products.partners[bought[-1]]))
        if wanted[partner] > 0:
            return partner
    return min(int(np.searchsorted(chance, random.random())), len(chance) - 1)


def shop(
    customers: int = 4000, products: int = 2500, weeks: int = 60, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the purchases (customer_id, product_id, bought_at), in order of time, and the products."""
    random = np.random.default_rng(seed)
    made = Products.made(products, weeks, random)
    rows = pl.DataFrame(
        events(customers, made, weeks, random), schema=["customer", "product", "bought_at"], orient="row"
    )
    log = rows.sort("bought_at", "customer").select(
        pl.format("C{}", pl.col("customer") + 10_000).alias("customer_id"),
        pl.format("P{}", pl.col("product") + 1_000).alias("product_id"),
        pl.col("bought_at").dt.round("1s"),
    )
    numbers = np.arange(products)
    table = pl.DataFrame(
        {
            "product_id": [f"P{number + 1_000}" for number in numbers],
            "title": [
                f"{GROUPS[group].title()} no. {number}" for number, group in zip(numbers, made.group, strict=True)
            ],
            "group": [GROUPS[group] for group in made.group],
            "price": random.gamma(2, 6, products).round(2),
        }
    )
    return log, table.filter(pl.col("product_id").is_in(log["product_id"].unique().to_list()))


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--items", type=Path)
    for name, default in (("customers", 4000), ("products", 2500), ("weeks", 60), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    log, table = shop(asked.customers, asked.products, asked.weeks, asked.seed)
    log.write_csv(asked.output)
    if asked.items:
        table.write_csv(asked.items)
    print(f"{log.height:,} purchases of {log['customer_id'].n_unique():,} customers, {table.height:,} products")


if __name__ == "__main__":
    main()
