"""Fixtures: real servers for the session, a fresh database for each test."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.database import Database, connect
from mcp_server.infrastructure.database.migrate import upgrade
from mcp_server.settings import DatabaseSettings
from tests.integration.clusters import Cluster
from tests.integration.cmdb_imports import import_rows
from tests.integration.directories import Slapd
from tests.integration.nodes import McpNode
from tests.integration.servers import (
    Alertmanager,
    Authority,
    Opa,
    PostgresServer,
    Prometheus,
    RedisServer,
    build_bundle,
)

_POLICIES = Path(__file__).resolve().parents[2] / "policies"
_numbers = itertools.count(1)
# Files that start clusters or wait for deadlines: begun last, one of them would be alone at the end.
_LONG = (
    "test_audit_unfinished",
    "test_kubernetes",
    "test_masking",
    "test_monitoring_limits",
    "test_nginx",
    "test_sign_in",
    "test_silent_backends",
    "test_stopping",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, and let the garbage of fault tests be collected in later tests.

    asyncio closes the connection of a TLS handshake that was cut off in the background; where the test's
    loop ends first, its socket is closed by the garbage collector, which would fail whatever test runs
    just then.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))
    items.sort(key=lambda item: not item.path.name.startswith(_LONG))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logs_of_one_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no command that a test runs in this process configure the logs of the tests after it.

    structlog would keep each logger as it was at its first use, and `capture_logs` would see nothing.
    """
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def configure_without_cache(level: str) -> None:
        telemetry.logs.configure_logs(level)
        structlog.configure(cache_logger_on_first_use=False)

    monkeypatch.setattr(telemetry, "configure_logs", configure_without_cache)
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A directory with a short path (Unix sockets) that other accounts may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="emcp-"))
    directory.chmod(0o755)
    yield directory
    if not os.environ.get("KEEP_WORKSPACE"):
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def authority(workspace: Path) -> Authority:
    directory = workspace / "tls"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture(scope="session")
def postgres(workspace: Path, authority: Authority) -> Iterator[PostgresServer]:
    """PostgreSQL with the roles mcp_owner and mcp_server."""
    server = PostgresServer(workspace / "postgres", authority)
    server.start()
    server.create_roles()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(workspace: Path, authority: Authority) -> Iterator[RedisServer]:
    server = RedisServer(workspace / "redis", authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def slapd(workspace: Path, authority: Authority) -> Iterator[Slapd]:
    """OpenLDAP with the users and groups of a small company."""
    server = Slapd(workspace / "slapd", authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def opa(workspace: Path) -> Iterator[Opa]:
    """OPA with a bundle of the shipped policies."""
    bundle = build_bundle(_POLICIES, workspace / "bundle.tar.gz")
    server = Opa(workspace / "opa", bundle)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def alertmanager(workspace: Path) -> Iterator[Alertmanager]:
    server = Alertmanager(workspace / "alertmanager")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prometheus(workspace: Path, alertmanager: Alertmanager) -> Iterator[Prometheus]:
    server = Prometheus(workspace / "prometheus", alertmanager)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(workspace: Path, authority: Authority) -> Iterator[Cluster]:
    """A Kubernetes cluster with one simulated node, and with what the tests of one file put into it."""
    with Cluster(workspace / f"kubernetes{next(_numbers)}", authority) as running:
        yield running


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """The name of a migrated database that is only copied from."""
    name = "migrated"
    postgres.create_database(name)
    asyncio.run(
        upgrade(postgres.settings(name), user=postgres.owner, password=postgres.owner_password)
    )
    return name


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[DatabaseSettings]:
    """Settings for a database without any schema of ours."""
    name = f"empty_{next(_numbers)}"
    postgres.create_database(name)
    yield postgres.settings(name)
    postgres.drop_database(name)


@pytest.fixture
def database_settings(
    request: pytest.FixtureRequest, postgres: PostgresServer, migrated_template: str
) -> Iterator[DatabaseSettings]:
    """Settings of the server's role for a fresh migrated database; its parameter is the deadline."""
    name = f"test_{next(_numbers)}"
    postgres.create_database(name, template=migrated_template)
    yield postgres.settings(name, **getattr(request, "param", {}))
    postgres.drop_database(name)


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    pool = Database(database_settings)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
async def owner(
    postgres: PostgresServer, database_settings: DatabaseSettings
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of mcp_owner to the test's database."""
    connection = await connect(
        database_settings, user=postgres.owner, password=postgres.owner_password
    )
    yield connection
    await connection.close()


@pytest.fixture
async def server_role(database_settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection of mcp_server to the test's database."""
    connection = await connect(database_settings)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def node_database(postgres: PostgresServer, migrated_template: str) -> DatabaseSettings:
    """Settings of the server's role for the database that the session's nodes share."""
    postgres.create_database("nodes", template=migrated_template)
    return postgres.settings("nodes")


@pytest.fixture(scope="session")
def make_node(
    workspace: Path,
    opa: Opa,
    redis_server: RedisServer,
    node_database: DatabaseSettings,
    prometheus: Prometheus,
    alertmanager: Alertmanager,
) -> Iterator[Callable[..., McpNode]]:
    """Make and start another node; what differs from the session's parts is given by name."""
    made: list[McpNode] = []

    def make(name: str, **different: Any) -> McpNode:
        parts: dict[str, Any] = {
            "policy": opa.settings(),
            "counters": redis_server.settings(),
            "database": node_database,
            "prometheus_url": prometheus.url,
            "alertmanager_url": alertmanager.url,
        }
        server = McpNode(workspace / name, name=name, **{**parts, **different})
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def shared_node(make_node: Callable[..., McpNode]) -> McpNode:
    return make_node("node1")


@pytest.fixture
def empty_counters(redis_server: RedisServer) -> None:
    """Empty counters: of failed sign-ins too, which all tests have from the same address."""
    redis_server.cli("flushall")


@pytest.fixture
def node(shared_node: McpNode, empty_counters: None) -> McpNode:
    """A server node with everything it needs, its counters empty."""
    return shared_node


@pytest.fixture
async def node_owner(
    postgres: PostgresServer, node_database: DatabaseSettings
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of mcp_owner to the nodes' database."""
    connection = await connect(node_database, user=postgres.owner, password=postgres.owner_password)
    yield connection
    await connection.close()


@pytest.fixture
async def assets(node_owner: asyncpg.Connection) -> None:
    """Assets of two tenants."""
    rows = [
        {"id": "db1", "name": "db1", "type": "database", "environment": "prod"},
        {"id": "mcp1", "name": "mcp1", "type": "server", "environment": "prod"},
        {"id": "x1", "name": "x1", "type": "server", "environment": "dev", "tenant": "other"},
    ]
    await import_rows(node_owner, rows)
