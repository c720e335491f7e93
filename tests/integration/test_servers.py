"""The harness itself: each server comes back after a stop, a crash and a freeze."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import redis

from tests.integration.servers import (
    Alertmanager,
    Opa,
    Prometheus,
    RedisServer,
    Server,
    ServerFailed,
    program,
)


@pytest.fixture(params=["redis_server", "opa", "alertmanager", "prometheus"])
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


def test_a_server_comes_back_after_stop_crash_and_freeze(server: Server) -> None:
    with server.stopped():
        assert not server.answers()
    server.wait_until_answers()

    server.kill()
    assert not server.answers()
    server.start()

    with server.paused():
        assert not server.answers()
    server.wait_until_answers()


def test_redis_lets_the_server_do_what_its_role_allows_and_no_more(
    redis_server: RedisServer,
) -> None:
    settings = redis_server.settings()
    assert settings.password is not None
    with redis.Redis.from_url(
        settings.url, password=settings.password.reveal(), ssl_ca_certs=str(settings.ca)
    ) as client:
        assert client.zcard("mcp:x") == 0
        for forbidden in (
            ("ZCARD", "other"),
            ("SET", "mcp:x", "1"),
            ("CONFIG", "GET", "*"),
            ("FLUSHALL",),
            ("KEYS", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)


def test_opa_serves_its_socket_only_to_the_decision_protocol(opa: Opa) -> None:
    assert opa.socket.is_socket()
    assert opa.socket.stat().st_mode & 0o777 == 0o660
    with urllib.request.urlopen(f"{opa.diagnostics}/health?bundles") as answer:
        assert answer.status == 200


def test_every_severity_fires_in_alertmanager(
    prometheus: Prometheus, alertmanager: Alertmanager
) -> None:
    prometheus.wait_until_alerts_arrive(alertmanager)

    assert sorted(alertmanager.alerts()) == ["AlwaysCritical", "AlwaysInfo", "AlwaysWarning"]


def test_a_missing_program_is_an_error_that_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="apt install nothing-like-it"):
        program("no-such-program", "nothing-like-it", tmp_path)
