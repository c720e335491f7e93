"""Secrets stand where they belong, and nowhere else."""

from __future__ import annotations

import re
import stat
from pathlib import PurePosixPath

import pytest
from testinfra.host import Host as Shell

from tests.deploy.installation import JOURNAL, SECRETS, Host, Installation

testinfra_hosts = ["ansible://all"]

SNAPSHOT = "/var/lib/enterprise-mcp/snapshots/mcp-server/current"
# The files of a host that may hold a secret, by group and by the secret's name on the controller.
ALLOWED = {
    "mcp_servers": {
        # Those that the unit reads, those of its next start, and the snapshot of its last start.
        "jwt_secret": {
            "/etc/mcp_server/credentials/jwt_secret",
            "/etc/mcp_server/credentials.next/jwt_secret",
            f"{SNAPSHOT}/etc/mcp_server/credentials/jwt_secret",
        },
        "postgres_server_password": {
            "/etc/mcp_server/credentials/database_password",
            "/etc/mcp_server/credentials.next/database_password",
            f"{SNAPSHOT}/etc/mcp_server/credentials/database_password",
        },
        "redis_password": {
            "/etc/mcp_server/credentials/redis_password",
            "/etc/mcp_server/credentials.next/redis_password",
            f"{SNAPSHOT}/etc/mcp_server/credentials/redis_password",
        },
    },
}
# Private keys that a host makes itself: SSH, its certificates, one of a Debian package for nobody.
OWN_KEYS = (
    "/etc/ssh/ssh_host_",
    "/etc/enterprise-mcp/tls/",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
)
# Whose group may read which service's key; nginx reads its own as root.
_KEY_READERS = {
    "alertmanager": "prometheus",
    "mcp-server": "mcp-server",
    "nginx": "root",
    "node-exporter": "prometheus",
    "postgres": "postgres",
    "prometheus": "prometheus",
    "redis": "redis",
}
# A credential of a running unit is a file in a file system of its own, for the unit's account only.
CREDENTIALS = "/run/credentials/"


def test_no_file_holds_a_secret_but_the_ones_that_must(
    me: Host, installation: Installation
) -> None:
    places = "/etc /opt /usr/local /home /root /tmp /var /run /srv"
    names = {line: name for name, line in installation.secret_lines().items()}
    grep = f"grep -raoHZFsf - --exclude-dir=journal {places} || true"
    on_disk: dict[str, set[str]] = {name: set() for name in names.values()}
    for match in me.run(grep, stdin="\n".join(names).encode()).splitlines():
        path, _, line = match.partition("\0")
        if not path.startswith(CREDENTIALS):
            # The directory that the link `current` names.
            path = re.sub(
                r"^(/var/lib/enterprise-mcp/snapshots/[^/]+)/[^/]+/", r"\1/current/", path
            )
            on_disk[names[line]].add(path)

    allowed: dict[str, set[str]] = {name: set() for name in names.values()}
    for group, paths in ALLOWED.items():
        if me.name in installation.groups[group]:
            allowed |= paths
    assert on_disk == allowed


def test_files_with_secrets_are_for_one_account(
    host: Shell, me: Host, installation: Installation
) -> None:
    for group, names in ALLOWED.items():
        if me.name not in installation.groups[group]:
            continue
        for path in {path for paths in names.values() for path in paths}:
            file = host.file(path)
            assert (file.user, file.group, file.mode) == ("root", "root", 0o400), path
            assert host.file(str(PurePosixPath(path).parent)).mode == 0o700


def test_private_keys_are_for_their_service(host: Shell) -> None:
    keys = host.check_output("find /etc/enterprise-mcp/tls -name key.pem").split()

    assert keys
    for key in map(host.file, keys):
        reader = _KEY_READERS[PurePosixPath(key.path).parent.name]
        assert (key.mode, key.user, key.group) == (0o640, "root", reader), key.path
        assert "PRIVATE KEY" in key.content_string


def test_the_keys_of_authority_and_bundle_are_not_on_a_host(host: Shell) -> None:
    found = host.run(
        "grep -rlsIE -- '^-----BEGIN ([A-Z]+ )?PRIVATE KEY' "
        "/etc /opt /usr/local /home /root /tmp /var/lib /var/tmp /run /srv"
    ).stdout.split()

    strangers = [path for path in found if not path.startswith(OWN_KEYS)]
    assert strangers == []


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("command lines", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"),
        ("environments", "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"),
        ("units", "systemctl show '*.service' --no-pager"),
        ("journal", JOURNAL),
    ],
)
def test_no_secret_can_be_seen_by_looking_at(
    me: Host, installation: Installation, what: str, command: str
) -> None:
    assert me.lines_with(installation.secret_lines().values(), command) == 0, what


def test_no_secret_is_among_the_facts(me: Host, installation: Installation) -> None:
    facts = "cat /etc/ansible/facts.d/* /root/.ansible/* /home/*/.ansible/* 2>/dev/null"

    assert me.lines_with(installation.secret_lines().values(), facts) == 0


def test_the_controller_keeps_secrets_to_itself(installation: Installation) -> None:
    folders = {installation.secrets, installation.ca_file.parent}
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for name in SECRETS:
        assert stat.S_IMODE((installation.secrets / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((installation.ca_file.parent / "ca.key").stat().st_mode) == 0o600
