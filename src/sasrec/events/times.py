"""Convert times from text to microseconds since 1970 UTC.

A time column contains either numbers in one unit or ISO 8601 dates. All rows of all files together decide between
numbers and dates, and decide the unit. Splitting the rows over several files therefore never changes the result.
"""

from __future__ import annotations

import polars as pl

from sasrec.config.settings import TimeUnit
from sasrec.errors import DataError

_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
# A unit is chosen if the median absolute number is below its limit. 1e11 s is the year 5138; 1e11 ms is 1973.
_LARGEST = {"s": 1e11, "ms": 1e14, "us": 1e17}
_FIRST, _END = -62_135_596_800, 253_402_300_800  # in seconds: the start of year 1 and the end of year 9999
_ISO = (
    r"(?-u)^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
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
    """Parse each text into one row, in which one of `integer`, `decimal`, `iso` and `time_reason` is set.

    `iso` is in microseconds. `time_reason` says why a text is not a time. `zoned` is False for an ISO time without
    a time zone, which is read as UTC. `raw_time` is the original text, or null for an integer. Blanks around the
    text are allowed.
    """
    text = text.str.strip_chars()
    integer = text.cast(pl.Int64, strict=False)
    frame = pl.DataFrame({"text": text, "integer": integer})
    if integer.null_count() == 0:  # fast path: most files have integer times only
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
        # An integer can be turned back into its text, so storing the text would waste memory.
        pl.when(pl.col("integer").is_null()).then("text").alias("raw_time"),
    )  # fmt: skip


def outside_calendar(series: pl.Series) -> pl.Series:
    """Return a boolean series, true where a date is outside the years 1 to 9999, which Polars cannot format."""
    if series.dtype == pl.Date:
        seconds = series.to_physical().cast(pl.Int64) * 86_400
    elif isinstance(series.dtype, pl.Datetime):
        seconds = series.to_physical() // {"ms": 10**3, "us": 10**6, "ns": 10**9}[series.dtype.time_unit]
    else:
        return pl.repeat(False, len(series), eager=True)
    return ~seconds.is_between(_FIRST, _END, closed="left").fill_null(True)


def as_text(series: pl.Series, name: str) -> pl.Series:
    """Convert a time column of any type to text for `parse`.

    Raises: DataError for a type that cannot be a time. Remedy: use dates, numbers or text.
    """
    kind = series.dtype
    if kind == pl.Date:
        return series.cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d")
    if isinstance(kind, pl.Datetime):
        zone = "Z" if kind.time_zone else ""
        series = series.dt.convert_time_zone("UTC") if zone else series
        return series.cast(pl.Datetime("us")).dt.to_string("%Y-%m-%dT%H:%M:%S%.6f" + zone)
    if kind.is_float():
        return float_text(series)
    if kind.is_integer() or kind in (pl.String, pl.Null):
        return series.cast(pl.String)
    raise DataError(
        f"{name}: column {series.name!r} is of type {kind}, which cannot be a time. Use dates, numbers or text."
    )


def float_text(series: pl.Series) -> pl.Series:
    """Convert floats to text; whole numbers lose their decimal point (3.0 becomes "3")."""
    whole, text = series.cast(pl.Int64, strict=False).cast(pl.String), series.cast(pl.String)
    return pl.select(pl.when(series == series.floor()).then(pl.coalesce(whole, text)).otherwise(text)).to_series()


def resolve(parsed: pl.DataFrame, unit: TimeUnit) -> tuple[pl.DataFrame, str, list[str]]:
    """Decide the unit from the `parse` results of all rows and convert all times.

    Returns a frame with `time` (microseconds, null if rejected), `reason` and `raw_time`; the unit, which is "iso"
    for dates; and warnings. In a mixture of numbers and dates, the rarer kind is rejected; on a tie, the numbers.
    """
    numbers = parsed.filter(pl.col("iso").is_null() & pl.col("time_reason").is_null())
    dates = parsed["iso"].count()
    if dates and dates >= numbers.height:
        if unit != "auto":
            raise DataError(f"the times are dates, not numbers in {unit}. Use time_unit=auto.")
        odd = pl.col("iso").is_null() & pl.col("time_reason").is_null()
        time, resolved_unit = _in_calendar(pl.col("iso"), pl.col("iso")), "iso"
        reason = pl.lit("the time is a number, but most others are dates")
    else:
        odd = pl.col("iso").is_not_null()
        resolved_unit = _unit_of(numbers) if unit == "auto" else unit
        time = _scaled(resolved_unit)
        reason = pl.lit("the time is a date, but most others are numbers")
    outside = time.is_null() & pl.col("time_reason").is_null()
    resolved = parsed.select(
        time.alias("time"),
        pl.when(odd).then(reason)
        .when(outside)
        .then(pl.lit(f"the time is out of range for {resolved_unit}: it must be in the years 1 to 9999"))
        .otherwise("time_reason").alias("reason"),
        pl.when(odd | outside | pl.col("time_reason").is_not_null())
        .then(pl.coalesce("raw_time", pl.col("integer").cast(pl.String))).alias("raw_time"),
    )  # fmt: skip
    warnings = []
    if resolved_unit == "iso" and not parsed["zoned"].all():
        warnings.append("dates without a time zone are read as UTC")
    return resolved, resolved_unit, warnings


def _unit_of(numbers: pl.DataFrame) -> str:
    size = numbers.select(pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal").abs().median()).item()
    return next((unit for unit, largest in _LARGEST.items() if (size or 0) < largest), "ns")


def _scaled(unit: str) -> pl.Expr:
    """Convert numbers of a unit to microseconds; null outside the years 1 to 9999."""
    factor = 1e-3 if unit == "ns" else float(_MICROSECONDS[unit])
    size = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal") * factor
    # Convert integers in integer arithmetic: a nanosecond time needs more than the 53 bits of a float.
    whole = pl.col("integer") // 1000 if unit == "ns" else pl.col("integer") * _MICROSECONDS[unit]
    exact = pl.coalesce(whole, (pl.col("decimal") * factor).round().cast(pl.Int64, strict=False))
    return _in_calendar(size, exact)


def _in_calendar(size: pl.Expr, microseconds: pl.Expr) -> pl.Expr:
    """Return `microseconds`, or null where a moment is outside the years 1 to 9999.

    `size` is the same moments as floats, because a huge integer could overflow and so land inside the range.
    """
    inside = size.is_between(_FIRST * 10**6, _END * 10**6, closed="left")
    return pl.when(inside).then(microseconds).otherwise(None)


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
