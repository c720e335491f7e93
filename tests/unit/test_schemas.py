"""Compact schemas accept what the models make, and refuse what the models refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import Field, ValidationError

from mcp_server.generate.policy_catalog import every_tool
from mcp_server.redaction import MASK
from mcp_server.tools.catalog import Arguments, Result, Tool
from mcp_server.tools.schemas import argument_schema, brief, described_elsewhere, result_schema
from mcp_server.transports.mcp import instructions
from tests.integration.results import hold

TOLD_ONCE = {"all_namespaces", "cluster", "cursor", "fields", "limit", "namespace"}
"""Arguments of many tools, which the instructions of the server describe."""


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


def test_what_a_text_must_look_like_is_left_to_the_server() -> None:
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
    "wrong", [{"state": "left"}, {"owner": 1}, {"first": {"name": 1}}, {"values": {"a": "b"}}]
)
def test_a_schema_of_a_result_refuses_other_shapes(wrong: dict[str, Any]) -> None:
    right = {"state": "up", "first": {"name": "n"}, "owner": None, "values": {}}

    assert _fits(result_schema(Made), right)
    assert not _fits(result_schema(Made), right | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": {"name": "n"}},
        {"first": {"name": "n", "children": [{"name": 1, "children": []}]}},
        {"surplus": 1},
    ],
)
def test_a_whole_schema_of_a_result_says_all_that_the_model_says(wrong: dict[str, Any]) -> None:
    leaf = Node(name="leaf")
    made = Made(state="up", first=Node(name="n", children=[leaf]), owner=None, values={})
    right = made.model_dump(mode="json")
    schema = result_schema(Made, whole=True)

    assert _fits(schema, right)
    assert not _fits(schema, right | wrong)
    for name in right:
        assert not _fits(schema, {key: value for key, value in right.items() if key != name})


def test_what_another_tool_tells_of_is_told_in_the_whole_schema_only() -> None:
    class Row(Result):
        name: str

    class Pair(Result):
        before: Annotated[Row, described_elsewhere()]
        after: Annotated[Row, described_elsewhere()]

    row = {"name": "a"}
    whole = result_schema(Pair, whole=True)

    assert result_schema(Pair) == {
        "type": "object",
        "properties": {"before": {"type": "object"}, "after": {"type": "object"}},
    }
    assert _fits(whole, {"before": row, "after": row})
    assert not _fits(whole, {"before": row, "after": {"name": 1}})


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
def test_the_results_of_tests_are_held_to_whole_schemas(
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
def test_what_does_not_hold_is_found(rows: list[dict[str, Any]], fields: list[str] | None) -> None:
    with pytest.raises(jsonschema.ValidationError):
        hold(_pods_tool(), _pods(*rows), fields=fields)


def _pods_tool() -> Tool[Any, Any]:
    tool = every_tool().find("k8s_get_pods")
    assert tool is not None
    return tool


def test_every_schema_is_valid_and_self_contained() -> None:
    for tool in every_tool():
        for schema in (tool.input_schema, tool.output_schema, tool.whole_output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            references = json.dumps(schema).count('"$ref"')
            assert bool(references) == ("$defs" in schema), tool.name
            assert schema["type"] == "object", tool.name


def test_what_a_text_must_look_like_is_told_where_it_costs_nothing() -> None:
    class Named(Arguments):
        name: Annotated[str, Field(min_length=1, max_length=9, pattern="^a")]
        kind: Literal["a", "b"] = "a"

    short, whole = argument_schema(Named), argument_schema(Named, whole=True)

    assert short["properties"]["name"] == {"type": "string"}
    assert whole["properties"]["name"] == {
        "type": "string",
        "maxLength": 9,
        "minLength": 1,
        "pattern": "^a",
    }
    assert short["properties"]["kind"] == {"default": "a", "enum": ["a", "b"]}


def test_what_is_plain_and_a_flag_that_is_not_set_are_told_where_it_costs_nothing() -> None:
    class Named(Arguments):
        name: Annotated[str, brief("Of the thing", max_length=9)]
        why: Annotated[str, Field(description="For the record")]
        flag: Annotated[bool, brief("Do not")] = False
        on: bool = True

    short, whole = argument_schema(Named), argument_schema(Named, whole=True)

    assert short["properties"] == {
        "name": {"type": "string"},
        "why": {"type": "string", "description": "For the record"},
        "flag": {"type": "boolean"},
        "on": {"type": "boolean", "default": True},
    }
    assert whole["properties"]["name"] == {
        "type": "string",
        "description": "Of the thing",
        "maxLength": 9,
    }
    assert whole["properties"]["flag"] == {
        "type": "boolean",
        "default": False,
        "description": "Do not",
    }


def test_of_objects_in_a_list_a_result_has_the_names_of_their_fields() -> None:
    class Row(Result):
        name: str
        age: int

    class Listed(Result):
        rows: list[Row]
        names: list[str]

    assert result_schema(Listed)["properties"] == {
        "rows": {"type": "array", "items": {"type": "object", "description": "name, age"}},
        "names": {"type": "array", "items": {"type": "string"}},
    }


def _arguments_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the schema of every argument, those of objects in lists too."""
    for name, argument in schema.get("properties", {}).items():
        yield name, argument
        items = argument.get("items", {})
        for choice in items.get("anyOf", [items]):
            yield from ((f"{name}[].{inner}", each) for inner, each in _arguments_of(choice))


def test_every_argument_says_what_it_means_and_what_bounds_it() -> None:
    for tool in every_tool():
        for name, argument in _arguments_of(argument_schema(tool.arguments, whole=True)):
            where = f"{tool.wire_name}.{name}"
            assert argument.get("description"), where
            match argument.get("type"):
                case "integer":
                    assert "minimum" in argument, where
                case "string":
                    assert argument.keys() & {"maxLength", "pattern"}, where
                case "array":
                    assert "maxItems" in argument or name == "fields", where


def test_what_a_list_of_tools_does_not_describe_is_known_by_its_name() -> None:
    """Or told once for all tools, in the server's instructions."""
    undescribed = {
        name
        for tool in every_tool()
        for name, argument in _arguments_of(tool.input_schema)
        if not argument.keys() & {"description", "examples"}
    }

    assert undescribed - TOLD_ONCE == {
        *("asset_id", "asset_type", "deployment", "environment", "max_nodes", "name_prefix"),
        *("panels", "panels[].title", "panels[].type", "pod_name", "reason", "replicas"),
        *("severity", "status", "title", "type"),
    }


@pytest.mark.parametrize("argument", sorted(TOLD_ONCE))
def test_the_instructions_tell_of_arguments_that_no_tool_describes(argument: str) -> None:
    told = instructions(["k8s", "monitoring", "cmdb"])

    assert re.search(rf"\b{argument}\b", told)
