"""Imports into the embedded CMDB on a real PostgreSQL, as a function and as a command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mcp_server.cli.cmdb_import import Counts, InvalidImport
from mcp_server.infrastructure.database import Database, connect
from mcp_server.settings import DatabaseSettings
from mcp_server.tools.cmdb.model import AssetQuery, AssetStatus, ChangeRecord, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.integration.cmdb_imports import import_rows
from tests.integration.nodes import AUDIENCE, ISSUER
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

USES = {"from": "a", "to": "b", "type": "uses"}
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
NETBOX = {
    "results": [
        {
            "id": 1,
            "name": "metal1",
            "device_type": {"slug": "r650"},
            "role": {"slug": "hypervisor"},
            "status": {"value": "active"},
            "primary_ip": {"address": "10.0.0.1/24"},
            "custom_fields": {"environment": "prod"},
        },
        {
            "id": 1,
            "name": "db1",
            "vcpus": 4,
            "role": {"slug": "db"},
            "status": {"value": "failed"},
            "device": {"id": 1},
            "custom_fields": {},
            "tags": [{"slug": "env-prod"}],
        },
    ]
}

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def _row(asset_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": asset_id,
        "name": asset_id,
        "type": "server",
        "environment": "prod",
        **changes,
    }


async def _changes(database: Database, asset_id: str) -> tuple[ChangeRecord, ...]:
    page = await PostgresCmdb(database).get_changes("default", asset_id, since=EPOCH, limit=100)
    return page.items


async def _tables(settings: DatabaseSettings, postgres: PostgresServer) -> list[Any]:
    """Return every row of the CMDB's tables, of all tenants, and where the records' ids are."""
    connection = await connect(settings, user="postgres", password=postgres.superuser_password)
    try:
        return [
            [
                tuple(row)
                for row in await connection.fetch(f"SELECT * FROM cmdb.{table} ORDER BY 1, 2, 3")
            ]
            for table in ("assets", "relations", "changes", "changes_change_id_seq")
        ]
    finally:
        await connection.close()


@pytest.fixture
def command(
    tmp_path: Path, database_settings: DatabaseSettings, postgres: PostgresServer
) -> Command:
    """Run `mcpctl cmdb import` with a configuration for the test's database."""
    config = tmp_path / "config.yaml"
    secret = {"file": str(tmp_path / "absent")}  # the server's secrets are not the command's
    config.write_text(
        yaml.safe_dump(
            {
                "node": "n1",
                "public_url": "https://mcp.example.com",
                "identity": {"jwt": {"secret": secret, "issuer": ISSUER, "audience": AUDIENCE}},
                "policy": {"socket": "/run/opa/opa.sock"},
                "counters": {"url": "rediss://redis.example.com/0"},
                "database": {
                    **database_settings.model_dump(mode="json", exclude={"password"}),
                    "password": secret,
                },
            }
        )
    )
    password = tmp_path / "owner_password"
    password.write_text(postgres.owner_password + "\n")

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("mcpctl")),
                *("cmdb", "import", f"--config={config}", f"--owner={postgres.owner}"),
                *(f"--password-file={password}", *arguments),
            ],
            input=stdin,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


