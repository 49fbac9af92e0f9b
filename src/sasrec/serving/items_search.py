"""Find items by words of their titles and ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.items import Items


class ItemSearch:
    """The texts of a catalogue, without case and accents, most popular items first."""

    def __init__(self, items: Items, popular_V: npt.NDArray[np.int64]) -> None:
        """`popular_V`: (V,) events of each item."""
        self.popular_V = popular_V
        self._order = 1 + np.argsort(-popular_V[1:], kind="stable")
        titles = (
            pl.Series([""]).new_from_index(0, len(items)) if items.titles is None else items.titles.fill_null("")
        )
        texts = _plain(titles.cast(pl.String) + " " + items.ids.cast(pl.String))
        self._texts = texts.gather(self._order - 1)

    def find(self, query: str, limit: int, offset: int) -> tuple[npt.NDArray[np.int64], int]:
        """Return item numbers whose texts have all words of the query, and how many there are in all."""
        kept = pl.repeat(True, len(self._texts), dtype=pl.Boolean, eager=True)
        for word in _plain(pl.Series([query]))[0].split()[:10]:
            kept &= self._texts.str.contains(word, literal=True)
        found = self._order[kept.to_numpy()]
        return found[offset : offset + limit], len(found)


def _plain(texts: pl.Series) -> pl.Series:
    return texts.str.normalize("NFKD").str.replace_all(r"\p{M}", "").str.to_lowercase()
