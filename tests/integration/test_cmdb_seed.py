"""What the role mcp_server enters into the CMDB, and what it tells a node about one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mcp_server.cli.cmdb_import import ImportReport, Source, read_sources, write_import
from mcp_server.infrastructure.database import Database
from mcp_server.settings import CmdbSettings
from mcp_server.tools.cmdb.model import AssetStatus, Direction, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.plays import ansible_playbook

pytestmark = pytest.mark.anyio

REST = {
    "mcp_server_cmdb_backend": "rest",
    "mcp_server_cmdb_url": "https://cmdb.example.com/base",
    "mcp_server_cmdb_key": "k" * 20,
}

Role = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def role(tmp_path: Path) -> Role:
    """Let the role check its variables and write its files, for an inventory."""

    def run(inventory: str = "lab", **variables: object) -> subprocess.CompletedProcess[str]:
        extra = tmp_path / "variables.json"
        secrets = {
            f"mcp_server_{name}": name * 8
            for name in ("jwt_secret", "redis_password", "database_password")
        }
        extra.write_text(json.dumps(secrets | {"folder": str(tmp_path)} | variables))
        rendering = "tests/integration/mcp_server_render.yml"
        return ansible_playbook("-i", f"inventories/{inventory}", "-e", f"@{extra}", rendering)

    return run


async def _seed(owner: asyncpg.Connection, folder: Path) -> ImportReport:
    return await write_import(
        owner,
        read_sources([Source(str(folder / "seed.json"))], tenant="default"),
        user="ansible",
        reason="hosts of the inventory",
        request_id="import-1",
    )


class TestSeed:
    async def test_the_service_mcp_shows_the_hosts_of_the_inventory(
        self, role: Role, owner: asyncpg.Connection, database: Database, tmp_path: Path
    ) -> None:
        done = role("lab")
        assert done.returncode == 0, done.stdout

        await _seed(owner, tmp_path)

        topology = await PostgresCmdb(database).get_topology(
            "default", "mcp", direction=Direction.DOWN, depth=3, most_nodes=100
        )
        assert {node.id: node.depth for node in topology.nodes} == {
            "service:mcp": 0,
            "lb1": 1,
            "mcp1": 2,
            "mcp2": 2,
            "mcp3": 2,
            "cache1": 3,
            "db1": 3,
            "mon1": 3,
        }

    async def test_a_second_run_changes_nothing_and_leaves_a_maintenance_alone(
        self, role: Role, owner: asyncpg.Connection, database: Database, tmp_path: Path
    ) -> None:
        role("lab")
        first = await _seed(owner, tmp_path)
        change = StatusChange(
            status=AssetStatus.MAINTENANCE, reason="disk", user="ann", request_id="r"
        )
        await PostgresCmdb(database).update_status("default", "db1", change)

        second = await _seed(owner, tmp_path)

        assert (first.changed, second.changed) == (True, False)
        db1 = await PostgresCmdb(database).get_asset("default", "db1")
        assert db1.status == "maintenance"

    async def test_one_host_for_everything_does_not_depend_on_itself(
        self, role: Role, owner: asyncpg.Connection, tmp_path: Path
    ) -> None:
        done = role("one-host")
        assert done.returncode == 0, done.stdout

        report = await _seed(owner, tmp_path)

        assert [new["type"] for new in report.new_relations] == ["served_by"]


class TestBackend:
    def _node(self, folder: Path) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((folder / "node.json").read_text())
        return told

    async def test_without_a_word_it_is_the_servers_own_database(
        self, role: Role, tmp_path: Path
    ) -> None:
        role()

        told = self._node(tmp_path)
        assert CmdbSettings.model_validate(told["settings"]).backend == "postgres"
        assert "cmdb_key" not in told["credentials"]

    async def test_an_existing_cmdb_is_asked_with_a_key_from_the_credentials(
        self, role: Role, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_text("certificate")

        done = role(**REST, mcp_server_cmdb_ca_file=str(ca))

        assert done.returncode == 0, done.stdout
        told = self._node(tmp_path)
        settings = CmdbSettings.model_validate(told["settings"])
        assert str(settings.api_url) == REST["mcp_server_cmdb_url"]
        assert told["settings"]["key"] == {"file": "/run/credentials/mcp-server.service/cmdb_key"}
        assert (told["key"], told["ca"]) == (REST["mcp_server_cmdb_key"], "certificate")
        assert told["settings"]["ca"] == "/run/credentials/mcp-server.service/cmdb_ca"
        assert {"cmdb_ca", "cmdb_key"} <= set(told["credentials"])

    @pytest.mark.parametrize(
        "variables",
        [
            {"mcp_server_cmdb_backend": "mysql"},
            REST | {"mcp_server_cmdb_url": "http://cmdb.example.com"},
            REST | {"mcp_server_cmdb_url": "https://cmdb.example.com/api/v1"},
            REST | {"mcp_server_cmdb_ca_file": "/absent/ca.pem"},
            {"mcp_server_cmdb_url": "https://cmdb.example.com"},
        ],
    )
    async def test_what_does_not_fit_together_is_refused_before_anything_changes(
        self, role: Role, variables: dict[str, object]
    ) -> None:
        done = role(**variables)

        assert done.returncode != 0
        assert "Accepted are postgres, without mcp_server_cmdb_url" in done.stdout

    async def test_a_missing_key_stops_the_run(self, role: Role) -> None:
        done = role(**REST | {"mcp_server_cmdb_key": ""}, debug_secrets=True)

        assert done.returncode != 0
        assert "mcp_server_cmdb_key, the bearer key of this server, is required" in done.stdout

    async def test_the_key_is_not_shown(self, role: Role) -> None:
        done = role(mcp_server_cmdb_key="the-secret-key")

        assert done.returncode != 0
        assert "the-secret-key" not in done.stdout + done.stderr
