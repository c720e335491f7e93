"""Verifies the chains of the audit log, and that they lead to their signed heads."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from mcp_server.audit.chain import CHAIN_COLUMNS, FIRST, row_hash
from mcp_server.audit.heads import Head
from mcp_server.audit.record import COLUMNS

__all__ = ["Finding", "Report", "verify"]

_PREFETCH = 2000
# A head is signed every minute while a chain grows; a crash leaves the rows after the last one without.
_UNSIGNED = timedelta(minutes=2)
# A row's time is taken before it waits for its commit.
_WAIT = timedelta(seconds=30)
_DAY = timedelta(days=1)
_ROWS = (
    f"SELECT {', '.join((*CHAIN_COLUMNS, *COLUMNS))} FROM audit.events "  # noqa: S608 (constants)
    "WHERE time >= $1 AND time < $2 AND chain IS NOT NULL ORDER BY chain, seq, event_id"
)
_UNCHAINED = """
    SELECT node, count(*) AS rows, min(time) AS first, max(time) AS last FROM audit.events
    WHERE time >= $1 AND time < $2 AND chain IS NULL GROUP BY node
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Evidence that somebody changed, removed or added rows.

    Attributes:
        kind: changed, missing, cut_off, inserted, rewritten, unsigned, unchained or invalid_head.
    """

    kind: str
    message: str
    day: str = ""
    node: str = ""
    chain: str = ""


@dataclass(slots=True)
class Report:
    """The result of a verification.

    Attributes:
        unsigned: rows after the last signed head of chains that ended in a crash, or that still grow.
        expired: chains whose day is older than the retention, and that are gone.
    """

    rows: int = 0
    chains: int = 0
    heads: int = 0
    unsigned: int = 0
    expired: int = 0
    findings: list[Finding] = field(default_factory=list)


class _Heads:
    """The signed heads of one chain."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self.last = max(heads, key=lambda head: (head.seq, head.final, head.time))
        self.final = any(head.final for head in heads)
        self.hashes = {head.seq: bytes.fromhex(head.hash) for head in heads if head.seq}


async def verify(
    connection: asyncpg.Connection,
    heads: Iterable[Head],
    *,
    retention_days: int,
    now: datetime | None = None,
) -> Report:
    """Verify all rows, day after day.

    Args:
        heads: heads with verified signatures. For a node without heads, only the hashes within its
            chains are verified.
        retention_days: chains of older days may be gone.
    """
    now = now or datetime.now(UTC)
    of_chain: dict[uuid.UUID, list[Head]] = defaultdict(list)
    since: dict[str, datetime] = {}
    report = Report()
    for head in heads:
        of_chain[head.chain].append(head)
        since[head.node] = min(head.time, since.get(head.node, head.time))
        report.heads += 1
    known = {chain: _Heads(each) for chain, each in of_chain.items()}
    walk = _Walk(report, known, since, now)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        first, last = await connection.fetchrow("SELECT min(time), max(time) FROM audit.events")
        if first is not None:
            day = first.astimezone(UTC).date()
            while day <= last.astimezone(UTC).date():
                await walk.day(connection, day)
                day += _DAY
    walk.absent(now.date() - timedelta(days=retention_days))
    return report


