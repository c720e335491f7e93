"""docs/tools.md, the reference for clients, generated from the declarations; a check compares both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mcp_server.cli.generate.policy_catalog import every_prompt, every_resource, every_tool
from mcp_server.gate.resource_reads import LONGEST_COMPLETED, MAX_COMPLETIONS
from mcp_server.prompts import Prompt
from mcp_server.tools.catalog import Tool
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from mcp_server.tools.resources import Resource
from mcp_server.tools.schemas import argument_schema
from mcp_server.transports.errors import ERRORS
from mcp_server.transports.list_pages import PAGE_SIZE

__all__ = ["tools_reference"]

_INTRODUCTION = f"""\
# Tools, resources and prompts

<!-- Generated from the declarations of the tools; change them there, then run make generate. -->

What an MCP or REST client can use. A backend that is not configured hides what needs it, and the
policy shows each caller what could be allowed to it: roles are mapped to permissions in
`policies/config/roles`, namespaces in `policies/config/namespaces`, limits are in
`policies/config/limits`. `enterprise://policy/me` tells a caller where it stands.

- The server refuses unknown arguments and names them. `null` for an optional argument means that it is
  not set, and `5.0` is the integer 5.
- A result (structured content and text) has at most {RESULT_BUDGET_BYTES // 1024} KiB. A truncated list
  has a `next_cursor`; the argument `cursor` takes it for the next page. `fields` selects fields of each
  row.
- `tools/list` declares no `outputSchema`: results would have to conform to it, and the policy may mask
  any field. The result tables below, and `output_schema` of `GET /tools`, describe results before
  masks and before `fields` selects fields.
- The server marks text from backends as data, also in errors, and masks secrets in it.
  `enterprise-mcp/untrusted-source` names the backend: in `_meta` of a result, and in `data` of an error.
- The deadline of a tool is its maximum; `policies/config/obligations` may shorten it. Each call of a
  backend gets the remaining time. If it expires, the error names that backend.
- `tools/list`, `resources/list`, `resources/templates/list` and `prompts/list` have pages of
  {PAGE_SIZE} entries. A completion has at most {MAX_COMPLETIONS} values, for texts of at most
  {LONGEST_COMPLETED} characters.
- The REST API is described in docs/rest.md and docs/openapi.json. `GET /tools` and `GET /resources` list
  everything that the caller may see, in one page. Prompts and completions are for MCP only.
- The server refuses requests by pages of other origins (403), over MCP and REST, unless
  `cors.allowed_origins` has the origin (docs/settings.md).
- Errors have one table for all transports: see [Errors](#errors).
"""

_ERRORS = """\
REST answers with the HTTP status and problem details (RFC 9457), whose member `error` has `code` and
`message`. MCP answers with a JSON-RPC
error: its `code` is the number, and its `data` has the word as `code`, `retryable` and `request_id`.
Before a message is read, MCP gets the HTTP status too, and no `id`. A failed tool call is a result with
`isError` over MCP.

`retryable` means that the same request may succeed a little later and is safe to repeat. Refusals have
`reasons`, each with a `solution`. 429 and 503 have `Retry-After`. A client of `subscriptions/listen`
must accept `text/event-stream`, every other one `application/json`; without an Accept header both are
accepted.
"""


def tools_reference() -> str:
    """Return docs/tools.md (Markdown)."""
    tools, resources, prompts = every_tool(), every_resource(), every_prompt()
    lines = [_INTRODUCTION, "## Tools", "", *_overview(tools), ""]
    for tool in tools:
        lines += _tool(tool)
    single = [resource for resource in resources if not resource.parameters]
    templates = [resource for resource in resources if resource.parameters]
    lines += ["## Resources", "", *_resources(single), ""]
    if templates:
        lines += ["## Resource templates", "", *_resources(templates), ""]
    lines += ["## Prompts", ""]
    for prompt in prompts:
        lines += _prompt(prompt)
    lines += ["## Errors", "", _ERRORS, *_errors(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _errors() -> Iterator[str]:
    yield "| code | HTTP | JSON-RPC | retryable | meaning |"
    yield "|---|---|---|---|---|"
    for kind in ERRORS:
        retryable = "yes" if kind.retryable else "no"
        yield _row(f"`{kind.code}`", str(kind.status), str(kind.number), retryable, kind.meaning)


def _overview(tools: Iterable[Tool[Any, Any]]) -> Iterator[str]:
    yield "| tool | what it does | permission | changes something |"
    yield "|---|---|---|---|"
    for tool in tools:
        changes = "no" if tool.read_only else "yes"
        yield _row(
            f"[`{tool.wire_name}`](#{tool.wire_name})",
            tool.description,
            f"`{tool.permission}`",
            changes,
        )


def _tool(tool: Tool[Any, Any]) -> Iterator[str]:
    yield f"### {tool.wire_name}"
    yield ""
    yield tool.description
    yield ""
    hints = [
        "reads only" if tool.read_only else "changes something",
        *(["may destroy"] if tool.destructive else []),
        "may be repeated" if tool.idempotent else "must not be repeated blindly",
    ]
    yield (
        f"Policy name `{tool.name}`, permission `{tool.permission}`; {', '.join(hints)}; "
        f"deadline {tool.timeout_s:g} s."
    )
    scope = {
        kind: name
        for kind in ("cluster", "namespace", "all_namespaces", "asset")
        if (name := getattr(tool.scope, kind)) is not None
    }
    if scope:
        judged = ", ".join(f"`{name}`" for name in scope.values())
        yield f"The policy judges where it works by {judged}."
    if not tool.read_only:
        yield f"Where it is not known whether the change was made: {tool.verify_hint}."
    yield ""
    yield from _arguments(argument_schema(tool.arguments, full=True))
    yield "Result:" if tool.rows is None else f"Result: a list `{tool.rows}`."
    yield ""
    yield "| field | type |"
    yield "|---|---|"
    schema = tool.result_schema
    yield from _fields_of(schema, "", schema.get("$defs", {}))
    yield ""


def _arguments(schema: Mapping[str, Any]) -> Iterator[str]:
    properties = schema.get("properties", {})
    if not properties:
        yield "It takes no arguments."
        yield ""
        return
    yield "| argument | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from _rows_of(schema, "", schema.get("$defs", {}))
    yield ""


def _rows_of(schema: Mapping[str, Any], path: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each property, and for the properties of objects in a list."""
    required = set(schema.get("required", ()))
    for name, argument in schema.get("properties", {}).items():
        default = "required" if name in required else _code(argument.get("default"))
        yield _row(f"`{path}{name}`", _type(argument, definitions), default, _meaning(argument))
        items = argument.get("items", {})
        for choice in items.get("anyOf", [items]):
            yield from _rows_of(choice, f"{path}{name}[].", definitions)


def _fields_of(
    schema: Mapping[str, Any], path: str, definitions: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a row for each field of a result, and for the fields of objects in it."""
    for name, field in schema.get("properties", {}).items():
        inner, below = _resolved(field, definitions), f"{path}{name}."
        if inner.get("type") == "array":
            inner, below = _resolved(inner["items"], definitions), f"{path}{name}[]."
        if "properties" in inner:
            yield from _fields_of(inner, below, definitions)
        else:
            yield _row(f"`{path}{name}`", _type(field, definitions))


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema, or the definition that it refers to."""
    found: Mapping[str, Any] = schema
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
    return found


def _meaning(argument: Mapping[str, Any]) -> str:
    """Return the description of an argument, with an example if there is one."""
    examples = ", ".join(_code(example) for example in argument.get("examples", ()))
    description = argument.get("description", "")
    if not examples:
        return str(description)
    return f"{description}{'; ' if description else ''}such as {examples}"


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the type of a schema as text: `integer, 1 to 500`, `list of object`."""
    schema = _resolved(schema, definitions)
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(choice, definitions) for choice in schema["anyOf"])
    kind = schema.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if words == "array":
        words = f"list of {_type(schema.get('items', {}), definitions)}"
    if words == "object" and "properties" in schema:
        words = f"object ({', '.join(f'`{name}`' for name in schema['properties'])})"
    if words == "object" and isinstance(schema.get("additionalProperties"), dict):
        words = f"object of {_type(schema['additionalProperties'], definitions)}"
    if schema.get("format") == "date-time":
        words += ", RFC 3339"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f", {low} to {high}"
    elif low is not None or high is not None:
        words += f", at least {low}" if high is None else f", at most {high}"
    if "maxLength" in schema:
        words += f", at most {schema['maxLength']} characters"
    if "maxItems" in schema:
        least = schema.get("minItems")
        words += (
            f", at most {schema['maxItems']} items"
            if least is None
            else f", {least} to {schema['maxItems']} items"
        )
    if "pattern" in schema:
        words += f", like `{schema['pattern']}`"
    return words


def _resources(resources: Iterable[Resource]) -> Iterator[str]:
    yield "| URI | what it holds | permission | completes |"
    yield "|---|---|---|---|"
    for resource in resources:
        completes = (
            ", ".join(f"`{name}`" for name in resource.parameters) if resource.complete else ""
        )
        yield _row(f"`{resource.uri}`", resource.description, f"`{resource.permission}`", completes)


def _prompt(prompt: Prompt) -> Iterator[str]:
    yield f"### {prompt.name}"
    yield ""
    yield f"{prompt.description} Permission `{prompt.permission}`."
    required = ", ".join(f"`{name.replace(':', '_')}`" for name in sorted(prompt.required))
    yield f"Offered where {required} is configured; it uses what else there is."
    completed = [name for name in prompt.arguments.model_fields if prompt.completes(name)]
    if completed:
        yield f"Completed: {', '.join(f'`{name}`' for name in completed)}."
    yield ""
    yield from _arguments(prompt.arguments.model_json_schema())


def _code(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
