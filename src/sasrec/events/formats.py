"""Parse dates that are not ISO 8601, by a given format or by the one usual format that fits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import polars as pl

from sasrec.errors import DataError

_FIRST_SAMPLE, _SAMPLE = 1_000, 100_000
_DAYS = [
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%y/%m/%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%y.%m.%d",
]
_DAYS += ["%m-%d-%Y", "%d-%m-%Y", "%m-%d-%y", "%d-%m-%y", "%y-%m-%d", "%Y-%m-%d"]
_USUAL = [
    *(day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")),
    *("%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y"),
    *("%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z"),
    *("%B %d, %Y", "%b %d, %Y", "%m %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d %b %Y %H:%M:%S"),
]
_EARLIEST = 631_152_000  # 1990-01-01 in seconds since 1970
_HAS_YEAR = re.compile(r"%[-_0]?[YyCGgDFxcs+]")


def plausible() -> tuple[int, int]:
    """Return the range of plausible times in microseconds: 1990 to a year after tomorrow."""
    end = datetime.now(UTC) + timedelta(days=367)
    return _EARLIEST * 10**6, int(end.timestamp() * 10**6)


def parsed_by(time_format: str, text: pl.Series) -> pl.DataFrame:
    """Parse text by a format of strptime. Times without a time zone are UTC; without a year, they are of 2000.

    Returns the columns of PARSED in times.py. Raises: DataError if the format cannot be used. Remedy: correct it.
    """
    read, full = text, time_format
    if not has_year(time_format):
        # Programs that take 0914 for a number write 914.
        read = "2000 " + (text.str.zfill(4) if time_format == "%m%d" else text)
        full = "%Y " + time_format
    # In Polars %f counts nanoseconds, and %Z is not read.
    full = full.replace(".%f", "%.f")
    if re.search(r"%-?[HI]", full) and "%M" not in full:  # Polars needs minutes
        read, full = read + ":00", full + ":%M"
    if "%Z" in full or "%f" in full:
        raise DataError(
            f"time_format={time_format!r} cannot be used: %Z, and %f without a point before it, are not read. "
            "Write offsets such as +0200 (%z) in the times, or a zone that all have as text (UTC)."
        )
    try:
        time = read.str.to_datetime(full, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"time_format={time_format!r} cannot be used ({error}). Write it as for strptime."
        ) from None
    if isinstance(time.dtype, pl.Datetime) and time.dtype.time_zone:
        time = time.dt.convert_time_zone("UTC")
    frame = pl.DataFrame({"text": text, "iso": time.to_physical()})
    zoned = "%z" in time_format.lower() or time_format.endswith(("Z", "GMT"))
    fault = pl.when(pl.col("iso").is_null()).then(pl.lit(f"the time does not have the format {time_format}"))
    return frame.select(
        integer=pl.lit(None, pl.Int64), decimal=pl.lit(None, pl.Float64), iso="iso",
        zoned=pl.when(pl.col("iso").is_not_null()).then(pl.lit(zoned)),
        time_reason=pl.when(pl.col("text").fill_null("") == "").then(pl.lit("the time is empty")).otherwise(fault),
        raw_time="text",
    )  # fmt: skip


def has_year(time_format: str) -> bool:
    """Whether a format of strptime reads years."""
    return bool(_HAS_YEAR.search(time_format))


def by_usual_format(parsed: pl.DataFrame, typical: pl.Series) -> tuple[pl.DataFrame, str]:
    """Parse times if one usual format alone fits nearly all of the `typical` ones, neither numbers nor ISO 8601.

    Raises: DataError if no format or several fit, so that day and month cannot be distinguished. Remedy: give one.
    """
    text = parsed["raw_time"]
    filled = typical.filter((typical != "").fill_null(False))
    if not len(filled):
        return parsed, "no row has a time"
    sample = filled.head(_SAMPLE)
    few = filled.head(_FIRST_SAMPLE)
    likely = [each for each in _USUAL if _share(few, each) > 0.5]
    fitting = [each for each in likely if _share(sample, each) > 0.95]
    if not fitting and int(sample.str.contains(r"^\d+,\d+$").sum()) > 0.95 * len(sample):
        raise DataError(f"the times, such as {filled[0]}, have a decimal comma. Write them with a point.")
    if len(fitting) != 1:
        suggested = " or ".join(f"time_format='{each}'" for each in fitting or ["%d.%m.%Y %H:%M"])
        found = "several formats fit" if fitting else "no usual format fits"
        raise DataError(
            f"the times, such as {filled[0]}, are neither numbers nor ISO 8601 dates, and {found}. Use {suggested}"
            f"{'' if fitting else ', with the parts of your times (as in strptime)'}."
        )
    return parsed_by(fitting[0], text), f"times are read by the format {fitting[0]}"


def _share(text: pl.Series, time_format: str) -> float:
    times = text.str.to_datetime(time_format, strict=False, time_unit="us").to_physical()
    return int(times.is_between(*plausible()).sum()) / len(text)
