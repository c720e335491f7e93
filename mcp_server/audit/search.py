"""Reads rows of the audit log: filters, streams in constant memory, and counts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import asyncpg

from mcp_server.audit.record import COLUMNS

__all__ = ["GROUPS", "Filter", "count", "stream"]

_PREFETCH = 1000  # rows of one round trip
_JSON = tuple(name for name, kind in COLUMNS.items() if kind == "jsonb")

GROUPS = {
    "user": "coalesce(user_id, '')",
    "tenant": "coalesce(tenant, '')",
    "tool": "coalesce(tool, '')",
    "method": "method",
    "effect": "coalesce(effect, '')",
    "outcome": "coalesce(outcome, '')",
    "node": "node",
    "client": "coalesce(host(client_ip), '')",
    "reason": "coalesce(reason ->> 'code', '')",
    "hour": "to_char(date_trunc('hour', time AT TIME ZONE 'UTC'), 'YYYY-MM-DD\"T\"HH24:MI\"Z\"')",
    "day": "to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
"""SQL expressions by which `count` groups rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows to read; None: all.

    Attributes:
        since: the first time.
        until: the first time that is not included.
        reason: the code of one of the row's reasons.
        client: the network of the client's address.
    """

    since: datetime | None = None
    until: datetime | None = None
    user: str | None = None
    tenant: str | None = None
    tool: str | None = None
    method: str | None = None
    effect: str | None = None
    outcome: str | None = None
    phase: str | None = None
    reason: str | None = None
    request_id: str | None = None
    node: str | None = None
    client: IPv4Network | IPv6Network | None = None

    def arguments(self) -> dict[str, str]:
        """Return the given parts as text, for the policy and the audit row of the reading."""
        given = {name: getattr(self, name) for name in Filter.__slots__}
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in given.items()
            if value is not None
        }

    def sql(self) -> tuple[str, list[Any]]:
        """Return the condition, and its parameters from $1 on."""
        reasons = None if self.reason is None else json.dumps([{"code": self.reason}])
        parts = [
            ("time >= {}", self.since),
            ("time < {}", self.until),
            ("user_id = {}", self.user),
            ("tenant = {}", self.tenant),
            ("tool = {}", self.tool),
            ("method = {}", self.method),
            ("effect = {}", self.effect),
            ("outcome = {}", self.outcome),
            ("phase = {}", self.phase),
            ("reasons @> {}::jsonb", reasons),
            ("request_id = {}", self.request_id),
            ("node = {}", self.node),
            ("client_ip <<= {}::cidr", self.client),
        ]
        given = [(condition, value) for condition, value in parts if value is not None]
        conditions = [
            condition.format(f"${number}") for number, (condition, _) in enumerate(given, start=1)
        ]
        return " AND ".join(conditions) or "true", [value for _, value in given]


async def stream(
    connection: asyncpg.Connection,
    which: Filter,
    *,
    order: Literal["oldest", "newest"] = "oldest",
    limit: int | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows of `audit.events` as `COLUMNS` names them, JSON columns as values.

    They are read with a cursor in one transaction: one state of the log, in constant memory.

    Args:
        order: by time.
        limit: rows at most; None: all.
    """
    condition, values = which.sql()
    direction = "ASC" if order == "oldest" else "DESC"
    query = (
        f"SELECT {', '.join(COLUMNS)} FROM audit.events WHERE {condition} "  # noqa: S608 (constants)
        f"ORDER BY time {direction}, event_id {direction}"
    )
    if limit is not None:
        query += f" LIMIT {limit:d}"
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for record in connection.cursor(query, *values, prefetch=_PREFETCH):
            row = dict(record)
            for name in _JSON:
                if row[name] is not None:
                    row[name] = json.loads(row[name])
            yield row


async def count(
    connection: asyncpg.Connection, which: Filter, by: str, *, limit: int
) -> list[dict[str, Any]]:
    """Return the number of rows for each value of `by` (a key of `GROUPS`), the most frequent first.

    Each row has the value, the number of rows, and the 50th and 95th percentile of `duration_ms`.
    """
    condition, values = which.sql()
    source = "audit.events"
    if by == "reason":
        source += " LEFT JOIN LATERAL jsonb_array_elements(reasons) AS reason ON true"
    rows = await connection.fetch(
        f"SELECT {GROUPS[by]} AS value, count(*) AS rows, "  # noqa: S608 (constants)
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms, "
        "percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms "
        f"FROM {source} WHERE {condition} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit:d}",
        *values,
    )
    return [
        {
            by: row["value"],
            "rows": row["rows"],
            **{name: row[name] and round(row[name], 3) for name in ("p50_ms", "p95_ms")},
        }
        for row in rows
    ]
