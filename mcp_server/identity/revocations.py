"""Revoked tokens: every node reads the list in PostgreSQL every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import asyncpg
import structlog

from mcp_server.identity.subject import AuthenticationError, IdentityUnavailable, Subject
from mcp_server.infrastructure.database import Database, DatabaseUnavailable

__all__ = ["MAX_REVOCATIONS", "Revocations"]

# A revocation is in force on every node this many seconds after its commit, and one query.
_INTERVAL_S = 2.0
MAX_REVOCATIONS = 10_000
"""Maximum rows in force; with more, nothing is known and no token is accepted."""
_READ = """
    SELECT issuer, user_id, token_id,
        CASE WHEN token_id IS NULL THEN extract(epoch FROM max(revoked_at))::float8
        ELSE 'Infinity' END AS until
    FROM identity.revocations WHERE expires_at > now()
    GROUP BY issuer, user_id, token_id LIMIT $1
"""

_log = structlog.stdlib.get_logger("mcp_server")

_Row = tuple[str | None, str | None, str | None]


class Revocations:
    """The revocations in force.

    Args:
        max_age_s: seconds for which the list is used if it cannot be read; then no token is accepted,
            because each may be revoked.
    """

    def __init__(self, database: Database, *, max_age_s: float) -> None:
        self._database = database
        self._max_age_s = max_age_s
        self._revoked: Mapping[_Row, float] = {}
        self._read_at: float | None = None
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the list, then again in the background; the database need not be up."""
        await self._read()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def check(self, subject: Subject) -> None:
        """Return if the subject's token is not revoked; this never waits.

        Raises:
            AuthenticationError: it is revoked.
            IdentityUnavailable: the list could not be read for too long.
        """
        if self._read_at is None or time.monotonic() - self._read_at > self._max_age_s:
            raise IdentityUnavailable("the revoked tokens cannot be read at the moment; try again")
        if self._revoked and any(
            subject.issued_at <= self._revoked.get(row, -1.0) for row in _rows_about(subject)
        ):
            raise AuthenticationError("the token was revoked; sign in again")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self._read()

    async def _read(self) -> None:
        began = time.monotonic()
        try:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_READ, MAX_REVOCATIONS + 1)
        except (DatabaseUnavailable, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._failed(str(error))
            return
        if len(rows) > MAX_REVOCATIONS:
            self._failed(f"there are more than {MAX_REVOCATIONS}")
            return
        self._revoked = {
            (row["issuer"], row["user_id"], row["token_id"]): row["until"] for row in rows
        }
        self._read_at, self._failing = began, False

    def _failed(self, why: str) -> None:
        if not self._failing:
            _log.warning("revocations_not_read", error=why)
        self._failing = True


def _rows_about(subject: Subject) -> list[_Row]:
    issuer, user, token = subject.issuer, subject.id, subject.token_id
    rows: list[_Row] = [(issuer, None, None), (None, user, None), (issuer, user, None)]
    if token:
        rows += [(None, None, token), (issuer, None, token), (None, user, token)]
        rows.append((issuer, user, token))
    return rows
