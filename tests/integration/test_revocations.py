"""Revoked tokens: of an id, a user or an issuer, on every node, within seconds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import asyncpg
import jwt
import pytest
import yaml
from click.testing import CliRunner, Result

from mcp_server.cli import main
from mcp_server.identity import AuthenticationError, IdentityUnavailable, Subject, revocations
from mcp_server.identity.revocations import Revocations
from mcp_server.infrastructure.database import Database
from mcp_server.settings import DatabaseSettings
from tests.integration.conditions import eventually
from tests.integration.nodes import McpNode, rpc
from tests.integration.servers import PostgresServer, RedisServer

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
Mcpctl = Callable[..., Awaitable[Result]]


@pytest.fixture
def mcpctl(node: McpNode, postgres: PostgresServer, tmp_path: Path) -> Mcpctl:
    password = tmp_path / "owner"
    password.write_text(postgres.owner_password)

    async def run(*arguments: str, config: Path = node.config) -> Result:
        access = ("--config", str(config), "--owner", postgres.owner)
        whole = ["token", *arguments, *access, "--password-file", str(password)]
        # A thread, because the command runs an event loop of its own.
        return await asyncio.to_thread(CliRunner().invoke, main, whole)

    return run


@pytest.fixture
def with_company(node: McpNode, tmp_path: Path) -> Path:
    """The configuration of the node, and an issuer `company` in it."""
    document = yaml.safe_load(node.config.read_text())
    document["identity"]["issuers"] = [
        {
            "name": "company",
            "issuer": "https://idp.example.com/realms/company",
            "audience": "mcp",
            "algorithms": ["RS256"],
        }
    ]
    config = tmp_path / "with_company.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


async def _status(node: McpNode, token: str) -> int:
    async with node.http(token) as http:
        return (await rpc(http, LIST)).status_code


async def _ready(node: McpNode) -> int:
    async with node.http() as http:
        return (await http.get("/health/ready")).status_code


async def _revoked(node: McpNode, token: str) -> float:
    began = time.monotonic()
    await eventually(lambda: _status(node, token), lambda status: status == 401)
    return time.monotonic() - began


async def test_a_token_is_revoked_by_its_id_and_no_other(
    node: McpNode, mcpctl: Mcpctl, redis_server: RedisServer
) -> None:
    token, other = node.token("rita"), node.token("rita")
    assert await _status(node, token) == 200
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]

    result = await mcpctl("revoke", "--token-id", jti, "--reason", "lost laptop")

    assert (result.exit_code, result.output) == (0, "revoked\n")
    assert await _revoked(node, token) < 5
    redis_server.cli("flushall")
    assert await _status(node, token) == 401
    assert await _status(node, other) == 200
    listed = [json.loads(line) for line in (await mcpctl("revocations")).output.splitlines()]
    (row,) = [row for row in listed if row["token_id"] == jti]
    assert (row["issuer"], row["user_id"], row["reason"]) == (None, None, "lost laptop")


async def test_all_tokens_of_a_user_end_and_a_new_one_is_accepted(
    node: McpNode, mcpctl: Mcpctl
) -> None:
    tokens = [node.token("umar"), node.token("umar", roles=["mcp:admin"])]
    assert [await _status(node, token) for token in tokens] == [200, 200]

    done = await mcpctl("revoke", "--issuer", "shared-secret", "--user", "umar", "--reason", "left")

    assert (done.exit_code, done.output) == (0, "revoked\n")
    assert await _revoked(node, tokens[0]) < 5
    assert await _status(node, tokens[1]) == 401
    assert await _status(node, node.token("umar", now=time.time() + 2)) == 200
    assert await _status(node, node.token("someone-else")) == 200


async def test_tokens_of_another_issuer_are_not_touched(
    node: McpNode, mcpctl: Mcpctl, with_company: Path
) -> None:
    token = node.token("ines")
    for whose in ((), ("--user", "ines")):
        company = ("--issuer", "company", *whose, "--reason", "key stolen")
        done = await mcpctl("revoke", *company, config=with_company)
        assert (done.exit_code, done.output) == (0, "revoked\n")
    ended = node.token("marker")
    await mcpctl("revoke", "--user", "marker", "--reason", "to know when the list was read")

    await _revoked(node, ended)

    assert await _status(node, token) == 200


async def test_a_revocation_holds_on_every_node_without_redis(
    node: McpNode, make_node: Callable[..., McpNode], mcpctl: Mcpctl, redis_server: RedisServer
) -> None:
    other = await asyncio.to_thread(make_node, "node-revocations")
    token, valid = node.token("nora"), node.token("nils")
    assert [await _status(each, token) for each in (node, other)] == [200, 200]
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]

    await mcpctl("revoke", "--token-id", jti, "--reason", "lost laptop")

    assert max(await asyncio.gather(*(_revoked(each, token) for each in (node, other)))) < 5
    with redis_server.stopped():
        without = [await _status(each, token) for each in (node, other)]
        unlimited = await _status(node, valid)
    # Both, because later tests use the first one.
    for each in (node, other):
        await eventually(partial(_ready, each), lambda status: status == 200)
    assert without == [401, 401]
    assert unlimited != 401  # the limits cannot be counted; the token is valid all the same
    assert [await _status(each, token) for each in (node, other)] == [401, 401]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "--reason", "x"), "name what is revoked: --issuer, --user, --token-id"),
        (("revoke", "--user", "", "--reason", "x"), "name what is revoked"),
        (("revoke", "--user", "a"), "Missing option '--reason'"),
    ],
)
async def test_a_revocation_of_nothing_is_refused(
    mcpctl: Mcpctl, arguments: tuple[str, ...], said: str
) -> None:
    result = await mcpctl(*arguments)

    assert result.exit_code != 0
    assert said in result.output


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        ("keycloak", "accepted are shared-secret, api-keys, company\n"),
        ("compnay", "; did you mean company? accepted are shared-secret, api-keys, company\n"),
        # These are configured by sections of their own, which are absent here.
        ("directory", "'directory' is no issuer of this configuration"),
        ("client-certificates", "'client-certificates' is no issuer of this configuration"),
    ],
)
async def test_an_issuer_that_is_not_accepted_is_refused_and_nothing_is_written(
    mcpctl: Mcpctl,
    with_company: Path,
    node_owner: asyncpg.Connection,
    issuer: str,
    said: str,
) -> None:
    which = ("--issuer", issuer, "--user", "mallory", "--token-id", "t", "--reason", "x")

    done = await mcpctl("revoke", *which, config=with_company)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: nothing was revoked: ")
    assert said in done.stderr
    written = "SELECT count(*) FROM identity.revocations WHERE issuer = $1 OR user_id = 'mallory'"
    assert await node_owner.fetchval(written, issuer) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO identity.revocations (user_id) VALUES ('a')",
        "DELETE FROM identity.revocations",
        "UPDATE identity.revocations SET expires_at = now()",
        "TRUNCATE identity.revocations",
    ],
)
async def test_the_server_only_reads_the_list(
    server_role: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server_role.execute(statement)


async def _insert(owner: asyncpg.Connection, rows: int, lasting: str) -> None:
    await owner.execute(
        "INSERT INTO identity.revocations (user_id, expires_at, revoked_by, reason)"
        " SELECT 'u' || n, now() + $1::text::interval, 'x', 'x' FROM generate_series(1, $2) n",
        lasting,
        rows,
    )


def _subject(user: str, issued_at: float = 0.0) -> Subject:
    return Subject(id=user, tenant="t", roles=(), issuer="i", issued_at=issued_at)


class TestReading:
    async def test_rows_that_have_expired_are_not_in_force(
        self, database: Database, owner: asyncpg.Connection
    ) -> None:
        await _insert(owner, 1, "-1 second")
        known = Revocations(database, max_age_s=60)
        await known._read()

        known.check(_subject("u1"))

    async def test_too_many_rows_accept_no_token(
        self, database: Database, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocations, "MAX_REVOCATIONS", 2)
        await _insert(owner, 3, "1 hour")
        known = Revocations(database, max_age_s=60)
        await known._read()

        with pytest.raises(IdentityUnavailable, match="cannot be read"):
            known.check(_subject("someone"))

    async def test_the_last_list_is_used_for_a_while_without_the_database(
        self, database: Database, owner: asyncpg.Connection
    ) -> None:
        await _insert(owner, 1, "1 hour")
        known = Revocations(database, max_age_s=0.5)
        await known._read()
        await database.stop()
        await known._read()

        known.check(_subject("u2"))
        with pytest.raises(AuthenticationError, match="revoked"):
            known.check(_subject("u1", time.time() - 1))
        await asyncio.sleep(0.6)
        for user in ("u1", "u2"):
            with pytest.raises(IdentityUnavailable):
                known.check(_subject(user))

    async def test_without_a_list_no_token_is_accepted(
        self, database_settings: DatabaseSettings
    ) -> None:
        known = Revocations(Database(database_settings), max_age_s=60)

        with pytest.raises(IdentityUnavailable):
            known.check(_subject("u"))
