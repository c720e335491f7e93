"""The audit log in PostgreSQL: a record is committed before its call is answered.

Records of concurrent calls are committed in groups: while one group is being written, the next one
gathers. There is one writer with one connection. It links the rows in chains, whose heads it has signed
(`chain`, `heads`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import structlog

from mcp_server.audit.chain import CHAIN_COLUMNS, Chain, Chains
from mcp_server.audit.heads import HeadWriter
from mcp_server.audit.record import COLUMNS, AuditRecord
from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.infrastructure.telemetry import tracing

__all__ = ["AuditStore", "AuditUnavailable"]

_log = structlog.get_logger(__name__)

_GROUP_LIMIT = 128
_QUEUE_LIMIT = 4096
_PROBE_INTERVAL_S = 1.0
_SIGNING_INTERVAL_S = 60.0
# Rows of a day are committed until a little after its end.
_DAY_ENDED = timedelta(minutes=5)
_ALL_COLUMNS = COLUMNS | CHAIN_COLUMNS

# One statement, one round trip, one commit for a group: an array for each column. (COPY takes two
# round trips, and asyncpg 0.32 loses track of one that is cut off.)
_INSERT = (
    f"INSERT INTO audit.events ({', '.join(_ALL_COLUMNS)}) SELECT * FROM unnest("  # noqa: S608 (constants)
    + ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_ALL_COLUMNS.values(), start=1))
    + ")"
)


class AuditUnavailable(Exception):
    """The record may not be in the log, so the call must not get a successful answer."""


@dataclass(frozen=True, slots=True)
class _Pending:
    row: tuple[Any, ...]
    committed: asyncio.Future[None]


class AuditStore:
    """Writes audit records to audit.events.

    While PostgreSQL is down `healthy` is false and records are refused at once; a probe every second
    notices when it is back.

    Args:
        database: an open pool; the store keeps one of its connections.
        heads: signs the heads of the chains; None: they are not signed.
    """

    def __init__(self, database: Database, heads: HeadWriter | None = None) -> None:
        self._database = database
        self._heads = heads
        self._chains = Chains()
        self._signer: asyncio.Task[None] | None = None
        self._queue: deque[_Pending] = deque()
        self._wake = asyncio.Event()
        self._probed = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._up = False
        self._stopping = False
        self._trouble = "the audit log is not open"

    @property
    def healthy(self) -> bool:
        """Whether records are being committed."""
        return self._up and not self._stopping

    async def start(self) -> None:
        """Start the writer and wait for its first attempt to reach PostgreSQL, which may fail."""
        if self._writer is None:
            self._stopping = False
            self._probed.clear()
            self._writer = asyncio.create_task(self._run(), name="audit-writer")
            self._signer = asyncio.create_task(self._sign_heads(), name="audit-signer")
            await self._probed.wait()

    async def stop(self) -> None:
        """Refuse new records, commit the queued ones, and stop."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self._stopping = True
        self._trouble = "the audit log is closing"
        self._wake.set()
        _, late = await asyncio.wait([writer], timeout=self._database.timeout_s)
        for task in late:
            task.cancel()
            await asyncio.wait([task])
        self._refuse_waiting(self._trouble)
        if self._signer is not None:
            self._signer.cancel()
            await asyncio.wait([self._signer])
        for chain in self._chains:
            self._end(chain)

    async def commit(self, record: AuditRecord) -> None:
        """Return when the record's row is committed.

        The record of a caller that is cancelled meanwhile stays in the queue and is written.

        Raises:
            AuditUnavailable: it could not be written in time. If the connection was lost during the
                commit, the row may be there nevertheless.
        """
        if not self.healthy:
            raise AuditUnavailable(self._trouble)
        if len(self._queue) >= _QUEUE_LIMIT:
            raise AuditUnavailable(f"{_QUEUE_LIMIT} audit records are waiting to be written")
        pending = _Pending(record.row(), asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._wake.set()
        try:
            with tracing.span("audit.commit", {"audit.phase": record.phase.value}):
                async with asyncio.timeout(self._database.timeout_s):
                    await pending.committed
        except TimeoutError:
            raise AuditUnavailable(
                f"the audit record was not committed within {self._database.timeout_s:g} s"
            ) from None

    async def _run(self) -> None:
        while not self._stopping:
            finished = False
            try:
                async with self._database.connection() as connection:
                    # The INSERT without rows: it fails if a column or a privilege is missing, or if the
                    # database is read-only.
                    await connection.execute(_INSERT, *([] for _ in _ALL_COLUMNS))
                    # Detect a lost connection at once, and not with the next record.
                    connection.add_termination_listener(self._on_termination)
                    self._up = True
                    self._probed.set()
                    _log.info("audit_log_open")
                    try:
                        await self._write_groups(connection)
                        finished = True
                    finally:
                        with contextlib.suppress(asyncpg.InterfaceError):  # lost meanwhile
                            connection.remove_termination_listener(self._on_termination)
            except DatabaseUnavailable as error:
                self._close(str(error))
            except asyncpg.InsufficientPrivilegeError as error:
                self._close(
                    f"PostgreSQL refuses audit records: {error}; grant the server's role USAGE on the "
                    "schema audit and INSERT on audit.events"
                )
            except asyncpg.PostgresError as error:  # a full disk, a standby
                self._close(f"PostgreSQL refuses audit records: {error}")
            finally:
                self._up = False
                self._probed.set()
                if not finished:
                    self._abandon_chains()
            if not self._stopping:
                await asyncio.sleep(_PROBE_INTERVAL_S)

    async def _write_groups(self, connection: asyncpg.Connection) -> None:
        """Write groups until the store stops; a lost connection raises."""
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
                if not self._up:
                    raise DatabaseUnavailable("PostgreSQL closed the audit log's connection")
                continue
            group = [self._queue.popleft() for _ in range(min(len(self._queue), _GROUP_LIMIT))]
            try:
                await self._write_group(connection, group)
            except BaseException:
                for pending in group:
                    _refuse(pending, "the audit record could not be committed")
                raise

    async def _write_group(self, connection: asyncpg.Connection, group: Sequence[_Pending]) -> None:
        rows, ends = self._chains.link([pending.row for pending in group])
        for chain in self._chains:
            if chain.signed < 0:
                # Before its first row: every chain in the log is known to its node.
                self._sign(chain)
        try:
            await _insert(connection, rows)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            if len(group) == 1:
                _log.error("audit_record_refused", error=str(error))
                _refuse(group[0], f"PostgreSQL refuses the audit record: {error}")
                return
            # An invalid record must not prevent the other records of its group.
            for pending in group:
                await self._write_group(connection, [pending])
            return
        self._chains.advance(ends)
        for pending in group:
            if not pending.committed.done():
                pending.committed.set_result(None)

    async def _sign_heads(self) -> None:
        while True:
            await asyncio.sleep(_SIGNING_INTERVAL_S)
            for chain in self._chains:
                if chain.day < (datetime.now(UTC) - _DAY_ENDED).date():
                    self._end(chain)
                elif chain.seq != chain.signed:
                    self._sign(chain)

    def _sign(self, chain: Chain, *, final: bool = False) -> None:
        if self._heads is not None:
            self._heads.write(chain, final=final)

    def _end(self, chain: Chain) -> None:
        self._sign(chain, final=True)
        self._chains.forget(chain)

    def _abandon_chains(self) -> None:
        """Begin new chains: rows of the last group may be committed or not."""
        for chain in self._chains:
            self._sign(chain)
            self._chains.forget(chain)

    def _on_termination(self, _connection: asyncpg.Connection) -> None:
        self._up = False
        self._wake.set()

    def _close(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.error("audit_log_unavailable", error=trouble)
        self._trouble = trouble
        self._refuse_waiting(trouble)

    def _refuse_waiting(self, trouble: str) -> None:
        while self._queue:
            _refuse(self._queue.popleft(), trouble)


async def _insert(connection: asyncpg.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await connection.execute(_INSERT, *map(list, zip(*rows, strict=True)))


def _refuse(pending: _Pending, trouble: str) -> None:
    if not pending.committed.done():
        pending.committed.set_exception(AuditUnavailable(trouble))
