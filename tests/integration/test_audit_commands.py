"""`mcpctl audit` on a real node: decided by OPA, recorded, read by a role of its own."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from click.testing import CliRunner, Result

from mcp_server.audit.record import COLUMNS
from mcp_server.audit.search import Filter, stream
from mcp_server.cli import main
from mcp_server.cli.audit import Time
from mcp_server.infrastructure.database import connect
from mcp_server.settings import DatabaseSettings
from tests.integration.nodes import LegacyClient, McpNode
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Result]]
_ROWS = """
    INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method, user_id,
        tenant, tool, effect, outcome, client_ip, reasons, duration_ms)
    SELECT $1::timestamptz - make_interval(secs => n), gen_random_uuid(), $2 || '-' || n, 'outcome',
        'n1', 'mcp', 'tools/call', $2, $3, 'cmdb:query_assets', 'allow', 'ok', '198.51.100.7', '[]', n
    FROM generate_series(0, $4::integer - 1) AS n
"""


@pytest.fixture
def command(node: McpNode, postgres: PostgresServer, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of `mcpctl audit` for a subject with some roles and a tenant."""
    password = tmp_path / "auditor_password"
    password.write_text(postgres.auditor_password)

    def make(
        *words: str, roles: tuple[str, ...] = ("mcp:auditor",), tenant: str = "default"
    ) -> list[str]:
        token = tmp_path / f"token-{uuid4().hex}"
        token.write_text(node.token("auditor-1", roles, tenant=tenant))
        return [
            *(sys.executable, "-m", "mcp_server", "audit", words[0], "--config", str(node.config)),
            *("--token-file", str(token), "--password-file", str(password), *words[1:]),
        ]

    return make


@pytest.fixture
def audit(command: Callable[..., list[str]]) -> Run:
    async def run(*words: str, check: bool = True, **who: Any) -> Result:
        # In this process: to start another one takes longer than the command.
        arguments = command(*words, **who)[3:]
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert not check or done.exit_code == 0, done.stderr
        return done

    return run


@pytest.fixture
def user() -> str:
    """A user of whom no row exists yet."""
    return f"user-{uuid4().hex[:12]}"


async def _insert(
    owner: asyncpg.Connection, user: str, *, tenant: str = "default", rows: int = 3
) -> datetime:
    newest = datetime.now(UTC) - timedelta(minutes=1)
    await owner.execute(_ROWS, newest, user, tenant, rows)
    return newest


def _rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


