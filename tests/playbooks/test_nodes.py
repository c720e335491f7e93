"""drain.yml, undrain.yml and remove_node.yml refuse what cannot work before they reach a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import ROOT, ansible_playbook

OTHERS = ("loadbalancers", "postgres", "redis", "monitoring")


def run(
    folder: Path, playbook: str, *arguments: str, nodes: int = 3, drained: str = "", **groups: Any
) -> str:
    """Run a playbook on hosts that nobody can reach; it must fail. Return the output."""
    one = {"hosts": {"all1": {"ansible_host": "192.0.2.1"}}}
    servers = {"hosts": {f"mcp{n}": {"ansible_host": f"192.0.2.1{n}"} for n in range(1, nodes + 1)}}
    children = {**dict.fromkeys(OTHERS, one), "mcp_servers": servers, **groups}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}))
    (folder / ".state").mkdir()
    (folder / ".state/drained_nodes").write_text(drained)
    done = ansible_playbook(
        *("-i", folder / "hosts.yml", "--ssh-common-args=-o ProxyCommand=false"),
        *(f"playbooks/{playbook}.yml", *arguments),
    )
    assert done.returncode != 0, done.stdout
    assert (folder / ".state/drained_nodes").read_text() == drained
    assert "UNREACHABLE" not in done.stdout
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("playbook", ["drain", "undrain"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "No node is named, so nothing was changed."),
        (("-e", "node=mcp9"), "mcp9 is no server node of this inventory, so nothing was changed."),
        (("-e", "node=all1"), "all1 is no server node of this inventory"),
    ],
    ids=["none", "unknown", "of another group"],
)
def test_an_unknown_node_is_refused(
    tmp_path: Path, playbook: str, arguments: tuple[str, ...], said: str
) -> None:
    told = run(tmp_path, playbook, *arguments)

    assert said in told
    assert "one of: mcp1, mcp2, mcp3." in told


@pytest.mark.parametrize(("nodes", "drained"), [(1, ""), (3, "mcp1\nmcp3\n")])
def test_the_last_node_cannot_be_drained(tmp_path: Path, nodes: int, drained: str) -> None:
    node = "mcp1" if nodes == 1 else "mcp2"

    told = run(tmp_path, "drain", "-e", f"node={node}", nodes=nodes, drained=drained)

    assert f"{node} is the last node that gets calls, so nothing was changed." in told


def test_the_last_node_cannot_be_removed(tmp_path: Path) -> None:
    removed = {"hosts": {"mcp1": {"ansible_host": "192.0.2.11"}}}

    told = run(tmp_path, "remove_node", mcp_servers={"hosts": {}}, removed_nodes=removed)

    assert "The group mcp_servers of the inventory has no host" in told


def test_a_removal_needs_the_group_of_removed_nodes(tmp_path: Path) -> None:
    told = run(tmp_path, "remove_node")

    assert "Move the line of each node to remove from the group mcp_servers" in told


def test_a_host_with_other_services_cannot_be_removed(tmp_path: Path) -> None:
    told = run(tmp_path, "remove_node", removed_nodes={"hosts": {"all1": {}}})

    assert "all1 is in removed_nodes and in another group of the installation" in told


def test_all_secrets_of_a_node_are_removed() -> None:
    """Each folder and unit that the roles of a node write."""
    plays = yaml.safe_load((ROOT / "playbooks/remove_node.yml").read_text())
    (play,) = (play for play in plays if play["name"] == "Removed nodes")
    paths = set(play["vars"]["remove_paths"])
    units = {
        f"/etc/systemd/system/{path.name.removesuffix('.j2')}"
        for role in ("mcp_server", "opa", "node_exporter")
        for path in (ROOT / f"roles/{role}/templates/etc/systemd/system").iterdir()
    }

    assert units <= paths
    assert {
        "/etc/mcp_server",
        "/etc/opa",
        "/etc/enterprise-mcp/tls",
        "/var/lib/enterprise-mcp/snapshots",
    } <= paths
