"""What an attack is: a request, why it must be refused, and the answer that it must get."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from mcp_server.identity import mint_token
from tests.integration.nodes import AUDIENCE, ENVELOPE, ISSUER, JWT_SECRET

__all__ = ["Answer", "Attack", "Request", "answer_of", "as_", "execute", "message", "token"]

ERAS = ("2025-06-18", "2026-07-28")
_numbers = itertools.count(1)


def token(roles: Sequence[str] = ("mcp:viewer",), *, tenant: str = "default") -> str:
    """Return a valid token of a user that nobody used yet, so that no attack meets a limit."""
    return mint_token(
        secret=JWT_SECRET,
        issuer=ISSUER,
        audience=AUDIENCE,
        user=f"attacker-{os.getpid()}-{next(_numbers)}",
        roles=roles,
        tenant=tenant,
    )


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        token: makes the bearer token; None: there is no Authorization header.
        body: JSON, or bytes that are sent as they are.
    """

    path: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    token: Callable[[], str] | None = token

    def send(self, client: httpx2.Client) -> httpx2.Response:
        """Send it."""
        headers = {"Accept": "application/json, text/event-stream"}
        content = self.body
        if content is not None:
            headers["Content-Type"] = "application/json"
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token()}"
        return client.request(
            self.method, self.path, headers={**headers, **self.headers}, content=content
        )


@dataclass(frozen=True)
class Answer:
    """What a client is told.

    Attributes:
        code: the code of the error; empty: no error.
        reason: the codes of the policy's reasons, joined by commas.
    """

    status: int
    code: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Attack:
    """A request that must be refused.

    Attributes:
        name: what the attacker tries.
        because: why it must be refused.
        answer: the answer that it must get.
    """

    name: str
    because: str
    request: Request
    answer: Answer


def answer_of(response: httpx2.Response) -> Answer:
    """Return what a response tells; a body without a documented error has no code."""
    try:
        error = response.json()["error"]
        if isinstance(error, str):  # of /auth/token, as RFC 6749 section 5.2 has it
            return Answer(response.status_code, error)
        told = error.get("data", error)
        reasons = ",".join(reason["code"] for reason in told.get("reasons", ()))
        return Answer(response.status_code, told["code"], reasons)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answer(response.status_code)


def as_(*roles: str, tenant: str = "default") -> Callable[[], str]:
    """Return what makes a valid token with these roles."""
    return lambda: token(roles, tenant=tenant)


def execute(tool: str, arguments: Any, *, by: Callable[[], str] = token) -> Request:
    """Return a call of a tool over REST."""
    return Request(f"/tools/{tool}/execute", body=arguments, token=by)


def message(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    era: str = "2025-06-18",
    by: Callable[[], str] = token,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Request:
    """Return a JSON-RPC request over MCP.

    Args:
        era: the version of the protocol; one of ERAS.
        headers: headers that differ from those that belong to the message.
        members: members of the message that differ.
    """
    params = dict(params or {})
    routing = {"MCP-Protocol-Version": era}
    if era == "2026-07-28":
        params = {**params, "_meta": ENVELOPE}
        routing["Mcp-Method"] = method
        if isinstance(name := params.get("name", params.get("uri")), str):
            routing["Mcp-Name"] = name
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params, **members}
    return Request("/mcp", headers={**routing, **(headers or {})}, body=body, token=by)
