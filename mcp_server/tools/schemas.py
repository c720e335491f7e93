"""JSON Schemas of tools, as short as they can be: every client pays for them with each conversation.

pydantic's schemas are right and long. What goes here says nothing to a validator or to a model: titles
that repeat names, references to definitions that are used once, `default: null` of what may be left out,
bounds of results, and patterns and lengths of texts: a regular expression costs more than the argument
it belongs to, and who breaks one is told by the server in words. What stays is what a strict client
needs to validate (JSON Schema 2020-12): whatever the server takes, the schema takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

__all__ = ["argument_schema", "result_schema"]

_REF = "#/$defs/"
# What a result keeps: its shape. Bounds, examples and what must be there are for those who send
# something.
_SHAPE = frozenset(
    ("$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum", "items")
) | frozenset(("oneOf", "prefixItems", "properties", "type"))
# Titles repeat names; `discriminator` is OpenAPI's and names definitions that are no longer there.
_NEVER = frozenset(("title", "discriminator"))
_TEXT_BOUNDS = frozenset(("pattern", "minLength", "maxLength"))


def argument_schema(model: type[BaseModel], *, text_bounds: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's arguments.

    An argument that may be left out is not said to take null besides: the server takes it, but there
    is nothing to gain by sending it.

    Args:
        text_bounds: say also what a text must look like, which is else left to the server to say.
    """
    return _compact(model, dropped=_NEVER if text_bounds else _NEVER | _TEXT_BOUNDS)


def result_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a tool's result: exact in names and types, without bounds of values.

    It lets pass more than the model does (surplus and missing fields), so that a newer server does
    not break a client that kept the older schema.
    """
    return _compact(model, dropped=None)


def _compact(model: type[BaseModel], *, dropped: frozenset[str] | None) -> dict[str, Any]:
    """Return a model's schema without the keywords in `dropped`; None: only the shape of a result."""
    result = dropped is None
    whole = model.model_json_schema(mode="serialization" if result else "validation")
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
    compact: dict[str, Any] = _node(whole, inlined, dropped)
    if kept:
        compact["$defs"] = {
            name: _node(definitions[name], inlined, dropped) for name in sorted(kept)
        }
    return compact


def _node(schema: Any, inlined: dict[str, Any], dropped: frozenset[str] | None) -> Any:
    """Return one schema without what nobody needs."""
    result = dropped is None
    if not isinstance(schema, dict):
        return schema
    if (name := _name(schema)) in inlined:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _node({**inlined[name], **beside}, inlined, dropped)
    node = {
        key: _inside(key, value, inlined, dropped)
        for key, value in schema.items()
        if (key in _SHAPE if dropped is None else key not in dropped)
    }
    # True is what holds without it; False is worth its tokens where something is sent.
    if node.get("additionalProperties") is True or (result and "properties" in node):
        node.pop("additionalProperties", None)
    if node.get("default", ...) is None:
        del node["default"]
        node = _without_null(node)
    node = _merged_null(node)
    if "const" in node or "enum" in node:
        node.pop("type", None)
    # A tokenizer knows `{"type":"` as one word, or nearly.
    return {"type": node["type"], **node} if "type" in node else node


def _inside(key: str, value: Any, inlined: dict[str, Any], dropped: frozenset[str] | None) -> Any:
    """Return the value of a keyword with the schemas in it made compact."""
    match key, value:
        case "items" | "additionalProperties", _:
            return _node(value, inlined, dropped)
        case "anyOf" | "oneOf" | "allOf" | "prefixItems", list():
            return [_node(choice, inlined, dropped) for choice in value]
        case "properties", dict():
            return {name: _node(part, inlined, dropped) for name, part in value.items()}
        case _:
            return value


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
