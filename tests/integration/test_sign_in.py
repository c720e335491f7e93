"""`POST /auth/token` on a real node: a directory's password becomes a token, and guesses are limited."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import jwt
import pytest
import yaml

from tests.integration.conditions import eventually
from tests.integration.directories import PASSWORD, Slapd, directory_settings
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority, Opa, RedisServer, build_bundle
from tests.policies import POLICIES

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def made(
    make_node: Callable[..., McpNode], slapd: Slapd, authority: Authority, workspace: Path
) -> McpNode:
    settings = directory_settings(
        slapd.url, ca=authority.ca, secret=workspace / "bind_password", timeout_s=5
    )
    return make_node(
        "signs-in", identity={"directory": settings.model_dump(mode="json", exclude_none=True)}
    )


@pytest.fixture
def signing(made: McpNode, redis_server: RedisServer) -> McpNode:
    """A node with a directory, its counters empty."""
    redis_server.cli("flushall")
    return made


async def _post(node: McpNode, body: Any, **options: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=60) as client:
        return await client.post(f"{node.url}/auth/token", json=body, **options)


async def _sign_in(
    node: McpNode, user: str, password: str = PASSWORD, *, ip: str = "192.0.2.1"
) -> httpx2.Response:
    body = {"username": user, "password": password}
    return await _post(node, body, headers={"X-Forwarded-For": ip})


async def _rows(owner: asyncpg.Connection, ip: str) -> list[dict[str, Any]]:
    rows = await owner.fetch(
        "SELECT user_id, tenant, arguments, effect, reasons, outcome FROM audit.events "
        "WHERE method = 'sign_in' AND client_ip = $1 ORDER BY time",
        ip,
    )
    return [dict(row) for row in rows]


async def test_a_password_becomes_a_token_of_one_hour_that_holds_the_users_groups(
    signing: McpNode,
) -> None:
    response = await _sign_in(signing, "alice")

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims["sub"] == "alice"
    assert claims["groups"] == ["everyone", "mcp-operators"]
    assert "roles" not in claims
    assert claims["exp"] - claims["iat"] == 3600


async def test_a_sign_in_is_recorded_without_the_password(
    signing: McpNode, node_owner: asyncpg.Connection
) -> None:
    await _sign_in(signing, "alice", ip="192.0.2.2")
    await _sign_in(signing, "alice", "a wrong secret", ip="192.0.2.2")
    await _sign_in(signing, "mallory", ip="192.0.2.2")

    rows = await _rows(node_owner, "192.0.2.2")

    assert [(row["user_id"], row["effect"], row["outcome"]) for row in rows] == [
        ("alice", "allow", "ok"),
        (None, "deny", "refused"),
        (None, "deny", "refused"),
    ]
    assert [json.loads(row["arguments"])["claimed"] for row in rows] == [
        {"user": "alice"},
        {"user": "alice"},
        {"user": "mallory"},
    ]
    assert [json.loads(row["reasons"]) for row in rows] == [
        [],
        [{"code": "wrong_password"}],
        [{"code": "unknown_user"}],
    ]
    assert "a wrong secret" not in str(rows)
    assert "a wrong secret" not in signing.log.read_text()


async def test_the_answer_does_not_tell_whether_a_user_exists(signing: McpNode) -> None:
    answers = [
        await _sign_in(signing, user, password)
        for user, password in (
            ("bob", "wrong"),
            ("nobody", "wrong"),
            ("locked", PASSWORD),
            ("ad-disabled", PASSWORD),
            ("*", PASSWORD),
        )
    ]

    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_grant"
    fields = [{name for name in answer.headers if name != "date"} for answer in answers]
    assert all(each == fields[0] for each in fields)


async def test_failures_with_a_name_are_limited_for_all_addresses_and_spellings(
    signing: McpNode, node_owner: asyncpg.Connection
) -> None:
    names = ["carol", "CAROL", "Carol", "cárol", "ｃarol"]  # noqa: RUF001 - also full width
    guesses = [
        _sign_in(signing, name, "guess", ip=f"198.51.100.{number}")
        for number, name in enumerate(names)
    ]
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {400}

    limited = await _sign_in(signing, "carol", ip="198.51.100.99")

    assert limited.status_code == 429
    assert limited.json()["error"] == "rate_limited"
    assert 0 < int(limited.headers["retry-after"]) <= 900
    assert (await _rows(node_owner, "198.51.100.99"))[-1]["outcome"] == "limited"
    assert (await _sign_in(signing, "alice", ip="198.51.100.98")).status_code == 200


async def test_concurrent_guesses_get_no_more_than_the_limit(signing: McpNode) -> None:
    guesses = [
        _sign_in(signing, "bob", "guess", ip=f"198.51.100.{number}") for number in range(100, 130)
    ]

    answers = [answer.status_code for answer in await asyncio.gather(*guesses)]

    assert answers.count(400) == 5
    assert answers.count(429) == 25


async def test_failures_from_an_address_are_limited_for_all_names_and_recorded_as_a_sample(
    signing: McpNode, node_owner: asyncpg.Connection
) -> None:
    for start in (0, 25):
        await asyncio.gather(
            *(_sign_in(signing, f"user{start + n}", ip="203.0.113.1") for n in range(25))
        )

    assert (await _sign_in(signing, "alice", ip="203.0.113.1")).status_code == 429
    assert (await _sign_in(signing, "alice", ip="203.0.113.2")).status_code == 200
    assert len(await _rows(node_owner, "203.0.113.1")) <= 20  # 10 rows in each of two minutes


async def test_successful_sign_ins_do_not_count(signing: McpNode) -> None:
    for _ in range(15):
        assert (await _sign_in(signing, "lasting")).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "username"),
        ([], "username"),
        ({"username": "alice"}, "username"),
        ({"username": "alice", "password": None}, "two strings"),
        ({"username": ["alice"], "password": "x"}, "two strings"),
        ({"username": "alice", "password": "x", "scope": "all"}, "two strings"),
        ({"username": "alice", "password": ""}, "must not be empty"),
        ({"username": " ", "password": "x"}, "must not be empty"),
    ],
)
async def test_a_body_of_another_form_says_which_form_is_right(
    signing: McpNode, body: Any, said: str
) -> None:
    answer = await _post(signing, body)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert said in answer.json()["error_description"]


async def test_a_body_that_is_too_large_or_not_json_is_refused(signing: McpNode) -> None:
    async with httpx2.AsyncClient() as client:
        large = await client.post(f"{signing.url}/auth/token", json={"username": "x" * 9000})
        form = await client.post(f"{signing.url}/auth/token", data={"username": "alice"})
        read = await client.get(f"{signing.url}/auth/token")
        foreign = await client.post(
            f"{signing.url}/auth/token", json={}, headers={"Origin": "https://evil.example"}
        )

    assert (large.status_code, form.status_code) == (413, 415)
    assert (read.status_code, foreign.status_code) == (405, 403)


async def test_without_a_directory_there_is_nothing_to_sign_in_with(node: McpNode) -> None:
    answer = await _sign_in(node, "alice")

    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


async def test_a_directory_that_does_not_answer_is_a_fault_of_the_server_and_no_guess(
    signing: McpNode, slapd: Slapd
) -> None:
    with slapd.stopped():
        for _ in range(12):
            answer = await _sign_in(signing, "alice")
            assert answer.status_code == 502
    assert answer.json()["error"] == "unavailable"
    assert "retry-after" in answer.headers
    assert (await _sign_in(signing, "alice")).status_code == 200


@pytest.mark.parametrize("store", ["redis", "opa"])
async def test_nobody_signs_in_while_guesses_cannot_be_counted_or_judged(
    signing: McpNode, redis_server: RedisServer, opa: Opa, store: str
) -> None:
    server = {"redis": redis_server, "opa": opa}[store]
    with server.stopped():
        answer = await _sign_in(signing, "alice")
        assert answer.status_code in (502, 503)
        assert "access_token" not in answer.text

    async def status() -> int:
        return (await _sign_in(signing, "alice")).status_code

    await eventually(status, lambda code: code == 200)


@pytest.fixture(scope="module")
def granting(
    make_node: Callable[..., McpNode], slapd: Slapd, authority: Authority, workspace: Path
) -> Iterator[McpNode]:
    """A node whose policy data give the directory's groups roles."""
    policies = workspace / "group-policies"
    shutil.copytree(POLICIES, policies)
    (policies / "config" / "groups" / "data.yaml").write_text(
        yaml.safe_dump(
            {"directory": {"mcp-operators": ["mcp:operator"], "mcp-leads": ["mcp:viewer"]}}
        )
    )
    opa = Opa(workspace / "group-opa", build_bundle(policies, workspace / "groups.tar.gz"))
    opa.start()
    settings = directory_settings(slapd.url, ca=authority.ca, secret=workspace / "bind_password")
    yield make_node(
        "grants",
        policy=opa.settings(),
        identity={"directory": settings.model_dump(mode="json", exclude_none=True)},
    )
    opa.stop()


