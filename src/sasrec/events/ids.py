"""Number the ids of a column while it is read block by block, and find ids that cannot be used.

25 million rows have far fewer ids, so a code of 4 bytes a row saves most of the memory, and each id is checked
once.
"""

from __future__ import annotations

import numpy as np
import polars as pl

_LONGEST_ID = 512
_CONTROL = r"[\x00-\x1f\x7f]"
_NOTHING = r"^[\s\p{Cf}\"'`]*$"  # quotes and invisible characters do not make an id
_INTEGER = r"(?-u)^-?\d+$"
_FRACTION = r"(?-u)^-?\d+(\.\d+([eE][+-]?\d+)?|[eE][+-]?\d+)$"
_ROUNDED = r"(?-u)^-?(\d+([.,]\d+)?[eE]\+|\d[.,]\d+[eE])\d+$"  # 1.2E+12 of Excel, 1.2E12 of Java


class IdCodes:
    """The distinct ids of a column; their place is their code."""

    def __init__(self) -> None:
        self.ids = pl.Series([], dtype=pl.String)

    def encode(self, ids: pl.Series) -> pl.Series:
        """Return the codes of ids, UInt32; new ids get the next codes. Blanks around an id do not belong to it."""
        if not len(ids):
            return pl.Series([], dtype=pl.UInt32)
        ids = ids.fill_null("")
        distinct = ids.unique(maintain_order=True)
        clean = distinct.str.strip_chars()
        new = clean.unique(maintain_order=True)
        if len(self.ids):
            new = new.filter(~new.is_in(self.ids.implode()))
        self.ids = pl.concat([self.ids, new])
        codes = pl.int_range(len(self.ids), dtype=pl.UInt32, eager=True)
        of_distinct = clean.replace_strict(self.ids, codes, return_dtype=pl.UInt32)
        return ids.replace_strict(distinct, of_distinct, return_dtype=pl.UInt32)

    def faults(self, codes: pl.Series, role: str, missing: str) -> pl.Series:
        """Return for each id the reason why it cannot be used, or null.

        `codes`: of all rows. `missing`: words that stand for no id, separated by commas.
        """
        counts = pl.Series(np.bincount(codes.to_numpy(), minlength=len(self.ids)))
        frame = pl.DataFrame({"id": self.ids, "count": counts})
        text = pl.col("id")
        # Spreadsheets turn long integers into 1.2E+9. If most ids are integers, refuse such numbers and fractions;
        # in a column of text ids, accept them, unless the sign in E+9 shows that they were rounded.
        integers, filled = frame.select(
            pl.col("count").filter(text.str.contains(_INTEGER)).sum(),
            pl.col("count").filter(text != "").sum().alias("all"),
        ).row(0)
        broken = text.str.contains(_FRACTION) if 2 * integers > filled else pl.lit(False)
        # 7 and 7.0 are one id that a program wrote in two ways.
        bare = text.str.replace(r"\.0+$", "")
        twofold = text.str.contains(r"(?-u)^-?\d+(\.0+)?$") & bare.is_duplicated()
        words = [word.strip().lower() for word in missing.split(",")]
        reason = (
            pl.when(text.str.contains(_NOTHING)).then(pl.lit(f"the {role} is empty"))
            .when(text.str.to_lowercase().is_in(words)).then(pl.format(f"the {role} is missing ({{}})", text))
            .when(text.str.contains(_CONTROL)).then(pl.lit(f"the {role} has a control character"))
            .when(text.str.len_chars() > _LONGEST_ID)
            .then(pl.lit(f"the {role} is longer than {_LONGEST_ID} characters"))
            .when(broken).then(pl.lit(f"the {role} is not an integer, unlike most others"))
            .when(twofold).then(pl.format(f"the {role} {{}} is also written as a fraction or as an integer", bare))
            .when(text.str.contains(_ROUNDED)).then(pl.lit(f"the {role} is a rounded number, which merges ids"))
        )  # fmt: skip
        return frame.select(reason.alias("reason")).to_series()

    def sorted(self, codes: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return codes in which ids are in order of text, and the ids that occur, in this order."""
        used = np.flatnonzero(np.bincount(codes.to_numpy(), minlength=len(self.ids)))
        names = self.ids.gather(used)
        order = names.arg_sort()
        place = np.zeros(len(self.ids), np.uint32)
        place[used[order.to_numpy()]] = np.arange(len(used), dtype=np.uint32)
        return pl.Series(place[codes.to_numpy()]), names.gather(order)


def coded_frame(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """Return the frame with codes in place of the ids of user and item, and the ids of users and of items."""
    ids = {}
    for role in ("user", "item"):
        codes = IdCodes()
        places, ids[role] = codes.sorted(codes.encode(frame[role]))
        frame = frame.with_columns(places.alias(role))
    return frame, ids["user"], ids["item"]
