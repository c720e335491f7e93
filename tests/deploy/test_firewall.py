"""Firewalls: exactly the connections of the table of ports, and no way to lock oneself out."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deploy.installation import FIREWALL_UNIT, Host, Installation, at_once

FIREWALL = "playbooks/firewall.yml"
TABLE = "nft list table inet enterprise_mcp"
SSH = 22
# A port on which nothing listens and that no rule names.
UNUSED = 4444

# Connects to all addresses and ports at once and prints those that answer. A port that a firewall
# opens and on which nothing listens answers too: it refuses.
_CONNECT = """
import asyncio, json, sys
async def attempt(address, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 2)
    except ConnectionRefusedError:
        return [address, port]
    except OSError:
        return None
    writer.close()
    return [address, port]
async def main(places):
    found = await asyncio.gather(*(attempt(*place) for place in places))
    print(json.dumps([place for place in found if place]))
asyncio.run(main(json.load(sys.stdin)))
"""

Place = tuple[str, int]


def reached(places: list[Place], host: Host) -> set[Place]:
    """Return the places with which a host can open a connection."""
    program = f"python3 -c '{_CONNECT}'"
    found = json.loads(host.run(program, stdin=json.dumps(places).encode()))
    return {(address, port) for address, port in found}


def answers_us(place: Place) -> bool:
    """Tell whether this machine can open a connection, also to a port on which nothing listens."""
    try:
        socket.create_connection(place, timeout=2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def places_of(installation: Installation, *without: Host) -> list[Place]:
    """Return every port of the installation on every host, SSH and an unused port with them."""
    ports = {row["port"] for row in installation.ports} | {SSH, UNUSED}
    hosts = [host for host in installation.hosts.values() if host not in without]
    return [(host.address, port) for host in hosts for port in sorted(ports)]


def allowed(installation: Installation, host: Host) -> set[Place]:
    """Return the places that the table allows a host to connect to, without its own."""
    return {
        (installation.address[row["host"]], row["port"])
        for row in installation.ports
        if row["host"] != host.name and host.address in row["from"]
    }


@pytest.mark.cluster
def test_every_host_reaches_exactly_the_ports_of_the_table(installation: Installation) -> None:
    hosts = [*installation.hosts.values()]

    found = at_once(lambda host: reached(places_of(installation, host), host), hosts)

    names = {address: name for name, address in installation.address.items()}
    matrix = {
        host.name: sorted((names[a], port) for a, port in places)
        for host, places in zip(hosts, found, strict=True)
    }
    assert matrix == {
        host.name: sorted((names[a], port) for a, port in allowed(installation, host))
        for host in hosts
    }


@pytest.mark.cluster
@pytest.mark.parametrize(
    "group", ["loadbalancers", "mcp_servers", "postgres", "redis", "monitoring"]
)
def test_a_host_that_was_taken_over_reaches_no_more(installation: Installation, group: str) -> None:
    """The rules of the other hosts hold without those of the host itself."""
    (intruder, *_) = installation.members(group)
    everyone = {
        (installation.address[row["host"]], row["port"])
        for row in installation.ports
        if row["service"] == "nginx" and row["host"] != intruder.name
    }

    # Whoever has become root there has taken its own rules away.
    with intruder.stopped(FIREWALL_UNIT):
        found = reached(places_of(installation, intruder), intruder)

    assert found == allowed(installation, intruder) | everyone


def test_the_network_reaches_nginx_and_the_controller_ssh(installation: Installation) -> None:
    """This machine is the controller, and a client like any other."""
    places = places_of(installation)
    with ThreadPoolExecutor(max_workers=len(places)) as pool:
        answers = [*pool.map(answers_us, places)]
    found = {place for place, there in zip(places, answers, strict=True) if there}

    expected = {(address, SSH) for address in installation.address.values()}
    expected |= {
        (installation.address[row["host"]], row["port"])
        for row in installation.ports
        if row["service"] == "nginx"
    }
    assert found == expected


def test_only_apt_reaches_mirrors(installation: Installation) -> None:
    """No other account does, that of the server least of all."""
    (node, *_) = installation.members("mcp_servers")
    mirror = node.run(r"grep -rhoP 'https?://\K[^/ ]+' /etc/apt/sources.list* | head -n1").strip()
    connect = f"import socket; socket.create_connection(('{mirror}', 80), 10)"

    reached_by = {
        account: node.attempt(
            f'setpriv --reuid={account} --clear-groups python3 -c "{connect}"'
        ).returncode
        == 0
        for account in ("root", "mcp-server", "_apt")
    }

    assert reached_by == {"root": False, "mcp-server": False, "_apt": True}


class TestChanges:
    """A change of the rules: refused, or tried and taken back."""

    def test_a_firewall_that_would_lock_out_the_controller_changes_nothing(
        self, installation: Installation
    ) -> None:
        hosts = [*installation.hosts.values()]
        before = at_once(lambda host: host.run(TABLE), hosts)

        run = installation.play(
            "playbooks/preflight.yml", "-e", '{"firewall_admin_networks": ["192.0.2.0/24"]}'
        )

        assert run.rc != 0
        assert "The firewall would lock out this controller, so nothing was changed" in run.output
        assert at_once(lambda host: host.run(TABLE), hosts) == before

    def test_rules_that_cut_the_controller_off_come_back(self, installation: Installation) -> None:
        """The check of the addresses is passed, and the rules allow SSH from elsewhere only."""
        (host, *_) = installation.members("redis")
        before = host.run(f"{TABLE}; cat /etc/enterprise-mcp/firewall/rules.nft")
        elsewhere = '[{"protocol": "tcp", "port": 22, "ip": ["192.0.2.1"], "ip6": [], "names": []}]'

        run = installation.play(
            *(FIREWALL, "--limit", f"{host.name},localhost"),
            *("-e", f'{{"__firewall_ssh_rule": {elsewhere}, "firewall_rollback_s": 12}}'),
        )

        assert run.rc != 0
        assert "uses the previous ones again" in run.output
        assert host.run(f"{TABLE}; cat /etc/enterprise-mcp/firewall/rules.nft") == before
        installation.play(FIREWALL, "--limit", f"{host.name},localhost").require()
