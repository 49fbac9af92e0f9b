"""Draw the pictures of docs/explanation/models.md.

    python docs/tools/pictures.py [FOLDER]     # default: docs/pictures

The script writes batch.svg, sasrec-block.svg, tisasrec-attention.svg and mhc-streams.svg. It needs matplotlib. The
same versions of matplotlib and sasrec write the same bytes. Letters are drawn as paths, so that a picture looks
the same everywhere. Each picture has a white background, so that it can be read on a dark page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from sasrec.batches.ticks import personal_times
from sasrec.config.settings import ModelConfig
from sasrec.models.residual import MHCResidual
from sasrec.models.tisasrec import intervals

INK, SOFT = "#1f2933", "#7b8794"
BLUE, ORANGE, GREEN, GREY, ROSE, WHITE = "#d6e8f7", "#fde3c8", "#d5eedd", "#e8ebee", "#f6d9e2", "#ffffff"
STREAMS = ("#0072b2", "#d55e00", "#009e73", "#a05195")
UNIT = 0.1  # inches of one unit of the drawings
TEXT, SMALL, TITLE = 9.0, 7.5, 10.5


class Picture:
    """A drawing of boxes, arrows and grids in units of a tenth of an inch; y grows upwards."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.title = title
        self.figure = plt.figure(figsize=(width * UNIT, height * UNIT))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")
        self.figure.patch.set_alpha(0)
        self._rounded(0.2, 0.2, width - 0.4, height - 0.4, WHITE, "#d5dae0", 1.6)

    def _rounded(self, x: float, y: float, w: float, h: float, fill: str, edge: str, radius: float) -> None:
        style = f"round,pad=0,rounding_size={radius}"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=fill, ec=edge, lw=0.9))

    def text(self, x: float, y: float, words: str, size: float = TEXT, **how: Any) -> None:
        """Write words, by default centred on (x, y)."""
        look: dict[str, Any] = {"ha": "center", "va": "center", "size": size, "color": INK}
        self.axes.text(x, y, words, **(look | how))

    def left(self, x: float, y: float, words: str, size: float = SMALL, **how: Any) -> None:
        """Write words that begin at x."""
        self.text(x, y, words, size, **({"ha": "left"} | how))

    def box(
        self, x: float, y: float, w: float, h: float, words: str, fill: str = WHITE, size: float = TEXT
    ) -> None:
        """Draw a box with its lower left corner at (x, y)."""
        self._rounded(x, y, w, h, fill, INK, 0.7)
        self.text(x + w / 2, y + h / 2, words, size)

    def frame(self, x: float, y: float, w: float, h: float) -> None:
        """Draw a dashed frame around parts that belong together."""
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y), w, h, boxstyle="round,pad=0,rounding_size=1", fc="none", ec=SOFT, lw=0.8, ls=(0, (4, 3))
            )
        )

    def arrow(self, *points: tuple[float, float], colour: str = INK, lw: float = 1.0, head: bool = True) -> None:
        """Draw a line through points, with a head at its end."""
        xs, ys = zip(*points, strict=True)
        if len(points) > 2:
            self.axes.plot(xs[:-1], ys[:-1], color=colour, lw=lw, solid_joinstyle="round", solid_capstyle="round")
        style = "-|>,head_width=0.22,head_length=0.45" if head else "-"
        self.axes.annotate(
            "",
            points[-1],
            points[-2],
            arrowprops={"arrowstyle": style, "color": colour, "lw": lw, "shrinkA": 0, "shrinkB": 0},
        )

    def sum(self, x: float, y: float, sign: str = "+") -> None:
        """Draw a circle with a sign, in which arrows meet."""
        self.axes.add_patch(Circle((x, y), 1.1, fc=WHITE, ec=INK, lw=0.9, zorder=3))  # above the lines
        self.text(x, y, sign, TEXT, zorder=4)

    def grid(
        self,
        x: float,
        y: float,
        rows: list[list[str]],
        cell: tuple[float, float] = (2.6, 2.2),
        fills: list[list[str]] | None = None,
        size: float = TEXT,
    ) -> None:
        """Draw a table of cells with its upper left corner at (x, y); `fills` has the colour of each cell."""
        w, h = cell
        for i, row in enumerate(rows):
            for j, words in enumerate(row):
                fill = fills[i][j] if fills else WHITE
                self.axes.add_patch(Rectangle((x + j * w, y - (i + 1) * h), w, h, fc=fill, ec=INK, lw=0.6))
                self.text(x + (j + 0.5) * w, y - (i + 0.5) * h, words, size)

    def save(self, path: Path) -> None:
        """Write the picture."""
        self.figure.savefig(path, metadata={"Date": None, "Title": self.title, "Creator": None})
        plt.close(self.figure)


