"""Server nodes: one complete release, secrets that only the unit sees, peers that are let in."""

from __future__ import annotations

import json

import yaml
from testinfra.host import Host as Shell

from tests.deploy.installation import Host, Installation

testinfra_hosts = ["ansible://mcp_servers"]

CONFIG = "/etc/mcp_server/config.yaml"
RELEASES = "/opt/mcp_server/releases"
CREDENTIALS = {"database_password", "jwt_secret", "redis_password"}
SECRETS = ("jwt_secret", "postgres_server_password", "postgres_owner_password", "redis_password")


def _ask(host: Shell, me: Host, port: int, leaf: str | None) -> str:
    """Return what a listener answers to a peer with the certificate of a leaf of this host."""
    tls = "/etc/enterprise-mcp/tls"
    own = f"-cert {tls}/{leaf}/cert.pem -key {tls}/{leaf}/key.pem" if leaf else ""
    request = (
        f"GET /health/live HTTP/1.1\\r\\nHost: {me.address}\\r\\nConnection: close\\r\\n\\r\\n"
    )
    client = (
        f"timeout 10 openssl s_client -quiet -verify_return_error -CAfile {tls}/ca.pem"
        f" -connect {me.address}:{port} {own}"
    )
    return str(host.run(f"(printf '{request}'; sleep 1) | {client} 2>/dev/null").stdout)


def test_the_running_release_is_complete(host: Shell) -> None:
    current = host.file("/opt/mcp_server/current")
    release = current.linked_to.removeprefix(f"{RELEASES}/")

    assert current.is_symlink
    assert host.file(f"{RELEASES}/{release}/.complete").content_string.strip() == release
    assert not host.file(f"{RELEASES}/{release}/wheels").exists


def test_all_nodes_run_the_same_release(installation: Installation) -> None:
    links = {
        node.run("readlink /opt/mcp_server/current") for node in installation.members("mcp_servers")
    }

    assert len(links) == 1


def test_at_most_three_releases_stay(host: Shell) -> None:
    assert 1 <= len(host.file(RELEASES).listdir()) <= 3


def test_the_process_runs_from_the_release_that_is_current(host: Shell) -> None:
    pid = host.check_output("systemctl show -P MainPID mcp-server.service")
    command = host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/cmdline").splitlines()

    assert command[0].startswith(host.file("/opt/mcp_server/current").linked_to)


def test_the_configuration_holds_no_secret(host: Shell, installation: Installation) -> None:
    config = host.file(CONFIG)

    assert (config.user, config.group, config.mode) == ("root", "mcp-server", 0o640)
    assert yaml.safe_load(config.content_string)["node"]
    for name in SECRETS:
        assert installation.secret(name) not in config.content_string, name


def test_credentials_are_readable_by_the_unit_alone(host: Shell) -> None:
    for directory in ("/etc/mcp_server/credentials", "/etc/mcp_server/credentials.next"):
        assert host.file(directory).mode == 0o700
        assert set(host.file(directory).listdir()) == CREDENTIALS
        for name in CREDENTIALS:
            file = host.file(f"{directory}/{name}")
            assert (file.user, file.mode, file.size > 0) == ("root", 0o400, True), name
    snapshots = host.file("/var/lib/enterprise-mcp/snapshots/mcp-server")
    assert (snapshots.user, snapshots.mode) == ("root", 0o700)
    pid = host.check_output("systemctl show -P MainPID mcp-server.service")
    assert "password" not in host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ").lower()


def test_the_owner_of_the_schema_has_no_password_on_a_node(host: Shell) -> None:
    assert host.run("grep -rqs mcp_owner /etc/mcp_server").rc == 1


def test_a_node_says_that_it_is_ready(host: Shell) -> None:
    status = json.loads(host.check_output("/opt/mcp_server/current/bin/mcpctl probe"))

    assert status["ready"] is True
    assert status["checks"] == {"policy": "up", "counters": "up", "audit": "up"}
    assert status["policy_revision"]


def test_a_peer_without_a_certificate_gets_no_answer(host: Shell, me: Host) -> None:
    assert _ask(host, me, 8443, None) == ""
    assert _ask(host, me, 9464, None) == ""


def test_a_peer_whose_certificate_is_not_that_of_nginx_gets_no_answer(
    host: Shell, me: Host
) -> None:
    assert _ask(host, me, 8443, "mcp-server") == ""


def test_the_telemetry_listener_lets_the_node_ask_itself(host: Shell, me: Host) -> None:
    assert _ask(host, me, 9464, "mcp-server").startswith("HTTP/1.1 404")


def test_the_server_does_not_need_opa_to_run(host: Shell) -> None:
    unit = "mcp-server.service"

    assert "opa.service" in host.check_output(f"systemctl show -P Wants {unit}").split()
    assert "opa.service" in host.check_output(f"systemctl show -P After {unit}").split()
    assert "opa.service" not in host.check_output(f"systemctl show -P Requires {unit}").split()
