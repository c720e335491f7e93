"""PostgreSQL: who gets in, how, and what they may do there."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.deploy.installation import Host, Installation

testinfra_hosts = ["ansible://postgres"]

# Speaks the first bytes of PostgreSQL's protocol, with and without TLS, and prints the server's answer.
_KNOCK = """
import socket, ssl, struct, sys
address, tls, user = sys.argv[1], sys.argv[2], sys.argv[3]
s = socket.create_connection((address, 5432), 10)
if tls != "off":
    s.sendall(struct.pack("!ii", 8, 80877103))
    print(s.recv(1).decode())
    context = ssl.create_default_context(cafile="/etc/enterprise-mcp/tls/ca.pem")
    if tls == "1.1":
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    s = context.wrap_socket(s, server_hostname=address)
body = struct.pack("!i", 196608) + b"user\\0" + user.encode() + b"\\0database\\0mcp\\0\\0"
s.sendall(struct.pack("!i", len(body) + 4) + body)
print(s.recv(4096).decode("latin-1").replace("\\0", " "))
"""


def _sql(me: Host, query: str, database: str = "mcp") -> list[dict[str, Any]]:
    """Return the rows of a query by the superuser."""
    wrapped = f"select coalesce(json_agg(answer), '[]') from ({query}) as answer"
    psql = f"psql -h /run/postgresql -U postgres -d {database} -v ON_ERROR_STOP=1 -XAtqf -"
    rows: list[dict[str, Any]] = json.loads(me.run(psql, stdin=wrapped.encode()))
    return rows


def _settings(me: Host, *names: str) -> dict[str, str]:
    wanted = ", ".join(f"'{name}'" for name in names)
    rows = _sql(me, f"select name, setting from pg_settings where name in ({wanted})")
    return {row["name"]: row["setting"] for row in rows}


def _refusal(me: Host, role: str, statement: str) -> str:
    """Return what PostgreSQL says to a statement of a role; it is rolled back when it works."""
    script = f"begin; set local role {role}; {statement}; rollback;"
    psql = "psql -h /run/postgresql -U postgres -d mcp -v ON_ERROR_STOP=1 -Xqf -"
    return me.attempt(psql, stdin=script.encode()).stderr.decode()


def _knock(host: Host, server: Host, tls: str, user: str) -> str:
    arguments = shlex.join([server.address, tls, user])
    return host.run(f"python3 - {arguments} 2>&1 || true", stdin=_KNOCK.encode())


def test_only_the_servers_may_connect_and_only_with_tls_and_a_password(
    me: Host, installation: Installation
) -> None:
    rules = _sql(
        me,
        "select type, database, user_name, address, netmask, auth_method, error"
        " from pg_hba_file_rules order by line_number",
    )

    addresses = [server.address for server in installation.members("mcp_servers")]
    assert rules == [
        {
            "type": "local",
            "database": ["all"],
            "user_name": ["postgres"],
            "address": None,
            "netmask": None,
            "auth_method": "peer",
            "error": None,
        },
        *(
            {
                "type": "hostssl",
                "database": ["mcp"],
                "user_name": ["mcp_owner", "mcp_server", "mcp_auditor"],
                "address": address,
                "netmask": "255.255.255.255",
                "auth_method": "scram-sha-256",
                "error": None,
            }
            for address in addresses
        ),
    ]


def test_a_server_without_tls_is_refused(me: Host, installation: Installation) -> None:
    for server in installation.members("mcp_servers"):
        assert "no encryption" in _knock(server, me, "off", "mcp_server")


def test_a_server_with_tls_is_asked_for_its_password_by_scram(
    me: Host, installation: Installation
) -> None:
    for server in installation.members("mcp_servers"):
        assert "SCRAM-SHA-256" in _knock(server, me, "on", "mcp_server")


def test_a_server_cannot_be_the_superuser(me: Host, installation: Installation) -> None:
    for server in installation.members("mcp_servers"):
        assert "no pg_hba.conf entry" in _knock(server, me, "on", "postgres")


def test_old_tls_is_refused(me: Host, installation: Installation) -> None:
    server = installation.members("mcp_servers")[0]

    answer = _knock(server, me, "1.1", "mcp_server")

    assert "SCRAM" not in answer
    assert "alert" in answer.lower() or "ssl" in answer.lower()


def test_other_hosts_are_refused(me: Host, installation: Installation) -> None:
    servers = installation.groups["mcp_servers"]
    with installation.without_firewalls():
        for name, host in installation.hosts.items():
            if name not in servers:
                assert "no pg_hba.conf entry" in _knock(host, me, "on", "mcp_server"), name


def test_settings_in_force(me: Host) -> None:
    settings = _settings(
        me,
        *("ssl", "ssl_min_protocol_version", "ssl_cert_file", "password_encryption"),
        *("data_checksums", "listen_addresses", "log_destination", "jit", "fsync"),
    )

    assert settings == {
        "ssl": "on",
        "ssl_min_protocol_version": "TLSv1.2",
        "ssl_cert_file": "/etc/enterprise-mcp/tls/postgres/cert.pem",
        "password_encryption": "scram-sha-256",
        "data_checksums": "on",
        "listen_addresses": me.address,
        "log_destination": "syslog",
        "jit": "off",
        "fsync": "on",
    }


def test_no_setting_waits_for_a_restart(me: Host) -> None:
    assert _sql(me, "select name from pg_settings where pending_restart") == []
    assert _sql(me, "select * from pg_file_settings where error is not null") == []


def test_roles_are_exactly_these(me: Host) -> None:
    roles = _sql(
        me,
        "select rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,"
        " left(rolpassword, 14) as hash from pg_authid where rolcanlogin order by rolname",
    )

    nothing = dict.fromkeys(
        ("rolsuper", "rolcreatedb", "rolcreaterole", "rolreplication", "rolbypassrls"), False
    )
    everything = dict.fromkeys(nothing, True)
    assert roles == [
        {"rolname": "mcp_auditor", **nothing, "hash": "SCRAM-SHA-256$"},
        {"rolname": "mcp_owner", **nothing, "hash": "SCRAM-SHA-256$"},
        {"rolname": "mcp_server", **nothing, "hash": "SCRAM-SHA-256$"},
        {"rolname": "postgres", **everything, "hash": None},
    ]


def test_the_database_is_for_its_roles(me: Host) -> None:
    rows = _sql(
        me,
        "select pg_get_userbyid(datdba) as owner,"
        " has_database_privilege('mcp_server', datname, 'CONNECT') as connect,"
        " has_database_privilege('mcp_server', datname, 'CREATE') as create,"
        " has_database_privilege('mcp_server', datname, 'TEMP') as temp,"
        " exists (select from aclexplode(datacl) where grantee = 0) as public"
        " from pg_database where datname = 'mcp'",
    )

    assert rows == [
        {"owner": "mcp_owner", "connect": True, "create": False, "temp": False, "public": False}
    ]


def test_the_servers_role_is_bound_in_time(me: Host) -> None:
    rows = _sql(
        me,
        "select unnest(setconfig) as setting from pg_db_role_setting"
        " where setrole = 'mcp_server'::regrole order by 1",
    )

    assert [row["setting"] for row in rows] == [
        "idle_in_transaction_session_timeout=30000ms",
        "lock_timeout=5000ms",
        "statement_timeout=10000ms",
    ]


def test_the_servers_role_can_add_to_the_audit_trail_and_not_change_it(me: Host) -> None:
    for statement in (
        "update audit.events set outcome = 'ok'",
        "delete from audit.events",
        "truncate audit.events",
        "select audit.maintain(1, 1)",
        "drop table audit.events",
        "create table public.mine (id integer)",
        "create schema mine",
    ):
        answer = _refusal(me, "mcp_server", statement)
        assert "permission denied" in answer or "must be owner" in answer, (statement, answer)
    assert _refusal(me, "mcp_server", "select count(*) from audit.events") == ""


def test_the_auditor_can_read_the_audit_trail_and_nothing_else(me: Host) -> None:
    for statement in (
        "insert into audit.events (time) values (now())",
        "update audit.events set outcome = 'ok'",
        "delete from audit.events",
        "select count(*) from cmdb.assets",
        "select count(*) from identity.api_keys",
        "create table public.mine (id integer)",
    ):
        answer = _refusal(me, "mcp_auditor", statement)
        assert "permission denied" in answer, (statement, answer)
    assert _refusal(me, "mcp_auditor", "select count(*) from audit.events") == ""
    assert _refusal(me, "mcp_auditor", "select count(*) from audit.questions") == ""


def test_the_audit_trail_has_a_partition_for_each_of_the_coming_days(me: Host) -> None:
    me.systemctl("start", "mcp-audit-maintenance.service")

    assert me.run("systemctl show -P Result mcp-audit-maintenance.service").strip() == "success"
    days = _sql(
        me,
        "select to_char(current_date + n, 'YYYYMMDD') as day,"
        " to_regclass('audit.events_' || to_char(current_date + n, 'YYYYMMDD')) is not null as there"
        " from generate_series(0, 7) as n",
    )
    assert [day["day"] for day in days if not day["there"]] == []


def test_the_maintenance_is_locked_in(me: Host) -> None:
    answer = me.run("systemd-analyze security --no-pager mcp-audit-maintenance.service")

    assert float(answer.rsplit(": ", 1)[1].split()[0]) <= 1.0


def test_the_key_is_for_the_server_to_read_and_not_to_change(me: Host) -> None:
    key = "/etc/enterprise-mcp/tls/postgres/key.pem"

    assert me.run(f"stat -c '%U %G %a' {key}").split() == ["root", "postgres", "640"]
