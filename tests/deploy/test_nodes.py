"""Nodes that leave the rotation, come back, leave for good and join, under 50 calls a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio import to_thread

from tests.deploy.installation import Host, Installation, Playbook, at_once, eventually
from tests.deploy.traffic import Traffic

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]

UPSTREAM = "cat /etc/nginx/conf.d/10-mcp-upstream.conf"
TRAFFIC: dict[str, Any] = {"per_second": 50, "clients": 8, "charged_every": 40}
SECRETS = "ls -d /etc/mcp_server /etc/opa /etc/enterprise-mcp/tls /opt/mcp_server /var/lib/opa"


async def play(installation: Installation, *arguments: str, **options: Any) -> Playbook:
    """Run a playbook that must pass, beside the traffic."""
    run = await to_thread.run_sync(lambda: installation.play(*arguments, **options))
    return run.require()


def knows(host: Host, node: Host) -> list[str]:
    """Return the files by which a host knows a node: names, rules, accounts by address, targets."""
    places = (
        "/etc/hosts /etc/nginx/conf.d /etc/enterprise-mcp/firewall/rules.nft"
        " /etc/postgresql /etc/prometheus"
    )
    names = rf"\b({node.name}|{node.address.replace('.', '[.]')})\b"
    return host.run(f"grep -rlsE '{names}' {places} || true").split()


def inventory_without(installation: Installation, node: Host, folder: Path) -> Path:
    """Return a copy of the inventory in which the line of a node has moved to removed_nodes."""
    content = yaml.safe_load((installation.inventory / "hosts.yml").read_text())
    groups = content["all"]["children"]
    line = groups["mcp_servers"]["hosts"].pop(node.name)
    groups["removed_nodes"] = {"hosts": {node.name: line}}
    groups["lab"]["children"]["removed_nodes"] = None
    copy = folder / "inventory"
    copy.mkdir()
    (copy / "hosts.yml").write_text(yaml.safe_dump(content))
    for name in ("group_vars", ".state"):
        if (installation.inventory / name).exists():
            (copy / name).symlink_to((installation.inventory / name).resolve())
    return copy


async def test_a_drained_node_gets_no_calls_and_comes_back(calm: Installation) -> None:
    (balancer,) = calm.members("loadbalancers")
    *_, node = calm.members("mcp_servers")

    async with Traffic(calm, **TRAFFIC) as traffic:
        told = await play(calm, "playbooks/drain.yml", "-e", f"node={node.name}")
        drained = balancer.run(UPSTREAM)
        before = calls(balancer, node)
        await traffic.more(100)
        during = calls(balancer, node)
        again = await play(calm, "playbooks/drain.yml", "-e", f"node={node.name}")
        kept = await play(calm, "playbooks/nginx.yml")
        await play(calm, "playbooks/undrain.yml", "-e", f"node={node.name}")
        await traffic.more(100)
        after = await eventually(
            lambda: to_thread.run_sync(calls, balancer, node), lambda made: made > during
        )

    assert traffic.faults == []
    assert f"server {node.address}:" not in drained
    assert "It has no call in progress." in told.output
    assert during == before
    assert after > during
    assert "changed=0" in again.output
    assert "changed=0" in kept.output
    assert calm.node_status(node)["ready"] is True


def calls(balancer: Host, node: Host) -> int:
    """Return how many requests the load balancer has sent to a node."""
    log = "sleep 1.2; cat /var/log/nginx/access.log"  # each worker writes it once a second
    return int(balancer.run(f'({log}) | grep -c \'"node":"[^"]*{node.address}:8443\' || true'))


async def test_a_node_leaves_for_good_and_joins_again(calm: Installation, tmp_path: Path) -> None:
    *_, node = calm.members("mcp_servers")
    others = [host for host in calm.hosts.values() if host != node]
    inventory = inventory_without(calm, node, tmp_path)

    async with Traffic(calm, **TRAFFIC) as traffic:
        told = await play(calm, "playbooks/remove_node.yml", inventory=inventory)
        left = node.attempt(SECRETS).stdout.decode()
        running = node.run("systemctl is-active mcp-server opa opa-bundle.socket || true").split()
        known = [
            file for files in at_once(lambda other: knows(other, node), others) for file in files
        ]
        again = await play(
            calm, "playbooks/remove_node.yml", "--tags", "remove", inventory=inventory
        )
        # A line in the inventory is all that a new node needs.
        await play(calm, "site.yml")
        await traffic.more(100)

    assert traffic.faults == []
    assert left == ""
    assert set(running) == {"inactive"}
    assert known == []
    assert "What it knew stays valid" in told.output
    assert "changed=0" in again.output
    status = json.loads(node.run("/opt/mcp_server/current/bin/mcpctl probe"))
    assert status["ready"] is True


async def test_a_dead_node_can_be_removed(calm: Installation, tmp_path: Path) -> None:
    """Nobody answers at its address; the others forget it, and the summary names it."""
    (balancer,) = calm.members("loadbalancers")
    *_, node = calm.members("mcp_servers")
    inventory = inventory_without(calm, node, tmp_path)

    dead = ("-e", json.dumps({"ansible_ssh_retries": 0}), "--tags", "remove,nginx")
    with node.stopped("ssh.service"):
        told = await play(calm, "playbooks/remove_node.yml", *dead, inventory=inventory)
        upstream = balancer.run(UPSTREAM)
    await play(calm, "playbooks/nginx.yml")

    assert f"server {node.address}:" not in upstream
    assert f"still has its secrets and certificates: {node.name}" in told.output
    assert calm.node_status(node)["ready"] is True
