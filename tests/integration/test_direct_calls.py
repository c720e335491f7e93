"""A tool call gets the same answer, byte for byte, directly and through the dispatch of the SDK.

The stores and the policy behind the gate are stand-ins that play every kind of outcome: the test
compares two ways through the transport, not decisions.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest
from pydantic import Field

from mcp_server.audit import AuditStore
from mcp_server.gate import Caller, Gate, Refused
from mcp_server.gate.resource_reads import Resources
from mcp_server.gate.sign_ins import SignIns
from mcp_server.identity import Subject, Verifier
from mcp_server.policy import (
    Authorization,
    Count,
    Counters,
    DecisionInput,
    PolicyEngine,
    PolicyUnavailable,
    PolicyUndecided,
    Visible,
)
from mcp_server.prompts import Prompts
from mcp_server.tools.catalog import (
    Arguments,
    Catalog,
    InvalidArguments,
    Result,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.transports.cors import AllowedOrigins
from mcp_server.transports.direct_calls import DirectCalls, PlainCall
from mcp_server.transports.http_guard import HttpGuard, RequestState
from mcp_server.transports.mcp import McpTransport
from mcp_server.transports.streamable_http import StreamableHttp

pytestmark = pytest.mark.anyio

_MODERN = "2026-07-28"
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": _MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
_OUTCOMES = (
    *("ok", "tool_error", "retryable_error", "invalid", "crash", "late"),
    *("denied", "absent", "limited", "approval", "undecided", "unavailable"),
)


class PlayArguments(Arguments):
    outcome: str = "ok"
    number: int = Field(default=1, le=100)
    note: str | None = None


class PlayResult(Result):
    number: float
    note: str | None
    nested: dict[str, Any]


async def _play(arguments: PlayArguments, _: ToolContext) -> PlayResult:
    match arguments.outcome:
        case "tool_error" | "retryable_error":
            raise ToolError("the backend: “no” \x07", retryable="retry" in arguments.outcome)
        case "invalid":
            raise InvalidArguments("number: too odd")
        case "crash":
            raise KeyError("hunter2")
        case "late":
            raise TimeoutError
    nested = {"none": None, "text": 'ä \U0001f600 "quoted" </script>', "list": [1, 2.5, None, True]}
    return PlayResult(number=arguments.number, note=arguments.note, nested=nested)


_TOOL = Tool(
    name="test:play",
    title="Play",
    description="Plays an outcome.",
    permission="tools:read",
    arguments=PlayArguments,
    result=PlayResult,
    run=_play,
    render=lambda document: json.dumps(document, ensure_ascii=False),
    read_only=True,
    source="a test",
)


class _Policy:
    """Answers what the argument `outcome` of the call asks for."""

    revision = "r1"

    async def authorize(self, asked: DecisionInput, _: Sequence[Count] = ()) -> Authorization:
        outcome = asked.action.arguments.get("outcome", "ok")
        if outcome == "unavailable":
            raise PolicyUnavailable("played")
        if outcome == "undecided":
            raise PolicyUndecided("played")
        effect = {"limited": "limited", "approval": "approval_required"}.get(outcome, "allow")
        if outcome in ("denied", "absent") or asked.resource.id != _TOOL.name:
            effect = "deny"
        code = "denied" if outcome == "denied" else "not_available"
        reason = {"code": code, "message": "no: ä", "rule": "r", "solution": "s"}
        quota = {"id": "user", "limit": 1, "remaining": 0, "window_s": 60, "reset_ms": 5}
        return Authorization.model_validate(
            {
                "version": 2,
                "revision": self.revision,
                "effect": effect,
                "reasons": [] if effect == "allow" else [reason],
                "charges": [],
                "obligations": [{"type": "redact", "fields": ["password"]}],
                "retry_after_ms": 1500 if effect == "limited" else 0,
                "quota": [quota] if effect == "limited" else [],
            }
        )

    async def visible(self, _: DecisionInput) -> Visible:
        tools = frozenset({_TOOL.name})
        return Visible(
            version=2, revision="r1", tools=tools, resources=frozenset(), prompts=frozenset()
        )


class _Audit:
    healthy = True

    async def commit(self, _: object) -> None:
        """Keep nothing."""


class _Counters:
    up = True


class _Verifier:
    async def verify(self, *_: object) -> Subject:
        return Subject(id="alice", tenant="default", roles=("mcp:viewer",), issuer="shared-secret")


@dataclass
class Ways:
    """The same server twice: with direct calls, and with every request through the SDK.

    Attributes:
        taken: the calls that were answered directly.
    """

    direct: httpx2.AsyncClient
    dispatched: httpx2.AsyncClient
    taken: list[PlainCall] = field(default_factory=list)

    async def compare(self, headers: list[tuple[str, str]], body: bytes) -> httpx2.Response:
        """Send a request both ways, compare the answers, and return one."""
        answers = [
            await client.post("/mcp", content=body, headers=headers)
            for client in (self.direct, self.dispatched)
        ]
        seen = [(each.status_code, each.headers.raw, each.content) for each in answers]
        assert seen[0] == seen[1], (headers, body)
        return answers[0]


@asynccontextmanager
async def _client(
    recognise: Callable[..., PlainCall | None] | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    gate = Gate(
        node="test",
        policy=cast(PolicyEngine, _Policy()),
        counters=cast(Counters, _Counters()),
        audit=cast(AuditStore, _Audit()),
        catalog=Catalog([_TOOL]),
    )

    def caller_of(ctx: Any) -> Caller:
        return RequestState.of(ctx.request.scope).caller

    def refused(ctx: Any, refusal: Refused) -> None:
        RequestState.of(ctx.request.scope).refusal = refusal

    transport = McpTransport(
        gate,
        cast(Resources, []),
        cast(Prompts, []),
        caller_of=caller_of,
        on_refused=refused,
    )
    endpoint = StreamableHttp(transport, max_body_bytes=1_000_000)
    if recognise is not None:
        endpoint._direct.recognise = recognise  # type: ignore[method-assign]
    guard = HttpGuard(
        endpoint.handle_request,
        transport="mcp",
        verifier=cast(Verifier, _Verifier()),
        sign_ins=cast(SignIns, None),  # every token is valid
        public_origin="https://mcp.example",
        origins=AllowedOrigins("https://mcp.example"),
        max_body_bytes=1_000_000,
        draining=lambda: False,
    )
    async with (
        endpoint.run(),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(guard), base_url="https://mcp.example"
        ) as client,
    ):
        yield client


@pytest.fixture
async def ways(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ways]:
    taken: list[PlainCall] = []
    recognise = DirectCalls.recognise

    def noting(self: DirectCalls, *arguments: Any) -> PlainCall | None:
        call = recognise(self, *arguments)
        if call is not None:
            taken.append(call)
        return call

    monkeypatch.setattr(DirectCalls, "recognise", noting)
    # The marks around data of a backend are random.
    monkeypatch.setattr("mcp_server.tools.presentation.secrets.token_hex", lambda _: "0" * 8)
    async with AsyncExitStack() as stack:
        yield Ways(
            await stack.enter_async_context(_client()),
            await stack.enter_async_context(_client(lambda *_: None)),
            taken,
        )


def _request(version: str | None, **arguments: Any) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return the headers and the message of a valid call."""
    headers = [
        ("authorization", "Bearer x"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("x-request-id", "0123"),
    ]
    params: dict[str, Any] = {"name": _TOOL.wire_name, "arguments": arguments}
    if version is not None:
        headers.append(("mcp-protocol-version", version))
    if version == _MODERN:
        headers += [("mcp-method", "tools/call"), ("mcp-name", _TOOL.wire_name)]
        params["_meta"] = _ENVELOPE
    return headers, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


_VERSIONS = (_MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", None)


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize("outcome", _OUTCOMES)
async def test_each_outcome_has_the_same_answer(
    ways: Ways, version: str | None, outcome: str
) -> None:
    headers, message = _request(version, outcome=outcome, note="ä </b>")
    answer = await ways.compare(headers, json.dumps(message).encode())

    assert len(ways.taken) == 1
    assert ("error" in answer.json()) is (outcome in {"crash", *_OUTCOMES[6:]})


_WRONG: tuple[Any, ...] = (None, True, 0, -1, 2.5, 10**30, "", "x", "1", [], [1], {}, {"a": None})


def _changed(message: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a copy with another value at a path; `...` takes the member away."""
    copy = json.loads(json.dumps(message))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = value
    return cast(dict[str, Any], copy)


_PATHS = (
    *(("jsonrpc",), ("id",), ("method",), ("params",), ("extra",)),
    *(("params", "name"), ("params", "arguments"), ("params", "_meta"), ("params", "task")),
    *(("params", "arguments", "number"), ("params", "arguments", "outcome")),
    *(("params", "arguments", "note"), ("params", "arguments", "unknown")),
)
_META_PATHS = (
    *(("params", "_meta", key) for key in _ENVELOPE),
    ("params", "_meta", "progressToken"),
)


@pytest.mark.parametrize("version", [_MODERN, "2025-11-25", None])
async def test_each_wrong_member_has_the_same_answer(ways: Ways, version: str | None) -> None:
    headers, message = _request(version, outcome="ok", number=3)
    paths = (*_PATHS, *(_META_PATHS if version == _MODERN else ()))
    for path, value in itertools.product(paths, (..., *_WRONG)):
        if path == ("params", "_meta", "progressToken") and value not in (..., None):
            continue  # an event stream: never direct
        await ways.compare(headers, json.dumps(_changed(message, path, value)).encode())


_HEADERS = (
    *(
        ("mcp-protocol-version", value)
        for value in (*filter(None, _VERSIONS), "2099-01-01", "", "x")
    ),
    *(("mcp-method", value) for value in ("tools/call", "tools/list", "", "TOOLS/CALL")),
    *(("mcp-name", value) for value in (_TOOL.wire_name, "other", "", "=?base64?dGVzdF9wbGF5?=")),
    *(("accept", value) for value in ("application/json", "*/*", "text/event-stream", "text/html")),
    *(("mcp-session-id", "abc"), ("mcp-param-number", "3"), ("last-event-id", "1")),
)


@pytest.mark.parametrize("version", [_MODERN, "2025-06-18", None])
async def test_each_wrong_header_has_the_same_answer(ways: Ways, version: str | None) -> None:
    headers, message = _request(version, outcome="ok")
    body = json.dumps(message).encode()
    for name, value in _HEADERS:
        others = [each for each in headers if each[0] != name]
        await ways.compare([*others, (name, value)], body)
        await ways.compare([*headers, (name, value)], body)
        await ways.compare(others, body)


async def test_random_requests_have_the_same_answer(ways: Ways) -> None:
    draw = random.Random(20261130)
    for _ in range(1500):
        version = draw.choice(_VERSIONS)
        arguments = {
            "outcome": draw.choice(_OUTCOMES),
            "number": draw.choice([1, 5.0, 100, 101, "7", None]),
            "note": draw.choice([None, "", "ä\ud83d", "x" * 300, "password=hunter2"]),
        }
        headers, message = _request(version, **arguments)
        message["id"] = draw.choice([0, 1, -5, 2**53, 10**25, "", "a", "ä", "1"])
        for _ in range(draw.choice([0, 0, 1, 2])):
            if draw.random() < 0.5:
                path = draw.choice(_PATHS[:9])
                message = _changed(message, path[:1], draw.choice((..., *_WRONG)))
            else:
                headers = [*headers, draw.choice(_HEADERS)]
        await ways.compare(headers, json.dumps(message).encode())

    assert len(ways.taken) > 400
