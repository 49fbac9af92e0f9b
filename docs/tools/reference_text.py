"""Make Markdown from docstrings: paragraphs, lists, tables, links to the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sasrec
from sasrec.config.settings import PARTS

PACKAGE = Path(sasrec.__file__).parent
WIDTH = 120
_ERROR = r"(?:[A-Z]\w+Error|KeyboardInterrupt)"
_ARGUMENTS = re.compile(r"(?:^|(?<=[.;)] ))(?=`\*{0,2}\w+`(?:, `\*{0,2}\w+`)*(?: \([^)]*\))?: )")
_RAISED = re.compile(rf"(?<=[.] )(?={_ERROR}\b|The errors of )")
_SETTINGS = "|".join(each.name for part in PARTS for each in dataclasses.fields(part) if "_" in each.name)
_CODE = re.compile(rf"(?<![`\w./-])({_ERROR}|(?:{_SETTINGS})(?:=\w+)?)(?![`\w])")
_LINK = re.compile(r"(?<![\w/`[])(?<!\]\()(?:docs/(?P<page>[\w/-]+\.md)|(?P<code>[a-z_]+/[a-z_/]+\.py))(?![\w`])")


def code(text: object) -> str:
    """Return text as Markdown code."""
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[" ".join(each.split()).replace("|", "\\|") for each in line] for line in lines]
    return (
        "".join(f"| {' | '.join(line)} |\n" for line in cells).replace("| --- ", "|---").replace("--- |", "---|")
    )


def linked(text: str) -> str:
    """Return text in which names of pages and modules are links, and names of errors and settings are code."""

    def link(found: re.Match[str]) -> str:
        if found["page"]:
            return f"[docs/{found['page']}](../{found['page']})"
        exists = (PACKAGE / found["code"]).exists()
        return f"[{found['code']}](../../src/sasrec/{found['code']})" if exists else found[0]

    # The parts between backticks are code already.
    plain = [
        _CODE.sub(r"`\1`", _LINK.sub(link, part)) if at % 2 == 0 else part
        for at, part in enumerate(text.split("`"))
    ]
    return "`".join(plain)


def wrapped(text: str, first: str = "", rest: str = "") -> str:
    """Return a paragraph that wraps at the width of the pages; `first` and `rest` begin its lines."""
    lines = textwrap.wrap(
        linked(" ".join(text.split())),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) + "\n"


def described(doc: str) -> str:
    """Return a docstring as Markdown: paragraphs, a list of arguments, and a list of errors."""
    parts = []
    for block in inspect.cleandoc(doc).split("\n\n"):
        if block.startswith("    "):
            parts.append(f"```text\n{textwrap.dedent(block)}\n```\n")
            continue
        text, _, errors = " ".join(block.split()).partition("Raises:")
        prose, *arguments = _ARGUMENTS.split(text.strip()) if text.strip() else [""]
        parts += [wrapped(prose)] if prose.strip() else []
        parts += [_listed(arguments)] if arguments else []
        parts += [f"Raises:\n\n{_listed(_RAISED.split(errors.strip()))}"] if errors else []
    # Two lists in a row are one.
    return re.sub(r"(?m)(^(?:- |  ).*\n)\n(?=- )", r"\1", "\n".join(parts))


def _listed(texts: Iterable[str]) -> str:
    return "".join(wrapped(each, "- ", "  ") for each in texts)


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    return re.split(r"(?<=[.])(?=\s|$)", " ".join(inspect.cleandoc(doc).split()), maxsplit=1)[0]


def field_texts(kind: type) -> dict[str, str]:
    """Return the texts below the fields of a class in its source, by field."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        found[field.target.id] = " ".join(text.value.value.split()) if is_text else ""
    return found


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the name and the object of each method and property of a class that is public and has a docstring."""
    for name, member in vars(kind).items():
        function = getattr(member, "func", getattr(member, "fget", getattr(member, "__func__", member)))
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, member
