"""Find the column of the times among those that are neither user nor item.

Neither the name nor the values alone decide. A column that could be the time is never passed over: the data is
refused with its name. What the names of durations and parts of dates say is noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import polars as pl

from sasrec.errors import DataError
from sasrec.events.profile import EXCEL, OTHER_DATES, Profile, is_clock, profile, time_kind, words
from sasrec.events.sequences import list_form
from sasrec.events.times import calendar_form, moments_of

# Words that mark a time inside a longer name, such as invoice_date, TRANSACTION_DT, clickTime or 时间.
_DATES = "date dates dt dat day datum fecha jour dato tarih"
_TIMES = (
    "time times timestamp timestamps ts datetime when at zeit uhrzeit zeitpunkt zeitstempel heure hora tiempo "
    "tijd tijdstip tidspunkt czas zaman year month week hour minute hourmin hhmm yyyymmdd jahr monat mois mes año"
)
_DATE_WORDS = frozenset(_DATES.split())
_TIME_WORDS = _DATE_WORDS | frozenset(_TIMES.split())
_SIGNS = re.compile(
    "时间|日期|時間|日付|時刻|시간|날짜|дата|время|timestamp|datetime|[a-z](datum|zeit)$", re.IGNORECASE
)
_ENDS = re.compile(r"([a-z](date|time)|(^|[^a-z])dat)$", re.IGNORECASE)  # eventdate, clicktime, t_dat
_DURATION = re.compile(
    r"(?i)(duration|length|elapsed|time[_ ]?(spent|on|diff|delta|gap)|"
    r"(watch|play|dwell|listen|view|read|spent|response|run|life|screen)[a-z]*[_ ]?time)"
)
_ID = re.compile(r"(?i)(^|[^a-z])(id|ids|no|nr|number|code|sku|price|amount)$|[a-z]Id$")
_HOURS = frozenset({"hour", "hr", "hh", "h", "stunde", "uur", "heure", "hora"})
_OF_DAY = frozenset(
    {"tod", "clock", "second", "sec", "minute", "hhmm", "hhmmss", "timeframe", "offset", "midnight"}
)
_NO_CLOCK = frozenset({"length", "runtime", "score", "opening", "closing", "result", "playtime", "pace"})
_COUNTER_ROWS = 10
_REPEATED = 6  # so many more rows of known items would hardly have the same times by chance


def time_column(
    rest: Mapping[str, pl.Series], known: Sequence[str], items: pl.Series, file: str
) -> tuple[str | None, list[str]]:
    """Choose the time, and say why.

    `rest`: some values of each column; `known`: those with a usual name; `items`: the values of the items.

    Raises: DataError if several columns, or one whose name or values are not clear, could be the time. Remedy:
        name it.
    """
    values = {name: _elements(column) for name, column in rest.items()}
    profiles = {name: profile(name, column) for name, column in values.items()}
    named = [name for name in rest if name in known or _names_time(name)]
    kinds = {name: profiles[name].time or time_kind(values[name], 0.5) for name in named}
    kinds |= {name: "Excel's days" for name in named if not kinds[name] and _is_excel(name, values[name])}
    readable = [name for name in named if kinds[name]]
    unnamed = [name for name in rest if name not in named and profiles[name].time and not _ID.search(name)]
    strange = [name for name in named if not kinds[name]]
    of_items = [name for name in readable if _is_of_items(rest[name], items)]
    if of_items and len(of_items) == len(readable) and not unnamed:
        raise DataError(
            f"{file}: the column {of_items[0]} has one time for each item, as a date of release has. "
            f"{time_remedy(of_items)}"
        )
    readable = [name for name in readable if name not in of_items]
    if readable:
        best = _finest(readable, profiles, kinds, known, file)
        _refuse_rivals(best, unnamed, values, profiles, kinds, known, file)
        passed = [name for name in (*named, *unnamed) if name != best]
        return best, [_preferred(best, passed, readable)] if passed else []
    if unnamed:
        raise DataError(
            f"{file}: the column {unnamed[0]} looks like times ({profiles[unnamed[0]].time}, such as "
            f"{profiles[unnamed[0]].example}), but its name is not a usual one. {time_remedy(unnamed)}"
        )
    return _strange(strange, known, values, profiles, file)


def time_remedy(names: Sequence[str]) -> str:
    """Return what to do if the column of the times is not clear."""
    return f"Use time_column='none' for the order of the rows, or name the column with time_column={names[0]!r}."


def _finest(
    readable: Sequence[str],
    profiles: Mapping[str, Profile],
    kinds: Mapping[str, str],
    known: Sequence[str],
    file: str,
) -> str:
    """Return the column with most distinct times: a date beside a time of day loses the order within a day.

    It must have a usual name, as the time of an event is seldom the column with the odd one.
    """
    finest = max(profiles[name].distinct for name in readable)
    best = [name for name in readable if profiles[name].distinct == finest]
    if len(best) > 1:
        best = [name for name in best if kinds[name] != OTHER_DATES] or best
    if len(best) == 1 and (best[0] in known or len(readable) == 1):
        return best[0]
    raise DataError(f"{file}: more than one column could be the time ({', '.join(readable)}). {time_remedy(best)}")


def _refuse_rivals(
    best: str,
    unnamed: Sequence[str],
    values: Mapping[str, pl.Series],
    profiles: Mapping[str, Profile],
    kinds: Mapping[str, str],
    known: Sequence[str],
    file: str,
) -> None:
    """Raise DataError if another column has finer times, or the times of day. Remedy: name one, or join."""
    finer = [name for name in unnamed if best not in known or profiles[name].distinct > profiles[best].distinct]
    if finer:
        both = ", ".join([best, *finer])
        raise DataError(f"{file}: more than one column could be the time ({both}). {time_remedy([best])}")
    clocks = [
        name
        for name in values
        if name != best
        and not (_DURATION.search(name) or _NO_CLOCK & set(words(name)))
        and (is_clock(values[name]) or _is_hour(name, values[name]))
    ]
    if clocks and (kinds[best] in (OTHER_DATES, "yyyymmdd") or _are_days(values[best])):
        raise DataError(
            f"{file}: the column {best} has dates, and {clocks[0]} may have times of day, such as "
            f"{profiles[clocks[0]].example}. Join both in one column, or use time_column={best!r} for days only."
        )


def _is_hour(name: str, values: pl.Series) -> bool:
    """Whether a column has hours, or another count within a day, and its name says so."""
    parts = set(words(name))
    numbers = values.drop_nulls().cast(pl.Int64, strict=False)
    if not len(numbers) or numbers.null_count():
        return False
    hour = bool(_HOURS & parts) and bool(numbers.is_between(0, 23).all())
    return hour or (bool(_OF_DAY & parts) and bool(numbers.is_between(0, 86_400_000).all()))


def _are_days(values: pl.Series) -> bool:
    """Whether all times are at midnight."""
    moments = moments_of(values).drop_nulls()
    return len(moments) > 0 and not bool((moments % 86_400_000_000 != 0).any())


def _is_of_items(values: pl.Series, items: pl.Series) -> bool:
    """Whether different times belong to the items, which occur several times each, and not to the events."""
    if len(values) != len(items) or list_form(items):
        return False
    pairs = pl.DataFrame({"item": items, "time": values}).drop_nulls()
    distinct = pairs["item"].n_unique()
    several = pairs.height - distinct >= _REPEATED
    return several and pairs["time"].n_unique() > 1 and pairs.n_unique() == distinct


def _preferred(best: str, passed: Sequence[str], readable: Sequence[str]) -> str:
    others = ", ".join(passed)
    if len(readable) == 1 and not set(passed) - set(readable):
        return f"{best} is used as the time, not {others}"
    why = "its times are the finest" if len(readable) > 1 else "only its values are times under a usual name"
    return f"{best} is used as the time, not {others}, because {why}"


def _strange(
    strange: Sequence[str],
    known: Sequence[str],
    values: Mapping[str, pl.Series],
    profiles: Mapping[str, Profile],
    file: str,
) -> tuple[str | None, list[str]]:
    """Decide where no column has clear times, but some names say so."""
    if not strange:
        return None, [f"the time is none of the columns {', '.join(values)}"] if values else []
    usual = [name for name in strange if name in known]
    empty = [name for name in strange if not profiles[name].rows]
    for name in [*usual, *strange]:
        if calendar_form(values[name].drop_nulls(), 0.95) == EXCEL:
            raise DataError(
                f"{file}: the column {name} has numbers such as {profiles[name].example}, which can be days of "
                f"Excel or a counter. {time_remedy([name])}"
            )
    if len(usual) == 1:
        return usual[0], []  # all rows together show what is wrong
    if len(usual) > 1:
        raise DataError(
            f"{file}: more than one column could be the time ({', '.join(usual)}). {time_remedy(usual)}"
        )
    if empty:
        return empty[0], []
    doubtful = [name for name in strange if _has_word(name) and not _DURATION.search(name)]
    if doubtful:
        name = doubtful[0]
        raise DataError(
            f"{file}: the name of the column {name} says time, but its values, such as {profiles[name].example}, "
            f"are not clearly times. If they are, use time_column={name!r} with time_unit or time_format; "
            "otherwise use time_column='none' for the order of the rows."
        )
    listed = ", ".join(f"{name} (such as {profiles[name].example})" for name in strange)
    return None, [f"no time is read from {listed}, because the values are not times"]


def _is_excel(name: str, values: pl.Series) -> bool:
    """Whether numbers in the range of Excel's days are dates: they have times of day, or the name says date.

    Whole numbers that never repeat are a counter.
    """
    text = values.drop_nulls().str.strip_chars()
    text = text.filter(text != "")
    if calendar_form(text, 0.95) != EXCEL:
        return False
    if text.str.contains(r"\.\d*[1-9]").any():
        return True
    dated = bool(_DATE_WORDS & set(words(name))) or bool(re.search("(?i)date$|日期|날짜|дата", name))
    return dated and (len(text) < _COUNTER_ROWS or text.n_unique() < len(text))


def _elements(values: pl.Series) -> pl.Series:
    """Return the elements of lists of times; other values as they are."""
    return values.str.extract_all(r"[^,;|\[\]()\s\"']+").explode() if list_form(values) else values


def _has_word(name: str) -> bool:
    return any(word in _TIME_WORDS for word in words(name)) or bool(_SIGNS.search(name))


def _names_time(name: str) -> bool:
    """Whether a part of a name, such as `date` in invoice_date, says that the column is a time."""
    return _has_word(name) or bool(_ENDS.search(name))
