"""The tables of docs/reference/http.md, from the OpenAPI document that the server makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reference_text import code, linked, table, wrapped

from sasrec import __version__
from sasrec.serving.figures import Figures
from sasrec.serving.openapi import STATUSES, openapi

Schema = Mapping[str, Any]
_ID_CHARACTERS = 10_000  # the page says this once
_DOCUMENT = openapi(__version__)
_SCHEMAS: dict[str, Schema] = _DOCUMENT["components"]["schemas"]


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    routes = {
        f"route {method.upper()} {path}": _route(operation)
        for path, operations in _DOCUMENT["paths"].items()
        for method, operation in operations.items()
    }
    overview = table(
        ["request", "scope", "what it does"],
        [
            [f"[{code(f'{method.upper()} {path}')}](#{_anchor(method, path)})", _scope(each), each["summary"]]
            for path, operations in _DOCUMENT["paths"].items()
            for method, each in operations.items()
        ],
    )
    return {"routes": overview, **routes, "types": _types(), "headers": _headers(), "figures": _figures()}


def statuses() -> str:
    """Return the table of the statuses of the server, for the page on errors."""
    return table(["status", "meaning"], [[code(number), text] for number, text in STATUSES.items()])


def _anchor(method: str, path: str) -> str:
    """Return the anchor that a code host gives to the heading of a route."""
    return "".join(letter for letter in f"{method} {path}".lower() if letter.isalnum() or letter in " -_").replace(
        " ", "-"
    )


def _scope(operation: Schema) -> str:
    return code(operation["description"].split()[-1].rstrip(".")) if "security" in operation else "none"


def _access(operation: Schema) -> str:
    if "security" not in operation:
        return "Requests to this route need no token."
    return (
        "If the server was started with `--tokens`, requests to this route need a token with the scope "
        f"{_scope(operation)}."
    )


def _introduced(begin: str, name: str, what: str) -> str:
    """Return a paragraph that describes an object and announces the table of its fields."""
    return wrapped(f"{begin} {_inside(_SCHEMAS[name]['description'])} The table lists {what}:")


def _inside(sentence: str) -> str:
    """Return a sentence for the end of another one: its first letter is small."""
    return sentence[0].lower() + sentence[1:]


def _route(operation: Schema) -> str:
    numbers = [number for number in operation["responses"] if number != "200"]
    known = f"200 (success), {', '.join(numbers)} ([meanings](errors.md#statuses-of-the-server))."
    parts = [wrapped(operation["summary"])]
    parts.append(f"- {_access(operation)}\n{wrapped(f'Possible statuses of the answer: {known}', '- ', '  ')}")
    if operation["parameters"]:
        rows = [
            [code(each["name"]), each["in"], _type(each["schema"]), _default(each), linked(each["description"])]
            for each in operation["parameters"]
        ]
        parts += ["Parameters:\n", table(["name", "in", "type", "default", "meaning"], rows)]
    if "requestBody" in operation:
        name = _name(operation["requestBody"]["content"]["application/json"]["schema"])
        parts += [_introduced("The body is", name, "the fields of the body"), _fields(name, given=True)]
    ((kind, content),) = operation["responses"]["200"]["content"].items()
    answers = content["schema"].get("oneOf", [content["schema"]])
    if "$ref" not in answers[0]:
        text = f"The answer contains {_inside(answers[0]['description'])}"
        parts.append(wrapped(f"{text} The Content-Type of the answer is {code(kind)}."))
        return "\n".join(parts)
    for place, answer in enumerate(answers):
        begin = "The answer to `requests` contains" if place else "The answer contains"
        parts += [_introduced(begin, _name(answer), "the fields of the answer"), _fields(_name(answer))]
    return "\n".join(parts)


def _fields(name: str, given: bool = False) -> str:
    """Return the table of the fields of an object. `given`: whether a client sends it, so fields have defaults."""
    schema = _SCHEMAS[name]
    rows = []
    for field, each in schema["properties"].items():
        needed = field in schema["required"]
        default = ["required" if needed else code(_json(each.get("default")))] if given else []
        kind = _type(each) + ("" if given or needed else "; can be absent")
        meaning = each.get("description") or _SCHEMAS[_name(each)]["description"]
        rows.append([code(field), kind, *default, linked(meaning)])
    return table(["field", "type", *(["default"] if given else []), "meaning"], rows)


def _types() -> str:
    """Return a section for each object that is a part of a body or of an answer."""
    sent = {"Filter", "NewEvent", "Recommend"}
    parts = []
    for name in sorted(_nested()):
        text = f"### {name}\n\n{wrapped(' '.join([_SCHEMAS[name]['description'], *_uses(name)]))}\n"
        same = [
            other
            for other, schema in _SCHEMAS.items()
            if other != name and _SCHEMAS[name]["properties"].items() <= schema["properties"].items()
        ]
        if same and name in sent:
            less = _SCHEMAS[same[0]]["properties"].keys() - _SCHEMAS[name]["properties"].keys()
            words = "It has the same fields as the body of `POST /v1/recommend`, except"
            parts.append(text + wrapped(f"{words} {', '.join(map(code, less))}."))
        else:
            parts.append(text + _fields(name, given=name in sent))
    return "\n".join(parts)


def _uses(name: str) -> list[str]:
    """Return a sentence that names the fields of a type, or no sentence if no field has it."""
    places = {each: f"[{each}](#{each.lower()})" for each in sorted(_nested())}
    for path, operations in _DOCUMENT["paths"].items():
        for method, operation in operations.items():
            route = f"[{code(f'{method.upper()} {path}')}](#{_anchor(method, path)})"
            for what, part in (("body", operation.get("requestBody")), ("answer", operation["responses"]["200"])):
                for each in _SCHEMAS.keys() & set(_references(part or {})):
                    places.setdefault(each, f"the {what} of {route}")
    fields = [
        f"{code(field)} in {place}"
        for other, place in places.items()
        for field, schema in _SCHEMAS[other]["properties"].items()
        if name in _references(schema)
    ]
    if len(fields) < 2:
        return [f"The field {each} uses this type." for each in fields]
    return [f"These fields use this type: {', '.join(fields)}."]


def _nested() -> set[str]:
    """Return the names of the objects that another object contains."""

    return {name for schema in _SCHEMAS.values() for name in _references(schema["properties"])} | {"Error"}


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the objects that a schema refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield _name(schema)
        for each in schema.values():
            yield from _references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _headers() -> str:
    headers = _DOCUMENT["components"]["headers"]
    return table(["header", "meaning"], [[code(name), each["description"]] for name, each in headers.items()])


def _figures() -> str:
    """Return a table of the figures for Prometheus; a counter has _total behind its name."""
    rows = []
    for figure in vars(Figures()).values():
        for each in figure.describe() if hasattr(figure, "_labelnames") else ():
            name = f"{each.name}_total" if each.type == "counter" else each.name
            labels = ", ".join(map(code, figure._labelnames))
            rows.append([code(name), each.type, labels, f"{each.documentation}."])
    return table(["figure", "type", "labels", "meaning"], rows)


def _name(schema: Schema) -> str:
    return str(schema["$ref"].rpartition("/")[2])


def _default(parameter: Schema) -> str:
    if parameter["required"]:
        return "required"
    return code(_json(parameter["schema"]["default"])) if "default" in parameter["schema"] else "absent"


def _json(value: Any) -> str:
    known = {None: "null", True: "true", False: "false", "": '""'}
    return known[value] if isinstance(value, bool | str) or value is None else str(value)


def _type(schema: Schema, many: bool = False) -> str:
    """Return the type of a value in words, with its bounds. `many`: whether the noun is plural, as in a list."""
    if "$ref" in schema:
        return f"[{_name(schema)}](#{_name(schema).lower()})"
    if "anyOf" in schema:
        return " or ".join(_choices(schema["anyOf"], many))
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    plural = "s" if many else ""
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'], many=True)}{_between(schema, 'Items', '')}"
        case "object" if isinstance(more := schema.get("additionalProperties"), dict):
            return f"object of {_type(more, many=True)}"
        case "string":
            return f"text{plural}{_between(schema, 'Length', ' characters')}"
        case "integer" if "minimum" in schema and schema["minimum"] > -(2**63):
            most = schema.get("maximum")
            return f"whole number from {schema['minimum']:,}" + (f" to {most:,}" if most else "")
        case "number" if "minimum" in schema:
            return f"number from {schema['minimum']:,} to {schema['maximum']:,}"
        case known:
            names = {"integer": f"whole number{plural}", "number": f"number{plural}", "boolean": "true or false"}
            return names.get(known, str(known))


def _choices(schemas: Sequence[Schema], many: bool) -> list[str]:
    """Return the types of a choice in words; text or a whole number is an id."""
    kinds = [each.get("type") for each in schemas]
    plain = [each for each in schemas if each.get("type") != "integer" or "number" not in kinds]
    if kinds[:2] == ["string", "integer"] and plain == schemas:
        size = schemas[0].get("maxLength")
        limit = "" if size in (None, _ID_CHARACTERS) else f" (at most {size:,} characters)"
        return [f"id{'s' if many else ''}{limit}", *(_type(each) for each in schemas[2:])]
    return [_type(each, many) for each in plain]


def _between(schema: Schema, kind: str, noun: str) -> str:
    """Return the allowed lengths of a text or a list, such as " (1 to 256 items)"."""
    least, most = schema.get(f"min{kind}"), schema.get(f"max{kind}")
    if most is None:
        return ""
    if least == most:
        return f" ({most}{noun})"
    return f" ({f'{least:,} to' if least else 'at most'} {most:,}{noun})"
