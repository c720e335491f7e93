"""Compact schemas accept and refuse what the models do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import Field, ValidationError

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.redaction import MASK
from mcp_server.tools.catalog import Arguments, Result, Tool
from mcp_server.tools.schemas import argument_schema, result_schema
from mcp_server.transports.declarations import tool_declaration
from tests.integration.results import hold


class Panel(Arguments):
    """One of several."""

    title: Annotated[str, Field(min_length=1)]
    unit: Literal["s", "bytes"] | None = None


class Sent(Arguments):
    """Everything that arguments are made of."""

    name: str
    count: Annotated[int, Field(ge=1)] = 1
    kind: Literal["a", "b"] | None = None
    panels: list[Panel] = Field(default=[], max_length=2)
    labels: dict[str, str] | None = None


class Node(Result):
    """A definition that refers to itself."""

    name: str
    children: list[Node] = Field(default=[])


class Made(Result):
    """Everything that results are made of."""

    state: Literal["up", "down"] | None
    first: Node
    owner: str | None
    values: dict[str, float]


def _fits(schema: dict[str, Any], document: Any) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(document))


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x"},
        {"name": "x", "count": 2, "kind": "a", "labels": {"a": "b"}},
        {"name": "x", "panels": [{"title": "t", "unit": "s"}]},
        {},
        {"name": 1},
        {"name": "x", "count": 0},
        {"name": "x", "kind": "c"},
        {"name": "x", "other": 1},
        {"name": "x", "panels": [{"title": "t", "other": 1}]},
        {"name": "x", "panels": [{"title": "t"}] * 3},
        {"name": "x", "labels": {"a": 1}},
    ],
)
def test_a_schema_of_arguments_judges_as_the_model_does(document: dict[str, Any]) -> None:
    try:
        Sent.model_validate(document)
        valid = True
    except ValidationError:
        valid = False

    assert _fits(argument_schema(Sent), document) == valid


def test_the_short_schema_accepts_texts_that_the_server_refuses() -> None:
    document = {"name": "x", "panels": [{"title": ""}]}

    with pytest.raises(ValidationError, match="at least 1 character"):
        Sent.model_validate(document)
    assert _fits(argument_schema(Sent), document)


@pytest.mark.parametrize("state", ["up", "down", None])
def test_a_schema_of_a_result_accepts_what_the_model_makes(
    state: Literal["up", "down"] | None,
) -> None:
    leaf = Node(name="leaf")
    made = Made(state=state, first=Node(name="n", children=[leaf]), owner=None, values={"a": 1.5})

    assert _fits(result_schema(Made), made.model_dump(mode="json"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "left"},
        {"owner": 1},
        {"values": {"a": "b"}},
        {"first": {"name": 1, "children": []}},
        {"first": {"name": "n"}},
        {"first": {"name": "n", "children": [{"name": 1, "children": []}]}},
        {"surplus": 1},
    ],
)
def test_a_schema_of_a_result_refuses_what_the_model_does_not_make(wrong: dict[str, Any]) -> None:
    leaf = Node(name="leaf")
    made = Made(state="up", first=Node(name="n", children=[leaf]), owner=None, values={})
    right = made.model_dump(mode="json")
    schema = result_schema(Made)

    assert _fits(schema, right)
    assert not _fits(schema, right | wrong)
    for name in right:
        assert not _fits(schema, {key: value for key, value in right.items() if key != name})


POD = {
    "name": "web",
    "namespace": "default",
    "status": "Running",
    "ready": "1/1",
    "restarts": 0,
    "age": "1d",
    "node": None,
}


def _pods(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"pods": list(rows), "total": None, "truncated": False, "next_cursor": None}


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([POD], None),
        ([{**POD, "restarts": MASK}], None),
        ([{"restarts": 0, "name": "web"}], ["restarts", "name"]),
        ([{"restarts": MASK}], ["restarts"]),
    ],
)
def test_a_result_that_conforms_passes(
    rows: list[dict[str, Any]], fields: list[str] | None
) -> None:
    hold(_pods_tool(), _pods(*rows), fields=fields)


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([{**POD, "restarts": "0"}], None),
        ([{**POD, "other": 1}], None),
        ([{"restarts": 0}], None),
        ([POD], ["restarts"]),
        ([{"restarts": "0"}], ["restarts"]),
        ([{"name": "web"}], ["restarts"]),
    ],
)
def test_a_result_that_does_not_conform_is_found(
    rows: list[dict[str, Any]], fields: list[str] | None
) -> None:
    with pytest.raises(jsonschema.ValidationError):
        hold(_pods_tool(), _pods(*rows), fields=fields)


def _pods_tool() -> Tool[Any, Any]:
    tool = every_tool().find("k8s_get_pods")
    assert tool is not None
    return tool


def test_every_schema_is_valid_and_self_contained() -> None:
    for tool in every_tool():
        for schema in (tool.input_schema, tool.result_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            references = json.dumps(schema).count('"$ref"')
            assert bool(references) == ("$defs" in schema), tool.name
            assert schema["type"] == "object", tool.name


def test_formats_of_texts_are_in_the_full_schema_only() -> None:
    class Named(Arguments):
        name: Annotated[str, Field(min_length=1, max_length=9, pattern="^a")]
        kind: Literal["a", "b"] = "a"

    short, whole = argument_schema(Named), argument_schema(Named, full=True)

    assert short["properties"]["name"] == {"type": "string"}
    assert whole["properties"]["name"] == {
        "type": "string",
        "maxLength": 9,
        "minLength": 1,
        "pattern": "^a",
    }
    assert short["properties"]["kind"] == {"default": "a", "enum": ["a", "b"]}


def test_a_flag_that_is_false_by_default_is_so_in_the_full_schema_only() -> None:
    class Named(Arguments):
        flag: Annotated[bool, Field(description="Do not")] = False
        on: bool = True

    short, full = argument_schema(Named), argument_schema(Named, full=True)

    assert short["properties"] == {
        "flag": {"type": "boolean", "description": "Do not"},
        "on": {"type": "boolean", "default": True},
    }
    assert full["properties"]["flag"]["default"] is False


def test_the_argument_fields_lists_the_fields_of_a_row() -> None:
    fields = _pods_tool().input_schema["properties"]["fields"]

    assert fields["items"] == {"enum": list(POD)}


def test_no_tool_declares_an_output_schema() -> None:
    """A client refuses a result that does not conform; policy may mask any field of a result."""
    for tool in every_tool():
        assert tool_declaration(tool).output_schema is None, tool.name


def _arguments_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the schema of every argument, those of objects in lists too."""
    for name, argument in schema.get("properties", {}).items():
        yield name, argument
        items = argument.get("items", {})
        for choice in items.get("anyOf", [items]):
            yield from ((f"{name}[].{inner}", each) for inner, each in _arguments_of(choice))


def test_every_argument_has_a_description_and_bounds() -> None:
    for tool in every_tool():
        for name, argument in _arguments_of(argument_schema(tool.arguments, full=True)):
            where = f"{tool.wire_name}.{name}"
            assert argument.get("description"), where
            match argument.get("type"):
                case "integer":
                    assert "minimum" in argument, where
                case "string":
                    assert argument.keys() & {"maxLength", "pattern"}, where
                case "array":
                    assert "maxItems" in argument or name == "fields", where


def test_tools_list_describes_every_argument() -> None:
    undescribed = {
        f"{tool.wire_name}.{name}"
        for tool in every_tool()
        for name, argument in _arguments_of(tool.input_schema)
        if not argument.get("description")
    }

    assert undescribed == set()
