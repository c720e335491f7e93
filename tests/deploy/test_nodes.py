"""Nodes that leave the rotation, come back, leave for good and join, under 50 calls a second."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio import to_thread

from tests.deploy.installation import Host, Installation, Playbook, at_once, eventually
from tests.deploy.traffic import Traffic
from tests.plays import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]

UPSTREAM = "cat /etc/nginx/conf.d/10-mcp-upstream.conf"
TRAFFIC: dict[str, Any] = {"per_second": 50, "clients": 8, "charged_every": 40}
UNITS = "mcp-server.service opa.service opa-bundle.socket prometheus-node-exporter.service"
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


def inventory_without(installation: Installation, nodes: Sequence[Host], folder: Path) -> Path:
    """Return a copy of the inventory in which the lines of nodes have moved to removed_nodes."""
    content = yaml.safe_load((installation.inventory / "hosts.yml").read_text())
    groups = content["all"]["children"]
    lines = {node.name: groups["mcp_servers"]["hosts"].pop(node.name) for node in nodes}
    groups["removed_nodes"] = {"hosts": lines}
    groups["lab"]["children"]["removed_nodes"] = None
    copy = folder / "inventories" / "lab"
    copy.mkdir(parents=True)
    # The lab of `make demo` has its SSH keys beside its inventories.
    (folder / ".lab").symlink_to(ROOT / ".lab")
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
        again = await play(
            calm, "playbooks/drain.yml", "-e", f"node={node.name}", "--tags", "drain"
        )
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


async def test_nodes_leave_for_good_dead_or_alive_and_join_again(
    calm: Installation, tmp_path: Path
) -> None:
    """Nobody answers at one of the two: the others forget it too, and the next run wipes it."""
    (balancer,) = calm.members("loadbalancers")
    _, dead, node = calm.members("mcp_servers")
    others = [host for host in calm.hosts.values() if host not in (dead, node)]
    inventory = inventory_without(calm, [dead, node], tmp_path)

    async with Traffic(calm, **TRAFFIC) as traffic:
        with dead.stopped("ssh.service"):
            told = await play(calm, "playbooks/remove_node.yml", inventory=inventory)
        upstream = balancer.run(UPSTREAM)
        files = node.attempt(SECRETS).stdout.decode()
        active = node.run(f"systemctl is-active {UNITS} || true").split()
        known = at_once(lambda host: knows(host, dead) + knows(host, node), others)
        again = await play(
            calm, "playbooks/remove_node.yml", "--tags", "remove", inventory=inventory
        )
        files_of_the_dead = dead.attempt(SECRETS).stdout.decode()
        # Lines in the inventory are all that nodes need to join.
        await play(calm, "site.yml")
        await traffic.more(100)

    assert traffic.faults == []
    assert re.findall(r"server (\S+):8443 max_fails=[1-9]", upstream) == [
        calm.members("mcp_servers")[0].address
    ]
    assert files == ""
    assert set(active) == {"inactive"}
    assert known == [[] for _ in others]
    assert f"still has its secrets and certificates: {dead.name}." in told.output
    assert "What it knew stays valid" in told.output
    assert "still has its secrets" not in again.output
    assert files_of_the_dead == ""
    assert calm.node_status(dead)["ready"] is True
    assert calm.node_status(node)["ready"] is True
