"""The real servers of the integration tests, and one node with the suite's fixtures."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mcp_server.settings import DatabaseSettings
from tests.conformance.auth_proxy import auth_proxy
from tests.conformance.fixture_node import catalogue
from tests.integration.conftest import (
    alertmanager,
    authority,
    migrated_template,
    node_database,
    postgres,
    prometheus,
    redis_server,
    workspace,
)
from tests.integration.nodes import McpNode
from tests.integration.servers import (
    Alertmanager,
    Opa,
    Prometheus,
    RedisServer,
    build_bundle,
    free_port,
)

__all__ = [
    "alertmanager",
    "authority",
    "migrated_template",
    "node_database",
    "postgres",
    "prometheus",
    "redis_server",
    "workspace",
]

_ROOT = Path(__file__).resolve().parents[2]


class FixtureMcpNode(McpNode):
    """The node of fixture_node.py as a process."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.conformance.fixture_node", str(self.config)]


@pytest.fixture(scope="session")
def fixture_opa(workspace: Path) -> Iterator[Opa]:
    """OPA with the shipped policies; their data knows the fixtures and allows more calls an hour."""
    tree = workspace / "policies"
    shutil.copytree(_ROOT / "policies", tree)
    catalog = tree / "config/catalog/data.yaml"
    data = yaml.safe_load(catalog.read_text())
    for kind, entries in catalogue().items():
        data[kind].update(entries)
    # Written out twice, entries would become YAML aliases, which OPA does not read.
    catalog.write_text(yaml.safe_dump(yaml.safe_load(_plain(data))))
    limits = tree / "config/limits/data.yaml"
    allowed = yaml.safe_load(limits.read_text())
    allowed["user"]["limit"] = allowed["global"]["limit"] = 100_000
    limits.write_text(yaml.safe_dump(allowed))
    server = Opa(workspace / "opa", build_bundle(tree, workspace / "bundle.tar.gz"))
    server.start()
    yield server
    server.stop()


def _plain(data: object) -> str:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return yaml.dump(data, Dumper=Dumper)


@pytest.fixture(scope="session")
def conformance_url(
    workspace: Path,
    fixture_opa: Opa,
    redis_server: RedisServer,
    node_database: DatabaseSettings,
    prometheus: Prometheus,
    alertmanager: Alertmanager,
) -> Iterator[str]:
    """The MCP endpoint that the suite talks to."""
    os.environ["PYTHONPATH"] = str(_ROOT)
    port = free_port()
    node = FixtureMcpNode(
        workspace / "node",
        # What clients name is the proxy, as it is the load balancer elsewhere.
        overrides={"public_url": f"http://localhost:{port}"},
        policy=fixture_opa.settings(),
        counters=redis_server.settings(),
        database=node_database,
        prometheus_url=prometheus.url,
        alertmanager_url=alertmanager.url,
    )
    node.start()
    with auth_proxy(port, node.url, lambda: node.token("conformance")) as url:
        yield f"{url}/mcp"
    node.stop()
