"""Internal errors: the client learns the id of the request, and the log holds the cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mcp_server.settings import DatabaseSettings
from tests.integration.broken_node import DETAIL, BrokenMcpNode, catalogue
from tests.integration.nodes import LegacyClient, modern_client, rpc
from tests.integration.servers import (
    Alertmanager,
    Opa,
    Prometheus,
    RedisServer,
    build_bundle,
)

pytestmark = pytest.mark.anyio

_POLICIES = Path(__file__).resolve().parents[2] / "policies"
INTERNAL_ERROR = -32603
INVALID_PARAMS = -32602

CRASHES: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "test_crash", "arguments": {}}),
    ("resources/read", {"uri": "test://crash/a"}),
    ("prompts/get", {"name": "crash"}),
    ("prompts/list", {}),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "test://crash/{id}"},
            "argument": {"name": "id", "value": ""},
        },
    ),
]


@pytest.fixture(scope="module")
def broken(
    workspace: Path,
    redis_server: RedisServer,
    node_database: DatabaseSettings,
    prometheus: Prometheus,
    alertmanager: Alertmanager,
) -> Iterator[BrokenMcpNode]:
    tree = workspace / "breaking"
    shutil.copytree(_POLICIES, tree)
    path = tree / "config/catalog/data.yaml"
    data = yaml.safe_load(path.read_text())
    for kind, entries in catalogue().items():
        data[kind].update(entries)
    # As JSON, which is YAML without aliases: OPA does not read those.
    path.write_text(json.dumps(data))
    opa = Opa(workspace / "opa-breaking", build_bundle(tree, workspace / "breaking.tar.gz"))
    opa.start()
    node = BrokenMcpNode(
        workspace / "node-broken",
        name="broken",
        policy=opa.settings(),
        counters=redis_server.settings(),
        database=node_database,
        prometheus_url=prometheus.url,
        alertmanager_url=alertmanager.url,
    )
    node.start()
    yield node
    node.stop()
    opa.stop()


def logged(node: BrokenMcpNode, request_id: str) -> dict[str, Any]:
    """Return the line of the log about what failed in a request."""
    lines = [json.loads(line) for line in node.log.read_text().splitlines() if line[:1] == "{"]
    (found,) = (
        line
        for line in lines
        if line.get("event") == "internal_error" and line.get("request_id") == request_id
    )
    return dict(found)


@pytest.mark.parametrize(("method", "params"), CRASHES, ids=lambda value: str(value)[:40])
async def test_a_client_of_mcp_hears_that_it_failed_and_the_log_why(
    broken: BrokenMcpNode, method: str, params: dict[str, Any]
) -> None:
    async with broken.http(broken.token()) as http:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        answer = await rpc(http, message, **{"X-Request-Id": f"crash-{method}"})

    error = answer.json()["error"]
    assert answer.status_code == 200
    assert error["code"] == INTERNAL_ERROR
    assert error["data"] == {
        "code": "internal_error",
        "retryable": False,
        "request_id": f"crash-{method}",
    }
    assert error["message"].startswith("internal error; ")
    assert DETAIL not in answer.text
    line = logged(broken, f"crash-{method}")
    assert line["method"] == method
    assert f"KeyError: '{DETAIL}'" in line["exception"]
    assert "Traceback" in line["exception"]


async def test_the_newest_era_hears_the_same(broken: BrokenMcpNode) -> None:
    async with modern_client(broken, broken.token()) as client:
        with pytest.raises(Exception, match="internal error; ") as told:
            await client.call_tool("test_crash", {})

    assert DETAIL not in str(told.value)


async def test_a_change_may_have_been_made(
    broken: BrokenMcpNode, node_owner: asyncpg.Connection
) -> None:
    async with broken.http(broken.token()) as http:
        called = (await LegacyClient(http).call("test_crash_changing"))["result"]
        executed = await http.post("/tools/test_crash_changing/execute", json={})

    for text in (called["content"][0]["text"], executed.json()["error"]["message"]):
        assert text.startswith("it is not known whether the change was made: test_crash_changing")
        assert text.endswith("before you try again, look at it")
        assert DETAIL not in text
    assert called["isError"] is True
    assert executed.status_code == 422
    outcomes = await node_owner.fetch(
        "SELECT phase, outcome FROM audit.events WHERE tool = 'test:crash_changing' ORDER BY time"
    )
    assert [tuple(row) for row in outcomes] == [("intent", None), ("outcome", "error")] * 2


@pytest.mark.parametrize(
    ("verb", "path"), [("POST", "/tools/test_crash/execute"), ("GET", "/tools")]
)
async def test_a_client_of_rest_gets_500_in_json(
    broken: BrokenMcpNode, verb: str, path: str
) -> None:
    async with broken.http(broken.token(), **{"X-Request-Id": f"crash-{verb}"}) as http:
        answer = await http.request(verb, path, json={} if verb == "POST" else None)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"] == {
        "code": "internal_error",
        "message": "internal error; an administrator finds the cause in the log of request "
        f"crash-{verb}",
        "retryable": False,
        "request_id": f"crash-{verb}",
    }
    assert "Traceback" in logged(broken, f"crash-{verb}")["exception"]


@pytest.mark.parametrize(
    ("method", "params"),
    [("tools/list", {"cursor": 5}), ("prompts/get", {"name": 5}), ("tools/call", {})],
)
async def test_parameters_that_do_not_fit_are_the_clients_fault_as_before(
    broken: BrokenMcpNode, method: str, params: dict[str, Any]
) -> None:
    async with broken.http(broken.token()) as http:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        answer = await rpc(http, message)

    assert answer.json()["error"]["code"] == INVALID_PARAMS
    assert answer.json()["error"]["data"]["code"] == "invalid_params"
