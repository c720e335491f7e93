"""Prompts: arguments, text, and when they are offered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.gate import Answer, Call, Caller, Gate
from mcp_server.policy import Obligations
from mcp_server.prompts import PROMPTS, Prompts
from mcp_server.tools.catalog import (
    Arguments,
    Catalog,
    InvalidArguments,
    ListArguments,
    ListResult,
    Result,
    Tool,
    ToolContext,
)
from mcp_server.transports.declarations import instructions

TRIAGE = next(prompt for prompt in PROMPTS if prompt.name == "triage_alert")


async def _never(_arguments: Any, _context: ToolContext) -> Any:
    raise AssertionError("only declared")


def tool(name: str) -> Tool[Any, Any]:
    return Tool(
        name=name,
        title="",
        description="",
        permission="p",
        arguments=Arguments,
        result=Result,
        run=_never,
        render=str,
        read_only=True,
        source="a test",
    )


ALERTS = Catalog([tool("monitoring:get_alerts")])


def _data(text: str) -> Any:
    return json.loads(text.partition("<arguments>\n")[2].partition("\n</arguments>")[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "alert: Field required"),
        ({"alert": ""}, "alert: String should have at least 1 character"),
        ({"alert": "x" * 254}, "alert: String should have at most 253 characters"),
        (
            {"alert": "x", "severity": "bad"},
            "severity: Input should be 'critical', 'warning' or 'info'",
        ),
        (
            {"alert": "x", "alart": "y"},
            "alart: unknown argument; known arguments: alert, severity, service",
        ),
    ],
)
def test_each_fault_of_the_arguments_is_named(arguments: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArguments, match="^" + named):
        TRIAGE.parse(arguments)


@given(st.text(min_size=1, max_size=253))
def test_an_argument_is_data_that_cannot_leave_its_mark(text: str) -> None:
    rendered = TRIAGE.render(TRIAGE.parse({"alert": text}), ALERTS)

    assert rendered.count("<arguments>") == rendered.count("</arguments>") == 1
    assert _data(rendered) == {"alert": text}


# For which argument of which tool each argument of a prompt is meant.
MEANT_FOR = {
    ("triage_alert", "alert"): ("monitoring:get_alerts", "matchers"),
    ("triage_alert", "severity"): ("monitoring:get_alerts", "severity"),
    ("triage_alert", "service"): ("cmdb:get_service_topology", "service_name"),
    ("review_rollout", "deployment"): ("k8s:get_rollout_status", "deployment"),
    ("review_rollout", "namespace"): ("k8s:get_rollout_status", "namespace"),
    ("review_rollout", "cluster"): ("k8s:get_rollout_status", "cluster"),
    ("explain_dependencies", "service"): ("cmdb:get_service_topology", "service_name"),
    ("review_asset", "asset_id"): ("cmdb:get_change_records", "asset_id"),
    ("review_asset", "time_range"): ("cmdb:get_change_records", "time_range"),
}
REQUIRED = {"deployment": "web", "service_name": "web", "asset_id": "db1"}
AWKWARD = ("99999d", "9999w", "\u0667d", "7d\n", "", "\0", 'a"b', "../a", "A", "x" * 253, "x" * 257)


def test_every_argument_of_a_prompt_is_meant_for_one_of_a_tool() -> None:
    assert set(MEANT_FOR) == {
        (prompt.name, argument) for prompt in PROMPTS for argument in prompt.arguments.model_fields
    }


@pytest.mark.parametrize(("of_prompt", "of_tool"), MEANT_FOR.items())
@given(value=st.one_of(st.sampled_from(AWKWARD), st.text(), st.from_regex(r"\A\d{1,5}[mhdw]\Z")))
def test_what_a_prompt_takes_its_tool_takes(
    of_prompt: tuple[str, str], of_tool: tuple[str, str], value: str
) -> None:
    (prompt,) = (each for each in PROMPTS if each.name == of_prompt[0])
    (meant,) = (each for each in every_tool() if each.name == of_tool[0])
    required = {
        name: "x" for name, field in prompt.arguments.model_fields.items() if field.is_required()
    }
    try:
        prompt.parse({**required, of_prompt[1]: value})
    except InvalidArguments:
        return

    known = {name: text for name, text in REQUIRED.items() if name in meant.arguments.model_fields}
    sent = (
        [f"alertname={json.dumps(value, ensure_ascii=False)}"]
        if of_tool[1] == "matchers"
        else value
    )
    meant.parse({**known, of_tool[1]: sent})


def test_a_prompt_is_offered_only_where_its_required_tools_are() -> None:
    assert [prompt.name for prompt in Prompts(PROMPTS, ALERTS)] == ["triage_alert"]
    assert not list(Prompts(PROMPTS, Catalog([])))


def test_steps_whose_tool_is_not_there_are_left_out() -> None:
    more = Catalog([tool("monitoring:get_alerts"), tool("k8s:get_pods")])

    fewer_steps = TRIAGE.render(TRIAGE.parse({"alert": "x"}), ALERTS)
    more_steps = TRIAGE.render(TRIAGE.parse({"alert": "x"}), more)

    assert "k8s_get_pods" not in fewer_steps
    assert "2. `k8s_get_pods`" in more_steps


def test_an_argument_with_choices_completes_to_them() -> None:
    assert TRIAGE.choices("severity") == ("critical", "warning", "info")
    assert TRIAGE.choices("alert") == ()
    assert TRIAGE.choices("unknown") is None


class Row(BaseModel):
    """One row."""

    name: str
    labels: dict[str, str] = {}


class Rows(ListResult):
    """A page of names."""

    alerts: list[Row]


class OpenGate:
    """Lets every call through, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[Call] = []

    async def perform_or_fail(
        self, _: Caller, call: Call, work: Callable[[Obligations], Awaitable[Any]], **__: Any
    ) -> Answer[Any]:
        self.asked.append(call)
        return Answer(await work(Obligations()), ())


