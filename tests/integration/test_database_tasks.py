"""The tasks of roles/mcp_server that bring a database up to date, and what they say when that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_server.settings import DatabaseSettings
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority, PostgresServer
from tests.plays import LOCAL, role_of, run_play

_GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")

Role = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings(node: McpNode, empty_database: DatabaseSettings) -> dict[str, Any]:
    """The configuration of a node whose database is empty."""
    document: dict[str, Any] = yaml.safe_load(node.config.read_text())
    return document | {"database": empty_database.model_dump(mode="json")}


@pytest.fixture
def role(settings: dict[str, Any], postgres: PostgresServer, tmp_path: Path) -> Role:
    """Run a task file of roles/mcp_server with settings and variables that differ."""
    variables: dict[str, object] = {
        **LOCAL,
        "ansible_host": "192.0.2.1",
        "mcp_server_database_host": "db.test",
        "mcp_server_database_owner": postgres.owner,
        "mcp_server_database_owner_password": postgres.owner_password,
        # The release of the tests is .venv instead of one below /opt.
        "__mcp_server_release_dir": str(Path(sys.executable).parents[1]),
        "__mcp_server_config_dir": str(tmp_path),
        "__mcp_server_config_next": str(tmp_path / "config.next.yaml"),
    }

    def run(
        tasks: str, *, without: str = "", **different: object
    ) -> subprocess.CompletedProcess[str]:
        given = {name: value for name, value in settings.items() if name != without}
        (tmp_path / "config.next.yaml").write_text(yaml.safe_dump(given))
        return run_play(
            tmp_path,
            [role_of("mcp_server", tasks)],
            inventory={"all": {"children": {name: {"hosts": {"all1": None}} for name in _GROUPS}}},
            variables={**variables, **different},
            as_root=True,
        )

    return run


def test_an_empty_database_is_migrated_and_seeded_once(role: Role) -> None:
    first, second = role("migrate"), role("migrate")

    assert first.returncode == 0, first.stdout
    assert "changed=3" in first.stdout
    assert second.returncode == 0, second.stdout
    assert "changed=0" in second.stdout


class TestAuthorityOfItsOwn:
    """The configuration names a file that only the unit has, and has after its start."""

    @pytest.fixture
    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        ca = "/run/credentials/mcp-server.service/database_ca"
        return settings | {"database": settings["database"] | {"ca": ca}}

    def test_the_database_is_migrated_and_seeded_before_the_unit_starts(
        self, role: Role, postgres: PostgresServer, tmp_path: Path
    ) -> None:
        (tmp_path / "database_ca").write_bytes(postgres.ca.read_bytes())

        result = role(
            "migrate",
            mcp_server_database_ca_file=str(postgres.ca),
            __mcp_server_credentials_next=str(tmp_path),
        )

        assert result.returncode == 0, result.stdout
        assert "changed=3" in result.stdout

    def test_a_database_of_a_stranger_is_refused(self, role: Role, tmp_path: Path) -> None:
        stranger = Authority(tmp_path)

        result = role(
            "migrate",
            mcp_server_database_ca_file=str(stranger.ca),
            __mcp_server_credentials_next=str(stranger.ca.parent),
            __mcp_server_database_ca_options=[f"--database-ca={stranger.ca}"],
        )

        assert result.returncode != 0
        assert "certificate verify failed" in result.stdout


def test_a_migration_that_fails_says_why(role: Role, postgres: PostgresServer) -> None:
    result = role("migrate", without="public_url")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "could not migrate the database mcp at db.test to the schema of release" in said
    assert "public_url: Field required" in said
    assert postgres.owner_password not in result.stdout


def test_a_wrong_password_of_the_owner_is_told_and_not_shown(role: Role) -> None:
    result = role("migrate", mcp_server_database_owner_password="not-the-password-of-the-owner")

    assert result.returncode != 0
    assert "password authentication failed" in result.stdout
    assert "not-the-password-of-the-owner" not in result.stdout


def test_a_seed_that_fails_says_why(role: Role, postgres: PostgresServer) -> None:
    result = role("seed")

    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "could not add the hosts of the inventory to the CMDB" in said
    assert "nothing was imported" in said
    assert "mcp_server_cmdb_seed: false skips this step" in said
    assert postgres.owner_password not in result.stdout
