"""JSON Schemas of tools, as short as possible: every conversation of a client pays for `tools/list`.

pydantic's schemas are correct and long. The short form leaves out what helps neither a validator nor a
model: titles that repeat names, references to definitions that are used once, a `default` of null or
false, and patterns and lengths of texts (the server explains a violation in words). A client that
validates arguments (JSON Schema 2020-12) accepts everything that the server accepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

__all__ = ["argument_schema", "result_schema"]

_REF = "#/$defs/"
# Titles repeat names; `discriminator` is a keyword of OpenAPI.
_UNUSED = frozenset(("title", "discriminator"))
_Form = Literal["short", "full", "result"]
_OMITTED = {
    "short": _UNUSED | frozenset(("pattern", "minLength", "maxLength")),
    "full": _UNUSED,
    "result": _UNUSED | frozenset(("default",)),
}


def argument_schema(model: type[BaseModel], *, full: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's arguments.

    The schema does not mention null for optional arguments: the server accepts it, but a client gains
    nothing by sending it.

    Args:
        full: include what `tools/list` omits: formats of texts, and the default false.
    """
    return _compact(model, "full" if full else "short")


def result_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a tool's result, before obligations and before `fields` selects fields."""
    return _compact(model, "result")


def _compact(model: type[BaseModel], form: _Form) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization" if form == "result" else "validation")
    definitions = schema.pop("$defs", {})
    # Docstrings of classes are for developers.
    for each in (schema, *definitions.values()):
        each.pop("description", None)
    uses = Counter(_references([schema, *definitions.values()]))
    # A definition that is used again, or refers to itself, stays a definition.
    kept = {
        name
        for name, definition in definitions.items()
        if uses[name] > 1 or name in _reachable(definition, definitions)
    }
    inlined = {name: each for name, each in definitions.items() if name not in kept}
    compact: dict[str, Any] = _node(schema, inlined, form)
    if kept:
        compact["$defs"] = {name: _node(definitions[name], inlined, form) for name in sorted(kept)}
    return compact


def _node(schema: Any, inlined: dict[str, Any], form: _Form) -> Any:
    """Return one schema in its compact form."""
    if not isinstance(schema, dict):
        return schema
    if (name := _name(schema)) in inlined:
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _node({**inlined[name], **siblings}, inlined, form)
    node = {
        key: _nested(key, value, inlined, form)
        for key, value in schema.items()
        if key not in _OMITTED[form]
    }
    if node.get("default", ...) is False and form == "short":
        del node["default"]
    if node.get("additionalProperties") is True:
        del node["additionalProperties"]  # the default
    if node.get("default", ...) is None:
        del node["default"]
        node = _without_null(node)
    node = _merged_null(node)
    if "const" in node or "enum" in node:
        node.pop("type", None)
    # Tokenizers have a token for `{"type":"`, or nearly.
    return {"type": node["type"], **node} if "type" in node else node


def _nested(key: str, value: Any, inlined: dict[str, Any], form: _Form) -> Any:
    """Return the value of a keyword with the schemas in it in their compact form."""
    match key, value:
        case "items" | "additionalProperties", _:
            return _node(value, inlined, form)
        case "anyOf" | "oneOf" | "allOf" | "prefixItems", list():
            return [_node(choice, inlined, form) for choice in value]
        case "properties", dict():
            return {name: _node(part, inlined, form) for name, part in value.items()}
        case _:
            return value


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional argument without null, which means that it is omitted."""
    choices: list[dict[str, Any]] = [
        choice for choice in node.get("anyOf", []) if choice != {"type": "null"}
    ]
    if len(choices) == 1:
        return {**choices[0], **{key: value for key, value in node.items() if key != "anyOf"}}
    return node


def _merged_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return `anyOf` of a simple type and null as one equivalent schema.

    The constraints of a type apply to values of this type only, so null passes them; an `enum` has to
    list null.
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
    """Yield the name of a definition for each reference to it."""
    if isinstance(node, dict):
        if (name := _name(node)) is not None:
            yield name
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _reachable(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """Return the definitions that a schema refers to, directly or not."""
    found: set[str] = set()
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(definitions[name])
    return found
