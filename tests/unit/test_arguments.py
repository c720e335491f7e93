"""Arguments of every tool: what their published schema takes, the tool takes or refuses by a rule."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.strategies import SearchStrategy
from pydantic import Field

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.tools.catalog import Arguments, InvalidArguments, Tool
from mcp_server.tools.validation import validate

TOOLS = sorted(every_tool(), key=lambda tool: tool.wire_name)
# What pydantic says of a type that does not fit, of a name that is missing or unknown: all of it is in
# the published schema, so that no call which fits that schema may be refused for it.
FAULTS_OF_TYPE = re.compile(r"Input should be|List should have|Field required|unknown argument")
# Text as it comes, and what some tools take, so that not every call is refused for a pattern.
TEXTS = strategies.sampled_from(
    (
        "",
        " ",
        "7d",
        "up",
        "web-1",
        "default",
        'job="x"',
        "2026-11-01T10:00:00Z",
        "name",
        "a=b",
        "main",
    )
) | strategies.text(max_size=300)


def of_schema(schema: dict[str, Any], definitions: dict[str, Any]) -> SearchStrategy[Any]:
    """Return a strategy for documents that a schema of ours takes."""
    if "$ref" in schema:
        return of_schema(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return strategies.one_of(*(of_schema(choice, definitions) for choice in schema["anyOf"]))
    if "enum" in schema:
        return strategies.sampled_from(schema["enum"])
    return {
        "integer": _integers,
        "boolean": lambda *_: strategies.booleans(),
        "string": lambda *_: TEXTS,
        "array": _arrays,
        "object": _objects,
    }[schema["type"]](schema, definitions)


def _integers(schema: dict[str, Any], _: dict[str, Any]) -> SearchStrategy[Any]:
    least, most = schema.get("minimum", -(2**53)), schema.get("maximum", 2**53)
    as_floats = strategies.integers(least, min(most, 2**53)).map(float)
    return strategies.integers(schema.get("minimum"), schema.get("maximum")) | as_floats


def _arrays(schema: dict[str, Any], definitions: dict[str, Any]) -> SearchStrategy[Any]:
    return strategies.lists(
        of_schema(schema["items"], definitions),
        min_size=schema.get("minItems", 0),
        max_size=min(schema.get("maxItems", 3), 3),
    )


def _objects(schema: dict[str, Any], definitions: dict[str, Any]) -> SearchStrategy[Any]:
    parts = {name: of_schema(part, definitions) for name, part in schema["properties"].items()}
    required = {name: parts.pop(name) for name in schema.get("required", ())}
    return strategies.fixed_dictionaries(required, optional=parts)


def judged(tool: Tool[Any, Any], arguments: dict[str, Any]) -> tuple[str, str]:
    """Return what the policy judges of a call, and why it is refused before: one of them is empty."""
    try:
        parsed = tool.parse(arguments)
    except InvalidArguments as error:
        return "", str(error)
    # Text, because in Python 5 equals 5.0.
    return json.dumps([parsed.model_dump(mode="json"), tool.properties(parsed)]), ""


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.wire_name)
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=strategies.data())
def test_what_the_published_schema_takes_is_taken_or_refused_by_a_rule(
    tool: Tool[Any, Any], data: strategies.DataObject
) -> None:
    schema = tool.input_schema
    arguments = data.draw(of_schema(schema, schema.get("$defs", {})))
    jsonschema.validate(arguments, schema, cls=jsonschema.Draft202012Validator)

    _, refusal = judged(tool, arguments)

    assert not FAULTS_OF_TYPE.search(refusal)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.wire_name)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(data=strategies.data())
def test_null_for_what_may_be_left_out_is_as_if_it_were_left_out(
    tool: Tool[Any, Any], data: strategies.DataObject
) -> None:
    schema = tool.input_schema
    arguments = data.draw(of_schema(schema, schema.get("$defs", {})))
    optional = [
        name
        for name in schema["properties"]
        if name not in schema.get("required", ()) and name not in arguments
    ]
    unset = data.draw(strategies.sets(strategies.sampled_from(optional))) if optional else set()

    assert judged(tool, {**arguments, **dict.fromkeys(unset)}) == judged(tool, arguments)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.wire_name)
def test_null_for_every_optional_argument_is_taken(tool: Tool[Any, Any]) -> None:
    optional = set(tool.input_schema["properties"]) - set(tool.input_schema.get("required", ()))

    _, refusal = judged(tool, dict.fromkeys(optional))

    assert not re.search("|".join(rf"\b{name}: " for name in optional), refusal)


class _Inner(Arguments):
    depth: int = 3


class _Outer(Arguments):
    name: str
    count: int = 1
    inner: list[_Inner] = Field(default=[])
    labels: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("given_as", "means"),
    [
        ({"name": "x", "count": 5.0}, {"count": 5}),
        ({"name": "x", "count": -0.0}, {"count": 0}),
        ({"name": "x", "count": 1e20}, {"count": 10**20}),
        ({"name": "x", "count": None, "labels": None}, {"count": 1, "labels": None}),
        ({"name": "x", "inner": [{"depth": 2.0}, {"depth": None}]}, {"inner": [2, 3]}),
        ({"name": "x", "labels": {"a": 1.0}}, {"labels": {"a": 1}}),
    ],
)
def test_what_can_be_said_in_two_ways_is_judged_in_one(
    given_as: dict[str, Any], means: dict[str, Any]
) -> None:
    parsed = validate(_Outer, given_as).model_dump(mode="json")

    parsed["inner"] = [inner["depth"] for inner in parsed["inner"]]
    expected = {"name": "x", "count": 1, "inner": [], "labels": None, **means}
    assert json.dumps(parsed) == json.dumps(expected)


@pytest.mark.parametrize(
    ("given_as", "said"),
    [
        ({"name": "x", "count": 5.5}, "count: Input should be a valid integer"),
        ({"name": "x", "count": "5"}, "count: Input should be a valid integer"),
        ({"name": "x", "count": True}, "count: Input should be a valid integer"),
        ({"name": None}, "name: Input should be a valid string"),
        ({"name": 5.0}, "name: Input should be a valid string"),
        ({"name": "x", "other": None}, "other: unknown argument; known arguments: name, count"),
        ({"name": "x", "inner": [None]}, "inner.0: Input should be"),
        ({"name": "x", "labels": {"a": None}}, "labels.a: Input should be a valid integer"),
    ],
)
def test_what_the_schema_refuses_is_refused(given_as: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(said)):
        validate(_Outer, given_as)
