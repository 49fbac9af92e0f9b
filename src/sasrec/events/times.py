"""Convert times from text to microseconds since 1970 UTC.

A time column contains either numbers in one unit or ISO 8601 dates. All rows of all files together decide between
numbers and dates, and decide the unit. Splitting the rows over several files therefore never changes the result.
"""

from __future__ import annotations

import polars as pl

from sasrec.config.settings import TimeUnit
from sasrec.errors import DataError
from sasrec.events.formats import by_usual_format, parsed_by, plausible

_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}
# A unit is chosen if the median absolute number is below its limit. 1e11 s is the year 5138; 1e11 ms is 1973.
_LARGEST = {"s": 1e11, "ms": 1e14, "us": 1e17}
_FACTORS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_FIRST_PLAUSIBLE = plausible()[0]
_RECENT = 788_918_400 * 10**6  # 1995: counts from 2001, or of 100 ns since year 1, look like times before it
ANOTHER_UNIT = "the time seems to be in another unit"
_SCIENTIFIC = r"^[+-]?\d+[.]?(\d*)[eE]\+?\d+$"
_ROUNDED_DIGITS = 5  # 1.60004E+09: a time has more digits behind the point
_FIRST, _END = -62_135_596_800, 253_402_300_800  # in seconds: the start of year 1 and the end of year 9999
ISO = (
    r"(?-u)^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s?(?:(Z|z|UTC)|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?$"
)
_AT_ONCE = 2_000_000  # rows converted at once
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
        return parsed_by(time_format, text)
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
    if kind.is_integer() or kind.is_decimal() or kind in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    raise DataError(
        f"{name}: column {series.name!r} is of type {kind}, which cannot be a time. Use dates, numbers or text."
    )


def float_text(series: pl.Series) -> pl.Series:
    """Convert floats to text; whole numbers lose their decimal point (3.0 becomes "3")."""
    whole, text = series.cast(pl.Int64, strict=False).cast(pl.String), series.cast(pl.String)
    return pl.select(pl.when(series == series.floor()).then(pl.coalesce(whole, text)).otherwise(text)).to_series()


def resolve(
    parsed: pl.DataFrame, unit: TimeUnit, *, by_format: bool = False
) -> tuple[pl.DataFrame, str, list[str]]:
    """Decide the unit from the `parse` results of all rows and convert all times.

    Returns a frame with `time` (microseconds, null if rejected), `reason` and `raw_time`; the unit, which is "iso"
    for dates; and warnings. In a mixture of numbers and dates, the rarer kind is rejected; on a tie, the numbers.
    Unless a unit is given, a time before 1990 or in the future is rejected, too, if most times are plausible.
    `by_format`: the times were parsed by a format that the caller gave, so nothing is guessed.

    Raises: DataError if most times are not plausible, or do not fit the given unit. Remedy: a unit or a format.
    """
    unit = "iso" if by_format else unit
    if parsed.columns == ["integer"] and unit != "iso":
        return _resolved_integers(parsed, unit)
    parsed = parsed.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in PARSED.items() if name not in parsed
    )
    warnings: list[str] = []
    if not by_format:
        parsed, warnings = _with_usual_format(parsed, unit)
    numbers = parsed.filter(pl.col("iso").is_null() & pl.col("time_reason").is_null())
    dates = parsed["iso"].count()
    if by_format or (dates and dates >= numbers.height):
        if unit not in ("auto", "iso"):
            raise DataError(f"the times are dates, not numbers in {unit}. Use time_unit='auto'.")
        odd = pl.col("iso").is_null() & pl.col("time_reason").is_null()
        time, resolved_unit = _in_calendar(pl.col("iso"), pl.col("iso")), "iso"
        reason = pl.lit("the time is a number, but most others are dates")
    else:
        if unit == "iso":
            raise DataError("the times are numbers, not dates. Use time_unit='auto', or the unit of the numbers.")
        odd = pl.col("iso").is_not_null()
        resolved_unit = _unit_of(numbers) if unit == "auto" else unit
        time = _FORMS[resolved_unit] if resolved_unit in _FORMS else _scaled(resolved_unit)
        reason = pl.lit("the time is a date, but most others are numbers")
    parsed = parsed.with_columns(time=pl.when(odd.not_()).then(time))
    if unit == "auto":
        _refuse_rounded(numbers)
        _refuse_implausible(parsed, resolved_unit)
    outside = pl.col("time").is_null() & pl.col("time_reason").is_null()
    unlikely = pl.lit(unit == "auto") & pl.col("time").is_between(*plausible()).not_()
    resolved = parsed.select(
        pl.when(unlikely.not_()).then("time").alias("time"),
        pl.when(odd).then(reason)
        .when(outside | unlikely).then(_why_unlikely(resolved_unit, guessed=unit == "auto"))
        .otherwise("time_reason").alias("reason"),
        pl.when(odd | outside | unlikely | pl.col("time_reason").is_not_null())
        .then(pl.coalesce("raw_time", pl.col("integer").cast(pl.String))).alias("raw_time"),
    )  # fmt: skip
    if resolved_unit == "iso" and not parsed["zoned"].all():
        warnings.append("dates without a time zone are read as UTC")
    return resolved, resolved_unit, [*warnings, *_notes(resolved["time"], resolved_unit)]


