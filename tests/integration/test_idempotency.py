"""Idempotency-Key: a change that is sent again runs once, over two nodes, a restart and a crash."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest

from mcp_server.infrastructure.database import connect
from mcp_server.settings import DatabaseSettings
from tests.integration.cmdb_imports import import_rows
from tests.integration.nodes import McpNode
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

PATH = "/tools/cmdb_update_asset_status/execute"
CHANGE = {"asset_id": "once1", "status": "maintenance", "reason": "disk"}


@pytest.fixture
async def asset(node_owner: asyncpg.Connection) -> None:
    """An active asset without a history of these tests, and no keys."""
    row = {"id": "once1", "name": "once1", "type": "server", "environment": "prod"}
    await import_rows(node_owner, [{**row, "status": "active"}])
    await node_owner.execute("DELETE FROM idempotency.requests")


@pytest.fixture(scope="module")
def slow_nodes(
    make_node: Callable[..., McpNode], node_database: DatabaseSettings
) -> Callable[[str], McpNode]:
    """Make a node whose changes may wait for a locked row for long."""
    patient = node_database.model_copy(update={"timeout_s": 60})
    return lambda name: make_node(name, database=patient)


def operator(node: McpNode, user: str = "once", **claims: Any) -> httpx2.AsyncClient:
    return node.http(node.token(user=user, roles=["mcp:admin"], **claims))


async def change(http: httpx2.AsyncClient, key: str | None, **different: Any) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await http.post(PATH, json={**CHANGE, **different}, headers=headers)


async def status(owner: asyncpg.Connection) -> str:
    await owner.execute("SELECT set_config('mcp.tenant', 'default', false)")
    found: str = await owner.fetchval("SELECT status FROM cmdb.assets WHERE id = 'once1'")
    return found


@asynccontextmanager
async def locked_asset(
    postgres: PostgresServer, settings: DatabaseSettings
) -> AsyncIterator[asyncpg.Connection]:
    """Let changes of the asset wait for the length of the block."""
    connection = await connect(settings, user=postgres.owner, password=postgres.owner_password)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('mcp.tenant', 'default', true)")
            await connection.execute("SELECT FROM cmdb.assets WHERE id = 'once1' FOR UPDATE")
            yield connection
    finally:
        await connection.close()


async def until_claimed(owner: asyncpg.Connection) -> None:
    for _ in range(1500):
        if await owner.fetchval("SELECT EXISTS (SELECT FROM idempotency.requests)"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no node has claimed the key")


async def test_a_repeated_change_gets_the_stored_answer_from_every_node(
    node: McpNode,
    make_node: Callable[..., McpNode],
    asset: None,
    node_owner: asyncpg.Connection,
) -> None:
    other = make_node("once-other")
    async with operator(node) as http, operator(other) as there:
        first = await change(http, "k-1")
        back = await change(http, None, status="active")
        again = await change(there, "k-1")
        here_again = await change(http, "k-1")

    assert first.status_code == back.status_code == again.status_code == 200
    assert first.json()["result"]["changed"] is True
    assert again.json()["result"] == here_again.json()["result"] == first.json()["result"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await status(node_owner) == "active"
    outcomes = await node_owner.fetch(
        "SELECT outcome FROM audit.events WHERE phase = 'outcome' AND user_id = 'once' "
        "AND tool = 'cmdb:update_asset_status' ORDER BY time DESC LIMIT 4"
    )
    assert [row["outcome"] for row in outcomes] == ["not_repeated", "not_repeated", "ok", "ok"]


async def test_another_body_with_the_same_key_is_refused(
    node: McpNode, asset: None, node_owner: asyncpg.Connection
) -> None:
    async with operator(node) as http:
        await change(http, "k-1")
        other = await change(http, "k-1", status="active")
        same = await change(http, "k-1", expected_version=None)

    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    # The policy's canonical arguments are compared, and not the bytes of the body.
    assert (same.status_code, same.headers["idempotency-replayed"]) == (200, "true")
    assert await status(node_owner) == "maintenance"


@pytest.mark.parametrize("other", [{"user": "else"}, {"tenant": "other"}])
async def test_a_key_belongs_to_one_subject(
    node: McpNode, asset: None, other: dict[str, str]
) -> None:
    async with operator(node) as http, operator(node, **other) as another:
        await change(http, "k-1")
        theirs = await change(another, "k-1")

    assert "idempotency-replayed" not in theirs.headers
    # In their own tenant there is no such asset.
    assert theirs.status_code == (422 if "tenant" in other else 200)


async def test_the_policy_decides_about_a_repeated_change_too(node: McpNode, asset: None) -> None:
    async with operator(node) as http:
        await change(http, "k-1")
    async with node.http(node.token(user="once", roles=["mcp:viewer"])) as demoted:
        refused = await change(demoted, "k-1")

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


async def test_a_change_in_progress_is_409_and_a_stopping_node_still_stores_its_answer(
    node: McpNode,
    slow_nodes: Callable[[str], McpNode],
    postgres: PostgresServer,
    node_database: DatabaseSettings,
    asset: None,
    node_owner: asyncpg.Connection,
) -> None:
    stopping = slow_nodes("once-stopping")
    async with operator(stopping) as http, operator(node) as there:
        async with locked_asset(postgres, node_database):
            first = asyncio.create_task(change(http, "k-1"))
            await until_claimed(node_owner)
            meanwhile = await change(there, "k-1")
            stopping.send(signal.SIGTERM)
            draining = await change(there, "k-1")
        answer = await first
        again = await change(there, "k-1")

    for conflict in (meanwhile, draining):
        assert conflict.status_code == 409
        assert conflict.json()["error"]["code"] == "idempotency_in_progress"
        assert int(conflict.headers["retry-after"]) > 0
    assert answer.status_code == again.status_code == 200
    assert again.json()["result"] == answer.json()["result"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_after_a_crash_the_outcome_is_called_unknown_and_the_change_is_not_made_again(
    node: McpNode,
    slow_nodes: Callable[[str], McpNode],
    postgres: PostgresServer,
    node_database: DatabaseSettings,
    asset: None,
    node_owner: asyncpg.Connection,
) -> None:
    crashing = slow_nodes("once-crashing")
    async with operator(crashing) as http, operator(node) as there:
        async with locked_asset(postgres, node_database):
            first = asyncio.create_task(change(http, "k-1"))
            await until_claimed(node_owner)
            crashing.kill()
            with pytest.raises(httpx2.TransportError):
                await first
        soon = await change(there, "k-1")
        await node_owner.execute("UPDATE idempotency.requests SET running_until = now()")
        later = await change(there, "k-1")
        new = await change(there, "k-2")

    assert (soon.status_code, soon.json()["error"]["code"]) == (409, "idempotency_in_progress")
    assert (later.status_code, later.json()["error"]["code"]) == (502, "outcome_unknown")
    assert "check the current state, then use a new key" in later.json()["detail"]
    assert "retry-after" not in later.headers
    assert new.status_code == 200


async def test_a_refused_change_can_be_sent_again_with_its_key(
    node: McpNode, asset: None, node_owner: asyncpg.Connection
) -> None:
    async with operator(node) as http:
        invalid = await change(http, "k-1", status="on fire")
        conflicting = await change(http, "k-2", expected_status="inactive")
        again = await change(http, "k-2", expected_status="inactive")
        valid = await change(http, "k-1")

    assert invalid.status_code == 400
    # An error of the tool is an answer as well.
    assert conflicting.status_code == again.status_code == 422
    assert again.headers["idempotency-replayed"] == "true"
    assert valid.status_code == 200
    assert "idempotency-replayed" not in valid.headers


async def test_an_expired_key_is_new_again_and_old_rows_are_deleted(
    node: McpNode, asset: None, node_owner: asyncpg.Connection
) -> None:
    async with operator(node) as http:
        await change(http, "k-1")
        kept_s = await node_owner.fetchval(
            "SELECT extract(epoch FROM expires_at - created_at) FROM idempotency.requests"
        )
        await node_owner.execute("UPDATE idempotency.requests SET expires_at = now()")
        await change(http, "k-2")
        keys = await node_owner.fetch("SELECT key FROM idempotency.requests")
        again = await change(http, "k-1")

    assert kept_s == 24 * 3600
    assert [row["key"] for row in keys] == ["k-2"]
    assert "idempotency-replayed" not in again.headers


async def test_a_key_of_a_call_that_only_reads_is_not_kept(
    node: McpNode, asset: None, node_owner: asyncpg.Connection
) -> None:
    async with operator(node) as http:
        answers = [
            await http.post(
                "/tools/cmdb_query_assets/execute", json={}, headers={"Idempotency-Key": "k-1"}
            )
            for _ in range(2)
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert await node_owner.fetchval("SELECT count(*) FROM idempotency.requests") == 0


@pytest.mark.parametrize(
    "keys", [["x" * 256], ["x" * 10_240], [""], ["ä"], ["a\tb"], ["a", "b"]], ids=len
)
async def test_a_key_that_is_none_is_400(node: McpNode, asset: None, keys: list[str]) -> None:
    headers = [(b"Idempotency-Key", key.encode()) for key in keys]
    async with operator(node) as http:
        answer = await http.post(PATH, json=CHANGE, headers=headers)

    assert answer.status_code == 400
    assert "1 to 255 printable ASCII characters" in answer.json()["detail"]


async def test_the_longest_key_is_taken(node: McpNode, asset: None) -> None:
    async with operator(node) as http:
        answers = [await change(http, '"' + "x" * 253 + '"') for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["idempotency-replayed"] == "true"


async def test_the_server_changes_no_stored_answer_and_deletes_no_valid_key(
    node: McpNode, asset: None, node_database: DatabaseSettings
) -> None:
    async with operator(node) as http:
        await change(http, "k-1")
    connection = await connect(node_database)
    try:
        deleted = await connection.execute("DELETE FROM idempotency.requests")
        changed = await connection.execute("UPDATE idempotency.requests SET answer = '{}'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE idempotency.requests SET user_id = 'else'")
    finally:
        await connection.close()

    assert (deleted, changed) == ("DELETE 0", "UPDATE 0")