def blank(rows: int, columns: int) -> list[list[str]]:
    """Cells without words."""
    return [[""] * columns for _ in range(rows)]


def batch() -> Picture:
    """From lists of events to a loss, with the shapes."""
    p = Picture(92, 61, "The shapes of a training batch, from lists of events to a loss")
    small = (1.5, 1.5)
    p.left(2, 58.3, "1  Lists become a batch", TITLE, weight="bold")
    p.left(2, 55.4, "events of two users, oldest first")
    for name, y, items in (("A", 52.4, "52"), ("B", 48.6, "7394")):
        p.text(3, y - 1.1, name)
        p.grid(5, y, [list(items)], fills=[[BLUE] * len(items)])
    p.arrow((17.5, 49.5), (23.5, 49.5))
    p.left(25, 55.4, "inputs: all events except the last")
    p.grid(25, 52.4, [list("500"), list("739")], fills=[[BLUE, GREY, GREY], [BLUE] * 3])
    p.left(25, 46.2, "items_BL  (B = 2, L = 3)", weight="bold")
    p.left(25, 44.4, "0 is padding, on the right")
    p.left(48, 55.4, "positions, counted from the end")
    p.grid(48, 52.4, [list("300"), list("123")], fills=[[BLUE, GREY, GREY], [BLUE] * 3])
    p.left(48, 46.2, "positions_BL  (B, L)", weight="bold")
    p.left(48, 44.4, "the last item has maxlen = 3")
    p.left(71, 55.4, "targets: the next events")
    p.grid(71, 52.4, [list("2394")], fills=[[ORANGE] * 4])
    p.left(71, 48.4, "targets_P  (P = 4)", weight="bold")
    p.left(71, 46.2, "one for each real position,\nrow by row", va="top")

    p.left(2, 39.8, "2  The encoder makes a state of each position", TITLE, weight="bold")
    p.grid(3, 36.6, blank(10, 4), (1.5, 1.3), [[GREY] * 4] + [[GREEN] * 4] * 9)
    p.left(9.8, 36.0, "row 0: padding", SMALL, color=SOFT)
    p.left(3, 21.8, "item table  E_VD", weight="bold")
    p.left(3, 20.0, "V rows: items and padding")
    p.text(15.6, 32.3, "look up items_BL,\nadd positions", SMALL)
    p.arrow((9.8, 29.6), (22.5, 29.6))
    for x in (24, 52):
        for shift, fills in ((1.6, [[BLUE] * 4, [GREY] * 4, [GREY] * 4]), (0, [[BLUE] * 4] * 3)):
            p.grid(x + shift, 31 + shift, blank(3, 4), small, fills)
    p.left(24, 23.6, "vectors_BLD", weight="bold")
    p.left(24, 21.8, "B sheets of L × D")
    p.arrow((33, 29.6), (37.4, 29.6))
    p.box(37.6, 26.8, 9.6, 5.6, "blocks", ORANGE)
    p.arrow((47.4, 29.6), (51.4, 29.6))
    p.left(52, 23.6, "states_BLD", weight="bold")
    p.left(52, 21.8, "the same shape")
    p.text(68, 32.3, "keep the P\nreal positions", SMALL)
    p.arrow((61, 29.6), (75.4, 29.6))
    p.grid(77, 32.6, blank(4, 4), small, [[BLUE] * 4] * 4)
    p.left(77, 23.6, "states_PD", weight="bold")
    p.left(77, 21.8, "P × D")

    p.left(2, 15.8, "3  Scores, and one number", TITLE, weight="bold")
    p.grid(3, 12.6, blank(4, 4), small, [[BLUE] * 4] * 4)
    p.left(3, 4.6, "states_PD", weight="bold")
    p.text(11, 9.6, "×", 13)
    p.grid(13, 12.6, blank(4, 10), small, [[GREY] + [GREEN] * 9] * 4)
    p.left(13, 4.6, "E transposed: D × V", weight="bold")
    p.text(30, 9.6, "=", 13)
    fills = [[GREY] + [WHITE] * 9 for _ in range(4)]
    for row, target in enumerate((2, 3, 9, 4)):
        fills[row][target] = ORANGE
    p.grid(32, 12.6, blank(4, 10), small, fills)
    p.left(32, 4.6, "scores_PV: P × V", weight="bold")
    p.left(32, 2.8, "orange: the target of each row")
    p.arrow((47.6, 9.6), (53, 9.6))
    p.box(53.3, 6.2, 17.4, 6.8, "cross-entropy:\n−log softmax(target)", ROSE)
    p.arrow((71, 9.6), (76.5, 9.6))
    p.box(77, 7.4, 11, 4.4, "loss", WHITE, TITLE)
    p.text(82.5, 4.6, "mean over P", SMALL)
    return p


