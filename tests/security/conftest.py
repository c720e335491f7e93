"""The installation that is attacked: a node with its real parts, behind Nginx of the role."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from mcp_server.infrastructure.database import connect
from mcp_server.settings import DatabaseSettings, TlsSettings
from tests.integration.cmdb_imports import import_rows
from tests.integration.conftest import (
    alertmanager,
    anyio_backend,
    authority,
    make_node,
    migrated_template,
    node_database,
    opa,
    postgres,
    prometheus,
    redis_server,
    slapd,
    workspace,
)
from tests.integration.directories import Slapd, directory_settings
from tests.integration.gateways import Nginx, write_configuration
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority, PostgresServer, free_port

__all__ = [
    "alertmanager",
    "anyio_backend",
    "authority",
    "make_node",
    "migrated_template",
    "node_database",
    "opa",
    "postgres",
    "prometheus",
    "redis_server",
    "slapd",
    "workspace",
]


@dataclass(frozen=True)
class Installation:
    """Nginx before a node.

    Attributes:
        client: a client of Nginx that trusts its certificate.
        ca: the certificate of the authority that signed it.
        refused: request ids of the attacks that the policy refused.
    """

    nginx: Nginx
    node: McpNode
    client: httpx2.Client
    ca: Path
    refused: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def installation(
    workspace: Path,
    authority: Authority,
    make_node: Callable[..., McpNode],
    postgres: PostgresServer,
    node_database: DatabaseSettings,
    slapd: Slapd,
) -> Iterator[Installation]:
    asyncio.run(_add_assets(postgres, node_database))
    port = free_port()
    shown = authority.identity("node", dns=("localhost", "mcp-server.lab.internal"))
    credential = workspace / "credential"
    credential.write_text("of-a-backend-that-is-not-reached")
    directory = directory_settings(
        slapd.url, ca=authority.ca, secret=workspace / "bind_password", timeout_s=5
    )
    node = make_node(
        "attacked",
        identity={"directory": directory.model_dump(mode="json", exclude_none=True)},
        tls=TlsSettings(cert=shown.cert, key=shown.key, ca=authority.ca),
        overrides={"public_url": f"https://127.0.0.1:{port}"},
        tools={
            # Nobody listens: no attack may come so far.
            "kubernetes": {
                "clusters": {
                    "default": {"url": "https://127.0.0.1:1", "token": {"file": str(credential)}}
                }
            },
        },
        grafana={
            "url": "https://127.0.0.1:1",
            "token": {"file": str(credential)},
            "datasource_uid": "prometheus",
        },
    )
    configuration = write_configuration(
        workspace / "nginx",
        authority,
        nodes=[node.port],
        port=port,
        nginx_requests_per_second=10_000,
        nginx_requests_burst=10_000,
    )
    nginx = Nginx(configuration, port)
    nginx.start()
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    with httpx2.Client(verify=trusted, base_url=f"https://127.0.0.1:{port}", timeout=60) as client:
        yield Installation(nginx, node, client, authority.ca)
    nginx.stop()


async def _add_assets(postgres: PostgresServer, database: DatabaseSettings) -> None:
    """Add an asset of the tenant default, which other tenants try to read."""
    owner = await connect(database, user=postgres.owner, password=postgres.owner_password)
    try:
        await import_rows(
            owner, [{"id": "db1", "name": "db1", "type": "database", "environment": "prod"}]
        )
    finally:
        await owner.close()