async def _call(node: McpNode, token: str, tool: str, arguments: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, timeout=60
    ) as client:
        return await client.post(f"{node.url}/tools/{tool}/execute", json=arguments)


async def test_the_groups_of_the_directory_give_the_roles_of_a_call(
    granting: McpNode, redis_server: RedisServer, node_owner: asyncpg.Connection, assets: None
) -> None:
    """From the password to a recorded change: alice is in mcp-operators, bob in mcp-leads."""
    redis_server.cli("flushall")
    change = {"asset_id": "db1", "status": "maintenance", "reason": "a test of sign-in"}
    tokens = {
        user: (await _sign_in(granting, user)).json()["access_token"]
        for user in ("alice", "bob", "lasting")
    }

    reads = {
        user: (await _call(granting, token, "cmdb_query_assets", {})).status_code
        for user, token in tokens.items()
    }
    changes = {
        user: (await _call(granting, token, "cmdb_update_asset_status", change)).status_code
        for user, token in tokens.items()
    }

    assert reads == {"alice": 200, "bob": 200, "lasting": 403}
    assert changes == {"alice": 200, "bob": 403, "lasting": 403}
    row = await node_owner.fetchrow(
        "SELECT tenant, judged::text FROM audit.events WHERE user_id = 'alice' "
        "AND tool = 'cmdb:update_asset_status' AND outcome = 'ok'"
    )
    assert row is not None
    subject = json.loads(row["judged"])["subject"]
    assert subject["issuer"] == "directory"
    assert subject["groups"] == ["everyone", "mcp-operators"]
    assert subject["roles"] == []


