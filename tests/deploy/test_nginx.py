"""The gateway: TLS as it should be, nothing but the public paths, a log without secrets."""

from __future__ import annotations

import json
import socket
import ssl
import warnings

import pytest
from testinfra.host import Host as Shell

from tests.deploy.installation import Host, Installation, eventually
from tests.integration import curl

testinfra_hosts = ["ansible://loadbalancers"]
pytestmark = pytest.mark.anyio


def _handshake(me: Host, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection((me.address, 443), timeout=10)
    return context.wrap_socket(raw, server_hostname=me.address)


def _context(installation: Installation) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=installation.ca_file)


def test_the_configuration_passes_its_test(host: Shell) -> None:
    tested = host.run("nginx -t -q")

    assert (tested.rc, tested.stderr) == (0, "")


def test_only_our_configuration_is_read(host: Shell) -> None:
    assert set(host.file("/etc/nginx/conf.d").listdir()) == {
        "10-mcp-upstream.conf",
        "20-mcp-server.conf",
    }
    assert "sites-enabled" not in host.file("/etc/nginx/nginx.conf").content_string


def test_every_node_is_in_both_groups_of_nodes(host: Shell, installation: Installation) -> None:
    upstream = host.file("/etc/nginx/conf.d/10-mcp-upstream.conf").content_string

    for node in installation.members("mcp_servers"):
        assert upstream.count(f"server {node.address}:8443 ") == 2, node.name


def test_clients_get_tls_1_3_and_http_2(me: Host, installation: Installation) -> None:
    context = _context(installation)
    context.set_alpn_protocols(["h2", "http/1.1"])

    with _handshake(me, context) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == "h2"


def test_the_certificate_names_the_gateway(me: Host, installation: Installation) -> None:
    with _handshake(me, _context(installation)) as connection:
        names = dict(connection.getpeercert() or {})["subjectAltName"]

    assert ("IP Address", me.address) in names
    assert ("DNS", me.fqdn) in names
    assert ("DNS", f"nginx.{me.fqdn}") in names


def test_tls_1_1_is_refused(me: Host, installation: Installation) -> None:
    context = _context(installation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)), _handshake(me, context):
        pass


async def test_answers_have_the_headers_of_a_gateway(installation: Installation) -> None:
    async with installation.http() as client:
        answer = await client.get("/health")

    assert answer.status_code == 200
    assert answer.headers["server"] == "nginx"
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/", "/metrics", "/status", "/nginx_status", "/docs"])
async def test_what_is_not_public_is_not_there(installation: Installation, path: str) -> None:
    async with installation.http() as client:
        answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("version", curl.VERSIONS)
def test_a_body_of_ten_megabytes_is_refused_in_json(
    installation: Installation, version: str
) -> None:
    body = b"x" * 10_000_000

    answer = curl.post(installation.mcp_url, body, ca=installation.ca_file, version=version)

    assert answer.version == version.removeprefix("http")
    assert answer.status == 413
    assert answer.json()["error"]["data"]["code"] == "body_too_large"


async def test_the_log_has_one_json_object_a_request_and_no_query(
    host: Shell, installation: Installation
) -> None:
    async with installation.http() as client:
        answer = await client.get("/health/live?token=do-not-log-me")
    identifier = answer.headers["x-request-id"]
    log = ""
    for _ in range(5):
        host.run("sleep 1")  # nginx writes its log once a second
        log = host.run(f"grep {identifier} /var/log/nginx/access.log").stdout
        if log:
            break
    entry = json.loads(log)

    assert entry["path"] == "/health/live"
    assert entry["status"] == 200
    assert host.run("grep -q do-not-log-me /var/log/nginx/access.log").rc == 1


async def test_a_request_after_a_rotation_is_in_the_new_log(
    host: Shell, installation: Installation
) -> None:
    rotated = host.run("logrotate --force /etc/logrotate.d/nginx")

    async with installation.http() as client:
        answer = await client.get("/health/live")
    identifier = answer.headers["x-request-id"]

    async def logged() -> str:
        return host.run(f"grep --files-with-matches {identifier} /var/log/nginx/*").stdout.strip()

    assert (rotated.rc, rotated.stderr) == (0, "")
    assert await eventually(logged, bool) == "/var/log/nginx/access.log"
    log = host.file("/var/log/nginx/access.log")
    assert (log.user, log.group, log.mode) == ("www-data", "adm", 0o640)
