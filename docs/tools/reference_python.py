"""The parts of docs/reference/python.md, from the public names of the package."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_args

from reference_text import code, described, field_texts, first_sentence, linked, public_members, table

import sasrec
from sasrec.config.choices import Candidates, SplitName
from sasrec.config.settings import PARTS
from sasrec.data.items import Items
from sasrec.evaluation.metrics import Metrics
from sasrec.evaluation.significance import Difference
from sasrec.studies.scored import Against, Comparison, Side

_GROUPS = {
    "data": ["prepare", "open_dataset", "Dataset"],
    "training": ["train", "resume", "final_fit", "refresh", "RunConfig"],
    "measuring": ["evaluate", "compare", "blend"],
    "lists": ["load", "Recommender", "Rules", "export", "export_onnx"],
    "errors": ["SasrecError", "SasrecWarning"],
}
_OTHERS: list[type] = [Metrics, Comparison, Side, Against, Difference, Items]
_MADE = {
    "Dataset": "`prepare` and `open_dataset` return a `Dataset`.",
    "Recommender": "`train`, `resume`, `final_fit`, `refresh` and `load` return a `Recommender`.",
    "Items": "The `catalogue` of a `Dataset` and the `items` of a `Recommender` are objects of this class.",
}
_CALLED = {"Rules", "RunConfig"}  # classes that people make by a call
_ALIASES = {"Candidates": Candidates, "SplitName": SplitName}
_PARTS = {part.__name__: first_sentence(str(part.__doc__)) for part in PARTS}  # of RunConfig
_LINE = 100


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    named = [name for names in _GROUPS.values() for name in names]
    assert sorted(named) == sorted(sasrec.__all__), "give each public name a group in _GROUPS"
    found = {"python names": _overview()}
    for group, names in _GROUPS.items():
        found[f"python {group}"] = "\n".join(_entry(name, getattr(sasrec, name)) for name in names)
    return found | {"python types": "\n".join(_class(each.__name__, each) for each in _OTHERS)}


def _overview() -> str:
    rows = []
    for group, names in _GROUPS.items():
        for name in names:
            doc = first_sentence(str(inspect.getdoc(getattr(sasrec, name))))
            rows.append([group, f"[{code(name)}](#{name.lower()})", linked(doc)])
    return table(["for", "name", "what it does, or is"], rows)


def _entry(name: str, found: Any) -> str:
    if inspect.isclass(found):
        return _class(name, found)
    return f"### {name}\n\n{_signature(f'sasrec.{name}', found)}\n{described(str(found.__doc__))}"


def _class(name: str, kind: type) -> str:
    parts = [f"### {name}\n"]
    if name in _CALLED:
        parts.append(_signature(f"sasrec.{name}", kind).replace(" -> None", ""))
    parts += [described(str(kind.__doc__)), *([f"{_MADE[name]}\n"] if name in _MADE else [])]
    members = [] if kind is Items else list(public_members(kind))  # its methods serve the package
    if rows := _attributes(kind, members):
        parts.append(table(["attribute", "type", "meaning"], rows))
    for member, function in members:
        plain = getattr(function, "__func__", function)
        if inspect.isfunction(plain):
            signature = _signature(f"{name}.{member}", plain, method=plain is function)
            parts.append(f"#### {name}.{member}\n\n{signature}\n{described(str(plain.__doc__))}")
    return "\n".join(parts)


def _attributes(kind: type, members: list[tuple[str, Any]]) -> list[list[str]]:
    """Return a row for each public field and property of a class."""
    texts = field_texts(kind)
    types = {each.name: each.type for each in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    types = types or {name: kind.__annotations__[name] for name in texts}
    rows = [
        [code(name), code(_type(type_)), linked(texts[name] or _PARTS.get(type_, "")).replace(" (see above)", "")]
        for name, type_ in types.items()
        if not name.startswith("_")
    ]
    for name, member in members:
        if getter := getattr(member, "fget", None) or getattr(member, "func", None):
            type_ = getter.__annotations__["return"]
            rows.append([code(name), code(_type(type_)), linked(" ".join(str(inspect.getdoc(member)).split()))])
    return rows


def _signature(name: str, function: Any, method: bool = False) -> str:
    """Return a block with the name, the arguments with types and defaults, and the type of what is returned."""
    found = inspect.signature(function)
    arguments, starred = [], False
    for each in list(found.parameters.values())[method:]:
        if each.kind is each.KEYWORD_ONLY and not starred:
            arguments.append("*")
        starred = starred or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        star = {each.VAR_KEYWORD: "**", each.VAR_POSITIONAL: "*"}.get(each.kind, "")
        default = "" if each.default is each.empty else f" = {_shown(each.default)}"
        arguments.append(f"{star}{each.name}: {_type(each.annotation)}{default}")
    returned = f" -> {found.return_annotation}"
    line = f"{name}({', '.join(arguments)}){returned}"
    if len(line) > _LINE:
        line = "\n".join([f"{name}(", *(f"    {each}," for each in arguments), f"){returned}"])
    return f"```py\n{line}\n```\n"


def _type(annotation: str) -> str:
    """Return a type without the names that stand for a choice of words."""
    alias = _ALIASES.get(annotation)
    return annotation if alias is None else f"Literal{list(get_args(alias))}".replace("'", '"')


def _shown(value: Any) -> str:
    return "…" if "factory" in repr(value) else repr(value).replace("'", '"')