async def test_a_token_of_the_directory_is_accepted_only_where_a_directory_is_configured(
    signing: McpNode, node: McpNode
) -> None:
    token = (await _sign_in(signing, "alice")).json()["access_token"]
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        there = await client.get(f"{signing.url}/tools")
        elsewhere = await client.get(f"{node.url}/tools")

    assert there.status_code in (200, 403)
    assert elsewhere.status_code == 401


# --- tokens that are not valid ----------------------------------------------------------------------


async def _tools(node: McpNode, token: str, ip: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": ip}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as client:
        return await client.get(f"{node.url}/tools")


async def test_a_token_that_is_not_valid_is_recorded_with_who_it_claims_and_never_itself(
    signing: McpNode, node_owner: asyncpg.Connection
) -> None:
    forged = signing.token("mallory", secret="another-secret-of-32-bytes-or-more-0123")
    key = "emcp_abcdefghijkl_" + "b" * 59
    for token in (forged, key, "garbage"):
        assert (await _tools(signing, token, "192.0.2.10")).status_code == 401

    rows = await _rows(node_owner, "192.0.2.10")

    claimed = [json.loads(row["arguments"])["claimed"] for row in rows]
    assert claimed[0]["sub"] == "mallory"
    assert set(claimed[0]) == {"iss", "sub", "jti"}
    assert claimed[1:] == [{"iss": "api-keys", "jti": "abcdefghijkl"}, {}]
    assert {row["user_id"] for row in rows} == {None}
    reasons = [json.loads(row["reasons"])[0] for row in rows]
    assert {reason["code"] for reason in reasons} == {"invalid_token"}
    assert "signature" in reasons[0]["message"]
    for secret in (forged.split(".")[2], "b" * 20):
        assert secret not in str(rows)
        assert secret not in signing.log.read_text()


async def test_invalid_tokens_of_an_address_are_limited_and_its_valid_ones_are_not(
    signing: McpNode, node_owner: asyncpg.Connection, redis_server: RedisServer
) -> None:
    async def refused(number: int) -> int:
        return (await _tools(signing, f"guess{number}", "192.0.2.11")).status_code

    codes: list[int] = []
    for start in range(0, 120, 20):
        codes += await asyncio.gather(*(refused(start + n) for n in range(20)))

    assert codes.count(401) == 100
    assert codes.count(429) == 20
    limited = await _tools(signing, "guess", "192.0.2.11")
    assert 0 < int(limited.headers["retry-after"]) <= 300
    assert (await _tools(signing, signing.token(), "192.0.2.11")).status_code == 200
    assert (await _tools(signing, "guess", "192.0.2.12")).status_code == 401
    # 10 rows in each of two minutes; and one key for each address, whatever was sent.
    assert len(await _rows(node_owner, "192.0.2.11")) <= 20
    keys = redis_server.cli("keys", "mcp:window:sign_in:*").split()
    assert sorted(keys) == [f"mcp:window:sign_in:token:address:192.0.2.{n}" for n in (11, 12)]
    entries = int(redis_server.cli("zcard", "mcp:window:sign_in:token:address:192.0.2.11"))
    assert entries == 100


async def test_an_expired_token_is_recorded_and_no_guess(
    signing: McpNode, node_owner: asyncpg.Connection, redis_server: RedisServer
) -> None:
    """A client that does not renew its token uses up nobody's limit; a forged old token does."""
    long_ago = time.time() - 7200
    expired = signing.token(now=long_ago)
    forged = signing.token(now=long_ago, secret="another-secret-of-32-bytes-or-more-0123")

    refused = [await _tools(signing, expired, "192.0.2.13") for _ in range(3)]
    counted = redis_server.cli("keys", "mcp:window:sign_in:*").split()
    other = await _tools(signing, forged, "192.0.2.13")

    assert {answer.status_code for answer in (*refused, other)} == {401}
    assert "expired" in refused[0].json()["error"]["message"]
    assert counted == []
    window = "mcp:window:sign_in:token:address:192.0.2.13"
    assert int(redis_server.cli("zcard", window)) == 1
    reasons = [json.loads(row["reasons"])[0] for row in await _rows(node_owner, "192.0.2.13")]
    assert ["expired" in reason["message"] for reason in reasons] == [True, True, True, False]


async def test_a_request_without_a_token_is_no_failed_sign_in(
    signing: McpNode, redis_server: RedisServer
) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{signing.url}/tools")

    assert answer.status_code == 401
    assert redis_server.cli("keys", "mcp:window:sign_in:*") == ""


@pytest.mark.parametrize("store", ["redis", "opa"])
async def test_a_token_that_is_not_valid_is_refused_while_it_cannot_be_counted(
    signing: McpNode, redis_server: RedisServer, opa: Opa, store: str
) -> None:
    with {"redis": redis_server, "opa": opa}[store].stopped():
        assert (await _tools(signing, "garbage", "192.0.2.13")).status_code == 401


async def test_rows_that_were_left_out_are_counted_in_one_row_when_the_node_stops(
    make_node: Callable[..., McpNode],
    redis_server: RedisServer,
    node_owner: asyncpg.Connection,
) -> None:
    redis_server.cli("flushall")
    node = make_node("flooded")
    await asyncio.gather(*(_tools(node, f"guess{n}", "192.0.2.14") for n in range(30)))

    node.stop()

    rows = await _rows(node_owner, "192.0.2.14")
    left_out = [json.loads(row["arguments"]).get("rows_left_out", 0) for row in rows]
    refused = [row for row, number in zip(rows, left_out, strict=True) if not number]
    assert sum(left_out) + len(refused) == 30
    assert 10 <= len(refused) <= 20  # of one or of two minutes