class _Walk:
    """Goes through the rows in the order of their chains."""

    def __init__(
        self,
        report: Report,
        heads: Mapping[uuid.UUID, _Heads],
        since: Mapping[str, datetime],
        now: datetime,
    ) -> None:
        self._report = report
        self._heads = heads
        self._since = since
        self._now = now
        self._seen: set[uuid.UUID] = set()
        self._first_chained: dict[str, datetime] = {}

    async def day(self, connection: asyncpg.Connection, day: date) -> None:
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        span = (begin, begin + _DAY)
        chain: _ChainWalk | None = None
        links = len(CHAIN_COLUMNS)
        async for record in connection.cursor(_ROWS, *span, prefetch=_PREFETCH):
            identity, seq, stored = record[0], record[1], record[2]
            if chain is None or chain.id != identity:
                self._end(chain)
                chain = _ChainWalk(self._report, identity, day, self._heads.get(identity))
                self._seen.add(identity)
            time, node = record["time"], record["node"]
            self._first_chained[node] = min(time, self._first_chained.get(node, time))
            chain.row(seq, stored, tuple(record.values())[links:], time, node)
        self._end(chain)
        for record in await connection.fetch(_UNCHAINED, *span):
            begun = self._first_chained.get(record["node"])
            if begun is None and self._first_chained:
                # A node that never writes chained rows does not exist a day after the first ones.
                begun = min(self._first_chained.values()) + _DAY
            if begun is not None and record["last"] > begun:
                self._report.findings.append(
                    Finding(
                        "unchained",
                        f"rows without a chain up to {record['last']:%Y-%m-%d %H:%M:%S} UTC, after "
                        f"chained ones had begun at {begun:%Y-%m-%d %H:%M:%S}: no server wrote them",
                        str(day),
                        record["node"],
                    )
                )

    def _end(self, chain: _ChainWalk | None) -> None:
        if chain is not None:
            self._report.chains += 1
            chain.end(self._since, self._now)

    def absent(self, oldest: date) -> None:
        """Find chains that have signed heads and no rows."""
        for identity, heads in self._heads.items():
            head = heads.last
            if identity in self._seen or not head.seq:
                continue
            if date.fromisoformat(head.day) < oldest:
                self._report.expired += 1
                continue
            self._report.findings.append(
                Finding(
                    "cut_off",
                    f"a whole chain of {head.seq} rows is missing",
                    head.day,
                    head.node,
                    str(identity),
                )
            )


class _ChainWalk:
    """Goes through the rows of one chain."""

    def __init__(
        self, report: Report, identity: uuid.UUID, day: date, heads: _Heads | None
    ) -> None:
        self.id = identity
        self._report = report
        self._day = day
        self._heads = heads
        self._signed = heads.last.seq if heads else 0
        self._next = 1
        self._previous: bytes | None = FIRST
        self._node = ""
        self._first: datetime | None = None
        self._unsigned: list[datetime] = []

    def row(
        self, seq: int, stored: bytes, values: Sequence[Any], time: datetime, node: str
    ) -> None:
        self._report.rows += 1
        self._node = self._node or node
        self._first = self._first or time
        if seq < self._next:
            self._found("inserted", f"row {seq} exists twice, or precedes the first row")
            return
        if seq > self._next:
            self._found("missing", f"{_rows(self._next, seq - 1)} missing")
            self._previous = None
        # After a gap, the hash before is not known: the row is verified by the next one and the heads.
        if self._previous is not None and (
            row_hash(self._previous, self.id, seq, values) != stored
        ):
            self._found("changed", f"row {seq} of {time:%H:%M:%S.%f} UTC was changed")
        if self._heads and self._heads.hashes.get(seq, stored) != stored:
            self._found("rewritten", f"row {seq} has another hash than its signed head")
        if self._heads and seq > self._signed:
            self._unsigned.append(time)
            if len(self._unsigned) > 2:
                del self._unsigned[1]
            self._report.unsigned += 1
        self._previous, self._next = stored, seq + 1

    def end(self, since: Mapping[str, datetime], now: datetime) -> None:
        last = self._next - 1
        heads = self._heads
        if heads is None:
            begun = since.get(self._node)
            if begun is not None and self._first is not None and self._first > begun - _WAIT:
                self._found(
                    "inserted", f"{last} rows in a chain that node {self._node} never signed"
                )
            return
        if heads.last.seq > last:
            self._found("cut_off", f"{_rows(last + 1, heads.last.seq)} missing at the end")
        if not self._unsigned:
            return
        begin, end = self._unsigned[0], self._unsigned[-1]
        signed = heads.last.time
        if heads.final:
            self._found("inserted", f"{_rows(self._signed + 1, last)} after the end of the chain")
        elif begin < signed - _WAIT or end > min(signed + _UNSIGNED, now):
            self._found(
                "unsigned",
                f"{_rows(self._signed + 1, last)} without a signed head, which the node writes every "
                "minute",
            )

    def _found(self, kind: str, message: str) -> None:
        self._report.findings.append(
            Finding(kind, message, str(self._day), self._node, str(self.id))
        )


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"
