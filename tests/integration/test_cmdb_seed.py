"""What the role mcp_server enters into the CMDB."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from mcp_server.cli.cmdb_import import ImportReport, Source, read_sources, write_import
from mcp_server.infrastructure.database import Database
from mcp_server.tools.cmdb.model import AssetStatus, Direction, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.plays import ansible_playbook

pytestmark = pytest.mark.anyio

Role = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def role(tmp_path: Path) -> Role:
    """Let the role write its file, for an inventory."""

    def run(inventory: str) -> subprocess.CompletedProcess[str]:
        extra = tmp_path / "variables.json"
        secrets = {
            f"mcp_server_{name}": name * 8
            for name in ("jwt_secret", "redis_password", "database_password")
        }
        extra.write_text(json.dumps(secrets | {"folder": str(tmp_path)}))
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
