"""The audit log as the tests write and read it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.deploy.installation import Host, Installation
from tests.integration.nodes import rpc

_PSQL = "psql -XAtq -v ON_ERROR_STOP=1 -h /run/postgresql -U postgres -d mcp -c"
CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "cmdb_query_assets", "arguments": {"limit": 1}},
}


def on_database(installation: Installation) -> Host:
    """Return the host of the database."""
    (host,) = installation.members("postgres")
    return host


def sql(installation: Installation, statement: str) -> str:
    """Return what a statement of the superuser answers."""
    return on_database(installation).run(f"{_PSQL} {shlex.quote(statement)}").strip()


async def make_calls(installation: Installation, user: str, count: int) -> None:
    """Make calls that succeed; each leaves two rows in the audit log, its intent and its outcome."""
    async with installation.http() as http:
        token = installation.token(user)
        for _ in range(count):
            answer = await rpc(http, CALL, Authorization=f"Bearer {token}")
            assert answer.status_code == 200, answer.text
            assert not answer.json()["result"].get("isError"), answer.text


async def error_of_call(installation: Installation, user: str) -> str:
    """Return the code of the error with which a call is refused, empty when it is answered."""
    async with installation.http() as http:
        answer = await rpc(http, CALL, Authorization=f"Bearer {installation.token(user)}")
        return str(answer.json().get("error", {}).get("data", {}).get("code", ""))


def audit_rows(installation: Installation, until: str = "infinity") -> dict[str, Any]:
    """Return the number of audit rows up to a time, and a digest of all that they hold."""
    found: dict[str, Any] = json.loads(
        sql(
            installation,
            "select json_build_object('rows', count(*), 'digest',"
            " md5(string_agg(md5(e::text), '' order by event_id, phase)))"
            f" from audit.events e where time <= '{until}'",
        )
    )
    return found


def now(installation: Installation) -> str:
    """Return the database's time as an operator writes it."""
    return sql(
        installation,
        """select to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    )


def wait_for_archive(installation: Installation) -> None:
    """Return when all that was written is in the archive."""
    check = "runuser -u postgres -- pgbackrest --stanza=mcp check"
    on_database(installation).run(check)