async def test_a_call_is_found_by_every_filter_that_fits_and_by_none_that_does_not(
    node: McpNode, audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    async with node.http(node.token(user, ["nobody"])) as http:
        http.headers["X-Forwarded-For"] = "203.0.113.9"
        await LegacyClient(http).call("cmdb_query_assets")
    ((request_id,),) = await node_owner.fetch(
        "SELECT request_id FROM audit.events WHERE user_id = $1 AND effect = 'deny'", user
    )
    fitting = {
        "--tool": "cmdb:query_assets",
        "--method": "tools/call",
        "--effect": "deny",
        "--outcome": "denied",
        "--phase": "outcome",
        "--reason": "not_available",
        "--request-id": request_id,
        "--node": "node1",
        "--client": "203.0.113.0/24",
        "--tenant": "default",
        "--since": "10m",
    }
    words = [word for pair in fitting.items() for word in pair]

    found = await audit("search", "--user", user, *words, "--output", "json")

    (row,) = _rows(found.stdout)
    assert (row["request_id"], row["user_id"]) == (request_id, user)
    assert set(row) == set(COLUMNS)


@pytest.mark.parametrize(
    "other",
    [
        *({name: "other"} for name in ("tool", "method", "effect", "outcome", "phase", "reason")),
        *({name: "other"} for name in ("user", "tenant", "request_id", "node")),
        {"client": ip_network("198.51.100.8/32")},
        {"since": datetime(2099, 1, 1, tzinfo=UTC)},
        {"until": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_row_is_not_found_by_a_filter_that_does_not_fit(
    owner: asyncpg.Connection, other: dict[str, Any]
) -> None:
    await _insert(owner, "alice", rows=1)
    fitting = Filter(user="alice", client=ip_network("198.51.100.0/24"), node="n1")

    assert len([row async for row in stream(owner, fitting)]) == 1
    assert [row async for row in stream(owner, replace(fitting, **other))] == []


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("--effect", "limit", "'allow', 'deny', 'limited', 'approval_required'"),
        ("--outcome", "failed", "'ok', 'denied', 'limited', 'refused', 'unavailable', 'inv"),
        ("--phase", "end", "'intent', 'outcome'"),
    ],
)
@pytest.mark.parametrize("name", ["search", "export", "tail", "stats"])
async def test_a_value_that_no_row_can_have_is_refused(
    audit: Run, name: str, option: str, value: str, accepted: str
) -> None:
    refused = await audit(name, option, value, check=False)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"Invalid value for '{option}': '{value}' is not one of {accepted}" in refused.stderr


async def test_reading_is_recorded_before_the_first_row_is_shown(
    audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    await _insert(node_owner, user)

    shown = await audit("export", "--user", user)

    assert len(_rows(shown.stdout)) == 3
    rows = await node_owner.fetch(
        "SELECT * FROM audit.events WHERE method = 'audit/read' AND arguments ->> 'user' = $1"
        " ORDER BY time",
        user,
    )
    assert [(row["phase"], row["outcome"]) for row in rows] == [("intent", None), ("outcome", "ok")]
    for row in rows:
        assert (row["user_id"], row["transport"], row["effect"]) == ("auditor-1", "cli", "allow")
        assert json.loads(row["arguments"])["tenant"] == "default"


@pytest.mark.parametrize(
    ("roles", "tenant", "words", "told"),
    [
        (("mcp:viewer",), "default", (), "your roles do not permit this method"),
        (("mcp:auditor",), "acme", ("--all-tenants",), "of your own tenant only"),
        (("mcp:auditor",), "acme", ("--tenant", "default"), "of your own tenant only"),
    ],
    ids=["without the permission", "all tenants", "another tenant"],
)
async def test_what_the_policy_refuses_is_not_shown_and_is_recorded(
    audit: Run,
    user: str,
    node_owner: asyncpg.Connection,
    roles: tuple[str, ...],
    tenant: str,
    words: tuple[str, ...],
    told: str,
) -> None:
    await _insert(node_owner, user)

    refused = await audit("export", "--user", user, *words, check=False, roles=roles, tenant=tenant)

    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert told in refused.stderr
    (row,) = await node_owner.fetch(
        "SELECT * FROM audit.events WHERE method = 'audit/read' AND arguments ->> 'user' = $1", user
    )
    assert (row["phase"], row["effect"], row["outcome"]) == ("outcome", "deny", "denied")


async def test_a_reader_sees_its_own_tenant_and_a_listed_tenant_sees_all(
    audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    for tenant in ("acme", "default"):
        await _insert(node_owner, user, tenant=tenant, rows=2)

    own = await audit("export", "--user", user, tenant="acme")
    operators = await audit("export", "--user", user, "--all-tenants")

    assert {row["tenant"] for row in _rows(own.stdout)} == {"acme"}
    assert [row["tenant"] for row in _rows(operators.stdout)].count("acme") == 2
    assert len(_rows(operators.stdout)) == 4


async def test_the_formats_hold_the_same_rows(
    audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    newest = await _insert(node_owner, user)

    lines = {
        output: (await audit("export", "--user", user, "--output", output)).stdout
        for output in ("json", "csv", "ocsf", "table")
    }

    rows = _rows(lines["json"])
    assert [row["duration_ms"] for row in rows] == [2.0, 1.0, 0.0]
    assert rows[-1]["time"] == newest.isoformat(timespec="microseconds").replace("+00:00", "Z")
    from_csv = list(csv.DictReader(io.StringIO(lines["csv"])))
    assert [row["event_id"] for row in from_csv] == [row["event_id"] for row in rows]
    events = _rows(lines["ocsf"])
    assert [event["metadata"]["uid"] for event in events] == [row["event_id"] for row in rows]
    assert {event["type_uid"] for event in events} == {600302}
    table = lines["table"].splitlines()
    assert table[0].startswith("TIME")
    assert [line.split()[1] for line in table[1:]] == [user] * 3


async def test_search_shows_the_newest_first_and_at_most_the_limit(
    audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    await _insert(node_owner, user, rows=5)

    found = await audit("search", "--user", user, "--limit", "2", "--output", "json")

    assert [row["duration_ms"] for row in _rows(found.stdout)] == [0.0, 1.0]


async def test_show_has_every_row_of_a_request_in_full(
    node: McpNode, audit: Run, user: str, assets: None
) -> None:
    async with node.http(node.token(user, ["mcp:operator"])) as http:
        http.headers["X-Request-ID"] = uuid4().hex
        await LegacyClient(http).call(
            "cmdb_update_asset_status",
            {"asset_id": "db1", "status": "maintenance", "reason": "upgrade of the disk"},
        )
    found = await audit("search", "--user", user, "--phase", "intent", "--output", "json")
    (intent,) = _rows(found.stdout)

    shown = await audit("show", intent["request_id"])

    first, second = (json.loads(part) for part in shown.stdout.replace("}\n{", "}\0{").split("\0"))
    assert first == intent
    assert second["phase"] == "outcome"
    assert second["arguments"]["asset_id"] == "db1"


async def test_show_names_the_option_with_which_rows_without_a_tenant_are_read(
    audit: Run, user: str, node_owner: asyncpg.Connection
) -> None:
    await node_owner.execute(
        "INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method)"
        " VALUES (now(), gen_random_uuid(), $1, 'outcome', 'node1', 'rest', 'sign_in')",
        user,
    )
    none = "no row of request {} among those that you may read"

    own = await audit("show", user)
    every = await audit("show", user, "--all-tenants")
    absent = await audit("show", f"{user}-absent", "--all-tenants")

    option = "; --all-tenants reads those of other tenants and of none too\n"
    assert (own.stdout, own.stderr) == ("", none.format(user) + option)
    assert json.loads(every.stdout)["request_id"] == user
    assert (absent.stdout, absent.stderr) == ("", none.format(f"{user}-absent") + "\n")


async def test_an_answer_of_a_tool_is_proven_by_its_digest(
    node: McpNode, user: str, node_owner: asyncpg.Connection, assets: None
) -> None:
    async with node.http(node.token(user)) as http:
        answer = await LegacyClient(http).call("cmdb_query_assets", {"limit": 1})
    seen = answer["result"]["content"][0]["text"].encode()

    row = await node_owner.fetchrow(
        "SELECT result_sha256, result_bytes FROM audit.events WHERE user_id = $1"
        " AND method = 'tools/call'",
        user,
    )

    assert tuple(row) == (hashlib.sha256(seen).digest(), len(seen))


async def test_stats_count_the_rows(audit: Run, user: str, node_owner: asyncpg.Connection) -> None:
    await _insert(node_owner, user, rows=4)

    counted = await audit("stats", "--user", user, "--by", "outcome", "--output", "json")
    table = await audit("stats", "--user", user, "--by", "reason")

    assert _rows(counted.stdout) == [{"outcome": "ok", "rows": 4, "p50_ms": 1.5, "p95_ms": 2.85}]
    assert table.stdout.splitlines()[1].split() == ["4", "1.5", "2.9", "-"]


async def test_verify_needs_the_rows_of_all_tenants_and_tells_what_it_finds(
    audit: Run, user: str, node: McpNode, node_owner: asyncpg.Connection
) -> None:
    async with node.http(node.token(user)) as http:
        await LegacyClient(http).call("cmdb_query_assets")
    # A row that no server wrote.
    await node_owner.execute(
        "INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method)"
        " VALUES (now(), gen_random_uuid(), 'r', 'outcome', 'node1', 'mcp', 'ping')"
    )

    refused = await audit("verify", check=False, tenant="acme")
    found = await audit("verify", "--output", "json", check=False)
    text = await audit("verify", check=False)

    assert "of your own tenant only" in refused.stderr
    assert found.exit_code == text.exit_code == 1
    (report,) = _rows(found.stdout)
    assert report["rows"] > 0
    assert "unchained" in {finding["kind"] for finding in report["findings"]}
    assert "changed" not in {finding["kind"] for finding in report["findings"]}
    assert text.stdout.splitlines()[-1].endswith(f"{len(report['findings'])} findings")


async def test_tail_follows_new_rows_until_it_is_interrupted(
    command: Callable[..., list[str]], user: str, node_owner: asyncpg.Connection
) -> None:
    await _insert(node_owner, user, rows=3)
    following = subprocess.Popen(  # noqa: ASYNC220 (read by this test alone)
        # A shell starts what runs in its background with SIGINT ignored, this test as well.
        [
            "env",
            "--default-signal=INT",
            *command("tail", "--follow", "--lines", "2", "--user", user),
        ],
        stdout=subprocess.PIPE,
        text=True,
        # As in a terminal: its output is a pipe here, and must not wait in a buffer.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert following.stdout is not None
    try:
        shown = [following.stdout.readline() for _ in range(3)]
        await node_owner.execute(_ROWS, datetime.now(UTC), user, "default", 1)
        shown.append(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        rest = following.communicate(timeout=120)[0]
    finally:
        following.kill()
        following.wait()

    assert [line.split()[7] for line in shown[1:]] == [f"{user}-1", f"{user}-0", f"{user}-0"]
    assert rest == ""
    outcomes = await node_owner.fetch(
        "SELECT outcome FROM audit.events WHERE method = 'audit/read' AND phase = 'outcome'"
        " AND arguments ->> 'user' = $1",
        user,
    )
    assert [row["outcome"] for row in outcomes] == ["cancelled"]


async def test_an_export_streams_in_constant_memory(
    command: Callable[..., list[str]], user: str, node_owner: asyncpg.Connection
) -> None:
    def peak_kb(*words: str) -> tuple[int, int]:
        with subprocess.Popen(command(*words), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = sum(1 for _ in process.stdout)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return lines, usage.ru_maxrss

    await _insert(node_owner, user, rows=60_000)

    few = peak_kb("export", "--user", user, "--since", "5m")
    many = peak_kb("export", "--user", user, "--since", "2d")

    assert many[0] == 60_000
    assert few[0] < 1000
    # 60,000 rows as objects would take 100 MB.
    assert many[1] - few[1] < 25_000


def test_a_closed_pipe_ends_an_export_without_an_error(
    command: Callable[..., list[str]],
) -> None:
    with subprocess.Popen(
        command("export", "--all-tenants", "--since", "2d"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("search", "--since", "yesterday"), "'yesterday' is no time; write 2026-11-30"),
        (("search", "--client", "10.0.0.0/33"), "write an address or a CIDR block"),
        (("search", "--all-tenants", "--tenant", "x"), "exclude each other"),
        (("search", "--role", "mcp_owner"), "does not let the role in"),
    ],
    ids=["time", "address", "two tenants", "another role"],
)
async def test_a_wrong_option_is_explained(audit: Run, words: tuple[str, ...], told: str) -> None:
    refused = await audit(*words, check=False)

    assert refused.exit_code != 0
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_a_token_that_is_not_valid_reads_nothing(audit: Run, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    forged.write_text("a.b.c")

    refused = await audit("search", "--token-file", str(forged), check=False)

    assert refused.exit_code == 1
    assert "is not usable" in refused.stderr


async def test_the_role_that_reads_can_do_nothing_else(
    postgres: PostgresServer, database_settings: DatabaseSettings
) -> None:
    connection = await connect(
        database_settings, user=postgres.auditor, password=postgres.auditor_password
    )
    try:
        assert await connection.fetchval("SELECT count(*) FROM audit.events") == 0
        assert await connection.fetchval("SELECT count(*) FROM audit.questions") == 0
        await connection.execute("SET default_transaction_read_only = off")
        for statement in (
            "DELETE FROM audit.events",
            "UPDATE audit.events SET outcome = 'ok'",
            "INSERT INTO audit.events (time) VALUES (now())",
            "SELECT audit.maintain(1, 1)",
            "SELECT * FROM cmdb.assets",
            "SELECT * FROM identity.api_keys",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


def test_times_are_absolute_or_an_age() -> None:
    read = Time().convert

    assert read("2026-11-30", None, None) == datetime(2026, 11, 30, tzinfo=UTC)
    assert read("2026-11-30T09:00:00+01:00", None, None) == datetime(2026, 11, 30, 8, tzinfo=UTC)
    for text, seconds in {"90s": 90, "15m": 900, "2h": 7200, "7d": 604_800}.items():
        then = read(text, None, None).timestamp()
        ago = time.time() - then
        assert seconds <= ago < seconds + 60
