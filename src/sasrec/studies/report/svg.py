"""Draw without pyplot and its global state; turn a figure into a small SVG that a page can contain."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from sasrec.errors import ConfigError
from sasrec.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, RULE = "#222222", "#5f6368", "#d9dce0"
_DPI = 160
_THEME: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "axes.titlecolor": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "svg.fonttype": "none",
    "svg.hashsalt": "sasrec",
    "figure.dpi": 100,
}
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE = re.compile(r"#([\w-]+)")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in our style within this block.

    Raises: ConfigError if matplotlib is not installed. Remedy: pip install "sasrec[reports]".
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            'plots and reports need matplotlib and Jinja2. Install them: pip install "sasrec[reports]"'
        ) from None
    with matplotlib.rc_context(_THEME), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its font lacks; browsers have them
        yield


def new_figure(width: float = 4.9, height: float = 3.3, columns: int = 1) -> tuple[Figure, list[Any]]:
    """Return an empty figure of this size in inches, and its axes, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06, wspace=0.06)  # type: ignore[union-attr, call-arg]
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the ending of the name."""
    content = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    figure.savefig(content, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, content.getvalue())


def inline_svg(figure: Figure, label: str) -> str:
    """Return a figure as an SVG element that a page can contain, with `label` for screen readers.

    Styles become attributes, so that a page may forbid styles of elements. Groups with an id "cell-N" get this as
    their class, so that a page can show and hide them; an id may occur only once in a page.
    """
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(content.getvalue())
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in [each for each in root.iter() if _name(each.tag) in ("metadata", "style")]:
        parents[element].remove(element)
    used = {
        name
        for element in root.iter()
        for key, value in element.attrib.items()
        if key != "id"
        for name in _REFERENCE.findall(value)
    }
    unique = re.sub(r"\W+", "-", label).lower()
    for element in root.iter():
        _simplify(element, used, unique)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": label, "font-family": "inherit"}
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: ElementTree.Element, used: set[str], unique: str) -> None:
    """Remove what a page does not need, and make ids unique."""
    element.tag = _name(element.tag)
    attributes = {_name(key): value for key, value in element.attrib.items()}
    for rule in attributes.pop("style", "").split(";"):
        key, _, value = rule.partition(":")
        if key.strip() == "font":  # "bold 10.5px 'DejaVu Sans', …"; the family is that of the page
            before, _, _ = value.partition("'")
            attributes["font-size"] = before.split()[-1]
            attributes |= {"font-weight": "bold"} if "bold" in before or "700" in before else {}
        elif key.strip():
            attributes[key.strip()] = value.strip()
    name = attributes.pop("id", "")
    if name.startswith("cell-"):
        attributes["class"] = name
    elif name in used:
        attributes["id"] = f"{unique}-{name}"
    for key, value in attributes.items():
        if key == "href" or "url(#" in value:
            attributes[key] = _REFERENCE.sub(rf"#{unique}-\1", value)
        elif key in ("d", "transform", "x", "y"):
            attributes[key] = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    element.attrib.clear()
    element.attrib.update(attributes)
    element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))


def _name(tag: str) -> str:
    return tag.rpartition("}")[2]
