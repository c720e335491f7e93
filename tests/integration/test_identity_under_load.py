"""Keys are rotated, a token is revoked and the issuer stops, at 50 calls a second or more.

Of each call it is known which answers are right: a valid token is accepted, any other is not. Only while
a change spreads may both be right.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg
import httpx2
import jwt
import pytest

from tests.integration.fake_issuer import FakeIssuer, SigningKey, seconds_from_now
from tests.integration.nodes import McpNode, rpc
from tests.integration.servers import Opa, RedisServer, opa_with

pytestmark = pytest.mark.anyio

LEAST_PER_SECOND = 50
# More than that, so that a moment in which this process had no processor is no failure.
PER_SECOND = 55
# A revocation is in force everywhere after this time (docs/identity.md: every 2 seconds, and one query).
REVOKED_WITHIN_S = 5.0
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "cmdb_query_assets", "arguments": {}},
}


@pytest.fixture(scope="module")
def generous_opa(workspace: Path) -> Iterator[Opa]:
    """The shipped policies, which know the issuer and limit no call of this test."""
    plenty = {"limit": 1_000_000, "window_s": 3600}
    company = {"tenants": ["default"], "roles": ["mcp:viewer"], "scopes": "optional"}
    data = {"issuers": {"company": company}, "limits": {"global": plenty, "user": plenty}}
    with opa_with(workspace, "generous", data) as server:
        yield server


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer(SigningKey(kid="old")) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    """The answer to one call: the name of its token, seconds of sending and answering, its status."""

    token: str
    sent: float
    answered: float
    status: int


class Load:
    """Sends calls at a constant rate, however slowly they are answered, each with the next token.

    Attributes:
        tokens: by name: makes the token for the next call.
        most_at_once: the largest number of calls that waited for their answers.
    """

    def __init__(self, node: McpNode, tokens: dict[str, Callable[[], str]]) -> None:
        self.tokens = tokens
        self.answers: list[Answer] = []
        self.most_at_once = 0
        # Without a limit of connections: a call that waited for one would not have been sent.
        self._http = httpx2.AsyncClient(
            base_url=node.url, timeout=90, limits=httpx2.Limits(max_connections=None)
        )
        self._running: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.gather(*self._running)
        await self._http.aclose()

    def sent_per_second(self) -> float:
        """Return the rate at which the calls that were answered had been sent."""
        sent = sorted(each.sent for each in self.answers)
        return (len(sent) - 1) / (sent[-1] - sent[0])

    def answered_per_second(self) -> float:
        """Return the number of answers by the time from the first call to the last answer."""
        began = min(each.sent for each in self.answers)
        return len(self.answers) / (max(each.answered for each in self.answers) - began)

    async def accepted(self, token: str) -> float:
        """Wait for the first call that is accepted, and return the time of its answer."""
        while True:
            for each in self.answers:
                if each.token == token and each.status == 200:
                    return each.answered
            await asyncio.sleep(0.05)

    async def _run(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            names = sorted(self.tokens)
            name = names[number % len(names)]
            task = asyncio.create_task(self._call(name, self.tokens[name]()))
            self._running.add(task)
            self.most_at_once = max(self.most_at_once, len(self._running))
            task.add_done_callback(self._running.discard)
            await asyncio.sleep(max(began + (number + 1) / PER_SECOND - time.monotonic(), 0))

    async def _call(self, name: str, token: str) -> None:
        sent = time.monotonic()
        answer = await rpc(self._http, CALL, Authorization=f"Bearer {token}")
        self.answers.append(Answer(name, sent, time.monotonic(), answer.status_code))


@dataclass(frozen=True)
class Changes:
    """The times of what happened, in seconds."""

    rotated: float
    followed: float
    revoking: float
    revoked: float


def _right(answer: Answer, at: Changes) -> set[bool]:
    """Return whether the call may be accepted, may be refused, or (while a change spreads) both."""
    match answer.token:
        case "stays" | "stays-fresh" | "new":
            return {True}
        case "old" | "old-fresh":
            still, no_longer = answer.answered < at.rotated, answer.sent > at.followed
        case "revoked":
            still = answer.answered < at.revoking
            no_longer = answer.sent > at.revoked + REVOKED_WITHIN_S
        case _:
            return {False}
    return {True} if still else {False} if no_longer else {True, False}


async def test_no_answer_is_wrong_while_keys_tokens_and_the_issuer_change(
    make_node: Callable[..., McpNode],
    generous_opa: Opa,
    issuer: FakeIssuer,
    redis_server: RedisServer,
    node_owner: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, stays, new = issuer.keys[0], SigningKey(kid="stays"), SigningKey(kid="new")
    issuer.keys.append(stays)
    forger, unknown = SigningKey(kid="stays"), SigningKey(kid="unknown")
    redis_server.cli("flushall")
    node = make_node(
        "node-load", policy=generous_opa.settings(), identity={"issuers": [issuer.settings()]}
    )
    past = seconds_from_now({"iat": timedelta(hours=-2), "exp": timedelta(hours=-1)})
    fixed = {
        "old": issuer.token(old),
        "stays": issuer.token(stays),
        "revoked": issuer.token(stays),
        "expired": issuer.token(stays, **past),
        "elsewhere": issuer.token(stays, aud="https://other.test/mcp"),
    }
    tokens: dict[str, Callable[[], str]] = {
        **{name: partial(str, token) for name, token in fixed.items()},
        "old-fresh": lambda: issuer.token(old),
        "stays-fresh": lambda: issuer.token(stays),
        "forged": lambda: issuer.token(forger),
        "unknown": lambda: issuer.token(unknown),
    }

    async with Load(node, tokens) as load:
        for name in ("old", "old-fresh", "stays", "stays-fresh", "revoked"):
            await load.accepted(name)
        await asyncio.sleep(1)

        issuer.keys[:] = [new, stays]
        rotated = time.monotonic()
        load.tokens["new"] = lambda: issuer.token(new)

        revoking = time.monotonic()
        await node_owner.execute(
            "INSERT INTO identity.revocations (token_id, expires_at, revoked_by, reason)"
            " VALUES ($1, now() + interval '1 hour', 'test', 'test')",
            jwt.decode(fixed["revoked"], options={"verify_signature": False})["jti"],
        )
        revoked = time.monotonic()
        followed = await load.accepted("new")
        await asyncio.sleep(max(revoked + REVOKED_WITHIN_S + 1 - time.monotonic(), 1))

        await issuer.stop()
        stopped = time.monotonic()
        await asyncio.sleep(3)

    changes = Changes(rotated, followed, revoking, revoked)
    wrong = [each for each in load.answers if (each.status == 200) not in _right(each, changes)]
    afterwards = [each for each in load.answers if each.sent > stopped]
    counts = Counter((each.token, each.status) for each in load.answers)
    with capsys.disabled():
        print(
            f"\nidentity under load: {len(load.answers)} calls, "
            f"{load.sent_per_second():.1f} sent and {load.answered_per_second():.1f} answered a second, "
            f"at most {load.most_at_once} at once, "
            f"{len(afterwards)} without the issuer, {len(wrong)} wrong answers; "
            + ", ".join(f"{token} {status}: {n}" for (token, status), n in sorted(counts.items()))
        )
    assert wrong == []
    assert load.sent_per_second() >= LEAST_PER_SECOND
    assert {each.status for each in load.answers} <= {200, 401, 429, 502}
    assert {each.token for each in afterwards} == set(load.tokens)
    for name in ("old", "old-fresh", "revoked"):
        seen = [each.status == 200 for each in load.answers if each.token == name]
        assert set(seen) == {True, False}