class TestWriting:
    async def test_a_second_import_writes_nothing(
        self,
        owner: asyncpg.Connection,
        database_settings: DatabaseSettings,
        postgres: PostgresServer,
    ) -> None:
        rows = [
            _row("a", ip_address="2001:DB8::1", attributes={"b": 1.0, "a": [1, {"x": None}]}),
            _row("b", owner="ops", last_updated="2026-01-01T00:00:00Z"),
        ]
        first = await import_rows(owner, rows, [USES])
        tables = await _tables(database_settings, postgres)

        second = await import_rows(owner, rows, [USES])

        assert (first.changed, first.assets.created, first.relations.created) == (True, 2, 1)
        assert (second.changed, second.assets.unchanged, second.relations.unchanged) == (
            False,
            2,
            1,
        )
        assert await _tables(database_settings, postgres) == tables

    async def test_a_dry_run_tells_the_differences_and_writes_nothing(
        self,
        owner: asyncpg.Connection,
        database_settings: DatabaseSettings,
        postgres: PostgresServer,
    ) -> None:
        await import_rows(owner, [_row("a"), _row("b")])
        tables = await _tables(database_settings, postgres)

        report = await import_rows(
            owner, [_row("a", owner="ops"), _row("b"), _row("c")], [USES], dry_run=True
        )

        assert report.assets == Counts(created=1, updated=1, unchanged=1)
        assert [(found.action, found.id) for found in report.differences] == [
            ("updated", "a"),
            ("created", "c"),
        ]
        assert (report.differences[0].before, report.differences[0].after) == (
            {"owner": None},
            {"owner": "ops"},
        )
        assert report.new_relations == ({"tenant": "default", **USES},)
        assert await _tables(database_settings, postgres) == tables

    async def test_what_is_not_said_stays(
        self, owner: asyncpg.Connection, database: Database
    ) -> None:
        await import_rows(owner, [_row("a", owner="ops", attributes={"rack": 7})])
        cmdb = PostgresCmdb(database)
        change = StatusChange(
            status=AssetStatus.MAINTENANCE, reason="disk", user="ann", request_id="r"
        )
        await cmdb.update_status("default", "a", change)

        report = await import_rows(owner, [_row("a", name="new")])

        asset = await cmdb.get_asset("default", "a")
        assert (asset.name, asset.status, asset.owner) == ("new", "maintenance", "ops")
        assert report.differences[0].after == {"name": "new"}

    async def test_created_and_updated_assets_have_a_change_record(
        self, owner: asyncpg.Connection, database: Database
    ) -> None:
        await import_rows(owner, [_row("a", attributes={"rack": 1})])
        await import_rows(owner, [_row("a", attributes={"rack": 2}), _row("b")])

        updated, created = await _changes(database, "a")
        assert (created.user, created.reason, created.request_id) == (
            "importer",
            "a test",
            "import-1",
        )
        assert created.before is None
        assert updated.before is not None
        assert updated.after is not None
        differ = {name for name in updated.after if updated.after[name] != updated.before[name]}
        assert differ == {"attributes", "version", "last_updated"}
        assert len(await _changes(database, "b")) == 1

    async def test_relations_of_unknown_assets_are_all_named_and_nothing_is_imported(
        self,
        owner: asyncpg.Connection,
        database_settings: DatabaseSettings,
        postgres: PostgresServer,
    ) -> None:
        await import_rows(owner, [_row("z", tenant="other")])
        tables = await _tables(database_settings, postgres)
        relations = [{"from": "a", "to": end, "type": "uses"} for end in ("y", "z")]

        with pytest.raises(InvalidImport) as caught:
            await import_rows(owner, [_row("a")], relations)

        assert caught.value.faults == tuple(
            f"relation {number}: to: there is no asset {end!r} in this import or in the CMDB of "
            "tenant 'default'"
            for number, end in ((1, "y"), (2, "z"))
        )
        after = await _tables(database_settings, postgres)
        assert after[:3] == tables[:3]

    async def test_relations_may_name_assets_that_were_there_before(
        self, owner: asyncpg.Connection
    ) -> None:
        await import_rows(owner, [_row("a"), _row("b")])

        report = await import_rows(owner, [], [USES])

        assert report.relations == Counts(created=1)

    async def test_another_tenant_is_not_touched(
        self, owner: asyncpg.Connection, database: Database
    ) -> None:
        await import_rows(owner, [_row("a", owner="theirs")], tenant="other")
        cmdb = PostgresCmdb(database)
        theirs = await cmdb.get_asset("other", "a")

        await import_rows(owner, [_row("a", owner="ours"), _row("b")], [USES])

        page = await cmdb.query_assets("other", AssetQuery(), limit=10)
        assert page.items == (theirs,)

    async def test_imports_at_the_same_time_give_one_record_for_each_asset(
        self,
        database_settings: DatabaseSettings,
        database: Database,
        postgres: PostgresServer,
    ) -> None:
        rows = [_row(f"host-{number:03}", owner="ops") for number in range(200)]
        connections = [
            await connect(database_settings, user=postgres.owner, password=postgres.owner_password)
            for _ in range(6)
        ]

        reports = await asyncio.gather(
            *(
                import_rows(connection, rows if number % 2 else rows[::-1])
                for number, connection in enumerate(connections)
            )
        )

        await asyncio.gather(*(connection.close() for connection in connections))
        assert sorted(report.assets.created for report in reports) == [0, 0, 0, 0, 0, 200]
        assert all(not report.assets.updated for report in reports)
        assert len(await _changes(database, "host-100")) == 1

    async def test_ten_thousand_assets_are_one_import(self, owner: asyncpg.Connection) -> None:
        rows = [_row(f"host-{number}") for number in range(10_000)]
        relations = [
            {"from": f"host-{number}", "to": f"host-{number + 1}", "type": "uses"}
            for number in range(9_999)
        ]

        report = await import_rows(owner, rows, relations)

        assert (report.assets.created, report.relations.created) == (10_000, 9_999)

    async def test_the_servers_role_cannot_import(self, server_role: asyncpg.Connection) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await import_rows(server_role, [_row("a")])