def sasrec_block() -> Picture:
    """The stack of SASRec, one block in pre-norm, and the causal mask."""
    p = Picture(92, 62, "SASRec: the stack, one block, and the causal mask")
    mono: dict[str, Any] = {"size": 7, "family": "monospace"}
    p.left(2, 59.2, "The stack", TITLE, weight="bold")
    x, w = 3, 20
    p.text(x + w / 2, 3.4, "items_BL, positions_BL", SMALL)
    p.arrow((x + w / 2, 4.8), (x + w / 2, 7.4))
    p.box(x, 7.6, w, 6.4, "√D · E[item]\n+ P[position]", GREEN)
    p.arrow((x + w / 2, 14.2), (x + w / 2, 17.0))
    p.box(x, 17.2, w, 3.6, "dropout", GREY)
    p.arrow((x + w / 2, 21.0), (x + w / 2, 23.8))
    p.box(x, 24.0, w, 4.6, "block 1", ORANGE)
    p.arrow((x + w / 2, 28.8), (x + w / 2, 31.6))
    p.box(x, 31.8, w, 4.6, "block 2", ORANGE)
    p.arrow((x + w / 2, 36.6), (x + w / 2, 39.4))
    p.box(x, 39.6, w, 3.6, "LayerNorm", GREY)
    p.arrow((x + w / 2, 43.4), (x + w / 2, 46.2))
    p.text(x + w / 2 + 5.6, 44.8, "state s", SMALL)
    p.box(x, 46.4, w, 6.4, "score(item)\n= s · E[item]", GREEN)
    p.text(x + w / 2, 55.0, "one score for each item", SMALL)

    p.left(31, 59.2, "One block (norm pre)", TITLE, weight="bold")
    p.frame(31, 6.2, 30, 50.2)
    mid, bw = 43, 17
    left = mid - bw / 2
    p.text(mid, 3.4, "x", TEXT)
    p.arrow((mid, 4.6), (mid, 10.6))
    for base, name, fill in (
        (10.8, "causal attention,\nH heads", ORANGE),
        (33.4, "feed-forward\nD → W → D, ReLU", ORANGE),
    ):
        p.box(left, base, bw, 3.6, "LayerNorm", GREY)
        p.arrow((mid, base + 3.8), (mid, base + 6.0))
        p.box(left, base + 6.2, bw, 6.2, name, fill)
        p.arrow((mid, base + 12.6), (mid, base + 15.2))
        p.sum(mid, base + 16.4)
        p.arrow((mid, base - 2.3), (56, base - 2.3), (56, base + 16.4), (mid + 1.3, base + 16.4))
        p.text(58.4, base + 7.0, "x", TEXT)
    p.arrow((mid, 28.5), (mid, 33.2))
    p.arrow((mid, 51.1), (mid, 57.2))

    p.left(66, 59.2, "The causal mask", TITLE, weight="bold")
    p.left(66, 55.6, "Position i attends to j ≤ i.")
    cells = (4.0, 3.4)
    fills = [[BLUE if j <= i and i < 3 else GREY for j in range(4)] for i in range(4)]
    for j, name in enumerate("739"):
        p.text(71 + (j + 0.5) * 4, 51.4, name, SMALL)
    p.text(71 + 3.5 * 4, 51.4, "pad", SMALL, color=SOFT)
    for i, name in enumerate(("7", "3", "9", "pad")):
        p.text(68.6, 50.2 - (i + 0.5) * 3.4, name, SMALL, color=INK if i < 3 else SOFT)
    words = [["✓" if j <= i and i < 3 else "" for j in range(4)] for i in range(4)]
    p.grid(71, 50.2, words, cells, fills)
    p.left(
        66,
        34.4,
        "Padding stands on the right. A real\nposition never sees it, so a key mask\nis not needed.",
        va="top",
    )

    p.left(66, 26.0, "Placement of the norm", TITLE, weight="bold")
    p.left(
        66, 23.4, "pre       x + F(LN x)\npost      LN(x + F x)\noriginal  q + F(q), q = LN x", va="top", **mono
    )
    p.left(66, 15.2, "Residual (norm pre)", TITLE, weight="bold")
    p.left(
        66,
        12.6,
        "plain     x + F(LN x)\ngated     x + gate(x) * F(LN x)\nmHC       S streams instead of x",
        va="top",
        **mono,
    )
    p.left(66, 4.4, "F is attention or feed-forward.")
    return p


