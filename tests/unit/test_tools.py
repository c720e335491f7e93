"""Declarations of tools, and what is made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_server.cli.generate.policy_catalog import every_tool, policy_catalog
from mcp_server.redaction import MASK, mask_fields
from mcp_server.tools.catalog import (
    Arguments,
    Catalog,
    InvalidArguments,
    Result,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.tools.schemas import argument_schema
from mcp_server.tools.text import table, truncate_middle

ROOT = Path(__file__).resolve().parents[2]


def test_the_policys_catalogue_is_the_generated_one() -> None:
    committed = yaml.safe_load((ROOT / "policies/config/catalog/data.yaml").read_text())

    assert committed == policy_catalog(), "run make generate"


def test_every_name_fits_the_wire_and_has_its_family() -> None:
    for name, entry in policy_catalog()["tools"].items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", entry["wire"])
        assert name == entry["wire"].replace("_", ":", 1)
        assert entry["family"] == name.split(":")[0]


def test_two_tools_cannot_share_a_name_on_the_wire() -> None:
    async def run(_arguments: Arguments, _context: ToolContext) -> Result:
        return Result()

    tool = Tool(
        name="a:b",
        title="",
        description="",
        permission="p",
        arguments=Arguments,
        result=Result,
        run=run,
        render=str,
        read_only=True,
        source="a test",
    )

    with pytest.raises(ValueError, match="same wire name"):
        Catalog([tool, dataclasses.replace(tool, name="a_b")])


def test_every_tool_refuses_an_unknown_argument_by_name_and_lists_the_known_ones() -> None:
    for tool in every_tool():
        with pytest.raises(InvalidArguments) as refused:
            tool.parse({"nosuch": 1})

        known = ", ".join(tool.arguments.model_fields)
        assert f"nosuch: unknown argument; known arguments: {known}" in str(refused.value)


@pytest.mark.parametrize(
    ("tool", "argument"),
    [
        pytest.param(tool, name, id=f"{tool.wire_name}-{name}")
        for tool in every_tool()
        for name, schema in argument_schema(tool.arguments, full=True)["properties"].items()
        if "pattern" in schema
    ],
)
def test_who_breaks_a_pattern_hears_in_words_what_is_taken(
    tool: Tool[Any, Any], argument: str
) -> None:
    pattern = argument_schema(tool.arguments, full=True)["properties"][argument]["pattern"]

    for broken in ("", " ", "a b", "-", "7d\n", "web\n", "Ä", "ß1"):
        with pytest.raises(InvalidArguments) as refused:
            tool.parse({argument: broken})

        (said,) = (
            fault.removeprefix(f"{argument}: ")
            for fault in str(refused.value).split("; ")
            if fault.startswith(f"{argument}: ")
        )
        assert re.fullmatch(r"must be [\w ,.-]+", said), said
        assert pattern not in said
    # What is given as an example is taken.
    example = said.rpartition("such as ")[2]
    assert re.fullmatch(pattern, example), example


def test_every_pattern_is_of_an_argument_of_its_own() -> None:
    # The test above looks no deeper.
    for tool in every_tool():
        schema = argument_schema(tool.arguments, full=True)
        found = [name for name, part in schema["properties"].items() if "pattern" in part]

        assert json.dumps(schema).count('"pattern"') == len(found), tool.name


@pytest.mark.parametrize(
    ("argument", "text", "taken"),
    [
        ("namespace", "a" * 63, True),
        ("namespace", "a" * 64, False),
        ("namespace", "team-a", True),
        ("namespace", "team-a\n", False),
        ("namespace", "Prod", False),
        ("kind", "Pod", True),
        ("kind", None, True),
        ("name", "web-1.a", True),
        ("name", "a/b", False),
    ],
)
def test_what_a_text_must_look_like_is_held(argument: str, text: str | None, taken: bool) -> None:
    (tool,) = (tool for tool in every_tool() if tool.name == "k8s:get_events")

    with contextlib.nullcontext() if taken else pytest.raises(InvalidArguments):
        tool.parse({argument: text})


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("k8s:get_pods", {f"a{n}": 1 for n in range(60)}, "and 50 more errors"),
        ("k8s:get_pods", {f"a{n}": 1 for n in range(100_000)}, "known arguments: limit, cursor"),
        ("k8s:get_pods", {"x" * 1_000_000: 1}, "x: unknown argument"),
        ("k8s:get_pods", {"fields": [1] * 100_000}, "a list has 100000 items"),
        ("k8s:get_pods", {"fields": [1] * 1000}, "and 990 more errors"),
        ("k8s:get_pods", {"fields": ["x" * 1_000_000]}, "known fields: name, namespace"),
        (
            "monitoring:create_dashboard",
            {"title": "t", "panels": [{"query": "up", **{f"a{n}": 1 for n in range(100_000)}}]},
            "an object has 100001 members",
        ),
    ],
)
def test_whatever_is_wrong_is_told_in_few_words(
    name: str, arguments: dict[str, Any], said: str
) -> None:
    (tool,) = (tool for tool in every_tool() if tool.name == name)

    with pytest.raises(InvalidArguments) as refused:
        tool.parse(arguments)

    assert said in str(refused.value)
    assert len(str(refused.value)) < 3000


def test_a_dry_run_of_scaling_changes_nothing() -> None:
    tool = every_tool().find("k8s_scale_deployment")
    assert tool is not None
    target = {"deployment": "web", "replicas": 2}

    assert tool.changes(tool.parse(target))
    assert not tool.changes(tool.parse({**target, "dry_run": True}))


def test_a_tool_that_changes_something_needs_a_verify_hint() -> None:
    tool = next(iter(every_tool()))

    with pytest.raises(TypeError, match="needs a verify_hint"):
        dataclasses.replace(tool, read_only=False)


def test_a_table_cannot_be_forged_from_inside_a_cell() -> None:
    text = table([{"a": "x\ny | z", "b": None}], ["a", "b"])

    assert text.splitlines() == ["a | b", "x y / z | -"]


@pytest.mark.parametrize(("widths", "expected"), [({}, 200), ({"a": 500}, 500), ({"b": 9}, 200)])
def test_a_long_cell_is_cut_in_its_middle_to_its_columns_width(
    widths: dict[str, int], expected: int
) -> None:
    (_, cell) = table([{"a": f"first {'x' * 1000} last"}], ["a"], widths).splitlines()

    assert len(cell) == expected
    assert cell.startswith("first xx")
    assert "xx … xx" in cell
    assert cell.endswith("xx last")


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [("whole", 5, "whole"), ("0123456789", 9, "012 … 789"), ("0123456789", 8, "012 … 89")],
)
def test_what_is_clipped_keeps_both_ends(text: str, most: int, expected: str) -> None:
    assert truncate_middle(text, most) == expected


def test_fields_are_masked_at_any_depth() -> None:
    document = {"token": 1, "list": [{"token": {"deep": 2}, "kept": 3}], "kept": {"token": [4]}}

    assert mask_fields(document, {"token"}) == {
        "token": MASK,
        "list": [{"token": MASK, "kept": 3}],
        "kept": {"token": MASK},
    }


def test_a_long_error_is_cut_without_the_secret_that_the_cut_goes_through() -> None:
    url = "postgresql://app:S3cretPassw0rdLong@db.example.com/shop"
    before = "x" * (4_000 - len("postgresql://app:S3cret"))

    message = str(ToolError(f"{before} {url} " + "y" * 4_000))

    assert "S3c" not in message
    assert len(message) == 4_001
    assert message.endswith("…")


def test_a_matcher_that_is_too_long_is_refused_with_the_limit() -> None:
    tool = next(each for each in every_tool() if each.name == "monitoring:get_alerts")

    with pytest.raises(InvalidArguments, match=r"^matchers.1: .* at most 1024 characters$"):
        tool.parse({"matchers": ['job="api"', "token:1 " * 200]})
