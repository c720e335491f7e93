"""Every answer that is not 2xx has the documented form: all routes, methods, bad headers and bodies."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from starlette.routing import BaseRoute, Mount, Route

from mcp_server.app import Node
from mcp_server.settings import load_settings
from tests.integration.nodes import ENVELOPE, McpNode

pytestmark = pytest.mark.anyio

TOOL = "cmdb_query_assets"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
VERSIONS = ("2025-06-18", "2026-07-28", "1999-01-01", "")
UNKNOWN = (
    "/",
    "/nowhere",
    "/.well-known/nothing",
    "/tools/a/b/execute",
    "//tools",
    "/tools/%00/execute",
)
BAD_HEADERS: tuple[dict[str, str], ...] = (
    {"Authorization": ""},
    {"Authorization": "Bearer x"},
    {"Authorization": "Basic x"},
    {"Host": "evil.test"},
    {"Origin": "https://evil.test"},
    {"Accept": "text/html"},
    {"Accept": "application/json"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "Application/JSON"},
    {"Content-Encoding": "gzip"},
    {"Mcp-Method": "ping"},
    {"Upgrade": "websocket", "Connection": "Upgrade"},
)
BODIES: tuple[Any, ...] = (
    b"",
    b"{",
    b"\x1f\x8b\x08",
    b"null",
    [],
    {},
    {"arguments": 1},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}},
    {"jsonrpc": "2.0", "id": 1, "method": "made/up", "params": {"_meta": ENVELOPE}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"_meta": ENVELOPE}},
    {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "x://y"}},
    {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": 1},
    {"jsonrpc": "2.0", "id": [], "method": "ping"},
    {"jsonrpc": "2.0", "method": "notifications/made_up"},
    {"jsonrpc": "2.0", "id": 1, "result": {}},
)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


def paths(routes: Iterable[BaseRoute], before: str = "") -> Iterator[str]:
    """Yield the path of every route of an application, those of mounted ones too."""
    for route in routes:
        match route:
            case Route():
                yield before + route.path.replace("{name}", TOOL)
            case Mount():
                # The guard surrounds the routes of REST.
                inner: Any = getattr(route.app, "_app", route.app)
                yield from paths(inner.routes, before + route.path)


def questions(served: list[str]) -> Iterator[Asked]:
    """Yield every request of this test."""
    beside = [f"{path}{more}" for path in served for more in ("/", "/x", "?x=1")]
    for path, method in itertools.product([*served, *beside, *UNKNOWN], METHODS):
        yield Asked(method, path)
    for path, method, headers in itertools.product(served, METHODS, BAD_HEADERS):
        yield Asked(method, path, headers, {} if method == "POST" else None)
    for path, version, body in itertools.product(served, VERSIONS, BODIES):
        headers = {"MCP-Protocol-Version": version} if version else {}
        yield Asked("POST", path, headers, body)


def shortcoming(asked: Asked, answer: httpx2.Response) -> str | None:
    """Return what an answer lacks of the documented form, if anything."""
    if answer.is_success:
        return None
    needed = {401: "www-authenticate", 405: "allow"}.get(answer.status_code)
    if needed is not None and needed not in answer.headers:
        return f"no {needed}"
    path, content_type = asked.path.partition("?")[0], answer.headers.get("content-type")
    # /auth/token has its own errors (RFC 6749, section 5.2), and shares some with the others.
    forms = ["application/json"] if path == "/mcp" else ["application/problem+json"]
    if content_type not in [*forms, *(["application/json"] if path == "/auth/token" else [])]:
        return f"content-type {content_type}"
    if asked.method == "HEAD":
        return None
    try:
        document = answer.json()
        error = document["error"]
        if path == "/auth/token" and type(error) is str:
            # The endpoint's own errors have the form of RFC 6749, section 5.2.
            told = [error, document["error_description"]]
        else:
            told = [error["message"], error["code"]]
            if path != "/mcp":
                assert document["status"] == answer.status_code
                assert document["type"] == f"urn:enterprise-mcp:problem:{error['code']}"
                told += [document["title"], document["detail"]]
                # What the parser refuses has no request id yet.
                told += [] if error["code"] == "bad_request" else [document["instance"]]
        if path == "/mcp":
            data = error["data"]
            assert document["jsonrpc"] == "2.0"
            assert "id" in document
            assert type(error["code"]) is int
            assert type(data["retryable"]) is bool
            told = [error["message"], data["code"], data["request_id"]]
        assert all(type(text) is str and text for text in told)
    except (ValueError, KeyError, TypeError, AssertionError) as fault:
        return f"{type(fault).__name__} {fault}"
    return None


async def test_every_answer_that_is_not_2xx_has_the_documented_form(node: McpNode) -> None:
    served = list(paths(Node(load_settings(node.config)).application().routes))
    asking = list(questions(served))
    places = asyncio.Semaphore(8)

    async def ask(http: httpx2.AsyncClient, asked: Asked) -> tuple[int, str | None]:
        content = asked.body if isinstance(asked.body, bytes | None) else json.dumps(asked.body)
        # By a user of its own, so that no limit is met.
        headers = {
            "Authorization": f"Bearer {node.token()}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            **asked.headers,
        }
        async with (
            places,
            http.stream(asked.method, asked.path, headers=headers, content=content) as answer,
        ):
            if not answer.is_success:
                await answer.aread()
            fault = shortcoming(asked, answer)
            return answer.status_code, fault and f"{asked} {answer.status_code}: {fault}"

    async with node.http() as http:
        answers = await asyncio.gather(*(ask(http, asked) for asked in asking))

    assert {"/mcp", "/tools", f"/tools/{TOOL}/execute", "/me", "/health"} <= set(served)
    assert [fault for _, fault in answers if fault] == []
    # The requests come to all kinds of answers.
    statuses = {status for status, _ in answers}
    assert statuses == {200, 202, 400, 401, 403, 404, 405, 406, 415}
