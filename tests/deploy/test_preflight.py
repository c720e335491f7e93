"""Faults of an inventory that are found before a host is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.installation import Installation

PREFLIGHT = "playbooks/preflight.yml"


@pytest.fixture
def without_servers(installation: Installation, tmp_path: Path) -> Path:
    """An inventory like this one, but with nobody in mcp_servers."""
    children = {
        group: {"hosts": {name: {} for name in names}}
        for group, names in installation.groups.items()
        if group not in ("all", "ungrouped", "mcp_servers")
    }
    addresses = {name: {"ansible_host": address} for name, address in installation.address.items()}
    path = tmp_path / "hosts.json"
    path.write_text(
        json.dumps({"all": {"hosts": addresses, "children": {**children, "mcp_servers": {}}}})
    )
    return path


def test_a_group_without_hosts_is_named(installation: Installation, without_servers: Path) -> None:
    run = installation.play("site.yml", inventory=without_servers)

    assert run.rc != 0
    assert "The group mcp_servers of the inventory has no host" in run.output
    assert run.plays == ["Inventory"]


def test_an_unknown_variable_is_named_with_the_nearest_one(installation: Installation) -> None:
    run = installation.play(PREFLIGHT, "-e", "mcp_server_memory_mxa=1G")

    assert run.rc != 0
    assert "mcp_server_memory_mxa" in run.output
    assert "mcp_server_memory_max" in run.output.replace("mcp_server_memory_mxa", "")
    assert run.plays == ["Inventory"]


def test_the_inventory_of_this_installation_is_in_order(installation: Installation) -> None:
    run = installation.play(PREFLIGHT)

    assert run.rc == 0, run.output
    assert run.plays == ["Inventory", "Hosts", "Firewall", "Settings of the servers"]
    assert "changed=0" in run.output
