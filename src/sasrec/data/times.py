"""Times as text -> microseconds since 1970 UTC.

A column holds either numbers, all in one unit, or ISO 8601 dates. Both questions (which of the two, which
unit) are answered by all rows of all files together, so how rows are split over files changes nothing.
"""

from __future__ import annotations

import polars as pl

from sasrec.config import TimeUnit
from sasrec.errors import DataError

_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
# Median sizes up to which a number is read as that unit; 1e11 s is the year 5138, 1e11 ms is 1973.
_LARGEST = {"s": 1e11, "ms": 1e14, "us": 1e17}
_FIRST, _LAST = -62_135_596_800 * 10**6, 253_402_300_799 * 10**6  # the years 1 to 9999
_ISO = (
    r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s?(?:(Z|z|UTC)|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?$"
)
PARSED = {
    "integer": pl.Int64,
    "decimal": pl.Float64,
    "iso": pl.Int64,
    "zoned": pl.Boolean,
    "time_reason": pl.String,
    "raw_time": pl.String,
}


def parse(text: pl.Series) -> pl.DataFrame:
    """One row per text: exactly one of `integer`, `decimal`, `iso` (microseconds) and `time_reason` is set.

    `zoned` is False where an ISO time names no zone (it is read as UTC). `raw_time` is the text where it is not
    an integer: integers are most of all times, and can be written again. Blanks around the text are allowed.
    """
    text = text.str.strip_chars()
    integer = text.cast(pl.Int64, strict=False)
    frame = pl.DataFrame({"text": text, "integer": integer})
    if integer.null_count() == 0:
        empty = {name: pl.lit(None, kind) for name, kind in PARSED.items() if name != "integer"}
        return frame.select("integer", **empty)
    frame = frame.with_columns(decimal=pl.col("text").cast(pl.Float64, strict=False))
    frame = frame.with_columns(decimal=pl.when(pl.col("integer").is_null()).then("decimal"))
    frame = frame.with_columns(parts=pl.col("text").str.extract_groups(_ISO)).with_columns(
        iso=_iso_microseconds(pl.col("parts")), zoned=pl.concat_str(
            pl.col("parts").struct[4], pl.col("parts").struct[5], ignore_nulls=True
        ) != ""
    )  # fmt: skip
    return frame.select(
        "integer",
        pl.when(pl.col("decimal").is_finite()).then("decimal").alias("decimal"),
        "iso",
        pl.when(pl.col("iso").is_not_null()).then("zoned").alias("zoned"),
        pl.when(pl.col("text").fill_null("") == "").then(pl.lit("the time is empty"))
        .when(pl.col("decimal").is_finite().not_()).then(pl.lit("the time is not finite"))
        .when(pl.coalesce("integer", "decimal", "iso").is_not_null()).then(pl.lit(None, pl.String))
        .when(pl.col("parts").struct[0].is_not_null()).then(pl.lit("the date or time of day does not exist"))
        .otherwise(pl.lit("the time is neither a number nor an ISO 8601 date"))
        .alias("time_reason"),
        pl.when(pl.col("integer").is_null()).then("text").alias("raw_time"),
    )  # fmt: skip


def resolve(parsed: pl.DataFrame, unit: TimeUnit) -> tuple[pl.DataFrame, str, list[str]]:
    """Columns of `parse` of all rows -> `time` (microseconds), `time_reason`, `raw_time`; the unit; warnings.

    The unit is "iso" or that of the numbers. Of a mixture of numbers and dates the minority is refused.
    """
    numbers = parsed.filter(pl.col("iso").is_null() & pl.col("time_reason").is_null())
    dates = parsed["iso"].count()
    if dates and dates >= numbers.height:
        if unit != "auto":
            raise DataError(f"the times are dates, not numbers in {unit}: leave time_unit at auto")
        odd = pl.col("iso").is_null() & pl.col("time_reason").is_null()
        time, found = _in_calendar(pl.col("iso"), pl.col("iso")), "iso"
        reason = pl.lit("the time is a number, most others are dates")
    else:
        odd = pl.col("iso").is_not_null()
        found = _unit_of(numbers) if unit == "auto" else unit
        time = _scaled(found)
        reason = pl.lit("the time is a date, most others are numbers")
    outside = time.is_null() & pl.col("time_reason").is_null()
    resolved = parsed.select(
        time.alias("time"),
        pl.when(odd).then(reason)
        .when(outside).then(pl.lit(f"the time is out of range for {found}: outside the years 1 to 9999"))
        .otherwise("time_reason").alias("time_reason"),
        pl.when(odd | outside | pl.col("time_reason").is_not_null())
        .then(pl.coalesce("raw_time", pl.col("integer").cast(pl.String))).alias("raw_time"),
    )  # fmt: skip
    warnings = []
    if found == "iso" and not parsed["zoned"].all():
        warnings.append("dates without a zone are read as UTC")
    return resolved, found, warnings


def _unit_of(numbers: pl.DataFrame) -> str:
    size = numbers.select(pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal").abs().median()).item()
    return next((unit for unit, largest in _LARGEST.items() if (size or 0) < largest), "ns")


def _scaled(unit: str) -> pl.Expr:
    """Microseconds of the numbers, null outside the calendar."""
    factor = 1e-3 if unit == "ns" else float(_MICROSECONDS[unit])
    size = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal") * factor
    # Integers never pass through floating point: a float holds no more than 53 bits of a nanosecond.
    whole = pl.col("integer") // 1000 if unit == "ns" else pl.col("integer") * _MICROSECONDS[unit]
    exact = pl.coalesce(whole, (pl.col("decimal") * factor).round().cast(pl.Int64, strict=False))
    return _in_calendar(size, exact)


def _in_calendar(size: pl.Expr, microseconds: pl.Expr) -> pl.Expr:
    """Null where the size in microseconds is outside the years 1 to 9999."""
    return pl.when(size.is_between(_FIRST, _LAST)).then(microseconds).otherwise(None)


def _iso_microseconds(parts: pl.Expr) -> pl.Expr:
    date, minute, second, fraction, _, sign, hours, minutes = (parts.struct[i] for i in range(8))
    canonical = pl.concat_str(
        date, pl.lit(" "), minute.fill_null("00:00"), pl.lit(":"), second.fill_null("00"), pl.lit("."),
        fraction.fill_null("").str.pad_end(6, "0").str.slice(0, 6),
    )  # fmt: skip
    local = canonical.str.to_datetime("%Y-%m-%d %H:%M:%S%.6f", strict=False, time_unit="us").cast(pl.Int64)
    offset = hours.cast(pl.Int64).fill_null(0) * 60 + minutes.cast(pl.Int64).fill_null(0)
    ahead = pl.when(sign == "-").then(-offset).otherwise(offset)
    return local - ahead * 60 * 10**6
