"""JSON Schemas of tools, as short as they can be: every client pays for them with each conversation.

pydantic's schemas are right and long. What goes here says nothing to a validator or to a model: titles
that repeat names, references to definitions that are used once, `default` of what may be left out and is
then null or false, bounds of results, and patterns and lengths of texts: a regular expression costs
more than the argument it belongs to, and who breaks one is told by the server in words. So do
descriptions that are marked as brief: see `brief`. What stays is what a strict client needs to validate
(JSON Schema 2020-12): whatever the server takes, the schema takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["argument_schema", "brief", "described_elsewhere", "result_schema"]

_REF = "#/$defs/"
# What a result keeps: its shape. Bounds, examples and what must be there are for those who send
# something.
_SHAPE = frozenset(
    ("$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum", "items")
) | frozenset(("oneOf", "prefixItems", "properties", "type"))
# Titles repeat names; `discriminator` is OpenAPI's and names definitions that are no longer there.
_NEVER = frozenset(("title", "discriminator"))
_BRIEF = "brief"
_DESCRIBED_ELSEWHERE = "described_elsewhere"
_TEXT_BOUNDS = frozenset(("pattern", "minLength", "maxLength"))
_Detail = Literal["whole", "short", "shape", "whole result"]
_DROPPED = {
    "whole": _NEVER,
    "short": _NEVER | _TEXT_BOUNDS,
    "whole result": _NEVER | frozenset(("default", _BRIEF, _DESCRIBED_ELSEWHERE)),
}


def brief(description: str, **bounds: Any) -> Any:
    """Describe an argument that its name, its type and the server's instructions tell of already.

    The documents show the description; a list of tools leaves it out.

    Args:
        bounds: as pydantic's `Field` takes them.
    """
    return Field(description=description, json_schema_extra={_BRIEF: True}, **bounds)


def described_elsewhere() -> Any:
    """Mark an object in a result whose fields another tool's result tells of already.

    The documents tell them; a list of tools says no more than that it is an object.
    """
    return Field(json_schema_extra={_DESCRIBED_ELSEWHERE: True})


def argument_schema(model: type[BaseModel], *, whole: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's arguments.

    An argument that may be left out is not said to take null besides: the server takes it, but there
    is nothing to gain by sending it.

    Args:
        whole: say also what a list of tools leaves out: what a text must look like, `brief`
            descriptions, and that a flag is false where it is left out.
    """
    return _compact(model, "whole" if whole else "short")


def result_schema(model: type[BaseModel], *, whole: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's result: exact in names and types, without bounds of values.

    Of objects in a list it has the names of their fields, and not the types.

    It lets pass more than the model does (surplus and missing fields), so that a newer server does
    not break a client that kept the older schema.

    Args:
        whole: say all that the model says: the types of every field, also of objects in lists, that all
            are there and no others.
    """
    return _compact(model, "whole result" if whole else "shape")


def _compact(model: type[BaseModel], detail: _Detail) -> dict[str, Any]:
    mode: Literal["serialization", "validation"] = (
        "serialization" if detail in ("shape", "whole result") else "validation"
    )
    whole = model.model_json_schema(mode=mode)
    definitions = whole.pop("$defs", {})
    # The base classes' docstrings would stand as descriptions of the whole.
    for schema in (whole, *definitions.values()):
        schema.pop("description", None)
    uses = Counter(_references([whole, *definitions.values()]))
    # A definition that refers to itself, or is used again, stays one; its text would be repeated.
    kept = {
        name
        for name, schema in definitions.items()
        if uses[name] > 1 or name in _reachable(schema, definitions)
    }
    inlined = {name: schema for name, schema in definitions.items() if name not in kept}
    compact: dict[str, Any] = _node(whole, inlined, detail)
    used = {name: _node(definitions[name], inlined, detail) for name in sorted(kept)}
    if shown := _reachable(compact, used):
        compact["$defs"] = {name: schema for name, schema in used.items() if name in shown}
    return compact


def _node(schema: Any, inlined: dict[str, Any], detail: _Detail) -> Any:
    """Return one schema without what nobody needs."""
    if not isinstance(schema, dict):
        return schema
    if detail == "shape" and _DESCRIBED_ELSEWHERE in schema:
        return {"type": "object"}
    if (name := _name(schema)) in inlined:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _node({**inlined[name], **beside}, inlined, detail)
    node = {
        key: _inside(key, value, inlined, detail)
        for key, value in schema.items()
        if (key in _SHAPE if detail == "shape" else key not in _DROPPED[detail])
    }
    if node.pop(_BRIEF, False) and detail == "short":
        del node["description"]
    if node.get("default", ...) is False and detail == "short":
        del node["default"]
    # True is what holds without it; False is worth its tokens where something is sent.
    if node.get("additionalProperties") is True or (detail == "shape" and "properties" in node):
        node.pop("additionalProperties", None)
    if node.get("default", ...) is None:
        del node["default"]
        node = _without_null(node)
    node = _merged_null(node)
    if "const" in node or "enum" in node:
        node.pop("type", None)
    # A tokenizer knows `{"type":"` as one word, or nearly.
    return {"type": node["type"], **node} if "type" in node else node


def _inside(key: str, value: Any, inlined: dict[str, Any], detail: _Detail) -> Any:
    """Return the value of a keyword with the schemas in it made compact."""
    match key, value:
        case "items", dict() if detail == "shape":
            return _row(_node(value, inlined, detail))
        case "items" | "additionalProperties", _:
            return _node(value, inlined, detail)
        case "anyOf" | "oneOf" | "allOf" | "prefixItems", list():
            return [_node(choice, inlined, detail) for choice in value]
        case "properties", dict():
            return {name: _node(part, inlined, detail) for name, part in value.items()}
        case _:
            return value


def _row(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one of many: of an object, the names of its fields in words.

    Their types would cost more than all else of a tool together.
    """
    fields = node.get("properties")
    return node if fields is None else {"type": "object", "description": ", ".join(fields)}


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of what may be left out without the null that stands for leaving it out."""
    choices: list[dict[str, Any]] = [
        choice for choice in node.get("anyOf", []) if choice != {"type": "null"}
    ]
    if len(choices) == 1:
        return {**choices[0], **{key: value for key, value in node.items() if key != "anyOf"}}
    return node


def _merged_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return `anyOf` of a simple type and null as one schema which means the same.

    The constraints of a type hold for values of this type only, so that null passes beside them;
    a list of values has to name it.
    """
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    choices: list[dict[str, Any]] = node.get("anyOf", [])
    match choices:
        case [{"enum": [*values]}, {"type": "null"}]:
            return {"enum": [*values, None], **rest}
        case [{"type": str(kind)}, {"type": "null"}] if "const" not in choices[0]:
            return {**choices[0], "type": [kind, "null"], **rest}
    return node


def _name(schema: dict[str, Any]) -> str | None:
    reference = schema.get("$ref")
    return reference.removeprefix(_REF) if isinstance(reference, str) else None


def _references(node: Any) -> Iterator[str]:
    """Yield the definitions that a schema names, once for each time."""
    if isinstance(node, dict):
        if (name := _name(node)) is not None:
            yield name
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _reachable(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """Return the definitions that a schema leads to, over any number of steps."""
    found: set[str] = set()
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(definitions[name])
    return found
