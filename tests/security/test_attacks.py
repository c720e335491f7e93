"""Every attack of the tables gets exactly the answer that it must get, through the real Nginx."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from mcp_server.infrastructure.database import connect
from mcp_server.settings import DatabaseSettings
from tests.integration.servers import PostgresServer, RedisServer
from tests.security import http, messages, permissions, sign_in, tokens
from tests.security.attack import Attack, answer_of
from tests.security.conftest import Installation

pytestmark = pytest.mark.anyio

ATTACKS = [
    *(
        each
        for module in (tokens, sign_in, permissions, messages, http)
        for each in module.attacks()
    ),
]
# What would help an attacker, and stands in no answer.
_TELLING = (
    "Traceback",
    "uvicorn",
    "starlette",
    "pydantic",
    "asyncpg",
    "/mcp_server/",
    "postgresql://",
    "nginx/",
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused(
    installation: Installation, redis_server: RedisServer, attack: Attack
) -> None:
    if attack.answer.status == HTTPStatus.UNAUTHORIZED or attack.request.path == sign_in.PATH:
        redis_server.cli("flushall")  # failed sign-ins of one address are limited

    response = attack.request.send(installation.client)

    answer = answer_of(response)
    assert answer == attack.answer, f"{attack.because}; {answer}: {response.text[:500]}"
    if answer.reason:
        installation.refused.append(response.headers["x-request-id"])
    told = response.text + str(response.headers)
    assert not [word for word in _TELLING if word in told]


async def test_each_refusal_of_the_policy_is_in_the_audit_log(
    installation: Installation, postgres: PostgresServer, node_database: DatabaseSettings
) -> None:
    owner = await connect(node_database, user=postgres.owner, password=postgres.owner_password)
    rows = await owner.fetch("SELECT request_id FROM audit.events WHERE effect = 'deny'")
    await owner.close()

    assert len(installation.refused) >= 100
    assert set(installation.refused) <= {row["request_id"] for row in rows}


def test_the_node_has_met_no_internal_error_and_is_ready(installation: Installation) -> None:
    log = installation.node.log.read_text()

    assert "internal_error" not in log
    assert "Traceback" not in log
    assert installation.client.get("/health/ready").status_code == 200


def test_the_names_of_the_attacks_are_unique() -> None:
    names = [attack.name for attack in ATTACKS]

    assert len(set(names)) == len(names)
    assert len(names) >= 200