def tisasrec_attention() -> Picture:
    """Personal intervals, and the sums in which they enter attention."""
    p = Picture(92, 58, "TiSASRec: personal intervals, and time-aware attention")
    hours = np.array([0, 1, 3, 10])
    ticks = personal_times(hours * 3_600_000_000, np.array([0, 4]), np.array([4]))
    clipped = intervals(torch.as_tensor(ticks)[None], 8)[0].tolist()
    p.left(2, 55.2, "1  From times to intervals", TITLE, weight="bold")
    p.left(2, 52.0, "hours of four events of one user; the smallest gap is 1 hour, so 1 tick is 1 hour")
    start, scale = 5, 3.2
    p.arrow((3, 46.4), (41.5, 46.4), colour=SOFT)
    for hour, tick in zip(hours, ticks.tolist(), strict=True):
        x = start + scale * hour
        p.axes.add_patch(Circle((x, 46.4), 0.55, fc=STREAMS[0], ec=STREAMS[0], zorder=3))
        p.text(x, 48.6, f"{hour} h", SMALL)
        p.text(x, 44.2, f"{tick}", SMALL, weight="bold")
    p.left(2, 41.4, "bold: the ticks t′")
    p.left(50, 49.4, "r_ij = min(|t′_i − t′_j|, k),  here k = 8")
    fills = [[ORANGE if j <= i else GREY for j in range(4)] for i in range(4)]
    words = [[str(clipped[i][j]) if j <= i else "" for j in range(4)] for i in range(4)]
    p.grid(56, 46.4, words, (4, 2.6), fills)
    for i in range(4):
        p.text(58 + 4 * i, 47.4, f"j = {i + 1}", SMALL, color=SOFT)
        p.text(53.4, 45.1 - 2.6 * i, f"i = {i + 1}", SMALL, color=SOFT)
    p.left(74, 43.6, "10 and 9 are cut to 8", va="top")
    p.left(74, 41.4, "grey: the future,\nhidden by the mask", va="top")

    p.left(2, 32.6, "2  Attention of event i to event j", TITLE, weight="bold")
    p.box(3, 21.4, 10, 5, "query  q_i", BLUE)
    columns = (
        (19, "k_j", "item", BLUE),
        (30, "P_K[ j ]", "position", GREEN),
        (41, "E_K[ r_ij ]", "interval", ORANGE),
    )
    for x, name, kind, fill in columns:
        p.box(x, 21.4, 9, 5, name, fill)
        p.text(x + 4.5, 28.0, kind, SMALL, color=SOFT)
    p.text(29, 23.9, "+")
    p.text(40, 23.9, "+")
    p.text(16, 23.9, "·", 14, weight="bold")
    p.text(17.9, 23.9, "(", 14)
    p.text(51.1, 23.9, ")", 14)
    p.arrow((52.6, 23.9), (57.6, 23.9))
    p.box(57.9, 21.4, 11, 5, "÷ √(D/H)", GREY)
    p.arrow((69.2, 23.9), (73.4, 23.9))
    p.box(73.7, 21.4, 15, 5, "softmax over j", ROSE)
    p.text(81.2, 28.0, "weights a_ij", SMALL, color=SOFT)
    p.arrow((81.2, 21.2), (81.2, 15.6), (10, 15.6), (10, 12.4))
    p.box(3, 7.0, 14, 5, "Σ_j  a_ij ×", ROSE)
    for x, name, fill in ((21, "v_j", BLUE), (32, "P_V[ j ]", GREEN), (43, "E_V[ r_ij ]", ORANGE)):
        p.box(x, 7.0, 9, 5, name, fill)
    p.text(31, 9.5, "+")
    p.text(42, 9.5, "+")
    p.text(19.6, 9.5, "(", 14)
    p.text(53.2, 9.5, ")", 14)
    p.arrow((54.8, 9.5), (60.0, 9.5))
    p.box(60.3, 7.0, 14, 5, "output  z_i", BLUE)
    p.left(3, 3.6, "The tables P_K, P_V, E_K and E_V are shared by all blocks. E_K and E_V have k + 1 rows.")
    return p


