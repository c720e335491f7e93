"""What stands before a backend, such as a page to log in at, may answer in its place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import BackendUnavailable
from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.monitoring.alertmanager import Alertmanager
from mcp_server.tools.monitoring.family import Monitoring
from tests.integration.servers import free_port

pytestmark = pytest.mark.anyio

CONTEXT = ToolContext(user="alice", tenant="default")


class Stranger:
    """Answers every request.

    Attributes:
        url: its own.
        text: with what.
        status: with which status.
    """

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.text = ""
        self.status = 200

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(status=self.status, text=self.text, content_type="application/json")


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    running = Stranger()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", running.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    host, port = running.url.removeprefix("http://").split(":")
    await web.TCPSite(runner, host, int(port)).start()
    yield running
    await runner.cleanup()


@pytest.fixture
async def family(stranger: Stranger, tmp_path: Path) -> AsyncIterator[Monitoring]:
    (tmp_path / "token").write_text("token")
    settings = {
        "prometheus_url": stranger.url,
        "alertmanager_url": stranger.url,
        "grafana": {
            "url": stranger.url,
            "token": {"file": str(tmp_path / "token")},
            "datasource_uid": "prom",
        },
    }
    monitoring = Monitoring(MonitoringSettings.model_validate(settings))
    await monitoring.start()
    yield monitoring
    await monitoring.stop()


async def call(family: Monitoring, name: str, **arguments: Any) -> Any:
    (tool,) = (tool for tool in family.tools() if tool.name == f"monitoring:{name}")
    return await tool.run(tool.parse(arguments), CONTEXT)


async def read(family: Monitoring, uri: str, **parameters: str) -> str:
    (document,) = (document for document in family.resources() if document.uri == uri)
    return await document.read(CONTEXT, parameters)


STRANGE = [
    "<html>",
    "null",
    "[]",
    "{}",
    '"text"',
    '{"status": "success"}',
    '{"status": "success", "data": null}',
    '{"status": "success", "data": {"resultType": "matrix", "result": [7], "alerts": [7]}}',
    '{"status": "success", "data": {"resultType": "vector", "result": {"a": 1}, "alerts": "b"}}',
]


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("query_metrics", {"query": "up"}),
        ("query_metrics", {"query": "up", "instant": True}),
        ("list_metrics", {}),
        ("get_alerts", {}),
        ("get_alerts", {"matchers": ["a=b"]}),
    ],
)
async def test_what_is_not_of_prometheus_is_an_outage_of_it(
    family: Monitoring, stranger: Stranger, name: str, arguments: dict[str, Any], text: str
) -> None:
    stranger.text = text

    with pytest.raises(
        BackendUnavailable, match=r"^Prometheus is not available: (it answered|its response)"
    ):
        await call(family, name, **arguments)


@pytest.mark.parametrize("text", STRANGE)
async def test_a_health_check_knows_nothing_then(
    family: Monitoring, stranger: Stranger, text: str
) -> None:
    stranger.text = text

    found = await call(family, "health_check", service="web")

    assert found.verdict == "unknown"
    assert {each.source: each.verdict for each in found.evidence} == {
        "workloads": "unknown",
        "targets": "unknown",
        "alerts": "unknown",
    }


@pytest.mark.parametrize("text", ["<html>", "null", "{}", '[{"labels": {}}]', "[7]", '"text"'])
async def test_what_is_not_of_alertmanager_is_an_outage_of_it(
    stranger: Stranger, text: str
) -> None:
    stranger.text = text
    addresses = {"prometheus_url": stranger.url, "alertmanager_url": stranger.url}
    alertmanager = Alertmanager(MonitoringSettings.model_validate(addresses))
    await alertmanager.start()
    try:
        with pytest.raises(
            BackendUnavailable, match=r"^Alertmanager is not available: (it answered|its response)"
        ):
            await alertmanager.alerts()
    finally:
        await alertmanager.stop()


@pytest.mark.parametrize(
    "text", ["<html>", "null", '"text"', "[7]", '[{"uid": "a"}]', '{"dashboard": {"title": "t"}}']
)
@pytest.mark.parametrize(
    ("uri", "parameters"),
    [
        ("enterprise://monitoring/dashboards", {}),
        ("enterprise://monitoring/dashboards/{uid}", {"uid": "a"}),
    ],
)
async def test_what_is_not_of_grafana_is_an_outage_of_it(
    family: Monitoring, stranger: Stranger, uri: str, parameters: dict[str, str], text: str
) -> None:
    stranger.text = text

    with pytest.raises(
        BackendUnavailable, match=r"^Grafana is not available: (it answered|its response)"
    ):
        await read(family, uri, **parameters)


async def test_a_long_refusal_is_cut(family: Monitoring, stranger: Stranger) -> None:
    stranger.status = 400
    stranger.text = json.dumps({"status": "error", "errorType": "bad_data", "error": "x" * 100_000})

    with pytest.raises(ToolError, match=r"^Prometheus refused the query: xxx") as refused:
        await call(family, "query_metrics", query="up")

    assert len(str(refused.value)) == 4001
