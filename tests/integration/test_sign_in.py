"""`POST /auth/token` on a real node: a directory's password becomes a token, and guesses are limited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import jwt
import pytest

from tests.integration.conditions import eventually
from tests.integration.directories import PASSWORD, Slapd, directory_settings
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority, Opa, RedisServer

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
    names = ["carol", "CAROL", "Carol", "cárol", "ｃarol"] * 2  # noqa: RUF001 - also full width
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

    assert answers.count(400) == 10
    assert answers.count(429) == 20


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


async def test_a_token_of_the_directory_is_accepted_only_where_a_directory_is_configured(
    signing: McpNode, node: McpNode
) -> None:
    token = (await _sign_in(signing, "alice")).json()["access_token"]
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        there = await client.get(f"{signing.url}/tools")
        elsewhere = await client.get(f"{node.url}/tools")

    assert there.status_code in (200, 403)
    assert elsewhere.status_code == 401