class TestCommand:
    async def test_a_csv_with_its_relations_is_imported_once(
        self, command: Command, tmp_path: Path, database: Database
    ) -> None:
        (tmp_path / "hosts.csv").write_text(
            "id,name,type,environment\na,a,application,prod\nb,b,database,prod\n"
        )
        (tmp_path / "relations.csv").write_text("from,to,type\na,b,uses\n")
        arguments = ("hosts.csv", "--relations=relations.csv", "--user=ann", "--reason=CHG-7")

        first = command(*arguments, "--output=json")
        second = command(*arguments)

        assert first.returncode == 0, first.stderr
        report = json.loads(first.stdout)
        assert (report["changed"], report["assets"]["created"]) == (True, 2)
        assert second.stdout == (
            "assets: 0 created, 0 updated, 2 unchanged; relations: 0 created, 1 unchanged\n"
        )
        (record,) = await _changes(database, "a")
        assert (record.user, record.reason, record.request_id) == (
            "ann",
            "CHG-7",
            report["request_id"],
        )

    async def test_a_netbox_export_comes_from_standard_input(
        self, command: Command, database: Database
    ) -> None:
        done = command("-", "--format=netbox", "--tenant=acme", stdin=json.dumps(NETBOX))

        assert done.returncode == 0, done.stderr
        page = await PostgresCmdb(database).query_assets("acme", AssetQuery(), limit=10)
        assert [(item.id, item.type, item.status) for item in page.items] == [
            ("netbox-device-1", "server", "active"),
            ("netbox-vm-1", "database", "maintenance"),
        ]

    async def test_a_bad_row_stops_the_import_of_all(
        self,
        command: Command,
        tmp_path: Path,
        database_settings: DatabaseSettings,
        postgres: PostgresServer,
    ) -> None:
        (tmp_path / "hosts.csv").write_text(
            "id,name,type,environment\na,a,application,prod\nb,b,router,moon\n"
        )
        tables = await _tables(database_settings, postgres)

        done = command("hosts.csv")

        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "Error: nothing was imported: 2 faults",
            "hosts.csv line 3 ('b'): type: Input should be 'server', 'database' or 'application'",
            "hosts.csv line 3 ('b'): environment: Input should be 'prod', 'staging' or 'dev'",
        ]
        assert await _tables(database_settings, postgres) == tables

    async def test_a_wrong_password_is_told_without_a_stack_trace(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "hosts.json").write_text(json.dumps([_row("a")]))
        (tmp_path / "wrong").write_text("wrong")

        done = command("hosts.json", "--password-file=wrong")

        assert done.returncode == 1
        assert "does not let the role in" in done.stderr
        assert "Traceback" not in done.stderr

    async def test_standard_input_is_not_the_file_and_the_password_at_once(
        self, command: Command
    ) -> None:
        done = command("-", "--format=csv", "--password-file=/dev/stdin")

        assert "standard input cannot be FILE and the password at once" in done.stderr
