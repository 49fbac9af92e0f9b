"""Keep the rows that a condition of the user selects, such as event = 'purchase' AND rating >= 4."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import polars as pl

from sasrec.errors import ConfigError, DataError
from sasrec.events.pieces import LINE, REJECTS

_NUMBER = r"(?-u)^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$"
_INTEGER = r"(?-u)^\s*[+-]?\d{1,18}\s*$"
_OVER_ROWS = re.compile(
    r"(?i)\b(sum|count|avg|min|max|median|mode|first|last|corr|covar\w*|quantile\w*|percentile\w*|std(?:d?ev)\w*|"
    r"var(?:iance)?(?:_samp|_pop)?|\w+_agg|\w+_value|row_number|rank|dense_rank|lag|lead|unnest|over)\s*\("
)
_PROBE = 1000  # rows on which a condition is tried


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition in SQL on columns of the source; empty text selects all rows."""

    text: str
    columns: tuple[str, ...]
    """The columns that the condition names."""
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    """The type that a column of text gets, as the condition compares it with a number or a truth value."""

    def keep(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
        """Return the rows that fulfil the condition, rejects, and how many sound rows do not fulfil it.

        `frame` has the columns of the condition, and LINE.

        A text that is not of the type that the condition needs makes a reject; an empty text fulfils no condition.
        """
        rejects = pl.DataFrame(schema=REJECTS)
        if not self.text:
            return frame, rejects, 0
        typed = frame.select(_read(name, self.types.get(name), frame.schema[name]) for name in self.columns)
        for name in self.types:
            text = frame[name].str.strip_chars()
            bad = typed[name].is_null() & (text != "").fill_null(False)
            if bad.any():
                kind = "truth value" if self.types[name] == pl.Boolean else "number"
                reason = f"{name} is not a {kind}, which the condition `where` needs"
                found = pl.DataFrame({"line": frame[LINE].filter(bad), "raw": text.filter(bad)})
                found = found.select("line", pl.lit(name).alias("column"), pl.lit(reason).alias("reason"), "raw")
                rejects = pl.concat([rejects, found])
        rejects = rejects.unique("line", keep="first")  # a row with two faults is one reject
        kept = frame.filter(
            typed.select(pl.sql_expr(self.text)).to_series() & ~frame[LINE].is_in(rejects["line"].implode())
        )
        return kept, rejects, frame.height - kept.height - rejects.height


def condition(text: str, sample: Mapping[str, pl.Series], file: str) -> Condition:
    """Parse the setting `where`. `sample`: some values of each column of the source, as text or typed.

    A column of text stays text if the condition compares it with text; else it becomes what it is compared with.

    Raises: ConfigError if the condition is not SQL, DataError if it names a column that is not there, or fits no
    type. Remedy: correct `where`.
    """
    if not text:
        return Condition("", ())
    if over := _OVER_ROWS.search(re.sub(r"'[^']*'|\"[^\"]*\"", "''", text)):
        raise ConfigError(
            f"where={text!r} has {over[1].upper()}, which reads many rows, but a condition must be true or false "
            "for each row alone. Write one such as event='buy'."
        )
    try:
        columns = tuple(dict.fromkeys(pl.sql_expr(text).meta.root_names()))
    except pl.exceptions.PolarsError as error:
        function = re.search(r"unsupported function '(\w+)'", str(error))
        word = re.search(r"found '(\w+)' clause", str(error))
        remedy = f'Write the column as "{function[1]}"' if function else "Write one such as event='buy'"
        if word:
            remedy = f'{word[1]} is a word of SQL, so as a column it must be in double quotes: "{word[1]}"'
        raise ConfigError(f"where={text!r} is not a condition in SQL ({error}). {remedy}.") from None
    if not columns:
        raise ConfigError(f"where={text!r} names no column. Write a condition such as event='buy'.")
    if missing := [name for name in columns if name not in sample]:
        raise DataError(
            f"{file} has no column {missing[0]!r}, which `where` names. Its columns are: {', '.join(sample)}"
        )
    texts = [name for name in columns if sample[name].dtype == pl.String]
    truth = bool(re.search(r"(?i)\b(true|false)\b", re.sub(r"'[^']*'", "", text)))
    kinds = {name: _kinds(sample[name], truth=truth) for name in texts}
    # Text is tried first, because comparing numbers would change 007; truth values, if the condition has one.
    tries = sorted(
        product(*kinds.values()),
        key=lambda types: sum(0 if kind is None else -truth if kind == pl.Boolean else 1 for kind in types),
    )
    reason = ""
    for types in tries:
        chosen = {name: kind for name, kind in zip(texts, types, strict=True) if kind is not None}
        probe = pl.DataFrame({name: sample[name].head(_PROBE) for name in columns})
        try:
            typed = probe.select(_read(name, chosen.get(name), probe.schema[name]) for name in columns)
            result = typed.select(pl.sql_expr(text))
        except (pl.exceptions.PolarsError, TypeError) as error:
            reason = reason or str(error).splitlines()[0]
            continue
        if result.to_series().dtype == pl.Boolean:
            return Condition(text, columns, chosen)
    raise DataError(f"where={text!r} cannot be applied ({reason or 'it gives no truth value'}). Correct it.")


def _kinds(values: pl.Series, *, truth: bool) -> list[pl.DataType | None]:
    """Return the types that a column of text can get; None is text. Integers keep all their digits.

    `truth`: the condition has a truth value, so that 0 and 1 may be some, too.
    """
    text = values.drop_nulls().str.strip_chars().str.to_lowercase()
    text = text.filter(text != "")
    if len(text) and text.is_in(["true", "false", *(["0", "1"] if truth else [])]).all():
        return [pl.Boolean()] if truth else [None, pl.Boolean()]
    if not len(text):  # any type fits, because all is null
        return [None, pl.Float64()]
    numbers = text.filter(text.str.contains(_NUMBER))
    if not len(numbers):
        return [None]
    return [None, pl.Int64() if numbers.str.contains(_INTEGER).all() else pl.Float64()]


def _read(name: str, kind: pl.DataType | None, own: pl.DataType) -> pl.Expr:
    """Read a column for the condition: text without blanks around it, where nothing is null, or as a `kind`."""
    if own != pl.String:
        return pl.col(name).fill_nan(None) if own.is_float() else pl.col(name)
    text = pl.col(name).str.strip_chars()
    if kind is None:
        return pl.when(text != "").then(text).alias(name)
    if kind == pl.Boolean:
        lower = text.str.to_lowercase()
        return pl.when(lower.is_in(["true", "false", "0", "1"])).then(lower.is_in(["true", "1"])).alias(name)
    number = text.cast(kind, strict=False)
    return (number.fill_nan(None) if kind.is_float() else number).alias(name)
