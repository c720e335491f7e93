"""Reading the audit log for a command: as OPA decides, recorded, and by a database role of its own."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server.audit.formats import FORMATS
from mcp_server.audit.search import Filter, stream
from mcp_server.cli.options import database_settings, fail
from mcp_server.settings import Secret, Settings, load_settings

if TYPE_CHECKING:
    import asyncpg

    from mcp_server.gate import Call
    from mcp_server.identity import Subject

__all__ = ["Access", "new_rows", "read", "write"]

_METHOD = "audit/read"
_LONGEST_S = 24 * 3600.0  # of one command, also with --follow
_STATEMENT_S = 600.0
# A row is committed a little later than its time says, which the server takes before.
_LATE = timedelta(seconds=15)
_POLL_S = 1.0
_Work = Callable[["asyncpg.Connection", Filter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Access:
    """How a command reads: the options that all of them share."""

    config: Path
    token_file: Path
    role: str
    password_file: Path
    database_ca: Path | None
    all_tenants: bool


async def new_rows(
    connection: asyncpg.Connection, which: Filter, shown: list[dict[str, Any]]
) -> AsyncIterator[dict[str, Any]]:
    """Yield rows as they are committed, after those that were shown."""
    seen = {row["event_id"]: row["time"] for row in shown}
    newest = max(seen.values(), default=datetime.now(UTC))
    # Older rows that were not shown come from before the first of them.
    begin: datetime | None = newest
    task = asyncio.current_task()
    while True:
        await asyncio.sleep(_POLL_S)
        if task is not None and task.cancelling():
            # asyncpg may lose a cancellation that arrives together with an answer.
            raise asyncio.CancelledError
        async for row in stream(connection, replace(which, since=newest - _LATE)):
            event, time = row["event_id"], row["time"]
            if event not in seen and (begin is None or time > begin):
                yield row
            seen[event] = time
        begin = None
        newest = max(seen.values(), default=newest)
        seen = {event: time for event, time in seen.items() if time >= newest - _LATE}


async def write(rows: AsyncIterator[dict[str, Any]], output: str, *, header: bool = True) -> None:
    form = FORMATS[output]
    if header and form.header is not None:
        sys.stdout.write(form.header + "\n")
    async for row in rows:
        sys.stdout.write(form.line(row) + "\n")
        if output == "table":
            sys.stdout.flush()
    sys.stdout.flush()


def read(access: Access, which: Filter, work: _Work) -> None:
    """Do the work with the rows that the policy lets the reader see."""
    from mcp_server.app import perform_once  # noqa: PLC0415
    from mcp_server.gate import Call, Failed, InternalError, Refused  # noqa: PLC0415
    from mcp_server.identity import AuthenticationError, IdentityUnavailable  # noqa: PLC0415
    from mcp_server.infrastructure.telemetry import configure_logs  # noqa: PLC0415
    from mcp_server.policy import Resource  # noqa: PLC0415

    settings = load_settings(access.config)
    configure_logs("ERROR")
    password = Secret(file=access.password_file).reveal()
    token = Secret(file=access.token_file).reveal()

    def plan(subject: Subject, node: str) -> tuple[Call, Callable[[], Awaitable[None]]]:
        own = which.tenant is None and not access.all_tenants
        judged = replace(which, tenant=subject.tenant) if own else which
        properties = {} if judged.tenant is None else {"tenant": judged.tenant}
        call = Call(
            _METHOD,
            Resource("server", node, properties),
            {**judged.arguments(), "account": getpass.getuser()},
            # It changes nothing, but it is recorded before the first row is shown, as a change is.
            changes=True,
            timeout_s=_LONGEST_S,
        )
        return call, lambda: _as_role(settings, access, password, judged, work)

    try:
        asyncio.run(perform_once(settings, token, plan))
    except (AuthenticationError, IdentityUnavailable) as error:
        fail(f"the token in {access.token_file} is not usable: {error}")
    except Refused as refusal:
        fail("; ".join(f"{each.message} ({each.solution})" for each in refusal.reasons))
    except (Failed, InternalError) as error:
        fail(error)


async def _as_role(
    settings: Settings, access: Access, password: str, which: Filter, work: _Work
) -> None:
    """Do the work over a connection of the role that reads.

    Raises:
        ToolError: PostgreSQL cannot be reached, or refuses.
    """
    import asyncpg  # noqa: PLC0415

    from mcp_server.infrastructure.database import DatabaseUnavailable, connect  # noqa: PLC0415
    from mcp_server.tools.catalog import ToolError  # noqa: PLC0415

    database = database_settings(settings.database, access.database_ca)
    try:
        connection = await connect(
            database, user=access.role, password=password, statement_timeout_s=_STATEMENT_S
        )
        try:
            await work(connection, which)
        finally:
            await connection.close()
    except BrokenPipeError:
        # The reader of the output, such as head, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except asyncpg.InsufficientPrivilegeError as error:
        raise ToolError(
            f"PostgreSQL refuses {access.role} to read: {error}; grant it USAGE on the schema audit and "
            "SELECT on audit.events"
        ) from None
    except (DatabaseUnavailable, asyncpg.PostgresError) as error:
        raise ToolError(str(error)) from None
