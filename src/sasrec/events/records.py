"""Split lines into records of fields: blocks of plain lines at once, lines with quotes one by one."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from sasrec.events.lines import BLANK, Block
from sasrec.events.pieces import LINE, REJECTS

LONGEST_RECORD = 1000  # lines; an unclosed quote must not swallow a file
csv.field_size_limit(2**31 - 1)  # a field can be a long list
_CSV_ERRORS = {
    "unexpected end": "a quote is not closed",
    "expected after": "text after a closing quote",
    "new-line": "a carriage return within the line",
}


@dataclass(frozen=True)
class Splitter:
    """Splits lines at a separator."""

    separator: str
    """One character, or `::`; a blank means any run of blanks."""
    names: tuple[str, ...]
    """The names of the columns."""
    rest_is_list: bool = False
    """Whether all fields but the first make the second column."""

    @property
    def may_quote(self) -> bool:
        """Whether fields may be quoted."""
        return len(self.separator) == 1 and self.separator != " "

    def fast(self, block: Block, needed: Sequence[str], header: str | None) -> pl.DataFrame | None:
        """Return the columns `needed` and LINE of a block of plain lines, or None if a line needs more care.

        Polars accepts lines with too few fields; the total of separators shows them.
        """
        text, separator = block.text, self.separator.encode()
        if len(separator) > 1 or separator == b" " or self.rest_is_list or not text.endswith(b"\n"):
            return None
        rows = text.count(b"\n")
        plain = (
            text.count(separator) == rows * (len(self.names) - 1)
            and b'"' not in text
            and text.count(b"\r") == text.count(b"\r\n")
            and b"\xef\xbb\xbf" not in text
            and (header is None or header.encode() not in text)
        )
        if not plain or not rows:
            return None
        places = sorted(self.names.index(name) for name in needed)
        try:
            frame = pl.read_csv(
                io.BytesIO(text), separator=self.separator, has_header=False, infer_schema=False, quote_char=None,
                columns=places, raise_if_empty=False,
            )  # fmt: skip
        except pl.exceptions.PolarsError:
            return None
        if frame.height != rows:
            return None
        frame.columns = [self.names[place] for place in places]
        line = pl.int_range(block.number, block.number + rows, dtype=pl.Int64, eager=True).alias(LINE)
        return frame.with_columns(pl.all().fill_null("")).insert_column(0, line)

    def split(
        self, lines: pl.DataFrame, needed: Sequence[str], header: str | None, *, last: bool
    ) -> tuple[pl.DataFrame, pl.DataFrame, int | None]:
        """Return the columns `needed` and LINE, rejects, and where a record begins that the block cuts off.

        `lines`: columns line and text. `last`: no block follows, so no record is cut off.
        """
        width = len(self.names)
        if self.separator == " ":
            lines = lines.with_columns(text=pl.col("text").str.strip_chars().str.replace_all(r"[ \t]+", " "))
        blank = pl.col("text").str.strip_chars() == ""
        repeated = pl.lit(False) if header is None else pl.col("text") == header
        found = pl.col("text").str.count_matches(self.separator, literal=True).cast(pl.Int64) + 1
        few = found < width if self.rest_is_list else found != width
        quoted = pl.col("text").str.contains('"', literal=True) & ~repeated if self.may_quote else pl.lit(False)
        lines = lines.with_columns(
            quoted=quoted,
            reason=pl.when(blank).then(pl.lit(BLANK))
            .when(repeated).then(pl.lit("the header is repeated")),
            fields=found,
        )  # fmt: skip
        plain = lines.filter(~pl.col("quoted"))
        plain = plain.with_columns(reason=pl.coalesce("reason", pl.when(few).then(_wrong_width(width))))
        rows, rejects, used, rest = self._quoted(lines, needed, last=last) if lines["quoted"].any() else _NO_QUOTES
        plain = plain.filter(~pl.col("line").is_in(used)) if used else plain
        if rest is not None:
            plain = plain.filter(pl.col("line") < rest)
        bad = plain.filter(pl.col("reason").is_not_null()).select(
            "line", pl.lit("").alias("column"), "reason", raw="text"
        )
        good = plain.filter(pl.col("reason").is_null())
        parts = good.select("line", parts=pl.col("text").str.splitn(self.separator, width)).unnest("parts")
        frame = parts.select(
            pl.col("line").alias(LINE), *(pl.col(f"field_{self.names.index(name)}").alias(name) for name in needed)
        )
        if rows:
            schema = {LINE: pl.Int64, **dict.fromkeys(needed, pl.String)}
            frame = pl.concat([frame, pl.DataFrame(rows, schema, orient="row")]).sort(LINE)
        return frame, pl.concat([bad, pl.DataFrame(rejects, REJECTS, orient="row")]), rest

    def fields(self, text: str) -> list[str] | None:
        """Return the fields of one line, or None if its quotes are wrong."""
        if self.separator == " ":
            return text.split()
        if len(self.separator) > 1:
            return text.split(self.separator)
        try:
            return _csv_fields(text, self.separator)
        except csv.Error:
            return text.split("\t") if self.separator == "\t" else None

    def _quoted(
        self, lines: pl.DataFrame, needed: Sequence[str], *, last: bool
    ) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], list[int], int | None]:
        """Return rows, rejects, the lines inside records of several lines, and where a cut-off record begins."""
        rows: list[tuple[object, ...]] = []
        rejects: list[tuple[object, ...]] = []
        used: list[int] = []
        places = [self.names.index(name) for name in needed]
        numbers, texts, quoted = (lines[name].to_list() for name in ("line", "text", "quoted"))
        place = 0
        while place < len(texts):
            if not quoted[place]:
                place += 1
                continue
            fields, reason = self._record(texts[place], places)
            count = 1
            if fields is None and reason == _CSV_ERRORS["unexpected end"]:
                longer = self._longer(texts, place, places)
                if longer is None and not last and len(texts) - place < LONGEST_RECORD:
                    return rows, rejects, used, numbers[place]
                if longer is not None:
                    fields, count = longer
                    used += numbers[place + 1 : place + count]
            if fields is None:
                rejects.append((numbers[place], "", reason, texts[place]))
            else:
                rows.append((numbers[place], *(fields[each] for each in places)))
            place += count
        return rows, rejects, used, None

    def _record(self, text: str, places: Sequence[int]) -> tuple[list[str] | None, str]:
        """Return the fields of a record, or None and the reason why it is none. `places`: the fields to read."""
        width = len(self.names)
        try:
            fields = _csv_fields(text, self.separator)
        except csv.Error as error:
            reason = next((reason for sign, reason in _CSV_ERRORS.items() if sign in str(error)), str(error))
            fields = []
        else:
            reason = f"too {'few' if len(fields) < width else 'many'} fields: {len(fields)} instead of {width}"
        if len(fields) != width and self.separator == "\t" and text.count("\t") == width - 1:
            # Tab-separated files often do not quote, so that a quote in a title is only a sign.
            literal = text.split("\t")
            if not any('"' in literal[place] for place in places):
                return literal, ""
        return (fields, "") if len(fields) == width else (None, reason)

    def _longer(self, texts: list[str], place: int, places: Sequence[int]) -> tuple[list[str], int] | None:
        """Return the record that begins here and has line breaks inside quotes, and its number of lines."""
        text = texts[place]
        for end in range(place + 1, min(len(texts), place + LONGEST_RECORD)):
            text += "\n" + texts[end]
            if '"' in texts[end]:
                fields, reason = self._record(text, places)
                if fields is not None:
                    return fields, end - place + 1
                if reason != _CSV_ERRORS["unexpected end"]:
                    return None
        return None


_NO_QUOTES: tuple[list[tuple[object, ...]], list[tuple[object, ...]], list[int], int | None] = ([], [], [], None)


def _csv_fields(text: str, separator: str) -> list[str]:
    return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True), [])


def _wrong_width(width: int) -> pl.Expr:
    kind = pl.when(pl.col("fields") < width).then(pl.lit("few")).otherwise(pl.lit("many"))
    return pl.format(f"too {{}} fields: {{}} instead of {width}", kind, "fields")
