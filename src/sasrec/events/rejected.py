"""Write the list of rejects, and find the whole rows behind them, so that people can see what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.frames import table_of
from sasrec.events.inputs import Input
from sasrec.events.lines import blocks_of, lines_of
from sasrec.events.records import LONGEST_RECORD
from sasrec.events.streams import sniffed
from sasrec.files import whole_file

_LONGEST = 2000  # characters of a row that are kept


def write_rejects(rejects: pl.DataFrame, path: Path | None) -> None:
    """Write rejects as CSV. Without rejects, remove the file of an earlier reading. None writes nothing.

    Raises: DataError if the file cannot be written. Remedy: as the message says.
    """
    if path is None:
        return
    try:
        if rejects.is_empty():
            path.unlink(missing_ok=True)
            return
        with whole_file(path) as stream:
            rejects.write_csv(stream)
    except OSError as error:
        raise DataError(
            f"the list of rejects cannot be written to {path}: {error}. Free disk space, fix the permissions, or "
            "name another `train_dir` (train) or `output` (prepare)."
        ) from None


def with_rows(rejects: pl.DataFrame, inputs: Sequence[Input], config: DataConfig) -> pl.DataFrame:
    """Return rejects with the column `row`, the text of the whole row; the inputs are read again for it."""
    found = []
    for each in {each.name: each for each in inputs}.values():
        own = rejects.filter(pl.col("file") == each.name).unique("line").sort("line")
        if own.height:
            rows = _rows(each, own["line"], own.filter(pl.col("column") != "")["line"], config)
            found.append(rows.with_columns(pl.lit(each.name).alias("file"), pl.col("row").str.slice(0, _LONGEST)))
    empty = pl.DataFrame(schema={"line": pl.Int64, "row": pl.String, "file": pl.String})
    return rejects.join(pl.concat([empty, *found]), on=["file", "line"], how="left", maintain_order="left")


def _rows(each: Input, lines: pl.Series, split: pl.Series, config: DataConfig) -> pl.DataFrame:
    """Return the columns line and row of the lines of one input. `split`: those that could be split in fields."""
    if each.frame is not None:
        return _of_table(each.frame.lazy(), lines)
    assert each.path is not None
    kind, encoding = sniffed(each.path, each.name, config.encoding)
    if kind in ("parquet", "arrow"):
        return _of_table(table_of(each.path, kind, each.name), lines)
    if kind == "json":
        return _of_array(each.path, each.name, encoding, lines)
    found = []
    for block in blocks_of(each.path, each.name, encoding):
        wanted = lines.filter(lines.is_between(block.number, block.end, closed="left"))
        if len(wanted):
            texts, undecodable = lines_of(block)
            both = pl.concat([texts, undecodable.select("line", text="raw")]).sort("line")
            found.append(_records(both, wanted, split if kind == "text" else split.clear()))
    return pl.concat(found)


def _records(texts: pl.DataFrame, wanted: pl.Series, split: pl.Series) -> pl.DataFrame:
    """Return the columns line and row of the wanted lines.

    Where a line of `split` leaves a quote open, its record contains the lines after it, too.
    """
    lines = texts["text"]
    found = texts.filter(pl.col("line").is_in(wanted.implode()))
    open_quote = pl.col("line").is_in(split.implode()) & (
        pl.col("text").str.count_matches('"', literal=True) % 2 == 1
    )
    longer = {}
    for place in texts.select(open_quote).to_series().arg_true():
        row = lines[place]
        for following in lines[place + 1 : place + LONGEST_RECORD]:
            row += "\n" + following
            if following.count('"') % 2:
                break
        longer[texts["line"][place]] = row
    return found.select(
        "line",
        row=pl.coalesce(pl.col("line").replace_strict(longer, default=None, return_dtype=pl.String), "text"),
    )


def _of_table(table: pl.LazyFrame, lines: pl.Series) -> pl.DataFrame:
    numbered = table.with_row_index("row number", offset=1).filter(pl.col("row number").is_in(lines.implode()))
    frame = numbered.collect()
    # Python has no dates outside the years 1 to 9999, and some rows are rejected for just that.
    outside = [name for name in frame.columns if times.outside_calendar(frame[name]).any()]
    frame = frame.with_columns(pl.col(outside).to_physical())
    texts = [
        json.dumps(row, default=str, ensure_ascii=False) for row in frame.drop("row number").iter_rows(named=True)
    ]
    return pl.DataFrame({"line": frame["row number"].cast(pl.Int64), "row": pl.Series(texts, dtype=pl.String)})


def _of_array(path: Path, name: str, encoding: str, lines: pl.Series) -> pl.DataFrame:
    found = json.loads(b"".join(block.text for block in blocks_of(path, name, encoding)))
    texts = [json.dumps(found[line - 1], ensure_ascii=False) for line in lines]
    return pl.DataFrame({"line": lines, "row": pl.Series(texts, dtype=pl.String)})
