"""Nothing listens where it need not: the whole list of each host, not a part of it."""

from __future__ import annotations

import re
import ssl
from pathlib import PurePosixPath

import httpx2
import pytest
from testinfra.host import Host as Shell

from tests.deploy.installation import Host, Installation

testinfra_hosts = ["ansible://all"]

# (program, address, port)
EVERY_HOST = {("sshd", "0.0.0.0", 22), ("sshd", "[::]", 22)}
# The ports that other hosts reach are those of the firewall's table. By service: the program.
PROGRAMS = {
    "alertmanager": "prometheus-aler",
    "mcp-server": "mcpctl",
    "mcp-server-metrics": "mcpctl",
    "nginx": "nginx",
    "node-exporter": "prometheus-node",
    "postgres": "postgres",
    "prometheus": "prometheus",
    "redis": "redis-server",
}
# What only the host itself reaches, by group: (program, address, port).
LOOPBACK_BY_GROUP = {
    "mcp_servers": {
        ("opa", "127.0.0.1", 8282),
        # opa-bundle.socket, where OPA fetches its bundle: systemd holds it for a program that starts
        # on demand.
        ("systemd", "127.0.0.1", 8283),
        ("python3", "127.0.0.1", 8283),
    },
}
# Unix sockets that other accounts can open, with owner, group and mode.
UNIX_BY_GROUP = {
    "mcp_servers": {("/run/opa/opa.sock", "opa", "mcp-server", 0o660)},
    "postgres": {("/run/postgresql/.s.PGSQL.5432", "postgres", "postgres", 0o777)},
}
# Those of the system itself.
SYSTEM_UNIX = re.compile(r"^(@|/run/(systemd|dbus|user|udev|ssh-unix-local)/|/proc/self/fd/)")


def test_exactly_these_sockets_listen_on_the_network(
    host: Shell, me: Host, installation: Installation
) -> None:
    listening = set()
    for line in host.check_output("ss -H -n -l -t -u -p").splitlines():
        _, _, _, _, local, _, *process = line.split()
        address, _, port = local.rpartition(":")
        programs = re.findall(r'"([^"]+)"', " ".join(process)) or ["?"]
        # Workers inherit a listening socket: the program counts, not their number.
        listening |= {(program, address, int(port)) for program in programs}

    expected = EVERY_HOST | {
        row
        for group, rows in LOOPBACK_BY_GROUP.items()
        if me.name in installation.groups[group]
        for row in rows
    }
    expected |= {
        (PROGRAMS[row["service"]], me.address, row["port"])
        for row in installation.ports
        if row["host"] == me.name
    }
    assert listening == expected


def test_exactly_these_unix_sockets_listen(
    host: Shell, me: Host, installation: Installation
) -> None:
    paths = {
        line.split()[4]
        for line in host.check_output("ss -H -n -l -x").splitlines()
        if not SYSTEM_UNIX.match(line.split()[4])
    }

    expected = {
        row
        for group, rows in UNIX_BY_GROUP.items()
        if me.name in installation.groups[group]
        for row in rows
    }
    found = {(str(f.path), f.user, f.group, f.mode) for f in map(host.file, sorted(paths))}
    assert found == expected


@pytest.mark.cluster
def test_metrics_are_for_the_monitoring_host_only(
    host: Shell, me: Host, installation: Installation
) -> None:
    """Every host tries with every certificate it has, as if there were no firewall."""
    tls = PurePosixPath("/etc/enterprise-mcp/tls")
    mine = host.check_output(f"ls -d {tls}/*/").split()
    readable = set()
    with installation.without_firewalls():
        for server in installation.members("mcp_servers"):
            for leaf in mine:
                url = f"https://{server.fqdn}:9464/metrics"
                code = host.run(f"python3 - {url} {leaf} <<'PROGRAM'\n{_GET}PROGRAM")
                if code.stdout.strip() == "200":
                    readable.add((PurePosixPath(leaf).name, server.name))

    servers = installation.groups["mcp_servers"]
    expected = set()
    if me.name in installation.groups["monitoring"]:
        expected = {("prometheus", server) for server in servers}
    elif me.name in servers:
        # A node may ask itself: mcpctl probe does.
        expected = {("mcp-server", me.name)}
    assert readable == expected


def test_metrics_are_not_to_be_had_through_the_load_balancer(installation: Installation) -> None:
    context = ssl.create_default_context(cafile=installation.ca_file)
    answer = httpx2.get(f"{installation.url}/metrics", verify=context)

    assert answer.status_code == 404
    assert "mcp_" not in answer.text


# Debian's Python and nothing else: what every host has.
_GET = """\
import ssl, sys, urllib.error, urllib.request
url, leaf = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/enterprise-mcp/tls/ca.pem")
context.load_cert_chain(leaf + "cert.pem", leaf + "key.pem")
try:
    print(urllib.request.urlopen(url, context=context, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except (OSError, ssl.SSLError) as error:
    print(error)
"""
