"""Resources, templates, prompts, completion and pages through the whole server."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from mcp_types import CacheableResult

from tests.integration.nodes import LegacyClient, McpNode, modern_client
from tests.integration.servers import (
    Alertmanager,
    Opa,
    Prometheus,
    RedisServer,
    build_bundle,
)

pytestmark = pytest.mark.anyio

INVALID_PARAMS = -32602
POLICY_ME = "enterprise://policy/me"
_POLICIES = Path(__file__).resolve().parents[2] / "policies"


@pytest.fixture
async def legacy(node: McpNode) -> AsyncIterator[LegacyClient]:
    async with node.http(node.token()) as http:
        yield LegacyClient(http)


@pytest.fixture(scope="module")
def alerting(workspace: Path) -> Iterator[Prometheus]:
    """A Prometheus whose alerts name services, each in another label."""
    labels = {
        "CheckoutSlow": {"severity": "critical", "service": "checkout"},
        "DiskFull": {"severity": "info", "job": "node"},
    }
    server = Prometheus(
        workspace / "alerting",
        rules=[
            {"alert": name, "expr": "vector(1)", "labels": each} for name, each in labels.items()
        ],
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def alerting_node(
    make_node: Callable[..., McpNode], workspace: Path, alerting: Prometheus
) -> Iterator[McpNode]:
    """A node with this Prometheus, and an Alertmanager that nobody sends anything."""
    quiet = Alertmanager(workspace / "quiet")
    quiet.start()
    node = make_node("node-alerting", prometheus_url=alerting.url, alertmanager_url=quiet.url)
    yield node
    node.stop()
    quiet.stop()


@pytest.fixture(scope="module")
def masking_node(
    make_node: Callable[..., McpNode], workspace: Path, alerting: Prometheus
) -> Iterator[McpNode]:
    """As `alerting_node`, where the policy masks ids, the names of alerts, and their services."""
    tree = workspace / "masking"
    shutil.copytree(_POLICIES, tree)
    path = tree / "config/obligations/data.yaml"
    data = yaml.safe_load(path.read_text())
    data["default"]["redact"] += ["id", "name", "service", "job"]
    path.write_text(yaml.safe_dump(data))
    opa = Opa(workspace / "opa-masking", build_bundle(tree, workspace / "masking.tar.gz"))
    opa.start()
    quiet = Alertmanager(workspace / "quiet-masking")
    quiet.start()
    node = make_node(
        "node-masking",
        policy=opa.settings(),
        prometheus_url=alerting.url,
        alertmanager_url=quiet.url,
    )
    yield node
    node.stop()
    quiet.stop()
    opa.stop()


async def _entitlements(client: LegacyClient) -> dict[str, Any]:
    answer = await client.request("resources/read", {"uri": POLICY_ME})
    document: dict[str, Any] = json.loads(answer["result"]["contents"][0]["text"])
    return document


class TestLists:
    @pytest.mark.parametrize(
        "method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]
    )
    async def test_a_cursor_that_was_not_given_is_named(
        self, legacy: LegacyClient, method: str
    ) -> None:
        answer = await legacy.request(method, {"cursor": "bogus"})

        assert answer["error"]["code"] == INVALID_PARAMS
        assert f"not a cursor of {method}" in answer["error"]["message"]

    async def test_lists_are_private_and_tell_how_long_they_hold(self, node: McpNode) -> None:
        async with modern_client(node, node.token()) as client:
            lists: list[CacheableResult] = [
                await client.list_tools(),
                await client.list_resources(),
                await client.list_resource_templates(),
                await client.list_prompts(),
            ]

        assert {result.cache_scope for result in lists} == {"private"}
        assert {result.ttl_ms for result in lists} == {60_000}

    async def test_templates_are_not_among_the_resources(self, legacy: LegacyClient) -> None:
        resources = (await legacy.request("resources/list"))["result"]["resources"]
        templates = (await legacy.request("resources/templates/list"))["result"]

        assert all("{" not in resource["uri"] for resource in resources)
        assert all("{" in row["uriTemplate"] for row in templates["resourceTemplates"])

    async def test_a_subject_without_a_role_gets_no_list(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["mcp:unheard_of"])) as http:
            answer = await LegacyClient(http).request("prompts/list")

        assert answer["error"]["data"]["reasons"][0]["code"] == "method_not_permitted"

    async def test_the_server_announces_what_it_can_do(self, legacy: LegacyClient) -> None:
        hello = await legacy.initialize()

        assert {"tools", "resources", "prompts", "completions"} <= set(hello["capabilities"])
        assert "the CMDB" in hello["instructions"]


class TestReading:
    async def test_hidden_and_absent_resources_are_refused_alike(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["mcp:unheard_of"])) as http:
            client = LegacyClient(http)
            hidden = await client.request("resources/read", {"uri": "enterprise://cmdb/assets"})
            absent = await client.request("resources/read", {"uri": "enterprise://no/such"})

        for answer in (hidden, absent):
            for varying in ("uri", "request_id"):
                answer["error"]["data"].pop(varying)
            answer.pop("id")
        assert hidden == absent
        assert hidden["error"]["code"] == INVALID_PARAMS

    async def test_the_words_of_a_template_are_no_resource(self, legacy: LegacyClient) -> None:
        uri = "enterprise://cmdb/assets/{id}"

        answer = await legacy.request("resources/read", {"uri": uri})

        assert answer["error"]["code"] == INVALID_PARAMS

    async def test_reading_is_recorded_with_the_document_and_the_uri(
        self, legacy: LegacyClient, node_owner: asyncpg.Connection
    ) -> None:
        await legacy.request("resources/read", {"uri": "enterprise://no/such"})

        row = await node_owner.fetchrow(
            "SELECT tool, effect, arguments FROM audit.events WHERE method = 'resources/read'"
            " ORDER BY time DESC LIMIT 1"
        )
        assert (row["tool"], row["effect"]) == ("enterprise://no/such", "deny")
        assert json.loads(row["arguments"]) == {"uri": "enterprise://no/such"}


class TestEntitlements:
    async def test_what_is_left_counts_calls_and_the_reading_itself(
        self, legacy: LegacyClient
    ) -> None:
        before = await _entitlements(legacy)
        await legacy.call("cmdb_query_assets")
        after = await _entitlements(legacy)

        left_before = {row["id"]: row["remaining"] for row in before["limits"]}
        left_after = {row["id"]: row["remaining"] for row in after["limits"]}
        assert left_before == {"global": 999, "user": 99}
        assert left_after == {"global": 997, "user": 97}

    async def test_what_may_be_done_is_what_is_listed(self, legacy: LegacyClient) -> None:
        entitlements = await _entitlements(legacy)
        tools = (await legacy.request("tools/list"))["result"]["tools"]
        resources = (await legacy.request("resources/list"))["result"]["resources"]
        templates = (await legacy.request("resources/templates/list"))["result"]
        prompts = (await legacy.request("prompts/list"))["result"]["prompts"]

        assert [tool["name"] for tool in entitlements["tools"]] == [tool["name"] for tool in tools]
        assert entitlements["resources"] == sorted(
            [row["uri"] for row in resources]
            + [row["uriTemplate"] for row in templates["resourceTemplates"]]
        )
        assert entitlements["prompts"] == [prompt["name"] for prompt in prompts]
        assert entitlements["roles"] == ["mcp:viewer"]

    async def test_finding_out_charges_nothing_beside_the_reading(
        self, legacy: LegacyClient, redis_server: RedisServer
    ) -> None:
        await _entitlements(legacy)

        assert redis_server.cli("zcard", "mcp:window:global").strip() == "1"
        assert len(redis_server.cli("keys", "mcp:window:*").split()) == 2


class TestPrompts:
    async def test_a_prompt_is_listed_and_filled_in(self, node: McpNode) -> None:
        async with modern_client(node, node.token()) as client:
            prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
            got = await client.get_prompt("triage_alert", {"alert": "HighErrorRate"})

        arguments = {
            argument.name: argument for argument in prompts["triage_alert"].arguments or []
        }
        assert arguments["alert"].required is True
        assert arguments["severity"].required is False
        assert '"alert": "HighErrorRate"' in got.messages[0].content.text  # type: ignore[union-attr]
        assert "monitoring_get_alerts" in got.messages[0].content.text  # type: ignore[union-attr]

    async def test_faulty_arguments_are_named(self, legacy: LegacyClient) -> None:
        answer = await legacy.request(
            "prompts/get", {"name": "triage_alert", "arguments": {"alert": "x", "alart": "y"}}
        )

        assert answer["error"]["code"] == INVALID_PARAMS
        assert "alart: unknown argument; known arguments: alert" in answer["error"]["message"]

    async def test_hidden_and_absent_prompts_are_refused_alike(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["mcp:unheard_of"])) as http:
            client = LegacyClient(http)
            hidden = await client.request("prompts/get", {"name": "triage_alert"})
            absent = await client.request("prompts/get", {"name": "no_such"})

        assert hidden["error"]["message"] == absent["error"]["message"]
        assert hidden["error"]["code"] == absent["error"]["code"] == INVALID_PARAMS

    async def test_a_prompt_is_recorded_by_its_name(
        self, legacy: LegacyClient, node_owner: asyncpg.Connection
    ) -> None:
        await legacy.request("prompts/get", {"name": "triage_alert", "arguments": {}})

        row = await node_owner.fetchrow(
            "SELECT tool, effect, outcome FROM audit.events WHERE method = 'prompts/get'"
            " ORDER BY time DESC LIMIT 1"
        )
        assert tuple(row) == ("triage_alert", "allow", "invalid_arguments")


class TestCompletion:
    @staticmethod
    def _of_prompt(name: str, argument: str, value: str) -> dict[str, Any]:
        return {
            "ref": {"type": "ref/prompt", "name": name},
            "argument": {"name": argument, "value": value},
        }

    async def test_an_argument_with_choices_is_completed(self, legacy: LegacyClient) -> None:
        answer = await legacy.request(
            "completion/complete", self._of_prompt("triage_alert", "severity", "w")
        )

        assert answer["result"]["completion"] == {
            "values": ["warning"],
            "total": 1,
            "hasMore": False,
        }

    async def test_an_unknown_argument_is_named(self, legacy: LegacyClient) -> None:
        answer = await legacy.request(
            "completion/complete", self._of_prompt("triage_alert", "alart", "")
        )

        assert answer["error"]["code"] == INVALID_PARAMS
        assert "alart: unknown argument; known arguments: alert" in answer["error"]["message"]

    @pytest.mark.parametrize(
        ("argument", "value", "given", "values"),
        [
            ("alert", "", {}, ["CheckoutSlow", "DiskFull"]),
            ("alert", "Che", {}, ["CheckoutSlow"]),
            ("alert", "che", {}, []),
            ("alert", "", {"severity": "info"}, ["DiskFull"]),
            ("alert", "", {"severity": "unheard of"}, []),
            ("service", "", {}, ["checkout", "node"]),
            ("service", "", {"alert": "DiskFull"}, ["node"]),
            ("service", "", {"alert": 'x"} or up{job="prometheus'}, []),
        ],
    )
    async def test_an_alert_and_its_service_are_completed_from_what_fires(
        self,
        alerting_node: McpNode,
        argument: str,
        value: str,
        given: dict[str, str],
        values: list[str],
    ) -> None:
        async with alerting_node.http(alerting_node.token()) as http:
            answer = await LegacyClient(http).request(
                "completion/complete",
                {
                    **self._of_prompt("triage_alert", argument, value),
                    "context": {"arguments": given},
                },
            )

        assert answer["result"]["completion"]["values"] == values

    async def test_every_completion_is_recorded_with_what_it_was_decided_as(
        self, legacy: LegacyClient, node_owner: asyncpg.Connection
    ) -> None:
        since = await node_owner.fetchval("SELECT now()")
        for params in (
            self._of_prompt("triage_alert", "severity", "w"),
            self._of_prompt("triage_alert", "alert", "password=hunter2"),
            self._of_prompt("triage_alert", "alart", ""),
            self._of_prompt("no_such", "alert", ""),
            {
                "ref": {"type": "ref/resource", "uri": "enterprise://cmdb/assets/{id}"},
                "argument": {"name": "id", "value": "db"},
            },
        ):
            await legacy.request("completion/complete", params)

        rows = await node_owner.fetch(
            "SELECT tool, effect, outcome, arguments->>'argument' AS argument,"
            " arguments->>'value' AS value FROM audit.events"
            " WHERE method = 'completion/complete' AND phase = 'outcome' AND time >= $1"
            " ORDER BY time",
            since,
        )
        assert [tuple(row) for row in rows] == [
            ("triage_alert", "allow", "ok", "severity", "w"),
            ("triage_alert", "allow", "ok", "alert", "password=[redacted]"),
            ("monitoring:get_alerts", "allow", "ok", "alert", "password=[redacted]"),
            ("triage_alert", "allow", "invalid_arguments", "alart", ""),
            ("no_such", "deny", "denied", "alert", ""),
            ("enterprise://cmdb/assets/{id}", "allow", "ok", "id", "db"),
        ]

    @pytest.mark.parametrize(
        ("value", "given", "roles", "code", "effect", "outcome"),
        [
            ("token:1 " * 16_000, {}, ["mcp:viewer"], INVALID_PARAMS, "allow", "invalid_arguments"),
            (
                "",
                {"id": "x" * 90_000},
                ["mcp:viewer"],
                INVALID_PARAMS,
                "allow",
                "invalid_arguments",
            ),
            ("token:1 " * 16_000, {}, [], None, "deny", "denied"),
        ],
        ids=["value", "other value", "no role"],
    )
    @pytest.mark.parametrize(
        ("ref", "argument"),
        [
            ({"type": "ref/prompt", "name": "triage_alert"}, "alert"),
            ({"type": "ref/resource", "uri": "enterprise://cmdb/assets/{id}"}, "id"),
        ],
        ids=["prompt", "resource"],
    )
    async def test_a_text_that_is_too_long_to_complete_is_decided_recorded_and_refused(
        self,
        node: McpNode,
        node_owner: asyncpg.Connection,
        ref: dict[str, str],
        argument: str,
        value: str,
        given: dict[str, str],
        roles: list[str],
        code: int | None,
        effect: str,
        outcome: str,
    ) -> None:
        since = await node_owner.fetchval("SELECT now()")
        params = {
            "ref": ref,
            "argument": {"name": argument, "value": value},
            "context": {"arguments": given},
        }

        async with node.http(node.token(roles=roles)) as http:
            answer = await LegacyClient(http).request("completion/complete", params)

        if code is not None:
            assert answer["error"]["code"] == code
            assert "at most 1024 characters" in answer["error"]["message"]
        row = await node_owner.fetchrow(
            "SELECT effect, outcome, length(arguments::text) AS size, judged FROM audit.events"
            " WHERE method = 'completion/complete' AND time >= $1",
            since,
        )
        assert (row["effect"], row["outcome"]) == (effect, outcome)
        assert row["size"] <= 17 * 1024
        assert len(row["judged"]) <= 9 * 1024
        assert json.loads(row["judged"])["withheld"] == (["/value"] if value else [])

    async def test_completing_has_a_limit_of_its_own_and_uses_up_no_calls(
        self, node: McpNode, redis_server: RedisServer
    ) -> None:
        redis_server.cli("flushall")
        typed = self._of_prompt("triage_alert", "severity", "w")
        async with node.http(node.token()) as http:
            client = LegacyClient(http)
            for _ in range(120):
                answer = await client.request("completion/complete", typed)
                assert answer["result"]["completion"]["values"] == ["warning"]
            (window,) = redis_server.cli("keys", "mcp:window:*").split()
            refused = await client.request("completion/complete", typed)
            called = await client.call("monitoring_list_metrics", {})

        assert "method:completion/complete:user:" in window
        assert "the limit of 120 calls in 60 seconds is used up" in refused["error"]["message"]
        assert not called["result"].get("isError"), called

    async def test_names_are_not_completed_while_their_backend_is_away(
        self, alerting_node: McpNode, alerting: Prometheus
    ) -> None:
        async with alerting_node.http(alerting_node.token()) as http:
            with alerting.stopped():
                answer = await LegacyClient(http).request(
                    "completion/complete", self._of_prompt("triage_alert", "alert", "")
                )

        assert "Prometheus is not available" in answer["error"]["message"]

    @pytest.mark.parametrize(
        ("ref", "argument"),
        [
            ({"type": "ref/resource", "uri": "enterprise://cmdb/assets/{id}"}, "id"),
            ({"type": "ref/prompt", "name": "review_asset"}, "asset_id"),
            ({"type": "ref/prompt", "name": "triage_alert"}, "alert"),
            ({"type": "ref/prompt", "name": "triage_alert"}, "service"),
        ],
    )
    @pytest.mark.usefixtures("assets")
    async def test_what_the_policy_masks_is_not_completed(
        self, alerting_node: McpNode, masking_node: McpNode, ref: dict[str, str], argument: str
    ) -> None:
        found = []
        for node in (alerting_node, masking_node):
            async with node.http(node.token()) as http:
                answer = await LegacyClient(http).request(
                    "completion/complete",
                    {"ref": ref, "argument": {"name": argument, "value": ""}},
                )
            found.append(answer["result"]["completion"])

        shown, masked = found
        assert shown["values"]
        assert masked == {"values": [], "total": 0, "hasMore": False}

    async def test_who_may_not_use_a_thing_learns_nothing_of_it(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["mcp:unheard_of"])) as http:
            client = LegacyClient(http)
            answers = [
                await client.request("completion/complete", self._of_prompt(name, "severity", "w"))
                for name in ("triage_alert", "no_such")
            ]

        assert answers[0]["error"]["message"] == answers[1]["error"]["message"]
