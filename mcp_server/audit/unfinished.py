"""Marks changes whose outcome was never recorded as `unknown`.

A change keeps an intent without an outcome when its process is killed, or when the audit log is lost
while it runs. Any node then adds an outcome row with the fields of the intent and the outcome `unknown`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from mcp_server.audit.record import AuditReason, AuditRecord, Outcome, Phase
from mcp_server.audit.store import AuditStore, AuditUnavailable
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.redaction import RedactedArguments

__all__ = ["UNKNOWN", "Unfinished"]

UNKNOWN: Outcome = "unknown"
"""The outcome of a change of which nobody knows whether it was made."""

_INTERVAL_S = 15.0
# After the deadline of a call its outcome still waits for the log, and the clocks of nodes differ.
_GRACE = timedelta(seconds=15)
_FIRST_LOOK = timedelta(days=7)
_LATER_LOOKS = timedelta(hours=1)
_LIMIT = 500  # intents of one look
# Key of the advisory lock; arbitrary, and used for nothing else in the database.
_LOCK = 5_402_216_081_114_237_002
# Rows without a chain come from releases whose outcomes do not name their intent. `audit/read` may take
# as long as its reader follows the log.
_ORPHANS = """
    SELECT intent.* FROM audit.events AS intent
    WHERE phase = 'intent' AND chain IS NOT NULL AND method <> 'audit/read'
        AND time >= $1 AND time < $2
        AND NOT EXISTS (
            SELECT FROM audit.events AS outcome
            WHERE outcome.intent_id = intent.event_id AND outcome.time >= $1)
    ORDER BY time LIMIT $3
"""


class Unfinished:
    """Marks overdue intents as `unknown`, at the start and every 15 seconds.

    Args:
        node: this node's name.
        longest_s: returns the longest deadline of a call, by the name of its tool.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditStore,
        *,
        node: str,
        longest_s: Callable[[str | None], float],
    ) -> None:
        self._database = database
        self._audit = audit
        self._node = node
        self._longest_s = longest_s
        self._look_back = _FIRST_LOOK
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Start to look, in the background."""
        self._task = asyncio.create_task(self._run(), name="audit-unfinished")

    async def __aexit__(self, *_: object) -> None:
        """Stop looking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def mark(self) -> int:
        """Add the outcome `unknown` to each intent that is overdue; return their number.

        One node at a time does so: another one that looks meanwhile marks nothing.

        Raises:
            DatabaseUnavailable, AuditUnavailable: the log cannot be read or written.
        """
        now = datetime.now(UTC)
        marked = 0
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return 0
            since, until = now - self._look_back, now - _GRACE
            intents = await connection.fetch(_ORPHANS, since, until, _LIMIT)
            for intent in intents:
                deadline = timedelta(seconds=self._longest_s(intent["tool"]))
                if intent["time"] + deadline < until:
                    await self._audit.commit(self._outcome(intent, now))
                    marked += 1
        telemetry.AUDIT_UNKNOWN.inc(marked)
        if len(intents) < _LIMIT:
            self._look_back = _LATER_LOOKS
        return marked

    async def _run(self) -> None:
        while True:
            if self._audit.healthy:
                try:
                    marked = await self.mark()
                except (DatabaseUnavailable, AuditUnavailable, asyncpg.PostgresError) as error:
                    telemetry.log.warning("unknown_outcomes_not_marked", error=str(error))
                else:
                    if marked:
                        telemetry.log.error("unknown_outcomes", changes=marked)
            await asyncio.sleep(_INTERVAL_S)

    def _outcome(self, intent: Any, now: datetime) -> AuditRecord:
        return AuditRecord(
            time=now,
            event_id=uuid.uuid4(),
            request_id=intent["request_id"],
            phase=Phase.OUTCOME,
            node=self._node,
            transport=intent["transport"],
            method=intent["method"],
            user_id=intent["user_id"],
            tenant=intent["tenant"],
            tool=intent["tool"],
            # They were redacted before they were written.
            arguments=RedactedArguments(intent["arguments"]),
            client_ip=intent["client_ip"],
            user_agent=intent["user_agent"],
            effect=intent["effect"],
            reasons=[AuditReason(**reason) for reason in json.loads(intent["reasons"])],
            policy_revision=intent["policy_revision"],
            outcome=UNKNOWN,
            intent_id=intent["event_id"],
        )
