"""Keep the rows that a condition of the user selects, such as event = 'purchase' AND rating >= 4."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from sasrec.errors import ConfigError, DataError

_NUMBER = r"(?-u)^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition in SQL on columns of the source; empty text selects all rows."""

    text: str
    columns: tuple[str, ...]
    """The columns that the condition names."""
    numeric: frozenset[str] = frozenset()
    """Those whose text is compared as a number."""

    def keep(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that fulfil the condition. `frame` has its columns.

        Raises: DataError if the condition cannot be applied to their types. Remedy: correct `where`.
        """
        if not self.text:
            return frame
        casts = [pl.col(name).cast(pl.Float64, strict=False) for name in self.numeric]
        try:
            mask = (
                frame.select(pl.col(self.columns)).with_columns(casts).select(pl.sql_expr(self.text)).to_series()
            )
            return frame.filter(mask)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise DataError(f"where={self.text!r} cannot be applied: {error}. Correct the condition.") from None


def condition(text: str, sample: dict[str, pl.Series], file: str) -> Condition:
    """Parse the setting `where`. `sample`: some values of each column of the source, as text or typed.

    A column of text in which every value of the sample is a number is compared as a number.

    Raises: ConfigError if the condition is no SQL, DataError if it names a column that is not there. Remedy:
    correct `where`.
    """
    if not text:
        return Condition("", ())
    try:
        columns = tuple(dict.fromkeys(pl.sql_expr(text).meta.root_names()))
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"where={text!r} is not a condition in SQL ({error}). Write one such as event='buy'."
        ) from None
    if not columns:
        raise ConfigError(f"where={text!r} names no column. Write a condition such as event='buy'.")
    if missing := [name for name in columns if name not in sample]:
        raise DataError(
            f"{file} has no column {missing[0]!r}, which `where` names. Its columns are: {', '.join(sample)}"
        )
    numeric = [
        name
        for name in columns
        if sample[name].dtype == pl.String
        and len(sample[name])
        and sample[name].str.contains(_NUMBER).fill_null(False).all()
    ]
    return Condition(text, columns, frozenset(numeric))
