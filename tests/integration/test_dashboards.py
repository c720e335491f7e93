"""Dashboards through the whole server, in a fake Grafana (what it does not prove: its docstring)."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mcp_server.settings import GrafanaSettings
from mcp_server.tools.backend import OutcomeUnknown
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.monitoring.grafana import Folder, Grafana
from mcp_server.tools.monitoring.panels import Panel, dashboard_model
from tests.integration.fake_grafana import (
    EDITOR_TOKEN,
    HIDDEN_TITLE,
    SUB_PATH,
    VIEWER_TOKEN,
    FakeGrafana,
)
from tests.integration.nodes import LegacyClient, McpNode, modern_client
from tests.integration.servers import RedisServer, free_port

pytestmark = pytest.mark.anyio

TOOL = "monitoring_create_dashboard"
DASHBOARDS = "enterprise://monitoring/dashboards"
MakeNode = Callable[..., McpNode]
_PASSED_ON = {"Authorization", "Content-Type"}


def _settings(directory: Path, grafana: FakeGrafana, **different: Any) -> dict[str, Any]:
    token = directory / f"grafana-{different.pop('name', 'editor')}"
    token.write_text(different.pop("token", EDITOR_TOKEN))
    return {
        "url": grafana.url,
        "token": {"file": str(token)},
        "datasource_uid": "prom",
        "timeout_s": 5,
        **different,
    }


@pytest.fixture(scope="module")
def grafana_server(workspace: Path) -> Iterator[FakeGrafana]:
    server = FakeGrafana(workspace / "grafana", duplicates=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def grafana(grafana_server: FakeGrafana) -> FakeGrafana:
    """The fake, without dashboards."""
    grafana_server.restart()
    return grafana_server


@pytest.fixture(scope="module")
def drawing_node(
    make_node: MakeNode, workspace: Path, grafana_server: FakeGrafana
) -> Iterator[McpNode]:
    node = make_node("node-grafana", grafana=_settings(workspace, grafana_server))
    yield node
    node.stop()


@pytest.fixture
async def operator(
    drawing_node: McpNode, grafana: FakeGrafana, redis_server: RedisServer
) -> AsyncIterator[LegacyClient]:
    """A client of an operator, at a node that has Grafana; the counters are empty."""
    redis_server.cli("flushall")
    async with drawing_node.http(drawing_node.token(roles=["mcp:operator"])) as http:
        yield LegacyClient(http)


@asynccontextmanager
async def _serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an application for the length of the block, and give its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _losing_answers_of_changes(grafana: FakeGrafana) -> AsyncIterator[str]:
    """Pass everything on to Grafana, and break the connection in the place of answers to changes."""

    async def passed_on(request: web.Request) -> web.Response:
        async with ClientSession() as session:
            answer = await session.request(
                request.method,
                f"http://127.0.0.1:{grafana.port}{request.rel_url}",
                headers={name: request.headers[name] for name in _PASSED_ON & set(request.headers)},
                data=await request.read(),
            )
            body = await answer.read()
        if request.method != "GET":
            assert answer.status == 200
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", passed_on)
    async with _serving(app) as url:
        yield f"{url}{SUB_PATH}"


def _model(title: str, replaces: tuple[str, int] | None = None) -> dict[str, Any]:
    return dashboard_model(
        title, [Panel(query="up")], tags=[], datasource_uid="prom", replaces=replaces
    )


def _text(answer: dict[str, Any]) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


async def _created(client: LegacyClient, **arguments: Any) -> dict[str, Any]:
    answer = await client.call(TOOL, {"title": "Service", "panels": ["up"], **arguments})
    assert not answer["result"].get("isError"), _text(answer)
    saved: dict[str, Any] = answer["result"]["structuredContent"]
    return saved


async def _refused(client: LegacyClient, **arguments: Any) -> str:
    answer = await client.call(TOOL, {"title": "Service", "panels": ["up"], **arguments})
    assert answer["result"]["isError"] is True
    return _text(answer)


def _ask(grafana: FakeGrafana, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"{grafana.url}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {EDITOR_TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def _stored(grafana: FakeGrafana, uid: str) -> dict[str, Any]:
    document: dict[str, Any] = _ask(grafana, f"/api/dashboards/uid/{uid}")
    return document


def _titles(grafana: FakeGrafana) -> list[str]:
    return [hit["title"] for hit in _ask(grafana, "/api/search?type=dash-db&limit=100&page=1")]


async def _document(client: LegacyClient, uri: str) -> dict[str, Any]:
    answer = await client.request("resources/read", {"uri": uri})
    document: dict[str, Any] = json.loads(answer["result"]["contents"][0]["text"])
    return document


class TestCreation:
    async def test_a_dashboard_is_saved_with_its_panels(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        panels = [
            "up",
            {
                "query": "sum(rate(prometheus_http_requests_total[$__rate_interval]))",
                "unit": "reqps",
            },
            {"query": "count(up)", "title": "Targets", "type": "stat"},
            {"query": "up", "type": "gauge"},
            {"query": "up", "type": "bargauge"},
            {"query": "up", "type": "table"},
        ]

        saved = await _created(operator, panels=panels, folder="Operations")

        stored = _stored(grafana, saved["uid"])
        shown = stored["dashboard"]["panels"]
        assert saved["version"] == 1
        assert saved["url"] == (
            f"http://127.0.0.1:{grafana.port}{SUB_PATH}/d/{saved['uid']}/service"
        )
        assert stored["meta"]["folderUid"] == "ops"
        assert stored["meta"]["message"].startswith("by user-")
        assert [panel["type"] for panel in shown] == [
            *("timeseries", "timeseries", "stat", "gauge", "bargauge", "table")
        ]
        assert shown[1]["fieldConfig"]["defaults"]["unit"] == "reqps"
        assert shown[2]["title"] == "Targets"
        assert {panel["datasource"]["uid"] for panel in shown} == {"prom"}
        assert [panel["targets"][0]["expr"] for panel in shown][-1] == "up"

    async def test_panels_do_not_overlap_and_stay_on_the_grid(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        kinds = ["stat", "timeseries", "gauge", "timeseries", "table", "bargauge", "stat"]

        saved = await _created(operator, panels=[{"query": "up", "type": each} for each in kinds])

        taken: set[tuple[int, int]] = set()
        for panel in _stored(grafana, saved["uid"])["dashboard"]["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells

    async def test_a_query_without_data_is_a_warning(self, operator: LegacyClient) -> None:
        saved = await _created(operator, panels=["nothing_like_it"])

        assert saved["warnings"] == ["panel 1 ('nothing_like_it') has no data now"]

    async def test_every_faulty_query_is_named_and_nothing_is_saved(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        text = await _refused(
            operator,
            panels=["up{", "up", {"query": "rate(up)", "title": "R"}, '"text"', "up[5m]"],
        )

        assert "Nothing was saved" in text
        assert "panel 1 ('up{'): " in text
        assert "parse error" in text
        assert "panel 3 ('R'): " in text
        assert "panel 4 ('\"text\"'): its result is a string" in text
        assert "panel 5 ('up[5m]'): its result is a matrix" in text
        assert "panel 2" not in text
        assert _titles(grafana) == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"title": " \t"}, "title: must not be blank"),
            ({"title": "x" * 201}, "title: String should have at most 200 characters"),
            ({"panels": []}, "panels: List should have at least 1 item"),
            ({"panels": ["up"] * 41}, "panels: List should have at most 40 items"),
            ({"panels": [""]}, "panels.0.query: String should have at least 1 character"),
            ({"panels": [{"query": "up", "colour": "red"}]}, "known arguments: query, title, unit"),
            ({"folder": "Nowhere"}, "Grafana shows no folder 'Nowhere'"),
            ({"folder": "Twins"}, "several folders are called 'Twins'; give a uid: team-a, team-b"),
            ({"replace_uid": "x"}, "replace_uid needs expected_version"),
            ({"expected_version": 1}, "expected_version belongs to replace_uid"),
            ({"replace_uid": "x", "expected_version": 1}, "Grafana has no dashboard 'x'"),
            ({"replace_uid": "../x", "expected_version": 1}, "Grafana has no dashboard '../x'"),
            ({"replace_uid": "x", "expected_version": 1, "folder": "ops"}, "stays in its folder"),
        ],
    )
    async def test_what_is_wrong_is_said_and_nothing_is_saved(
        self,
        operator: LegacyClient,
        grafana: FakeGrafana,
        arguments: dict[str, Any],
        said: str,
    ) -> None:
        assert said in await _refused(operator, **arguments)
        assert _titles(grafana) == []

    async def test_a_folder_is_named_by_its_uid_where_titles_are_not_enough(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        saved = await _created(operator, folder="team-b")

        assert _stored(grafana, saved["uid"])["meta"]["folderUid"] == "team-b"


class TestExistingDashboards:
    async def test_a_title_that_is_taken_in_the_folder_is_refused_with_its_uid(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        first = await _created(operator, folder="ops")

        text = await _refused(operator, title="service", folder="ops")

        assert f"exists in the folder 'Operations' (uid {first['uid']}, " in text
        assert _titles(grafana) == ["Service"]

    async def test_the_same_title_in_another_folder_is_free(self, operator: LegacyClient) -> None:
        await _created(operator, folder="ops")

        assert (await _created(operator))["version"] == 1

    async def test_a_dashboard_is_replaced_at_the_version_named_and_keeps_its_folder(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        first = await _created(operator, folder="ops")

        second = await _created(
            operator,
            title="Renamed",
            panels=["count(up)"],
            replace_uid=first["uid"],
            expected_version=first["version"],
        )

        stored = _stored(grafana, first["uid"])
        assert (second["uid"], second["version"]) == (first["uid"], 2)
        assert stored["meta"]["folderUid"] == "ops"
        assert stored["dashboard"]["panels"][0]["targets"][0]["expr"] == "count(up)"
        assert _titles(grafana) == ["Renamed"]

    async def test_a_version_that_is_gone_is_refused_and_nothing_changes(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        first = await _created(operator)
        await _created(operator, replace_uid=first["uid"], expected_version=1)

        text = await _refused(
            operator, panels=["count(up)"], replace_uid=first["uid"], expected_version=1
        )

        assert "the dashboard has version 2 and not 1; someone changed it" in text
        assert _stored(grafana, first["uid"])["dashboard"]["version"] == 2

    async def test_a_title_that_only_grafana_knows_to_be_taken_is_refused_by_an_older_one(
        self, make_node: MakeNode, workspace: Path, redis_server: RedisServer
    ) -> None:
        redis_server.cli("flushall")
        older = FakeGrafana(workspace / "grafana-older")
        older.start()
        node = make_node("node-older", grafana=_settings(workspace, older))
        try:
            async with node.http(node.token(roles=["mcp:operator"])) as http:
                client = LegacyClient(http)
                text = await _refused(client, title=HIDDEN_TITLE)
        finally:
            node.stop()
            older.stop()

        assert "A dashboard with the same name in the folder already exists" in text


class TestPermission:
    async def test_an_operator_sees_the_tool_and_a_viewer_neither_sees_nor_calls_it(
        self, drawing_node: McpNode, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        shown = await operator.request("tools/list")
        async with drawing_node.http(drawing_node.token()) as http:
            viewer = LegacyClient(http)
            hidden = await viewer.request("tools/list")
            called = await viewer.call(TOOL, {"title": "Service", "panels": ["up"]})

        assert TOOL in [tool["name"] for tool in shown["result"]["tools"]]
        assert TOOL not in [tool["name"] for tool in hidden["result"]["tools"]]
        assert "error" in called
        assert _titles(grafana) == []

    async def test_the_hints_tell_that_it_changes_and_may_replace(
        self, operator: LegacyClient
    ) -> None:
        listed = await operator.request("tools/list")

        (hints,) = [t["annotations"] for t in listed["result"]["tools"] if t["name"] == TOOL]
        assert hints["readOnlyHint"] is False
        assert hints["destructiveHint"] is True
        assert hints["idempotentHint"] is False

    async def test_the_twenty_first_dashboard_in_an_hour_is_refused(
        self, operator: LegacyClient
    ) -> None:
        nowhere = {"title": "T", "panels": ["up"], "folder": "Nowhere"}
        answers = [await operator.call(TOOL, nowhere) for _ in range(21)]

        assert all("result" in answer for answer in answers[:20])
        assert answers[20]["error"]["data"]["reasons"][0]["code"] == "rate_limited"

    async def test_the_call_is_recorded(
        self, operator: LegacyClient, node_owner: asyncpg.Connection
    ) -> None:
        await _created(operator)

        row = await node_owner.fetchrow(
            "SELECT tool, effect, outcome, arguments::text FROM audit.events"
            " WHERE tool = 'monitoring:create_dashboard' AND outcome IS NOT NULL"
            " ORDER BY time DESC LIMIT 1"
        )
        assert tuple(row)[:3] == ("monitoring:create_dashboard", "allow", "ok")
        assert "Service" in row["arguments"]

    @pytest.mark.parametrize(
        ("token", "said"),
        [
            (VIEWER_TOKEN, "Grafana does not let its service account save the dashboard: You'll"),
            ("glsa_wrong", "Grafana does not accept this server's token (Invalid API key)"),
        ],
    )
    async def test_a_token_that_is_not_enough_is_said(
        self,
        make_node: MakeNode,
        workspace: Path,
        grafana: FakeGrafana,
        redis_server: RedisServer,
        token: str,
        said: str,
    ) -> None:
        redis_server.cli("flushall")
        settings = _settings(workspace, grafana, token=token, name=token)
        node = make_node(f"node-{token[:8]}-{len(token)}", grafana=settings)
        try:
            async with node.http(node.token(roles=["mcp:operator"])) as http:
                text = await _refused(LegacyClient(http))
        finally:
            node.stop()

        assert said in text
        assert token not in text
        assert _titles(grafana) == []


class TestFaults:
    async def test_an_outage_names_grafana_and_the_other_tools_work(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        with grafana.stopped():
            text = await _refused(operator)
            others = await operator.call("monitoring_query_metrics", {"query": "up"})
            listed = await operator.request("resources/read", {"uri": DASHBOARDS})

        assert "Grafana is not available" in text
        assert "structuredContent" in others["result"]
        assert "Grafana is not available" in listed["error"]["message"]

    async def test_a_slow_answer_meets_the_deadline(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        with grafana.paused():
            started = time.monotonic()
            text = await _refused(operator)
            took = time.monotonic() - started

        assert "Grafana is not available: no answer within 5 s" in text
        assert took < 60  # frozen, it would never answer

    async def test_without_grafana_there_is_neither_tool_nor_document(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["mcp:admin"])) as http:
            client = LegacyClient(http)
            tools = await client.request("tools/list")
            resources = await client.request("resources/list")
            templates = await client.request("resources/templates/list")
            called = await client.call(TOOL, {"title": "Service", "panels": ["up"]})

        assert TOOL not in [tool["name"] for tool in tools["result"]["tools"]]
        assert "monitoring_query_metrics" in [tool["name"] for tool in tools["result"]["tools"]]
        assert DASHBOARDS not in json.dumps([resources, templates])
        assert "error" in called


class TestClient:
    """What the checks before it leave to Grafana, as when someone else is faster."""

    @pytest.fixture
    async def client(self, workspace: Path, grafana: FakeGrafana) -> AsyncIterator[Grafana]:
        backend = Grafana(GrafanaSettings.model_validate(_settings(workspace, grafana)))
        await backend.start()
        yield backend
        await backend.stop()

    async def test_a_dashboard_that_was_changed_meanwhile_is_not_overwritten(
        self, client: Grafana, grafana: FakeGrafana
    ) -> None:
        first = await client.save(_model("Service"), folder=None, message="one")
        await client.save(_model("Service", (first.uid, 1)), folder=None, message="two")

        with pytest.raises(ToolError, match="changed by someone else"):
            await client.save(_model("Service", (first.uid, 1)), folder=None, message="three")

        assert _stored(grafana, first.uid)["meta"]["message"] == "two"

    @pytest.mark.parametrize(
        ("change", "folder", "said"),
        [
            ({}, Folder("gone", "Gone"), "refused to save the dashboard: folder not found"),
            ({"title": ""}, None, "Dashboard title cannot be empty"),
            ({"colour": "red"}, None, "colour: Extra inputs are not permitted"),
            ({"tags": "all"}, None, "tags: Input should be a valid list"),
        ],
    )
    async def test_what_grafana_refuses_is_passed_on(
        self, client: Grafana, change: dict[str, Any], folder: Folder | None, said: str
    ) -> None:
        with pytest.raises(ToolError, match=said):
            await client.save({**_model("Service"), **change}, folder=folder, message="")

    async def test_after_a_lost_answer_the_caller_is_told_to_look(
        self, client: Grafana, grafana: FakeGrafana
    ) -> None:
        with grafana.paused(), pytest.raises(ToolError, match="is not known") as caught:
            await client.save(_model("Service"), folder=None, message="")

        assert not caught.value.retryable

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (200, "<html>logged in</html>"),
            (200, "null"),
            (200, '{"status": "success"}'),
            (200, '{"uid": "a", "url": "/d/a", "version": "1"}'),
            (202, '{"uid": "a"}'),
            (204, ""),
        ],
    )
    async def test_an_answer_that_does_not_say_what_was_saved_leaves_it_unknown(
        self, workspace: Path, grafana: FakeGrafana, status: int, text: str
    ) -> None:
        """So something between Grafana and this server may answer."""

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text=text, content_type="application/json")

        app = web.Application()
        app.router.add_post("/api/dashboards/db", answer)
        async with _serving(app) as url:
            settings = _settings(workspace, grafana, url=url)
            client = Grafana(GrafanaSettings.model_validate(settings))
            await client.start()
            try:
                with pytest.raises(OutcomeUnknown, match="look for its title") as caught:
                    await client.save(_model("Service"), folder=None, message="")
            finally:
                await client.stop()

        assert not caught.value.retryable

    async def test_a_lost_answer_is_found_out_among_more_dashboards_than_are_listed(
        self,
        make_node: MakeNode,
        workspace: Path,
        grafana: FakeGrafana,
        redis_server: RedisServer,
    ) -> None:
        redis_server.cli("flushall")
        for number in range(201):
            _ask(grafana, "/api/dashboards/db", {"dashboard": _model(f"{number:03}")})
        async with _losing_answers_of_changes(grafana) as url:
            node = make_node("node-lost", grafana=_settings(workspace, grafana, url=url))
            try:
                async with node.http(node.token(roles=["mcp:operator"])) as http:
                    client = LegacyClient(http)
                    unknown = await _refused(client)
                    listed = await _document(client, DASHBOARDS)
                    known = await _refused(client)
            finally:
                node.stop()

        (saved,) = _ask(grafana, "/api/search?type=dash-db&query=Service&limit=9&page=1")
        assert "it is not known whether the change was made" in unknown
        assert "call with the same title and folder" in unknown
        assert listed["truncated"] is True
        assert "Service" not in json.dumps(listed)
        assert f"exists at the root (uid {saved['uid']}, " in known


class TestDocuments:
    async def test_dashboards_are_listed_by_title(self, operator: LegacyClient) -> None:
        second = await _created(operator, title="Zeta")
        first = await _created(operator, title="Alpha", folder="ops")

        resources = await operator.request("resources/list")
        document = await _document(operator, DASHBOARDS)

        assert DASHBOARDS in [each["uri"] for each in resources["result"]["resources"]]
        assert document == {
            "dashboards": [
                {
                    "uid": first["uid"],
                    "title": "Alpha",
                    "folder": "Operations",
                    "url": first["url"],
                    "tags": ["enterprise-mcp"],
                },
                {
                    "uid": second["uid"],
                    "title": "Zeta",
                    "folder": None,
                    "url": second["url"],
                    "tags": ["enterprise-mcp"],
                },
            ],
            "truncated": False,
        }

    async def test_more_dashboards_than_are_listed_are_said(
        self, operator: LegacyClient, grafana: FakeGrafana
    ) -> None:
        first = await _created(operator, title="000")
        model = _stored(grafana, first["uid"])["dashboard"]
        for number in range(1, 202):
            copy = {**model, "title": f"{number:03}", "uid": f"copy{number}"}
            del copy["id"], copy["version"]
            _ask(grafana, "/api/dashboards/db", {"dashboard": copy})

        document = await _document(operator, DASHBOARDS)

        assert len(document["dashboards"]) == 200
        assert document["truncated"] is True

    async def test_a_dashboard_is_read_with_its_version_and_queries(
        self, operator: LegacyClient
    ) -> None:
        saved = await _created(
            operator, panels=[{"query": "up", "title": "Up", "unit": "short"}], folder="ops"
        )

        templates = await operator.request("resources/templates/list")
        document = await _document(operator, f"{DASHBOARDS}/{saved['uid']}")

        assert f"{DASHBOARDS}/{{uid}}" in [
            each["uriTemplate"] for each in templates["result"]["resourceTemplates"]
        ]
        assert document == {
            "uid": saved["uid"],
            "title": "Service",
            "folder": "Operations",
            "url": saved["url"],
            "tags": ["enterprise-mcp"],
            "version": 1,
            "panels": [{"title": "Up", "type": "timeseries", "unit": "short", "queries": ["up"]}],
            "truncated": False,
        }

    @pytest.mark.parametrize("uid", ["absent", "..%2F..%2Fapi", "a%20b"])
    async def test_a_dashboard_that_is_not_there_is_said(
        self, operator: LegacyClient, uid: str
    ) -> None:
        answer = await operator.request("resources/read", {"uri": f"{DASHBOARDS}/{uid}"})

        assert "Grafana has no such dashboard" in answer["error"]["message"]

    async def test_a_uid_is_completed(self, drawing_node: McpNode, operator: LegacyClient) -> None:
        saved = await _created(operator)

        found = [
            (
                await operator.request(
                    "completion/complete",
                    {
                        "ref": {"type": "ref/resource", "uri": f"{DASHBOARDS}/{{uid}}"},
                        "argument": {"name": "uid", "value": text},
                    },
                )
            )["result"]["completion"]["values"]
            for text in (saved["uid"][:3], "no-such")
        ]

        assert found == [[saved["uid"]], []]

    async def test_the_newest_era_reads_the_list_too(
        self, drawing_node: McpNode, operator: LegacyClient
    ) -> None:
        await _created(operator)

        async with modern_client(drawing_node, drawing_node.token()) as client:
            read = await client.read_resource(DASHBOARDS)

        assert json.loads(read.contents[0].text)["dashboards"][0]["title"] == "Service"  # type: ignore[union-attr]
