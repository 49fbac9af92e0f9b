"""Search a space of settings: which point to try next, and which run cannot win any more."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError

_DRAWS = 200  # points that are drawn until one can be trained
_LEAST_FINISHED = 5  # finished trials before one is pruned
_MANY = 20_000  # points of a space in which chance finds a new one
Curve = Mapping[int, float]
"""Epoch -> validation score after it."""


class Range(BaseModel):
    """Values between two bounds, both included: whole numbers if both bounds are whole."""

    model_config = ConfigDict(strict=True, extra="forbid")
    low: int | float
    high: int | float
    log: bool = False

    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; with log it must be more than 0")
        return self


def _refuse_twins(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("a value occurs twice")
    return values


_Values = Annotated[list[bool | int | float | str], Field(min_length=2), AfterValidator(_refuse_twins)]


class Search(BaseModel):
    """The table [search] of a study: the space, and how it is searched."""

    model_config = ConfigDict(strict=True, extra="forbid")
    trials: Annotated[int, Field(ge=1, le=10_000)]
    """Points to try in each cell."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe: the tree-structured Parzen estimator (Bergstra et al. 2011)."""
    prune: bool = False
    """Stop a run whose validation falls behind by more than the noise between random seeds."""
    confirm: Annotated[int, Field(ge=1, le=100)] = 1
    """The best points of each cell, trained with every seed afterwards."""
    space: Annotated[
        dict[
            str,
            Annotated[
                Annotated[Range, Tag("range")] | Annotated[_Values, Tag("values")],
                Discriminator(lambda value: "values" if isinstance(value, list) else "range"),
            ],
        ],
        Field(min_length=1),
    ]
    """Setting -> its range, or its values."""

    def sampler_in_words(self) -> str:
        """The sampler with every parameter that it is made with, as the study stores it."""
        return repr({"sampler": self.sampler, "startup": 10, "candidates": 24, "multivariate": True})

    def propose(self, base: RunConfig, tried: Sequence[Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the next point and its distributions, by the trials of Optuna so far.

        The point is new: not among `tried`, and not the settings `base`, which are trained anyway. It depends on
        `tried` and `seed` alone, so a search that is interrupted continues with the same points as long as its
        runs finish in the same order.

        Raises: ConfigError if none of many points can be trained on the settings `base`. Remedy: widen the space.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        last, known = None, {base}
        for trial in tried:
            with suppress(ConfigError):
                known.add(base.replace(**trial.params))
        for draw in range(_DRAWS):
            memory = optuna.create_study(sampler=self._sampler(draw, seed), direction="maximize")
            memory.add_trials(tried)
            trial = memory.ask(self._distributions())
            try:
                if base.replace(**trial.params) in known:
                    continue
            except ConfigError as error:
                last = error
                continue
            return dict(trial.params), dict(trial.distributions)
        left = [point for point in self.points(base) if base.replace(**point) not in known]
        if left:
            return random.Random(seed).choice(left), self._distributions()
        why = f"can be trained: {last}" if last else "is new."
        raise ConfigError(f"none of {_DRAWS} points of [search.space] {why} Change the space.")

    def points(self, base: RunConfig) -> Iterator[dict[str, Any]]:
        """Yield each point that can be trained and is not `base`; none if the space has very many."""
        if self.is_small():
            values = [
                range(int(each.low), int(each.high) + 1) if isinstance(each, Range) else each
                for each in self.space.values()
            ]
            for chosen in itertools.product(*values):
                point = dict(zip(self.space, chosen, strict=True))
                with suppress(ConfigError):
                    if base.replace(**point) != base:
                        yield point

    def is_small(self) -> bool:
        """Whether the space has so few points that a search could try all of them."""
        sizes = [
            (each.high - each.low + 1 if each.is_whole() else math.inf) if isinstance(each, Range) else len(each)
            for each in self.space.values()
        ]
        return math.prod(sizes) <= _MANY

    def _sampler(self, draw: int, seed: int) -> Any:
        import optuna

        seed = (seed + draw * 10_007) % 2**32
        if self.sampler == "random" or draw >= _DRAWS // 2:
            return optuna.samplers.RandomSampler(seed=seed)
        # Defaults differ between releases of Optuna, so every parameter is given.
        return optuna.samplers.TPESampler(
            n_startup_trials=10,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            seed=seed,
        )

    def _distributions(self) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for name, values in self.space.items():
            if not isinstance(values, Range):
                found[name] = CategoricalDistribution(values)
            elif values.is_whole():
                found[name] = IntDistribution(int(values.low), int(values.high), log=values.log)
            else:
                found[name] = FloatDistribution(float(values.low), float(values.high), log=values.log)
        return found


def cannot_win(own: Curve, finished: Sequence[Curve], by_seed: Sequence[Curve]) -> bool:
    """Whether a run lies so far behind that another seed would not explain it.

    After its newest validation, its best score so far plus twice the noise between seeds is below the median of
    the best scores that the `finished` runs had after as many epochs. No run is stopped before it had half as many
    epochs as the median of the finished ones took to their best, because a small learning rate begins slowly and
    can still win.

    `by_seed`: curves of one setting with several seeds. The noise is the standard deviation of the best score so
    far between them, as the root of the mean variance over the epochs that all of them reached.
    """
    if not own or len(finished) < _LEAST_FINISHED or len(by_seed) < 2:
        return False
    epoch = max(own)
    if epoch < statistics.median(max(curve, key=lambda at: curve[at], default=0) for curve in finished) / 2:
        return False
    others = [_best(curve, epoch) for curve in finished]
    common = set.intersection(*(set(curve) for curve in by_seed))
    if not common:
        return False
    noise = math.sqrt(
        statistics.fmean(statistics.variance(_best(curve, at) for curve in by_seed) for at in sorted(common))
    )
    return _best(own, epoch) + 2 * noise < statistics.median(others)


def _best(curve: Curve, epoch: int) -> float:
    """The best score up to an epoch; 0 before the first."""
    return max((score for at, score in curve.items() if at <= epoch), default=0.0)