def mhc_streams() -> Picture:
    """One sub-layer with four streams, and the maps at the start of training."""
    p = Picture(92, 60, "mHC: four streams around one sub-layer, and its three maps at the start")
    p.left(2, 57.2, "One sub-layer F with S = 4 streams", TITLE, weight="bold")
    xs = (6, 11, 16, 21)
    for x, colour in zip(xs, STREAMS, strict=True):
        p.arrow((x, 3.4), (x, 28.4), colour=colour, lw=2.0)
        p.arrow((x, 35.4), (x, 46.6), colour=colour, lw=2.0, head=False)
        p.arrow((x, 46.6), (x, 54.4), colour=colour, lw=2.0)
        p.sum(x, 44.4)
    p.left(23.2, 4.2, "streams X  (B, L, S, D)")
    p.left(23.2, 53.4, "streams X′")
    p.box(3, 28.6, 21, 6.6, "H_res mixes (S × S weights)", ORANGE)
    # Reading: all streams into one input of F.
    for x in xs:
        p.axes.add_patch(Circle((x, 10.6), 0.5, fc=INK, ec=INK, zorder=3))
    p.arrow((xs[0], 10.6), (32.6, 10.6))
    p.box(33, 8.0, 14, 5.2, "H_pre reads\n(S weights)", GREEN)
    p.arrow((40, 13.4), (40, 16.6))
    p.left(41, 15.0, "(B, L, D)")
    p.box(33, 16.8, 14, 3.6, "LayerNorm", GREY)
    p.arrow((40, 20.6), (40, 23.4))
    p.box(33, 23.6, 14, 6.6, "F: attention or\nfeed-forward", ORANGE)
    p.arrow((40, 30.4), (40, 37.8))
    p.left(41, 34.0, "(B, L, D)")
    p.box(33, 38.0, 14, 5.2, "H_post writes\n(S weights)", GREEN)
    p.arrow((32.8, 40.6), (29, 40.6), (29, 44.4), (22.3, 44.4))
    for here, there in ((xs[3] - 1.1, xs[2] + 1.3), (xs[2] - 1.1, xs[1] + 1.3), (xs[1] - 1.1, xs[0] + 1.3)):
        p.arrow((here, 44.4), (there, 44.4))

    p.left(53, 57.2, "The maps at the start", TITLE, weight="bold")
    p.left(53, 53.8, "They depend on X: each position has its own.")
    with torch.no_grad():
        connection = MHCResidual(ModelConfig(mhc=True), 0)
        pre, post, res = (each[0, 0] for each in connection.maps(torch.zeros(1, 1, 4, 64)))
    cell = (4.6, 2.8)
    shade = plt.get_cmap("Greens")

    def fills(values: list[list[float]]) -> list[list[str]]:
        return [[mpl.colors.to_hex(shade(0.05 + 0.5 * min(value, 1))) for value in row] for row in values]

    for y, name, of in ((49.6, "H_pre", pre), (42.2, "H_post", post)):
        values = [of.tolist()]
        p.left(53, y - 1.4, name, TEXT)
        p.grid(61, y, [[f"{value:.2f}" for value in values[0]]], cell, fills(values), SMALL)
    p.left(61, 45.4, "mostly stream 1; the next sub-layer: stream 2")
    p.left(61, 38.0, "writes F(…) to each stream")
    values = res.tolist()
    p.left(53, 29.6, "H_res", TEXT)
    p.grid(61, 35.2, [[f"{value:.3f}" for value in row] for row in values], cell, fills(values), SMALL)
    p.left(61, 22.6, "nearly the identity; rows sum to 1, columns nearly")
    p.left(53, 17.2, "X′ = H_res X + H_postᵀ F(LN(H_pre X))", TEXT, weight="bold")
    p.left(
        53,
        13.4,
        "First sub-layer: the streams are S copies of the input.\nAt the end, the final norm gets their mean.",
        va="top",
    )
    return p


def main() -> None:
    """Write the pictures."""
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "sasrec", "font.family": "DejaVu Sans"})
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "pictures"
    for name, draw in (
        ("batch", batch),
        ("sasrec-block", sasrec_block),
        ("tisasrec-attention", tisasrec_attention),
        ("mhc-streams", mhc_streams),
    ):
        draw().save(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