@pytest.mark.anyio
async def test_a_completion_reads_one_page_and_says_that_there_is_more() -> None:
    pages = []

    async def run(arguments: ListArguments, _: ToolContext) -> Rows:
        pages.append(arguments.cursor)
        return Rows(
            alerts=[Row(name="DiskFull"), Row(name="Slow")],
            total=5000,
            truncated=True,
            next_cursor="more",
        )

    listing = dataclasses.replace(
        tool("monitoring:get_alerts"), arguments=ListArguments, result=Rows, rows="alerts", run=run
    )
    gate, caller = OpenGate(), Mock(subject=Mock(roles=(), groups=()))

    found = await Prompts(PROMPTS, Catalog([listing])).complete(
        cast("Gate", gate), caller, "triage_alert", "alert", "Di", given={}, resources=Mock()
    )

    assert pages == [None]
    assert (found.values, found.total, found.has_more) == (("DiskFull",), None, True)
    assert [call.resource.id for call in gate.asked] == ["triage_alert", "monitoring:get_alerts"]


def test_every_prompt_is_described_with_every_argument() -> None:
    for prompt in PROMPTS:
        assert prompt.description
        assert prompt.required
        for name, field in prompt.arguments.model_fields.items():
            assert field.description, f"{prompt.name}: {name}"


def test_the_instructions_name_the_families_that_are_there() -> None:
    assert "CMDB" in instructions(["cmdb"])
    assert "Kubernetes" not in instructions(["cmdb", "monitoring"])
    assert instructions([]).startswith("Policy decides every call")


def test_the_tools_of_prompts_have_the_names_of_their_families() -> None:
    families = {tool.family for tool in every_tool()} | {"k8s"}

    assert {step.tool.partition(":")[0] for prompt in PROMPTS for step in prompt.steps} <= families