def _with_usual_format(parsed: pl.DataFrame, unit: TimeUnit) -> tuple[pl.DataFrame, list[str]]:
    """Parse dates in a usual format, if most times are neither numbers nor ISO 8601 dates. Returns notes, too.

    Raises: DataError if no format fits and all times are such. Remedy: give the format.
    """
    read = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal", pl.col("iso").cast(pl.Float64)).is_not_null()
    readable = parsed.select(read.sum()).item()
    filled = parsed.select(((pl.col("raw_time") != "").fill_null(False) & ~read).sum()).item()
    if not parsed.height or unit not in ("auto", "iso") or (readable and readable >= filled):
        return parsed, []
    try:
        found, note = by_usual_format(
            parsed.with_columns(_raw_time()), parsed["raw_time"].filter(parsed.select(~read).to_series())
        )
    except DataError:
        if readable:  # the bad rows are listed
            return parsed, []
        raise
    return found, [note]


def _raw_time() -> pl.Expr:
    return pl.coalesce("raw_time", pl.col("integer").cast(pl.String)).alias("raw_time")


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
    times = pl.concat(converted).with_columns(decimal=pl.lit(None, pl.Float64), raw_time=pl.lit(None, pl.String))
    if unit == "auto":
        _refuse_implausible(times, known)
    outside = pl.col("time").is_null()
    unlikely = pl.lit(unit == "auto") & pl.col("time").is_between(*plausible()).not_()
    resolved = times.select(
        pl.when(unlikely.not_()).then("time").alias("time"),
        pl.when(outside | unlikely).then(_why_unlikely(known, guessed=unit == "auto")).alias("reason"),
        pl.when(outside | unlikely).then(pl.col("integer").cast(pl.String)).alias("raw_time"),
    )  # fmt: skip
    return resolved, known, _notes(resolved["time"], known)


def _notes(times: pl.Series, unit: str) -> list[str]:
    notes = [f"times are read as {_MEANINGS[unit]}"] if unit in _FORMS else []
    median = times.median()
    if unit in _FACTORS and isinstance(median, float) and _FIRST_PLAUSIBLE <= median < _RECENT:
        year = pl.select(pl.lit(int(median)).cast(pl.Datetime("us")).dt.year()).item()
        notes.append(f"most times are around the year {year}, read as {unit} since 1970; check that this is right")
    return notes


def moments_of(text: pl.Series) -> pl.Series:
    """Return times in microseconds; null where a text is not a time, or if several formats fit."""
    try:
        return resolve(parse(text), "auto")[0]["time"]
    except DataError:
        return pl.repeat(None, len(text), dtype=pl.Int64, eager=True)


