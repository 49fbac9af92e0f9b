"""Convert times from text to microseconds since 1970 UTC.

A time column contains either numbers in one unit or ISO 8601 dates. All rows of all files together decide between
numbers and dates, and decide the unit. Splitting the rows over several files therefore never changes the result.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from sasrec.config.settings import TimeUnit
from sasrec.errors import DataError

_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
# A unit is chosen if the median absolute number is below its limit. 1e11 s is the year 5138; 1e11 ms is 1973.
_LARGEST = {"s": 1e11, "ms": 1e14, "us": 1e17}
_FIRST, _END = -62_135_596_800, 253_402_300_800  # in seconds: the start of year 1 and the end of year 9999
ISO = (
    r"(?-u)^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s?(?:(Z|z|UTC)|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?$"
)
_FORMAT_SAMPLE = 100_000
_AT_ONCE = 2_000_000  # rows converted at once
_DAYS = ["%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y"]
_DAYS += ["%m-%d-%Y", "%d-%m-%Y", "%Y-%m-%d"]
_USUAL = [
    *(day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")),
    *("%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y"),
    *("%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z"),
    *("%B %d, %Y", "%b %d, %Y", "%m %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d %b %Y %H:%M:%S"),
]
_EARLIEST = 631_152_000  # 1990-01-01 in seconds since 1970
PARSED = {
    "integer": pl.Int64,
    "decimal": pl.Float64,
    "iso": pl.Int64,
    "zoned": pl.Boolean,
    "time_reason": pl.String,
    "raw_time": pl.String,
}


def parse(text: pl.Series, time_format: str = "") -> pl.DataFrame:
    """Parse each text into one row, in which one of `integer`, `decimal`, `iso` and `time_reason` is set.

    `iso` is in microseconds. `time_reason` says why a text is not a time. `zoned` is False for an ISO time without
    a time zone, which is read as UTC. `raw_time` is the original text, or null for an integer. Blanks around the
    text are allowed.
    """
    text = text.str.strip_chars()
    if time_format:
        return _parsed_by(time_format, text)
    integer = text.cast(pl.Int64, strict=False)
    frame = pl.DataFrame({"text": text, "integer": integer})
    if integer.null_count() == 0:  # fast path: most files have integer times only
        empty = {name: pl.lit(None, kind) for name, kind in PARSED.items() if name != "integer"}
        return frame.select("integer", **empty)
    frame = frame.with_columns(decimal=pl.col("text").cast(pl.Float64, strict=False))
    frame = frame.with_columns(decimal=pl.when(pl.col("integer").is_null()).then("decimal"))
    frame = frame.with_columns(parts=pl.col("text").str.extract_groups(ISO)).with_columns(
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


def _parsed_by(time_format: str, text: pl.Series) -> pl.DataFrame:
    """Parse text by a format of strptime. Times without a time zone are UTC."""
    try:
        time = text.str.to_datetime(time_format, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"time_format={time_format} cannot be used ({error}). Write it as for strptime.") from None
    frame = pl.DataFrame({"text": text, "iso": time.cast(pl.Int64)})
    zoned = "%z" in time_format.lower() or time_format.endswith(("Z", "GMT"))
    fault = pl.when(pl.col("iso").is_null()).then(pl.lit(f"the time does not have the format {time_format}"))
    return frame.select(
        integer=pl.lit(None, pl.Int64), decimal=pl.lit(None, pl.Float64), iso="iso",
        zoned=pl.when(pl.col("iso").is_not_null()).then(pl.lit(zoned)),
        time_reason=pl.when(pl.col("text").fill_null("") == "").then(pl.lit("the time is empty")).otherwise(fault),
        raw_time="text",
    )  # fmt: skip


def _by_usual_format(parsed: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Parse times of which none is a number or ISO 8601 date, if one usual format alone fits nearly all.

    Raises: DataError if no format or several fit, so that day and month cannot be distinguished. Remedy: give one.
    """
    text = parsed["raw_time"]
    filled = text.filter((text != "").fill_null(False))
    if not len(filled):
        return parsed, "no row has a time"
    sample = filled.head(_FORMAT_SAMPLE)
    low, high = plausible()
    share = {}
    for each in _USUAL:
        times = sample.str.to_datetime(each, strict=False, time_unit="us").to_physical()
        share[each] = int(times.is_between(low, high).sum()) / len(sample)
    fitting = [each for each, parts in share.items() if parts > 0.95]
    if not fitting and int(sample.str.contains(r"^\d+,\d+$").sum()) > 0.95 * len(sample):
        raise DataError(f"the times, such as {filled[0]}, have a decimal comma. Write them with a point.")
    if len(fitting) != 1:
        suggested = " or ".join(f"time_format='{each}'" for each in fitting or ["%d.%m.%Y %H:%M"])
        found = "several formats fit" if fitting else "no usual format fits"
        raise DataError(
            f"the times, such as {filled[0]}, are neither numbers nor ISO 8601 dates, and {found}. Use {suggested}"
            f"{'' if fitting else ', with the parts of your times (as in strptime)'}."
        )
    return _parsed_by(fitting[0], text), f"times are read by the format {fitting[0]}"


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
    Unless a unit is given, a time before 1990 or in the future is rejected, too, if most times are plausible.

    Raises: DataError if most times are not plausible, or do not fit the given unit. Remedy: a unit or a format.
    """
    if parsed.columns == ["integer"] and unit != "iso":
        return _resolved_integers(parsed, unit)
    parsed = parsed.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in PARSED.items() if name not in parsed
    )
    numbers = parsed.filter(pl.col("iso").is_null() & pl.col("time_reason").is_null())
    warnings = []
    if parsed.height and not numbers.height and not parsed["iso"].count() and unit in ("auto", "iso"):
        parsed, note = _by_usual_format(parsed)
        warnings += [note]
    dates = parsed["iso"].count()
    if dates and dates >= numbers.height:
        if unit not in ("auto", "iso"):
            raise DataError(f"the times are dates, not numbers in {unit}. Use time_unit=auto.")
        odd = pl.col("iso").is_null() & pl.col("time_reason").is_null()
        time, resolved_unit = _in_calendar(pl.col("iso"), pl.col("iso")), "iso"
        reason = pl.lit("the time is a number, but most others are dates")
    else:
        if unit == "iso":
            raise DataError("the times are numbers, not dates. Use time_unit=auto, or the unit of the numbers.")
        odd = pl.col("iso").is_not_null()
        resolved_unit = _unit_of(numbers) if unit == "auto" else unit
        time = _FORMS[resolved_unit] if resolved_unit in _FORMS else _scaled(resolved_unit)
        reason = pl.lit("the time is a date, but most others are numbers")
    parsed = parsed.with_columns(time=pl.when(odd.not_()).then(time))
    if unit == "auto":
        _refuse_implausible(parsed, resolved_unit)
    outside = pl.col("time").is_null() & pl.col("time_reason").is_null()
    unlikely = pl.lit(unit == "auto") & pl.col("time").is_between(*plausible()).not_()
    resolved = parsed.select(
        pl.when(unlikely.not_()).then("time").alias("time"),
        pl.when(odd).then(reason)
        .when(outside)
        .then(pl.lit(f"the time is out of range for {resolved_unit}: it must be in the years 1 to 9999"))
        .when(unlikely).then(_why_unlikely(resolved_unit))
        .otherwise("time_reason").alias("reason"),
        pl.when(odd | outside | unlikely | pl.col("time_reason").is_not_null())
        .then(pl.coalesce("raw_time", pl.col("integer").cast(pl.String))).alias("raw_time"),
    )  # fmt: skip
    if resolved_unit == "iso" and not parsed["zoned"].all():
        warnings.append("dates without a time zone are read as UTC")
    if resolved_unit in _FORMS:
        warnings.append(f"times are read as {_MEANINGS[resolved_unit]}")
    return resolved, resolved_unit, warnings


def _resolved_integers(parsed: pl.DataFrame, unit: TimeUnit) -> tuple[pl.DataFrame, str, list[str]]:
    """Do the work of `resolve` where all times are integers, as in most large files; this needs less memory."""
    whole = parsed.with_columns(decimal=pl.lit(None, pl.Float64)) if unit == "auto" else parsed
    known = _unit_of(whole) if unit == "auto" else unit
    empty = [pl.lit(None, kind).alias(name) for name, kind in PARSED.items() if name != "integer"]
    time = _FORMS[known] if known in _FORMS else _scaled(known)
    converted = []
    for start in range(0, max(1, parsed.height), _AT_ONCE):
        part = parsed.slice(start, _AT_ONCE).with_columns(empty).with_columns(time=time)
        converted.append(part.select("time", "integer"))
    times = pl.concat(converted)
    if unit == "auto":
        _refuse_implausible(times.with_columns(raw_time=pl.lit(None, pl.String)), known)
    outside = pl.col("time").is_null()
    unlikely = pl.lit(unit == "auto") & pl.col("time").is_between(*plausible()).not_()
    resolved = times.select(
        pl.when(unlikely.not_()).then("time").alias("time"),
        pl.when(outside)
        .then(pl.lit(f"the time is out of range for {known}: it must be in the years 1 to 9999"))
        .when(unlikely).then(_why_unlikely(known)).alias("reason"),
        pl.when(outside | unlikely).then(pl.col("integer").cast(pl.String)).alias("raw_time"),
    )  # fmt: skip
    return resolved, known, [f"times are read as {_MEANINGS[known]}"] if known in _FORMS else []


def plausible() -> tuple[int, int]:
    """Return the range of plausible times in microseconds: 1990 to a year after tomorrow."""
    end = datetime.now(UTC) + timedelta(days=367)
    return _EARLIEST * 10**6, int(end.timestamp() * 10**6)


def _refuse_implausible(parsed: pl.DataFrame, unit: str) -> None:
    median = parsed["time"].median()
    if median is None or pl.select(pl.lit(median).is_between(*plausible())).item():
        return
    shown = pl.select(pl.lit(int(median)).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d")).item()  # type: ignore[arg-type]
    example = parsed.filter(pl.col("time").is_not_null()).select(
        pl.coalesce("raw_time", pl.col("integer").cast(pl.String)).first()
    )
    raise DataError(
        f"the times, such as {example.item()}, would be around {shown} if they were read as {unit}, which is not "
        f"a plausible date. If it is right, use time_unit={unit}; otherwise give another time_unit or "
        "a time_format, or use time_column=none for the order of the rows."
    )


def _why_unlikely(unit: str) -> pl.Expr:
    low, high = plausible()
    finer, coarser = (pl.col("time") / 1000).is_between(low, high), (pl.col("time") * 1000.0).is_between(low, high)
    return (
        pl.when(finer | coarser)
        .then(pl.lit(f"the time seems to be in another unit than {unit}, unlike most others"))
        .otherwise(pl.lit("the time is before 1990 or in the future, unlike most others"))
    )  # fmt: skip


def calendar_form(text: pl.Series) -> str:
    """Return the calendar form that all numbers have, such as "yyyymmdd"; "" if they have none."""
    unit = _unit_of(parse(text))
    return unit if unit in _FORMS else ""


def _unit_of(numbers: pl.DataFrame) -> str:
    value = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal")
    for name, form in _FORMS.items():
        # A cheap look at the range first: all digits count, so one other number decides against the form.
        in_range = numbers.height and numbers.select(value.is_between(*_RANGES[name]).all()).item()
        if in_range and numbers.select(form.is_between(*plausible()).fill_null(False).all()).item():
            return name
    size = numbers.select(value.abs().median()).item()
    return next((unit for unit, largest in _LARGEST.items() if (size or 0) < largest), "ns")


def _digits(form: str, prefix: str = "") -> pl.Expr:
    """Convert integers whose digits are a date, such as 20200914, to microseconds; null if they are not."""
    text = pl.lit(prefix) + pl.col("integer").cast(pl.String).str.zfill(4 if prefix else 0)
    return text.str.to_datetime(form, strict=False, time_unit="us").cast(pl.Int64)


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


_EXCEL_DAYS = (
    ((pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal") - 25_569) * 86_400e6).round().cast(pl.Int64)
)
# Numbers that are dates in another form than a count of seconds since 1970, by the range of their values.
_FORMS = {
    "yyyymmdd": _digits("%Y%m%d"),
    "yyyymmddhhmm": _digits("%Y%m%d%H%M"),
    "yyyymmddhhmmss": _digits("%Y%m%d%H%M%S"),
    "excel": _EXCEL_DAYS,
    "mmdd": _digits("%Y%m%d", "2000"),
}
_RANGES = {
    "yyyymmdd": (19_900_101, 21_001_231),
    "yyyymmddhhmm": (199_001_010_000, 210_012_312_359),
    "yyyymmddhhmmss": (19_900_101_000_000, 21_001_231_235_959),
    "excel": (32_874, 60_000),
    "mmdd": (101, 1_231),
}
_MEANINGS = {
    "yyyymmdd": "calendar dates (yyyymmdd)",
    "yyyymmddhhmm": "calendar dates with times of day (yyyymmddhhmm)",
    "yyyymmddhhmmss": "calendar dates with times of day (yyyymmddhhmmss)",
    "excel": "Excel's days since 1900",
    "mmdd": "months and days (mmdd) of one year, for which 2000 is taken",
}
