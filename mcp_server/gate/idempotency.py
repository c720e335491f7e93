"""Idempotency-Key: a change that a client sends again with the same key is made once, over all nodes.

The states of a key (draft-ietf-httpapi-idempotency-key-header-07), in PostgreSQL:

    absent       the change is made; the row was committed before
    in progress  until the deadline of the first request
    answered     the stored answer is returned
    unknown      the deadline has passed without an answer: the node crashed, or was cut off

The policy decides about a repeated request like about the first one, before its key is looked up. A key
belongs to one subject. Another request with the same key is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from mcp_server.gate.request import ToolAnswer
from mcp_server.identity import Subject
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.tools.catalog import InvalidArguments

__all__ = ["IdempotencyKey", "KeyConflict"]

# Time after the deadline of a tool until the node has certainly stored the answer.
_GRACE_S = 15.0

_PURGE = "DELETE FROM idempotency.requests WHERE expires_at <= now()"
_CLAIM = """
    INSERT INTO idempotency.requests
        (issuer, tenant, user_id, key, request_hash, node, running_until, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second', now() + interval '24 hours')
    ON CONFLICT DO NOTHING RETURNING true
"""
_READ = """
    SELECT request_hash, answer, ceil(extract(epoch FROM running_until - now()))::int AS running_s
    FROM idempotency.requests WHERE issuer = $1 AND tenant = $2 AND user_id = $3 AND key = $4
"""
_ANSWER = """
    UPDATE idempotency.requests SET answer = $5
    WHERE issuer = $1 AND tenant = $2 AND user_id = $3 AND key = $4 AND answer IS NULL
"""
_RELEASE = """
    UPDATE idempotency.requests SET expires_at = now()
    WHERE issuer = $1 AND tenant = $2 AND user_id = $3 AND key = $4 AND answer IS NULL
"""


class KeyConflict(Exception):
    """A request with a known key was not executed. The message is for the client.

    Attributes:
        kind: in_progress: the first request still runs; reused: the key belongs to another request;
            unknown: the first request ended without an answer; unavailable: the keys cannot be read.
        retry_after_s: seconds after which the same request may be answered; 0: never.
    """

    def __init__(
        self,
        kind: Literal["in_progress", "reused", "unknown", "unavailable"],
        message: str,
        *,
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key of one subject, for one change.

    Attributes:
        node: name of this node; informative only.
    """

    database: Database
    node: str
    subject: Subject
    key: str

    async def run(
        self,
        request: Any,
        timeout_s: float,
        work: Callable[[], Awaitable[ToolAnswer | InvalidArguments]],
    ) -> ToolAnswer | InvalidArguments | KeyConflict:
        """Do the work, or return the answer of the request that did.

        Args:
            request: what is asked for, as JSON values; another request must not have the same key.
            timeout_s: deadline of the work in seconds.
            work: makes the change. Its answer is stored, unless nothing was changed and the same request
                may be tried again. If it raises an error, the outcome is unknown.
        """
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).digest()
        try:
            known = await self._claim(digest, timeout_s)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            telemetry.log.warning("idempotency_unavailable", error=str(error))
            return KeyConflict(
                "unavailable",
                "the Idempotency-Key cannot be looked up now; the call was not made, try again",
                retry_after_s=2,
            )
        if known is not None:
            return _of_known(known, digest)
        answer = await work()
        if isinstance(answer, InvalidArguments) or answer.retryable:
            await self._store(_RELEASE)
        else:
            await self._store(_ANSWER, json.dumps(dataclasses.asdict(answer)))
        return answer

    @property
    def _row(self) -> tuple[str, str, str, str]:
        return (self.subject.issuer, self.subject.tenant, self.subject.id, self.key)

    async def _claim(self, digest: bytes, timeout_s: float) -> asyncpg.Record | None:
        """Insert a row, and return None; or return the row that is there."""
        async with self.database.connection() as connection:
            await connection.execute(_PURGE)
            # A row that expires between the statements is gone: insert once more.
            for _ in range(2):
                until_s = timeout_s + _GRACE_S
                if await connection.fetchval(_CLAIM, *self._row, digest, self.node, until_s):
                    return None
                if row := await connection.fetchrow(_READ, *self._row):
                    return row
        raise DatabaseUnavailable("the Idempotency-Key expired twice while it was looked up")

    async def _store(self, statement: str, *values: str) -> None:
        """Store the answer of a request, or release its key.

        If that fails, a repeated request gets `unknown`.
        """
        try:
            async with self.database.connection() as connection:
                await connection.execute(statement, *self._row, *values)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            telemetry.log.warning("idempotency_not_stored", error=str(error))


def _of_known(row: asyncpg.Record, digest: bytes) -> ToolAnswer | KeyConflict:
    if row["request_hash"] != digest:
        return KeyConflict(
            "reused",
            "this Idempotency-Key was used for another request; send a new key with each new request",
        )
    if row["answer"] is not None:
        return dataclasses.replace(ToolAnswer(**json.loads(row["answer"])), replayed=True)
    if row["running_s"] > 0:
        return KeyConflict(
            "in_progress",
            "the first request with this Idempotency-Key is still running; try again",
            retry_after_s=row["running_s"],
        )
    return KeyConflict(
        "unknown",
        "the first request with this Idempotency-Key ended without an answer, so the change may have "
        "been made; check the current state, then use a new key",
    )
