"""Redis: one port, one user, and the commands that this user is denied."""

from __future__ import annotations

import shlex

from tests.deploy.installation import Host, Installation

testinfra_hosts = ["ansible://redis"]

_COMMANDS = (
    # counters.py
    "ping evalsha script|load time zadd zcard zcount zrange zrem zremrangebyscore pexpire"
)
_CA = "/etc/enterprise-mcp/tls/ca.pem"
_PLAIN = """
import socket, sys
s = socket.create_connection((sys.argv[1], 6379), 10)
s.settimeout(10)
s.sendall(b"PING\\r\\n")
try:
    print(s.recv(100))
except OSError as error:
    print(error)
"""


def _as_server(me: Host, installation: Installation, *command: str) -> str:
    """Return Redis's answer to a command of the MCP servers' user."""
    cli = ["redis-cli", "-h", me.address, "--tls", "--cacert", _CA, "--no-auth-warning"]
    line = shlex.join([*cli, "--user", "mcp-server", "--askpass", *command])
    done = me.attempt(line, stdin=installation.secret("redis_password").encode() + b"\n")
    return (done.stdout + done.stderr).decode().strip()


def _config(me: Host, name: str) -> str:
    return me.run(f"redis-admin CONFIG GET {name}").splitlines()[-1]


def test_settings_in_force(me: Host) -> None:
    names = (
        *("port", "tls-port", "bind", "tls-protocols", "tls-auth-clients", "maxmemory-policy"),
        *("appendonly", "appendfsync", "protected-mode", "enable-debug-command", "save"),
    )

    assert {name: _config(me, name) for name in names} == {
        "port": "0",
        "tls-port": "6379",
        "bind": me.address,
        "tls-protocols": "TLSv1.2 TLSv1.3",
        "tls-auth-clients": "optional",
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "protected-mode": "yes",
        "enable-debug-command": "no",
        "save": "",
    }
    assert int(_config(me, "maxmemory")) > 0


def test_a_client_without_tls_gets_nothing(me: Host) -> None:
    answer = me.run(f"python3 - {me.address}", stdin=_PLAIN.encode())

    assert "PONG" not in answer
    assert "DENIED" not in answer


def test_a_client_without_a_password_gets_nothing(me: Host) -> None:
    done = me.attempt(f"redis-cli -h {me.address} --tls --cacert {_CA} PING")

    assert b"NOAUTH" in done.stdout + done.stderr


def test_users_are_exactly_these(me: Host) -> None:
    users = {}
    for line in me.run("redis-admin ACL LIST").splitlines():
        _, name, *rules = line.split()
        users[name] = {rule for rule in rules if not rule.startswith(("#", "sanitize-payload"))}

    assert users == {
        "default": {"off", "~mcp:*", "resetchannels", "-@all", "+@write"},
        "admin": {"on", "~*", "&*", "+@all"},
        "mcp-server": {
            *("on", "~mcp:*", "resetchannels", "-@all"),
            *(f"+{command}" for command in _COMMANDS.split()),
        },
    }


def test_the_servers_can_count(me: Host, installation: Installation) -> None:
    assert _as_server(me, installation, "ZADD", "mcp:window:deploy-test", "1", "a") in {"0", "1"}
    assert _as_server(me, installation, "ZCARD", "mcp:window:deploy-test") == "1"
    assert _as_server(me, installation, "PEXPIRE", "mcp:window:deploy-test", "1") == "1"


def test_the_servers_can_do_nothing_else(me: Host, installation: Installation) -> None:
    for command in (
        "KEYS *",
        "FLUSHALL",
        "CONFIG GET *",
        "ACL LIST",
        "EVAL return(1) 0",
        "SCRIPT FLUSH",
        "SHUTDOWN",
        "MONITOR",
        "CLIENT LIST",
        "ZCARD other:key",
        "DEL mcp:window:deploy-test",
    ):
        answer = _as_server(me, installation, *command.split())
        assert answer.startswith("NOPERM"), (command, answer)


def test_counters_survive_a_restart(me: Host) -> None:
    me.run("redis-admin SET mcp:deploy-test kept EX 600")
    try:
        me.systemctl("restart", "redis-server.service")
        assert me.run("redis-admin GET mcp:deploy-test").strip() == "kept"
    finally:
        me.run("redis-admin DEL mcp:deploy-test")


def test_a_new_certificate_is_used_without_a_restart(me: Host) -> None:
    before = me.main_pid("redis-server.service")
    tls = "/etc/enterprise-mcp/tls/redis"

    me.run(
        f"redis-admin CONFIG SET tls-cert-file {tls}/cert.pem tls-key-file {tls}/key.pem"
        f" tls-ca-cert-file {_CA}"
    )

    assert me.run("redis-admin PING").strip() == "PONG"
    assert me.main_pid("redis-server.service") == before


def test_the_server_cannot_change_its_configuration(me: Host) -> None:
    writable = me.run(
        "find /etc/redis /etc/enterprise-mcp/tls/redis \\( -user redis -o -perm /022 \\) -print"
    )

    assert writable == ""


def test_only_root_can_act_as_admin(me: Host) -> None:
    assert me.run("stat -c '%U %G %a' /etc/redis/admin-password").split() == ["root", "root", "600"]
    assert me.attempt("runuser -u redis -- /usr/local/sbin/redis-admin PING").returncode != 0