def _refuse_implausible(parsed: pl.DataFrame, unit: str) -> None:
    median = parsed["time"].median()
    if median is None or pl.select(pl.lit(median).is_between(*plausible())).item():
        return
    shown = pl.select(pl.lit(int(median)).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d")).item()  # type: ignore[arg-type]
    example = parsed.filter(pl.col("time").is_not_null()).select(
        pl.coalesce("raw_time", pl.col("integer").cast(pl.String)).first()
    )
    hint = ""
    if form := _form_of(parsed, 0.5):
        hint = f"Most look like {_MEANINGS[form]}, but not all: correct the others"
        hint += f", or use time_format='{_FORMATS[form]}'. " if form in _FORMATS else ". "
    elif parsed.select(_MONTH_AND_DAY.is_between(*plausible()).fill_null(False).all()).item():
        hint = "They may be months and days (mmdd): add the year, or use time_format='%m%d' if all have one year. "
    raise DataError(
        f"the times, such as {example.item()}, would be around {shown} if they were read as {unit}, which is not "
        f"a plausible date. {hint}If it is right, use time_unit={unit!r}; otherwise give another time_unit or "
        "a time_format, or use time_column='none' for the order of the rows."
    )


def _refuse_rounded(numbers: pl.DataFrame) -> None:
    """Raise DataError if most times are rounded, such as 1.60004E+09 by a spreadsheet. Remedy: all digits."""
    digits = numbers["raw_time"].str.extract(_SCIENTIFIC).str.len_chars().drop_nulls()
    if 2 * len(digits) > numbers.height and digits.max() <= _ROUNDED_DIGITS:  # type: ignore[operator]
        raise DataError(
            f"the times, such as {numbers['raw_time'].drop_nulls()[0]}, are rounded, so their order is lost. "
            "Export them again with all digits, or use time_column='none' for the order of the rows."
        )


def _why_unlikely(unit: str, *, guessed: bool) -> pl.Expr:
    """Return why a time is outside the calendar or, if the unit is `guessed`, not plausible."""
    value = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal")
    other = [(value * factor).is_between(*plausible()) for name, factor in _FACTORS.items() if name != unit]
    return (
        pl.when(pl.lit(guessed and unit in _FACTORS) & pl.any_horizontal(other))
        .then(pl.lit(f"{ANOTHER_UNIT} than {unit}, unlike most others"))
        .when(pl.col("time").is_null())
        .then(pl.lit(f"the time is out of range for {unit}: it must be in the years 1 to 9999"))
        .otherwise(pl.lit("the time is before 1990 or in the future, unlike most others"))
    )  # fmt: skip


def calendar_form(text: pl.Series, least: float) -> str:
    """Return the calendar form that more than the share `least` of numbers have, such as "yyyymmdd"; else ""."""
    return _form_of(parse(text), least)


def _form_of(numbers: pl.DataFrame, least: float) -> str:
    value = (
        pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal") if "decimal" in numbers else pl.col("integer")
    )
    numbers = numbers if "decimal" in numbers else numbers.with_columns(decimal=pl.lit(None, pl.Float64))
    for name, form in _FORMS.items():
        # A cheap look at the range first.
        in_range = numbers.select(value.is_between(*_RANGES[name]).sum()).item()
        if numbers.height and in_range > least * numbers.height:
            fitting = numbers.select(form.is_between(*plausible()).fill_null(False).sum()).item()
            if fitting > least * numbers.height:
                return name
    return ""


def _unit_of(numbers: pl.DataFrame) -> str:
    """Return the calendar form that all numbers have; else the unit in which most are plausible."""
    if form := _form_of(numbers, 1 - 0.5 / max(1, numbers.height)):
        return form
    value = pl.coalesce(pl.col("integer").cast(pl.Float64), "decimal")
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
}
_RANGES = {
    "yyyymmdd": (19_900_101, 21_001_231),
    "yyyymmddhhmm": (199_001_010_000, 210_012_312_359),
    "yyyymmddhhmmss": (19_900_101_000_000, 21_001_231_235_959),
    "excel": (32_874, 60_000),
}
_MEANINGS = {
    "yyyymmdd": "calendar dates (yyyymmdd)",
    "yyyymmddhhmm": "calendar dates with times of day (yyyymmddhhmm)",
    "yyyymmddhhmmss": "calendar dates with times of day (yyyymmddhhmmss)",
    "excel": "Excel's days since 1900",
}
_FORMATS = {"yyyymmdd": "%Y%m%d", "yyyymmddhhmm": "%Y%m%d%H%M", "yyyymmddhhmmss": "%Y%m%d%H%M%S"}
_MONTH_AND_DAY = _digits("%Y%m%d", "2000")
