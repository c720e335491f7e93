"""playbooks/preflight.yml refuses an inventory that cannot work, before any host is reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")


def preflight(
    folder: Path, groups: dict[str, object], *arguments: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run the part of the preflight that needs no host."""
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": groups, "vars": variables}}))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(inventory), "playbooks/preflight.yml", "--skip-tags", "always", *arguments),
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )


def one_host(**more: object) -> dict[str, object]:
    return {name: {"hosts": {"all1": {"ansible_host": "192.0.2.1", **more}}} for name in GROUPS}


def test_one_host_in_all_groups_passes(tmp_path: Path) -> None:
    result = preflight(tmp_path, one_host())

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["example", "one-host"])
def test_the_inventories_to_copy_pass(name: str) -> None:
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", f"inventories/{name}", "playbooks/preflight.yml", "--skip-tags", "always"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout


def test_an_empty_group_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    groups = one_host() | {"mcp_servers": {}}

    result = preflight(tmp_path, groups)

    assert result.returncode != 0
    said = " ".join(result.stdout.split())
    assert "The group mcp_servers of the inventory has no host" in said
    assert "these hosts run the MCP server" in said


def test_an_unknown_variable_of_the_server_is_named_with_the_nearest_known_one(
    tmp_path: Path,
) -> None:
    result = preflight(tmp_path, one_host(), mcp_server_prot=8443)

    assert result.returncode != 0
    assert (
        "mcp_server_prot (on all1) is not a variable of any role; did you mean mcp_server_port?"
        in " ".join(result.stdout.split())
    )


def test_a_host_without_an_ip_address_is_named(tmp_path: Path) -> None:
    result = preflight(tmp_path, one_host(ansible_host="all1.example.com"))

    assert result.returncode != 0
    assert "Host all1 needs an IP address" in " ".join(result.stdout.split())
