"""PostgreSQL and Redis whose certificates are of other authorities than the one that the hosts trust."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.plays import LOCAL, role_of, run_play

DIRECTORY = "/run/credentials/mcp-server.service"
SERVERS = {
    "mcp_servers": {
        "hosts": {"mcp1": {"ansible_host": "192.0.2.1", **LOCAL}},
        "vars": {
            "mcp_server_public_url": "https://mcp.example.com",
            "mcp_server_allowed_peers": ["gateway.lab.internal"],
            "mcp_server_database_host": "postgres.example.com",
            "mcp_server_redis": "mcp-server@redis.example.com:6379/0",
        },
    }
}
TOLD = """{{ {
  'database': __mcp_server_settings.database.ca,
  'redis': __mcp_server_settings.counters.ca,
  'names': __mcp_server_credential_names,
  'files': __mcp_server_credentials | dict2items | selectattr('key', 'search', '_ca$') | items2dict,
  'unused': __mcp_server_credentials_unused | sort,
} | to_json }}"""


def preflight(folder: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the role's preflight and write what a node is told to told.json."""
    secrets = ("jwt_secret", "redis_password", "database_password")
    kept = [f"/etc/mcp_server/credentials/{name}_ca" for name in ("database", "redis")]
    return run_play(
        folder,
        [
            role_of("mcp_server", "preflight"),
            {"ansible.builtin.copy": {"content": TOLD, "dest": str(folder / "told.json")}},
        ],
        inventory=SERVERS,
        variables={f"mcp_server_{name}": name * 8 for name in secrets}
        | {"__mcp_server_kept": {"files": [{"path": path} for path in kept]}}
        | variables,
    )


def test_each_has_its_own_authority_on_the_node(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pem" for name in ("database", "redis")}
    for name, file in files.items():
        file.write_text(f"certificate of {name}")

    result = preflight(
        tmp_path, **{f"mcp_server_{name}_ca_file": str(file) for name, file in files.items()}
    )

    assert result.returncode == 0, result.stdout
    assert json.loads((tmp_path / "told.json").read_text()) == {
        "database": f"{DIRECTORY}/database_ca",
        "redis": f"{DIRECTORY}/redis_ca",
        "names": ["database_ca", "database_password", "jwt_secret", "redis_ca", "redis_password"],
        "files": {"database_ca": "certificate of database", "redis_ca": "certificate of redis"},
        "unused": [],
    }


def test_without_a_word_it_is_the_one_that_the_hosts_trust(tmp_path: Path) -> None:
    result = preflight(tmp_path)

    assert result.returncode == 0, result.stdout
    assert json.loads((tmp_path / "told.json").read_text()) == {
        "database": "/etc/enterprise-mcp/tls/ca.pem",
        "redis": "/etc/enterprise-mcp/tls/ca.pem",
        "names": ["database_password", "jwt_secret", "redis_password"],
        "files": {},
        "unused": [f"/etc/mcp_server/credentials/{name}_ca" for name in ("database", "redis")],
    }


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = preflight(tmp_path, mcp_server_redis_ca_file="/nowhere/ca.pem")

    assert result.returncode != 0
    assert "No such file on the controller: mcp_server_redis_ca_file /nowhere/ca.pem." in " ".join(
        result.stdout.split()
    )
