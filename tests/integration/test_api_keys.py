"""API keys: made by `mcpctl apikey`, used on a real node, revoked at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx2
import pytest

from mcp_server.settings import DatabaseSettings
from tests.integration.conditions import eventually
from tests.integration.nodes import McpNode
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mcpctl(node: McpNode, postgres: PostgresServer, tmp_path: Path) -> Run:
    """Run `mcpctl apikey` as the owner of the schema."""
    password = tmp_path / "owner_password"
    password.write_text(postgres.owner_password)

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "mcp_server", "apikey", *words),
                *("--config", str(node.config), "--password-file", str(password)),
            ],
            capture_output=True,
            text=True,
            check=check,
        )

    return run


@pytest.fixture
def create(mcpctl: Run) -> Callable[..., str]:
    """Make a key and return it."""

    def make(account: str, *words: str) -> str:
        roles = words if "--role" in words else ("--role", "mcp:viewer", *words)
        return mcpctl("create", account, *roles).stdout.strip()

    return make


async def _tools(node: McpNode, key: str, ip: str = "192.0.2.1") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": ip}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as client:
        return await client.get(f"{node.url}/tools")


def _id(key: str) -> str:
    return key.split("_")[1]


async def test_a_key_is_shown_once_and_calls_with_the_roles_of_its_account(
    node: McpNode,
    create: Callable[..., str],
    mcpctl: Run,
    node_owner: asyncpg.Connection,
) -> None:
    key = create("svc-viewer")

    answer = await _tools(node, key)

    assert answer.status_code == 200
    names = {tool["name"] for tool in answer.json()["tools"]}
    assert "monitoring_get_alerts" in names
    assert "monitoring_create_dashboard" not in names
    listed = mcpctl("list").stdout + mcpctl("list", "--output", "json").stdout
    assert _id(key) in listed
    secret = key.split("_")[2]
    assert secret not in listed
    stored = await node_owner.fetchval(
        "SELECT k::text FROM identity.api_keys k WHERE id = $1", _id(key)
    )
    assert secret[:52] not in stored
    assert secret not in node.log.read_text()


async def test_the_audit_log_names_the_account_and_the_key(
    node: McpNode, create: Callable[..., str], node_owner: asyncpg.Connection
) -> None:
    key = create(
        "svc-audited", "--tenant", "acme", "--role", "mcp:operator", "--role", "mcp:viewer"
    )

    await _tools(node, key)

    row = await node_owner.fetchrow(
        "SELECT user_id, tenant, judged::text FROM audit.events WHERE user_id = 'svc-audited'"
    )
    assert row is not None
    subject = json.loads(row["judged"])["subject"]
    assert row["tenant"] == "acme"
    assert (subject["jti"], subject["issuer"]) == (_id(key), "api-keys")
    assert subject["roles"] == ["mcp:operator", "mcp:viewer"]


async def test_a_revoked_key_is_refused_within_five_seconds_and_stays_so(
    node: McpNode, create: Callable[..., str], mcpctl: Run
) -> None:
    key = create("svc-revoked")
    assert (await _tools(node, key)).status_code == 200

    mcpctl("revoke", _id(key))
    revoked_at = time.monotonic()

    async def status() -> int:
        return (await _tools(node, key)).status_code

    await eventually(status, lambda code: code == 401)
    assert time.monotonic() - revoked_at < 5
    mcpctl("revoke", _id(key))
    assert "revoked" in mcpctl("list").stdout
    assert await status() == 401


async def test_an_expired_key_is_refused(
    node: McpNode, create: Callable[..., str], node_owner: asyncpg.Connection
) -> None:
    key = create("svc-expired")
    await node_owner.execute(
        "UPDATE identity.api_keys SET created_at = now() - interval '2 days', "
        "expires_at = now() - interval '1 second' WHERE id = $1",
        _id(key),
    )

    answer = await _tools(node, key)

    assert answer.status_code == 401
    assert "ask its administrator" in answer.text


async def test_a_key_that_does_not_exist_and_one_with_another_secret_get_the_same_answer(
    node: McpNode, create: Callable[..., str], node_owner: asyncpg.Connection
) -> None:
    existing, absent = create("svc-a"), create("svc-b")
    await node_owner.execute("DELETE FROM identity.api_keys WHERE id = $1", _id(absent))
    await node_owner.execute(
        "UPDATE identity.api_keys SET secret_hash = sha256('other') WHERE id = $1", _id(existing)
    )

    answers = [await _tools(node, key) for key in (existing, absent)]

    assert {answer.status_code for answer in answers} == {401}
    # But for `instance`, which has the id of the request.
    first, second = ({**answer.json(), "instance": ""} for answer in answers)
    assert first == second
    mistyped = await _tools(node, existing[:-1] + ("a" if existing[-1] != "a" else "b"))
    assert mistyped.status_code == 401
    assert "mistyped" in mistyped.text


async def test_a_key_is_accepted_from_its_networks_only(
    node: McpNode, create: Callable[..., str]
) -> None:
    key = create("svc-bound", "--network", "10.20.0.0/16", "--network", "2001:db8::/32")

    inside = [await _tools(node, key, ip) for ip in ("10.20.3.4", "2001:db8::7")]
    outside = [await _tools(node, key, ip) for ip in ("10.21.0.1", "192.0.2.1", "2001:db9::7")]

    assert {answer.status_code for answer in inside} == {200}
    assert {answer.status_code for answer in outside} == {403}
    assert "network" in outside[0].text


async def test_the_last_use_is_noted_once_a_minute(
    node: McpNode, create: Callable[..., str], node_owner: asyncpg.Connection, mcpctl: Run
) -> None:
    key = create("svc-used")
    assert "never" in next(line for line in mcpctl("list").stdout.splitlines() if _id(key) in line)

    async def last_use() -> object:
        await _tools(node, key)
        return await node_owner.fetchval(
            "SELECT last_used_at FROM identity.api_keys WHERE id = $1", _id(key)
        )

    first = await last_use()

    assert first is not None
    time.sleep(3.5)  # noqa: ASYNC251 - until the node reads the key again
    assert await last_use() == first


async def test_keys_cannot_be_verified_while_the_database_is_down(
    node: McpNode, create: Callable[..., str], postgres: PostgresServer
) -> None:
    key = create("svc-waiting")

    with postgres.stopped():
        answer = await _tools(node, key)
        assert answer.status_code in (502, 503)

    async def status() -> int:
        return (await _tools(node, key)).status_code

    await eventually(status, lambda code: code == 200)


async def test_the_servers_role_reads_keys_and_writes_only_their_last_use(
    server_role: asyncpg.Connection,
) -> None:
    await server_role.fetch("SELECT * FROM identity.api_keys")
    await server_role.execute("UPDATE identity.api_keys SET last_used_at = now()")
    for statement in (
        "UPDATE identity.api_keys SET revoked_at = NULL",
        "UPDATE identity.api_keys SET roles = '{mcp:admin}'",
        "DELETE FROM identity.api_keys",
        "TRUNCATE identity.api_keys",
        (
            "INSERT INTO identity.api_keys (id, secret_hash, account, tenant, created_by, expires_at) "
            "VALUES ('abcdefghijkl', sha256('x'), 'a', 'a', 'a', 'infinity')"
        ),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await server_role.execute(statement)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "svc x", "--role", "mcp:viewer"), "without spaces"),
        (("create", "", "--role", "mcp:viewer"), "without spaces"),
        (("create", "svc"), "Missing option '--role'"),
        (("create", "svc", "--role", "a", "--network", "10.0.0.1/8"), "CIDR block"),
        (("create", "svc", "--role", "a", "--network", "here"), "CIDR block"),
        (("create", "svc", "--role", "a", "--days", "0"), "range"),
        (("create", "svc", "--role", "a", "--days", "10000"), "range"),
        (("revoke", "abcdefghijkl"), "there is no key abcdefghijkl"),
        (("list", "--owner", "nobody"), "does not let the role in"),
    ],
)
def test_a_wrong_command_says_what_is_accepted(
    mcpctl: Run, words: tuple[str, ...], said: str
) -> None:
    done = mcpctl(*words, check=False)

    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_without_keys_says_what_to_run(
    node: McpNode, postgres: PostgresServer, empty_database: DatabaseSettings, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        node.config.read_text().replace("name: nodes", f"name: {empty_database.name}")
    )
    password = tmp_path / "password"
    password.write_text(postgres.owner_password)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "mcp_server", "apikey", "list", "--config", str(config)),
            *("--password-file", str(password)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "run `mcpctl db upgrade`" in done.stderr
