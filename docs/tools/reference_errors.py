"""The tables of docs/reference/errors.md, and a check that its messages are those of the code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import reference_http
from reference_text import PACKAGE, code, described, first_sentence, linked, public_members, table

import sasrec
from sasrec import errors
from sasrec.errors import SasrecError, SasrecWarning

_MESSAGE = re.compile(r"^\| `(.+?)` \|", re.MULTILINE)


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    return {"errors": _classes(), "narrower errors": _narrower(), "statuses": reference_http.statuses()}


def unknown_messages(page: str) -> list[str]:
    """Return the messages of the page, in the first column of its tables, that the code does not have.

    … stands for a value. Options are compared without their marks, because the command line adds these.
    """
    texts = [_plain(text) for text in _texts()]
    return [
        message
        for message in _MESSAGE.findall(page.partition("## Messages")[2])
        if not all(any(part in text for text in texts) for part in _parts(message))
    ]


def _parts(message: str) -> list[str]:
    return [part for part in re.split(r"\s*…\s*|\.\s+|\.$", _plain(message)) if len(part) > 3]


def _plain(text: str) -> str:
    return text.replace("--", "").replace("`", "").replace("_", " ")


def _classes() -> str:
    raised = _raised_by()
    rows = []
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, SasrecError | SasrecWarning):
            doc = " ".join(part.replace("\n", " ") for part in described(str(kind.__doc__)).split("\n\n"))
            rows.append([code(name), linked(doc), ", ".join(map(code, raised.get(name, ())))])
    return table(["class", "meaning and remedy", "named by"], rows)


def _raised_by() -> dict[str, list[str]]:
    """Return, for each error, the public functions and classes whose docstrings name it."""
    found: dict[str, list[str]] = {}
    for name in sasrec.__all__:
        public = getattr(sasrec, name)
        methods = public_members(public) if inspect.isclass(public) else ()
        docs = [str(inspect.getdoc(each)) for each in (public, *(member for _, member in methods))]
        for error in sorted(set(re.findall(r"\b[A-Z]\w+Error\b", "\n".join(docs)))):
            found.setdefault(error, []).append(name)
    return found


def _narrower() -> str:
    """Return a table of the classes in the code that derive from those of sasrec.errors."""
    wide = set(vars(errors))
    found: dict[str, tuple[str, str, str]] = {}
    nodes = [
        (path.relative_to(PACKAGE), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and path.name != "errors.py"
    ]
    for path, node in nodes:
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in wide:
                found[node.name] = (base.id, first_sentence(str(ast.get_docstring(node))), str(path))
    rows = [
        [code(name), code(base), linked(text), f"[{path}](../../src/sasrec/{path})"]
        for name, (base, text, path) in found.items()
    ]
    return table(["class", "is a", "meaning", "module"], rows)


def _texts() -> Iterator[str]:
    """Yield every text of the code, with … for the values in it."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
